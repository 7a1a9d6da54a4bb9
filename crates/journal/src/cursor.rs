//! A small value that is replaced as a whole and survives a cut at any moment: how far somebody has read.
//!
//! The file has two slots of 12 KiB, little endian:
//!
//! ```text
//! 0   8   magic "SLUICECU"
//! 8   u32 format version, 1
//! 12  u32 crc32c over bytes 0..12 and 16..32 and the value
//! 16  u64 generation, from 1; after the largest comes 0
//! 24  u32 bytes of the value
//! 28  4   zero
//! 32  …   value
//! ```
//!
//! A save goes to the slot that does not hold the newest valid value, with the next generation, and is synced before it
//! counts. Both slots are written full when the file is made, so that a full disk cannot refuse a later save.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::file;

/// Longest value in bytes: a few words for each of hundreds of journal folders.
pub const CURSOR_BYTES_MAX: usize = 8 << 10;

const MAGIC: &[u8; 8] = b"SLUICECU";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 32;
/// Whole pages, so that no disk block holds parts of both slots.
pub(crate) const SLOT_BYTES: usize = 12 << 10;

/// A checksummed, atomically replaced value in a file.
pub struct Cursor {
    file: File,
    path: PathBuf,
    /// Of the newest saved value; 0 when there is none.
    generation: u64,
    /// Where the next value goes.
    slot: u64,
}

impl Cursor {
    /// Opens or makes the file and returns the newest value saved in it. One owner at a time: the caller sees to that.
    ///
    /// # Errors
    /// `is_newer_format`, or what the disk said.
    pub fn open(path: &Path) -> Result<(Cursor, Option<Vec<u8>>), Error> {
        let folder = &file::parent(path);
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("open", path))?;
        let bytes = file.metadata().map_err(Error::io("read", path))?.len() as usize;
        if bytes < 2 * SLOT_BYTES {
            file::write(&file, path, &vec![0; 2 * SLOT_BYTES - bytes], bytes as u64)?;
            file::sync(&file, path)?;
            file::sync_folder(folder)?;
        }
        Cursor::of(file, path)
    }

    /// The newest value saved in a file, for somebody who is not its owner; `None` where there is none yet.
    ///
    /// # Errors
    /// `is_newer_format`, or what the disk said.
    pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
        match File::open(path) {
            Ok(file) => Ok(Cursor::of(file, path)?.1),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", path)(error)),
        }
    }

    /// Of a file that has both slots.
    pub(crate) fn of(file: File, path: &Path) -> Result<(Cursor, Option<Vec<u8>>), Error> {
        let mut newest: Option<(u64, u64, Vec<u8>)> = None;
        for slot in 0..2 {
            if let Some((generation, value)) = read_slot(&file, path, slot)?
                && newest
                    .as_ref()
                    .is_none_or(|(newest, ..)| is_after(generation, *newest))
            {
                newest = Some((generation, slot, value));
            }
        }
        let cursor = |generation, slot| Cursor {
            file,
            path: path.to_owned(),
            generation,
            slot,
        };
        Ok(match newest {
            Some((generation, slot, value)) => (cursor(generation, 1 - slot), Some(value)),
            None => (cursor(0, 0), None),
        })
    }

    /// Replaces the value and syncs it.
    ///
    /// # Errors
    /// When the value is longer than [`CURSOR_BYTES_MAX`] or the disk fails; the value saved before is then still there.
    pub fn save(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() > CURSOR_BYTES_MAX {
            return Err(Error::cursor_too_large(&self.path, bytes.len()));
        }
        let generation = self.generation.wrapping_add(1);
        let at = self.slot * SLOT_BYTES as u64;
        file::write(&self.file, &self.path, &slot(generation, bytes), at)?;
        file::sync(&self.file, &self.path)?;
        self.generation = generation;
        self.slot = 1 - self.slot;
        Ok(())
    }
}

