//! Keeping what went bad: bytes that were durable once and are no frames any more.
//!
//! They are copied to `quarantine-{index:016x}-{offset:016x}.bin`, named after the log file and the place in it, because
//! the log file is deleted when its readable records are done with, and then nobody could find out what was lost, or save
//! by hand what still can be. A copy appears whole and synced or not at all; one that is there is not made again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::Error;
use crate::file;

/// Most bytes kept in a folder: a log file of the usual size fits whole, and a disk that goes bad all over is not filled
/// with the proof of it. What is beyond is left out.
pub(crate) const QUARANTINE_BYTES_MAX: u64 = 64 << 20;
/// Most files kept in a folder: enough to see a pattern; damage in every second frame would make a million.
pub(crate) const QUARANTINE_FILES_MAX: usize = 256;

const COPY_BYTES: usize = 256 << 10;
const PREFIX: &str = "quarantine-";
const SUFFIX: &str = ".bin";

/// What is in quarantine after [`keep`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    /// Files that were not there before.
    pub(crate) made: u64,
    /// Every range is there whole.
    pub(crate) is_all: bool,
}

/// Copies the ranges of the log file with this index, as far as there is room for them, and makes the copies durable.
pub(crate) fn keep(folder: &Path, index: u64, ranges: &[Range<u64>]) -> Result<Kept, Error> {
    if ranges.is_empty() {
        return Ok(Kept {
            made: 0,
            is_all: true,
        });
    }
    let mut kept = kept(folder)?;
    let path = file::path_of(folder, index);
    let log = File::open(&path).map_err(Error::io("open", &path))?;
    let (mut made, mut whole) = (0, 0);
    for range in ranges {
        let name = format!("{PREFIX}{index:016x}-{:016x}{SUFFIX}", range.start);
        let before = kept.remove(&name);
        if kept.len() >= QUARANTINE_FILES_MAX {
            break;
        }
        let room = QUARANTINE_BYTES_MAX.saturating_sub(kept.values().sum());
        let bytes = room.min(range.end - range.start);
        if bytes == 0 {
            break;
        }
        if before != Some(bytes) {
            copy(&log, &path, range.start, bytes, &folder.join(&name))?;
            made += 1;
        }
        kept.insert(name, bytes);
        whole += usize::from(bytes == range.end - range.start);
    }
    if made > 0 {
        file::sync_folder(folder)?;
    }
    Ok(Kept {
        made,
        is_all: whole == ranges.len(),
    })
}

/// Names and sizes of what is in quarantine already.
fn kept(folder: &Path) -> Result<BTreeMap<String, u64>, Error> {
    let mut kept = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        if let Ok(name) = entry.file_name().into_string()
            && name.starts_with(PREFIX)
            && name.ends_with(SUFFIX)
        {
            let found = entry.metadata().map_err(Error::io("read", &entry.path()))?;
            kept.insert(name, found.len());
        }
    }
    Ok(kept)
}

/// Makes `path` of some bytes of a log file; it has its name when its bytes are synced.
fn copy(log: &File, log_path: &Path, from: u64, bytes: u64, path: &Path) -> Result<(), Error> {
    // A courier and a recovery may copy at once. What a crash left is written over.
    let young = path.with_extension("new");
    let file = File::create(&young).map_err(Error::io("create", &young))?;
    let mut buffer = vec![0; COPY_BYTES.min(bytes as usize)];
    let mut done = 0;
    while done < bytes {
        let part = buffer.len().min((bytes - done) as usize);
        match log.read_at(&mut buffer[..part], from + done) {
            Ok(0) => break,
            Ok(count) => {
                file::write(&file, &young, &buffer[..count], done)?;
                done += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", log_path)(error)),
        }
    }
    file::sync(&file, &young)?;
    fs::rename(&young, path).map_err(Error::io("create", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(file::path_of(folder.path(), 7)).unwrap();
        log.set_len(2 * QUARANTINE_BYTES_MAX).unwrap();
        let bytes = || kept(folder.path()).unwrap().values().sum::<u64>();

        let small: Vec<_> = (0..300).map(|count| count * 64..count * 64 + 8).collect();
        let made = QUARANTINE_FILES_MAX as u64;
        let keep = |ranges: &[Range<u64>]| keep(folder.path(), 7, ranges).unwrap();
        let is_all = false;
        assert_eq!(keep(&small), Kept { made, is_all });
        assert_eq!(keep(&small), Kept { made: 0, is_all });
        assert_eq!(bytes(), 8 * made);

        // What grew is copied again, and the last one as far as it goes.
        let large = [0..QUARANTINE_BYTES_MAX / 2, 64..2 * QUARANTINE_BYTES_MAX];
        for made in [2, 0] {
            assert_eq!(keep(&large), Kept { made, is_all });
            assert_eq!(bytes(), QUARANTINE_BYTES_MAX);
        }
    }
}
