//! One frame: the unit of the ring and of the log.
//!
//! ```text
//! 0   u32  kind (top 4 bits) | payload bytes (low 24 bits, never 0), the bits between are 0
//! 4   u32  crc32c over: the word above, stream (16 bytes), sequence (8 bytes), payload
//! 8   u64  sequence
//! 16  …    payload, then zeros up to the next multiple of 8
//! ```
//!
//! Little endian, each frame 8-aligned in its file. The stream is not stored but is part of the checksum, so that a
//! frame is valid only in a file of its own stream: stale bytes of an earlier one can never pass for a record.
//!
//! | kind | | sequence | payload |
//! |---|---|---|---|
//! | 0 | record | its number in the stream, from 1 | the caller's bytes |
//! | 1 | mark | last synced sequence | how far the file is synced, and what its header says (`file.rs`) |

use crate::StreamId;

/// Longest payload in bytes. The edge's largest event is 64 KiB; 1 MiB leaves room for stream batches and still lets a
/// reader hold any frame in memory, and a damaged length waste no more than this.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

pub(crate) const ALIGN: usize = 8;
pub(crate) const HEAD_BYTES: usize = 16;
/// A payload is never empty, so no frame is shorter.
pub(crate) const FRAME_BYTES_MIN: usize = HEAD_BYTES + ALIGN;
pub(crate) const MARK_PAYLOAD_BYTES: usize = 40;
pub(crate) const MARK_BYTES: usize = HEAD_BYTES + MARK_PAYLOAD_BYTES;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Record,
    Mark,
}

/// A frame's first 16 bytes, plausible but not yet checked against the payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) payload_bytes: usize,
    pub(crate) sequence: u64,
    word: u32,
    crc: u32,
}

impl Head {
    /// # Panics
    /// When the payload is empty or longer than [`PAYLOAD_BYTES_MAX`]: the caller bounds what it records.
    pub(crate) fn new(kind: Kind, stream: StreamId, sequence: u64, payload: &[u8]) -> Head {
        assert!(!payload.is_empty(), "a record is never empty");
        assert!(
            payload.len() <= PAYLOAD_BYTES_MAX,
            "a record holds at most {PAYLOAD_BYTES_MAX} bytes"
        );
        let word = (kind as u32) << 28 | payload.len() as u32;
        let crc = checksum(word, stream, sequence, payload);
        Head {
            kind,
            payload_bytes: payload.len(),
            sequence,
            word,
            crc,
        }
    }

    /// None where the bytes cannot be the start of a frame.
    ///
    /// # Panics
    /// When given fewer than 16 bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Head> {
        let word = u32::from_le_bytes(bytes[0..4].try_into().expect("4 bytes"));
        let payload_bytes = (word & 0x0fff_ffff) as usize;
        if payload_bytes == 0 || payload_bytes > PAYLOAD_BYTES_MAX {
            return None;
        }
        let kind = match word >> 28 {
            0 => Kind::Record,
            1 if payload_bytes == MARK_PAYLOAD_BYTES => Kind::Mark,
            _ => return None,
        };
        let crc = u32::from_le_bytes(bytes[4..8].try_into().expect("4 bytes"));
        let sequence = u64::from_le_bytes(bytes[8..16].try_into().expect("8 bytes"));
        Some(Head {
            kind,
            payload_bytes,
            sequence,
            word,
            crc,
        })
    }

    pub(crate) fn is_of(&self, stream: StreamId, payload: &[u8]) -> bool {
        checksum(self.word, stream, self.sequence, payload) == self.crc
    }

    pub(crate) fn bytes(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[0..4].copy_from_slice(&self.word.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.crc.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    pub(crate) fn frame_bytes(&self) -> usize {
        frame_bytes(self.payload_bytes)
    }
}

pub(crate) fn frame_bytes(payload_bytes: usize) -> usize {
    HEAD_BYTES + payload_bytes.next_multiple_of(ALIGN)
}

pub(crate) fn encode(
    kind: Kind,
    stream: StreamId,
    sequence: u64,
    payload: &[u8],
    into: &mut Vec<u8>,
) {
    let head = Head::new(kind, stream, sequence, payload);
    let end = into.len() + head.frame_bytes();
    into.extend_from_slice(&head.bytes());
    into.extend_from_slice(payload);
    into.resize(end, 0);
}

fn checksum(word: u32, stream: StreamId, sequence: u64, payload: &[u8]) -> u32 {
    let mut prefix = [0; 28];
    prefix[0..4].copy_from_slice(&word.to_le_bytes());
    prefix[4..20].copy_from_slice(&stream.0);
    prefix[20..28].copy_from_slice(&sequence.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&prefix), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId(*b"0123456789abcdef");

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_record() {
        let mut bytes = Vec::new();
        encode(Kind::Record, STREAM, 7, b"click", &mut bytes);
        assert_eq!(
            hex(&bytes),
            "050000004ad9ea620700000000000000636c69636b000000"
        );
    }

    #[test]
    fn a_frame_belongs_to_its_stream_only() {
        let mut bytes = Vec::new();
        encode(Kind::Record, STREAM, 7, b"click", &mut bytes);
        let head = Head::parse(&bytes).expect("a frame");
        assert!(head.is_of(STREAM, b"click"));
        assert!(!head.is_of(StreamId([0; 16]), b"click"));
        assert!(!head.is_of(STREAM, b"clack"));
    }
}
