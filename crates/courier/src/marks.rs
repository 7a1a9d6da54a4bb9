//! How far a courier is with its topic: a place in the journal, the last number of every lane there, and the totals.
//!
//! The cursor's value, version 2: version (1 byte), file (8, big-endian), offset (8), stream (16), then LEB128 varints:
//! passed, midway (0 or 1), delivered, lost, dead by reason, and the last numbers of 256 lanes.
//!
//! Version 1 was of both topics at once: no passed and midway, a number that is not used any more before the lanes, and 256 lanes of
//! clicks before 256 of postbacks.

use domain::Topic;
use domain::shard::LANES;
use journal::{Entry, Position, StreamId};

use crate::dead_letters::Reason;

/// The topics an edge records for; each has a courier of its own.
pub const TOPICS: [Topic; 2] = [Topic::Clicks, Topic::Postbacks];

const VERSION: u8 = 2;

/// Counts since the journal folder was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// Records the stream acknowledged.
    pub(crate) delivered: u64,
    /// Records of any topic that are not in the journal, though others have numbers behind theirs.
    pub(crate) lost: u64,
    /// Records in the dead-letter file, by reason.
    pub(crate) dead: [u64; Reason::ALL.len()],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) position: Position,
    stream: StreamId,
    /// The ordinal after the last record passed, whatever its topic; 0 where that is not known.
    passed: u64,
    /// This courier began in the middle of the stream (a cursor was lost and older files are deleted): what came before was
    /// another's to send, and lanes begin where they are first met.
    midway: bool,
    last: Vec<u64>,
    pub(crate) totals: Totals,
}

/// One record of the journal, as far as marks are concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) stream: StreamId,
    pub(crate) sequence: u64,
    pub(crate) ordinal: u64,
    pub(crate) next: Position,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Record {
        lane: u8,
        n: u64,
    },
    Dead(Reason),
    /// The stream's end, where this courier is the one that counts it.
    End,
    /// Another courier counts it.
    Other,
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
            passed: 0,
            midway: false,
            last: vec![0; LANES],
            totals: Totals::default(),
        }
    }
}

impl Marks {
    /// The last number of a lane; a new stream starts at 0. `None` where that is not known.
    pub(crate) fn last(&self, entry: &Entry, lane: u8) -> Option<u64> {
        if entry.stream != self.stream {
            return (!self.is_midway(entry.sequence, entry.next)).then_some(0);
        }
        let last = self.last[usize::from(lane)];
        (last > 0 || !self.midway).then_some(last)
    }

    /// Whether a stream is met in the middle, by its first record here: not where the folder's first file is still there.
    fn is_midway(&self, sequence: u64, next: Position) -> bool {
        self.stream == StreamId([0; 16]) && sequence > 1 && next.file > 1
    }

    /// The lanes that a stream has records of, each with the number of its end.
    pub(crate) fn ends(&self, stream: StreamId) -> Vec<(u8, u64)> {
        if stream != self.stream {
            return Vec::new();
        }
        let lanes = (0..=u8::MAX).zip(&self.last);
        lanes
            .filter(|(_, last)| **last > 0)
            .map(|(lane, last)| (lane, last + 1))
            .collect()
    }

