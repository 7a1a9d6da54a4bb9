//! The journal thread's end: from the ring to the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::frame::{HEAD_BYTES, Head};
use crate::log::Appender;
use crate::ring::{self, Consumer, Counters};
use crate::scoreboard::Board;
use crate::writer::Shared;
use crate::{Error, FolderLock, Full, file};

/// How often deletions are looked for: a look reads the folder and each file's size, which is too much for each flush, and
/// a worker that is kept closed for a second longer has been closed for hours.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What one flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Records made durable.
    pub records: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Sequence of the last durable record of the stream; 0 when there is none yet.
    pub synced_sequence: u64,
}

/// Copies new frames from the ring to the log and syncs them.
pub struct Flusher {
    consumer: Consumer,
    /// The ring's file.
    ring: PathBuf,
    appender: Appender,
    board: Board,
    shared: Arc<Shared>,
    size: Size,
    /// Held until both ends are gone.
    _lock: Arc<FolderLock>,
    /// Its process died.
    #[cfg(test)]
    is_killed: bool,
}

/// What the folder's log files have come to.
struct Size {
    /// At the last look.
    seen: u64,
    /// What the appender had written then.
    written: u64,
    looked: Instant,
    level: Level,
}

/// Each is told once when it is reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Level {
    Low,
    /// Four fifths of the bound: somebody should look before clicks are lost.
    High,
    AtBound,
}

impl Flusher {
    pub(crate) fn new(
        consumer: Consumer,
        ring: PathBuf,
        appender: Appender,
        board: Board,
        shared: Arc<Shared>,
        lock: Arc<FolderLock>,
    ) -> Result<Flusher, Error> {
        let size = Size {
            seen: file::folder_bytes(appender.folder())?,
            written: appender.bytes_written(),
            looked: shared.opened,
            level: Level::Low,
        };
        let mut flusher = Flusher {
            consumer,
            ring,
            appender,
            board,
            shared,
            size,
            _lock: lock,
            #[cfg(test)]
            is_killed: false,
        };
        flusher.weigh();
        Ok(flusher)
    }

    /// Copies what is new, syncs it, marks it, and only then gives the ring's room back. With nothing new the disk is
    /// not touched.
    ///
    /// # Errors
    /// Nothing is lost, the records stay in the ring; call again later. `is_poisoned`: two files in a row failed, and the
    /// writer refuses until a later call, in 1, 2 … 60 seconds, finds that a new file can be written.
    pub fn flush(&mut self) -> Result<Flushed, Error> {
        self.flush_at(Instant::now())
    }

    pub(crate) fn flush_at(&mut self, begun: Instant) -> Result<Flushed, Error> {
        let flushed = self.copy(begun);
        if flushed.is_ok() {
            // The copy took all that was in the ring when it began.
            let until = begun.saturating_duration_since(self.shared.opened);
            let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
            self.shared.synced_until.store(until, Ordering::Release);
        }
        if begun.saturating_duration_since(self.size.looked) >= LOOK_EVERY {
            self.look(begun);
        }
        self.weigh();
        flushed
    }

    fn copy(&mut self, now: Instant) -> Result<Flushed, Error> {
        let frames = self.consumer.unflushed();
        let bytes = (frames[0].len() + frames[1].len()) as u64;
        let before = self.appender.synced_sequence();
        if bytes == 0 {
            return Ok(Flushed {
                records: 0,
                bytes: 0,
                synced_sequence: before,
            });
        }
        let last_sequence = last_sequence(frames);
        self.appender.commit(frames, last_sequence, now)?;
        self.consumer.release(bytes);
        self.shared.synced.store(last_sequence, Ordering::Release);
        Ok(Flushed {
            records: last_sequence - before,
            bytes,
            synced_sequence: last_sequence,
        })
    }

    /// Looks at what the folder has become, and copies what the worker counted. Where it cannot be read, what was known
    /// stays; a copy that failed is made at the next look.
    fn look(&mut self, now: Instant) {
        self.size.looked = now;
        let _ = self.board.copy(&self.consumer.counters().counts());
        if let Ok(bytes) = file::folder_bytes(self.appender.folder()) {
            self.size.seen = bytes;
            self.size.written = self.appender.bytes_written();
        }
    }

