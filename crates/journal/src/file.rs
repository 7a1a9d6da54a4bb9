//! Log files: their names, their header, their life.
//!
//! A folder holds `{index:016x}.log`, the index rising for ever. A file begins with 64 bytes, little endian:
//!
//! ```text
//! 0   8   magic "SLUICELG"
//! 8   u32 format version, 2
//! 12  u32 crc32c over bytes 0..12 and 16..64
//! 16  16  stream
//! 32  u64 index, as in the name
//! 40  u64 first sequence: number of the first record in this file within the stream
//! 48  u64 ordinal: records ever written to this folder before this file
//! 56  8   zero
//! ```
//!
//! Magic, version and checksum keep their places in later versions, so that a damaged header and a newer one can be told
//! apart. Frames follow (`frame.rs`), a mark after each sync. A mark's payload, little endian, says again what the header says,
//! so that a damaged header costs no record:
//!
//! ```text
//! 0   u64 byte offset in this file up to which all is synced, which is where the mark stands
//! 8   16  stream
//! 24  u64 first sequence
//! 32  u64 ordinal
//! ```
//!
//! A file comes into being under another name and is renamed
//! when what it begins with is synced: a `.log` file without a valid header is damaged, never young.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::frame::{self, Kind, MARK_PAYLOAD_BYTES};
use crate::scanner::Marks;
use crate::{Error, StreamId};

pub(crate) const HEADER_BYTES: u64 = 64;
const MAGIC: &[u8; 8] = b"SLUICELG";
const VERSION: u32 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) stream: StreamId,
    pub(crate) index: u64,
    pub(crate) first_sequence: u64,
    pub(crate) ordinal: u64,
}

impl Header {
    /// The folder-wide number of a record of this file, from 0.
    pub(crate) fn ordinal_of(&self, sequence: u64) -> u64 {
        self.ordinal
            .saturating_add(sequence.saturating_sub(self.first_sequence))
    }

    fn bytes(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.stream.0);
        bytes[32..40].copy_from_slice(&self.index.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.ordinal.to_le_bytes());
        let crc = checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header, or where it is damaged what the file's marks say. None where they say nothing either.
    pub(crate) fn read(file: &File, path: &Path) -> Result<Option<Header>, Error> {
        match Header::read_intact(file, path)? {
            Some(header) => Ok(Some(header)),
            None => Header::read_marks(file, path),
        }
    }

    /// None where the header is damaged.
    pub(crate) fn read_intact(file: &File, path: &Path) -> Result<Option<Header>, Error> {
        let mut bytes = [0; HEADER_BYTES as usize];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(Error::io("read", path)(error)),
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if &bytes[0..8] != MAGIC || u32_at(12) != checksum(&bytes) {
            return Ok(None);
        }
        if u32_at(8) != VERSION {
            return Err(Error::newer_format(path, u32_at(8)));
        }
        Ok(Some(Header {
            stream: StreamId(bytes[16..32].try_into().expect("16 bytes")),
            index: u64_at(32),
            first_sequence: u64_at(40),
            ordinal: u64_at(48),
        }))
    }

    /// What most marks say. One that stands elsewhere than it says does not count, nor does a majority that a record's bytes
    /// can make up: they would have to know where in the file they come to lie, again and again.
    fn read_marks(file: &File, path: &Path) -> Result<Option<Header>, Error> {
        let name = path.file_stem().and_then(|stem| stem.to_str());
        let Some(index) = name.and_then(|name| u64::from_str_radix(name, 16).ok()) else {
            return Ok(None);
        };
        let limit = file.metadata().map_err(Error::io("read", path))?.len();
        let mut said: Vec<(Header, u64)> = Vec::new();
        let mut marks = Marks::new(index);
        while let Some(header) = marks.next(file, limit).map_err(Error::io("read", path))? {
            match said.iter_mut().find(|(known, _)| *known == header) {
                Some((_, count)) => *count += 1,
                None => said.push((header, 1)),
            }
        }
        let most = said.into_iter().max_by_key(|(_, count)| *count);
        Ok(most.map(|(header, _)| header))
    }

    /// Appends the mark that all before `offset`, where it will stand, is synced.
    pub(crate) fn encode_mark(&self, last_sequence: u64, offset: u64, into: &mut Vec<u8>) {
        let mut payload = [0; MARK_PAYLOAD_BYTES];
        payload[0..8].copy_from_slice(&offset.to_le_bytes());
        payload[8..24].copy_from_slice(&self.stream.0);
        payload[24..32].copy_from_slice(&self.first_sequence.to_le_bytes());
        payload[32..40].copy_from_slice(&self.ordinal.to_le_bytes());
        frame::encode(Kind::Mark, self.stream, last_sequence, &payload, into);
    }

    /// The header that a mark's payload says again.
    pub(crate) fn of_mark(payload: &[u8], index: u64) -> Header {
        let u64_at =
            |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("8 bytes"));
        Header {
            stream: StreamId(payload[8..24].try_into().expect("16 bytes")),
            index,
            first_sequence: u64_at(24),
            ordinal: u64_at(32),
        }
    }
}

fn checksum(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[0..12]), &header[16..])
}

pub(crate) fn path_of(folder: &Path, index: u64) -> PathBuf {
    folder.join(format!("{index:016x}.log"))
}

/// Makes a file of its header and whole frames, all of it durable before it has its final name.
pub(crate) fn create(
    folder: &Path,
    header: &Header,
    frames: &[u8],
) -> Result<(File, PathBuf), Error> {
    let young = Young::create(folder, header.index)?;
    let path = young.become_log(header, frames)?;
    Ok((young.file, path))
}

