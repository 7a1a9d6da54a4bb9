//! `sluice topics grow` under an edge that goes on: what was counted before stays counted once, and what comes after is
//! counted, under numbers that go on where they were.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use stream::kafka::{Admin, Settings};
use testkit::kafka::{self, Shared};
use testkit::{Running, System, bin, http, system, wait};

use crate::{BOUND, CHROME, demo_secret, token};

/// Each clicks once a round, from a network of its own; every fifth buys.
const VISITORS: usize = 40;
const ORDERS: usize = VISITORS / 5;

/// Every process but the edge, in the order of their stops.
const PARTS: [&str; 4] = [
    "courier",
    "consume --only fraud",
    "consume --only clicks",
    "consume --only conversions",
];

/// An installation on a cluster.
struct Installation {
    cluster: Shared,
    folder: PathBuf,
}

impl Installation {
    /// Its settings name so many partitions from now on.
    fn set(&self, partitions: u16) {
        let text = format!(
            "[stream]\npartitions = {partitions}\nprefix = \"{}\"\n\
             [edge]\nworkers = 1\ntrusted_forwarders = [\"127.0.0.0/8\"]\n",
            self.cluster.prefix(),
        );
        fs::write(self.settings(), text).unwrap();
    }

    fn settings(&self) -> PathBuf {
        self.folder.join("sluice.toml")
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A command, not yet run.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(bin(program));
        command.args(arguments);
        command.arg("--settings").arg(self.settings());
        command.arg("--data").arg(self.data());
        if program == "sluice" {
            command.args(["--kafka", self.cluster.address()]);
        }
        command
    }

    fn start(&self, parts: &[&str]) -> Vec<Running> {
        let start = |part: &&str| {
            let mut command = self.command("sluice", &part.split(' ').collect::<Vec<_>>());
            command.args(["--admin", "127.0.0.1:0"]);
            Running::spawn(command, &self.folder.join(part)).unwrap()
        };
        let mut running: Vec<Running> = parts.iter().map(start).collect();
        for running in &mut running {
            wait::until("it is up", BOUND, || {
                assert!(running.ended().is_none(), "{}", running.stderr());
                running.stdout().contains("is up")
            });
        }
        running
    }

    fn topics(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["topics"];
        all.extend(arguments);
        self.command("sluice", &all).output().unwrap()
    }

    fn admin(&self) -> Admin {
        let settings = Settings {
            brokers: self.cluster.address().to_owned(),
            ..Settings::default()
        };
        Admin::connect(&settings).unwrap()
    }

    fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.cluster.prefix())
    }

    /// Records in the topic of clicks.
    fn sent(&self) -> u64 {
        let (admin, clicks) = (self.admin(), self.topic("clicks"));
        let count = u16::try_from(admin.partitions(&clicks).unwrap().len()).unwrap();
        let ends = (0..count).map(|partition| admin.end(&clicks, partition).unwrap());
        ends.sum()
    }

    /// Waits until so many clicks and conversions are counted; each visitor's first click of the day is unique.
    #[track_caller]
    fn until_counted(&self, clicks: usize, conversions: usize) {
        let expected = format!(
            "{clicks},{clicks},{VISITORS},{},0,0,{conversions},",
            clicks - VISITORS
        );
        let mut report = String::new();
        let found = wait::holds_within(BOUND, || {
            report = system::command(&self.data(), &["report", "--by", "", "--format", "csv"]);
            let row = report.lines().nth(1).unwrap_or_default();
            row.starts_with(&expected)
        });
        assert!(found, "expected {expected} in the end it was\n{report}");
    }
}

/// Asks them to end, one after another.
fn stop(running: Vec<Running>) {
    for mut running in running {
        let status = running.terminate(BOUND);
        assert!(
            status.is_some_and(|status| status.success()),
            "{}",
            running.stderr()
        );
    }
}

#[track_caller]
fn refused(output: &Output, said: &str) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stdout}{stderr}");
    assert!(
        stdout.contains(said) || stderr.contains(said),
        "no {said:?} in: {stdout}{stderr}"
    );
}

const HOST: (&str, &str) = ("Host", "go.northpeak.example");

/// Every visitor clicks; the tokens of those who buy.
fn round(edge: SocketAddr) -> Vec<String> {
    let tokens = (0..VISITORS).map(|visitor| {
        let network = format!("10.1.{visitor}.1");
        let from = ("X-Forwarded-For", network.as_str());
        let headers = [HOST, ("User-Agent", CHROME), from];
        let click = http::get(edge, "/c?offer=boots&aff=trailblog", &headers).unwrap();
        token(&click, "npk")
    });
    tokens.step_by(5).collect()
}