    /// Tells the writer and whoever watches what the log's state means for them.
    fn weigh(&mut self) {
        let bytes = self.size.seen + (self.appender.bytes_written() - self.size.written);
        let bytes_max = self.shared.folder_bytes_max;
        let level = match bytes {
            _ if bytes >= bytes_max => Level::AtBound,
            _ if bytes >= bytes_max / 5 * 4 => Level::High,
            _ => Level::Low,
        };
        if level > self.size.level {
            let folder = self.appender.folder().display();
            match level {
                Level::AtBound => {
                    tracing::error!(%folder, bytes, bytes_max, "journal has reached its size bound and takes no records until some are shipped");
                }
                _ => {
                    tracing::warn!(%folder, bytes, bytes_max, "journal has passed 80 % of its size bound: are its records shipped?");
                }
            }
        }
        self.size.level = level;
        self.shared.folder_bytes.store(bytes, Ordering::Release);
        self.shared.closed.set(match level {
            _ if self.appender.is_poisoned() => Some(Full::Poisoned),
            Level::AtBound => Some(Full::Bound),
            _ => None,
        });
    }

    /// What others may watch, as long as they like.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            shared: Arc::clone(&self.shared),
            counters: self.consumer.counters(),
        }
    }

    /// Bytes of frames in the ring that a power cut would take.
    pub fn unsynced_bytes(&self) -> u64 {
        self.consumer.unflushed_bytes()
    }

    /// The journal's folder.
    pub fn folder(&self) -> &Path {
        self.appender.folder()
    }

    /// Whether the writer was dropped: after one more flush nothing will come.
    pub fn writer_gone(&self) -> bool {
        self.shared.writer_gone.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(crate) fn kill(mut self) {
        self.is_killed = true;
    }

    #[cfg(test)]
    pub(crate) fn fail_syncs(&mut self, count: u32) {
        self.appender.syncs_to_fail = count;
    }

    #[cfg(test)]
    pub(crate) fn syncs_to_fail(&self) -> u32 {
        self.appender.syncs_to_fail
    }
}

/// After a writer that ended in good order nothing of its ring is needed: its memory is given back. Anything else is the next
/// owner's to save.
impl Drop for Flusher {
    fn drop(&mut self) {
        #[cfg(test)]
        if self.is_killed {
            return;
        }
        if !self.writer_gone() || self.consumer.unflushed_bytes() > 0 {
            return;
        }
        let counts = self.consumer.counters().counts();
        let copied = self.board.copy(&counts).and_then(|()| self.board.sync());
        if copied.is_ok() {
            let _ = ring::remove(self.appender.folder(), &self.ring);
        }
    }
}

/// A journal's state, for metrics: found out when asked.
#[derive(Clone)]
pub struct Gauges {
    shared: Arc<Shared>,
    counters: Counters,
}

impl Gauges {
    /// Age of the oldest record that a power cut would take, at most one flush's interval too much; zero when there is
    /// none.
    pub fn unsynced(&self) -> Duration {
        let appended = self.counters.appended();
        // A failing or stalled flush leaves both where they are, so that the age grows.
        if self.shared.synced.load(Ordering::Acquire) >= appended {
            return Duration::ZERO;
        }
        let until = Duration::from_nanos(self.shared.synced_until.load(Ordering::Acquire));
        self.shared.opened.elapsed().saturating_sub(until)
    }

    /// Whether the log failed twice in a row and waits to be tried again.
    pub fn poisoned(&self) -> bool {
        self.shared.closed.get() == Some(Full::Poisoned)
    }

    /// Bytes of the folder's log files together; deletions are seen within a second.
    pub fn folder_bytes(&self) -> u64 {
        self.shared.folder_bytes.load(Ordering::Acquire)
    }

    /// Size of the ring.
    pub fn ring_bytes(&self) -> u64 {
        self.shared.ring_bytes
    }

    /// Whether the ring is locked in memory.
    pub fn is_locked(&self) -> bool {
        self.shared.is_locked
    }

    /// The bytes at which the journal takes nothing more.
    pub fn folder_bytes_max(&self) -> u64 {
        self.shared.folder_bytes_max
    }
}

/// Walks whole frames from head to head.
fn last_sequence(frames: [&[u8]; 2]) -> u64 {
    let [first, second] = frames;
    let total = first.len() + second.len();
    let (mut at, mut last) = (0, 0);
    while at < total {
        let mut bytes = [0; HEAD_BYTES];
        for (offset, byte) in bytes.iter_mut().enumerate() {
            let from = at + offset;
            *byte = if from < first.len() {
                first[from]
            } else {
                second[from - first.len()]
            };
        }
        let head = Head::parse(&bytes).expect("the ring holds whole frames");
        last = head.sequence;
        at += head.frame_bytes();
    }
    last
}
