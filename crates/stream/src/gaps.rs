//! Numbers a topic's reader waits for: records came whose predecessors are missing. The sender owes them, so a gap closes by
//! itself within moments; one that stays is an alarm.

use std::collections::{BTreeMap, HashMap};

use crate::receipts::Missing;
use crate::{Record, StreamId};

/// A gap as old as this is told as an error: far above any outage of a sender that is repaired by itself.
pub const GAP_ALARM_MS: u64 = 10 * 60 * 1000;

/// The gaps of one topic, at most one for each lane of a stream.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    open: HashMap<(u8, StreamId), Open>,
    /// The least offset of a record that waits, of each partition that has one.
    first: BTreeMap<u16, u64>,
}

#[derive(Debug)]
struct Open {
    since_ms: u64,
    /// The first number that is missing.
    next: u64,
    /// The lowest and the highest number that something waits at.
    lowest: u64,
    highest: u64,
    /// Where the first record that waits lies, in each partition.
    waits: BTreeMap<u16, u64>,
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

impl Gaps {
    /// The least offset of a record of a partition that came early and waits; the maximum where none does. Who has lost its place
    /// begins there.
    pub(crate) fn first(&self, partition: u16) -> u64 {
        self.first.get(&partition).copied().unwrap_or(u64::MAX)
    }

    /// A record came early: so much is missing before it.
    pub(crate) fn early(
        &mut self,
        (partition, offset): (u16, u64),
        record: &Record,
        missing: &[Missing],
        now_ms: u64,
    ) {
        for missing in missing {
            let of = (missing.lane, record.origin);
            let at = missing.last.saturating_add(1);
            // A tombstone may go far beyond its own number.
            let through = match missing.lane == record.lane {
                true => record.last(),
                false => at,
            };
            let gap = self.open.entry(of).or_insert_with(|| Open {
                since_ms: now_ms,
                next: missing.first,
                lowest: at,
                highest: at,
                waits: BTreeMap::new(),
                told: false,
            });
            gap.next = missing.first;
            gap.lowest = gap.lowest.min(at);
            gap.highest = gap.highest.max(through);
            lower(&mut gap.waits, partition, offset);
        }
        lower(&mut self.first, partition, offset);
    }

    /// A record was folded.
    pub(crate) fn folded(&mut self, record: &Record) {
        if self.open.is_empty() {
            return;
        }
        let stream = record.origin;
        let mut is_closed = false;
        for (lane, _) in record.ended_lanes() {
            // Also of the others that it names nothing is missing.
            is_closed |= self.open.remove(&(lane, stream)).is_some();
        }
        let of = (record.lane, stream);
        if let Some(gap) = self.open.get_mut(&of) {
            gap.next = record.last().saturating_add(1);
            if gap.next > gap.highest {
                self.open.remove(&of);
                is_closed = true;
            }
        }
        if is_closed {
            self.look_for_first();
        }
    }

    fn look_for_first(&mut self) {
        self.first.clear();
        for (&partition, &offset) in self.open.values().flat_map(|gap| &gap.waits) {
            lower(&mut self.first, partition, offset);
        }
    }

    /// The partitions to be read again, and from where: what waits there waits for nothing any more, and whoever sent it may not
    /// send it again. It was behind a number that was given up, or in a partition that a topic has grown by.
    pub(crate) fn take_again(&mut self) -> BTreeMap<u16, u64> {
        let mut again = BTreeMap::new();
        let closed = self.open.extract_if(|_, gap| gap.next >= gap.lowest);
        for (partition, offset) in closed.flat_map(|(_, gap)| gap.waits) {
            lower(&mut again, partition, offset);
        }
        if !again.is_empty() {
            self.look_for_first();
        }
        again
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = Gap> {
        let gaps = self.open.iter().map(|(&of, gap)| gap.of(of));
        // Nothing is missing any more before what is read again.
        gaps.filter(|gap| gap.first <= gap.last)
    }

    /// The gaps that have become too old since the last call.
    pub(crate) fn overdue(&mut self, now_ms: u64) -> Vec<Gap> {
        let mut overdue = Vec::new();
        for (&of, gap) in &mut self.open {
            let is_old = now_ms.saturating_sub(gap.since_ms) >= GAP_ALARM_MS;
            if !gap.told && is_old && gap.next < gap.lowest {
                gap.told = true;
                overdue.push(gap.of(of));
            }
        }
        overdue
    }
}

/// Keeps the least offset of a partition.
fn lower(offsets: &mut BTreeMap<u16, u64>, partition: u16, offset: u64) {
    let least = offsets.entry(partition).or_insert(offset);
    *least = offset.min(*least);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Receipts, Verdict};

    /// A courier gave 3 to 9 up, which another one still had in part; the topic has grown in between.
    #[test]
    fn a_tombstone_that_waited_was_forgotten_when_its_first_number_came_from_elsewhere() {
        let stream = StreamId([3; 16]);
        let record = |n| Record {
            kind: 1,
            ..Record::tombstone(stream, 0, n, n)
        };
        let mut receipts = Receipts::default();
        let mut gaps = Gaps::default();
        assert_eq!(receipts.judge(&record(1)), Verdict::Fold);
        let lost = Record::tombstone_of(stream, 0, 3..=9, 5);
        assert_eq!(receipts.judge(&lost), Verdict::Early);
        gaps.early((1, 40), &lost, &receipts.missing(&lost), 0);
        for n in [2, 3] {
            assert_eq!(receipts.judge(&record(n)), Verdict::Fold);
            gaps.folded(&record(n));
        }
        assert_eq!((gaps.first(0), gaps.first(1)), (u64::MAX, 40));
        assert_eq!(gaps.take_again(), BTreeMap::from([(1, 40)]));
        assert_eq!(gaps.first(1), u64::MAX);
    }
}
