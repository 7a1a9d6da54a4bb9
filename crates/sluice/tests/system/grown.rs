//! `sluice topics grow` under an edge that goes on: what was counted before stays counted once, and what comes after is
//! counted, under numbers that go on where they were.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use domain::Topic;
use store::Store;
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

/// What each consumer reads.
const READ: [(&str, Topic); 4] = [
    ("fraud", Topic::Clicks),
    ("clicks", Topic::Clicks),
    ("clicks", Topic::FraudSignals),
    ("conversions", Topic::Postbacks),
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

    /// The start is refused.
    #[track_caller]
    fn does_not_start(&self, part: &str, said: &str) {
        let mut command = self.command("sluice", &[part, "--admin", "127.0.0.1:0"]);
        refused(&command.output().unwrap(), said);
    }

    fn topics(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["topics"];
        all.extend(arguments);
        self.command("sluice", &all).output().unwrap()
    }

    /// Grows once the group has forgotten the members that were stopped.
    fn grow(&self, partitions: &str) -> String {
        let mut output = self.topics(&["grow", "--partitions", partitions]);
        wait::until("topics grow", BOUND, || {
            if output.status.success() {
                return true;
            }
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains("members: stop sluice"), "{output:?}");
            assert!(!said.contains("stands at"), "{output:?}");
            output = self.topics(&["grow", "--partitions", partitions]);
            false
        });
        String::from_utf8_lossy(&output.stdout).into_owned()
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

    /// Waits until every consumer stands at the end of what it reads and has sent what it says.
    fn until_drained(&self) {
        let store = Store::open(&self.data().join("store.sqlite")).unwrap();
        let admin = self.admin();
        let stands_at_end = |(consumer, topic): (&str, Topic)| {
            let name = self.topic(topic.name());
            let count = u16::try_from(admin.partitions(&name).unwrap().len()).unwrap();
            (0..count).all(|partition| {
                let position =
                    store.batch(|batch| batch.position(consumer, topic as u8, partition));
                position.unwrap().offset == admin.end(&name, partition).unwrap()
            })
        };
        let has_sent = |(consumer, topic)| {
            let outbox = consumer::outbox_name(consumer, topic);
            store.batch(|batch| batch.outbox_is_empty(&outbox)).unwrap()
        };
        // What a consumer reads it may have something to say of, and what it says another may read.
        wait::until("everything is drained", BOUND, || {
            READ.into_iter().all(stands_at_end)
                && READ.into_iter().all(has_sent)
                && READ.into_iter().all(stands_at_end)
        });
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
    refused(
        &installation.topics(&["grow", "--partitions", "4"]),
        "has no store: run this where the consumers run",
    );

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
    let readers = installation.admin().members(&installation.topic("clicks"));
    assert_eq!(readers.unwrap(), 1);
    refused(
        &installation.topics(&["grow", "--partitions", "4"]),
        "is in use by process",
    );
    stop(parts);

    // Shipped and not folded: not drained, and nothing changes.
    let courier = installation.start(&["courier"]);
    let second = round(edge);
    wait::until("the clicks are shipped", BOUND, || {
        installation.sent() >= 2 * VISITORS as u64
    });
    stop(courier);
    for (partitions, said) in [
        (
            "4",
            "start sluice consume until it is at the end, with couriers stopped",
        ),
        ("4", "are not drained, listed above: nothing is changed"),
        ("3", "choose a whole multiple of 2, 256 at most"),
    ] {
        let output = installation.topics(&["grow", "--partitions", partitions]);
        refused(&output, said);
    }
    let check = installation.topics(&["check"]);
    assert!(check.status.success(), "{check:?}");
    let parts = installation.start(&PARTS[1..]);
    installation.until_counted(2 * VISITORS, ORDERS);
    installation.until_drained();
    stop(parts);

    // As a command leaves it that was killed after the first topic.
    {
        let store = Store::open(&data.join("store.sqlite")).unwrap();
        store.batch(|batch| batch.plan_partitions(4)).unwrap();
    }
    let clicks = installation.topic("clicks");
    installation.admin().grow(&clicks, 4).unwrap();
    for (partitions, said) in [
        (2, "clicks: has 4 partitions, 2 are set"),
        (4, "postbacks: has 2 partitions, 4 are set"),
    ] {
        installation.set(partitions);
        refused(
            &installation.topics(&["check"]),
            "on their way to 4: run sluice topics grow --partitions 4 again",
        );
        installation.does_not_start("consume", said);
        installation.does_not_start("courier", said);
    }
    // And after the last one.
    for name in ["postbacks", "conversions", "fraud-signals", "catalog"] {
        installation
            .admin()
            .grow(&installation.topic(name), 4)
            .unwrap();
    }
    installation.does_not_start("consume", "on their way to 4");
    let said = installation.grow("4");
    assert!(said.contains("the store follows, version 2"), "{said}");
    let said = installation.grow("4");
    assert!(
        said.contains("every topic has 4 partitions, version 2"),
        "{said}"
    );

    // Another one, killed somewhere.
    wait::until("the groups have forgotten who was stopped", BOUND, || {
        let groups = ["fraud", "clicks", "clicks-signals", "conversions"];
        let members = groups.map(|name| installation.admin().members(&installation.topic(name)));
        members.into_iter().map(Result::unwrap).sum::<usize>() == 0
    });
    let grow = installation.command("sluice", &["topics", "grow", "--partitions", "8"]);
    let mut grow = Running::spawn(grow, &folder.path().join("grow")).unwrap();
    wait::until("the first topic has grown", BOUND, || {
        assert!(
            grow.ended().is_none_or(|status| status.success()),
            "{}",
            grow.stderr()
        );
        grow.stdout().contains("has 8 partitions")
    });
    grow.kill9();
    installation.grow("8");
    installation.does_not_start("consume", "clicks: has 8 partitions, 4 are set");

    // The edge has gone on: its streams' numbers continue in other partitions.
    installation.set(8);
    let mut parts = installation.start(&PARTS);
    let third = round(edge);
    sales(edge, &data, "first", &first);
    sales(edge, &data, "second", &second);
    sales(edge, &data, "third", &third);
    installation.until_counted(3 * VISITORS, 3 * ORDERS);

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
    installation.until_counted(3 * VISITORS, 3 * ORDERS);
}
