//! A record, and the envelope it has in the embedded stream's logs.
//!
//! The envelope, big-endian, version 1:
//!
//! | version | kind | schema version | lane | origin | n | time | key length | key | value |
//! |---|---|---|---|---|---|---|---|---|---|
//! | 1 byte | 2 | 2 | 1 | 16 | 8 | 8 | 2 | | the rest |
//!
//! Length and checksum are the log's.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

pub use journal::StreamId;

/// Kind of a record whose number is known to be lost, or whose numbers are ([`Record::tombstone_of`]).
pub const TOMBSTONE: u16 = 0;

/// Kind of the last record of a stream in a partition; its value says where the stream's lanes end there ([`Record::ends`]).
pub const END: u16 = u16::MAX;

/// Kind of a message that carries no envelope of ours: somebody else wrote it to the topic. It is read and never sent.
pub const FOREIGN: u16 = u16::MAX - 1;

/// Kind of a record whose message type this version does not know by name. It is read and never sent
/// ([`Record::unknown_type`]).
pub const UNKNOWN_TYPE: u16 = u16::MAX - 2;

/// Bytes of one lane in the value of an end record.
const END_BYTES: usize = 9;

/// Most bytes of a key: its length is 16 bits.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

const ENVELOPE_VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 2 + 2 + 1 + 16 + 8 + 8 + 2;

/// One record of a topic. `(origin, topic, lane, n)` is its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What compaction and foreign readers go by.
    pub key: Vec<u8>,
    /// The message type of the value; [`TOMBSTONE`] for a lost record.
    pub kind: u16,
    /// The version of the value's schema.
    pub version: u16,
    /// The stream it was first recorded in.
    pub origin: StreamId,
    /// Records of one lane stay in order.
    pub lane: u8,
    /// 1, 2, 3 … without holes per (origin, topic, lane).
    pub n: u64,
    /// When it happened, Unix milliseconds; never backwards within (origin, topic, lane).
    pub time_ms: u64,
    /// The message.
    pub value: Vec<u8>,
}

impl Record {
    /// A record that takes the number of a lost one.
    pub fn tombstone(origin: StreamId, lane: u8, n: u64, time_ms: u64) -> Self {
        Self {
            key: Vec::new(),
            kind: TOMBSTONE,
            version: 0,
            origin,
            lane,
            n,
            time_ms,
            value: Vec::new(),
        }
    }

    /// One record that takes the numbers of several lost ones. Its value is the last of them, 8 bytes, big-endian; empty where
    /// that is its own number.
    pub fn tombstone_of(
        origin: StreamId,
        lane: u8,
        lost: RangeInclusive<u64>,
        time_ms: u64,
    ) -> Self {
        let (first, last) = lost.into_inner();
        let mut tombstone = Self::tombstone(origin, lane, first, time_ms);
        if last > first {
            tombstone.value = last.to_be_bytes().to_vec();
        }
        tombstone
    }

    /// The last number it takes: its own, except of a tombstone for several.
    pub fn last(&self) -> u64 {
        match self.value.first_chunk() {
            Some(last) if self.is_tombstone() => u64::from_be_bytes(*last).max(self.n),
            _ => self.n,
        }
    }

    /// The last records of a stream: one a partition of a topic with so many, in the first of its lanes there. `last` has the
    /// number of the last record of each lane, rising by lane. The value of an end says of each of these lanes of the partition,
    /// 9 bytes each, lane and number (big-endian), where it ends; its own lane ends with the end itself.
    ///
    /// An end has no time of its own: 0.
    pub fn ends(origin: StreamId, last: &[(u8, u64)], partitions: u16) -> Vec<Self> {
        let mut of_partitions: BTreeMap<u16, Vec<(u8, u64)>> = BTreeMap::new();
        for &(lane, n) in last {
            let partition = u16::from(lane) % partitions;
            of_partitions.entry(partition).or_default().push((lane, n));
        }
        let ends = of_partitions.into_values().map(|mut lanes| {
            let (own, n) = &mut lanes[0];
            *n += 1;
            let (own, n) = (*own, *n);
            Self {
                kind: END,
                value: encode_ends(&lanes),
                ..Self::tombstone(origin, own, n, 0)
            }
        });
        ends.collect()
    }

    /// What somebody else wrote to a partition. It has no number, so that nothing waits for it and nothing proves a topic by it.
    pub fn foreign(partition: u16, key: Vec<u8>, value: Vec<u8>) -> Self {
        // The lane is one of the partition's: the message lies where it lies.
        let lane = u8::try_from(partition).expect("a topic has at most 256 partitions");
        Self {
            key,
            kind: FOREIGN,
            value,
            ..Self::tombstone(StreamId([0; 16]), lane, 0, 0)
        }
    }

    /// A record of a message type that this version does not know: the value keeps the type's name, a zero byte and what the
    /// message held, so that a newer version understands it later.
    pub(crate) fn of_unknown_type(self, name: &str) -> Self {
        Self {
            kind: UNKNOWN_TYPE,
            value: [name.as_bytes(), b"\0", &self.value].concat(),
            ..self
        }
    }

    /// The name of the type that the reader did not know, and the message; `None` where it knew the type.
    pub fn unknown_type(&self) -> Option<(&str, &[u8])> {
        if self.kind != UNKNOWN_TYPE {
            return None;
        }
        let end = self.value.iter().position(|byte| *byte == 0)?;
        let name = std::str::from_utf8(&self.value[..end]).ok()?;
        Some((name, &self.value[end + 1..]))
    }

    /// Where the lanes of its stream end; empty where this is no end record.
    pub fn ended_lanes(&self) -> Vec<(u8, u64)> {
        if self.kind != END {
            return Vec::new();
        }
        let (ends, _) = self.value.as_chunks::<END_BYTES>();
        let ends = ends
            .iter()
            .map(|&[lane, ref n @ ..]| (lane, u64::from_be_bytes(*n)));
        ends.collect()
    }

