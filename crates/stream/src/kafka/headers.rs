//! The envelope of a record in a Kafka message's headers: text, so that any reader understands it.
//!
//! | header | is |
//! |---|---|
//! | `type` | the message type of the value, e.g. `Click`; `Tombstone` takes the number of a lost record, `End` is the last of its stream in a partition |
//! | `version` | of the value's schema |
//! | `stream` | 32 hexadecimal digits: where the record was first recorded |
//! | `lane` | 0 to 255 |
//! | `n` | 1, 2, 3 … without holes per (stream, topic, lane) |
//! | `time` | when it happened, Unix milliseconds |
//! | `lock` | first 16 digits of the identity in `catalog.lock`: whose numbers are in the value |
//! | `through` | of a `Tombstone` for several lost records alone: the last of their numbers |
//! | `ends` | of an `End` alone: where the stream's lanes in the partition end, `LANE:N` and commas |
//!
//! A `Tombstone` and an `End` have an empty value, which is not null. To a reader that knows no headers it is the topic's
//! message with nothing in it, which counts nowhere; a null would delete a key of a compacted topic, and many sinks fail on it.

use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};

use crate::record::encode_ends;
use crate::{END, Record, StreamId, TOMBSTONE, UNKNOWN_TYPE};

const TYPE: &str = "type";
const VERSION: &str = "version";
const STREAM: &str = "stream";
const LANE: &str = "lane";
const N: &str = "n";
const TIME: &str = "time";
const TOMBSTONE_NAME: &str = "Tombstone";
const END_NAME: &str = "End";
const ENDS: &str = "ends";
const THROUGH: &str = "through";
const LOCK: &str = "lock";

/// What the kinds of records are called.
#[derive(Clone, Copy)]
pub struct KindNames {
    /// The name of a number.
    pub name: fn(u16) -> Option<&'static str>,
    /// The number of a name.
    pub number: fn(&str) -> Option<u16>,
}

/// `None` when the record is of a kind without a name.
pub(super) fn encode(record: &Record, identity: u64, kinds: &KindNames) -> Option<OwnedHeaders> {
    let name = match record.kind {
        TOMBSTONE => TOMBSTONE_NAME,
        END => END_NAME,
        kind => (kinds.name)(kind)?,
    };
    let mut stream = [0; 32];
    for (digits, byte) in stream.chunks_exact_mut(2).zip(record.origin.0) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
    let headers = OwnedHeaders::new_with_capacity(7)
        .insert(Header {
            key: TYPE,
            value: Some(name),
        })
        .insert(Header {
            key: STREAM,
            value: Some(&stream[..]),
        });
    let numbers = [
        (VERSION, u64::from(record.version)),
        (LANE, u64::from(record.lane)),
        (N, record.n),
        (TIME, record.time_ms),
    ];
    let headers = numbers.into_iter().fold(headers, |headers, (key, number)| {
        let mut digits = [0; 20];
        let value = decimal(number, &mut digits);
        headers.insert(Header {
            key,
            value: Some(value),
        })
    });
    let headers = match identity {
        0 => headers,
        identity => headers.insert(Header {
            key: LOCK,
            value: Some(&*format!("{identity:016x}")),
        }),
    };
    let (key, said) = match record.kind {
        TOMBSTONE if record.last() > record.n => (THROUGH, record.last().to_string()),
        END => {
            let ends = record.ended_lanes().into_iter();
            let ends: Vec<String> = ends.map(|(lane, n)| format!("{lane}:{n}")).collect();
            (ENDS, ends.join(","))
        }
        _ => return Some(headers),
    };
    Some(headers.insert(Header {
        key,
        value: Some(said.as_bytes()),
    }))
}

/// The value a message carries: none where the headers say all.
pub(super) fn value(record: &Record) -> &[u8] {
    match record.kind {
        TOMBSTONE | END => &[],
        _ => &record.value,
    }
}

/// The lanes of a header `ends`.
fn parse_ends(text: &str) -> Option<Vec<(u8, u64)>> {
    let lane = |text: &str| {
        let (lane, n) = text.split_once(':')?;
        Some((lane.parse().ok()?, n.parse().ok()?))
    };
    text.split(',').map(lane).collect()
}

/// The digits of a number, at the end of the buffer.
fn decimal(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

/// Whose record a message is; `None` where it does not say.
pub(super) fn identity(message: &BorrowedMessage<'_>) -> Option<u64> {
    let header = message
        .headers()?
        .iter()
        .find(|header| header.key == LOCK)?;
    u64::from_str_radix(std::str::from_utf8(header.value?).ok()?, 16).ok()
}

/// The record of a message; `None` when it is not one of ours.
pub(super) fn decode(message: &BorrowedMessage<'_>, kinds: &KindNames) -> Option<Record> {
    let headers = message.headers()?;
    let text = |name: &str| {
        let header = headers.iter().find(|header| header.key == name)?;
        std::str::from_utf8(header.value?).ok()
    };
    let name = text(TYPE)?;
    let kind = match name {
        TOMBSTONE_NAME => Some(TOMBSTONE),
        END_NAME => Some(END),
        name => (kinds.number)(name),
    };
    let origin: StreamId = text(STREAM)?.parse().ok()?;
    let record = Record {
        key: message.key().unwrap_or_default().to_vec(),
        kind: kind.unwrap_or(UNKNOWN_TYPE),
        version: text(VERSION)?.parse().ok()?,
        origin,
        lane: text(LANE)?.parse().ok()?,
        n: text(N)?.parse().ok()?,
        time_ms: text(TIME)?.parse().ok()?,
        value: match kind {
            Some(END) => encode_ends(&parse_ends(text(ENDS)?)?),
            Some(TOMBSTONE) => match text(THROUGH) {
                Some(through) => through.parse::<u64>().ok()?.to_be_bytes().to_vec(),
                None => Vec::new(),
            },
            _ => message.payload().unwrap_or_default().to_vec(),
        },
    };
    Some(match kind {
        Some(_) => record,
        None => record.of_unknown_type(name),
    })
}
