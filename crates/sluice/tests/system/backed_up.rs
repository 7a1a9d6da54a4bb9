//! A backup is taken of a running system, and is enough: put back on an empty folder, the system goes on counting.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::{System, bin, http, system, wait};

use crate::on_kafka::Reader;
use crate::{BOUND, CHROME, ledger, on_kafka, token};

const CATALOG: &str = r#"
[network]
currency = "USD"
[domain."go.northpeak.example"]
[advertiser.northpeak]
postback = { secret = "file:northpeak.secret" }
[offer.boots]
advertiser = "northpeak"
to = "https://shop.northpeak.example/boots"
click_param = "npk"
goal.sale = { revenue = "12 %", payout = "8 %" }
[affiliate.trailblog]
offers = ["boots"]
"#;
const SECRET: &str = "only for this test";
const SALE_EVERY: usize = 5;

/// Folders of one installation, and what was answered in it.
struct Installation {
    root: PathBuf,
    /// The clicks answered, by their own ids; every fifth has led to a sale of 10.00.
    answered: Mutex<Vec<usize>>,
}

impl Installation {
    fn new(root: &Path) -> Self {
        let made = Self {
            root: root.to_owned(),
            answered: Mutex::new(Vec::new()),
        };
        fs::create_dir(made.path("etc")).unwrap();
        fs::write(made.path("etc/catalog.toml"), CATALOG).unwrap();
        fs::write(made.path("etc/northpeak.secret"), SECRET).unwrap();
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn start(&self, data: &str, etc: &str, more: &[&str]) -> System {
        let catalog = self.text(&format!("{etc}/catalog.toml"));
        let arguments = [&["--catalog", catalog.as_str()], more].concat();
        System::start(&self.path(data), &arguments)
    }

    /// One click and what belongs to it; false once nobody answers.
    fn click(&self, system: &System, number: usize) -> bool {
        let (agent, bearer) = (format!("{CHROME} {number}"), format!("Bearer {SECRET}"));
        let target = format!("/c?offer=boots&aff=trailblog&ext={number}");
        let Ok(click) = http::get(system.edge, &target, &[("User-Agent", &agent)]) else {
            return false;
        };
        assert_eq!(click.status, 302);
        if number.is_multiple_of(SALE_EVERY) {
            let token = token(&click, "npk");
            let sale = format!("/postback?token={token}&order=o{number}&amount=10.00");
            match http::get(system.edge, &sale, &[("Authorization", &bearer)]) {
                Ok(answer) => assert_eq!(answer.status, 200, "{}", answer.text()),
                Err(_) => return false,
            }
        }
        self.answered.lock().unwrap().push(number);
        true
    }

    fn answered(&self) -> usize {
        self.answered.lock().unwrap().len()
    }

    fn backup(&self, to: &str) -> Output {
        let mut command = Command::new(bin("sluice"));
        command.arg("backup").arg(self.path(to));
        command.arg("--data").arg(self.path("data"));
        command.arg("--catalog").arg(self.path("etc/catalog.toml"));
        command.output().unwrap()
    }

    fn restore(&self, from: &str, data: &str, config: &str) -> Output {
        let mut command = Command::new(bin("sluice"));
        command.arg("restore").arg(self.path(from));
        command.arg("--data").arg(self.path(data));
        command.arg("--config").arg(self.path(config));
        command.output().unwrap()
    }
}

#[track_caller]
fn done(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// gross, conversions and amount of the whole report.
fn totals(data: &Path) -> (usize, usize, String) {
    let report = system::command(data, &["report", "--format", "csv", "--by", ""]);
    let rows: Vec<Vec<&str>> = report
        .lines()
        .map(|line| line.split(',').collect())
        .collect();
    let at = |name: &str| rows[0].iter().position(|head| *head == name).expect(name);
    let value = |name: &str| rows[1][at(name)].to_owned();
    let count = |name: &str| value(name).parse().unwrap();
    (count("gross"), count("conversions"), value("amount"))
}

#[test]
fn a_backup_of_a_running_system_counts_on_elsewhere_and_counts_everything_once() {
    let root = tempfile::tempdir().unwrap();
    let installation = Installation::new(root.path());
    let system = installation.start("data", "etc", &[]);
    let (enough, stop) = (200, AtomicBool::new(false));
    let (before, after) = std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1.. {
                if stop.load(Ordering::Acquire) || !installation.click(&system, number) {
                    return;
                }
            }
        });
        let until = |count: usize| {
            wait::until("clicks are answered", BOUND, || {
                installation.answered() >= count
            });
        };
        until(enough);
        let before = installation.answered();
        let told = done(&installation.backup("backup"));
        let after = installation.answered();
        let secret = installation.text("etc/northpeak.secret");
        assert!(
            told.contains(&format!("file {secret}: a secret of the catalog")),
            "{told}"
        );
        // The machine goes on and is lost with what came after.
        until(after + enough);
        stop.store(true, Ordering::Release);
        (before, after)
    });
    system.kill9();
    fs::remove_dir_all(installation.path("data")).unwrap();
    fs::remove_dir_all(installation.path("etc")).unwrap();

    let told = done(&installation.restore("backup", "elsewhere", "new-etc"));
    // A restore named the secret under its old path.
    let secret = format!(
        "file {} (it lay at {}), is missing: a secret of the catalog",
        installation.text("new-etc/northpeak.secret"),
        installation.text("etc/northpeak.secret")
    );
    assert!(told.contains(&secret), "{secret}: {told}");
    fs::write(installation.path("new-etc/northpeak.secret"), SECRET).unwrap();
    let old = std::mem::take(&mut *installation.answered.lock().unwrap());
    let system = installation.start("elsewhere", "new-etc", &[]);
    let new: Vec<usize> = (1_000_000..).step_by(1).take(enough).collect();
    for number in &new {
        assert!(installation.click(&system, *number));
    }
    system.stop();

    let data = installation.path("elsewhere");
    let counted = ledger::counted(&data);
    let times = |number: &usize| counted.get(&number.to_string()).map_or(0, Vec::len);
    for number in old[..before].iter().chain(&new) {
        assert_eq!(times(number), 1, "click {number}");
    }
    for number in &old[before..] {
        assert!(times(number) <= 1, "click {number}");
    }
    // The thread may have had one click under way when the backup ended.
    for number in &old[after + 1..] {
        assert_eq!(times(number), 0, "click {number} came after the backup");
    }
    let (gross, conversions, amount) = totals(&data);
    assert_eq!(gross, counted.values().map(Vec::len).sum::<usize>());
    let sales = |numbers: &[usize]| {
        let led = |number: &&usize| number.is_multiple_of(SALE_EVERY);
        numbers.iter().filter(led).count()
    };
    let least = sales(&old[..before]) + sales(&new);
    let most = sales(&old[..=after]) + sales(&new) + 1;
    assert!(
        (least..=most).contains(&conversions),
        "{least} to {most}, not {conversions}"
    );
    assert_eq!(amount, format!("{}.00", 10 * conversions));
}

