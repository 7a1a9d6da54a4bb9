//! The system under audit: a broker and two machines, a process a part, each started again when it has ended. Both machines
//! redirect; the first one also counts, and applies the catalog, which the second one has by its topic.

use std::error::Error;
use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::kafka::Broker;
use testkit::{Running, http, wait};

use super::books::Books;
use super::clock::WallClock;
use super::mounts::Disks;
use super::proxy::Proxy;
use super::syncs::Syncs;
use super::visits::{self, ADVERTISERS};
use super::walk;

/// Of every topic, at first.
const PARTITIONS: u16 = 4;

const BOUND: Duration = Duration::from_secs(60);

/// Short, so that a pause goes beyond them within an audit.
pub(super) const SESSION_MS: u32 = 6_000;
pub(super) const POLL_MS: u32 = 15_000;

/// Longer than any step of a clock: what is shipped stays to be compared.
const RETAIN_S: u64 = 10 * 24 * 60 * 60;

/// What couriers and consumers say of topics that have grown.
const GROWN: &str = " are set";

/// What a part says that is asked to end before it has read the catalog of its machine.
const NOT_BEGUN: &str = "ended early, what was recorded is kept";

/// A supervisor gives a process some looks before it kills it: one that was paused, or waits for a busy disk, goes on.
const STUCK_LOOKS: u32 = 3;
const STUCK_LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a consumer says when it begins to read.
const READS: &str = "the stream is there, going on";

/// What a consumer says beside another store's.
const BESIDE: &str = "each of the two would count a part";

/// The number of a machine: the first one counts, too.
pub(super) type Machine = usize;

pub(super) const MACHINES: [Machine; 2] = [0, 1];

/// What can be taken back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    /// How far a machine's journals are shipped.
    Cursors(Machine),
    /// Everything that was counted.
    Store,
}

/// Where a bit is flipped. What is acknowledged is not lost by it: the other copy is as good.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flipped {
    /// In the head or the value of one of a cursor's two slots.
    Cursor,
    /// In the header of the file that is written.
    Header,
}

/// What a cursor's slot holds at least.
const CURSOR_BYTES: u64 = 300;

/// By how much.
const ROLLED_BACK: Duration = Duration::from_secs(3);

/// A process of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Edge(Machine),
    Courier(Machine),
    Fraud,
    Clicks,
    Conversions,
}

impl Part {
    /// In the order of an event's way.
    pub(super) const ALL: [Self; 7] = [
        Self::Edge(0),
        Self::Edge(1),
        Self::Courier(0),
        Self::Courier(1),
        Self::Fraud,
        Self::Clicks,
        Self::Conversions,
    ];

    pub(super) const CONSUMERS: [Self; 3] = [Self::Fraud, Self::Clicks, Self::Conversions];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Edge(0) => "edge-a",
            Self::Edge(_) => "edge-b",
            Self::Courier(0) => "courier-a",
            Self::Courier(_) => "courier-b",
            Self::Fraud => "fraud",
            Self::Clicks => "clicks",
            Self::Conversions => "conversions",
        }
    }

    fn machine(self) -> Machine {
        match self {
            Self::Edge(machine) | Self::Courier(machine) => machine,
            Self::Fraud | Self::Clicks | Self::Conversions => 0,
        }
    }
}

