//! Dead letters: records of a journal that could not be shipped, kept whole for a person to look at, a file a courier.
//!
//! One after another, little-endian: length of what follows (4 bytes), version 1, reason, stream (16), sequence (8), the
//! record. A crash may repeat the last ones; what it left half written is written over.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use journal::StreamId;

const VERSION: u8 = 1;
/// Of the length.
const LENGTH_BYTES: usize = 4;
/// Version, reason, stream, sequence.
const HEAD_BYTES: usize = 1 + 1 + 16 + 8;

/// Why a record could not be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// It is no `EdgeRecord`.
    Undecodable = 1,
    /// Its topic, lane, number or event do not fit together.
    Invalid = 2,
    /// The stream refuses it for itself, by its size for instance.
    Refused = 3,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Undecodable, Self::Invalid, Self::Refused];

    /// The metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize - 1
    }
}

/// A record that could not be shipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Why.
    pub reason: Reason,
    /// The stream it was recorded in.
    pub stream: StreamId,
    /// Its number in the stream.
    pub sequence: u64,
    /// The record.
    pub payload: Vec<u8>,
}

/// The letters of a file, the oldest first; what a crash left half written at its end is left out.
///
/// # Errors
/// The file cannot be read, or was written by a newer version.
pub fn read(path: &Path) -> io::Result<Vec<Letter>> {
    let bytes = std::fs::read(path)?;
    let mut letters = Vec::new();
    let mut rest = &bytes[..];
    while let Some((letter, after)) = decode(rest) {
        letters.push(letter.ok_or_else(|| {
            io::Error::other("it holds a letter of a newer version or none of ours")
        })?);
        rest = after;
    }
    Ok(letters)
}

/// A courier's file, made when the first dead letter comes.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    path: PathBuf,
    /// Where the next letter goes, once the file has been looked at.
    end: Option<u64>,
}

impl DeadLetters {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            end: None,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Durable when it returns; on an error nothing was added.
    pub(crate) fn add(&mut self, letter: &Letter) -> io::Result<()> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)?;
        let end = match self.end {
            Some(end) => end,
            None => {
                if let Some(folder) = self.path.parent() {
                    File::open(folder)?.sync_all()?;
                }
                whole_bytes(&std::fs::read(&self.path)?)
            }
        };
        let bytes = encode(letter);
        file.write_all_at(&bytes, end)?;
        // A longer one that was left half written before.
        file.set_len(end + bytes.len() as u64)?;
        file.sync_all()?;
        self.end = Some(end + bytes.len() as u64);
        Ok(())
    }
}

/// Bytes of the whole letters a file begins with.
fn whole_bytes(bytes: &[u8]) -> u64 {
    let mut rest = bytes;
    while let Some((_, after)) = decode(rest) {
        rest = after;
    }
    (bytes.len() - rest.len()) as u64
}

/// The first letter and what comes after it; the letter is `None` where it is not one of this version.
fn decode(bytes: &[u8]) -> Option<(Option<Letter>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let (body, after) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let letter = body
        .split_first_chunk::<HEAD_BYTES>()
        .and_then(|(head, payload)| {
            let reason = Reason::ALL
                .into_iter()
                .find(|reason| *reason as u8 == head[1]);
            let stream = head[2..18].try_into().expect("16 bytes");
            let sequence = head[18..].try_into().expect("8 bytes");
            (head[0] == VERSION).then_some(Letter {
                reason: reason?,
                stream: StreamId(stream),
                sequence: u64::from_le_bytes(sequence),
                payload: payload.to_vec(),
            })
        });
    Some((letter, after))
}

fn encode(letter: &Letter) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH_BYTES];
    bytes.extend([VERSION, letter.reason as u8]);
    bytes.extend(letter.stream.0);
    bytes.extend(letter.sequence.to_le_bytes());
    bytes.extend(&letter.payload);
    let length = bytes.len() - LENGTH_BYTES;
    let length = u32::try_from(length).expect("a journal record is at most a MiB");
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: &[u8]) -> Letter {
        Letter {
            reason: Reason::Invalid,
            stream: StreamId([0xaa; 16]),
            sequence: 5,
            payload: payload.to_vec(),
        }
    }

    #[test]
    fn golden() {
        let bytes = encode(&letter(b"xyz"));
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "1d0000000102aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa050000000000000078797a"
        );
        assert_eq!(decode(&bytes), Some((Some(letter(b"xyz")), &[][..])));
    }

    #[test]
    fn what_was_left_half_written_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let mut letters = DeadLetters::new(&path);
        letters.add(&letter(b"one")).unwrap();
        letters.add(&letter(b"two")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let kept = read(&path).unwrap().len();
            DeadLetters::new(&path).add(&letter(b"3")).unwrap();
            let found = read(&path).unwrap();
            assert_eq!((found.len(), &found[kept]), (kept + 1, &letter(b"3")));
        }
        let mut newer = whole.clone();
        newer[LENGTH_BYTES] = VERSION + 1;
        std::fs::write(&path, newer).unwrap();
        assert!(read(&path).is_err());
    }
}
