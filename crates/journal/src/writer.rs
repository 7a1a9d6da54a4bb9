//! Opening a journal, and the worker's end of it.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::flusher::Flusher;
use crate::frame::{self, Head, Kind};
use crate::log::Appender;
use crate::ring::{self, Producer};
use crate::{Error, FolderLock, Recovered, StreamId, recovery};

/// How to open a journal.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The identity of this open; never one that was used before.
    pub stream: StreamId,
    /// Size of the ring's data area in bytes, rounded up to a power of two. Default 64 MiB.
    pub ring_bytes: u64,
    /// A log file of this many bytes is followed by a new one. Default 64 MiB.
    pub log_bytes_max: u64,
}

impl Options {
    /// The defaults.
    pub fn new(stream: StreamId) -> Options {
        Options {
            stream,
            ring_bytes: 64 << 20,
            log_bytes_max: 64 << 20,
        }
    }
}

/// What the two ends tell each other beside the ring.
pub(crate) struct Shared {
    pub(crate) synced: AtomicU64,
    pub(crate) poisoned: AtomicBool,
    pub(crate) writer_gone: AtomicBool,
    /// Held until both ends are gone.
    _lock: FolderLock,
}

/// Takes the folder's lock, recovers what the predecessor left in ring and log, and starts a new stream.
///
/// # Errors
/// `is_in_use` when somebody holds the folder, `is_newer_format`, or what the disk said.
///
/// # Panics
/// When `options.stream` is the stream of the folder's last open: each open needs a new one.
pub fn open(folder: &Path, options: Options) -> Result<(Writer, Flusher, Recovered), Error> {
    let lock = FolderLock::take(folder)?;
    let (recovered, header) = recovery::succeed(folder, options.stream)?;
    let appender = Appender::create(folder, header, options.log_bytes_max)?;
    let (producer, consumer) = ring::create(folder, options.stream, options.ring_bytes)?;
    let shared = Arc::new(Shared {
        synced: AtomicU64::new(0),
        poisoned: AtomicBool::new(false),
        writer_gone: AtomicBool::new(false),
        _lock: lock,
    });
    let flusher = Flusher::new(consumer, appender, Arc::clone(&shared));
    let writer = Writer {
        stream: options.stream,
        next_sequence: 1,
        producer,
        shared,
        _not_sync: PhantomData,
    };
    Ok((writer, flusher, recovered))
}

/// The ring had no room: the disk is stalled or full, or the journal is poisoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the journal has no room for the record")
    }
}

impl std::error::Error for Full {}

/// The worker's end: never waits for anything.
pub struct Writer {
    stream: StreamId,
    next_sequence: u64,
    producer: Producer,
    shared: Arc<Shared>,
    /// One worker, one writer: it may move to a thread but not be shared by several.
    _not_sync: PhantomData<Cell<()>>,
}

impl Writer {
    /// The stream of this open.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// The sequence the next appended record will get; the first is 1.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Whether a record of this many bytes would be taken now; what the flusher does meanwhile only makes more room.
    pub fn has_room(&self, payload_bytes: usize) -> bool {
        !self.poisoned() && self.producer.has_room(frame::frame_bytes(payload_bytes))
    }

    /// Puts a record into the ring: once this returns, it survives the process. Returns its sequence.
    ///
    /// # Errors
    /// [`Full`], at once; the record is not taken and its sequence not used.
    ///
    /// # Panics
    /// When the payload is empty or longer than [`crate::PAYLOAD_BYTES_MAX`].
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, Full> {
        if !self.has_room(payload.len()) {
            return Err(Full);
        }
        let sequence = self.next_sequence;
        let head = Head::new(Kind::Record, self.stream, sequence, payload);
        if !self.producer.push(&head, payload) {
            return Err(Full);
        }
        self.next_sequence += 1;
        Ok(sequence)
    }

    /// Sequence of the last record that would survive a power cut; 0 before the first sync.
    pub fn synced(&self) -> u64 {
        self.shared.synced.load(Ordering::Acquire)
    }

    /// Whether the log failed for good: nothing is taken any more.
    pub fn poisoned(&self) -> bool {
        self.shared.poisoned.load(Ordering::Acquire)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.writer_gone.store(true, Ordering::Release);
    }
}
