//! Numbers keep their meaning through every edit, and a bad catalog never replaces a good one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use catalog::{Catalog, DEMO, Folder, Lookup, Problems, Removes, Start, apply, check, write_demo};
use domain::{Affiliate, Link, Offer, Target};
use proptest::prelude::*;

const ID: &str = "00112233445566778899aabbccddeeff";
const ANOTHER_ID: &str = "ffeeddccbbaa99887766554433221100";

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("northpeak.secret"), "0123456789abcdef").expect("writable");
        Self { folder }
    }

    fn catalog(&self) -> PathBuf {
        self.folder.path().join("catalog.toml")
    }

    fn lock(&self) -> PathBuf {
        self.folder.path().join("catalog.lock")
    }

    fn published(&self) -> PathBuf {
        self.folder.path().join("data/catalog")
    }

    fn apply(&self, text: &str) -> Result<Arc<Catalog>, Problems> {
        fs::write(self.catalog(), text).expect("writable");
        apply(&self.catalog(), &self.published(), ID, Removes::Many).map(|applied| applied.catalog)
    }

    fn said(&self, text: &str) -> String {
        let said = self.apply(text).expect_err("refused").to_string();
        said.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

/// A catalog of offers and links: (slug, offer, was).
fn text(offers: &[(&str, &str)], links: &[(&str, &str, &str)]) -> String {
    let mut text =
        String::from("[network]\ncurrency = \"USD\"\n[domain.\"go.example\"]\n[advertiser.a]\n");
    let was = |was: &str| match was {
        "" => String::new(),
        was => format!("was = \"{was}\"\n"),
    };
    for (offer, old) in offers {
        write!(text, "[offer.{offer}]\nadvertiser = \"a\"\nto = \"https://{offer}.example/\"\n{}goal.sale = {{ revenue = \"2 %\", payout = \"1 %\" }}\n", was(old)).expect("a string");
    }
    let approved: Vec<String> = offers
        .iter()
        .map(|(offer, _)| format!("\"{offer}\""))
        .collect();
    write!(text, "[affiliate.t]\noffers = [{}]\n", approved.join(", ")).expect("a string");
    for (slug, offer, old) in links {
        write!(
            text,
            "[link.{slug}]\naffiliate = \"t\"\noffer = \"{offer}\"\n{}",
            was(old)
        )
        .expect("a string");
    }
    text
}

fn offer(n: u32) -> Offer {
    Offer::new(n).expect("in range")
}

fn link(n: u64) -> Link {
    Link::new(n).expect("in range")
}

#[test]
fn edits_keep_numbers_and_old_tokens_keep_their_meaning() {
    let bench = Bench::new();
    let t = Affiliate::new(1).expect("in range");
    let first = bench
        .apply(&text(
            &[("boots", ""), ("tents", "")],
            &[("fall", "boots", "")],
        ))
        .expect("good");
    assert_eq!(first.version, 1);
    assert_eq!(
        (first.offer_number("boots"), first.offer_number("tents")),
        (Some(offer(1)), Some(offer(2)))
    );
    assert_eq!(first.link_number("fall"), Some(link(1)));
    let sale = first.goal_number(offer(1), "sale");
    let token = Target::Link(link(1));

    // Inserted before the others.
    let now = bench
        .apply(&text(
            &[("axes", ""), ("boots", ""), ("tents", "")],
            &[("fall", "boots", "")],
        ))
        .expect("good");
    assert_eq!(
        (now.offer_number("axes"), now.offer_number("boots")),
        (Some(offer(3)), Some(offer(1)))
    );
    assert_eq!(now.target(token), Some((offer(1), t)));

    // Removed, with its link.
    let now = bench
        .apply(&text(&[("axes", ""), ("tents", "")], &[]))
        .expect("good");
    assert_eq!(
        (now.offer_number("boots"), now.offer_name(offer(1))),
        (None, "boots")
    );
    assert_eq!(now.target(token), Some((offer(1), t)));
    assert_eq!(now.link_name(link(1)), "fall");

    // Added again.
    let now = bench
        .apply(&text(
            &[("axes", ""), ("tents", ""), ("boots", "")],
            &[("fall", "boots", "")],
        ))
        .expect("good");
    assert_eq!(
        (now.offer_number("boots"), now.link_number("fall")),
        (Some(offer(1)), Some(link(1)))
    );
    assert_eq!(now.goal_number(offer(1), "sale"), sale);

    // Renamed, and said again.
    for _ in 0..2 {
        let now = bench
            .apply(&text(
                &[("axes", ""), ("tents", ""), ("shoes", "boots")],
                &[("autumn", "shoes", "fall")],
            ))
            .expect("good");
        assert_eq!(
            (now.offer_number("shoes"), now.link_number("autumn")),
            (Some(offer(1)), Some(link(1)))
        );
        assert_eq!(
            (now.offer_name(offer(1)), now.link_name(link(1))),
            ("shoes", "autumn")
        );
        assert_eq!(now.target(token), Some((offer(1), t)));
        assert_eq!(now.goal_number(offer(1), "sale"), sale);
        assert_eq!(now.version, 5);
    }

    // Pointed elsewhere: the old token means what it meant.
    let now = bench
        .apply(&text(
            &[("axes", ""), ("tents", ""), ("shoes", "")],
            &[("autumn", "axes", "")],
        ))
        .expect("good");
    assert_eq!(now.link_number("autumn"), Some(link(2)));
    assert_eq!(now.target(token), Some((offer(1), t)));
    assert_eq!(now.target(Target::Link(link(2))), Some((offer(3), t)));
    // And renamed after that: both numbers show the new name.
    let now = bench
        .apply(&text(
            &[("axes", ""), ("tents", ""), ("shoes", "")],
            &[("winter", "axes", "autumn")],
        ))
        .expect("good");
    assert_eq!(
        (now.link_name(link(1)), now.link_name(link(2))),
        ("winter", "winter")
    );
    assert_eq!(now.target(token), Some((offer(1), t)));

    // The old name is free for something new.
    let now = bench
        .apply(&text(
            &[("axes", ""), ("tents", ""), ("shoes", ""), ("boots", "")],
            &[],
        ))
        .expect("good");
    assert_eq!(now.offer_number("boots"), Some(offer(4)));
}

#[test]
fn renames_that_would_give_a_name_two_numbers() {
    let bench = Bench::new();
    bench
        .apply(&text(&[("boots", ""), ("tents", "")], &[]))
        .expect("good");
    bench.apply(&text(&[("tents", "")], &[])).expect("good");
    assert_eq!(
        bench.said(&text(&[("boots", "tents")], &[])),
        "catalog.toml:8: offer.boots.was: \"boots\" has number 1 from earlier use and \"tents\" has 2: choose a name that was never used"
    );
    assert_eq!(
        bench.said(&text(&[("a", "tents"), ("b", "tents")], &[])),
        "catalog.toml:13: offer.b.was: another entry already was \"tents\""
    );
}

#[test]
fn a_rename_from_a_name_that_never_was() {
    let bench = Bench::new();
    // A catalog that comes with its history and without its lock starts anew.
    bench
        .apply(&text(&[("boots", "shoes")], &[("fall", "boots", "autumn")]))
        .expect("good");
    assert_eq!(
        bench.said(&text(&[("axes", "bots")], &[])),
        "catalog.toml:8: offer.axes.was: no offer was ever called \"bots\": a number is only moved from a name that has one"
    );
    bench
        .apply(&text(&[("skis", "boots")], &[("winter", "skis", "fall")]))
        .expect("good");
    // The header is renamed once more, the line left as it was: the number must not be lost in silence.
    assert_eq!(
        bench.said(&text(&[("poles", "boots")], &[])),
        "catalog.toml:8: offer.poles.was: \"boots\" was renamed to \"skis\" before: write was = \"skis\""
    );
    assert_eq!(
        bench.said(&text(&[("skis", "")], &[("spring", "skis", "fall")])),
        "catalog.toml:14: link.spring.was: \"fall\" was renamed to \"winter\" before: write was = \"winter\""
    );
}

/// What a version control tool does: it puts the catalog's file back and knows nothing of the lock.
#[test]
fn a_rename_that_is_taken_back_splits_nobody() {
    let bench = Bench::new();
    let before = text(&[("boots", "")], &[("fall", "boots", "")]);
    let first = bench.apply(&before).expect("good");
    bench
        .apply(&text(&[("shoes", "boots")], &[("autumn", "shoes", "fall")]))
        .expect("good");
    let now = bench.apply(&before).expect("good");
    assert_eq!(now.offer_number("boots"), Some(offer(1)));
    assert_eq!(now.link_number("fall"), Some(link(1)));
    let sale = |catalog: &Catalog| catalog.goal_number(offer(1), "sale");
    assert_eq!(sale(&now), sale(&first));
    assert_eq!((first.hash == now.hash, now.version), (true, 3));
    // And forward again, which the same tool does as easily.
    let now = bench
        .apply(&text(&[("shoes", "")], &[("autumn", "shoes", "")]))
        .expect("good");
    assert_eq!(now.offer_number("shoes"), Some(offer(1)));
    assert_eq!(now.link_number("autumn"), Some(link(1)));
}

#[test]
fn an_older_lock_beside_a_renamed_catalog_is_refused_with_the_line_to_write() {
    let bench = Bench::new();
    bench.apply(&text(&[("boots", "")], &[])).expect("good");
    let older = fs::read(bench.lock()).expect("written");
    bench
        .apply(&text(&[("shoes", "boots")], &[]))
        .expect("good");
    fs::write(bench.lock(), older).expect("writable");
    // The line that renames is gone, since it had done its work.
    assert_eq!(
        bench.said(&text(&[("shoes", "")], &[])),
        "catalog.toml: offer.shoes: is number 1 in version 2, which catalog.lock, an older copy, calls \"boots\": write was = \"boots\" into it, or restore catalog.lock from backup"
    );
    let now = bench
        .apply(&text(&[("shoes", "boots")], &[]))
        .expect("good");
    assert_eq!(now.offer_number("shoes"), Some(offer(1)));
    assert_eq!(now.version, 2);
}

#[test]
fn two_folders_with_one_lock_give_a_version_one_meaning() {
    let bench = Bench::new();
    let other = bench.folder.path().join("other/catalog");
    let (one, two) = (
        text(&[("boots", "")], &[]),
        text(&[("boots", ""), ("tents", "")], &[]),
    );
    bench.apply(&one).expect("good");
    let second = bench.apply(&two).expect("good");
    // A second machine, or a folder that is lost: the number is the lock's.
    let there = apply(&bench.catalog(), &other, ID, Removes::Many)
        .expect("good")
        .catalog;
    assert_eq!((there.version, there.hash), (2, second.hash));
    fs::remove_dir_all(bench.published()).expect("there");
    assert_eq!(bench.apply(&two).expect("good").version, 2);
    assert_eq!(bench.apply(&one).expect("good").version, 3);

    // Two copies of the lock that go on apart.
    let copy = Bench::new();
    fs::copy(bench.lock(), copy.lock()).expect("copied");
    copy.apply(&text(&[("axes", "")], &[])).expect("good");
    bench.apply(&text(&[("poles", "")], &[])).expect("good");
    let lock = fs::read(copy.lock()).expect("written");
    fs::write(bench.lock(), lock).expect("writable");
    let said = bench.said(&text(&[("poles", "")], &[]));
    assert_eq!(
        said,
        "data/catalog: version 4 here is another than the one catalog.lock has by that number: two copies of catalog.lock handed out versions. Restore the one that belongs to this folder, and apply the catalog on one machine only"
    );
}

/// What a half-written file looks like: a good catalog with most of its links gone.
#[test]
fn a_file_that_lost_many_links_is_refused_until_a_person_says_so() {
    let bench = Bench::new();
    let slugs: Vec<String> = (0..10).map(|link| format!("l-{link}")).collect();
    let links: Vec<(&str, &str, &str)> = slugs.iter().map(|slug| (&**slug, "boots", "")).collect();
    let apply = |links: &[(&str, &str, &str)], removes| {
        fs::write(bench.catalog(), text(&[("boots", "")], links)).expect("writable");
        apply(&bench.catalog(), &bench.published(), ID, removes)
    };
    let first = apply(&links, Removes::Few).expect("good");
    assert_eq!(
        first.changes.to_string(),
        "1 domain came, 1 advertiser came, 1 offer came, 1 affiliate came, 10 links came"
    );
    let said = apply(&links[..4], Removes::Few).expect_err("refused");
    assert!(
        said.to_string().ends_with(
            "catalog.toml: 6 of 10 links would go, as when a file is cut off: if that is meant, apply it once with --removes"
        ),
        "{said}"
    );
    let few = apply(&links[..5], Removes::Few).expect("good");
    assert_eq!(few.changes.to_string(), "5 links went");
    apply(&links, Removes::Few).expect("good");
    let many = apply(&links[..1], Removes::Many).expect("good");
    assert_eq!(
        (many.changes.to_string(), many.catalog.version),
        ("9 links went".to_owned(), 4)
    );
    assert!(
        apply(&links[..1], Removes::Few)
            .expect("good")
            .changes
            .is_empty()
    );
}

#[test]
fn a_start_goes_on_with_the_last_good_version() {
    let bench = Bench::new();
    let mut folder = Folder::open(bench.published()).expect("not there yet is fine");
    assert!(folder.start().expect("fine").is_none());
    bench.apply(&text(&[("boots", "")], &[])).expect("good");
    let second = text(&[("boots", ""), ("tents", "")], &[]);
    bench.apply(&second).expect("good");
    let (current, two) = (
        bench.published().join("current"),
        bench.published().join("2.snapshot"),
    );
    let whole = fs::read(&two).expect("written");
    let started = || {
        let mut folder = Folder::open(bench.published()).expect("there");
        let Start { catalog, refused } =
            folder.start().expect("one is good").expect("one is there");
        (catalog.version, refused.map(|error| error.to_string()))
    };
    assert_eq!(started(), (2, None));
    for (path, bytes, version, said) in [
        (
            &current,
            &b"not a number"[..],
            2,
            "does not name a catalog version",
        ),
        (&current, b"9\n", 2, "cannot be read"),
        (&current, b"2\n", 2, ""),
        (&two, &whole[..whole.len() / 2], 1, "is damaged"),
        (&two, b"", 1, "not a catalog snapshot"),
    ] {
        let new = bench.folder.path().join("new");
        fs::write(&new, bytes).expect("writable");
        fs::rename(&new, path).expect("writable");
        let (found, refused) = started();
        assert_eq!(found, version, "{said}");
        assert!(refused.unwrap_or_default().contains(said), "{said}");
    }
    // Applied once more, it is whole again.
    assert_eq!(bench.apply(&second).expect("good").version, 2);
    assert_eq!(started(), (2, None));
}

#[test]
fn a_link_could_not_be_stopped_while_somebody_elses_secret_was_unreadable() {
    let bench = Bench::new();
    let secret = "[advertiser.a]\npostback = { secret = \"file:northpeak.secret\" }\n";
    let text = |offers: &[(&str, &str)]| text(offers, &[]).replace("[advertiser.a]\n", secret);
    bench
        .apply(&text(&[("boots", ""), ("tents", "")]))
        .expect("good");
    fs::remove_file(bench.folder.path().join("northpeak.secret")).expect("there");

    let stopped = bench
        .apply(&text(&[("tents", "")]))
        .expect("only its own postbacks wait");
    assert_eq!(stopped.version, 2);
    assert_eq!(stopped.offers.len(), 1);
    // Named for the first time it may be misspelt.
    let misspelt = text(&[("tents", "")]).replace("northpeak.secret", "nortpeak.secret");
    assert!(
        bench
            .said(&misspelt)
            .contains("cannot read the secret in file nortpeak.secret")
    );
    let checked = check(&bench.catalog()).expect_err("a check says all");
    assert!(checked.to_string().contains("cannot read the secret"));
}

#[test]
fn a_version_that_came_to_no_end_never_stands_in_for_a_damaged_one() {
    let bench = Bench::new();
    bench.apply(&text(&[("boots", "")], &[])).expect("good");
    // Killed between the snapshot and `current`.
    let snapshot = |version: u32| bench.published().join(format!("{version}.snapshot"));
    bench.apply(&text(&[("tents", "")], &[])).expect("good");
    fs::write(bench.published().join("current"), "1\n").expect("writable");
    let third = bench.apply(&text(&[("axes", "")], &[])).expect("good");
    assert_eq!(third.version, 3);
    assert!(!snapshot(2).exists());
    let folder = Folder::open(bench.published()).expect("there");
    assert_eq!(folder.whole_before(3).expect("one").version, 1);
}

#[test]
fn another_catalogs_lock_never_gives_old_numbers_new_meanings() {
    let (bench, other) = (Bench::new(), Bench::new());
    bench.apply(&text(&[("boots", "")], &[])).expect("good");
    fs::write(other.catalog(), text(&[("socks", "")], &[])).expect("writable");
    let (catalog, many) = (other.catalog(), Removes::Many);
    apply(&catalog, &other.published(), ANOTHER_ID, many).expect("good");
    let said = apply(&catalog, &bench.published(), ANOTHER_ID, many).expect_err("refused");
    assert!(
        said.to_string()
            .contains("holds the versions of another catalog: name that one with --catalog"),
        "{said}"
    );
}

#[test]
fn an_offer_stays_its_advertisers_also_when_it_is_gone() {
    let bench = Bench::new();
    let good = text(&[("boots", ""), ("tents", "")], &[]);
    bench.apply(&good).expect("good");
    let now = bench.apply(&text(&[("tents", "")], &[])).expect("good");
    let a = now.advertiser_number("a");
    assert_eq!(now.offer_advertiser(offer(1)), a);
    let moved = good.replacen("[advertiser.a]\n", "[advertiser.a]\n[advertiser.b]\n", 1);
    let moved = moved.replacen("advertiser = \"a\"", "advertiser = \"b\"", 1);
    assert!(
        bench
            .said(&moved)
            .contains("offer.boots.advertiser: the offer is \"a\"'s"),
    );
}

#[test]
fn the_same_content_is_the_same_version() {
    let bench = Bench::new();
    let text = text(&[("boots", "")], &[]);
    let first = bench.apply(&text).expect("good");
    let lock = fs::read(bench.lock()).expect("written");
    let again = bench.apply(&format!("# a remark\n{text}")).expect("good");
    assert_eq!((first.version, &first), (1, &again));
    assert_eq!(fs::read(bench.lock()).expect("kept"), lock);
    assert_eq!(
        check(&bench.catalog()).expect("good").catalog.offers,
        first.offers
    );
}

#[test]
fn a_bad_catalog_never_replaces_a_good_one() {
    let bench = Bench::new();
    let mut folder = Folder::open(bench.published()).expect("not there yet is fine");
    assert_eq!(folder.current().expect("fine"), None);
    assert_eq!(folder.changed().expect("fine"), None);
    let first = bench.apply(&text(&[("boots", "")], &[])).expect("good");
    assert_eq!(folder.changed().expect("fine"), Some(first.clone()));
    assert_eq!(folder.changed().expect("fine"), None);
    let lock = fs::read(bench.lock()).expect("written");

    bench.said("[offer.new]\nwindw = 3\n");
    bench.said("not toml");
    assert_eq!(folder.changed().expect("fine"), None);
    assert_eq!(folder.current().expect("fine"), Some(first.clone()));
    assert_eq!(fs::read(bench.lock()).expect("kept"), lock);

    let second = bench
        .apply(&text(&[("boots", ""), ("tents", "")], &[]))
        .expect("good");
    assert_eq!(folder.changed().expect("fine"), Some(second));
    assert_eq!(folder.any_version(1).expect("kept"), first);
    assert!(
        folder
            .any_version(3)
            .expect_err("never published")
            .is_missing()
    );
    let found = |version, hash| match folder.version(version, hash).expect("readable") {
        Lookup::Found(catalog) => format!("found {}", catalog.version),
        Lookup::Missing => "missing".to_owned(),
        Lookup::Other { hash } => format!("other {}", hash == first.hash),
    };
    assert_eq!(found(1, first.hash), "found 1");
    assert_eq!(found(1, first.hash + 1), "other true");
    assert_eq!(found(3, first.hash), "missing");
}

#[test]
fn a_damaged_current_version_is_said_and_the_last_one_kept() {
    let bench = Bench::new();
    bench.apply(&text(&[("boots", "")], &[])).expect("good");
    let snapshot = bench.published().join("1.snapshot");
    let mut bytes = fs::read(&snapshot).expect("written");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(&snapshot, bytes).expect("writable");
    let mut folder = Folder::open(bench.published()).expect("there");
    for _ in 0..2 {
        let said = folder.changed().expect_err("damaged").to_string();
        assert!(
            said.ends_with("1.snapshot: catalog snapshot is damaged: restore it from backup"),
            "{said}"
        );
    }
}

#[test]
fn a_lock_that_lost_numbers_is_refused() {
    let bench = Bench::new();
    let text = text(&[("boots", ""), ("tents", "")], &[("fall", "boots", "")]);
    bench.apply(&text).expect("good");
    let lock = fs::read_to_string(bench.lock()).expect("written");
    for (edit, expected) in [
        (String::new(), None),
        (
            lock.replace("\"tents\" = 2\n", ""),
            Some("catalog.lock: catalog.lock has lost offer \"tents\" = 2: restore it from backup"),
        ),
        (
            lock.replace("\"tents\" = 2", "\"tents\" = 1")
                .replace("\"boots\" = 1", "\"boots\" = 2"),
            Some(
                "catalog.lock: catalog.lock has lost offer \"boots\" = 1 and 1 more: restore it from backup",
            ),
        ),
        (
            lock.replace("\"tents\" = 2", "\"tents\" = 1"),
            Some("catalog.lock: offer number 1 stands for two names: restore it from backup"),
        ),
        (
            lock.replace("\"tents\" = 2", "\"tents\" = 9"),
            Some(
                "catalog.lock: offer \"tents\" has number 9, outside of what was handed out: restore it from backup",
            ),
        ),
        (
            lock.replace("format = 2", "format = 3"),
            Some(
                "catalog.lock: catalog.lock of format 3, this version reads format 2: use the version of sluice that wrote it",
            ),
        ),
        (lock.replace("[goal]", "[gaol]"), None),
    ] {
        fs::write(bench.lock(), edit).expect("writable");
        let said = bench.said(&text);
        match expected {
            Some(expected) => assert_eq!(said, expected),
            None => assert!(said.contains("restore it from backup"), "{said}"),
        }
    }
    fs::remove_file(bench.lock()).expect("there");
    assert_eq!(
        bench.said(&text),
        "catalog.lock: data/catalog holds the versions of another catalog: name that one with --catalog, or choose another folder with --data, or restore catalog.lock from backup"
    );
    assert!(!bench.lock().exists());
    fs::write(bench.lock(), lock).expect("writable");
    assert_eq!(bench.apply(&text).expect("restored").version, 1);
}

#[test]
fn the_lock_reads_like_this() {
    let bench = Bench::new();
    fs::write(bench.catalog(), DEMO).expect("writable");
    let catalog = apply(&bench.catalog(), &bench.published(), ID, Removes::Few)
        .expect("good")
        .catalog;
    let lock = fs::read_to_string(bench.lock()).expect("written");
    let lock = lock.replace(&format!("{:016x}", catalog.hash), "HASH");
    let (head, body) = lock.split_at(lock.find("format").expect("there"));
    assert!(head.lines().all(|line| line.starts_with('#')));
    assert_eq!(
        body,
        "format = 2\nid = \"00112233445566778899aabbccddeeff\"\n\n[next]\ndomain = 2\nadvertiser = 2\noffer = 3\ngoal = 4\naffiliate = 2\nlink = 2\n\n\
         [domain]\n\"go.northpeak.example\" = 1\n\n[advertiser]\n\"northpeak\" = 1\n\n[offer]\n\"boots\" = 1\n\"tents\" = 2\n\n\
         [goal]\n\"1.sale\" = 2\n\"1.signup\" = 1\n\"2.sale\" = 3\n\n[affiliate]\n\"trailblog\" = 1\n\n[link]\n\"1.1.fall-boots\" = 1\n\n[owner]\n\"1\" = 1\n\"2\" = 1\n\n[former]\n\n[version]\n\"1\" = \"HASH\"\n"
    );
}

#[test]
fn the_demo_is_written_once_with_a_private_secret() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let home = folder.path().join("demo");
    let path = write_demo(&home, "00112233445566778899aabbccddeeff").expect("writable");
    let catalog = apply(&path, &folder.path().join("data"), ID, Removes::Few)
        .expect("good")
        .catalog;
    let secrets = &catalog.advertisers.values().next().expect("one").secrets;
    assert_eq!(
        secrets[0].read().expect("there"),
        b"00112233445566778899aabbccddeeff"
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(home.join("northpeak.secret"))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    fs::write(&path, "# mine now\n").expect("writable");
    write_demo(&home, "ffffffffffffffff").expect("left alone");
    assert_eq!(fs::read_to_string(&path).expect("there"), "# mine now\n");
    assert_eq!(
        secrets[0].read().expect("there"),
        b"00112233445566778899aabbccddeeff"
    );
}

/// Which offers there are after a step (by index), and a rename of one of them.
type Step = (BTreeSet<usize>, Option<(usize, usize)>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let present = proptest::collection::btree_set(0..6usize, 0..6);
    let rename = proptest::option::of((0..6usize, 0..6usize));
    proptest::collection::vec((present, rename), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is added, removed, added again and renamed: a number never stands for a second thing. A thing is
    /// followed by an identity the test gives it, which moves with renames.
    #[test]
    fn numbers_are_never_used_again(steps in steps()) {
        const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        let bench = Bench::new();
        let mut thing_of_name: BTreeMap<&str, usize> = BTreeMap::new();
        let mut thing_of_number: BTreeMap<Offer, usize> = BTreeMap::new();
        let mut goals: BTreeMap<domain::Goal, Offer> = BTreeMap::new();
        let mut links: BTreeMap<Link, (Offer, Affiliate)> = BTreeMap::new();
        let mut things = 0;
        // A name that a thing had before gives it back while its later name is gone.
        let mut former: BTreeMap<&str, usize> = BTreeMap::new();
        for (present, rename) in steps {
            let mut was = BTreeMap::new();
            let mut present: BTreeSet<&str> = present.into_iter().map(|at| NAMES[at]).collect();
            if let Some((from, to)) = rename {
                let (from, to) = (NAMES[from], NAMES[to]);
                present.remove(from);
                if from != to {
                    present.insert(to);
                    was.insert(to, from);
                }
            }
            let offers: Vec<(&str, &str)> =
                present.iter().map(|name| (*name, was.get(name).copied().unwrap_or(""))).collect();
            let slugs: Vec<String> = present.iter().map(|name| format!("l-{name}")).collect();
            let slugs: Vec<(&str, &str, &str)> =
                slugs.iter().zip(&present).map(|(slug, name)| (&**slug, *name, "")).collect();
            let name_of = |things: &BTreeMap<&'static str, usize>, thing: usize| {
                things.iter().find(|(_, known)| **known == thing).map(|(name, _)| *name)
            };
            let mut taken_back = (thing_of_name.clone(), former.clone());
            for name in &present {
                let (things, former) = &mut taken_back;
                if things.contains_key(name) { continue }
                if let Some(thing) = former.get(name).copied()
                    && let Some(later) = name_of(things, thing)
                    && !present.contains(later)
                {
                    things.remove(later);
                    former.insert(later, thing);
                    former.remove(name);
                    things.insert(name, thing);
                }
            }
            let Ok(now) = bench.apply(&text(&offers, &slugs)) else {
                // Only a name with two numbers is refused, and a rename from one that has none now.
                let (to, from) = was.iter().next().expect("only renames are refused");
                let things = &taken_back.0;
                prop_assert_eq!(things.contains_key(to), things.contains_key(from));
                continue;
            };
            (thing_of_name, former) = taken_back;
            for (to, from) in was {
                if let Some(thing) = thing_of_name.remove(from) {
                    prop_assert!(!thing_of_name.contains_key(to));
                    thing_of_name.insert(to, thing);
                    former.remove(to);
                    former.insert(from, thing);
                }
            }
            for name in &present {
                let thing = *thing_of_name.entry(name).or_insert_with(|| { things += 1; things });
                former.remove(name);
                let number = now.offer_number(name).expect("applied");
                prop_assert_eq!(*thing_of_number.entry(number).or_insert(thing), thing);
            }
            for (goal, name) in &now.names.goals {
                prop_assert_eq!(*goals.entry(*goal).or_insert(name.offer), name.offer);
            }
            for (link, name) in now.links.iter() {
                let target = (name.offer, name.affiliate);
                prop_assert_eq!(*links.entry(link).or_insert(target), target);
            }
            // Every number ever seen still answers.
            for number in thing_of_number.keys() {
                prop_assert!(now.offer_name(*number) != catalog::UNKNOWN);
            }
        }
    }
}

#[test]
fn a_relative_path_works() {
    assert!(check(Path::new("no-such-catalog.toml")).is_err());
}
