//! What somebody who changes topics has to know of a cluster, and may change.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, NewPartitions};
use rdkafka::client::DefaultClientContext;

use super::topics::{client, existing, options, wait};
use super::{ANSWER_MAX, Partition, Settings, config};
use crate::{Error, Result};

/// How long between two looks at whether a change shows.
const SHOWN_POLL: Duration = Duration::from_millis(50);

/// A connection to a cluster, to ask and to change.
pub struct Admin {
    client: AdminClient<DefaultClientContext>,
}

impl Admin {
    /// Connects.
    ///
    /// # Errors
    /// The settings are incomplete.
    pub fn connect(settings: &Settings) -> Result<Self> {
        Ok(Self {
            client: client(&config(settings)?)?,
        })
    }

    /// A topic's partitions in their order; none where there is no such topic.
    ///
    /// # Errors
    /// No broker answers.
    pub fn partitions(&self, topic: &str) -> Result<Vec<Partition>> {
        Ok(existing(&self.client, ANSWER_MAX)?
            .remove(topic)
            .unwrap_or_default())
    }

    /// The offset after a partition's last record.
    ///
    /// # Errors
    /// The partition's leader does not answer.
    pub fn end(&self, topic: &str, partition: u16) -> Result<u64> {
        let (_, end) = self
            .client
            .inner()
            .fetch_watermarks(topic, i32::from(partition), ANSWER_MAX)
            .map_err(|error| Error::kafka("ask for a partition's end", error))?;
        Ok(u64::try_from(end).unwrap_or(0))
    }

    /// Gives a topic so many partitions, where it has fewer.
    ///
    /// # Errors
    /// The cluster refuses, or no broker answers.
    pub fn grow(&self, topic: &str, partitions: u16) -> Result<()> {
        let new = NewPartitions::new(topic, usize::from(partitions));
        let answers = wait(self.client.create_partitions([&new], &options(ANSWER_MAX)))?
            .map_err(|error| Error::kafka("add partitions", error))?;
        let refused = answers.into_iter().find_map(std::result::Result::err);
        // Brokers hear of it one by one; and what a command asked for that was killed may come to pass before this.
        let until = Instant::now() + ANSWER_MAX;
        while self.partitions(topic)?.len() != usize::from(partitions) {
            if Instant::now() >= until {
                let why =
                    refused.map_or("it does not show".to_owned(), |(_, code)| code.to_string());
                return Err(Error::other(format!(
                    "topic {topic} cannot be grown: {why}"
                )));
            }
            thread::park_timeout(SHOWN_POLL);
        }
        Ok(())
    }
}
