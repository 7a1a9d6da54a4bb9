//! Deleting log files that everybody is done with. What cannot be read in one is kept in quarantine first: nobody has it yet.

use std::fs;
use std::ops::Range;
use std::path::Path;

use crate::recovery::Survey;
use crate::{Error, file, quarantine, reader};

/// What became of the files that were to be deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Deleted {
    /// Files that are gone.
    pub files: u64,
    /// Files that were made of bytes that could not be read.
    pub quarantined: u64,
    /// Files that stay, because the quarantine has no room for what cannot be read in them.
    pub held: u64,
}

/// Deletes the log files with an index below `file`, except those for which `keep` says true. The newest file always
/// stays, because it carries the folder's index and ordinal on.
///
/// # Errors
/// When the folder or a file cannot be read, or a file cannot be deleted; those before it are gone.
pub fn delete_before(
    folder: &Path,
    file: u64,
    mut keep: impl FnMut(&Path) -> bool,
) -> Result<Deleted, Error> {
    let indexes = file::list(folder)?;
    let newest = indexes.last().copied();
    let mut deleted = Deleted::default();
    for index in indexes {
        let path = file::path_of(folder, index);
        if index >= file || Some(index) == newest || keep(&path) {
            continue;
        }
        let kept = quarantine::keep(folder, index, &damage(folder, index)?)?;
        deleted.quarantined += kept.made;
        if !kept.is_all {
            deleted.held += 1;
            continue;
        }
        fs::remove_file(&path).map_err(Error::io("delete", &path))?;
        deleted.files += 1;
    }
    if deleted.files > 0 {
        file::sync_folder(folder)?;
    }
    Ok(deleted)
}

/// The bytes of a log file, not the newest, that were durable once and are no frames.
fn damage(folder: &Path, index: u64) -> Result<Vec<Range<u64>>, Error> {
    let path = file::path_of(folder, index);
    let Some(survey) = Survey::of(&path)? else {
        let bytes = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        let whole = 0..bytes;
        return Ok(vec![whole]);
    };
    let mut ranges = survey.corrupt;
    // Its last mark is lost where the next file goes on later than the mark says.
    let continued_from = reader::continued_from(folder, index, survey.header.stream)?;
    if continued_from > survey.marked_sequence + 1 {
        ranges.extend(survey.torn);
    }
    Ok(ranges)
}
