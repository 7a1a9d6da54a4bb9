//! One writer a folder: `flock` on a file named `lock`, which holds the owner's process number as text.
//!
//! The kernel releases the lock when its owner dies, however it dies; the file itself stays.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::Error;

/// Exclusive use of a folder, until dropped.
#[derive(Debug)]
pub struct FolderLock {
    folder: PathBuf,
    _file: File,
}

impl FolderLock {
    /// Takes the lock at once or fails; creates the folder where it is missing.
    ///
    /// # Errors
    /// `is_in_use` when another handle, here or in another process, holds it; the message names the process.
    pub fn take(folder: &Path) -> Result<FolderLock, Error> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let path = folder.join("lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // The owner may be about to write it: a name that cannot be read is no reason to say less.
                let process = file
                    .read_to_string(&mut text)
                    .ok()
                    .and_then(|_| text.trim().parse().ok());
                return Err(Error::in_use(folder, process));
            }
            Err(errno) => return Err(Error::io("lock", &path)(errno.into())),
        }
        // As long as any number, so that it replaces the one before it without room for a new block.
        file.rewind()
            .and_then(|()| writeln!(file, "{:<10}", std::process::id()))
            .map_err(Error::io("write", &path))?;
        Ok(FolderLock {
            folder: folder.to_owned(),
            _file: file,
        })
    }

    /// The folder that is held.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let held = FolderLock::take(folder.path()).unwrap();
        let error = FolderLock::take(folder.path()).unwrap_err();
        assert!(error.is_in_use());
        assert!(
            error
                .to_string()
                .ends_with(&format!("in use by process {}", std::process::id())),
            "{error}"
        );
        drop(held);
        FolderLock::take(folder.path()).unwrap();
    }
}