#[test]
fn a_restore_writes_over_nothing_and_believes_no_damaged_file() {
    let root = tempfile::tempdir().unwrap();
    let installation = Installation::new(root.path());
    let system = installation.start("data", "etc", &[]);
    assert!(installation.click(&system, SALE_EVERY));
    system.stop();
    done(&installation.backup("backup"));
    let data = installation.text("data");
    let forgotten = installation.text("without-catalog");
    let told = Command::new(bin("sluice"))
        .args(["backup", &forgotten, "--data", &data])
        .output()
        .unwrap();
    assert!(
        done(&told).contains("catalog and lock files: name them"),
        "{told:?}"
    );

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut folders = vec![installation.path("backup")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 8, "{files}");

    let refused = |output: Output, expected: &str| {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{expected}: {stderr}");
    };
    refused(installation.backup("backup"), "backup is not empty");
    refused(
        installation.restore("backup", "data", "new-etc"),
        "data is not empty",
    );
    fs::create_dir(installation.path("other-etc")).unwrap();
    fs::write(installation.path("other-etc/catalog.toml"), "[network]").unwrap();
    refused(
        installation.restore("backup", "new", "other-etc"),
        "catalog.toml is there and differs from the backup's",
    );
    assert!(!installation.path("new").exists());
    // What is there and the same is left alone.
    done(&installation.restore("backup", "new", "etc"));
    assert_eq!(
        totals(&installation.path("new")),
        (1, 1, "10.00".to_owned())
    );

    let keys = installation.path("backup/data/keys/tokens.key");
    let whole = fs::read_to_string(&keys).unwrap();
    fs::write(&keys, whole.replace('a', "b")).unwrap();
    refused(
        installation.restore("backup", "broken", "etc"),
        "tokens.key is damaged",
    );
    // Nobody takes what there is for a data folder.
    let catalog = installation.text("etc/catalog.toml");
    let data = installation.text("broken");
    let up = ["up", "--data", &data, "--catalog", &catalog];
    let start = Command::new(bin("sluice")).args(up).output().unwrap();
    refused(start, "VERSION file that is not a Sluice version");
    fs::write(&keys, whole).unwrap();
    fs::remove_file(installation.path("backup/manifest.toml")).unwrap();
    refused(
        installation.restore("backup", "newer", "etc"),
        "backup is no backup: it has no manifest.toml",
    );
}

#[test]
fn readers_of_the_topics_dropped_what_a_restored_store_said() {
    let test = "readers_of_the_topics_dropped_what_a_restored_store_said";
    let root = tempfile::tempdir().unwrap();
    let installation = Installation::new(root.path());
    let Some(broker) = on_kafka::broker(test, root.path()) else {
        return;
    };
    let Some(reader) = Reader::new(test, &installation.path("generated"), &broker) else {
        return;
    };
    let address = broker.address();
    let kafka = ["--kafka", address.as_str()];
    let click = |system: &System, numbers: std::ops::Range<usize>| {
        for number in numbers {
            assert!(installation.click(system, number));
        }
    };
    let until = |system: &System, conversions: usize| {
        let expected = format!(",{conversions},");
        wait::until("the sales are counted", BOUND, || {
            let report = system.report("");
            report
                .lines()
                .nth(1)
                .is_some_and(|row| row.contains(&expected))
        });
    };

    let system = installation.start("data", "etc", &kafka);
    click(&system, 1..51);
    until(&system, 10);
    done(&installation.backup("backup"));
    // More is said than the backup knows of.
    click(&system, 51..101);
    until(&system, 20);
    assert!(reader.go_on().status.success());
    system.kill9();
    fs::remove_dir_all(installation.path("data")).unwrap();

    done(&installation.restore("backup", "elsewhere", "etc"));
    let system = installation.start("elsewhere", "etc", &kafka);
    click(&system, 101..151);
    until(&system, 30);
    system.stop();
    let data = installation.path("elsewhere");
    assert_eq!(totals(&data), (150, 30, "300.00".to_owned()));
    for output in [reader.read(), reader.go_on()] {
        let met = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{met}");
        let table = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            table,
            "affiliate,offer,clicks,invalid,conversions,currency,payout\n1,1,150,0,30,USD,24.000000\n",
            "{met}"
        );
    }
}
