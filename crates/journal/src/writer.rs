//! Opening a journal, and the worker's end of it.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use crate::flusher::Flusher;
use crate::frame::{self, Head, Kind};
use crate::log::Appender;
use crate::ring::{self, Producer};
use crate::{Error, FolderLock, Recovered, StreamId, file, recovery, scoreboard};

/// Most bytes of a folder's log files together, where nobody says otherwise: a day of a worker that records 400 clicks of
/// 450 bytes a second while nothing is shipped.
pub const FOLDER_BYTES_MAX: u64 = 16 << 30;

/// How to open a journal.
#[derive(Clone, Debug)]
pub struct Options {
    /// The identity of this open; never one that was used before.
    pub stream: StreamId,
    /// Size of the ring's data area in bytes, rounded up to a power of two; where there is too little room, half of it, and so
    /// on down to 4 MiB. Default 64 MiB.
    pub ring_bytes: u64,
    /// The folder for rings, in the machine's memory and this user's alone; made where it is missing. Default that of
    /// [`crate::default_ring_folder`] for the folder this one lies in.
    pub ring_folder: Option<PathBuf>,
    /// A log file of this many bytes is followed by a new one. Default 64 MiB, and at most a quarter of
    /// `folder_bytes_max`, so that a folder at its bound has files that can be deleted.
    pub log_bytes_max: u64,
    /// When the log files together have this many bytes, the writer takes nothing more until some are deleted; what the
    /// ring holds then still goes to the log. At least four times `ring_bytes`. Default [`FOLDER_BYTES_MAX`].
    pub folder_bytes_max: u64,
}

impl Options {
    /// The defaults.
    pub fn new(stream: StreamId) -> Options {
        Options {
            stream,
            ring_bytes: 64 << 20,
            ring_folder: None,
            log_bytes_max: 64 << 20,
            folder_bytes_max: FOLDER_BYTES_MAX,
        }
    }
}

/// What the two ends tell each other beside the ring.
pub(crate) struct Shared {
    pub(crate) synced: AtomicU64,
    pub(crate) closed: Closed,
    pub(crate) writer_gone: AtomicBool,
    /// Bytes of the folder's log files together.
    pub(crate) folder_bytes: AtomicU64,
    pub(crate) folder_bytes_max: u64,
    pub(crate) opened: Instant,
    /// Nanoseconds from `opened` on: what was appended before then is synced.
    pub(crate) synced_until: AtomicU64,
    pub(crate) ring_bytes: u64,
    /// Whether the ring is locked in memory.
    pub(crate) is_locked: bool,
}

/// Why the journal thread wants the writer to take nothing; 0 when it may, else 1 + the number of the reason.
#[derive(Default)]
pub(crate) struct Closed(AtomicU8);

impl Closed {
    pub(crate) fn set(&self, why: Option<Full>) {
        let number = why.map_or(0, |why| 1 + why as u8);
        self.0.store(number, Ordering::Release);
    }

    pub(crate) fn get(&self) -> Option<Full> {
        let number = self.0.load(Ordering::Acquire);
        let place = usize::from(number.checked_sub(1)?);
        Full::ALL.get(place).copied()
    }
}