/// A log file that is open and has nothing in it yet, made ahead of need: with it and the open folder, the next log file needs
/// no descriptor at a time when there may be none.
pub(crate) struct Young {
    folder_path: PathBuf,
    folder: File,
    path: PathBuf,
    index: u64,
    pub(crate) file: File,
}

impl Young {
    pub(crate) fn create(folder: &Path, index: u64) -> Result<Young, Error> {
        let path = path_of(folder, index).with_extension("log.new");
        // One that is there may be of a sync that failed, and is not trusted again.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("delete", &path)(error));
            }
            _ => {}
        }
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        Ok(Young {
            folder_path: folder.to_owned(),
            folder: File::open(folder).map_err(Error::io("open", folder))?,
            path,
            index,
            file,
        })
    }

    /// Gives it its header, whole frames and its final name.
    pub(crate) fn become_log(&self, header: &Header, frames: &[u8]) -> Result<PathBuf, Error> {
        let path = path_of(&self.folder_path, header.index);
        write(&self.file, &self.path, &header.bytes(), 0)?;
        write(&self.file, &self.path, frames, HEADER_BYTES)?;
        sync(&self.file, &self.path)?;
        fs::rename(&self.path, &path).map_err(Error::io("create", &path))?;
        sync_open_folder(&self.folder, &self.folder_path)?;
        Ok(path)
    }

    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// Removes what nobody needed. A file that stays is taken by the next one of its index.
    pub(crate) fn discard(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The folder that something lies in.
pub(crate) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Every byte that a journal writes goes through here, but for the ring's frames.
pub(crate) fn write(file: &File, path: &Path, bytes: &[u8], at: u64) -> Result<(), Error> {
    #[cfg(test)]
    let (bytes, full) = crate::tests::disk::room(path, bytes);
    let written = file.write_all_at(bytes, at);
    #[cfg(test)]
    let written = written.and(full);
    written.map_err(Error::io("write", path))
}

/// Makes what was written durable.
pub(crate) fn sync(file: &File, path: &Path) -> Result<(), Error> {
    let synced = file.sync_data();
    #[cfg(test)]
    let synced = synced.and_then(|()| crate::tests::disk::synced(path));
    synced.map_err(|cause| Error::sync(path, cause))
}

/// Makes the folder's names durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    let open = File::open(folder).map_err(Error::io("open", folder))?;
    sync_open_folder(&open, folder)
}

fn sync_open_folder(open: &File, folder: &Path) -> Result<(), Error> {
    let synced = open.sync_all();
    #[cfg(test)]
    let synced = synced.and_then(|()| crate::tests::disk::synced(folder));
    synced.map_err(|cause| Error::sync(folder, cause))
}

/// Indexes of the log files, rising; a missing folder has none.
pub(crate) fn list(folder: &Path) -> Result<Vec<u64>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", folder)(error)),
    };
    let mut indexes = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io("read", folder))?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".log"));
        if let Some(stem) = stem.filter(|stem| stem.len() == 16)
            && let Ok(index) = u64::from_str_radix(stem, 16)
        {
            indexes.push(index);
        }
    }
    indexes.sort_unstable();
    Ok(indexes)
}

/// Whether nothing of a folder was deleted yet: it has its first file, or none.
///
/// # Errors
/// When the folder cannot be read.
pub fn is_whole(folder: &Path) -> Result<bool, Error> {
    Ok(list(folder)?.first().is_none_or(|first| *first == 1))
}

/// Bytes of a folder's log files together.
///
/// # Errors
/// When the folder cannot be read.
pub fn folder_bytes(folder: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for index in list(folder)? {
        let path = path_of(folder, index);
        match fs::metadata(&path) {
            Ok(file) => bytes += file.len(),
            // Deleted while this was looking.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", &path)(error)),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_header() {
        let header = Header {
            stream: StreamId(*b"0123456789abcdef"),
            index: 3,
            first_sequence: 8,
            ordinal: 1000,
        };
        let hex: String = header
            .bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "534c554943454c4702000000706412b93031323334353637383961626364656603000000000000000800000000000000e8030000000000000000000000000000"
        );
    }

    #[test]
    fn golden_mark() {
        let header = Header {
            stream: StreamId(*b"0123456789abcdef"),
            index: 3,
            first_sequence: 8,
            ordinal: 1000,
        };
        let mut bytes = Vec::new();
        header.encode_mark(12, 88, &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "280000108a0907e90c000000000000005800000000000000303132333435363738396162636465660800000000000000e803000000000000"
        );
        assert_eq!(Header::of_mark(&bytes[frame::HEAD_BYTES..], 3), header);
    }

    #[test]
    fn a_newer_version_is_refused_and_a_damaged_header_is_not_mistaken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let header = Header {
            stream: StreamId([1; 16]),
            index: 1,
            first_sequence: 1,
            ordinal: 0,
        };
        let (file, path) = create(folder.path(), &header, &[]).unwrap();
        assert_eq!(Header::read(&file, &path).unwrap(), Some(header));
        let mut bytes = header.bytes();
        bytes[8] = VERSION as u8 + 1;
        file.write_all_at(&bytes, 0).unwrap();
        assert_eq!(Header::read(&file, &path).unwrap(), None);
        let crc = checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&bytes, 0).unwrap();
        assert!(Header::read(&file, &path).unwrap_err().is_newer_format());
    }
}
