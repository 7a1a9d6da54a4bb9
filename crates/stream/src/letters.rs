//! Dead letters: what could not be sent, kept whole for a person to look at. Whoever sends has a folder of them, which is a
//! journal: what damage takes of it is a letter, never those beside it.
//!
//! A letter is a record of that journal: what it holds (1 byte: 1 is an edge's record, 2 a record with its envelope), the reason
//! (1), and then the stream (16) and the sequence (8, big-endian) of an edge's record before its bytes, or the envelope
//! ([`Record::encode`]).

use std::path::{Path, PathBuf};

use journal::{Log, Options, Position, Reader, StreamId};

use crate::{Error, Record, Result};

const EDGE_RECORD: u8 = 1;
const RECORD: u8 = 2;
/// Stream and sequence of an edge's record.
const IDENTITY_BYTES: usize = 16 + 8;
/// Read at once.
const READ_BYTES_MAX: usize = 1 << 20;

/// Why something could not be sent.
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

    /// Its place in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize - 1
    }
}

/// Something that could not be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Why.
    pub reason: Reason,
    /// What.
    pub content: Content,
}

/// What could not be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An edge's record, as its journal has it.
    EdgeRecord {
        /// The stream it was recorded in.
        stream: StreamId,
        /// Its number in the stream.
        sequence: u64,
        /// The encoded `EdgeRecord`.
        bytes: Vec<u8>,
    },
    /// A consumer's record.
    Record(Record),
}

impl Letter {
    fn encode(&self) -> Vec<u8> {
        match &self.content {
            Content::EdgeRecord {
                stream,
                sequence,
                bytes,
            } => {
                let head = [EDGE_RECORD, self.reason as u8];
                [&head[..], &stream.0, &sequence.to_be_bytes(), bytes].concat()
            }
            Content::Record(record) => {
                let mut bytes = vec![RECORD, self.reason as u8];
                let is_encoded = record.encode(&mut bytes);
                debug_assert!(is_encoded, "it was sent, or tried, so its key is short");
                bytes
            }
        }
    }

    /// `None` for one of a newer version.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[kind, reason], rest) = bytes.split_first_chunk()?;
        let reason = Reason::ALL
            .into_iter()
            .find(|known| *known as u8 == reason)?;
        let content = match kind {
            EDGE_RECORD => {
                let (identity, bytes) = rest.split_first_chunk::<IDENTITY_BYTES>()?;
                let (stream, sequence) = identity.split_at(16);
                Content::EdgeRecord {
                    stream: StreamId(stream.try_into().ok()?),
                    sequence: u64::from_be_bytes(sequence.try_into().ok()?),
                    bytes: bytes.to_vec(),
                }
            }
            RECORD => Content::Record(Record::decode(rest)?),
            _ => return None,
        };
        Some(Self { reason, content })
    }
}

/// What a folder of letters holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The oldest first. A crash may have repeated the last one.
    pub letters: Vec<Letter>,
    /// Letters of a newer version.
    pub unknown: u64,
    /// Bytes that were letters and are damaged.
    pub corrupt_bytes: u64,
}

/// The letters of a folder, beside whoever adds to it.
///
/// # Errors
/// The folder cannot be read.
pub fn read(folder: &Path) -> Result<Found> {
    let journal = |error| Error::journal(folder.display().to_string(), error);
    let mut reader = Reader::open(folder, Position::default()).map_err(journal)?;
    let mut found = Found::default();
    let mut entries = Vec::new();
    while reader.read(&mut entries, READ_BYTES_MAX).map_err(journal)? > 0 {
        for entry in entries.drain(..) {
            match Letter::decode(&entry.payload) {
                Some(letter) => found.letters.push(letter),
                None => found.unknown += 1,
            }
        }
    }
    found.corrupt_bytes = reader.skipped().corrupt_bytes;
    Ok(found)
}

/// Adds to a folder of letters, which is made when the first one comes.
pub struct Letters {
    folder: PathBuf,
    log: Option<Log>,
}

impl Letters {
    /// Touches nothing yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, log: None }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Durable when it returns.
    ///
    /// # Errors
    /// The folder cannot be written. Whether the letter is in it is not known: add it again.
    pub fn add(&mut self, letter: &Letter) -> Result<()> {
        let added = self.append(letter);
        if added.is_err() {
            self.log = None;
        }
        added
    }

    fn append(&mut self, letter: &Letter) -> Result<()> {
        let journal = |error| Error::journal(self.folder.display().to_string(), error);
        let log = match &mut self.log {
            Some(log) => log,
            none => {
                std::fs::create_dir_all(&self.folder)
                    .map_err(|error| Error::io(&self.folder, error))?;
                let opened = Log::open(&self.folder, Options::new(StreamId::random()));
                none.insert(opened.map_err(journal)?.0)
            }
        };
        log.append(&letter.encode()).map_err(journal)?;
        log.sync().map_err(journal)?;
        Ok(())
    }
}

impl std::fmt::Debug for Letters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Letters")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn letter(bytes: &[u8]) -> Letter {
        Letter {
            reason: Reason::Invalid,
            content: Content::EdgeRecord {
                stream: StreamId([0xaa; 16]),
                sequence: 5,
                bytes: bytes.to_vec(),
            },
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden() {
        let edge = letter(b"xyz").encode();
        assert_eq!(
            hex(&edge),
            "0102aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa000000000000000578797a"
        );
        let record = Letter {
            reason: Reason::Refused,
            content: Content::Record(Record::tombstone(StreamId([1; 16]), 2, 3, 4)),
        };
        assert_eq!(hex(&record.encode()[..5]), "0203010000");
        for letter in [letter(b"xyz"), record] {
            assert_eq!(Letter::decode(&letter.encode()), Some(letter));
        }
        for bytes in [&b""[..], b"\x01", b"\x03\x01", b"\x01\x09", b"\x02\x03\x01"] {
            assert_eq!(Letter::decode(bytes), None);
        }
    }

    #[test]
    fn one_flipped_bit_turned_a_thousand_letters_into_two() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.clicks");
        assert_eq!(read(&path).unwrap(), Found::default());
        let all: Vec<Letter> = (0..100_u32).map(|n| letter(&n.to_be_bytes())).collect();
        let mut letters = Letters::new(path.clone());
        for letter in &all {
            letters.add(letter).unwrap();
        }
        assert_eq!(read(&path).unwrap().letters, all);
        drop(letters);

        let log = path.join(format!("{:016x}.log", 1));
        let file = File::options().read(true).write(true).open(log).unwrap();
        let mut byte = [0];
        let place = file.metadata().unwrap().len() / 2;
        file.read_exact_at(&mut byte, place).unwrap();
        file.write_all_at(&[byte[0] ^ 1], place).unwrap();
        Letters::new(path.clone())
            .add(&letter(b"one more"))
            .unwrap();
        let found = read(&path).unwrap();
        assert!(found.letters.len() >= all.len(), "{}", found.letters.len());
        assert!(found.corrupt_bytes > 0);
        assert_eq!(found.letters.last(), Some(&letter(b"one more")));
    }
}