/// What a slot begins with when it holds this value.
pub(crate) fn slot(generation: u64, value: &[u8]) -> Vec<u8> {
    let mut slot = vec![0; HEAD_BYTES + value.len()];
    slot[0..8].copy_from_slice(MAGIC);
    slot[8..12].copy_from_slice(&VERSION.to_le_bytes());
    slot[16..24].copy_from_slice(&generation.to_le_bytes());
    slot[24..28].copy_from_slice(&(value.len() as u32).to_le_bytes());
    slot[HEAD_BYTES..].copy_from_slice(value);
    let crc = checksum(&slot);
    slot[12..16].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn read_slot(file: &File, path: &Path, slot: u64) -> Result<Option<(u64, Vec<u8>)>, Error> {
    let mut bytes = vec![0; SLOT_BYTES];
    match file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    }
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    if &bytes[0..8] != MAGIC {
        return Ok(None);
    }
    // A torn save cannot fake this: every save of this version writes the same bytes here.
    if u32_at(8) > VERSION {
        return Err(Error::newer_format(path, u32_at(8)));
    }
    let value_bytes = u32_at(24) as usize;
    if value_bytes > CURSOR_BYTES_MAX || u32_at(12) != checksum(&bytes[..HEAD_BYTES + value_bytes])
    {
        return Ok(None);
    }
    let generation = u64::from_le_bytes(bytes[16..24].try_into().expect("8 bytes"));
    Ok(Some((
        generation,
        bytes[HEAD_BYTES..HEAD_BYTES + value_bytes].to_vec(),
    )))
}

/// Whether a generation is the later one, counted in a circle. No count of saves gets that far, but a made-up slot may hold the
/// largest number, and the save after it must count too.
fn is_after(generation: u64, other: u64) -> bool {
    generation.wrapping_sub(other).cast_signed() > 0
}

fn checksum(slot: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&slot[0..12]), &slot[16..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(path: &Path) -> Option<Vec<u8>> {
        let value = Cursor::read(path).unwrap();
        assert_eq!(value, Cursor::open(path).unwrap().1);
        value
    }

    #[test]
    fn a_torn_slot_leaves_the_value_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cursor");
        let (mut cursor, none) = Cursor::open(&path).unwrap();
        assert_eq!(none, None);
        for (count, text) in [(1, "one"), (2, "two"), (3, "three")] {
            cursor.save(text.as_bytes()).unwrap();
            assert_eq!(value(&path).unwrap(), text.as_bytes());
            // The slot just written is damaged: the one before is what counts, and the next save goes over the damage.
            let at = (count + 1) % 2 * SLOT_BYTES as u64 + HEAD_BYTES as u64;
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(b"?", at).unwrap();
            let before = match count {
                1 => None,
                2 => Some(b"one".to_vec()),
                _ => Some(b"two".to_vec()),
            };
            assert_eq!(value(&path), before);
            file.write_all_at(&text.as_bytes()[..1], at).unwrap();
        }
        let (mut cursor, _) = Cursor::open(&path).unwrap();
        cursor.save(&[7; CURSOR_BYTES_MAX]).unwrap();
        assert_eq!(value(&path).unwrap(), [7; CURSOR_BYTES_MAX]);
        assert!(cursor.save(&[7; CURSOR_BYTES_MAX + 1]).is_err());
        assert_eq!(value(&path).unwrap(), [7; CURSOR_BYTES_MAX]);
    }

    #[test]
    fn a_made_up_last_generation_kept_later_saves_from_counting() {
        for generation in [u64::MAX, u64::MAX - 1, (1 << 63) - 1, 1 << 63] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("cursor");
            drop(Cursor::open(&path).unwrap());
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(&slot(generation, b"made up"), 0).unwrap();
            let (mut cursor, found) = Cursor::open(&path).unwrap();
            assert_eq!(found.unwrap(), b"made up");
            for text in ["first", "second", "third"] {
                cursor.save(text.as_bytes()).unwrap();
                assert_eq!(value(&path).unwrap(), text.as_bytes(), "{generation}");
            }
        }
    }

    #[test]
    fn a_file_cut_short_at_its_making_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/cursor");
        drop(Cursor::open(&path).unwrap());
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(100)
            .unwrap();
        let (mut cursor, none) = Cursor::open(&path).unwrap();
        assert_eq!(none, None);
        cursor.save(b"").unwrap();
        assert_eq!(value(&path).unwrap(), b"");
    }
}
