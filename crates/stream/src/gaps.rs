//! Numbers a partition's reader waits for: records came whose predecessors are missing. The sender owes them, so a gap closes
//! by itself within moments; one that stays is an alarm.

use std::collections::HashMap;

use crate::{Record, StreamId};

/// A gap as old as this is told as an error: far above any outage of a sender that is repaired by itself.
pub const GAP_ALARM_MS: u64 = 10 * 60 * 1000;

/// The gaps of one partition, at most one for each lane of a stream.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    open: HashMap<(u8, StreamId), Gap>,
}

#[derive(Debug)]
struct Gap {
    since_ms: u64,
    /// The first number that is missing.
    next: u64,
    /// The highest number seen; it was dropped too.
    last: u64,
    told: bool,
}

/// A gap to raise an alarm for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The lane.
    pub lane: u8,
    /// The stream.
    pub stream: StreamId,
    /// The first number that is missing.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Gaps {
    /// A record came early; `next` is the number its lane goes on at.
    pub(crate) fn early(&mut self, record: &Record, next: u64, now_ms: u64) {
        let gap = self
            .open
            .entry((record.lane, record.origin))
            .or_insert(Gap {
                since_ms: now_ms,
                next,
                last: record.n,
                told: false,
            });
        gap.next = next;
        gap.last = gap.last.max(record.n);
    }

    /// A record was folded.
    pub(crate) fn folded(&mut self, record: &Record) {
        if self.open.is_empty() {
            return;
        }
        let of = (record.lane, record.origin);
        if let Some(gap) = self.open.get_mut(&of) {
            gap.next = record.n + 1;
            if gap.next > gap.last {
                self.open.remove(&of);
            }
        }
    }

    /// When the oldest gap opened.
    pub(crate) fn oldest_ms(&self) -> Option<u64> {
        self.open.values().map(|gap| gap.since_ms).min()
    }

    /// The gaps that have become too old since the last call.
    pub(crate) fn overdue(&mut self, now_ms: u64) -> Vec<Overdue> {
        let mut overdue = Vec::new();
        for (&(lane, stream), gap) in &mut self.open {
            if !gap.told && now_ms.saturating_sub(gap.since_ms) >= GAP_ALARM_MS {
                gap.told = true;
                overdue.push(Overdue {
                    lane,
                    stream,
                    first: gap.next,
                    last: gap.last - 1,
                });
            }
        }
        overdue
    }
}
