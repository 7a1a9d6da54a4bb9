//! Named topics of keyed bytes behind one small interface.
//!
//! A topic is split into partitions; a record's partition is its lane mod the topic's partition count, so that records of
//! one lane stay in order. A sender promises that what it acknowledged is kept, nothing about order when it fails; the
//! receiver's rule ([`receipts`]) makes of that each record once and in order. Nothing here knows what a record means.
//!
//! Backends: [`Embedded`], for one process, on the `journal` crate, and [`Kafka`].

pub mod consumer;
pub mod embedded;
pub mod error;
pub mod gaps;
pub mod kafka;
pub mod letters;
pub mod receipts;
pub mod record;

use std::time::{Duration, Instant};

pub use embedded::Embedded;
pub use error::{Error, Result, SendError};
pub use kafka::Kafka;
pub use receipts::{High, Receipts, Verdict};
pub use record::{END, FOREIGN, Record, StreamId, TOMBSTONE, UNKNOWN_TYPE};

/// One of the backends.
#[derive(Clone, Debug)]
pub enum Stream {
    /// Files of this process.
    Embedded(Embedded),
    /// A cluster.
    Kafka(Kafka),
}

impl Stream {
    /// A new sender.
    ///
    /// # Errors
    /// The backend gives none: the cluster is away, or its topics differ from what they should be.
    pub fn sender(&self) -> Result<Box<dyn Sender>> {
        match self {
            Self::Embedded(stream) => Ok(stream.sender()),
            Self::Kafka(stream) => stream.sender(),
        }
    }

    /// A receiver of a topic. Where partitions are shared out, members of a group get different ones; a member keeps its
    /// name, and so its partitions, over restarts.
    ///
    /// # Errors
    /// There is no such topic, it cannot be read, the cluster is away or its topics differ from what they should be.
    pub fn receiver(&self, topic: &str, group: &str, member: &str) -> Result<Box<dyn Receiver>> {
        match self {
            Self::Embedded(stream) => stream.receiver(topic),
            Self::Kafka(stream) => stream.receiver(topic, group, member),
        }
    }

    /// How long a topic must be silent before it counts as read to its end.
    pub fn silence(&self) -> Duration {
        match self {
            Self::Embedded(_) => Duration::ZERO,
            // Some fetches over a network.
            Self::Kafka(_) => Duration::from_secs(1),
        }
    }
}

/// Puts records into topics.
///
/// The caller keeps everything after the contiguous watermark [`Sender::acknowledged`] reports. When a sender fails, the
/// caller drops it, makes a new one and sends **everything** after the watermark again, also what may have arrived.
pub trait Sender: Send {
    /// Takes a record to be sent; it is not kept before it is acknowledged.
    ///
    /// # Errors
    /// [`SendError::Full`]: ask for acknowledgements, then try again. [`SendError::Failed`]: this sender has ended.
    fn send(&mut self, topic: &str, record: &Record) -> std::result::Result<(), SendError>;

    /// How many records are kept of those sent since this sender was made, contiguous in the order of sending.
    /// Waits at most `wait` for the count to grow.
    ///
    /// # Errors
    /// This sender has ended.
    fn acknowledged(&mut self, wait: Duration) -> Result<u64>;
}

/// How long [`deliver`] waits for a stream that takes nothing more or acknowledges nothing.
const DELIVERED_MAX: Duration = Duration::from_secs(60);
/// How long one look for acknowledgements takes.
const LOOK: Duration = Duration::from_millis(50);

/// Sends records and waits until all of them are kept. Nothing else may be under way.
///
/// # Errors
/// The sender has ended, or the stream does not acknowledge within a minute: send all of them again with a new sender.
pub fn deliver(sender: &mut dyn Sender, topic: &str, records: &[Record]) -> Result<()> {
    let goal = sender.acknowledged(Duration::ZERO)? + records.len() as u64;
    let mut records = records.iter().peekable();
    let mut acknowledged = 0;
    let mut since = Instant::now();
    while acknowledged < goal {
        while let Some(record) = records.peek() {
            match sender.send(topic, record) {
                Ok(()) => _ = records.next(),
                Err(SendError::Full) => break,
                Err(SendError::Failed(error)) => return Err(error),
            }
        }
        let now = sender.acknowledged(LOOK)?;
        if now > acknowledged {
            (acknowledged, since) = (now, Instant::now());
        } else if since.elapsed() >= DELIVERED_MAX {
            return Err(Error::other(format!(
                "the stream does not acknowledge {} records within {DELIVERED_MAX:?}",
                goal - acknowledged
            )));
        }
    }
    Ok(())
}

/// Makes senders, one after another as they fail.
pub type MakeSender<'a> = dyn FnMut() -> Result<Box<dyn Sender>> + 'a;

/// Reads the partitions of one topic that are assigned to it.
pub trait Receiver: Send {
    /// The partitions assigned to this receiver, ascending, when that has changed since the last call (the first assignment
    /// included); each then waits for a [`Receiver::seek`].
    fn assigned(&mut self) -> Option<Vec<u16>>;

    /// Lets the whole assignment be told and sought anew, after whoever reads has lost its place.
    fn restart(&mut self);

    /// What the topic is called.
    fn topic(&self) -> &str;

    /// Where to begin in order to go on at `offset` and to see the record before it first: there, where that record is still
    /// kept; otherwise (and in a compacted topic, which may lose it at any time) at `offset` itself.
    ///
    /// # Errors
    /// `offset` is no longer (or not yet) there, or nobody answers.
    fn begin_at(&mut self, partition: u16, offset: u64) -> Result<u64>;

    /// Goes on at an offset; 0 is the beginning.
    ///
    /// # Errors
    /// The partition is not assigned, or the offset is no longer (or not yet) there.
    fn seek(&mut self, partition: u16, offset: u64) -> Result<()>;

    /// Whether everything a compacted topic held when its partitions were sought has been polled; other topics do not say.
    fn is_at_end(&self) -> bool {
        false
    }

    /// The next records of some partition, or `None` when none came within `wait`.
    ///
    /// # Errors
    /// The partition cannot be read.
    fn poll(&mut self, records_max: usize, wait: Duration) -> Result<Option<Batch>>;
}

/// Records of one partition, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Which one.
    pub partition: u16,
    /// The offset of the first record.
    pub first: u64,
    /// The offset to go on at.
    pub next: u64,
    /// Each with its offset.
    pub records: Vec<(u64, Record)>,
}
