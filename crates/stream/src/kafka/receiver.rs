//! The receiver: a member of a consumer group whose places are kept by the store alone.
//!
//! When the group gives it partitions, nothing is read until each has been sought; when the group takes them away, what was
//! read of them is dropped. A place that the topic no longer has is an error, never a guess.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupInfo;
use rdkafka::message::Message;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::statistics::{self, Role, Seat};
use super::{CHECK_ANSWER_MAX, Cleanup, Inner, Topic, headers};
use crate::{Batch, Error, Receiver, Record, Result};

/// Kibibytes fetched ahead of a partition: a few batches.
const AHEAD_KIB_MAX: usize = 16 << 10;

/// A member shows that it lives at least so often, and several times in a session.
const HEARTBEAT_MS_MAX: u32 = 3_000;

/// Partitions the group gave us, when that has changed.
#[derive(Default)]
struct Assignment {
    partitions: BTreeSet<u16>,
    changed: bool,
}

#[derive(Clone)]
struct Context {
    assignment: Arc<Mutex<Assignment>>,
    seat: Arc<Seat>,
}

impl Context {
    fn lock(&self) -> MutexGuard<'_, Assignment> {
        self.assignment
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        self.seat.take(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is what `is_at_end` tells of.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::warn!(%error, reason, "kafka consumer");
        }
    }
}

impl ConsumerContext for Context {
    /// Takes a note instead of starting to read: places are sought first. The group waits for the assignment meanwhile.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let mut assignment = self.lock();
        assignment.changed = true;
        assignment.partitions.clear();
        if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let elements = list.elements();
            let numbers = elements
                .iter()
                .filter_map(|element| u16::try_from(element.partition()).ok());
            assignment.partitions.extend(numbers);
        } else if let Err(error) = consumer.unassign() {
            tracing::warn!(%error, "kafka consumer could not give its partitions back");
        }
    }
}

struct KafkaReceiver {
    inner: Arc<Inner>,
    topic: Topic,
    group: String,
    member: String,
    consumer: BaseConsumer<Context>,
    context: Context,
    /// Partitions told and not sought yet.
    waiting: BTreeSet<u16>,
    /// Where each of the others goes on.
    next: BTreeMap<u16, u64>,
    /// Read to their end at least once. Only compacted topics are asked where they end.
    ended: BTreeSet<u16>,
    /// Read and not yet asked for, by partition, each with its offset.
    read: BTreeMap<u16, VecDeque<(u64, Record)>>,
    turn: u16,
}

pub(super) fn open(
    inner: &Arc<Inner>,
    topic: &str,
    group: &str,
    member: &str,
) -> Result<Box<dyn Receiver>> {
    let Some(described) = inner.topics.get(topic) else {
        return Err(Error::unknown_topic(topic));
    };
    let is_compacted = described.cleanup == Cleanup::Compact;
    if !is_compacted {
        inner.pass()?;
    }
    let context = Context {
        assignment: Arc::default(),
        seat: Seat::new(inner, Role::Consumer, group),
    };
    let consumer: BaseConsumer<Context> = inner
        .config
        .clone()
        .set("group.id", group)
        .set("group.instance.id", member)
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", inner.session_timeout_ms.to_string())
        .set(
            "heartbeat.interval.ms",
            (inner.session_timeout_ms / 4)
                .min(HEARTBEAT_MS_MAX)
                .to_string(),
        )
        .set(
            "max.poll.interval.ms",
            inner.max_poll_interval_ms.to_string(),
        )
        // Places are the store's.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        .set("enable.partition.eof", is_compacted.to_string())
        .set("queued.max.messages.kbytes", AHEAD_KIB_MAX.to_string())
        .set(
            "statistics.interval.ms",
            statistics::INTERVAL_MS.to_string(),
        )
        .create_with_context(context.clone())
        .map_err(|error| Error::kafka("make a consumer", error))?;
    if !is_compacted {
        refuse_beside_others(&consumer, group, member)?;
    }
    consumer
        .subscribe(&[topic])
        .map_err(|error| Error::kafka("subscribe", error))?;
    Ok(Box::new(KafkaReceiver {
        inner: Arc::clone(inner),
        topic: described.clone(),
        group: group.to_owned(),
        member: member.to_owned(),
        consumer,
        context,
        waiting: BTreeSet::new(),
        next: BTreeMap::new(),
        ended: BTreeSet::new(),
        read: BTreeMap::new(),
        turn: 0,
    }))
}