    pub(crate) fn advance(&mut self, step: &Step) {
        if step.stream != self.stream {
            self.midway = self.is_midway(step.sequence, step.next);
            self.stream = step.stream;
            self.last.fill(0);
        }
        if self.passed == 0 {
            // Where this courier began, it was not there to lose what came before.
            self.passed = step.ordinal;
        }
        self.totals.lost += step.ordinal.saturating_sub(self.passed);
        // After a power cut the journal may hold again what was passed before it.
        let new = step.ordinal >= self.passed;
        self.passed = self.passed.max(step.ordinal + 1);
        self.position = step.next;
        match step.outcome {
            Outcome::Record { lane, n } => {
                let last = &mut self.last[usize::from(lane)];
                *last = n.max(*last);
                self.totals.delivered += u64::from(new);
            }
            Outcome::Dead(reason) => self.totals.dead[reason.index()] += u64::from(new),
            Outcome::End => self.totals.delivered += u64::from(new),
            Outcome::Other => {}
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
        let head = [self.passed, u64::from(self.midway), delivered, lost];
        for &number in head.iter().chain(&dead).chain(&self.last) {
            prost::encoding::encode_varint(number, &mut bytes);
        }
        bytes
    }

    /// Of a topic.
    pub(crate) fn decode(bytes: &[u8], topic: Topic) -> Result<Self, Unreadable> {
        let (&version, mut rest) = bytes.split_first().ok_or(Unreadable::Damaged)?;
        if version > VERSION {
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
        if version > 1 {
            marks.passed = number()?;
            marks.midway = number()? != 0;
        }
        marks.totals.delivered = number()?;
        marks.totals.lost = number()?;
        for dead in &mut marks.totals.dead {
            *dead = number()?;
        }
        if version == 1 {
            number()?;
            let mut last = [vec![0; LANES], vec![0; LANES]];
            for last in last.iter_mut().flatten() {
                *last = number()?;
            }
            let [clicks, postbacks] = last;
            marks.last = match topic {
                Topic::Postbacks => postbacks,
                _ => clicks,
            };
            // They were of both topics; they are told once.
            if topic != TOPICS[0] {
                marks.totals = Totals::default();
            }
        } else {
            for last in &mut marks.last {
                *last = number()?;
            }
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

    fn step(stream: u8, ordinal: u64, outcome: Outcome) -> Step {
        Step {
            stream: StreamId([stream; 16]),
            sequence: ordinal + 1,
            ordinal,
            next: Position { file: 1, offset: 2 },
            outcome,
        }
    }

    fn entry(stream: u8, sequence: u64) -> Entry {
        Entry {
            stream: StreamId([stream; 16]),
            sequence,
            ordinal: 0,
            payload: Vec::new(),
            next: Position { file: 3, offset: 2 },
        }
    }

    fn record(lane: u8, n: u64) -> Outcome {
        Outcome::Record { lane, n }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn golden() {
        let mut marks = Marks::default();
        marks.advance(&step(9, 1, record(0, 1)));
        marks.advance(&step(9, 301, record(1, 300)));
        let bytes = marks.encode();
        assert_eq!(
            hex(&bytes[..44]),
            "020000000000000001000000000000000209090909090909090909090909090909\
             ae020002ab02000000\
             01ac"
        );
        assert_eq!(bytes[44], 2);
        assert_eq!(bytes[45..], [0; 254]);
        assert_eq!(Marks::decode(&bytes, Topic::Clicks), Ok(marks));
    }

    #[test]
    fn the_version_before_is_read() {
        let mut bytes = vec![1];
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        bytes.extend([9; 16]);
        // delivered, lost, dead by reason, unplaced
        bytes.extend([7, 1, 2, 0, 0, 0]);
        bytes.extend([5].repeat(LANES));
        bytes.extend([6].repeat(LANES));
        for (topic, last, delivered, dead) in
            [(Topic::Clicks, 5, 7, 2), (Topic::Postbacks, 6, 0, 0)]
        {
            let mut marks = Marks::decode(&bytes, topic).unwrap();
            assert_eq!(marks.position, Position { file: 1, offset: 2 });
            assert_eq!(marks.last(&entry(9, 7), 3), Some(last));
            assert_eq!(
                (marks.totals.delivered, marks.totals.dead[0]),
                (delivered, dead)
            );
            let lost = marks.totals.lost;
            marks.advance(&step(9, 1000, record(3, last + 1)));
            assert_eq!(marks.totals.lost, lost, "it does not know what came before");
        }
        bytes.pop();
        assert_eq!(
            Marks::decode(&bytes, Topic::Clicks),
            Err(Unreadable::Damaged)
        );
    }

    #[test]
    fn the_largest_fits_a_cursor() {
        let marks = Marks {
            last: vec![u64::MAX; LANES],
            passed: u64::MAX,
            midway: true,
            totals: Totals {
                delivered: u64::MAX,
                lost: u64::MAX,
                dead: [u64::MAX; 3],
            },
            ..Marks::default()
        };
        assert!(marks.encode().len() <= journal::CURSOR_BYTES_MAX);
        assert_eq!(Marks::decode(&marks.encode(), Topic::Clicks), Ok(marks));
    }

    #[test]
    fn refusals() {
        let bytes = Marks::default().encode();
        let decode = |bytes| Marks::decode(bytes, Topic::Clicks);
        assert_eq!(decode(&[]), Err(Unreadable::Damaged));
        assert_eq!(decode(&[3]), Err(Unreadable::Newer(3)));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(Unreadable::Damaged));
    }

    #[test]
    fn a_stream_that_is_met_in_the_middle_begins_there() {
        let mut marks = Marks::default();
        assert_eq!(marks.last(&entry(1, 1), 0), Some(0));
        assert_eq!(marks.last(&entry(1, 70), 0), None);
        let first = Entry {
            next: Position { file: 1, offset: 2 },
            ..entry(1, 70)
        };
        assert_eq!(
            marks.last(&first, 0),
            Some(0),
            "a hole at the very beginning"
        );
        marks.advance(&Step {
            next: entry(1, 70).next,
            ..step(1, 69, record(0, 40))
        });
        let marks = Marks::decode(&marks.encode(), Topic::Clicks).unwrap();
        assert_eq!(marks.last(&entry(1, 71), 0), Some(40));
        assert_eq!(marks.last(&entry(1, 71), 1), None);
        // The next one begins at its beginning, though its first records may be lost.
        assert_eq!(marks.last(&entry(2, 3), 1), Some(0));
    }

    #[test]
    fn every_record_is_counted_once_and_every_missing_one_is_lost() {
        let mut marks = Marks::default();
        for (stream, sequence, outcome) in [
            // What came before its beginning was never its to lose.
            (1, 5, record(0, 1)),
            (1, 6, Outcome::Other),
            (1, 8, Outcome::Dead(Reason::Undecodable)),
            (1, 9, record(0, 4)),
            (1, 8, Outcome::Dead(Reason::Undecodable)),
            (1, 9, record(0, 4)),
            (1, 10, Outcome::End),
            (2, 13, record(0, 2)),
        ] {
            marks.advance(&step(stream, sequence, outcome));
        }
        assert_eq!(
            marks.totals,
            Totals {
                delivered: 4,
                lost: 3,
                dead: [1, 0, 0]
            }
        );
        assert_eq!(marks.ends(StreamId([2; 16])), [(0, 3)]);
        assert_eq!(marks.ends(StreamId([1; 16])), []);
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_not_panic(mut bytes: Vec<u8>) {
            for version in [0, 1, VERSION] {
                let _ = Marks::decode(&bytes, Topic::Postbacks);
                bytes.insert(0, version);
            }
        }
    }
}