pub(super) struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
    jars: PathBuf,
    pub(super) edges: [SocketAddr; MACHINES.len()],
    pub(super) broker: Broker,
    /// Where everybody reaches the broker.
    pub(super) brokers: String,
    pub(super) network: Proxy,
    /// `None` where it cannot be made to step.
    pub(super) clock: Option<WallClock>,
    /// `None` where none can be made to fail.
    pub(super) syncs: Option<Syncs>,
    running: Vec<(Part, Option<Running>)>,
    /// Changes between starts of the edge.
    pub(super) workers: u32,
    /// Of every topic, now.
    pub(super) partitions: u16,
    starts: u32,
    pub(super) books: Books,
    /// What happens now explains that parts end by themselves.
    pub(super) excuse: bool,
    /// Parts that somebody had to start again although nothing explains that they ended.
    pub(super) revived: Vec<String>,
    /// What the store said after the moment it was taken back to, it has said again.
    pub(super) store_rolled_back: bool,
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
        let edges = MACHINES.map(|_| testkit::lasting_address());
        let mut cluster = Self {
            folder: folder.to_path_buf(),
            bin: bin.to_path_buf(),
            jars: jars.to_path_buf(),
            edges,
            broker,
            brokers: proxy.to_string(),
            network,
            clock: if with.clock {
                WallClock::make(folder)?
            } else {
                None
            },
            syncs: Syncs::make(folder)?,
            running: Part::ALL.map(|part| (part, None)).into(),
            workers: 2,
            partitions: PARTITIONS,
            starts: 0,
            books: Books::default(),
            excuse: false,
            revived: Vec::new(),
            store_rolled_back: false,
            disks: None,
        };
        cluster.write_catalog()?;
        // The keys, the catalog's version and the store come from a first start in one process.
        let mut first = Command::new(bin.join("sluice"));
        first.args(["up", "--edge", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        first
            .arg("--catalog")
            .arg(cluster.catalog().join("catalog.toml"));
        first
            .args(["--reports", "127.0.0.1:0", "--data"])
            .arg(cluster.data(0));
        let mut first = Running::spawn(first, &folder.join("first"))?;
        wait::until("the first start is up", BOUND, || {
            assert!(first.ended().is_none(), "{}", first.stderr());
            first.stdout().contains("  admin ")
        });
        first
            .terminate(BOUND)
            .ok_or("the first start does not end")?;
        if with.disks {
            cluster.disks = Some(Disks::make(folder.join("disks"), &cluster.data(0))?);
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
        cluster.add_machine()?;
        cluster.all_up()?;
        Ok(cluster)
    }

    pub(super) fn data(&self, machine: Machine) -> PathBuf {
        self.folder.join(["data-a", "data-b"][machine])
    }

    /// The folder of the catalog's files.
    pub(super) fn catalog(&self) -> PathBuf {
        self.folder.join("catalog")
    }

    fn write_catalog(&self) -> Result<(), Box<dyn Error>> {
        let folder = self.catalog();
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("catalog.toml"), visits::catalog())?;
        for (name, _) in ADVERTISERS {
            let path = folder.join(format!("{name}.secret"));
            fs::write(&path, format!("{name}-says-so"))?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        }
        Ok(())
    }

    /// The second machine, as OPERATIONS.md says: keys and secrets by hand, the catalog by its topic.
    fn add_machine(&mut self) -> Result<(), Box<dyn Error>> {
        let (first, second) = (self.data(0), self.data(1));
        let data = text(&first)?.to_owned();
        self.sluice(&[
            "catalog",
            "publish",
            "--kafka",
            &self.brokers,
            "--data",
            &data,
        ])?;
        let copy = |from: PathBuf, to: &str| -> Result<(), Box<dyn Error>> {
            let to = second.join(to);
            fs::create_dir_all(&to)?;
            fs::set_permissions(&to, Permissions::from_mode(0o700))?;
            for file in fs::read_dir(from)? {
                let file = file?;
                fs::copy(file.path(), to.join(file.file_name()))?;
            }
            Ok(())
        };
        copy(first.join("keys"), "keys")?;
        copy(self.catalog(), "secrets")?;
        fs::remove_file(second.join("secrets/catalog.toml"))?;
        fs::remove_file(second.join("secrets/catalog.lock"))?;
        let courier = Part::Courier(1);
        let started = self.spawn(courier);
        self.put(courier, Some(started));
        let in_force = second.join("catalog/current");
        let has_catalog = wait::holds_within(BOUND, || in_force.exists());
        match has_catalog {
            true => Ok(()),
            false => Err("the second machine gets no catalog".into()),
        }
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

    /// Takes the answer of a command line by line, for one that is longer than memory should be.
    pub(super) fn lines(
        &self,
        arguments: &[&str],
        mut take: impl FnMut(&str) -> Result<(), Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        let mut command = Command::new(self.bin.join("sluice"));
        let mut running = command.args(arguments).stdout(Stdio::piped()).spawn()?;
        let said = running.stdout.take().ok_or("no pipe")?;
        let taken = BufReader::new(said)
            .lines()
            .try_for_each(|line| take(&line?));
        let status = running.wait()?;
        taken?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("sluice {arguments:?} ended with {status}").into()),
        }
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
            let ended = running.as_mut().and_then(Running::ended);
            if let (Some(status), Some(running)) = (ended, &running) {
                let said = running.stderr();
                let last = said.lines().last().unwrap_or_default().to_owned();
                self.revive(format!("{} ended with {status}: {last}", part.name()));
            }
            if ended.is_some() || self.running[at].1.is_none() {
                self.running[at].1 = Some(self.spawn(part));
            }
        }
    }

    fn revive(&mut self, why: String) {
        println!("started again: {why}");
        if !self.excuse {
            self.revived.push(why);
        }
    }

    /// Kills a part without warning.
    pub(super) fn kill(&mut self, part: Part) {
        if let Some(running) = self.of(part) {
            running.kill9();
        }
        self.put(part, None);
    }

    /// Asks a part to end and waits for it. One that had not begun has drained nothing and says so.
    pub(super) fn terminate(&mut self, part: Part) -> Result<(), String> {
        let Some(running) = self.of(part) else {
            return Ok(());
        };
        let ended = running.terminate(BOUND);
        let said = running.stderr();
        self.put(part, None);
        match ended {
            Some(status) if status.success() || said.contains(NOT_BEGUN) => Ok(()),
            ended => Err(format!("{} ended with {ended:?}: {said}", part.name())),
        }
    }

    fn put(&mut self, part: Part, running: Option<Running>) {
        let mut slots = self.running.iter_mut();
        if let Some(slot) = slots.find(|(known, _)| *known == part) {
            slot.1 = running;
        }
    }

    /// A consumer of another store is started beside the one that runs: it must stand still and say why.
    pub(super) fn refuses_another_store(&mut self, part: Part) -> Result<(), Box<dyn Error>> {
        self.all_up()?;
        // Whoever reads first is the one; the other store's must be the second.
        let reads = wait::holds_within(BOUND, || {
            let running = self.of(part);
            running.is_some_and(|running| running.stderr().contains(READS))
        });
        if !reads {
            return Err(format!("{} does not begin to read", part.name()).into());
        }
        let mut other = self.spawn_in(part, 1)?;
        let refused = wait::holds_within(BOUND, || {
            other.ended().is_some() || other.stderr().contains(BESIDE)
        });
        let said = other.stderr();
        other.kill9();
        match refused && said.contains(BESIDE) {
            true => Ok(()),
            false => Err(format!("{} of another store was let in: {said}", part.name()).into()),
        }
    }

    /// A state of some parts is taken back to what it was seconds ago, as by a disk that is put back from its snapshot.
    pub(super) fn roll_back(&mut self, kept: Kept) -> Result<(), Box<dyn Error>> {
        self.all_up()?;
        let folder = match kept {
            Kept::Cursors(machine) => self.data(machine).join("cursors"),
            // Its write-ahead log lies beside what the link names.
            Kept::Store => self.data(0).join("store.sqlite").canonicalize()?,
        };
        let folder = match kept {
            Kept::Cursors(_) => folder,
            Kept::Store => folder
                .parent()
                .ok_or("a store without a folder")?
                .to_owned(),
        };
        let parts = match kept {
            Kept::Cursors(machine) => vec![Part::Courier(machine)],
            Kept::Store => Part::CONSUMERS.to_vec(),
        };
        let files = || -> io::Result<Vec<PathBuf>> {
            let entries = fs::read_dir(&folder)?;
            let paths = entries.map(|entry| entry.map(|entry| entry.path()));
            let paths = paths.collect::<Result<Vec<_>, _>>()?;
            Ok(paths.into_iter().filter(|path| path.is_file()).collect())
        };
        let kill = |cluster: &mut Self| parts.iter().for_each(|part| cluster.kill(*part));
        self.starts += 1;
        let copy = self.folder.join(format!("rolled-back-{}", self.starts));
        fs::create_dir(&copy)?;
        kill(self);
        for file in files()? {
            fs::copy(&file, copy.join(file.file_name().unwrap_or_default()))?;
        }
        self.all_up()?;
        wait::pass(ROLLED_BACK);
        kill(self);
        for file in files()? {
            fs::remove_file(file)?;
        }
        for file in fs::read_dir(&copy)? {
            let file = file?;
            fs::copy(file.path(), folder.join(file.file_name()))?;
        }
        match kept {
            Kept::Cursors(machine) => self.books.forget(machine),
            Kept::Store => self.store_rolled_back = true,
        }
        self.all_up()
    }

    /// Somebody copies a machine's data folder while it runs, and has a courier on the copy for a while.
    pub(super) fn copy_machine(&mut self) -> Result<(), Box<dyn Error>> {
        self.all_up()?;
        self.starts += 1;
        let copy = self.folder.join(format!("copy-{}", self.starts));
        let data = self.data(1);
        // A file that goes meanwhile is no failure.
        Command::new("cp").arg("-a").arg(data).arg(&copy).output()?;
        let mut running = Vec::new();
        for program in [
            &["sluice", "courier", "--kafka", &self.brokers][..],
            &["sluice-edge", "--edge", "127.0.0.1:0"],
        ] {
            let output = self
                .folder
                .join(format!("{}-of-copy-{}", program[0], self.starts));
            fs::create_dir_all(&output)?;
            let settings = output.join("sluice.toml");
            fs::write(&settings, self.settings())?;
            let mut command = Command::new(self.bin.join(program[0]));
            command.args(&program[1..]).args(["--admin", "127.0.0.1:0"]);
            command.arg("--settings").arg(settings);
            command.arg("--data").arg(&copy);
            if let Some(clock) = &self.clock {
                clock.give(1, &mut command);
            }
            running.push(Running::spawn(command, &output)?);
        }
        let are_up = wait::holds_within(BOUND, || {
            running
                .iter()
                .all(|running| running.stdout().contains("is up"))
        });
        wait::pass(ROLLED_BACK);
        for mut running in running {
            running.kill9();
        }
        fs::remove_dir_all(copy)?;
        match are_up {
            true => Ok(()),
            false => Err("courier and edge do not start on a copy".into()),
        }
    }

    /// Starts a second process of a part while the first one runs: it must not be let in.
    pub(super) fn refuses_a_second(&mut self, part: Part) -> Result<(), Box<dyn Error>> {
        self.all_up()?;
        let mut second = self.spawn(part);
        let status = second.wait(BOUND);
        let refused = second.stderr().contains("in use by process");
        if status.and_then(|status| status.code()) == Some(2) && refused {
            return Ok(());
        }
        Err(format!("a second {} was let in: {status:?}", part.name()).into())
    }

    /// Kills what says several times in a row that it is stuck, as a supervisor does, and starts it again.
    pub(super) fn keep_alive(&mut self) {
        for part in Part::ALL {
            let mut why = None;
            for _ in 0..STUCK_LOOKS {
                // One that does not answer is starting or ending.
                why = self
                    .ask(part, "/livez")
                    .filter(|answer| answer.status == 503);
                if why.is_none() {
                    break;
                }
                wait::pass(STUCK_LOOK_EVERY);
            }
            if let Some(why) = why {
                self.revive(format!("{} was stuck: {}", part.name(), why.text().trim()));
                self.kill(part);
            }
        }
        self.keep_up();
    }

    /// Has the ledger of each courier that runs checked.
    pub(super) fn check_books(&mut self) {
        for machine in MACHINES {
            if let Some(answer) = self.ask(Part::Courier(machine), "/metrics") {
                self.books.scrape(machine, &answer.text());
            }
        }
    }

    fn spawn(&mut self, part: Part) -> Running {
        self.spawn_in(part, part.machine())
            .expect("a built binary can be started, and the audit's folder is writable")
    }

    /// On a machine that need not be its own.
    fn spawn_in(&mut self, part: Part, on: Machine) -> io::Result<Running> {
        self.starts += 1;
        let mut command = match part {
            Part::Edge(machine) => {
                let mut command = Command::new(self.bin.join("sluice-edge"));
                command.args(["--edge", &self.edges[machine].to_string()]);
                command
            }
            _ => {
                let mut command = Command::new(self.bin.join("sluice"));
                match part {
                    Part::Courier(_) => command.arg("courier"),
                    consumer => command.args(["consume", "--only", consumer.name()]),
                };
                command.args(["--kafka", &self.brokers]);
                command
            }
        };
        // Every start keeps its own settings and output: evidence.
        let output = self.folder.join(format!("{}-{}", part.name(), self.starts));
        let settings = output.join("sluice.toml");
        fs::create_dir_all(&output)?;
        fs::write(&settings, self.settings())?;
        command.arg("--settings").arg(settings);
        command
            .args(["--admin", "127.0.0.1:0", "--data"])
            .arg(self.data(on));
        if let Some(clock) = &self.clock {
            clock.give(on, &mut command);
        }
        if let Some(syncs) = &self.syncs {
            syncs.give(part, &mut command);
        }
        Running::spawn(command, &output)
    }

    fn settings(&self) -> String {
        let Self {
            workers,
            partitions,
            ..
        } = self;
        format!(
            "[edge]\nworkers = {workers}\nring_bytes = 1048576\ntrusted_forwarders = [\"127.0.0.0/8\"]\n\
             [stream]\npartitions = {partitions}\n\
             [kafka]\nsession_timeout_ms = {SESSION_MS}\nmax_poll_interval_ms = {POLL_MS}\n\
             [courier]\nretain_acked_s = {RETAIN_S}\n"
        )
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

    /// Gives every topic twice as many partitions while everything runs; couriers and consumers stand still until they are started
    /// with the new count.
    pub(super) fn grow(&mut self) -> Result<(), Box<dyn Error>> {
        self.all_up()?;
        let partitions = self.partitions * 2;
        let grow = ["topics", "grow", "--partitions", &partitions.to_string()];
        self.sluice(&[&grow[..], &["--kafka", &self.brokers]].concat())?;
        let couriers = MACHINES.map(Part::Courier);
        for part in couriers.into_iter().chain(Part::CONSUMERS) {
            let stands_still = wait::holds_within(BOUND, || {
                let running = self.of(part);
                running.is_some_and(|running| running.stderr().contains(GROWN))
            });
            if !stands_still {
                return Err(format!("{} goes on with the old partitions", part.name()).into());
            }
        }
        self.partitions = partitions;
        for part in couriers.into_iter().chain(Part::CONSUMERS) {
            self.kill(part);
        }
        self.all_up()
    }

    /// A bit of a file of a machine's courier is flipped while it is away; where that must not last, it is flipped back.
    pub(super) fn flip(&mut self, flipped: Flipped, random: u64) -> Result<(), Box<dyn Error>> {
        self.all_up()?;
        let data = self.data(0);
        let (folder, bytes) = match flipped {
            Flipped::Cursor => (data.join("cursors"), CURSOR_BYTES),
            Flipped::Header => (data.join("journal/0"), walk::HEADER_BYTES as u64),
        };
        let is_one = |path: &PathBuf| match flipped {
            Flipped::Cursor => path.is_file(),
            Flipped::Header => path.extension().is_some_and(|extension| extension == "log"),
        };
        self.kill(Part::Courier(0));
        let entries = fs::read_dir(folder)?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut files = paths.collect::<Result<Vec<_>, _>>()?;
        files.retain(is_one);
        files.sort_unstable();
        let path = files.pop().ok_or("no file to flip a bit of")?;
        let file = File::options().read(true).write(true).open(&path)?;
        let flip = || -> io::Result<()> {
            let (mut byte, at) = ([0], random / 8 % bytes);
            file.read_exact_at(&mut byte, at)?;
            byte[0] ^= 1 << (random % 8);
            file.write_all_at(&byte, at)
        };
        flip()?;
        self.all_up()?;
        match flipped {
            // The value saved before it is older.
            Flipped::Cursor => self.books.forget(0),
            Flipped::Header => {
                wait::pass(ROLLED_BACK);
                self.kill(Part::Courier(0));
                flip()?;
                self.all_up()?;
            }
        }
        Ok(())
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
            self.terminate(part)?;
            if part == Part::Edge(1) {
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

/// A path as an argument.
pub(super) fn text(path: &Path) -> Result<&str, &'static str> {
    path.to_str().ok_or("the folder's name is not text")
}
