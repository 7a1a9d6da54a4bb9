//! The embedded backend: topics as files, for one process.
//!
//! | file | what |
//! |---|---|
//! | `lock` | held while the folder is open; names the process |
//! | `topics.toml` | every topic's partition count and version, written when the topic is made |
//! | `{topic}-{partition}/` | one [`journal::Log`]; a record's offset is its ordinal there |
//!
//! A record is in memory until [`Sender::acknowledged`] syncs its partition; only then do receivers see it. When a log
//! fails, it is dropped with all that was not synced, every sender that had records there ends, and the next record opens
//! it anew.

mod topics;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use journal::{Entry, FolderLock, Log, Options, PAYLOAD_BYTES_MAX, Reader};

use crate::{Batch, Error, Receiver, Record, Result, SendError, Sender, StreamId};

/// Most partitions of a topic: there are no more lanes.
pub const PARTITIONS_MAX: u16 = 256;

/// Bytes one sender may have under way: below what a log holds in memory, and a sync's worth of work.
const UNDER_WAY_BYTES_MAX: usize = 8 << 20;

/// Bytes a receiver reads from a log at once: some thousand records.
const READ_BYTES_MAX: usize = 1 << 20;

/// The embedded backend. Clones share the folder; it is free again when they, their senders and receivers are gone.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    topics: HashMap<String, Arc<Topic>>,
    streams: Mutex<Box<dyn FnMut() -> StreamId + Send>>,
    /// Counts syncs that made records visible.
    synced: Mutex<u64>,
    more: Condvar,
    _lock: FolderLock,
}

struct Topic {
    name: String,
    partitions: Vec<Partition>,
}

struct Partition {
    folder: PathBuf,
    log: Mutex<PartitionLog>,
    /// The offset after the last synced record.
    end: AtomicU64,
}

struct PartitionLog {
    /// `None` after a failure.
    log: Option<Log>,
    /// Counts failures.
    generation: u64,
}

impl Embedded {
    /// Opens or makes the folder and the topics, each with its partition count. `streams` gives each log opened an
    /// identity never used before.
    ///
    /// # Errors
    /// When the folder is in use, of a newer version or unusable, or a topic was made with another partition count.
    pub fn open(
        folder: &Path,
        topics: &[(&str, u16)],
        mut streams: impl FnMut() -> StreamId + Send + 'static,
    ) -> Result<Self> {
        let lock = FolderLock::take(folder)
            .map_err(|error| Error::journal(folder.display().to_string(), error))?;
        topics::agree(folder, topics)?;
        let mut opened = HashMap::new();
        for &(name, count) in topics {
            let mut partitions = Vec::with_capacity(usize::from(count));
            for partition in 0..count {
                let folder = folder.join(format!("{name}-{partition}"));
                let log = open_log(&folder, streams())?;
                partitions.push(Partition {
                    end: AtomicU64::new(log.end()),
                    folder,
                    log: Mutex::new(PartitionLog {
                        log: Some(log),
                        generation: 0,
                    }),
                });
            }
            opened.insert(
                name.to_owned(),
                Arc::new(Topic {
                    name: name.to_owned(),
                    partitions,
                }),
            );
        }
        Ok(Self {
            inner: Arc::new(Inner {
                topics: opened,
                streams: Mutex::new(Box::new(streams)),
                synced: Mutex::new(0),
                more: Condvar::new(),
                _lock: lock,
            }),
        })
    }

    /// A new sender.
    pub fn sender(&self) -> Box<dyn Sender> {
        Box::new(EmbeddedSender {
            inner: Arc::clone(&self.inner),
            dirty: BTreeMap::new(),
            bytes: 0,
            sent: 0,
            acknowledged: 0,
            ended: false,
            scratch: Vec::new(),
        })
    }

    /// A receiver of every partition of a topic, at their beginnings.
    ///
    /// # Errors
    /// There is no such topic, or it cannot be read.
    pub fn receiver(&self, topic: &str) -> Result<Box<dyn Receiver>> {
        let topic = self
            .inner
            .topics
            .get(topic)
            .ok_or_else(|| Error::unknown_topic(topic))?;
        let tails = topic
            .partitions
            .iter()
            .map(|partition| Tail::open(topic, partition, 0))
            .collect::<Result<_>>()?;
        Ok(Box::new(EmbeddedReceiver {
            inner: Arc::clone(&self.inner),
            topic: Arc::clone(topic),
            tails,
            untold: true,
            turn: 0,
        }))
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let topics: BTreeSet<&String> = self.inner.topics.keys().collect();
        f.debug_struct("Embedded").field("topics", &topics).finish()
    }
}