    /// Whether this only takes the number of a lost record.
    pub fn is_tombstone(&self) -> bool {
        self.kind == TOMBSTONE
    }

    /// Appends the envelope to `bytes`; false, and nothing appended, when the key is longer than [`KEY_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self, bytes: &mut Vec<u8>) -> bool {
        let Ok(key_bytes) = u16::try_from(self.key.len()) else {
            return false;
        };
        bytes.reserve(HEAD_BYTES + self.key.len() + self.value.len());
        bytes.push(ENVELOPE_VERSION);
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend(self.version.to_be_bytes());
        bytes.push(self.lane);
        bytes.extend(self.origin.0);
        bytes.extend(self.n.to_be_bytes());
        bytes.extend(self.time_ms.to_be_bytes());
        bytes.extend(key_bytes.to_be_bytes());
        bytes.extend(&self.key);
        bytes.extend(&self.value);
        true
    }

    /// The inverse of [`Self::encode`]; `None` for another version or too few bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        if head[0] != ENVELOPE_VERSION {
            return None;
        }
        let long = |at: usize| {
            head[at..at + 8]
                .iter()
                .fold(0, |n, b| n << 8 | u64::from(*b))
        };
        let short = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let (key, value) = rest.split_at_checked(usize::from(short(38)))?;
        let mut origin = StreamId([0; 16]);
        origin.0.copy_from_slice(&head[6..22]);
        Some(Self {
            key: key.to_vec(),
            kind: short(1),
            version: short(3),
            origin,
            lane: head[5],
            n: long(22),
            time_ms: long(30),
            value: value.to_vec(),
        })
    }
}

/// The value of an end record.
pub(crate) fn encode_ends(ends: &[(u8, u64)]) -> Vec<u8> {
    let lanes = ends.iter().flat_map(|(lane, n)| {
        let mut bytes = [*lane; END_BYTES];
        bytes[1..].copy_from_slice(&n.to_be_bytes());
        bytes
    });
    lanes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_envelope() {
        let record = Record {
            key: b"ab".to_vec(),
            kind: 1,
            version: 0x0203,
            origin: StreamId([0xee; 16]),
            lane: 0xfe,
            n: 7,
            time_ms: 0x0102_0304_0506_0708,
            value: b"xyz".to_vec(),
        };
        let mut bytes = Vec::new();
        assert!(record.encode(&mut bytes));
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "0100010203feeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee0000000000000007010203040506070800026162\
             78797a"
        );
        assert_eq!(Record::decode(&bytes), Some(record));
    }

    #[test]
    fn an_unknown_type_keeps_its_name() {
        let record = Record {
            value: b"\0xyz".to_vec(),
            ..Record::tombstone(StreamId([1; 16]), 2, 3, 4)
        };
        assert_eq!(record.unknown_type(), None);
        let unknown = record.of_unknown_type("Impression");
        assert_eq!(unknown.unknown_type(), Some(("Impression", &b"\0xyz"[..])));
    }

    #[test]
    fn golden_end() {
        let ends = Record::ends(StreamId([0xee; 16]), &[(2, 6), (5, 9), (254, 0x0102)], 4);
        let hex: String = ends[1].value.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "020000000000000007fe0000000000000102");
        assert_eq!((ends[1].lane, ends[1].n, ends[1].time_ms), (2, 7, 0));
        assert_eq!(ends[1].ended_lanes(), [(2, 7), (254, 0x0102)]);
        assert_eq!((ends[0].lane, ends[0].n), (5, 10));
        assert_eq!(ends.len(), 2);
        assert_eq!(
            Record::tombstone(StreamId([1; 16]), 2, 3, 4).ended_lanes(),
            []
        );
    }

    #[test]
    fn a_tombstone_says_how_far_it_goes() {
        let stream = StreamId([1; 16]);
        for (lost, value, last) in [
            (7..=7, &[][..], 7),
            (7..=0x0109, &[0, 0, 0, 0, 0, 0, 1, 9], 0x0109),
        ] {
            let tombstone = Record::tombstone_of(stream, 2, lost, 4);
            assert_eq!((&*tombstone.value, tombstone.last()), (value, last));
        }
        let hostile = Record {
            value: vec![0; 8],
            ..Record::tombstone(stream, 2, 7, 4)
        };
        assert_eq!(hostile.last(), 7);
        let other = Record { kind: 1, ..hostile };
        assert_eq!(other.last(), 7);
    }

    #[test]
    fn refusals() {
        let mut bytes = Vec::new();
        assert!(Record::tombstone(StreamId([1; 16]), 2, 3, 4).encode(&mut bytes));
        for cut in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..cut]), None, "{cut} bytes");
        }
        bytes[0] = 2;
        assert_eq!(Record::decode(&bytes), None, "a newer version");
        let long = Record {
            key: vec![0; KEY_BYTES_MAX + 1],
            ..Record::tombstone(StreamId([1; 16]), 2, 3, 4)
        };
        bytes.clear();
        assert!(!long.encode(&mut bytes));
        assert!(bytes.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_is_encoded_decodes(key: Vec<u8>, kind: u16, version: u16, origin: [u8; 16], lane: u8, n: u64, time_ms: u64, value: Vec<u8>) {
            let record = Record { key, kind, version, origin: StreamId(origin), lane, n, time_ms, value };
            let mut bytes = Vec::new();
            prop_assert!(record.encode(&mut bytes));
            prop_assert_eq!(Record::decode(&bytes), Some(record));
        }

        #[test]
        fn hostile_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes);
        }
    }
}
