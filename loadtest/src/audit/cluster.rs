//! The system under audit: a broker and a process a part, each started again when it has ended.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::kafka::Broker;
use testkit::{Running, wait};

/// The demo catalog's redirect host.
pub(super) const HOST: &str = "go.northpeak.example";

pub(super) const PARTITIONS: u16 = 4;

const BOUND: Duration = Duration::from_secs(60);

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
    pub(super) edge: SocketAddr,
    pub(super) broker: Broker,
    running: Vec<(Part, Option<Running>)>,
    /// Changes between starts of the edge.
    pub(super) workers: u32,
    starts: u32,
}

impl Cluster {
    pub(super) fn start(folder: &Path, bin: &Path, jars: &Path) -> Result<Self, Box<dyn Error>> {
        let broker = Broker::start(jars, &folder.join("kafka"), &[]);
        let edge = testkit::lasting_address();
        let mut cluster = Self {
            folder: folder.to_path_buf(),
            bin: bin.to_path_buf(),
            edge,
            broker,
            running: Part::ALL.map(|part| (part, None)).into(),
            workers: 2,
            starts: 0,
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
        let made = cluster.sluice(&[
            "topics",
            "create",
            "--replication",
            "1",
            "--kafka",
            &cluster.broker.address(),
        ])?;
        print!("{made}");
        cluster.all_up()?;
        Ok(cluster)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The answer of a command.
    pub(super) fn sluice(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(self.bin.join("sluice"))
            .args(arguments)
            .output()
            .map_err(|error| format!("sluice does not start: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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

    fn spawn(&mut self, part: Part) -> Running {
        self.starts += 1;
        let mut command = match part {
            Part::Edge => {
                let mut command = Command::new(self.bin.join("sluice-edge"));
                command.args(["--edge", &self.edge.to_string()]);
                let settings = self.folder.join("edge.toml");
                let text = format!("[edge]\nworkers = {}\nring_bytes = 8388608\n", self.workers);
                std::fs::write(&settings, text).expect("the audit's folder is writable");
                command.arg("--settings").arg(settings);
                command
            }
            _ => {
                let mut command = Command::new(self.bin.join("sluice"));
                command.args([part.name(), "--kafka", &self.broker.address()]);
                command
            }
        };
        command
            .args(["--admin", "127.0.0.1:0", "--data"])
            .arg(self.data());
        // Every start keeps its own output: evidence.
        let output = self.folder.join(format!("{}-{}", part.name(), self.starts));
        Running::spawn(command, &output).expect("a built binary can be started")
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
        }
        Ok(())
    }
}
