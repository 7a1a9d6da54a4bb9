//! The catalog on the topic `catalog`: published by a command, and brought by couriers and consumers into their data folders.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use catalog::{Folder, Replica};
use domain::event::{CatalogEntry, CatalogVersion, Kind, SCHEMA_VERSION};
use edge::Keys;
use journal::StreamId;
use prometheus::IntGauge;
use prost::Message;
use service::{Clock, Health, Refusal, Shutdown};
use sha2::{Digest, Sha256};
use stream::kafka::Gate;
use stream::{Kafka, Receiver, Record, Stream};

use crate::commands::{last_good, print, refuse};
use crate::settings::Settings;
use crate::topics::{self, Cluster};

/// How long a poll of the topic waits.
const POLL: Duration = Duration::from_millis(500);
/// How long a command waits for its partitions.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(2);
const NAME: &str = "published-catalog";
const NO_PARTITIONS: &str = "Kafka gives nothing of the catalog's topic: see that this process may read it, and that its brokers answer";

/// The topic's name without the installation's prefix.
pub(crate) const TOPIC: &str = "catalog";

/// `sluice catalog publish`
pub(crate) fn publish(to: &Cluster) -> Result<(), Refusal> {
    service::logs::init();
    let settings = to.load()?;
    if settings.kafka.brokers.is_empty() {
        return Err(refuse(
            "without Kafka everything is in one process, and there is nobody to publish to: name brokers with --kafka or kafka.brokers",
        ));
    }
    let keys = Keys::read(&settings.data.join("keys"))
        .map_err(refuse)?
        .known_by();
    let folder = Folder::open(settings.data.join("catalog")).map_err(refuse)?;
    let current = folder.current_number().map_err(refuse)?.ok_or_else(|| {
        refuse(format!(
            "{}: no catalog has been applied yet: run sluice catalog apply",
            settings.data.display()
        ))
    })?;
    let stream = topics::open(&settings).map_err(refuse)?;
    let topic = format!("{}.{TOPIC}", settings.stream.prefix);
    let Stream::Kafka(kafka) = &stream else {
        return Err(refuse("only Kafka has a topic of the catalog"));
    };
    let mut replica = read_all(kafka, &settings, "publish")?;

    let mut sent = 0;
    let mut sender = stream.sender().map_err(refuse)?;
    let mut writer = Writer {
        origin: StreamId::random(),
        n: 0,
        unsent: Vec::new(),
    };
    for number in folder
        .numbers()
        .into_iter()
        .filter(|number| *number <= current)
    {
        let catalog = folder.published(number).map_err(refuse)?;
        let last = replica.last();
        if let Some(last) = last.filter(|last| last.lock != catalog.lock_id) {
            return Err(refuse(format!(
                "{topic} has the versions of catalog.lock {}, this folder those of {}: publish from the machine that numbers, or name another stream.prefix",
                last.lock, catalog.lock_id
            )));
        }
        if let Some(last) = last.filter(|last| last.keys != keys) {
            return Err(refuse(format!(
                "version {} was published under other keys: copy the keys folder of the installation here",
                last.version
            )));
        }
        match replica.version(number) {
            Some(known) if known.hash != catalog.hash => {
                return Err(refuse(format!(
                    "{topic} has another version {number}: two copies of catalog.lock handed out versions. Restore the one that was published from, and apply the catalog on one machine only"
                )));
            }
            Some(_) => continue,
            None => {}
        }
        let parent = last.map_or(0, |last| last.version);
        if number < parent {
            // It was put together without the versions that came after it; nothing can be put between these.
            continue;
        }
        let now_ms = Clock::system().now_ms();
        for entry in replica.missing(&catalog) {
            let key = format!("{}/{}/{number}", entry.kind, entry.number);
            writer.write(Kind::CatalogEntry, &key, now_ms, entry.encode_to_vec());
            replica.take_entry(entry);
        }
        let closing = catalog.closing(parent, keys, now_ms);
        let key = format!("version/{number}");
        writer.write(Kind::CatalogVersion, &key, now_ms, closing.encode_to_vec());
        stream::deliver(&mut *sender, &topic, &writer.unsent)
            .map_err(|error| refuse(format!("{error}: run it again")))?;
        writer.unsent.clear();
        replica.take_version(closing);
        sent += 1;
    }
    print(&match sent {
        0 => format!("{topic}: version {current} is published already"),
        1 => format!("{topic}: published version {current}"),
        _ => format!("{topic}: published {sent} versions, {current} is the last"),
    })
}