/// Refuses to join a group that another member is in: each would read a part, and neither would know.
fn refuse_beside_others(consumer: &BaseConsumer<Context>, group: &str, member: &str) -> Result<()> {
    let found = consumer
        .fetch_group_list(Some(group), CHECK_ANSWER_MAX)
        .map_err(|error| Error::kafka("ask for a consumer group", error))?;
    // The broker appends an id of its own.
    let own = format!("{member}-");
    let mut members = found.groups().iter().flat_map(GroupInfo::members);
    match members.find(|other| !other.id().starts_with(&own)) {
        Some(other) => Err(Error::other(format!(
            "{} on {} reads in the group {group}: each of the two would count a part. Stop one of them; it leaves the group within half a minute",
            other.id(),
            other.client_host()
        ))),
        None => Ok(()),
    }
}

impl KafkaReceiver {
    /// Takes what the client has, at most `records_max`; waits for the first.
    fn fetch(&mut self, records_max: usize, wait: Duration) -> Result<()> {
        // Who reads a compacted topic finds out from it whether the gate may open.
        let is_gated = self.topic.cleanup != Cleanup::Compact;
        if is_gated {
            self.inner.pass()?;
        }
        let until = Instant::now() + wait;
        let mut taken = 0;
        while taken < records_max {
            let rest = if taken > 0 {
                Duration::ZERO
            } else {
                whole_milliseconds(until.saturating_duration_since(Instant::now()))
            };
            let Some(polled) = self.consumer.poll(rest) else {
                break;
            };
            let message = match polled {
                Ok(message) => message,
                Err(KafkaError::PartitionEOF(partition)) => {
                    self.ended.extend(u16::try_from(partition));
                    continue;
                }
                Err(error) if is_weather(&error) => continue,
                Err(error) => return Err(Error::kafka("read", error)),
            };
            let (Ok(partition), Ok(offset)) = (
                u16::try_from(message.partition()),
                u64::try_from(message.offset()),
            ) else {
                continue;
            };
            let own = self.inner.identity.load(Ordering::Relaxed);
            if let Some(other) =
                headers::identity(&message).filter(|found| is_gated && own != 0 && *found != own)
            {
                return Err(Error::other(format!(
                    "{} partition {partition} offset {offset} is of catalog.lock {other:016x}…, this machine has {own:016x}…: it is another catalog, whose numbers mean other things. Nothing is read until one of them is gone",
                    self.topic.name
                )));
            }
            let record = headers::decode(&message, &self.inner.kinds).unwrap_or_else(|| {
                let bytes = |part: Option<&[u8]>| part.unwrap_or_default().to_vec();
                Record::foreign(partition, bytes(message.key()), bytes(message.payload()))
            });
            self.read
                .entry(partition)
                .or_default()
                .push_back((offset, record));
            self.next.insert(partition, offset + 1);
            taken += 1;
        }
        Ok(())
    }

    fn is_current(&self) -> bool {
        !self.context.lock().changed
    }
}

/// Rounded up: a wait for a part of a millisecond spins (rdkafka 0.39, `Timeout::as_millis`).
fn whole_milliseconds(wait: Duration) -> Duration {
    let milliseconds = wait.as_micros().div_ceil(1000);
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX))
}

/// A broker that is away comes back; librdkafka goes on by itself.
fn is_weather(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::AllBrokersDown
                | Code::BrokerTransportFailure
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::RequestTimedOut
                | Code::NetworkException
                | Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress
                | Code::NotCoordinator
                | Code::RebalanceInProgress
        )
    )
}

