//! Where a journal's ring lies, and whose it is.
//!
//! The journal's folder holds a symbolic link `ring` to its file in the ring folder, so that a successor, a courier or a
//! person finds it without being told. The ring's header says which folder it belongs to: a copy of that folder has the
//! same link and is another folder.
//!
//! The link is there from an open until a writer ended in good order or somebody recovered the folder: as long as it is, the
//! log may have a tail that no mark covers. Who recovers a folder and sees no ring renames the link to `ring.gone`: the
//! machine was started again, or this process cannot see the ring folder and one that can will come.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::process::geteuid;

use crate::{Error, file};

/// The link, in the journal's folder.
const NAME: &str = "ring";
const GONE: &str = "ring.gone";

/// Where an installation's rings lie if nobody names a folder.
pub const RINGS_IN: &str = "/dev/shm";

/// A folder's identity: it stays when the folder is moved on its disk and when the disk is mounted anew, and no copy of the
/// folder has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub(super) inode: u64,
    /// When the folder was made, in nanoseconds; 0 where the file system does not keep that.
    pub(super) made_ns: u64,
}

impl Home {
    pub(crate) fn of(folder: &Path) -> Result<Home, Error> {
        let found = fs::metadata(folder).map_err(Error::io("read", folder))?;
        let made = found.created().ok();
        let made = made.and_then(|made| made.duration_since(UNIX_EPOCH).ok());
        Ok(Home {
            inode: found.ino(),
            made_ns: made.map_or(0, |made| made.as_nanos() as u64),
        })
    }

    pub(super) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.inode.to_le_bytes());
        bytes[8..].copy_from_slice(&self.made_ns.to_le_bytes());
        bytes
    }
}

/// The folder for an installation's rings if nobody names one, by the folder its journals lie in: in the machine's memory,
/// with a name that no other installation and no other user has.
///
/// # Errors
/// When the folder of the journals cannot be read.
pub fn default_folder(journals: &Path) -> Result<PathBuf, Error> {
    let home = Home::of(journals)?;
    let name = home.inode.rotate_right(16) ^ home.made_ns;
    #[cfg(test)]
    let memory = journals;
    #[cfg(not(test))]
    let memory = Path::new(RINGS_IN);
    Ok(memory.join(format!("sluice-{}-{name:016x}", geteuid().as_raw())))
}

/// Makes a folder that only this user can use, or finds that it is one.
pub(super) fn make_private(folder: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("create", folder)(error)),
    }
    // Not what a link leads to: in a folder where everybody may write, anybody may have put it there.
    let found = fs::symlink_metadata(folder).map_err(Error::io("read", folder))?;
    let user = geteuid().as_raw();
    if !found.is_dir() {
        return Err(Error::not_private(folder, "it is no folder".to_owned()));
    }
    if found.uid() != user {
        let why = format!("it belongs to user {}, this is user {user}", found.uid());
        return Err(Error::not_private(folder, why));
    }
    if found.mode() & 0o077 != 0 {
        let why = format!(
            "others may use it (mode {:03o}): chmod 700 {}",
            found.mode() & 0o777,
            folder.display()
        );
        return Err(Error::not_private(folder, why));
    }
    Ok(())
}

/// Makes the journal's folder name this file as its ring.
pub(crate) fn link(folder: &Path, ring: &Path) -> Result<(), Error> {
    let ring = std::path::absolute(ring).map_err(Error::io("find", ring))?;
    let young = folder.join("ring.new");
    match fs::remove_file(&young) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("delete", &young)(error));
        }
        _ => {}
    }
    symlink(&ring, &young).map_err(Error::io("create", &young))?;
    let path = folder.join(NAME);
    fs::rename(&young, &path).map_err(Error::io("create", &path))?;
    let _ = fs::remove_file(folder.join(GONE));
    // After a power cut it says that nobody has recovered the folder.
    file::sync_folder(folder)
}

/// Whether a journal was opened and neither ended in good order nor was recovered since.
pub fn is_unsealed(folder: &Path) -> bool {
    fs::symlink_metadata(folder.join(NAME)).is_ok_and(|found| found.is_symlink())
}

/// Keeps the link to a ring that is not there, or another folder's, under its other name.
pub(crate) fn set_aside(folder: &Path) -> Result<(), Error> {
    if !is_unsealed(folder) {
        return Ok(());
    }
    let gone = folder.join(GONE);
    fs::rename(folder.join(NAME), &gone).map_err(Error::io("create", &gone))
}

/// The file that the journal's folder names as its ring, whether it is there or not.
pub(super) fn linked(folder: &Path) -> Result<Option<PathBuf>, Error> {
    for name in [NAME, GONE] {
        let path = folder.join(name);
        match fs::read_link(&path) {
            Ok(ring) => return Ok(Some(ring)),
            // None, or a file that a copy put in the link's place.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                ) => {}
            Err(error) => return Err(Error::io("read", &path)(error)),
        }
    }
    Ok(None)
}

/// Removes the ring of a journal, and the ring folder if it is the installation's own and nothing is left in it.
pub(crate) fn remove(folder: &Path, ring: &Path) -> Result<(), Error> {
    fs::remove_file(ring).map_err(Error::io("delete", ring))?;
    // With a link the folder would be recovered once more, and nothing would change.
    for name in [NAME, GONE] {
        let _ = fs::remove_file(folder.join(name));
    }
    if let (Some(rings), Some(journals)) = (ring.parent(), folder.parent())
        && default_folder(journals).is_ok_and(|own| own == rings)
    {
        // Not while another ring lies there.
        let _ = fs::remove_dir(rings);
    }
    Ok(())
}