fn open_log(folder: &Path, stream: StreamId) -> Result<Log> {
    let (log, recovered) = Log::open(folder, Options::new(stream))
        .map_err(|error| Error::journal(folder.display().to_string(), error))?;
    if recovered.corrupt_bytes > 0 {
        tracing::error!(
            folder = %folder.display(),
            bytes = recovered.corrupt_bytes,
            "a topic's log is damaged"
        );
    }
    Ok(log)
}

/// What the mutexes guard is whole between statements, so a panic elsewhere does not make it wrong.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn new_stream(&self) -> StreamId {
        lock(&self.streams)()
    }

    fn wake(&self) {
        *lock(&self.synced) += 1;
        self.more.notify_all();
    }
}

impl PartitionLog {
    /// All that was not synced is gone; who sent it finds another generation.
    fn fail(&mut self) {
        self.log = None;
        self.generation += 1;
    }
}

struct EmbeddedSender {
    inner: Arc<Inner>,
    /// Partitions with records of this sender to sync, and the generation these went to.
    dirty: BTreeMap<(String, u16), u64>,
    bytes: usize,
    sent: u64,
    acknowledged: u64,
    ended: bool,
    scratch: Vec<u8>,
}

impl EmbeddedSender {
    fn append(&mut self, topic: &str, record: &Record) -> Result<()> {
        let Some(found) = self.inner.topics.get(topic) else {
            return Err(Error::unknown_topic(topic));
        };
        self.scratch.clear();
        if !record.encode(&mut self.scratch) || self.scratch.len() > PAYLOAD_BYTES_MAX {
            return Err(Error::refused(format!(
                "record {} of lane {} is too large for topic {topic}",
                record.n, record.lane
            )));
        }
        let number = u16::from(record.lane)
            % u16::try_from(found.partitions.len()).expect("at most PARTITIONS_MAX");
        let partition = &found.partitions[usize::from(number)];
        let mut state = lock(&partition.log);
        let generation = state.generation;
        let key = (topic.to_owned(), number);
        if self.dirty.get(&key).is_some_and(|was| *was != generation) {
            return Err(Error::sender_ended());
        }
        let log = match &mut state.log {
            Some(log) => log,
            none => none.insert(open_log(&partition.folder, self.inner.new_stream())?),
        };
        if let Err(error) = log.append(&self.scratch) {
            state.fail();
            return Err(Error::journal(
                partition.folder.display().to_string(),
                error,
            ));
        }
        self.dirty.insert(key, generation);
        self.bytes += self.scratch.len();
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        for ((topic, number), generation) in std::mem::take(&mut self.dirty) {
            let partition = &self.inner.topics[&topic].partitions[usize::from(number)];
            let mut state = lock(&partition.log);
            if state.generation != generation {
                return Err(Error::sender_ended());
            }
            let Some(log) = &mut state.log else {
                return Err(Error::sender_ended());
            };
            match log.sync() {
                Ok(end) => partition.end.store(end, Ordering::Release),
                Err(error) => {
                    state.fail();
                    return Err(Error::journal(
                        partition.folder.display().to_string(),
                        error,
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Sender for EmbeddedSender {
    fn send(&mut self, topic: &str, record: &Record) -> std::result::Result<(), SendError> {
        if self.ended {
            return Err(Error::sender_ended().into());
        }
        if self.bytes >= UNDER_WAY_BYTES_MAX {
            return Err(SendError::Full);
        }
        if let Err(error) = self.append(topic, record) {
            self.ended = true;
            return Err(error.into());
        }
        self.sent += 1;
        Ok(())
    }

    fn acknowledged(&mut self, _wait: Duration) -> Result<u64> {
        if self.ended {
            return Err(Error::sender_ended());
        }
        if self.acknowledged < self.sent {
            let synced = self.sync();
            self.inner.wake();
            if let Err(error) = synced {
                self.ended = true;
                return Err(error);
            }
            self.bytes = 0;
            self.acknowledged = self.sent;
        }
        Ok(self.acknowledged)
    }
}

struct EmbeddedReceiver {
    inner: Arc<Inner>,
    topic: Arc<Topic>,
    tails: Vec<Tail>,
    /// Nobody was told of the assignment yet, which never changes.
    untold: bool,
    /// The partition asked next, so that a busy one does not keep the others waiting.
    turn: usize,
}

/// Where a receiver stands in a partition.
struct Tail {
    reader: Reader,
    next: u64,
    read: VecDeque<Entry>,
}

impl Tail {
    fn open(topic: &Topic, partition: &Partition, offset: u64) -> Result<Self> {
        let reader = Reader::open_at_ordinal(&partition.folder, offset)
            .map_err(|error| Error::journal(&topic.name, error))?;
        Ok(Self {
            reader,
            next: offset,
            read: VecDeque::new(),
        })
    }
}

impl EmbeddedReceiver {
    /// The earliest offset of a partition that has `offset`.
    fn earliest_for(&self, partition: u16, offset: u64) -> Result<u64> {
        let Some(found) = self.topic.partitions.get(usize::from(partition)) else {
            return Err(Error::not_assigned(partition));
        };
        let name = &self.topic.name;
        let end = found.end.load(Ordering::Acquire);
        if offset > end {
            return Err(Error::offset_ahead(name, partition, offset, end));
        }
        let earliest = Reader::earliest_ordinal(&found.folder)
            .map_err(|error| Error::journal(name, error))?
            .unwrap_or(end);
        if offset < earliest {
            return Err(Error::offset_gone(name, partition, offset, earliest));
        }
        Ok(earliest)
    }

    fn take(&mut self, number: usize, records_max: usize) -> Result<Option<Batch>> {
        let partition = &self.topic.partitions[number];
        let tail = &mut self.tails[number];
        if tail.read.is_empty() {
            if partition.end.load(Ordering::Acquire) <= tail.next {
                return Ok(None);
            }
            let mut read = Vec::new();
            tail.reader
                .read(&mut read, READ_BYTES_MAX)
                .map_err(|error| Error::journal(&self.topic.name, error))?;
            tail.read = read.into();
        }
        let Some(first) = tail.read.front().map(|entry| entry.ordinal) else {
            return Ok(None);
        };
        let name = &self.topic.name;
        let number = u16::try_from(number).expect("at most PARTITIONS_MAX");
        let count = tail.read.len().min(records_max.max(1));
        let mut records = Vec::with_capacity(count);
        for entry in tail.read.drain(..count) {
            // A power cut leaves holes where nothing was acknowledged: their sender sends again. A hole in what was durable
            // is nobody's to fill: who went on would find the lane's next record early for ever.
            if entry.ordinal != tail.next && tail.reader.skipped().corrupt_bytes > 0 {
                return Err(Error::damaged(name, number, tail.next, entry.ordinal));
            }
            let record = Record::decode(&entry.payload)
                .unwrap_or_else(|| Record::foreign(number, Vec::new(), entry.payload.to_vec()));
            tail.next = entry.ordinal + 1;
            records.push((entry.ordinal, record));
        }
        Ok(Some(Batch {
            partition: number,
            first,
            next: tail.next,
            records,
        }))
    }
}

impl Receiver for EmbeddedReceiver {
    fn assigned(&mut self) -> Option<Vec<u16>> {
        std::mem::take(&mut self.untold).then(|| (0..).take(self.tails.len()).collect())
    }

    fn restart(&mut self) {
        self.untold = true;
    }

    fn topic(&self) -> &str {
        &self.topic.name
    }

    fn begin_at(&mut self, partition: u16, offset: u64) -> Result<u64> {
        let earliest = self.earliest_for(partition, offset)?;
        Ok(offset.saturating_sub(1).max(earliest))
    }

    fn seek(&mut self, partition: u16, offset: u64) -> Result<()> {
        self.earliest_for(partition, offset)?;
        let found = &self.topic.partitions[usize::from(partition)];
        self.tails[usize::from(partition)] = Tail::open(&self.topic, found, offset)?;
        Ok(())
    }

    fn poll(&mut self, records_max: usize, wait: Duration) -> Result<Option<Batch>> {
        let started = Instant::now();
        loop {
            let seen = *lock(&self.inner.synced);
            for _ in 0..self.tails.len() {
                let number = self.turn;
                self.turn = (self.turn + 1) % self.tails.len();
                if let Some(batch) = self.take(number, records_max)? {
                    return Ok(Some(batch));
                }
            }
            let mut synced = lock(&self.inner.synced);
            while *synced == seen {
                let Some(rest) = wait
                    .checked_sub(started.elapsed())
                    .filter(|rest| !rest.is_zero())
                else {
                    return Ok(None);
                };
                synced = self
                    .inner
                    .more
                    .wait_timeout(synced, rest)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        }
    }
}

#[cfg(test)]
mod tests;