/// The records of one stream.
struct Writer {
    origin: StreamId,
    n: u64,
    unsent: Vec<Record>,
}

impl Writer {
    fn write(&mut self, kind: Kind, key: &str, time_ms: u64, value: Vec<u8>) {
        self.n += 1;
        self.unsent.push(Record {
            key: key.as_bytes().to_vec(),
            kind: kind as u16,
            version: SCHEMA_VERSION,
            origin: self.origin,
            // One lane: the record that closes a version comes after its entries.
            lane: 0,
            n: self.n,
            time_ms,
            value,
        });
    }
}

/// Takes what comes within a poll; the numbers of versions that are closed by it, or `None` where nothing came.
fn take(receiver: &mut dyn Receiver, replica: &mut Replica) -> Result<Option<Vec<u32>>, String> {
    for partition in receiver.assigned().unwrap_or_default() {
        receiver
            .seek(partition, 0)
            .map_err(|error| error.to_string())?;
    }
    let polled = receiver
        .poll(1000, POLL)
        .map_err(|error| error.to_string())?;
    let Some(batch) = polled else {
        return Ok(None);
    };
    let mut closed = Vec::new();
    for (offset, record) in batch.records {
        let undecodable = |error| format!("record {offset} does not decode: {error}");
        match Kind::from_number(record.kind) {
            Some(Kind::CatalogEntry) => {
                replica.take_entry(CatalogEntry::decode(&*record.value).map_err(undecodable)?);
            }
            Some(Kind::CatalogVersion) => {
                let version = CatalogVersion::decode(&*record.value).map_err(undecodable)?;
                closed.push(version.version);
                replica.take_version(version);
            }
            _ => {}
        }
    }
    Ok(Some(closed))
}

/// Everything that is published.
fn read_all(kafka: &Kafka, settings: &Settings, by: &str) -> Result<Replica, Refusal> {
    let prefix = &settings.stream.prefix;
    let group = format!("{prefix}.{NAME}-{by}");
    let receiver = kafka.receiver(&format!("{prefix}.{TOPIC}"), &group, &machine());
    let mut receiver = receiver.map_err(refuse)?;
    let mut replica = Replica::default();
    let until = Instant::now() + WAIT_MAX;
    while take(&mut *receiver, &mut replica)
        .map_err(refuse)?
        .is_some()
        || !receiver.is_at_end()
    {
        if Instant::now() >= until {
            return Err(refuse(NO_PARTITIONS));
        }
    }
    Ok(replica)
}

/// Refuses where the published catalog numbers otherwise than the one here: what is sent would mean other things.
pub(crate) fn check_lock(kafka: &Kafka, settings: &Settings) -> Result<(), Refusal> {
    let versions = settings.data.join("catalog");
    let here = Folder::open(&versions).and_then(|folder| folder.current());
    let here = here.map_err(refuse)?;
    match (here, read_all(kafka, settings, "check")?.last()) {
        (Some(here), Some(last)) if here.lock_id != last.lock => {
            Err(refuse(two_catalogs(&versions, &here.lock_id, &last.lock)))
        }
        _ => Ok(()),
    }
}

/// The machine's name.
fn machine() -> String {
    let machine = rustix::system::uname();
    machine.nodename().to_string_lossy().into_owned()
}

fn two_catalogs(versions: &Path, here: &str, published: &str) -> String {
    format!(
        "{} holds the versions of catalog.lock {here}, the topic those of {published}: two catalogs number apart, and nothing is shipped or counted here until one of them is gone. Name another stream.prefix, or move this folder away",
        versions.display(),
    )
}

/// Brings published versions into a data folder.
pub(crate) struct Follower {
    pub(crate) kafka: Kafka,
    pub(crate) data: PathBuf,
    pub(crate) settings: Settings,
    /// Whose group of readers it is.
    pub(crate) process: &'static str,
    /// 1 while it cannot.
    pub(crate) failing: IntGauge,
    pub(crate) health: Health,
    /// Keeps the identity of the versions in the store, where there is one; why that is not possible.
    pub(crate) keep: Box<dyn Fn(u64) -> Result<(), String> + Send>,
}

impl Follower {
    /// Has to do with the gate what [`Self::run`] says.
    pub(crate) const UNREAD: Gate = Gate::NotYet("the published catalog is read first");

