//! Walks the frames of a log file forward and finds its footing again after bad bytes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::StreamId;
use crate::file::Header;
use crate::frame::{ALIGN, FRAME_BYTES_MIN, HEAD_BYTES, Head, Kind, MARK_BYTES};

/// One read: large enough that system calls do not count, small enough for one per journal.
const READ_BYTES: usize = 256 << 10;
/// Sequences rise by one; damage may hide some. More than this at once is no damage but no frame, and is refused before
/// its checksum is worked out, so that hostile payload bytes cannot make a search through damage slow.
pub(crate) const SEQUENCE_GAP_MAX: u64 = 1 << 32;

pub(crate) struct Scanner {
    stream: StreamId,
    /// Where to look next.
    pub(crate) at: u64,
    /// Sequence of the last record found: the next one's is greater.
    pub(crate) last: u64,
    /// What was read last, its first `have` bytes, from `buffer_at` in the file on. It is not made shorter: to make it longer
    /// again costs as much as to read.
    buffer: Vec<u8>,
    have: usize,
    buffer_at: u64,
}

pub(crate) struct Found {
    pub(crate) kind: Kind,
    pub(crate) sequence: u64,
    /// Bytes that were no frame, just before this one.
    pub(crate) bad_bytes: u64,
    payload: Range<usize>,
}

impl Scanner {
    pub(crate) fn new(stream: StreamId, at: u64, last: u64) -> Scanner {
        Scanner {
            stream,
            at: at.next_multiple_of(ALIGN as u64),
            last,
            buffer: Vec::new(),
            have: 0,
            buffer_at: 0,
        }
    }

    /// Forgets what it has read ahead: the bytes may have changed since.
    pub(crate) fn forget(&mut self) {
        self.have = 0;
    }

    /// The next valid frame that ends at or before `limit`, which must not lie beyond the file's end. When there is
    /// none, `at` stays before the bytes that were no frame.
    pub(crate) fn next(&mut self, file: &File, limit: u64) -> io::Result<Option<Found>> {
        let mut at = self.at;
        while at.saturating_add(FRAME_BYTES_MIN as u64) <= limit {
            let Some(head) = self.head_at(file, at, limit)? else {
                at += ALIGN as u64;
                continue;
            };
            let found = Found {
                kind: head.kind,
                sequence: head.sequence,
                bad_bytes: at - self.at,
                payload: {
                    let start = (at - self.buffer_at) as usize + HEAD_BYTES;
                    start..start + head.payload_bytes
                },
            };
            if head.kind == Kind::Record {
                self.last = head.sequence;
            }
            self.at = at + head.frame_bytes() as u64;
            return Ok(Some(found));
        }
        Ok(None)
    }

    /// Good until the next call of `next` or `forget`.
    pub(crate) fn payload(&self, found: &Found) -> &[u8] {
        &self.buffer[found.payload.clone()]
    }

    fn head_at(&mut self, file: &File, at: u64, limit: u64) -> io::Result<Option<Head>> {
        let (stream, last) = (self.stream, self.last);
        let Some(bytes) = self.window(file, at, HEAD_BYTES, limit)? else {
            return Ok(None);
        };
        let Some(head) = Head::parse(bytes) else {
            return Ok(None);
        };
        if head.kind == Kind::Record && !follows(head.sequence, last) {
            return Ok(None);
        }
        let Some(bytes) = self.window(file, at, head.frame_bytes(), limit)? else {
            return Ok(None);
        };
        let payload = &bytes[HEAD_BYTES..HEAD_BYTES + head.payload_bytes];
        if head.kind == Kind::Mark && mark_offset(payload) > at {
            return Ok(None);
        }
        Ok(head.is_of(stream, payload).then_some(head))
    }

    /// `need` bytes at `at`, or None where the limit or the file ends before.
    fn window(
        &mut self,
        file: &File,
        at: u64,
        need: usize,
        limit: u64,
    ) -> io::Result<Option<&[u8]>> {
        if at.saturating_add(need as u64) > limit {
            return Ok(None);
        }
        let buffer_end = self.buffer_at + self.have as u64;
        if at < self.buffer_at || at + need as u64 > buffer_end {
            let want = (READ_BYTES.max(need) as u64).min(limit - at) as usize;
            if self.buffer.len() < want {
                self.buffer.resize(want, 0);
            }
            self.buffer_at = at;
            self.have = 0;
            let mut have = 0;
            while have < want {
                match file.read_at(&mut self.buffer[have..want], at + have as u64) {
                    Ok(0) => break,
                    Ok(count) => have += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.have = have;
        }
        let start = (at - self.buffer_at) as usize;
        Ok(self.buffer[..self.have].get(start..start + need))
    }
}

/// Finds the marks of a file whose stream is not known: each says whose it is.
pub(crate) struct Marks {
    scanner: Scanner,
    index: u64,
}

impl Marks {
    /// Of the file with this index.
    pub(crate) fn new(index: u64) -> Marks {
        Marks {
            scanner: Scanner::new(StreamId([0; 16]), 0, 0),
            index,
        }
    }

    /// What the next mark says that stands where it says.
    pub(crate) fn next(&mut self, file: &File, limit: u64) -> io::Result<Option<Header>> {
        while self.scanner.at.saturating_add(MARK_BYTES as u64) <= limit {
            let at = self.scanner.at;
            self.scanner.at += ALIGN as u64;
            let Some(bytes) = self.scanner.window(file, at, MARK_BYTES, limit)? else {
                return Ok(None);
            };
            let payload = &bytes[HEAD_BYTES..];
            let head = Head::parse(bytes).filter(|head| head.kind == Kind::Mark);
            if let Some(head) = head
                && mark_offset(payload) == at
            {
                let header = Header::of_mark(payload, self.index);
                if head.is_of(header.stream, payload) {
                    return Ok(Some(header));
                }
            }
        }
        Ok(None)
    }
}

/// Whether a record may come after one with sequence `last`.
pub(crate) fn follows(sequence: u64, last: u64) -> bool {
    sequence > last && sequence - last <= SEQUENCE_GAP_MAX
}

pub(crate) fn mark_offset(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().expect("8 bytes"))
}
