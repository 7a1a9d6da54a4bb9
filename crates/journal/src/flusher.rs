//! The journal thread's end: from the ring to the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::Error;
use crate::frame::{HEAD_BYTES, Head};
use crate::log::Appender;
use crate::ring::Consumer;
use crate::writer::Shared;

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
}

impl Flusher {
    pub(crate) fn new(consumer: Consumer, appender: Appender, shared: Arc<Shared>) -> Flusher {
        Flusher {
            consumer,
            appender,
            shared,
        }
    }

    /// Copies what is new, syncs it, marks it, and only then gives the ring's room back. With nothing new the disk is
    /// not touched.
    ///
    /// # Errors
    /// `is_disk_full`: nothing is lost, the records stay in the ring; call again later. `is_poisoned`: two files in a row
    /// failed, the writer refuses from now on, and what is in the ring waits for the next open.
    pub fn flush(&mut self) -> Result<Flushed, Error> {
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
        if let Err(error) = self.appender.commit(frames, last_sequence) {
            self.shared
                .poisoned
                .store(self.appender.is_poisoned(), Ordering::Release);
            return Err(error);
        }
        self.consumer.release(bytes);
        self.shared.synced.store(last_sequence, Ordering::Release);
        Ok(Flushed {
            records: last_sequence - before,
            bytes,
            synced_sequence: last_sequence,
        })
    }

    /// Bytes of frames in the ring that a power cut would take.
    pub fn unsynced_bytes(&self) -> u64 {
        self.consumer.unflushed_bytes()
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
