//! What tests on Kafka share: a broker with Sluice's topics, a client of their own, and the Python readers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use domain::event::Kind;
use stream::kafka::{Cleanup, KindNames, Settings, Topic};
use stream::{Kafka, Record};
use testkit::kafka::{self, Broker};
use testkit::{Running, bin, python, wait};

use crate::BOUND;

pub(crate) const CLICKS: &str = "sluice.clicks";
pub(crate) const POSTBACKS: &str = "sluice.postbacks";
/// A kind that only a client of ours knows.
pub(crate) const UNKNOWN_KIND: u16 = 77;
pub(crate) const PARTITIONS: u16 = 4;

/// A broker of the test's own with the topics made; none where the test is skipped.
pub(crate) fn broker(test: &str, folder: &Path) -> Option<Broker> {
    let broker = kafka::broker(test, &folder.join("kafka"))?;
    let mut create = Command::new(bin("sluice"));
    create.args(["topics", "create", "--replication", "1", "--kafka"]);
    let output = create.arg(broker.address()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(broker)
}

/// Waits until a part by itself is up; where its metrics and commands are.
pub(crate) fn admin(running: &mut Running) -> SocketAddr {
    let mut found = None;
    wait::until("it is up", BOUND, || {
        assert!(running.ended().is_none(), "{}", running.stderr());
        let stdout = running.stdout();
        let line = stdout
            .lines()
            .find(|line| line.trim_start().starts_with("admin"));
        found = line.and_then(|line| line.rsplit_once("://")?.1.parse().ok());
        found.is_some()
    });
    found.expect("it is up")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Python with a client of Kafka; none where the test is skipped.
pub(crate) fn python(test: &str) -> Option<PathBuf> {
    let python = python::python();
    if python.is_none() {
        testkit::skip(
            test,
            "Python's packages are not there: cargo xtask test fetches them",
        );
    }
    python
}

/// The Python readers with code generated from the schema.
pub(crate) struct Reader {
    python: PathBuf,
    generated: PathBuf,
    brokers: String,
    /// What the incremental one keeps.
    state: PathBuf,
}

impl Reader {
    /// None where the test is skipped.
    pub(crate) fn new(test: &str, generated: &Path, broker: &Broker) -> Option<Self> {
        let python = python(test)?;
        std::fs::create_dir(generated).unwrap();
        let output = Command::new(&python)
            .args(["-m", "grpc_tools.protoc", "-I"])
            .arg(root().join("crates/domain/proto"))
            .arg(format!("--python_out={}", generated.display()))
            .arg("sluice/v1/events.proto")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        Some(Self {
            python,
            generated: generated.to_owned(),
            brokers: broker.address(),
            state: generated.join("state.sqlite"),
        })
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.python);
        command
            .arg(root().join("docs/reader").join(name))
            .args(["--brokers", &self.brokers])
            .env("PYTHONPATH", &self.generated)
            // Nothing is written beside the scripts.
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Reads everything.
    pub(crate) fn read(&self) -> Output {
        self.script("reader.py").output().unwrap()
    }

    fn incremental(&self, state: &Path) -> Command {
        let mut command = self.script("incremental.py");
        command.arg("--state").arg(state);
        command
    }

    /// Reads everything that is there, keeping what it has read elsewhere.
    pub(crate) fn begin_anew(&self) -> Output {
        let state = self.state.with_extension("anew");
        self.incremental(&state).output().unwrap()
    }

    /// Reads what is new.
    pub(crate) fn go_on(&self) -> Output {
        self.incremental(&self.state).output().unwrap()
    }

    /// Begins to read what is new and kills the reader once it has begun to keep something.
    pub(crate) fn go_on_and_kill(&self) {
        let mut child = self
            .incremental(&self.state)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let journal = self.state.with_extension("sqlite-journal");
        wait::holds_within(BOUND, || {
            journal.exists() || child.try_wait().unwrap().is_some()
        });
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// The columns of CSV that are asked for, by name.
pub(crate) fn columns<const N: usize>(csv: &str, names: [&str; N]) -> Vec<[String; N]> {
    let mut lines = csv.lines();
    let head: Vec<&str> = lines.next().expect("a head").split(',').collect();
    let places = names.map(|name| head.iter().position(|found| *found == name).expect(name));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            places.map(|at| fields[at].to_owned())
        })
        .collect()
}

/// A client of our own on the topics of events.
pub(crate) fn connect(broker: &Broker) -> Kafka {
    let settings = Settings {
        brokers: broker.address(),
        ..Settings::default()
    };
    let topics = [CLICKS, POSTBACKS].map(|name| Topic {
        name: name.to_owned(),
        partitions: PARTITIONS,
        cleanup: Cleanup::Days(100),
    });
    let kinds = KindNames {
        name: |number| match number {
            UNKNOWN_KIND => Some("Impression"),
            number => Kind::from_number(number).map(Kind::name),
        },
        number: |name| Kind::from_name(name).map(|kind| kind as u16),
    };
    Kafka::connect(&settings, &topics, kinds).unwrap()
}

/// A topic's records until some of them are there.
pub(crate) fn records(
    kafka: &Kafka,
    topic: &str,
    enough: impl Fn(&[Record]) -> bool,
) -> Vec<Record> {
    let mut receiver = kafka.receiver(topic, "test", "test").unwrap();
    let mut records = Vec::new();
    wait::until("the topic holds what is looked for", BOUND, || {
        for partition in receiver.assigned().unwrap_or_default() {
            receiver.seek(partition, 0).unwrap();
        }
        if let Some(batch) = receiver.poll(1000, Duration::from_millis(100)).unwrap() {
            records.extend(batch.records.into_iter().map(|(_, record)| record));
        }
        enough(&records)
    });
    records
}

/// Sends them as they are.
pub(crate) fn send(kafka: &Kafka, topic: &str, records: &[Record]) {
    let mut sender = kafka.sender().unwrap();
    for record in records {
        sender.send(topic, record).unwrap();
    }
    wait::until("all is acknowledged", BOUND, || {
        sender.acknowledged(Duration::from_millis(50)).unwrap() == records.len() as u64
    });
}
