//! What the topics say, read from their beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use domain::ClickKey;
use domain::event::{Click, Conversion, FraudSignal, Kind, Postback};
use prost::Message;
use stream::kafka::{Cleanup, KindNames, Settings, Topic};
use stream::{Kafka, Record, StreamId};
use testkit::wait;

use super::cluster::Cluster;
use super::stored::{OrderKey, digest, order_key};

const READ_MAX: Duration = Duration::from_secs(120);

/// What a record is known by, within its topic.
type Identity = (StreamId, u8, u64);

#[derive(Default)]
pub(super) struct Streamed {
    /// By the click's own id: each identity, and the event under it.
    pub(super) clicks: BTreeMap<String, BTreeMap<Identity, u64>>,
    /// Orders that were posted back.
    pub(super) postbacks: BTreeSet<String>,
    /// The highest change of each order, and the event that says it.
    pub(super) conversions: BTreeMap<OrderKey, (u64, Vec<u8>)>,
    /// Which click was flagged for what, and under which identities that was said.
    pub(super) signals: BTreeMap<(ClickKey, u32), BTreeSet<Identity>>,
    /// Distinct records of the topics that edges write, tombstones apart, and streams that have ended: what journals hold.
    pub(super) recorded: u64,
    /// What must not be in topics.
    pub(super) wrong: Vec<String>,
}

impl Streamed {
    pub(super) fn read(cluster: &Cluster) -> Result<Self, Box<dyn Error>> {
        let kafka = connect(cluster)?;
        let mut streamed = Self::default();
        let mut ended = BTreeSet::new();
        for topic in domain::Topic::ALL {
            let name = topic.name();
            let records = read(&kafka, &format!("sluice.{name}"))?;
            streamed.wrong.extend(holes(name, &records));
            if matches!(topic, domain::Topic::Clicks | domain::Topic::Postbacks) {
                let whole = records
                    .iter()
                    .filter(|record| !record.is_tombstone() && record.kind != stream::END);
                let identities: BTreeSet<Identity> = whole.map(identity).collect();
                streamed.recorded += identities.len() as u64;
                // The end of a stream is one record of its journal, and one of each of its lanes here.
                let ends = records.iter().filter(|record| record.kind == stream::END);
                ended.extend(ends.map(|record| record.origin));
            }
            println!("topic {name}: {} records", records.len());
            let events = records
                .iter()
                .filter(|record| !record.is_tombstone() && record.kind != stream::END);
            for record in events {
                streamed.take(name, record)?;
            }
        }
        streamed.recorded += ended.len() as u64;
        Ok(streamed)
    }

    fn take(&mut self, topic: &str, record: &Record) -> Result<(), Box<dyn Error>> {
        let identity = identity(record);
        match Kind::from_number(record.kind) {
            Some(Kind::Click) => {
                let click = Click::decode(&*record.value)?;
                let event = digest(&record.value);
                let known = self.clicks.entry(click.ext).or_default();
                if known
                    .insert(identity, event)
                    .is_some_and(|known| known != event)
                {
                    self.wrong.push(format!(
                        "topic {topic}, {identity:?}: two events under one identity"
                    ));
                }
            }
            Some(Kind::CatalogEntry | Kind::CatalogVersion) => {}
            Some(Kind::Postback) => {
                self.postbacks
                    .insert(Postback::decode(&*record.value)?.order);
            }
            Some(Kind::Conversion) => {
                // The greatest change is the latest, whichever opening of the outbox says it.
                let conversion = Conversion::decode(&*record.value)?;
                let latest = self.conversions.entry(order_key(&conversion)).or_default();
                if conversion.change >= latest.0 {
                    *latest = (conversion.change, record.value.clone());
                }
            }
            Some(Kind::FraudSignal) => {
                let signal = FraudSignal::decode(&*record.value)?;
                let click = signal.click.as_ref().ok_or("a signal without a click")?;
                let flag = (ClickKey::from(click), u32::try_from(signal.reason)?);
                self.signals.entry(flag).or_default().insert(identity);
            }
            Some(Kind::Unmatched) | None => {
                self.wrong.push(format!(
                    "topic {topic}, {identity:?}: kind {} was not sent",
                    record.kind
                ));
            }
        }
        Ok(())
    }
}

fn identity(record: &Record) -> Identity {
    (record.origin, record.lane, record.n)
}

fn connect(cluster: &Cluster) -> Result<Kafka, stream::Error> {
    let settings = Settings {
        brokers: cluster.brokers.clone(),
        ..Settings::default()
    };
    let topics = domain::Topic::ALL.map(|topic| Topic {
        name: format!("sluice.{}", topic.name()),
        partitions: cluster.partitions,
        cleanup: match topic {
            domain::Topic::Conversions => Cleanup::Never,
            _ => Cleanup::Days(100),
        },
    });
    let kinds = KindNames {
        name: |number| Kind::from_number(number).map(Kind::name),
        number: |name| Kind::from_name(name).map(|kind| kind as u16),
    };
    Kafka::connect(&settings, &topics, kinds)
}

/// A topic from its beginning until nothing more comes.
fn read(kafka: &Kafka, topic: &str) -> Result<Vec<Record>, Box<dyn Error>> {
    let mut receiver = kafka.receiver(topic, "audit", "audit")?;
    let mut all = Vec::new();
    let mut silent = 0;
    let mut assigned = false;
    let mut failed = None;
    let ended = wait::holds_within(READ_MAX, || {
        let done = (|| {
            if let Some(partitions) = receiver.assigned() {
                assigned |= !partitions.is_empty();
                for partition in partitions {
                    receiver.seek(partition, 0)?;
                }
            }
            receiver.poll(10_000, Duration::from_millis(200))
        })();
        match done {
            Ok(Some(batch)) => {
                silent = 0;
                all.extend(batch.records.into_iter().map(|(_, record)| record));
            }
            Ok(None) => silent += u32::from(assigned),
            Err(error) => failed = Some(error),
        }
        failed.is_some() || silent >= 15
    });
    match failed {
        Some(error) => Err(error.into()),
        None if !ended => Err(format!("topic {topic} does not end").into()),
        None => Ok(all),
    }
}

/// Numbers that are missing below the highest of their stream and lane.
fn holes(topic: &str, records: &[Record]) -> Vec<String> {
    let mut numbers: BTreeMap<(StreamId, u8), BTreeSet<u64>> = BTreeMap::new();
    for record in records {
        let of = numbers.entry((record.origin, record.lane)).or_default();
        of.insert(record.n);
    }
    let holes = numbers.into_iter().filter_map(|((stream, lane), numbers)| {
        let highest = *numbers.last()?;
        let missing = highest - numbers.len() as u64;
        (missing > 0).then(|| {
            format!("topic {topic}, stream {stream}, lane {lane}: {missing} numbers missing")
        })
    });
    holes.collect()
}
