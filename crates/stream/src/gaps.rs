//! Numbers a partition's reader waits for: records came whose predecessors are missing. The sender owes them, so a gap closes
//! by itself within moments; one that stays is an alarm.

use std::collections::HashMap;

use crate::{Record, StreamId};

/// A gap as old as this is told as an error: far above any outage of a sender that is repaired by itself.
pub const GAP_ALARM_MS: u64 = 10 * 60 * 1000;

/// The gaps of one partition, at most one for each lane of a stream.
#[derive(Debug)]
pub(crate) struct Gaps {
    open: HashMap<(u8, StreamId), Open>,
    /// The least offset of a record that came early and waits; the maximum where none does.
    first: u64,
}

#[derive(Debug)]
struct Open {
    since_ms: u64,
    /// The first number that is missing.
    next: u64,
    /// The lowest and the highest number that came early.
    lowest: u64,
    highest: u64,
    /// Where the first of them lies.
    offset: u64,
    told: bool,
}

/// Numbers that are missing, though higher ones came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The lane.
    pub lane: u8,
    /// The stream.
    pub stream: StreamId,
    /// The first number that is missing.
    pub first: u64,
    /// The last before one that came.
    pub last: u64,
    /// When the gap opened, Unix milliseconds.
    pub since_ms: u64,
}

impl Default for Gaps {
    fn default() -> Self {
        Self {
            open: HashMap::new(),
            first: u64::MAX,
        }
    }
}

impl Gaps {
    /// The least offset of a record that came early and waits; the maximum where none does. Who has lost its place begins there.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// A record came early; `next` is the number its lane goes on at.
    pub(crate) fn early(&mut self, offset: u64, record: &Record, next: u64, now_ms: u64) {
        let gap = self
            .open
            .entry((record.lane, record.origin))
            .or_insert(Open {
                since_ms: now_ms,
                next,
                lowest: record.n,
                highest: record.n,
                offset,
                told: false,
            });
        gap.next = next;
        gap.lowest = gap.lowest.min(record.n);
        gap.highest = gap.highest.max(record.n);
        self.first = self.first.min(offset);
    }

    /// A record was folded. The offset to read from again, where that was a tombstone and those that wait behind it came
    /// already: whoever owed it is gone, and nobody sends them again.
    pub(crate) fn folded(&mut self, record: &Record) -> Option<u64> {
        let of = (record.lane, record.origin);
        let gap = self.open.get_mut(&of)?;
        gap.next = record.n + 1;
        // What came early comes again; how much of it is under way is not known.
        gap.lowest = gap.lowest.max(gap.next + 1).min(gap.highest);
        let waits = gap.next <= gap.highest;
        let again = (waits && record.is_tombstone()).then_some(gap.offset);
        if !waits || again.is_some() {
            self.open.remove(&of);
            let offsets = self.open.values().map(|gap| gap.offset);
            self.first = offsets.min().unwrap_or(u64::MAX);
        }
        again
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = Gap> {
        self.open.iter().map(|(&of, gap)| gap.of(of))
    }

    /// The gaps that have become too old since the last call.
    pub(crate) fn overdue(&mut self, now_ms: u64) -> Vec<Gap> {
        let mut overdue = Vec::new();
        for (&of, gap) in &mut self.open {
            if !gap.told && now_ms.saturating_sub(gap.since_ms) >= GAP_ALARM_MS {
                gap.told = true;
                overdue.push(gap.of(of));
            }
        }
        overdue
    }
}

impl Open {
    fn of(&self, (lane, stream): (u8, StreamId)) -> Gap {
        Gap {
            lane,
            stream,
            first: self.next,
            last: self.lowest - 1,
            since_ms: self.since_ms,
        }
    }
}
