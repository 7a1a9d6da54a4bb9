//! The journal thread's end: from the ring to the log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::frame::{HEAD_BYTES, Head};
use crate::log::Appender;
use crate::ring::Consumer;
use crate::scoreboard::View;
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
    appender: Appender,
    shared: Arc<Shared>,
    view: View,
    size: Size,
    /// Held until both ends are gone.
    _lock: Arc<FolderLock>,
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
        appender: Appender,
        shared: Arc<Shared>,
        view: View,
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
            appender,
            shared,
            view,
            size,
            _lock: lock,
        };
        flusher.weigh();
        Ok(flusher)
    }

    /// Copies what is new, syncs it, marks it, and only then gives the ring's room back. With nothing new the disk is
    /// not touched.
    ///
    /// # Errors
    /// `is_passing`: nothing is lost, the records stay in the ring; call again later. `is_poisoned`: two files in a row
    /// failed, the writer refuses from now on, and what is in the ring waits for the next open.
    pub fn flush(&mut self) -> Result<Flushed, Error> {
        let begun = Instant::now();
        let flushed = self.copy();
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

    fn copy(&mut self) -> Result<Flushed, Error> {
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
        self.appender.commit(frames, last_sequence)?;
        self.consumer.release(bytes);
        self.shared.synced.store(last_sequence, Ordering::Release);
        Ok(Flushed {
            records: last_sequence - before,
            bytes,
            synced_sequence: last_sequence,
        })
    }

    /// Looks at what the folder has become. Where it cannot be read, what was counted stays.
    fn look(&mut self, now: Instant) {
        self.size.looked = now;
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
            view: self.view.clone(),
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
    pub(crate) fn fail_syncs(&mut self, count: u32) {
        self.appender.syncs_to_fail = count;
    }
}

/// A journal's state, for metrics: found out when asked.
#[derive(Clone)]
pub struct Gauges {
    shared: Arc<Shared>,
    view: View,
}

impl Gauges {
    /// Age of the oldest record that a power cut would take, at most one flush's interval too much; zero when there is
    /// none.
    pub fn unsynced(&self) -> Duration {
        let appended = self.view.appended();
        // A failing or stalled flush leaves both where they are, so that the age grows.
        if self.shared.synced.load(Ordering::Acquire) >= appended {
            return Duration::ZERO;
        }
        let until = Duration::from_nanos(self.shared.synced_until.load(Ordering::Acquire));
        self.shared.opened.elapsed().saturating_sub(until)
    }

    /// Whether the log failed for good.
    pub fn poisoned(&self) -> bool {
        self.shared.closed.get() == Some(Full::Poisoned)
    }

    /// Bytes of the folder's log files together; deletions are seen within a second.
    pub fn folder_bytes(&self) -> u64 {
        self.shared.folder_bytes.load(Ordering::Acquire)
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
