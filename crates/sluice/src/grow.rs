//! `sluice topics grow`: more partitions for every topic.
//!
//! A lane's partition is its number mod the count, so growing moves lanes. A record of a lane that is read from its new
//! partition before an older one is read from the old partition would count as early and be dropped for ever. So nothing
//! moves before everything sent is folded: couriers and consumers are stopped, edges go on and their journals keep.
//!
//! In this order, so that a command killed anywhere is completed by the next: what is drained is checked, the plan is kept
//! in the store, topics grow one by one, the store's rows follow and the plan is in force, in one transaction. Between plan
//! and force consumers stand still at the first topic that has grown; a plan of which no topic has heard is made anew.

use domain::Topic;
use service::{DataFolder, Refusal};
use store::Store;
use stream::embedded::PARTITIONS_MAX;
use stream::kafka::Admin;

use crate::commands::{print, refuse};
use crate::consumers::READERS;
use crate::settings::Settings;
use crate::topics;

/// The parts of the data folder that must not be in use meanwhile.
const STOPPED: [&str; 4] = ["courier", "fraud", "clicks", "conversions"];

pub(crate) fn run(settings: &Settings, partitions: u16) -> Result<(), Refusal> {
    let path = settings.data.join("store.sqlite");
    if !path.exists() {
        return Err(refuse(format!(
            "{} has no store: run this where the consumers run, or name their folder with --data",
            settings.data.display()
        )));
    }
    let _held = DataFolder::open(&settings.data, &STOPPED)?;
    let store = Store::open(&path).map_err(refuse)?;
    let found = store.batch(|batch| batch.partitions()).map_err(refuse)?;
    let found = found.ok_or_else(|| {
        refuse("no consumer has used this store yet: start the consumers once, then grow")
    })?;
    let admin = Admin::connect(&settings.kafka).map_err(refuse)?;
    let topics = present(settings, &admin)?;
    if found.count == partitions && topics.iter().all(|(_, count)| *count == partitions) {
        return print(&format!(
            "every topic has {partitions} partitions, version {}",
            found.version
        ));
    }
    check_counts(found.count, partitions, &topics)?;

    let begun = topics.iter().any(|(_, count)| *count == partitions);
    if !(begun && found.planned == Some(partitions)) {
        let left = undrained(settings, &admin, &store)?;
        for line in &left {
            print(line)?;
        }
        if !left.is_empty() {
            return Err(refuse(format!(
                "{} things are not drained, listed above: nothing is changed",
                left.len()
            )));
        }
        store
            .batch(|batch| batch.plan_partitions(partitions))
            .map_err(refuse)?;
    }
    for (topic, count) in &topics {
        if *count != partitions {
            admin.grow(topic, partitions).map_err(refuse)?;
        }
        print(&format!("topic {topic} has {partitions} partitions"))?;
    }
    let version = store
        .batch(|batch| batch.grow_partitions().map(|grown| grown.version))
        .map_err(refuse)?;
    print(&format!(
        "the store follows, version {version}: set stream.partitions = {partitions} for every courier and consumer, then start them"
    ))
}

/// The topics and how many partitions each has.
fn present(settings: &Settings, admin: &Admin) -> Result<Vec<(String, u16)>, Refusal> {
    let mut present = Vec::new();
    for topic in topics::described(settings) {
        let found = admin.partitions(&topic.name).map_err(refuse)?;
        if found.is_empty() {
            return Err(refuse(format!(
                "topic {} is missing: run sluice topics create",
                topic.name
            )));
        }
        present.push((topic.name, u16::try_from(found.len()).unwrap_or(u16::MAX)));
    }
    Ok(present)
}

/// A multiple, so that a lane's new partition mod the old count is its old one; and no topic may be at a third count.
fn check_counts(before: u16, after: u16, topics: &[(String, u16)]) -> Result<(), Refusal> {
    if after <= before || !after.is_multiple_of(before) || after > PARTITIONS_MAX {
        return Err(refuse(format!(
            "{before} partitions cannot become {after}: choose a whole multiple of {before}, {PARTITIONS_MAX} at most"
        )));
    }
    match topics
        .iter()
        .find(|(_, count)| *count != before && *count != after)
    {
        None => Ok(()),
        Some((topic, count)) => Err(refuse(format!(
            "topic {topic} has {count} partitions, the store's rows are for {before}: somebody else has grown it"
        ))),
    }
}

/// What is sent and not folded, said and not sent, or still running: a line each, with what to do.
fn undrained(settings: &Settings, admin: &Admin, store: &Store) -> Result<Vec<String>, Refusal> {
    let mut left = Vec::new();
    let named = |name: &str| format!("{}.{name}", settings.stream.prefix);
    for reader in &READERS {
        let group = named(reader.group);
        let members = admin.members(&group).map_err(refuse)?;
        if members > 0 {
            left.push(format!(
                "consumer group {group} has {members} members: stop sluice consume; who is stopped leaves within 30 s"
            ));
        }
        left.extend(unfolded(
            admin,
            store,
            &named(reader.topic.name()),
            reader.consumer,
            reader.topic,
        )?);
    }
    for reader in &READERS {
        let consumer = reader.consumer;
        let outbox = consumer::outbox_name(consumer, reader.topic);
        let empty = store.batch(|batch| batch.outbox_is_empty(&outbox));
        if !empty.map_err(refuse)? {
            left.push(format!(
                "{consumer} has said what is not sent yet: start sluice consume until it is, with couriers stopped"
            ));
        }
    }
    left.dedup();
    Ok(left)
}

/// Partitions whose end is not where a consumer stands.
fn unfolded(
    admin: &Admin,
    store: &Store,
    name: &str,
    consumer: &str,
    topic: Topic,
) -> Result<Vec<String>, Refusal> {
    let count = admin.partitions(name).map_err(refuse)?.len();
    let mut left = Vec::new();
    for partition in 0..u16::try_from(count).unwrap_or(u16::MAX) {
        let end = admin.end(name, partition).map_err(refuse)?;
        let position = store
            .batch(|batch| batch.position(consumer, topic as u8, partition))
            .map_err(refuse)?;
        if position.offset != end {
            left.push(format!(
                "topic {name}, partition {partition}: {consumer} stands at {} of {end}: start sluice consume until it is at the end, with couriers stopped; where it stays before records that came early, start the couriers too until those they wait for came",
                position.offset
            ));
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_cannot_be() {
        let topics = |count| vec![("t".to_owned(), 4), ("u".to_owned(), count)];
        for (after, count, said) in [
            (8, 4, None),
            (8, 8, None),
            (256, 4, None),
            (6, 4, Some("choose a whole multiple of 4, 256 at most")),
            (2, 4, Some("choose a whole multiple")),
            (0, 4, Some("choose a whole multiple")),
            (512, 4, Some("choose a whole multiple")),
            (
                8,
                6,
                Some("topic u has 6 partitions, the store's rows are for 4"),
            ),
        ] {
            let refused = check_counts(4, after, &topics(count)).err();
            let text = refused.map(|refusal| refusal.to_string());
            match said {
                None => assert_eq!(text, None),
                Some(said) => assert!(text.is_some_and(|text| text.contains(said)), "{after}"),
            }
        }
    }
}
