//! A catalog with a file of links: the same as one that has them itself, and numbers that keep their meaning.

use std::{
    cell::Cell,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use catalog::{Catalog, Folder, Problems, Removes, apply, build, check};
use domain::{Affiliate, Link, Offer};

const ID: &str = "00112233445566778899aabbccddeeff";
const CATALOG: &str = r#"
[network]
currency = "USD"
[domain."go.example"]
[advertiser.a]
[offer.boots]
advertiser = "a"
to = "https://boots.example/"
goal.sale = { revenue = "2 %", payout = "1 %" }
[offer.tents]
advertiser = "a"
to = "https://tents.example/"
goal.sale = { revenue = "2 %", payout = "1 %" }
[affiliate.t]
offers = ["boots", "tents"]
[affiliate.u]
offers = ["boots"]
"#;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("catalog.toml"), CATALOG).expect("writable");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).expect("writable");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("readable")
    }

    fn build(&self, links: impl AsRef<[u8]>) -> Result<Arc<Catalog>, Problems> {
        self.write("links.csv", links);
        let (catalog, links) = (self.path("catalog.toml"), self.path("links.csv"));
        let built = build(
            &catalog,
            &links,
            &self.path("data"),
            ID,
            Removes::Many,
            &|_, _, _| {},
        )
        .map(|built| built.catalog);
        for left in fs::read_dir(self.path("data")).into_iter().flatten() {
            let name = left.expect("readable").file_name();
            assert!(!name.to_string_lossy().ends_with(".new"), "{name:?}");
        }
        if let Ok(built) = &built {
            let folder = Folder::open(self.path("data")).expect("a folder");
            assert_eq!(folder.current().expect("good"), Some(Arc::clone(built)));
        }
        built
    }

    fn apply(&self) -> Result<Arc<Catalog>, Problems> {
        apply(
            &self.path("catalog.toml"),
            &self.path("data"),
            ID,
            Removes::Many,
        )
        .map(|applied| applied.catalog)
    }

    fn said<T: std::fmt::Debug>(&self, result: Result<T, Problems>) -> String {
        let said = result.expect_err("refused").to_string();
        said.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

fn link(n: u64) -> Link {
    Link::new(n).expect("in range")
}

fn target(offer: u32, affiliate: u32) -> Option<(Offer, Affiliate)> {
    Offer::new(offer).zip(Affiliate::new(affiliate))
}

#[test]
fn numbers_keep_their_meaning_through_every_file() {
    let bench = Bench::new();
    let first = bench
        .build("slug,affiliate,offer\nfall,t,boots\nspring,u,boots\n")
        .expect("good");
    assert_eq!((first.version, first.links.len()), (1, 2));
    assert_eq!(first.link_number("fall"), Some(link(1)));

    // Nothing changed, in another order and with another way to say it.
    let same =
        bench.build("offer,slug,affiliate,domain\nboots,spring,u,\nboots,fall,t,go.example\n");
    assert_eq!(same.expect("good").version, 1);

    // Pointed elsewhere, one more, one less.
    let now = bench
        .build("slug,affiliate,offer,sub2\nfall,t,tents,mail\nwinter,t,boots,\n")
        .expect("good");
    assert_eq!((now.version, now.links.len()), (2, 2));
    assert_eq!(now.link_number("fall"), Some(link(3)));
    assert_eq!(now.links.get(link(3)).expect("there").sub(1), "mail");
    assert_eq!(now.link_number("winter"), Some(link(4)));
    assert_eq!(now.link_number("spring"), None);
    assert_eq!(
        (now.link_name(link(1)), now.link_name(link(2))),
        ("fall", "spring")
    );
    assert_eq!(
        (now.link_target(link(1)), now.link_target(link(2))),
        (target(1, 1), target(1, 2))
    );

    // Back again.
    let now = bench
        .build("slug,affiliate,offer\nspring,u,boots\nfall,t,boots\nnew,t,boots\n")
        .expect("good");
    assert_eq!(now.link_number("spring"), Some(link(2)));
    assert_eq!(now.link_number("fall"), Some(link(1)));
    assert_eq!(now.link_number("new"), Some(link(5)));
    assert_eq!(now.link_target(link(3)), target(2, 1));

    // None at all, and nothing is forgotten.
    let now = bench.build("slug,affiliate,offer\n").expect("good");
    assert_eq!((now.links.len(), now.links.iter().count()), (0, 5));
    assert_eq!(
        bench.read("links.lock"),
        "# The number behind each link of the file of links. Written by sluice: keep it with the catalog, never edit it,\n# never delete it. Old clicks and invoices go on meaning the same thing because of it.\n\
         format 1\nid 00112233445566778899aabbccddeeff\n1 1.1.fall\n2 1.2.spring\n3 2.1.fall\n4 1.1.winter\n5 1.1.new\n"
    );
}

#[test]
fn links_move_from_the_catalog_to_a_file_with_their_numbers() {
    let bench = Bench::new();
    let own = "[link.fall]\naffiliate = \"t\"\noffer = \"boots\"\n[link.gone]\naffiliate = \"u\"\noffer = \"boots\"\n";
    bench.write("catalog.toml", format!("{CATALOG}{own}"));
    bench.apply().expect("good");
    assert_eq!(
        bench.said(bench.build("slug,affiliate,offer\nfall,t,boots\n")),
        format!(
            "catalog.toml: link: links stand in {}: move these there",
            bench.path("links.csv").display()
        )
        .replace(&format!("{}/", bench.folder.path().display()), "")
    );
    bench.write("catalog.toml", CATALOG);
    let now = bench
        .build("slug,affiliate,offer\nnew,t,boots\nfall,t,boots\n")
        .expect("good");
    assert_eq!(now.link_number("fall"), Some(link(1)));
    assert_eq!(now.link_number("new"), Some(link(3)));
    assert_eq!(
        (now.link_name(link(2)), now.link_target(link(2))),
        ("gone", target(1, 2))
    );

    // From now on nothing may drop them.
    let message = "links.lock: the catalog's links stand in a file of links: name both to `sluice catalog build` or to `sluice up`, without it they would all be gone";
    assert_eq!(bench.said(bench.apply()), message);
    assert_eq!(bench.said(check(&bench.path("catalog.toml"))), message);
}

#[test]
fn a_hundred_thousand_links_are_the_same_from_a_file_or_the_catalog() {
    let (mut own, mut file) = (
        String::from(CATALOG),
        String::from("slug,affiliate,offer,sub1\n"),
    );
    for n in 0..100_000 {
        let (affiliate, offer, sub) = (["t", "u"][n % 2], "boots", n % 10);
        write!(
            own,
            "[link.s{n}]\naffiliate = \"{affiliate}\"\noffer = \"{offer}\"\nsub1 = \"{sub}\"\n"
        )
        .expect("a string");
        writeln!(file, "s{n},{affiliate},{offer},{sub}").expect("a string");
    }
    let (toml, csv) = (Bench::new(), Bench::new());
    toml.write("catalog.toml", &own);
    let applied = toml.apply().expect("good");
    let built = csv.build(&file).expect("good");
    assert!(applied == built);
    assert_eq!(
        fs::read(toml.path("data/1.snapshot")).ok(),
        fs::read(csv.path("data/1.snapshot")).ok()
    );

    // Half of them pointed elsewhere, in the other order.
    let mut lines: Vec<&str> = file.lines().skip(1).collect();
    lines.reverse();
    let turned = lines.join("\n").replace(",t,boots,", ",t,tents,");
    let last = Cell::new(("", 0, 0));
    csv.write("links.csv", format!("slug,affiliate,offer,sub1\n{turned}"));
    let (path, links) = (csv.path("catalog.toml"), csv.path("links.csv"));
    let built = build(
        &path,
        &links,
        &csv.path("data"),
        ID,
        Removes::Many,
        &|what, done, of| {
            last.set((what, done, of));
        },
    );
    let built = built.expect("good");
    assert_eq!(last.get(), ("writing links", 150_000, 150_000));
    assert_eq!(
        (
            built.catalog.links.len(),
            built.catalog.links.iter().count()
        ),
        (100_000, 150_000)
    );
    for n in 0..100_000_u64 {
        let (number, entry) = built
            .catalog
            .links
            .look_up(&format!("s{n}"))
            .expect("there");
        // Those that stayed keep theirs; the others are numbered from the end of the file.
        let expected = if n % 2 == 1 {
            n + 1
        } else {
            100_001 + (99_998 - n) / 2
        };
        assert_eq!(number, link(expected), "s{n}");
        assert_eq!(entry.sub(0), (n % 10).to_string());
    }
}

#[test]
fn mistakes_are_said_with_their_line_and_change_nothing() {
    let bench = Bench::new();
    let head = "slug,affiliate,offer";
    for (links, said) in [
        (
            "slug,afiliate,offer\n",
            "links.csv:1: afiliate: unknown column, did you mean \"affiliate\"?\nlinks.csv:1: affiliate: the column is missing: the first line names slug, affiliate and offer, and may name domain and sub1 to sub10",
        ),
        (
            "slug,offer,affiliate,offer\n",
            "links.csv:1: offer: the column stands there twice",
        ),
        (
            &format!("{head}\na,t,boots\nb,t,boot\n"),
            "links.csv:3: offer: no offer \"boot\", did you mean \"boots\"?",
        ),
        (
            &format!("{head}\na,x,\n"),
            "links.csv:2: affiliate: no affiliate \"x\", did you mean \"t\"?\nlinks.csv:2: offer: is missing",
        ),
        (
            &format!("{head}\na,u,tents\n"),
            "links.csv:2: offer: affiliate \"u\" is not approved for \"tents\": add it to affiliate.u.offers",
        ),
        (
            &format!("{head}\nc/x,t,boots\na b,t,boots\n"),
            "links.csv:2: slug: \"/c\" is reserved\nlinks.csv:3: slug: a slug is made of a-z, A-Z, 0-9, \".\", \"_\", \"-\" and \"/\"",
        ),
        (
            &format!("{head}\na,t\n"),
            "links.csv:2: expected 3 fields as in the first line, found 2",
        ),
        (
            &format!("{head},domain\na,t,boots,go.exmple\n"),
            "links.csv:2: domain: no domain \"go.exmple\", did you mean \"go.example\"?",
        ),
        (
            &format!("{head},sub3\na,t,boots,{}\n", "x".repeat(256)),
            "links.csv:2: sub3: longer than 255 bytes",
        ),
        (
            &format!("{head}\na,t,boots\nb,t,boots\na,t,tents\nb,t,boots\n"),
            "links.csv:4: slug: \"a\" stands in line 2 already\nlinks.csv:5: slug: \"b\" stands in line 3 already",
        ),
        (
            "slug,affiliate,offer\r\na,t,boots\r\n\r\nb,t,boot\r\nc,t\r\n",
            "links.csv:4: offer: no offer \"boot\", did you mean \"boots\"?\nlinks.csv:5: expected 3 fields as in the first line, found 2",
        ),
        (
            &format!("\n{head}\n\n\na,t,boots\n\n\"b\nb\",t,boots\na,t,tents\nd,t,boot\n"),
            "links.csv:7: slug: a slug is made of a-z, A-Z, 0-9, \".\", \"_\", \"-\" and \"/\"\nlinks.csv:9: slug: \"a\" stands in line 5 already\nlinks.csv:10: offer: no offer \"boot\", did you mean \"boots\"?",
        ),
    ] {
        assert_eq!(bench.said(bench.build(links)), said);
        assert!(!bench.path("links.lock").exists());
        assert!(!bench.path("data/current").exists());
    }
    bench.build(format!("{head}\na,t,boots\n")).expect("good");
    let twice = bench.build(format!("{head}\na,t,boots\na,t,boots\n"));
    assert_eq!(
        bench.said(twice),
        "links.csv:3: slug: \"a\" stands in line 2 already"
    );
    let twice = bench.build(format!(
        "{head}\nb,t,boot\na,t,boots\na,t,boots\nd,t,boot\n"
    ));
    let boot =
        |line| format!("links.csv:{line}: offer: no offer \"boot\", did you mean \"boots\"?");
    let slug = "links.csv:4: slug: \"a\" stands in line 3 already";
    assert_eq!(bench.said(twice), [&*boot(2), slug, &boot(5)].join("\n"));
    let bad = "x,t,boot\n".repeat(1000);
    let said = bench.said(bench.build(format!("{head}\n{bad}")));
    assert_eq!(said.lines().count(), 101);
    assert!(said.ends_with("links.csv: more than 100 problems: the rest was not read"));
}

#[test]
fn a_lost_or_torn_lock() {
    let bench = Bench::new();
    let links = "slug,affiliate,offer\nfall,t,boots\nspring,u,boots\n";
    bench.build(links).expect("good");
    let good = bench.read("links.lock");

    // What a run left behind that did not come to its end means nothing.
    for torn in ["3 1.1.torn\n4 1.", "3 1.1.torn\n", "x"] {
        bench.write("links.lock", format!("{good}{torn}"));
        let now = bench
            .build(format!("{links}winter,t,boots\n"))
            .expect("good");
        assert_eq!(now.link_number("winter"), Some(link(3)));
        assert_eq!(bench.read("links.lock"), format!("{good}3 1.1.winter\n"));
        // Back to before, as from a backup of everything.
        bench.write("links.lock", &good);
        for name in ["catalog.lock", "data"] {
            let path = bench.path(name);
            _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        _ = fs::remove_file(bench.path("links.lock"));
        bench.build(links).expect("good");
        assert_eq!(bench.read("links.lock"), good);
    }

    let cut = good.trim_end_matches("2 1.2.spring\n");
    bench.write("links.lock", cut);
    assert_eq!(
        bench.said(bench.build(links)),
        "links.lock: has lost link number 2: restore it from backup"
    );
    bench.write("links.lock", good.replace("1.2.spring", "1.2.sprinG"));
    assert_eq!(
        bench.said(bench.build(links)),
        "links.lock: has lost link number 2, \"spring\": restore it from backup"
    );
    bench.write("links.lock", good.replace(ID, "another"));
    assert_eq!(
        bench.said(bench.build(links)),
        "links.lock: belongs to another catalog.lock: restore the two from one backup"
    );
    bench.write("links.lock", good.replace("format 1", "format 2"));
    assert!(
        bench
            .said(bench.build(links))
            .contains("use a newer version of sluice")
    );
    fs::remove_file(bench.path("links.lock")).expect("there");
    assert_eq!(
        bench.said(bench.build(links)),
        "links.lock: has lost link number 1: restore it from backup"
    );
    assert!(
        bench
            .said(bench.apply())
            .contains("catalog.lock has lost link \"1.1.fall\" = 1 and 1 more")
    );
}

#[test]
fn files_that_are_not_there() {
    let bench = Bench::new();
    let built = build(
        &bench.path("catalog.toml"),
        Path::new("no-such.csv"),
        &bench.path("data"),
        ID,
        Removes::Few,
        &|_, _, _| {},
    );
    assert!(
        bench
            .said(built)
            .starts_with("no-such.csv: cannot be read: ")
    );
}

/// What Excel and its like write, in every country and by every menu.
#[test]
fn files_of_links_as_spreadsheets_write_them() {
    let plain = "slug,affiliate,offer,sub1\nfall,t,boots,mail\nspring,u,boots,\n";
    let expected = Bench::new().build(plain).expect("good").links.clone();
    let utf_16: Vec<u8> = plain.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let semicolons = plain.replace(',', ";");
    for (links, said) in [
        (semicolons.clone().into_bytes(), ""),
        (plain.replace(',', "\t").into_bytes(), ""),
        (plain.replace(',', ", ").into_bytes(), ""),
        (plain.replace('\n', "\r\n").into_bytes(), ""),
        (format!("sep=;\r\n{semicolons}").into_bytes(), ""),
        (format!("sep=,\r\n{plain}").into_bytes(), ""),
        (format!("\u{feff}{semicolons}").into_bytes(), ""),
        (plain.replace('\n', ",,\n").into_bytes(), ""),
        (
            plain
                .replace("slug,affiliate,offer", "Slug,AFFILIATE,Offer")
                .into_bytes(),
            "",
        ),
        (plain.replace("slug,", "\"Slug\",").into_bytes(), ""),
        (format!("{plain},,,\n, ,,\n").into_bytes(), ""),
        (format!("{semicolons};;;\r\n;;;;;\r\n").into_bytes(), ""),
        (
            [&plain.as_bytes()[..plain.len() - 20], b"caf\xe9\n"].concat(),
            "links.csv:2: not UTF-8 text: save the file as UTF-8 (Excel calls it \"CSV UTF-8\")",
        ),
        (
            [&[0xff, 0xfe][..], &utf_16].concat(),
            "links.csv: is UTF-16, as Windows programs write it: save it as UTF-8",
        ),
        (
            utf_16,
            "links.csv: is UTF-16, as Windows programs write it: save it as UTF-8",
        ),
        (
            plain.replace(',', "|").into_bytes(),
            "links.csv:1: the first line names no column",
        ),
        (
            b"fall,t,boots\n".to_vec(),
            "links.csv:1: the first line names no column",
        ),
        (
            plain.replace("mail", "mail,more").into_bytes(),
            "links.csv:2: expected 4 fields as in the first line, found 5",
        ),
    ] {
        let bench = Bench::new();
        match (bench.build(&links), said) {
            (Ok(built), "") => assert_eq!(built.links, expected, "{links:?}"),
            (Ok(_), said) => panic!("not refused: {said}"),
            (built, said) => {
                let found = bench.said(built);
                assert!(!said.is_empty() && found.starts_with(said), "{found}");
            }
        }
    }
}
