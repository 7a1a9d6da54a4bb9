//! Topics as they are described and as they are.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::ANSWER_MAX;
use crate::{Error, Result};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A topic as a process needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// With the installation's prefix.
    pub name: String,
    /// Never differs from what is there: a reader would not know of some partitions.
    pub partitions: u16,
    /// What becomes of old records.
    pub cleanup: Cleanup,
}

/// What becomes of old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Deleted after so many days.
    Days(u32),
    /// Kept.
    Never,
    /// The newest of each key stays.
    Compact,
}

impl Topic {
    /// What to say of a topic with another number of partitions.
    pub(super) fn with_partitions(&self, found: u16) -> String {
        format!(
            "has {found} partitions, {} are set: set stream.partitions to {found}",
            self.partitions
        )
    }

    /// The configuration it is made with, and checked against. Records are dated by the broker: it deletes by that date, and
    /// a click of last year would be gone at the next check.
    fn config(&self) -> [(&'static str, String); 3] {
        let (policy, retention_ms) = match self.cleanup {
            Cleanup::Days(days) => ("delete", (u64::from(days) * DAY_MS).to_string()),
            Cleanup::Never => ("delete", "-1".to_owned()),
            Cleanup::Compact => ("compact", "-1".to_owned()),
        };
        [
            ("cleanup.policy", policy.to_owned()),
            ("retention.ms", retention_ms),
            ("message.timestamp.type", "LogAppendTime".to_owned()),
        ]
    }
}

/// One thing that is not as it is described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The topic.
    pub topic: String,
    /// What is, and what should be.
    pub text: String,
    /// Whether nothing may be sent or read before it is put right.
    pub stops: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic {}: {}", self.topic, self.text)
    }
}

pub(super) fn client(config: &ClientConfig) -> Result<AdminClient<DefaultClientContext>> {
    config
        .create()
        .map_err(|error| Error::kafka("make an admin client", error))
}

/// Runs an admin request to its end.
pub(super) fn wait<T>(request: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| Error::other(format!("cannot wait for an answer: {error}")))?;
    Ok(runtime.block_on(request))
}

pub(super) fn options(answer_max: Duration) -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(answer_max))
        .operation_timeout(Some(answer_max))
}

/// A partition as the cluster has it; brokers by their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Who takes its records; none while there is nobody to.
    pub leader: Option<i32>,
    /// Who keeps them.
    pub replicas: Vec<i32>,
    /// Who of these has all of them.
    pub in_sync: Vec<i32>,
}

/// Every topic's partitions in their order. Asks for all topics: to ask for one by name may make it.
pub(super) fn existing(
    client: &AdminClient<DefaultClientContext>,
    answer_max: Duration,
) -> Result<BTreeMap<String, Vec<Partition>>> {
    let metadata = client
        .inner()
        .fetch_metadata(None, answer_max)
        .map_err(|error| Error::kafka("reach a broker", error))?;
    let topics = metadata.topics().iter().map(|topic| {
        let numbered: BTreeMap<i32, Partition> = topic
            .partitions()
            .iter()
            .map(|found| {
                let partition = Partition {
                    leader: Some(found.leader()).filter(|leader| *leader >= 0),
                    replicas: found.replicas().to_vec(),
                    in_sync: found.isr().to_vec(),
                };
                (found.id(), partition)
            })
            .collect();
        (topic.name().to_owned(), numbered.into_values().collect())
    });
    Ok(topics.collect())
}

pub(super) fn check(
    config: &ClientConfig,
    topics: &[Topic],
    answer_max: Duration,
) -> Result<Vec<Difference>> {
    let client = client(config)?;
    let existing = existing(&client, answer_max)?;
    let there: Vec<&Topic> = topics
        .iter()
        .filter(|topic| existing.contains_key(&topic.name))
        .collect();
    let specifiers: Vec<ResourceSpecifier<'_>> = there
        .iter()
        .map(|topic| ResourceSpecifier::Topic(&topic.name))
        .collect();
    let described = if specifiers.is_empty() {
        Vec::new()
    } else {
        wait(client.describe_configs(&specifiers, &options(answer_max)))?
            .map_err(|error| Error::kafka("describe topics", error))?
    };
    let mut configs = BTreeMap::new();
    for resource in described.into_iter().flatten() {
        if let OwnedResourceSpecifier::Topic(name) = &resource.specifier {
            let entries = resource.entries.iter();
            let values: BTreeMap<String, String> = entries
                .filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?)))
                .collect();
            configs.insert(name.clone(), values);
        }
    }

    let mut differences = Vec::new();
    for topic in topics {
        let mut differs = |stops, text: String| {
            differences.push(Difference {
                topic: topic.name.clone(),
                text,
                stops,
            });
        };
        let Some(partitions) = existing.get(&topic.name) else {
            differs(true, "is missing: run sluice topics create".to_owned());
            continue;
        };
        let count = partitions.len();
        if count != usize::from(topic.partitions) {
            differs(
                true,
                topic.with_partitions(u16::try_from(count).unwrap_or(u16::MAX)),
            );
        }
        let Some(values) = configs.get(&topic.name) else {
            differs(true, "cannot be described: is it allowed to us?".to_owned());
            continue;
        };
        for (name, expected) in topic.config() {
            let found = values.get(name).map_or("", String::as_str);
            if found != expected {
                // A record dated by its own time can be deleted the moment it arrives.
                let stops = name != "retention.ms";
                differs(stops, format!("{name} is {found:?}, expected {expected:?}"));
            }
        }
        let in_sync: usize = values
            .get("min.insync.replicas")
            .and_then(|number| number.parse().ok())
            .unwrap_or(1);
        let replicas = partitions.iter().map(|partition| partition.replicas.len());
        let replicas = replicas.min().unwrap_or(0);
        if replicas < 2 || in_sync < 2 {
            differs(
                false,
                format!(
                    "{replicas} replicas, min.insync.replicas {in_sync}: one lost disk loses records; use 3 and 2"
                ),
            );
        }
        let behind = partitions
            .iter()
            .filter(|partition| partition.in_sync.len() < partition.replicas.len())
            .count();
        if behind > 0 {
            differs(
                false,
                format!("{behind} of {count} partitions are not on all of their brokers in full"),
            );
        }
    }
    Ok(differences)
}

pub(super) fn create(
    config: &ClientConfig,
    topics: &[Topic],
    replication: u16,
) -> Result<Vec<String>> {
    let client = client(config)?;
    let existing = existing(&client, ANSWER_MAX)?;
    let missing: Vec<(&Topic, [(&str, String); 3])> = topics
        .iter()
        .filter(|topic| !existing.contains_key(&topic.name))
        .map(|topic| (topic, topic.config()))
        .collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let in_sync = if replication > 1 { "2" } else { "1" };
    let new: Vec<NewTopic<'_>> = missing
        .iter()
        .map(|(topic, config)| {
            let new = NewTopic::new(
                &topic.name,
                i32::from(topic.partitions),
                TopicReplication::Fixed(i32::from(replication)),
            )
            .set("min.insync.replicas", in_sync);
            config
                .iter()
                .fold(new, |new, (name, value)| new.set(name, value))
        })
        .collect();
    let made = wait(client.create_topics(&new, &options(ANSWER_MAX)))?
        .map_err(|error| Error::kafka("create topics", error))?;
    let mut names = Vec::new();
    for result in made {
        match result {
            Ok(name) => names.push(name),
            // Somebody else was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(Error::other(format!("topic {name} cannot be made: {code}")));
            }
        }
    }
    Ok(names)
}
