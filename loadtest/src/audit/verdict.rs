//! Whether every answered click is counted once.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use domain::event::{Click, Kind};
use domain::{ClickKey, Keyring};
use prost::Message;
use stream::kafka::{Cleanup, KindNames, Settings, Topic};
use stream::{Kafka, Record, StreamId};
use testkit::wait;

use super::cluster::{Cluster, PARTITIONS};
use crate::ledger;

const READ_MAX: Duration = Duration::from_secs(120);

/// Whether the last click is in the report and nothing waits in any outbox. Asked again and again until it is so.
pub(super) fn is_quiet(cluster: &mut Cluster) -> bool {
    wait::pass(Duration::from_secs(1));
    indexed(cluster).is_ok_and(|index| index.contains_key("last"))
}

/// Ends the system, compares, and prints what was found; the last line says it all.
pub(super) fn print(
    cluster: &mut Cluster,
    ledger: &Path,
    faults: u32,
) -> Result<(), Box<dyn Error>> {
    cluster.end()?;
    let answers = ledger::read(ledger)?;
    let tokens = ledger::tokens(ledger)?;
    let index = indexed(cluster)?;
    let keys = std::fs::read_to_string(cluster.data().join("keys/tokens.key"))?;
    let mut keyring = Keyring::parse(&keys)?;
    let mut wrong = Vec::new();

    // In the store: once, and under the key of the token.
    let (mut lost, mut double) = (0_u64, 0_u64);
    for (ext, token) in &tokens {
        let token = keyring
            .open(token.as_bytes())
            .map_err(|refused| format!("{ext}: its token does not open: {refused:?}"))?;
        match index.get(ext).map(Vec::as_slice) {
            None => {
                lost += 1;
                wrong.push(format!("{ext} was answered and is not in the index"));
            }
            Some([key]) if *key == token.click => {}
            Some([key]) => wrong.push(format!(
                "{ext} is at {key:?}, its token says {:?}",
                token.click
            )),
            Some(_) => {
                double += 1;
                wrong.push(format!("{ext} is in the index more than once"));
            }
        }
    }
    let doubtful: BTreeSet<&str> = answers
        .clicks_unanswered
        .iter()
        .map(String::as_str)
        .collect();
    let mut in_doubt = 0_u64;
    for (ext, keys) in &index {
        if keys.len() > 1 && !tokens.contains_key(ext) {
            double += 1;
            wrong.push(format!(
                "{ext} was not answered and is in the index more than once"
            ));
        }
        in_doubt += u64::from(doubtful.contains(ext.as_str()));
        if !tokens.contains_key(ext) && !doubtful.contains(ext.as_str()) && ext != "last" {
            wrong.push(format!("{ext} is in the index and was never sent"));
        }
    }

    // In the report: every click and every sale.
    let data = cluster.data();
    let data = data.to_str().ok_or("the folder's name is not text")?;
    let report = cluster.sluice(&["report", "--by", "", "--format", "csv", "--data", data])?;
    let row: Vec<&str> = report
        .lines()
        .nth(1)
        .ok_or("an empty report")?
        .split(',')
        .collect();
    let (gross, conversions): (u64, u64) = (row[0].parse()?, row[5].parse()?);
    let clicks: u64 = index.values().map(|keys| keys.len() as u64).sum();
    if gross != clicks {
        wrong.push(format!(
            "the report's gross is {gross}, the index holds {clicks}"
        ));
    }
    let orders = answers
        .postbacks
        .values()
        .filter(|status| **status == 200)
        .count() as u64;
    let orders_in_doubt = answers.postbacks_unanswered.len() as u64;
    if !(orders..=orders + orders_in_doubt).contains(&conversions) {
        wrong.push(format!(
            "{orders} sales were answered, {conversions} conversions are reported"
        ));
    }

    // In the topics: every click under its identity, and no number missing.
    let kafka = connect(cluster)?;
    let mut in_topic: BTreeMap<String, BTreeSet<(StreamId, u8, u64)>> = BTreeMap::new();
    for name in ["clicks", "postbacks", "fraud-signals", "conversions"] {
        let records = read(&kafka, &format!("sluice.{name}"))?;
        wrong.extend(holes(name, &records));
        println!("topic {name}: {} records", records.len());
        if name == "clicks" {
            let clicks = records
                .iter()
                .filter(|record| record.kind == Kind::Click as u16);
            for record in clicks {
                let click = Click::decode(&*record.value)?;
                let identity = (record.origin, record.lane, record.n);
                in_topic.entry(click.ext).or_default().insert(identity);
            }
        }
    }
    for ext in tokens.keys() {
        match in_topic.get(ext).map(BTreeSet::len) {
            Some(1) => {}
            None => wrong.push(format!("{ext} was answered and is not in the topic")),
            Some(identities) => {
                wrong.push(format!("{ext} has {identities} identities in the topic"));
            }
        }
    }

    for text in wrong.iter().take(20) {
        println!("wrong: {text}");
    }
    println!(
        "clicks in doubt and counted {in_doubt} of {}",
        doubtful.len()
    );
    println!("sales {orders}, conversions {conversions}");
    let clicks = tokens.len();
    println!(
        "faults {faults} clicks {clicks} lost {lost} double {double} wrong {}",
        wrong.len()
    );
    if wrong.is_empty() {
        return Ok(());
    }
    Err("the promise is broken".into())
}

/// The keys in the click index under each click's own id.
fn indexed(cluster: &Cluster) -> Result<BTreeMap<String, Vec<ClickKey>>, Box<dyn Error>> {
    let data = cluster.data();
    let data = data.to_str().ok_or("the folder's name is not text")?;
    let mut index: BTreeMap<String, Vec<ClickKey>> = BTreeMap::new();
    for line in cluster.sluice(&["dump-store", "--data", data])?.lines() {
        // clicks_20261120 x'<key>' x'<facts>'
        let blobs: Vec<&str> = line.split('\'').collect();
        if !line.starts_with("clicks_") || blobs.len() < 4 {
            continue;
        }
        let key: [u8; 16] = bytes(blobs[1])
            .try_into()
            .map_err(|_| "a key is not 16 bytes")?;
        let click = Click::decode(&*bytes(blobs[3]))?;
        index
            .entry(click.ext)
            .or_default()
            .push(ClickKey::from_bytes(key));
    }
    Ok(index)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    digits
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn connect(cluster: &Cluster) -> Result<Kafka, stream::Error> {
    let settings = Settings {
        brokers: cluster.broker.address(),
        ..Settings::default()
    };
    let topics = domain::Topic::ALL.map(|topic| Topic {
        name: format!("sluice.{}", topic.name()),
        partitions: PARTITIONS,
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