    /// Follows the topic until the shutdown. The gate opens when the topic was read to its end once and has no other catalog
    /// than this folder; where it has, the gate is closed until one of them is gone: numbers would mean two things.
    pub(crate) fn run(self, shutdown: &Shutdown) {
        let mut told = None;
        while !shutdown.requested() {
            let ended = self.follow(shutdown, &mut told);
            let Err(error) = ended else { break };
            self.fail(&error, &mut told);
            if shutdown.wait_timeout(PAUSE) {
                break;
            }
        }
        self.health.ended(NAME);
    }

    fn fail(&self, error: &str, told: &mut Option<String>) {
        self.failing.set(1);
        self.health.beat(NAME);
        if told.as_deref() != Some(error) {
            tracing::error!(error, "published catalog not taken over");
            *told = Some(error.to_owned());
        }
    }

    fn follow(&self, shutdown: &Shutdown, told: &mut Option<String>) -> Result<(), String> {
        let prefix = &self.settings.stream.prefix;
        let topic = format!("{prefix}.{TOPIC}");
        let machine = machine();
        // Every process of every data folder reads all of it.
        let folder = std::path::absolute(&self.data).unwrap_or_else(|_| self.data.clone());
        let digest = Sha256::digest(folder.as_os_str().as_encoded_bytes());
        let folder: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
        let group = format!("{prefix}.{NAME}.{machine}.{}.{folder}", self.process);
        let stream = Stream::Kafka(self.kafka.clone());
        let mut receiver = stream
            .receiver(&topic, &group, &machine)
            .map_err(|error| error.to_string())?;
        let mut replica = Replica::default();
        let mut waiting = Vec::new();
        let started = Instant::now();
        while !shutdown.requested() {
            self.health.beat(NAME);
            // Old versions are not put in force one after another.
            if let Some(closed) = take(&mut *receiver, &mut replica)? {
                waiting.extend(closed);
                continue;
            }
            if !receiver.is_at_end() {
                if started.elapsed() >= WAIT_MAX {
                    self.fail(NO_PARTITIONS, told);
                }
                continue;
            }
            if waiting.is_empty() && self.kafka.is_open() {
                continue;
            }
            match self.take_over(&replica, &waiting) {
                Ok(gate) => {
                    waiting.clear();
                    self.kafka.set_gate(gate);
                    self.failing.set(0);
                    *told = None;
                }
                Err(error) => {
                    self.fail(&error, told);
                    if shutdown.wait_timeout(PAUSE) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the versions over that were closed, and says what becomes of the gate.
    fn take_over(&self, replica: &Replica, closed: &[u32]) -> Result<Gate, String> {
        let versions = self.data.join("catalog");
        let last = replica.last();
        // Consumers need no keys.
        let keys = Keys::read(&self.data.join("keys"));
        if let (Some(last), Ok(keys)) = (last, keys)
            && keys.known_by() != last.keys
        {
            return Err(self.close("the keys here are not those of the installation that published the catalog: stop the processes here, copy its keys folder, and start them"));
        }
        let mut numbers = closed.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let known = replica.version(number).map(|version| version.hash);
            if is_here(&versions, number, known) {
                continue;
            }
            let catalog = replica.build(number)?;
            catalog::receive(&versions, &catalog)
                .map_err(|problems| self.close(&problems.to_string()))?;
            tracing::info!(version = number, "published catalog taken over");
        }
        let here = last_good(&versions).map_err(|error| error.to_string())?;
        let Some(here) = here else {
            return Ok(Gate::NotYet(
                "no catalog is in force here, and none is published: apply one, or publish it where it is",
            ));
        };
        if let Some(last) = last.filter(|last| here.lock_id != last.lock) {
            return Err(self.close(&two_catalogs(&versions, &here.lock_id, &last.lock)));
        }
        (self.keep)(here.lock()).map_err(|error| self.close(&error))?;
        self.kafka.identify(here.lock());
        Ok(Gate::Open)
    }

    /// Closes the gate, and gives the reason back.
    fn close(&self, why: &str) -> String {
        self.kafka.set_gate(Gate::Closed(why.to_owned()));
        why.to_owned()
    }
}

/// Whether a version is here as it was published.
fn is_here(versions: &Path, number: u32, hash: Option<u64>) -> bool {
    let here = Folder::open(versions).and_then(|folder| folder.any_version(number));
    here.is_ok_and(|here| Some(here.hash) == hash)
}
