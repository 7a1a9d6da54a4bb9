//! Files that are either the old one or the new one, whatever happens in between.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Replaces a file: a reader, and a machine after a power cut, sees the old content or the new, never a part.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("not a file's path"))?;
    let mut temporary = name.to_os_string();
    temporary.push(".new");
    let temporary = folder.join(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

/// What tells a changed file without reading it: device, inode, size, times of the content and of the inode. The time of the
/// content alone does not: tools that write images or copies set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file a path names.
    ///
    /// # Errors
    /// It is not there or cannot be looked at.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&fs::metadata(path)?))
    }

    fn of(meta: &fs::Metadata) -> Self {
        Self {
            file: (meta.dev(), meta.ino()),
            bytes: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// A file that is read once from its beginning to its end, and must not change meanwhile.
pub(crate) struct Steady {
    pub(crate) file: File,
    stamp: Stamp,
}

impl Steady {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let stamp = Stamp::of(&file.metadata()?);
        Ok(Self { file, stamp })
    }

    /// An error when the path names another file by now, or the file changed: somebody is still writing it.
    pub(crate) fn ended(&self, path: &Path) -> io::Result<()> {
        if Stamp::at(path)? == self.stamp && Stamp::of(&self.file.metadata()?) == self.stamp {
            return Ok(());
        }
        Err(io::Error::other(
            "it changed while it was read: somebody is still writing it, apply it once it is whole",
        ))
    }
}

/// Reads a file whole that people write.
pub(crate) fn read_steady(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let steady = Steady::open(path)?;
    let bytes = read_bounded(&steady.file, bytes_max)?;
    steady.ended(path)?;
    Ok(bytes)
}

/// Reads at most so many bytes; more are an error.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read_bounded(&File::open(path)?, bytes_max)
}

fn read_bounded(file: &File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// The folder a catalog lies in, from the root: what it names is relative to it.
pub(crate) fn home(path: &Path) -> PathBuf {
    std::path::absolute(folder_of(path)).unwrap_or_else(|_| PathBuf::from("/"))
}

/// The folder a path lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
