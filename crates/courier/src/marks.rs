//! How far a courier is: a place in the journal, the last number of every lane there, and the totals.
//!
//! The cursor's value, version 1: version (1 byte), file (8, big-endian), offset (8), stream (16), then LEB128 varints:
//! delivered, lost, dead by reason, unplaced, and the last numbers of 256 lanes of clicks and of 256 lanes of postbacks.

use domain::Topic;
use domain::shard::LANES;
use journal::{Position, StreamId};

use crate::dead_letters::Reason;

/// The topics an edge records for, in the order of the cursor's value.
pub(crate) const TOPICS: [Topic; 2] = [Topic::Clicks, Topic::Postbacks];

const VERSION: u8 = 1;

/// Counts since the journal folder was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// Records the stream acknowledged.
    pub(crate) delivered: u64,
    /// Numbers that are not in the journal.
    pub(crate) lost: u64,
    /// Records in the dead-letter file, by reason.
    pub(crate) dead: [u64; Reason::ALL.len()],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) position: Position,
    stream: StreamId,
    last: [Vec<u64>; TOPICS.len()],
    /// Dead records of this stream whose numbers have not shown as holes yet.
    unplaced: u64,
    pub(crate) totals: Totals,
}

/// One record of the journal, as far as marks are concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) stream: StreamId,
    pub(crate) next: Position,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    Record { topic: usize, lane: u8, n: u64 },
    Dead(Reason),
}

/// Why marks could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    Newer(u8),
    Damaged,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            position: Position::default(),
            stream: StreamId([0; 16]),
            last: [vec![0; LANES], vec![0; LANES]],
            unplaced: 0,
            totals: Totals::default(),
        }
    }
}

impl Marks {
    /// The last number of a lane; a new stream starts at 0.
    pub(crate) fn last(&self, stream: StreamId, topic: usize, lane: u8) -> u64 {
        if stream == self.stream {
            self.last[topic][usize::from(lane)]
        } else {
            0
        }
    }

    pub(crate) fn advance(&mut self, step: &Step) {
        if step.stream != self.stream {
            self.stream = step.stream;
            self.unplaced = 0;
            for lanes in &mut self.last {
                lanes.fill(0);
            }
        }
        self.position = step.next;
        match step.outcome {
            Outcome::Record { topic, lane, n } => {
                let last = &mut self.last[topic][usize::from(lane)];
                let holes = n.saturating_sub(*last + 1);
                // After a power cut the journal may hold again what was acknowledged before it.
                self.totals.delivered += u64::from(n > *last);
                *last = n.max(*last);
                // A dead record is counted once: its number, when it shows as a hole, is not lost as well.
                let placed = holes.min(self.unplaced);
                self.unplaced -= placed;
                self.totals.lost += holes - placed;
            }
            Outcome::Dead(reason) => {
                self.totals.dead[reason.index()] += 1;
                self.unplaced += 1;
            }
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.position.file.to_be_bytes());
        bytes.extend(self.position.offset.to_be_bytes());
        bytes.extend(self.stream.0);
        let Totals {
            delivered,
            lost,
            dead,
        } = self.totals;
        let head = [delivered, lost];
        let head = head.iter().chain(&dead).chain([&self.unplaced]);
        for &number in head.chain(self.last.iter().flatten()) {
            prost::encoding::encode_varint(number, &mut bytes);
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (&version, mut rest) = bytes.split_first().ok_or(Unreadable::Damaged)?;
        if version != VERSION {
            return Err(Unreadable::Newer(version));
        }
        let fixed = rest.split_off(..32).ok_or(Unreadable::Damaged)?;
        let long = |at: usize| {
            fixed[at..at + 8]
                .iter()
                .fold(0, |n, b| n << 8 | u64::from(*b))
        };
        let mut stream = StreamId([0; 16]);
        stream.0.copy_from_slice(&fixed[16..]);
        let mut marks = Self {
            position: Position {
                file: long(0),
                offset: long(8),
            },
            stream,
            ..Self::default()
        };
        let mut number =
            || prost::encoding::decode_varint(&mut rest).map_err(|_| Unreadable::Damaged);
        marks.totals.delivered = number()?;
        marks.totals.lost = number()?;
        for dead in &mut marks.totals.dead {
            *dead = number()?;
        }
        marks.unplaced = number()?;
        for last in marks.last.iter_mut().flatten() {
            *last = number()?;
        }
        if rest.is_empty() {
            Ok(marks)
        } else {
            Err(Unreadable::Damaged)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step(stream: u8, outcome: Outcome) -> Step {
        Step {
            stream: StreamId([stream; 16]),
            next: Position { file: 1, offset: 2 },
            outcome,
        }
    }

    fn record(lane: u8, n: u64) -> Outcome {
        Outcome::Record { topic: 0, lane, n }
    }

    #[test]
    fn golden() {
        let mut marks = Marks::default();
        for (stream, outcome) in [(9, record(0, 1)), (9, record(1, 300))] {
            marks.advance(&step(stream, outcome));
        }
        let bytes = marks.encode();
        let hex: String = bytes[..42].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "010000000000000001000000000000000209090909090909090909090909090909\
             02ab0200000000\
             01ac"
        );
        assert_eq!(bytes[42], 2);
        assert_eq!(bytes[43..], [0; 510]);
    }

    #[test]
    fn the_largest_fits_a_cursor() {
        let full = vec![u64::MAX; LANES];
        let marks = Marks {
            last: [full.clone(), full],
            unplaced: u64::MAX,
            totals: Totals {
                delivered: u64::MAX,
                lost: u64::MAX,
                dead: [u64::MAX; 3],
            },
            ..Marks::default()
        };
        assert!(marks.encode().len() <= journal::CURSOR_BYTES_MAX);
        assert_eq!(Marks::decode(&marks.encode()), Ok(marks));
    }

    #[test]
    fn refusals() {
        let bytes = Marks::default().encode();
        assert_eq!(Marks::decode(&[]), Err(Unreadable::Damaged));
        assert_eq!(Marks::decode(&[2]), Err(Unreadable::Newer(2)));
        assert_eq!(
            Marks::decode(&bytes[..bytes.len() - 1]),
            Err(Unreadable::Damaged)
        );
    }

    #[test]
    fn a_dead_record_is_not_lost_as_well() {
        let mut marks = Marks::default();
        for (stream, outcome) in [
            (1, record(0, 1)),
            (1, Outcome::Dead(Reason::Undecodable)),
            (1, record(0, 4)),
            (2, record(0, 2)),
        ] {
            marks.advance(&step(stream, outcome));
        }
        assert_eq!(
            marks.totals,
            Totals {
                delivered: 3,
                lost: 2,
                dead: [1, 0, 0]
            }
        );
        assert_eq!(marks.last(StreamId([2; 16]), 0, 0), 2);
        assert_eq!(marks.last(StreamId([1; 16]), 0, 0), 0);
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_not_panic(mut bytes: Vec<u8>) {
            let _ = Marks::decode(&bytes);
            bytes.insert(0, VERSION);
            let _ = Marks::decode(&bytes);
        }
    }
}