/// Takes the folder's lock, recovers what the predecessor left in ring and log, and starts a new stream.
///
/// # Errors
/// `is_in_use` when somebody holds the folder, `is_newer_format`, that the ring folder is somebody else's, or what the disk
/// said.
///
/// # Panics
/// When `options.stream` is the stream of the folder's last open: each open needs a new one.
pub fn open(folder: &Path, options: Options) -> Result<(Writer, Flusher, Recovered), Error> {
    let lock = Arc::new(FolderLock::take(folder)?);
    let (recovered, header) = recovery::succeed(folder, options.stream)?;
    let log_bytes_max = options.log_bytes_max.min(options.folder_bytes_max / 4);
    let appender = Appender::create(folder, header, log_bytes_max)?;
    let bytes_max = options.folder_bytes_max;
    let (board, counts) = scoreboard::begin(folder, options.stream, header.ordinal, bytes_max)?;
    let ring_folder = match options.ring_folder {
        Some(ring_folder) => ring_folder,
        None => ring::default_folder(&file::parent(folder))?,
    };
    let ring_bytes = options.ring_bytes;
    let ring = ring::create(folder, &ring_folder, options.stream, ring_bytes, &counts)?;
    let shared = Arc::new(Shared {
        synced: AtomicU64::new(0),
        closed: Closed::default(),
        writer_gone: AtomicBool::new(false),
        folder_bytes: AtomicU64::new(0),
        folder_bytes_max: options.folder_bytes_max,
        opened: Instant::now(),
        synced_until: AtomicU64::new(0),
        ring_bytes: ring.bytes,
        is_locked: ring.is_locked,
    });
    let flusher = Flusher::new(
        ring.consumer,
        ring.path,
        appender,
        board,
        Arc::clone(&shared),
        Arc::clone(&lock),
    )?;
    let writer = Writer {
        stream: options.stream,
        next_sequence: 1,
        producer: ring.producer,
        shared,
        _lock: lock,
        _not_sync: PhantomData,
    };
    Ok((writer, flusher, recovered))
}

/// Why the journal takes no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The ring has no room: the disk is stalled or full.
    Ring,
    /// The folder's log files have the size they may have: nothing was shipped and deleted for long.
    Bound,
    /// The log failed twice in a row, and is tried again in a new file later.
    Poisoned,
    /// The journal could not be opened yet.
    Unopened,
}

impl Full {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Full; 4] = [Full::Ring, Full::Bound, Full::Poisoned, Full::Unopened];

    /// The metric label.
    pub fn name(self) -> &'static str {
        match self {
            Full::Ring => "ring_full",
            Full::Bound => "size_bound",
            Full::Poisoned => "poisoned",
            Full::Unopened => "unopened",
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Ring => "the journal is full: the disk is stalled or full",
            Full::Bound => "the journal has reached its size bound: its records are not shipped",
            Full::Poisoned => "the journal could not be written twice in a row: see the log",
            Full::Unopened => "the journal cannot be opened: see the log",
        })
    }
}

impl std::error::Error for Full {}

/// The worker's end: never waits for anything.
pub struct Writer {
    stream: StreamId,
    next_sequence: u64,
    producer: Producer,
    shared: Arc<Shared>,
    /// Held until both ends are gone.
    _lock: Arc<FolderLock>,
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

    /// Whether a record of this many bytes would be taken now. The ring's room only grows meanwhile; the size bound or a
    /// failed log may still come between this and the append.
    ///
    /// # Errors
    /// Why it would not.
    pub fn room(&self, payload_bytes: usize) -> Result<(), Full> {
        match self.shared.closed.get() {
            Some(why) => Err(why),
            None if self.producer.has_room(frame::frame_bytes(payload_bytes)) => Ok(()),
            None => Err(Full::Ring),
        }
    }

    /// Puts a record into the ring: once this returns, it survives the process. Returns its sequence.
    ///
    /// # Errors
    /// At once; the record is not taken and its sequence not used.
    ///
    /// # Panics
    /// When the payload is empty or longer than [`crate::PAYLOAD_BYTES_MAX`].
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, Full> {
        self.room(payload.len())?;
        let sequence = self.next_sequence;
        let head = Head::new(Kind::Record, self.stream, sequence, payload);
        if !self.producer.push(&head, payload) {
            return Err(Full::Ring);
        }
        self.next_sequence += 1;
        Ok(sequence)
    }

    /// Counts an answer that goes without its record.
    pub fn unrecorded(&self, why: Full) {
        self.unrecorded_times(why, 1);
    }

    /// Counts several.
    pub fn unrecorded_times(&self, why: Full, count: u64) {
        self.producer.unrecorded(why, count);
    }

    /// Sequence of the last record that would survive a power cut; 0 before the first sync.
    pub fn synced(&self) -> u64 {
        self.shared.synced.load(Ordering::Acquire)
    }

    /// Whether the log failed twice in a row: nothing is taken until it can be written again.
    pub fn poisoned(&self) -> bool {
        self.shared.closed.get() == Some(Full::Poisoned)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.writer_gone.store(true, Ordering::Release);
    }
}
