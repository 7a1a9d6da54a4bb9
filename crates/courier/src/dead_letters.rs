//! `dead-letters.log`: records of a journal that could not be understood, kept whole for a person to look at.
//!
//! One after another, little-endian: length of what follows (4 bytes), version 1, reason, stream (16), sequence (8), the
//! record. A crash may repeat the last ones.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use journal::StreamId;

const VERSION: u8 = 1;

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

/// The file, made when the first dead letter comes.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    path: PathBuf,
}

impl DeadLetters {
    pub(crate) fn new(journal_folder: &Path) -> Self {
        Self {
            path: journal_folder.join("dead-letters.log"),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Durable when it returns.
    pub(crate) fn add(
        &self,
        reason: Reason,
        stream: StreamId,
        sequence: u64,
        payload: &[u8],
    ) -> std::io::Result<()> {
        let mut file = File::options().append(true).create(true).open(&self.path)?;
        file.write_all(&encode(reason, stream, sequence, payload))?;
        file.sync_all()
    }
}

fn encode(reason: Reason, stream: StreamId, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend([VERSION, reason as u8]);
    bytes.extend(stream.0);
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(payload);
    let length = u32::try_from(bytes.len() - 4).expect("a journal record is at most a MiB");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let bytes = encode(Reason::Invalid, StreamId([0xaa; 16]), 5, b"xyz");
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "1d0000000102aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa050000000000000078797a"
        );
    }
}
