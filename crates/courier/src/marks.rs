//! How far a courier is with its topic: a place in the journal, the last number of every lane there, and the totals.
//!
//! The cursor's value, version 3: version (1 byte), file (8, big-endian), offset (8), stream (16), then LEB128 varints:
//! passed, beginning (0 to 2), delivered, lost, dead by reason, and the last numbers of 256 lanes.

use domain::Topic;
use domain::shard::LANES;
use journal::{Entry, Position, StreamId};

use stream::Record;
use stream::letters::Reason;

/// The topics an edge records for; each has a courier of its own.
pub const TOPICS: [Topic; 2] = [Topic::Clicks, Topic::Postbacks];

const VERSION: u8 = 3;

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
    beginning: Beginning,
    last: Vec<u64>,
    pub(crate) totals: Totals,
}

/// Where this courier begins, or began, to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    /// Of a new cursor: in a journal whose first files are deleted.
    Late,
    /// At a journal's first record, or at a stream's.
    First,
    /// In the middle of the stream (a cursor was lost and older files are deleted): what came before was another's to send,
    /// and lanes begin where they are first met.
    Midway,
}

/// One record of the journal, as far as marks are concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) stream: StreamId,
    pub(crate) sequence: u64,
    pub(crate) ordinal: u64,
    pub(crate) next: Position,
    pub(crate) outcome: Outcome,
    /// The stream's last.
    pub(crate) is_end: bool,
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
            beginning: Beginning::Late,
            last: vec![0; LANES],
            totals: Totals::default(),
        }
    }
}

impl Marks {
    /// Whether nothing was read by it yet.
    pub(crate) fn is_new(&self) -> bool {
        self.stream == StreamId([0; 16]) && self.beginning == Beginning::Late
    }

    /// Of a new cursor: whether the journal has every file it ever had.
    pub(crate) fn begin(&mut self, is_whole: bool) {
        if is_whole {
            self.beginning = Beginning::First;
        }
    }

    /// The last number of a lane; a new stream starts at 0. `None` where that is not known.
    pub(crate) fn last(&self, entry: &Entry, lane: u8) -> Option<u64> {
        if entry.stream != self.stream {
            return (!self.is_midway(entry.sequence)).then_some(0);
        }
        let last = self.last[usize::from(lane)];
        (last > 0 || self.beginning != Beginning::Midway).then_some(last)
    }

    /// Whether another stream is met in the middle, by its first record here.
    fn is_midway(&self, sequence: u64) -> bool {
        self.is_new() && sequence > 1
    }

    /// The end records of the stream that is under way, on a topic of so many partitions; none where they were sent.
    pub(crate) fn ends(&self, partitions: u16) -> Vec<Record> {
        let lanes = (0..=u8::MAX).zip(self.last.iter().copied());
        let last: Vec<(u8, u64)> = lanes.filter(|(_, last)| *last > 0).collect();
        Record::ends(self.stream, &last, partitions)
    }

    /// Whether a record is of the stream that is under way.
    pub(crate) fn is_of(&self, stream: StreamId) -> bool {
        self.stream == stream
    }

    pub(crate) fn advance(&mut self, step: &Step) {
        if step.stream != self.stream {
            if self.is_new() {
                // Late, it was not there to lose what came before.
                self.passed = step.ordinal;
            }
            self.beginning = match self.is_midway(step.sequence) {
                true => Beginning::Midway,
                false => Beginning::First,
            };
            self.stream = step.stream;
            self.last.fill(0);
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
        if step.is_end {
            // Its ends are on their way.
            self.last.fill(0);
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
        let head = [self.passed, self.beginning as u64, delivered, lost];
        for &number in head.iter().chain(&dead).chain(&self.last) {
            prost::encoding::encode_varint(number, &mut bytes);
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (&version, mut rest) = bytes.split_first().ok_or(Unreadable::Damaged)?;
        match version {
            VERSION => {}
            newer if newer > VERSION => return Err(Unreadable::Newer(newer)),
            _ => return Err(Unreadable::Damaged),
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
        marks.passed = number()?;
        marks.beginning = match number()? {
            0 => Beginning::Late,
            1 => Beginning::First,
            2 => Beginning::Midway,
            _ => return Err(Unreadable::Damaged),
        };
        marks.totals.delivered = number()?;
        marks.totals.lost = number()?;
        for dead in &mut marks.totals.dead {
            *dead = number()?;
        }
        for last in &mut marks.last {
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

    fn step(stream: u8, ordinal: u64, outcome: Outcome) -> Step {
        Step {
            stream: StreamId([stream; 16]),
            sequence: ordinal + 1,
            ordinal,
            next: Position { file: 1, offset: 2 },
            outcome,
            is_end: outcome == Outcome::End,
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
        marks.begin(true);
        marks.advance(&step(9, 1, record(0, 1)));
        marks.advance(&step(9, 301, record(1, 300)));
        let bytes = marks.encode();
        assert_eq!(
            hex(&bytes[..44]),
            "030000000000000001000000000000000209090909090909090909090909090909\
             ae020102ac02000000\
             01ac"
        );
        assert_eq!(bytes[44], 2);
        assert_eq!(bytes[45..], [0; 254]);
        assert_eq!(Marks::decode(&bytes), Ok(marks));
    }

    #[test]
    fn the_largest_fits_a_cursor() {
        let marks = Marks {
            last: vec![u64::MAX; LANES],
            passed: u64::MAX,
            beginning: Beginning::Midway,
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
        let decode = |bytes| Marks::decode(bytes);
        assert_eq!(decode(&[]), Err(Unreadable::Damaged));
        assert_eq!(decode(&[VERSION + 1]), Err(Unreadable::Newer(VERSION + 1)));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(Unreadable::Damaged));
    }

    #[test]
    fn a_stream_that_is_met_in_the_middle_begins_there() {
        let mut marks = Marks::default();
        assert_eq!(marks.last(&entry(1, 1), 0), Some(0));
        assert_eq!(marks.last(&entry(1, 70), 0), None);
        let mut whole = Marks::default();
        whole.begin(true);
        let last = whole.last(&entry(1, 70), 0);
        assert_eq!(last, Some(0), "a hole at the very beginning");
        marks.advance(&Step {
            next: entry(1, 70).next,
            ..step(1, 69, record(0, 40))
        });
        let marks = Marks::decode(&marks.encode()).unwrap();
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
        let ends = marks.ends(4);
        assert_eq!((ends.len(), ends[0].lane, ends[0].n), (1, 0, 3));
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_not_panic(mut bytes: Vec<u8>) {
            for version in [0, 1, VERSION] {
                let _ = Marks::decode(&bytes);
                bytes.insert(0, version);
            }
        }
    }
}
