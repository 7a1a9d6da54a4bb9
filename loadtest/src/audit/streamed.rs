//! What the topics say, read from their beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use domain::event::{Click, Conversion, FraudSignal, Kind, Postback};
use domain::{ClickKey, Topic};
use prost::Message;
use stream::kafka::{Cleanup, KindNames, Settings};
use stream::{Kafka, Record, StreamId};
use testkit::wait;

use super::cluster::Cluster;
use super::stored::{OrderKey, digest, order_key};

const READ_MAX: Duration = Duration::from_secs(120);

/// What a record is known by, within its topic.
pub(super) type Identity = (StreamId, u8, u64);

/// What an advertiser said, as an edge took it.
pub(super) struct Word {
    pub(super) key: ClickKey,
    pub(super) status: i32,
}

#[derive(Default)]
pub(super) struct Streamed {
    /// By the click's own id: each identity, the key and the digest of the event under it.
    pub(super) clicks: BTreeMap<String, BTreeMap<Identity, (ClickKey, u64)>>,
    /// By order.
    pub(super) postbacks: BTreeMap<String, Vec<Word>>,
    /// The highest change of each order, and the event that says it.
    pub(super) conversions: BTreeMap<OrderKey, (u64, Vec<u8>)>,
    /// Which click was flagged for what, and under which identities that was said.
    pub(super) signals: BTreeMap<(ClickKey, u32), BTreeSet<Identity>>,
    /// Distinct records of the topics that edges write, tombstones apart.
    pub(super) identities: BTreeMap<Topic, BTreeSet<Identity>>,
    /// Streams that have ended there.
    pub(super) ended: BTreeSet<StreamId>,
    /// What must not be in topics.
    pub(super) wrong: Vec<String>,
}

impl Streamed {
    pub(super) fn read(cluster: &Cluster) -> Result<Self, Box<dyn Error>> {
        let kafka = connect(cluster)?;
        let mut streamed = Self::default();
        for topic in Topic::ALL {
            let name = topic.name();
            let mut numbers = Numbers::new();
            let mut count = 0_u64;
            read(&kafka, &format!("sluice.{name}"), &mut |record| {
                count += 1;
                let lane = numbers.entry((record.origin, record.lane)).or_default();
                lane.extend(record.n..=record.last());
                let of_edges = matches!(topic, Topic::Clicks | Topic::Postbacks);
                if record.kind == stream::END {
                    if of_edges {
                        streamed.ended.insert(record.origin);
                    }
                    return Ok(());
                }
                if record.is_tombstone() {
                    let text = format!("topic {name}: {:?} is a tombstone", identity(record));
                    streamed.wrong.push(text);
                    return Ok(());
                }
                if of_edges {
                    let known = streamed.identities.entry(topic).or_default();
                    known.insert(identity(record));
                }
                streamed.take(name, record)
            })?;
            streamed.wrong.extend(holes(name, numbers));
            println!("topic {name}: {count} records");
        }
        Ok(streamed)
    }

    fn take(&mut self, topic: &str, record: &Record) -> Result<(), Box<dyn Error>> {
        let identity = identity(record);
        match Kind::from_number(record.kind) {
            Some(Kind::Click) => {
                let click = Click::decode(&*record.value)?;
                let key = click.key.as_ref().ok_or("a click without a key")?;
                let event = (ClickKey::from(key), digest(&record.value));
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
                let postback = Postback::decode(&*record.value)?;
                let key = postback.key.as_ref().ok_or("a postback without a key")?;
                let key = ClickKey::from(key);
                let status = postback.status;
                let words = self.postbacks.entry(postback.order).or_default();
                words.push(Word { key, status });
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
    let topics = Topic::ALL.map(|topic| stream::kafka::Topic {
        name: format!("sluice.{}", topic.name()),
        partitions: cluster.partitions,
        cleanup: match topic {
            Topic::Conversions => Cleanup::Never,
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
fn read(
    kafka: &Kafka,
    topic: &str,
    take: &mut impl FnMut(&Record) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut receiver = kafka.receiver(topic, "audit", "audit")?;
    let mut silent = 0;
    let mut assigned = false;
    let mut failed: Option<Box<dyn Error>> = None;
    let ended = wait::holds_within(READ_MAX, || {
        let done = (|| -> stream::Result<_> {
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
                let mut records = batch.records.iter();
                failed = records.find_map(|(_, record)| take(record).err());
            }
            Ok(None) => silent += u32::from(assigned),
            Err(error) => failed = Some(error.into()),
        }
        failed.is_some() || silent >= 15
    });
    match failed {
        Some(error) => Err(error),
        None if !ended => Err(format!("topic {topic} does not end").into()),
        None => Ok(()),
    }
}

/// The numbers of each stream and lane.
type Numbers = BTreeMap<(StreamId, u8), BTreeSet<u64>>;

/// Numbers that are missing below the highest of their stream and lane.
fn holes(topic: &str, numbers: Numbers) -> Vec<String> {
    let holes = numbers.into_iter().filter_map(|((stream, lane), numbers)| {
        let highest = *numbers.last()?;
        let missing = highest - numbers.len() as u64;
        let first = (1..highest).find(|n| !numbers.contains(n))?;
        Some(format!(
            "topic {topic}, stream {stream}, lane {lane}: {missing} numbers missing below {highest}, the first is {first}"
        ))
    });
    holes.collect()
}
