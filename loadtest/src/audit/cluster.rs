//! The system under audit: a broker and a process a part, each started again when it has ended.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::kafka::Broker;
use testkit::{Running, http, wait};

use super::books::Books;
use super::clock::WallClock;
use super::mounts::Disks;
use super::proxy::Proxy;

/// The demo catalog's redirect host.
pub(super) const HOST: &str = "go.northpeak.example";

/// Of every topic, at first.
const PARTITIONS: u16 = 4;

const BOUND: Duration = Duration::from_secs(60);

/// Stopped members leave their groups within half a minute.
const GROW_MAX: Duration = Duration::from_secs(150);

/// What consumers get to fold what couriers have sent.
const FOLDING: Duration = Duration::from_secs(3);

/// A process of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Edge,
    Courier,
    Fraud,
    Clicks,
    Conversions,
}

impl Part {
    pub(super) const ALL: [Self; 5] = [
        Self::Edge,
        Self::Courier,
        Self::Fraud,
        Self::Clicks,
        Self::Conversions,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Courier => "courier",
            Self::Fraud => "fraud",
            Self::Clicks => "clicks",
            Self::Conversions => "conversions",
        }
    }
}

pub(super) struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
    jars: PathBuf,
    pub(super) edge: SocketAddr,
    pub(super) broker: Broker,
    /// Where everybody reaches the broker.
    pub(super) brokers: String,
    pub(super) network: Proxy,
    /// `None` where it cannot be made to step.
    pub(super) clock: Option<WallClock>,
    running: Vec<(Part, Option<Running>)>,
    /// Changes between starts of the edge.
    pub(super) workers: u32,
    /// Of every topic, now.
    pub(super) partitions: u16,
    starts: u32,
    pub(super) books: Books,
    /// Unmounted after the processes above are gone.
    disks: Option<Disks>,
}

/// What the system runs on.
#[derive(Clone, Copy, Debug)]
pub(super) struct With {
    /// Disks of its own that can be filled.
    pub(super) disks: bool,
    /// A clock that can be made to step, where the machine has what it takes.
    pub(super) clock: bool,
}

