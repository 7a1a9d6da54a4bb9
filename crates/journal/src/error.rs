//! What can go wrong with a journal folder: which file, what was tried, and the cause in `source`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// A failure of a journal, its log, its cursor or its lock.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    path: PathBuf,
    source: Option<io::Error>,
}

#[derive(Debug)]
enum Kind {
    InUse { process: Option<u32> },
    NewerFormat { version: u32 },
    CursorTooLarge { bytes: usize },
    Poisoned,
    NotPrivate { why: String },
    Sync,
    Io { tried: &'static str },
}

impl Error {
    /// Another live process (or another handle in this one) holds the folder.
    pub fn is_in_use(&self) -> bool {
        matches!(self.kind, Kind::InUse { .. })
    }

    /// The file was written by a newer version; this one would misread it.
    pub fn is_newer_format(&self) -> bool {
        matches!(self.kind, Kind::NewerFormat { .. })
    }

    /// Two files in a row could not be written or synced: this journal is closed, and tried again in a new file later.
    pub fn is_poisoned(&self) -> bool {
        matches!(self.kind, Kind::Poisoned)
    }

    /// There is no room for the write. Nothing is lost by it: the same call may be made again later.
    pub fn is_disk_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self.kind, Kind::Io { .. })
            && self
                .source
                .as_ref()
                .is_some_and(|cause| full.contains(&cause.kind()))
    }

    /// The machine lacks something for the moment: room, descriptors or memory. Nothing is lost by it: the same call may be
    /// made again later.
    pub fn is_passing(&self) -> bool {
        let lacks = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
        let errno = self.source.as_ref().and_then(Errno::from_io_error);
        self.is_disk_full() || errno.is_some_and(|errno| lacks.contains(&errno))
    }

    /// The process that holds the folder, where that is what is wrong and it could be read.
    pub fn holder(&self) -> Option<u32> {
        match self.kind {
            Kind::InUse { process } => process,
            _ => None,
        }
    }

    pub(crate) fn in_use(path: &Path, process: Option<u32>) -> Error {
        Error {
            kind: Kind::InUse { process },
            path: path.to_owned(),
            source: None,
        }
    }

    pub(crate) fn newer_format(path: &Path, version: u32) -> Error {
        Error {
            kind: Kind::NewerFormat { version },
            path: path.to_owned(),
            source: None,
        }
    }

    pub(crate) fn cursor_too_large(path: &Path, bytes: usize) -> Error {
        Error {
            kind: Kind::CursorTooLarge { bytes },
            path: path.to_owned(),
            source: None,
        }
    }

    pub(crate) fn poisoned(path: &Path, source: Option<io::Error>) -> Error {
        Error {
            kind: Kind::Poisoned,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn not_private(path: &Path, why: String) -> Error {
        Error {
            kind: Kind::NotPrivate { why },
            path: path.to_owned(),
            source: None,
        }
    }

    pub(crate) fn sync(path: &Path, source: io::Error) -> Error {
        Error {
            kind: Kind::Sync,
            path: path.to_owned(),
            source: Some(source),
        }
    }

    /// For `map_err`: `tried` completes the sentence "cannot …".
    pub(crate) fn io(tried: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error {
            kind: Kind::Io { tried },
            path: path.to_owned(),
            source: Some(source),
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.source
            .as_ref()
            .is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn into_poisoned(self) -> Error {
        Error {
            kind: Kind::Poisoned,
            ..self
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.kind {
            Kind::InUse {
                process: Some(process),
            } => write!(f, "{path} is in use by process {process}"),
            Kind::InUse { process: None } => write!(f, "{path} is in use by another process"),
            Kind::NewerFormat { version } => {
                write!(
                    f,
                    "{path} has format version {version}, written by a newer sluice; use that version"
                )
            }
            Kind::CursorTooLarge { bytes } => {
                write!(
                    f,
                    "cannot save {bytes} bytes in {path}: a cursor holds {}",
                    crate::CURSOR_BYTES_MAX
                )
            }
            Kind::Poisoned => write!(
                f,
                "{path} could not be written twice in a row; the journal is closed and tried again in a new file"
            ),
            Kind::NotPrivate { why } => write!(
                f,
                "{path} cannot hold rings: {why}; or name another folder as edge.ring_folder"
            ),
            Kind::Sync => write!(f, "cannot sync {path}"),
            Kind::Io { tried } => write!(f, "cannot {tried} {path}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_was_taken_for_a_failed_disk() {
        let write = |cause: io::Error| Error::io("write", Path::new("a.log"))(cause);
        for (error, full, passing) in [
            (write(io::ErrorKind::StorageFull.into()), true, true),
            (write(io::ErrorKind::QuotaExceeded.into()), true, true),
            (write(Errno::DQUOT.into()), true, true),
            (write(Errno::MFILE.into()), false, true),
            (write(Errno::NFILE.into()), false, true),
            (write(Errno::NOMEM.into()), false, true),
            (write(Errno::IO.into()), false, false),
            // A sync that says so has accepted the bytes before.
            (
                Error::sync(Path::new("a.log"), Errno::NOSPC.into()),
                false,
                false,
            ),
        ] {
            assert_eq!(
                (error.is_disk_full(), error.is_passing()),
                (full, passing),
                "{error:?}"
            );
        }
    }
}
