//! Bytes of any kind through what reads files: the entry of the fuzz target in `fuzz/`, and of the test that replays its
//! corpus.
//!
//! Bytes alone would never get past a checksum, so the input is a small program that writes a file: valid pieces, raw ones,
//! and damage to both. Where it ends, zeros follow.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::cursor::{self, Cursor};
use crate::file::Header;
use crate::frame::{self, ALIGN, HEAD_BYTES, Kind, PAYLOAD_BYTES_MAX};
use crate::scanner::{Scanner, follows, mark_offset};
use crate::{CURSOR_BYTES_MAX, StreamId};

const STREAM: StreamId = StreamId([0x5a; 16]);
/// Longest file that is written: more than one read of the scanner, and still thousands of files a second.
const FILE_BYTES_MAX: usize = 512 << 10;

/// Writes the file that `program` describes and reads it. Returns how many frames, or values of a cursor, were in it.
///
/// # Panics
/// Where the reader breaks its word.
pub fn frame(program: &[u8]) -> usize {
    let mut program = Program(program);
    if program.byte().is_multiple_of(2) {
        scan(&frames(&mut program))
    } else {
        open_cursor(&slots(&mut program))
    }
}

struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn byte(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        bytes
    }

    /// As many bytes as the next number says.
    fn run(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte());
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }

    fn damage(&mut self, file: &mut [u8]) {
        let at = u32::from_le_bytes(self.bytes()) as usize;
        let change = self.byte();
        if let Some(byte) = file.get_mut(at) {
            *byte ^= change;
        }
    }
}

fn frames(program: &mut Program<'_>) -> Vec<u8> {
    let mut file = Vec::new();
    let mut sequence = 0_u64;
    while !program.0.is_empty() && file.len() < FILE_BYTES_MAX {
        match program.byte() % 8 {
            // A record that follows.
            0 => {
                sequence = sequence.wrapping_add(1);
                let mut payload = program.run();
                payload.push(0);
                frame::encode(Kind::Record, STREAM, sequence, &payload, &mut file);
            }
            // One with any sequence.
            1 => {
                sequence = u64::from_le_bytes(program.bytes());
                frame::encode(Kind::Record, STREAM, sequence, b"far", &mut file);
            }
            // A long one.
            2 => {
                let bytes = 1 + u32::from_le_bytes(program.bytes()) as usize % PAYLOAD_BYTES_MAX;
                sequence = sequence.wrapping_add(1);
                let payload = vec![program.byte(); bytes.min(FILE_BYTES_MAX)];
                frame::encode(Kind::Record, STREAM, sequence, &payload, &mut file);
            }
            // A mark that tells the truth, and one that may not.
            3 => mark(file.len() as u64, sequence, &mut file),
            4 => mark(u64::from_le_bytes(program.bytes()), sequence, &mut file),
            5 | 6 => file.extend(program.run()),
            _ => program.damage(&mut file),
        }
    }
    file
}

fn mark(offset: u64, sequence: u64, file: &mut Vec<u8>) {
    let header = Header {
        stream: STREAM,
        index: 1,
        first_sequence: 1,
        ordinal: 0,
    };
    header.encode_mark(sequence, offset, file);
}

/// What is found is in the file, whole, in order and of this stream, and is found again from the place before it.
fn scan(bytes: &[u8]) -> usize {
    let file = file_of(bytes);
    let limit = bytes.len() as u64;
    let mut scanner = Scanner::new(STREAM, 0, 0);
    let mut count = 0;
    loop {
        let (before, last) = (scanner.at, scanner.last);
        let mut again = Scanner::new(STREAM, before, last);
        let found = scanner.next(&file, limit).expect("memory can be read");
        let found_again = again.next(&file, limit).expect("memory can be read");
        assert_eq!((scanner.at, scanner.last), (again.at, again.last));
        let (Some(found), Some(_)) = (&found, &found_again) else {
            assert!(found.is_none() && found_again.is_none());
            return count;
        };
        let from = before + found.bad_bytes;
        assert!(from.is_multiple_of(ALIGN as u64), "frames are aligned");
        let payload = scanner.payload(found);
        let mut frame = Vec::new();
        frame::encode(found.kind, STREAM, found.sequence, payload, &mut frame);
        assert_eq!(scanner.at, from + frame.len() as u64);
        // What pads a frame is not checked.
        let checked = HEAD_BYTES + payload.len();
        assert_eq!(frame[..checked], bytes[from as usize..][..checked]);
        match found.kind {
            Kind::Record => assert!(follows(found.sequence, last)),
            Kind::Mark => assert!(mark_offset(payload) <= from),
        }
        count += 1;
    }
}

fn slots(program: &mut Program<'_>) -> Vec<u8> {
    let mut file = vec![0; 2 * cursor::SLOT_BYTES];
    for slot in file.chunks_mut(cursor::SLOT_BYTES) {
        match program.byte() % 3 {
            0 => {}
            1 => {
                let generation = u64::from_le_bytes(program.bytes());
                let bytes = usize::from(u16::from_le_bytes(program.bytes()));
                let value = vec![program.byte(); bytes.min(CURSOR_BYTES_MAX)];
                let valid = cursor::slot(generation, &value);
                slot[..valid.len()].copy_from_slice(&valid);
            }
            _ => {
                let raw = program.run();
                slot[..raw.len()].copy_from_slice(&raw);
            }
        }
    }
    while !program.0.is_empty() {
        program.damage(&mut file);
    }
    file
}

/// A value is one that was saved, and the next saves count.
fn open_cursor(bytes: &[u8]) -> usize {
    let file = file_of(bytes);
    let open = || Cursor::of(file.try_clone().expect("a handle"), Path::new("cursor"));
    let (mut cursor, found) = match open() {
        Ok(opened) => opened,
        Err(error) => {
            assert!(error.is_newer_format(), "{error}");
            return 0;
        }
    };
    if let Some(value) = &found {
        assert!(value.is_empty() || bytes.windows(value.len()).any(|part| part == value));
    }
    for next in ["next", "last"] {
        cursor.save(next.as_bytes()).expect("memory can be written");
        let (_, saved) = open().expect("as before");
        assert_eq!(saved.as_deref(), Some(next.as_bytes()));
    }
    usize::from(found.is_some())
}

fn file_of(bytes: &[u8]) -> File {
    let file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("memory for a file"));
    file.write_all_at(bytes, 0).expect("memory for a file");
    file
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// Each seed is named after what it writes; so many frames or values are found in it.
    const SEEDS: [(&str, usize); 15] = [
        ("cursor-damaged-newer-slot", 1),
        ("cursor-empty", 0),
        ("cursor-last-generation", 1),
        ("cursor-last-generation-but-one", 1),
        ("cursor-longest-value", 1),
        ("cursor-newer-format", 0),
        ("cursor-raw-slots", 0),
        ("cursor-two-values", 1),
        ("frames-damaged-length", 2),
        ("frames-empty", 0),
        ("frames-far-sequences", 1),
        ("frames-hole-then-good", 3),
        ("frames-longer-than-a-read", 3),
        ("frames-mark-that-lies", 1),
        ("frames-records-marks", 4),
    ];

    #[test]
    fn the_corpus_passes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/frame");
        let found: BTreeMap<String, usize> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, frame(&fs::read(entry.path()).unwrap()))
            })
            .collect();
        for (name, count) in SEEDS {
            assert_eq!(found.get(name), Some(&count), "{name}");
        }
    }

    proptest! {
        #[test]
        fn programs_of_any_kind_pass(program in prop::collection::vec(any::<u8>(), 0..300)) {
            frame(&program);
        }
    }
}