impl Cluster {
    pub(super) fn start(
        folder: &Path,
        bin: &Path,
        jars: &Path,
        with: With,
    ) -> Result<Self, Box<dyn Error>> {
        let proxy = testkit::lasting_address();
        let advertised = format!("PLAINTEXT://{proxy}");
        let advertised = [("advertised.listeners", advertised.as_str())];
        let broker = Broker::start(jars, &folder.join("kafka"), &advertised);
        let network = Proxy::start(proxy, broker.address().parse()?)?;
        let edge = testkit::lasting_address();
        let mut cluster = Self {
            folder: folder.to_path_buf(),
            bin: bin.to_path_buf(),
            jars: jars.to_path_buf(),
            edge,
            broker,
            brokers: proxy.to_string(),
            network,
            clock: if with.clock {
                WallClock::make(folder)?
            } else {
                None
            },
            running: Part::ALL.map(|part| (part, None)).into(),
            workers: 2,
            partitions: PARTITIONS,
            starts: 0,
            books: Books::default(),
            disks: None,
        };
        // The keys, the demo catalog and the store come from a first start in one process.
        let mut first = Command::new(bin.join("sluice"));
        first.args(["up", "--edge", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        first
            .args(["--reports", "127.0.0.1:0", "--data"])
            .arg(cluster.data());
        let mut first = Running::spawn(first, &folder.join("first"))?;
        wait::until("the first start is up", BOUND, || {
            assert!(first.ended().is_none(), "{}", first.stderr());
            first.stdout().contains("  admin ")
        });
        first
            .terminate(BOUND)
            .ok_or("the first start does not end")?;
        if with.disks {
            cluster.disks = Some(Disks::make(folder.join("disks"), &cluster.data())?);
        }
        let made = cluster.sluice(&[
            "topics",
            "create",
            "--replication",
            "1",
            "--kafka",
            &cluster.brokers,
        ])?;
        print!("{made}");
        cluster.all_up()?;
        Ok(cluster)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The answer of a command, or everything it said when it failed.
    pub(super) fn sluice(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(self.bin.join("sluice"))
            .args(arguments)
            .output()
            .map_err(|error| format!("sluice does not start: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        Err(said + &String::from_utf8_lossy(&output.stderr))
    }

    /// Starts what does not run and waits until all of it is up.
    pub(super) fn all_up(&mut self) -> Result<(), Box<dyn Error>> {
        let up = wait::holds_within(BOUND, || {
            self.keep_up();
            self.running.iter().all(|(_, running)| {
                running
                    .as_ref()
                    .is_some_and(|running| running.stdout().contains("is up"))
            })
        });
        if up {
            return Ok(());
        }
        let said = self.running.iter().map(|(part, running)| {
            let said = running.as_ref().map_or(String::new(), Running::stderr);
            format!("{}: {said}", part.name())
        });
        Err(format!(
            "not everything is up: {}",
            said.collect::<Vec<_>>().join("\n")
        )
        .into())
    }

    /// Starts again what has ended, as a service manager does.
    pub(super) fn keep_up(&mut self) {
        for at in 0..self.running.len() {
            let (part, running) = &mut self.running[at];
            let part = *part;
            let lives = running
                .as_mut()
                .is_some_and(|running| running.ended().is_none());
            if !lives {
                self.running[at].1 = Some(self.spawn(part));
            }
        }
    }

    /// Kills what says that it is stuck, as a supervisor does, and starts it again.
    pub(super) fn keep_alive(&mut self) {
        for part in Part::ALL {
            // One that does not answer is starting or ending.
            let stuck = self
                .ask(part, "/livez")
                .filter(|answer| answer.status == 503);
            if let (Some(stuck), Some(running)) = (stuck, self.of(part)) {
                println!("stuck and killed: {}: {}", part.name(), stuck.text().trim());
                running.kill9();
            }
        }
        self.keep_up();
    }

    /// Has the courier's ledger checked, where one runs.
    pub(super) fn check_books(&mut self) {
        if let Some(answer) = self.ask(Part::Courier, "/metrics") {
            self.books.scrape(&answer.text());
        }
    }

    fn spawn(&mut self, part: Part) -> Running {
        self.starts += 1;
        let mut command = match part {
            Part::Edge => {
                let mut command = Command::new(self.bin.join("sluice-edge"));
                command.args(["--edge", &self.edge.to_string()]);
                command
            }
            _ => {
                let mut command = Command::new(self.bin.join("sluice"));
                match part {
                    Part::Courier => command.arg("courier"),
                    consumer => command.args(["consume", "--only", consumer.name()]),
                };
                command.args(["--kafka", &self.brokers]);
                command
            }
        };
        let settings = self.folder.join("sluice.toml");
        let text = format!(
            "[edge]\nworkers = {}\nring_bytes = 1048576\n[stream]\npartitions = {}\n",
            self.workers, self.partitions
        );
        // Whole at any time: the process that was started before this one may be reading it.
        let new = settings.with_extension("new");
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &settings))
            .expect("the audit's folder is writable");
        command.arg("--settings").arg(settings);
        command
            .args(["--admin", "127.0.0.1:0", "--data"])
            .arg(self.data());
        if let Some(clock) = &self.clock {
            clock.give(&mut command);
        }
        // Every start keeps its own output: evidence.
        let output = self.folder.join(format!("{}-{}", part.name(), self.starts));
        Running::spawn(command, &output).expect("a built binary can be started")
    }

    /// What a part answers at its admin address.
    fn ask(&mut self, part: Part, path: &str) -> Option<http::Response> {
        let said = self.of(part)?.stdout();
        let (_, admin) = said.rsplit_once("admin")?;
        let admin = admin.trim_start().strip_prefix("http://")?;
        let admin = admin.split([',', '\n']).next()?.parse().ok()?;
        http::get(admin, path, &[]).ok()
    }

    /// The sum of a metric's samples whose line begins like this; `None` while the part does not answer.
    pub(super) fn metric(&mut self, part: Part, begins: &str) -> Option<u64> {
        let answer = self.ask(part, "/metrics")?.text();
        let samples = answer.lines().filter(|line| line.starts_with(begins));
        let values = samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        Some(values.sum())
    }

    /// The disks that can be filled.
    pub(super) fn disks(&self) -> Result<&Disks, &'static str> {
        self.disks.as_ref().ok_or("no disks of its own")
    }

    /// Gives every topic twice as many partitions: couriers stop, consumers fold what is there and stop, edges go on.
    pub(super) fn grow(&mut self) -> Result<(), Box<dyn Error>> {
        self.all_up()?;
        let partitions = self.partitions * 2;
        let data = self.data();
        let data = data.to_str().ok_or("the folder's name is not text")?;
        let mut said = String::new();
        let grown = wait::holds_within(GROW_MAX, || {
            // Before each further try, consumers fold what is still unfolded.
            let consumers = [Part::Fraud, Part::Clicks, Part::Conversions];
            if said.contains("stands at") || said.contains("is not sent yet") {
                for part in consumers {
                    let started = self.spawn(part);
                    if let Some(running) = self.of(part) {
                        *running = started;
                    }
                }
                wait::pass(FOLDING);
            }
            for part in [Part::Courier].into_iter().chain(consumers) {
                if let Some(running) = self.of(part) {
                    running.terminate(BOUND);
                }
            }
            let count = partitions.to_string();
            let grow = ["topics", "grow", "--partitions", &count, "--data", data];
            let cluster = ["--kafka", &self.brokers];
            match self.sluice(&[&grow[..], &cluster].concat()) {
                Ok(_) => true,
                Err(why) => {
                    said = why;
                    wait::pass(Duration::from_secs(1));
                    false
                }
            }
        });
        if !grown {
            return Err(format!("topics do not grow: {said}").into());
        }
        self.partitions = partitions;
        self.all_up()
    }

    /// How large a batch of clicks the broker takes; `None` is its own bound.
    pub(super) fn limit_batches(&self, bytes_max: Option<u32>) -> Result<(), String> {
        let change = match bytes_max {
            Some(bytes_max) => [
                "--add-config".into(),
                format!("max.message.bytes={bytes_max}"),
            ],
            None => ["--delete-config".into(), "max.message.bytes".into()],
        };
        let output = Command::new("java")
            .arg("-cp")
            .arg(self.jars.join("*"))
            .arg("kafka.admin.ConfigCommand")
            .args(["--bootstrap-server", &self.brokers, "--alter"])
            .args(["--entity-type", "topics", "--entity-name", "sluice.clicks"])
            .args(change)
            .output()
            .map_err(|error| format!("java does not start: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("the topic's configuration does not change: {said}"))
    }

    pub(super) fn of(&mut self, part: Part) -> Option<&mut Running> {
        let mut all = self.running.iter_mut();
        all.find(|(known, _)| *known == part)?.1.as_mut()
    }

    /// Asks everything to end, in the order of an event's way, so that each drains what comes before it.
    pub(super) fn end(&mut self) -> Result<(), String> {
        for part in Part::ALL {
            let status = self.of(part).and_then(|running| running.terminate(BOUND));
            if !status.is_some_and(|status| status.success()) {
                let said = self
                    .of(part)
                    .map_or(String::new(), |running| running.stderr());
                return Err(format!("{} ended with {status:?}: {said}", part.name()));
            }
            if part == Part::Edge {
                // The books are closed when what edges said last is delivered.
                wait::holds_within(BOUND, || {
                    self.check_books();
                    self.books.settled()
                });
            }
        }
        Ok(())
    }
}
