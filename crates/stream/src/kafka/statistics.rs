//! What librdkafka says of its clients every few seconds. The newest of each client is kept; clients of one role add up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Inner;
use crate::Error;

/// Fresher than most scrapes; what it costs is a text of some kilobytes.
pub(super) const INTERVAL_MS: u32 = 5_000;

const MICROSECONDS: f64 = 1e-6;
const MILLISECONDS: f64 = 1e-3;

/// All clients of a process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Those that send.
    pub producers: Client,
    /// Those that receive.
    pub consumers: Client,
    /// Records of (group, topic, partition) that are there and not read yet.
    pub lag: BTreeMap<(String, String, u16), u64>,
}

/// Clients of one role: counts are sums, times are those of the slowest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Client {
    /// Connections to brokers that are up.
    pub brokers_connected: u64,
    /// Messages not acknowledged yet; of consumers, fetched and not read yet.
    pub waiting_messages: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Requests a broker has not answered yet.
    pub requests_in_flight: u64,
    /// Half of the requests were answered within this.
    pub round_trip_p50_seconds: f64,
    /// Of a hundred requests 99 were.
    pub round_trip_p99_seconds: f64,
    /// How long brokers held answers back because of a quota; the longest.
    pub throttle_seconds: f64,
    /// Requests that could not be sent, since the process started.
    pub transmit_errors: u64,
    /// Requests sent again, since the process started.
    pub transmit_retries: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Producer,
    Consumer,
}

/// The clients that live, and what those that ended had counted.
#[derive(Default)]
pub(super) struct Registry {
    next_id: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    living: BTreeMap<u64, (Role, Latest)>,
    /// Errors and retries of producers and of consumers that have ended.
    ended: [(u64, u64); 2],
}

#[derive(Default)]
struct Latest {
    client: Client,
    lag: BTreeMap<(String, String, u16), u64>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_up(&self) -> Statistics {
        let table = self.lock();
        let mut all = Statistics::default();
        let [of_producers, of_consumers] = table.ended;
        (
            all.producers.transmit_errors,
            all.producers.transmit_retries,
        ) = of_producers;
        (
            all.consumers.transmit_errors,
            all.consumers.transmit_retries,
        ) = of_consumers;
        for (role, latest) in table.living.values() {
            match role {
                Role::Producer => all.producers.add(&latest.client),
                Role::Consumer => all.consumers.add(&latest.client),
            }
            all.lag
                .extend(latest.lag.iter().map(|(of, lag)| (of.clone(), *lag)));
        }
        all
    }
}

impl Client {
    fn add(&mut self, other: &Self) {
        self.brokers_connected += other.brokers_connected;
        self.waiting_messages += other.waiting_messages;
        self.waiting_bytes += other.waiting_bytes;
        self.requests_in_flight += other.requests_in_flight;
        self.round_trip_p50_seconds = self
            .round_trip_p50_seconds
            .max(other.round_trip_p50_seconds);
        self.round_trip_p99_seconds = self
            .round_trip_p99_seconds
            .max(other.round_trip_p99_seconds);
        self.throttle_seconds = self.throttle_seconds.max(other.throttle_seconds);
        self.transmit_errors += other.transmit_errors;
        self.transmit_retries += other.transmit_retries;
    }
}

/// One client's place in the registry, while it lives.
pub(super) struct Seat {
    inner: Arc<Inner>,
    id: u64,
    role: Role,
    group: String,
    /// A topic that is no longer as it was described.
    differs: Mutex<Option<String>>,
}

impl Seat {
    /// `group` is that of a consumer.
    pub(super) fn new(inner: &Arc<Inner>, role: Role, group: &str) -> Arc<Self> {
        let registry = &inner.statistics;
        let id = registry.next_id.fetch_add(1, Ordering::Relaxed);
        registry.lock().living.insert(id, (role, Latest::default()));
        Arc::new(Self {
            inner: Arc::clone(inner),
            id,
            role,
            group: group.to_owned(),
            differs: Mutex::new(None),
        })
    }

    /// What librdkafka says now.
    pub(super) fn take(&self, said: &rdkafka::Statistics) {
        let latest = self.read(said);
        self.inner
            .statistics
            .lock()
            .living
            .insert(self.id, (self.role, latest));
        for (name, topic) in &said.topics {
            let there = topic
                .partitions
                .values()
                .filter(|partition| partition.partition >= 0 && !partition.unknown);
            // None are known before the first answer, and while the topic is away.
            let found = u16::try_from(there.count()).unwrap_or(u16::MAX);
            if let Some(described) = self.inner.topics.get(name)
                && found > 0
                && found != described.partitions
            {
                self.inner.distrust();
                let text = format!("topic {name}: {}", described.with_partitions(found));
                *self.differs() = Some(text);
            }
        }
    }

    fn differs(&self) -> MutexGuard<'_, Option<String>> {
        self.differs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why this client must not go on: of a topic that has grown it would not read the new partitions.
    pub(super) fn difference(&self) -> Option<Error> {
        self.differs().clone().map(Error::topics_differ)
    }

    fn read(&self, said: &rdkafka::Statistics) -> Latest {
        let mut client = Client::default();
        for broker in said.brokers.values() {
            client.brokers_connected += u64::from(broker.state == "UP" && broker.nodeid >= 0);
            client.requests_in_flight += count(broker.waitresp_cnt);
            client.transmit_errors += broker.txerrs;
            client.transmit_retries += broker.txretries;
            if let Some(rtt) = &broker.rtt {
                let [p50, p99] = [rtt.p50, rtt.p99].map(|us| us as f64 * MICROSECONDS);
                client.round_trip_p50_seconds = client.round_trip_p50_seconds.max(p50);
                client.round_trip_p99_seconds = client.round_trip_p99_seconds.max(p99);
            }
            if let Some(throttle) = &broker.throttle {
                let held = throttle.max as f64 * MILLISECONDS;
                client.throttle_seconds = client.throttle_seconds.max(held);
            }
        }
        let mut lag = BTreeMap::new();
        match self.role {
            Role::Producer => {
                client.waiting_messages = said.msg_cnt;
                client.waiting_bytes = said.msg_size;
            }
            Role::Consumer => {
                for (name, topic) in &said.topics {
                    for partition in topic.partitions.values() {
                        client.waiting_messages += count(partition.fetchq_cnt);
                        client.waiting_bytes += partition.fetchq_size;
                        // Both are negative while unknown, and where the partition is another member's.
                        if let (Ok(number), Ok(end), Ok(read)) = (
                            u16::try_from(partition.partition),
                            u64::try_from(partition.hi_offset),
                            u64::try_from(partition.app_offset),
                        ) {
                            let of = (self.group.clone(), name.clone(), number);
                            lag.insert(of, end.saturating_sub(read));
                        }
                    }
                }
            }
        }
        Latest { client, lag }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.inner.statistics.lock();
        if let Some((role, latest)) = table.living.remove(&self.id) {
            let (errors, retries) = &mut table.ended[role as usize];
            *errors += latest.client.transmit_errors;
            *retries += latest.client.transmit_retries;
        }
    }
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