impl Receiver for KafkaReceiver {
    fn assigned(&mut self) -> Option<Vec<u16>> {
        let mut assignment = self.context.lock();
        if !std::mem::take(&mut assignment.changed) {
            return None;
        }
        self.waiting.clone_from(&assignment.partitions);
        self.next.clear();
        self.read.clear();
        Some(self.waiting.iter().copied().collect())
    }

    fn restart(&mut self) {
        self.next.clear();
        self.read.clear();
        let mut assignment = self.context.lock();
        assignment.changed = !assignment.partitions.is_empty();
    }

    fn topic(&self) -> &str {
        &self.topic.name
    }

    fn begin_at(&mut self, partition: u16, offset: u64) -> Result<u64> {
        let name = &self.topic.name;
        let (earliest, end) = self
            .consumer
            .fetch_watermarks(name, i32::from(partition), CHECK_ANSWER_MAX)
            .map_err(|error| Error::kafka("ask for a partition's ends", error))?;
        let [earliest, end] = [earliest, end].map(|offset| u64::try_from(offset).unwrap_or(0));
        if offset > end {
            return Err(Error::offset_ahead(name, partition, offset, end));
        }
        if offset < earliest {
            return Err(Error::offset_gone(name, partition, offset, earliest));
        }
        if self.topic.cleanup == Cleanup::Compact {
            return Ok(offset);
        }
        Ok(offset.saturating_sub(1).max(earliest))
    }

    fn seek(&mut self, partition: u16, offset: u64) -> Result<()> {
        // The group has taken partitions away since: all of them are told and sought anew.
        if !self.is_current() {
            return Ok(());
        }
        if !self.waiting.remove(&partition) && !self.next.contains_key(&partition) {
            return Err(Error::not_assigned(partition));
        }
        self.next.insert(partition, offset);
        self.ended.remove(&partition);
        self.read.remove(&partition);
        if !self.waiting.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (partition, offset) in &self.next {
            let offset = Offset::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
            list.add_partition_offset(&self.topic.name, i32::from(*partition), offset)
                .map_err(|error| Error::kafka("seek", error))?;
        }
        self.consumer
            .assign(&list)
            .map_err(|error| Error::kafka("seek", error))
    }

    fn is_at_end(&self) -> bool {
        let sought = self.next.keys();
        self.waiting.is_empty()
            && !self.next.is_empty()
            && sought
                .copied()
                .all(|partition| self.ended.contains(&partition))
            && self.read.values().all(VecDeque::is_empty)
    }

    fn poll(&mut self, records_max: usize, wait: Duration) -> Result<Option<Batch>> {
        if self.read.values().all(VecDeque::is_empty) {
            self.fetch(records_max, wait)?;
        }
        if let Some(error) = self.context.seat.difference() {
            return Err(error);
        }
        let sought = self.next.len();
        if self.topic.cleanup != Cleanup::Compact
            && sought > 0
            && self.waiting.is_empty()
            && sought < usize::from(self.topic.partitions)
        {
            refuse_beside_others(&self.consumer, &self.group, &self.member)?;
            // A member that comes back soon is given what it had, also where the topic has grown meanwhile.
            let mut assignment = self.context.lock();
            assignment.partitions = (0..self.topic.partitions).collect();
            assignment.changed = true;
            return Ok(None);
        }
        // What was read before the group took the partition away is not ours any more.
        if !self.is_current() {
            return Ok(None);
        }
        let ready = |from: u16| {
            let mut ready = self
                .read
                .range(from..)
                .filter(|(_, records)| !records.is_empty());
            ready.next().map(|(partition, _)| *partition)
        };
        let Some(partition) = ready(self.turn).or_else(|| ready(0)) else {
            return Ok(None);
        };
        self.turn = partition.wrapping_add(1);
        let read = self.read.get_mut(&partition).expect("just found");
        let records: Vec<(u64, Record)> = read.drain(..read.len().min(records_max)).collect();
        Ok(Some(Batch {
            partition,
            first: records.first().expect("not empty").0,
            next: records.last().expect("not empty").0 + 1,
            records,
        }))
    }
}