fn sales(edge: SocketAddr, data: &Path, name: &str, tokens: &[String]) {
    let secret = demo_secret(data);
    for (number, token) in tokens.iter().enumerate() {
        let target = format!(
            "/postback?token={token}&order={name}-{number}&goal=sale&amount=10.00&secret={secret}"
        );
        assert_eq!(http::get(edge, &target, &[HOST]).unwrap().status, 200);
    }
}

#[test]
fn grown_topics_count_everything_once() {
    let folder = tempfile::tempdir().unwrap();
    let test = "grown_topics_count_everything_once";
    let Some(cluster) = kafka::any(test, &folder.path().join("kafka")) else {
        return;
    };
    let installation = Installation {
        cluster,
        folder: folder.path().to_owned(),
    };
    let data = installation.data();
    installation.set(2);
    let made = installation.topics(&["create", "--replication", "1"]);
    assert!(made.status.success(), "{made:?}");

    // Keys and catalog come from a start in one process. The edge then runs to the end of the test.
    let settings = installation.settings();
    System::start(&data, &["--settings", settings.to_str().unwrap()]).stop();
    let arguments = ["--edge", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let edge = installation.command("sluice-edge", &arguments);
    let running = Running::spawn(edge, &folder.path().join("edge")).unwrap();
    wait::until("the edge is up", BOUND, || {
        running.stdout().contains(", data in")
    });
    let said = running.stdout();
    let address = said.split("http://").nth(1).unwrap();
    let edge: SocketAddr = address.split(',').next().unwrap().parse().unwrap();

    let parts = installation.start(&PARTS);
    let first = round(edge);
    sales(edge, &data, "first", &first);
    installation.until_counted(VISITORS, ORDERS);
    refused(
        &installation.topics(&["grow", "--partitions", "3"]),
        "choose a whole multiple of 2, 256 at most",
    );
    for running in parts {
        kill(running);
    }
    // Shipped and not folded, and a courier that was killed with what it had under way.
    let courier = installation.start(&["courier"]);
    let second = round(edge);
    wait::until("the clicks are shipped", BOUND, || {
        installation.sent() >= 2 * VISITORS as u64
    });
    courier.into_iter().for_each(kill);

    let clicks = installation.topic("clicks");
    installation.admin().grow(&clicks, 4).unwrap();
    for (partitions, said) in [
        (2, "clicks: has 4 partitions, 2 are set"),
        (4, "postbacks: has 2 partitions, 4 are set"),
    ] {
        installation.set(partitions);
        refused(&installation.topics(&["check"]), said);
    }
    // What a command left half done that was killed after the first topic, the next one completes.
    for _ in 0..2 {
        let grown = installation.topics(&["grow", "--partitions", "4"]);
        assert!(grown.status.success(), "{grown:?}");
    }
    let parts = installation.start(&PARTS);
    let third = round(edge);
    sales(edge, &data, "second", &second);
    installation.until_counted(3 * VISITORS, 2 * ORDERS);

    // Nobody is stopped for it: they stand still when they hear of it, and go on with the new count.
    let grown = installation.topics(&["grow", "--partitions", "8"]);
    assert!(grown.status.success(), "{grown:?}");
    let fourth = round(edge);
    sales(edge, &data, "third", &third);
    for running in &parts {
        wait::until("it stands still", BOUND, || {
            running.stderr().contains("has 8 partitions, 4 are set")
        });
    }
    parts.into_iter().for_each(kill);
    installation.set(8);
    let mut parts = installation.start(&PARTS);
    sales(edge, &data, "fourth", &fourth);
    installation.until_counted(4 * VISITORS, 4 * ORDERS);

    // Everything that was ever sent is sent again, where its lane is now.
    stop(vec![parts.remove(0)]);
    let sent = installation.sent();
    fs::remove_dir_all(data.join("cursors")).unwrap();
    let courier = installation.start(&["courier"]);
    wait::until("everything is sent again", BOUND, || {
        installation.sent() >= 2 * sent
    });
    stop(courier);
    stop(parts);
    installation.until_counted(4 * VISITORS, 4 * ORDERS);

    // A store is nothing but a cache of the topics, also of those that have grown.
    let counted = system::command(&data, &["report", "--by", "affiliate,offer,link"]);
    for file in ["store.sqlite", "store.sqlite-wal", "store.sqlite-shm"] {
        let _ = fs::remove_file(data.join(file));
    }
    let parts = installation.start(&PARTS[1..]);
    installation.until_counted(4 * VISITORS, 4 * ORDERS);
    let again = system::command(&data, &["report", "--by", "affiliate,offer,link"]);
    assert_eq!(again, counted);
    stop(parts);
}

fn kill(mut running: Running) {
    running.kill9();
}
