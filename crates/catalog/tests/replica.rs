//! Versions that go by the topic arrive whole, or not at all.

use std::{fs, path::PathBuf};

use catalog::{Catalog, Folder, Removes, Replica, SecretRef, apply, receive};
use domain::event::{CatalogEntry, CatalogKind};

const ID: &str = "00112233445566778899aabbccddeeff";
const ANOTHER_ID: &str = "ffeeddccbbaa99887766554433221100";
const KEYS: u64 = 7;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("a.secret"), "0123456789abcdef").expect("writable");
        Self { folder }
    }

    fn versions(&self) -> PathBuf {
        self.folder.path().join("data/catalog")
    }

    fn apply(&self, offers: &str, links: &str, id: &str) {
        let text = format!(
            "[network]\ncurrency = \"USD\"\ntimezone = \"America/New_York\"\n[domain.\"go.example\"]\n\
             [advertiser.a]\nname = \"A & Sons\"\npostback.secret = \"file:a.secret\"\n{offers}\n{links}"
        );
        let path = self.folder.path().join("catalog.toml");
        fs::write(&path, text).expect("writable");
        apply(&path, &self.versions(), id, Removes::Many).expect("good");
    }
}

const BOOTS: &str = "[offer.boots]\nadvertiser = \"a\"\nto = \"https://shop.example/{sub1}\"\ngoal.sale = { revenue = \"12 %\", payout = \"8 %\" }\n[affiliate.t]\noffers = [\"boots\"]";
const SHOES: &str = "[offer.shoes]\nwas = \"boots\"\nadvertiser = \"a\"\nto = \"https://shop.example/{sub1}\"\ngoal.sale = { revenue = \"12 %\", payout = \"20 %\" }\n[affiliate.t]\noffers = [\"shoes\"]";

/// Publishes every version of a folder; what was sent for each.
fn publish(folder: &Folder, replica: &mut Replica) -> Vec<Vec<CatalogEntry>> {
    let mut sent = Vec::new();
    for number in folder.numbers() {
        let catalog = folder.published(number).expect("whole");
        let entries = replica.missing(&catalog);
        let parent = replica.last().map_or(0, |last| last.version);
        for entry in entries.clone() {
            replica.take_entry(entry);
        }
        replica.take_version(catalog.closing(parent, KEYS, 1));
        sent.push(entries);
    }
    sent
}

#[test]
fn every_version_is_put_together_again_from_what_differs() {
    let bench = Bench::new();
    bench.apply(
        BOOTS,
        "[link.fall]\naffiliate = \"t\"\noffer = \"boots\"\nsub2 = \"mail\"",
        ID,
    );
    bench.apply(
        SHOES,
        "[link.winter]\nwas = \"fall\"\naffiliate = \"t\"\noffer = \"shoes\"",
        ID,
    );
    bench.apply(SHOES, "", ID);
    let folder = Folder::open(bench.versions()).expect("there");
    let mut replica = Replica::default();
    let sent = publish(&folder, &mut replica);
    let said = |entries: &[CatalogEntry]| -> Vec<String> {
        let said = entries.iter().map(|entry| {
            let kind = entry
                .kind()
                .as_str_name()
                .trim_start_matches("CATALOG_KIND_");
            let gone = if entry.gone { " gone" } else { "" };
            format!("{kind} {} {}{gone}", entry.number, entry.name)
        });
        said.collect()
    };
    assert_eq!(
        said(&sent[0]),
        [
            "DOMAIN 1 go.example",
            "ADVERTISER 1 a",
            "OFFER 1 boots",
            "GOAL 1 sale",
            "AFFILIATE 1 t",
            "LINK 1 fall"
        ]
    );
    // The affiliate's list is of numbers: a rename does not touch it.
    assert_eq!(said(&sent[1]), ["OFFER 1 shoes", "LINK 1 winter"]);
    assert_eq!(said(&sent[2]), ["LINK 1 winter gone"]);

    // The other machine: no catalog's file, and its secrets lie in a folder of its own.
    let other = tempfile::tempdir().expect("a temporary folder");
    let there = other.path().join("catalog");
    for number in [3, 1, 2] {
        let built = replica.build(number).expect("whole");
        assert_eq!(built, folder.published(number).expect("whole"));
        assert_eq!(receive(&there, &built).expect("written"), number == 3);
        assert!(!receive(&there, &built).expect("is there"));
    }
    let received = Folder::open(&there).expect("there");
    let current = received.current().expect("good").expect("one");
    assert_eq!(
        (
            current.version,
            current.offer_name(domain::Offer::new(1).expect("one"))
        ),
        (3, "shoes")
    );
    let secrets = current
        .advertisers
        .values()
        .next()
        .map(|entry| entry.secrets.clone());
    assert_eq!(
        secrets,
        Some(vec![SecretRef::File(other.path().join("secrets/a.secret"))])
    );
}

#[test]
fn a_version_with_a_hole_and_another_catalog_are_refused() {
    let bench = Bench::new();
    bench.apply(BOOTS, "", ID);
    let folder = Folder::open(bench.versions()).expect("there");
    let mut replica = Replica::default();
    publish(&folder, &mut replica);
    assert_eq!(replica.build(2), Err("version 2 is not there".to_owned()));

    let catalog = folder.published(1).expect("whole");
    let mut holes = Replica::default();
    for entry in replica.missing(&Catalog {
        version: 1,
        ..catalog.clone()
    }) {
        assert_ne!(entry.kind(), CatalogKind::Unspecified);
        holes.take_entry(entry);
    }
    holes.take_version(catalog.closing(0, KEYS, 1));
    let said = holes.build(1).expect_err("a hole");
    assert!(said.contains("is not whole"), "{said}");

    let other = Bench::new();
    other.apply(BOOTS, "", ANOTHER_ID);
    let said = receive(&other.versions(), &replica.build(1).expect("whole")).expect_err("another");
    assert!(
        said.to_string().contains(&format!(
            "holds the versions of catalog.lock {ANOTHER_ID}, the topic those of {ID}"
        )),
        "{said}"
    );
    // One lock in two hands, and one number twice.
    let copy = Bench::new();
    copy.apply(SHOES.replace("was = \"boots\"\n", "").as_str(), "", ID);
    let said = receive(&copy.versions(), &replica.build(1).expect("whole")).expect_err("another");
    assert!(
        said.to_string()
            .contains("two copies of catalog.lock handed out versions"),
        "{said}"
    );
}
