//! `sluice check` tells every mistake before a start meets it: where it is, and what to do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::bin;

const SETTINGS: &str = r#"data = "FOLDER/data"
catalog = "FOLDER/catalog.toml"
links = "FOLDER/links.csv"
[edge]
listen = "127.0.0.1:0"
[edge.tls]
certificate = "FOLDER/chain.pem"
key = "FOLDER/key.pem"
"#;
const CATALOG: &str = r#"[network]
currency = "USD"
[domain."go.northpeak.example"]
[advertiser.northpeak]
postback = { secret = "file:northpeak.secret" }
[offer.boots]
advertiser = "northpeak"
to = "https://shop.northpeak.example/boots"
goal.sale = { revenue = "12 %", payout = "8 %" }
[affiliate.trailblog]
offers = ["boots"]
"#;
const LINKS: &str = "slug,affiliate,offer\nfall-boots,trailblog,boots\n";

/// An installation that was never started.
struct Installation(tempfile::TempDir);

impl Installation {
    fn new() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        // Whoever runs Sluice may look into it.
        fs::set_permissions(made.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        made.write("sluice.toml", &made.named(SETTINGS));
        made.write("catalog.toml", CATALOG);
        made.write("links.csv", LINKS);
        made.write("northpeak.secret", "only for this test");
        made.certify();
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn named(&self, text: &str) -> String {
        text.replace("FOLDER", self.0.path().to_str().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Writes it anew with one text in the place of another.
    fn change(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{text}");
        self.write(name, &text.replacen(from, to, 1));
    }

    fn certify(&self) {
        let names = vec!["go.northpeak.example".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        self.write("chain.pem", &made.cert.pem());
        self.write("key.pem", &made.signing_key.serialize_pem());
        self.set_mode("key.pem", 0o600);
    }

    fn set_mode(&self, name: &str, mode: u32) {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.path(name), mode).unwrap();
    }

    /// The exit code, and the lines it prints.
    fn check(&self) -> (Option<i32>, Vec<String>) {
        let mut command = Command::new(bin("sluice"));
        command.arg("check").arg("--settings");
        let output = command.arg(self.path("sluice.toml")).output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        (
            output.status.code(),
            lines.lines().map(str::to_owned).collect(),
        )
    }

    /// What is wrong with it, and that this is what ends the command with 2.
    #[track_caller]
    fn wrong(&self) -> Vec<String> {
        let (code, lines) = self.check();
        let wrong = lines.iter().filter_map(|line| line.strip_prefix("wrong: "));
        let wrong: Vec<String> = wrong.map(str::to_owned).collect();
        assert_eq!(
            code,
            Some(if wrong.is_empty() { 0 } else { 2 }),
            "{lines:?}"
        );
        let is_good = lines
            .last()
            .is_some_and(|last| last == "all good: it would start");
        assert_eq!(is_good, wrong.is_empty(), "{lines:?}");
        assert!(!lines.concat().contains("only for this test"), "{lines:?}");
        wrong
    }
}

#[test]
fn a_good_installation_is_called_good() {
    let installation = Installation::new();
    assert_eq!(installation.wrong(), [""; 0]);
    // Windows programs put a mark before what they save.
    for name in ["sluice.toml", "chain.pem", "key.pem"] {
        let text = fs::read_to_string(installation.path(name)).unwrap();
        installation.write(name, &format!("\u{feff}{text}"));
    }
    let (_, lines) = installation.check();
    for part in [
        "settings: good",
        "certificate: good",
        "catalog: 1 offers, 1 affiliates, 1 links",
    ] {
        assert!(lines.iter().any(|line| line == part), "{part}: {lines:?}");
    }
    // It changes nothing: nobody has a data folder or numbers because somebody looked.
    assert!(!installation.path("data").exists());
    assert!(!installation.path("catalog.lock").exists());
}

#[test]
fn a_mistake_was_met_by_the_next_start_only() {
    type Break = fn(&Installation);
    let cases: [(Break, &[&str]); 9] = [
        (
            |it| it.change("sluice.toml", "listen", "lissten"),
            &["FOLDER/sluice.toml:5: edge.lissten: unknown setting, did you mean \"listen\"?"],
        ),
        (
            |it| it.change("sluice.toml", "127.0.0.1:0", "127.0.0.1"),
            &[
                "FOLDER/sluice.toml:5: edge.listen: expected an address and a port, such as \"127.0.0.1:8080\"",
            ],
        ),
        (
            |it| {
                it.change("catalog.toml", "\"northpeak\"", "\"nortpeak\"");
                it.change("catalog.toml", "12 %", "twelve");
            },
            &[
                "FOLDER/catalog.toml:7: offer.boots.advertiser: no advertiser \"nortpeak\", did you mean \"northpeak\"?",
                "FOLDER/catalog.toml:9: offer.boots.goal.sale.revenue: expected an amount and a currency (\"4.00 USD\") or a percentage (\"12 %\")",
            ],
        ),
        (
            |it| it.change("links.csv", "trailblog", "trailblok"),
            &[
                "FOLDER/links.csv:2: affiliate: no affiliate \"trailblok\", did you mean \"trailblog\"?",
            ],
        ),
        (
            |it| fs::remove_file(it.path("links.csv")).unwrap(),
            &["FOLDER/links.csv: cannot be read: there is no such file or folder: check its path"],
        ),
        (
            |it| fs::remove_file(it.path("northpeak.secret")).unwrap(),
            &[
                "FOLDER/catalog.toml:5: advertiser.northpeak.postback.secret: cannot read the secret in file FOLDER/northpeak.secret: there is no such file or folder: check its path",
            ],
        ),
        (
            |it| {
                let certificate = fs::read_to_string(it.path("chain.pem")).unwrap();
                it.certify();
                it.write("chain.pem", &certificate);
            },
            &[
                "FOLDER/chain.pem: the key in FOLDER/key.pem is that of another certificate: name the two that were made together",
            ],
        ),
        (
            |it| it.set_mode("key.pem", 0o644),
            &[
                "FOLDER/key.pem: everybody on this machine may read or change this key: chmod 640 or 600",
            ],
        ),
        (
            |it| {
                fs::create_dir_all(it.path("data/journal/0")).unwrap();
                it.write("data/journal/0/ring", "");
            },
            &[
                "FOLDER/data/keys/tokens.key: missing: copy the keys folder of the installation here, or restore it from backup; for a new installation run sluice keys create",
            ],
        ),
    ];
    for (damage, expected) in cases {
        let installation = Installation::new();
        damage(&installation);
        let expected: Vec<String> = expected
            .iter()
            .map(|line| installation.named(line))
            .collect();
        assert_eq!(installation.wrong(), expected);
    }
}

#[test]
fn files_that_the_owner_of_the_data_folder_cannot_use_were_found_by_the_start_only() {
    const OWNER: u32 = 54_321;
    let test = "files_that_the_owner_of_the_data_folder_cannot_use_were_found_by_the_start_only";
    if !rustix::process::geteuid().is_root() {
        testkit::skip(test, "only root can give files to another user");
        return;
    }
    let installation = Installation::new();
    let give = |name: &str, owner: u32| chown(installation.path(name), Some(owner), Some(owner));
    let is_wrong = |name: &str| {
        let path = installation.path(name);
        let about = format!("{}: ", path.display());
        let mut wrong = installation.wrong().into_iter();
        wrong.find_map(|line| Some(line.strip_prefix(&about)?.to_owned()))
    };
    fs::create_dir_all(installation.path("data/catalog")).unwrap();
    give("data", OWNER).unwrap();
    assert_eq!(
        is_wrong("data/catalog"),
        Some(format!(
            "belongs to user 0, the data folder to user {OWNER}: chown -R {OWNER} {}",
            installation.path("data/catalog").display()
        ))
    );
    give("data/catalog", OWNER).unwrap();
    assert_eq!(is_wrong("data/catalog"), None);

    for name in [
        "key.pem",
        "chain.pem",
        "northpeak.secret",
        "catalog.toml",
        "links.csv",
    ] {
        installation.set_mode(name, 0o600);
        let said = is_wrong(name).unwrap_or_default();
        let expected = format!("user {OWNER} cannot read it (owner 0, mode 600): chown {OWNER} ");
        assert!(said.starts_with(&expected), "{name}: {said}");
        give(name, OWNER).unwrap();
        assert_eq!(is_wrong(name), None, "{name}");
    }
    assert_eq!(installation.wrong(), [""; 0]);
}

#[test]
fn the_version_in_force_is_checked_where_no_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    testkit::System::start(&data, &[]).stop();
    let check = |data: &Path| {
        let mut command = Command::new(bin("sluice"));
        let output = command
            .args(["check", "--data"])
            .arg(data)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    let (code, said) = check(&data);
    assert!(
        code == Some(0) && said.contains("catalog: version 1\n"),
        "{said}"
    );
    assert!(said.contains("keys: good\n"), "{said}");
    fs::remove_file(data.join("demo/northpeak.secret")).unwrap();
    fs::remove_file(data.join("keys/tokens.key")).unwrap();
    let (code, said) = check(&data);
    assert_eq!(code, Some(2), "{said}");
    for wrong in [
        "wrong: advertiser northpeak: ",
        "/keys/tokens.key: missing: ",
    ] {
        assert!(said.contains(wrong), "{said}");
    }
}
