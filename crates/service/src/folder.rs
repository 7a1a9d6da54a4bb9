//! The data folder of an installation on one machine: made at the first start, marked with the version of its layout, and
//! locked part by part, so that two processes never write the same files.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{error, fmt};

use rustix::fs::{FlockOperation, flock};

/// The layout this build writes, and the newest it reads.
pub const VERSION: u32 = 1;

/// Long enough for any version number or process id; a longer file is not ours.
const MARK_BYTES_MAX: u64 = 32;

/// How often a part is tried that a predecessor holds.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A data folder some of whose parts this process holds, until the value is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    locks: Vec<File>,
}

impl DataFolder {
    /// Opens the folder, making it (mode 0700) where it is missing, and takes `parts` of it.
    ///
    /// # Errors
    ///
    /// When it cannot be written, is of a newer version or a part of it is in use by a running process; each is a reason not
    /// to start.
    pub fn open(path: impl AsRef<Path>, parts: &[&str]) -> Result<DataFolder, FolderError> {
        let path = path.as_ref();
        let about = |kind| FolderError {
            path: path.to_path_buf(),
            kind,
        };
        let unwritable = |source| about(Kind::Unwritable(source));
        // The version comes first: in a newer layout even the lock may mean something else.
        make(path)?;

        let folder = path.join("locks");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(unwritable)?;
        let mut locks = Vec::new();
        for part in parts {
            let mut lock = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(folder.join(part))
                .map_err(unwritable)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    // The holder may be between taking the lock and writing its id.
                    let holder = short_text(&mut lock).unwrap_or_default();
                    return Err(about(Kind::InUse(holder.parse().ok())));
                }
                Err(source) => return Err(unwritable(source.into())),
            }
            name_holder(&mut lock).map_err(unwritable)?;
            locks.push(lock);
        }
        Ok(DataFolder {
            path: path.to_path_buf(),
            locks,
        })
    }

    /// As [`Self::open`], but waits for the parts as long as `bound`: for a predecessor that drains.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_when_free(
        path: impl AsRef<Path>,
        parts: &[&str],
        bound: Duration,
    ) -> Result<DataFolder, FolderError> {
        let until = Instant::now() + bound;
        loop {
            match DataFolder::open(path.as_ref(), parts) {
                Err(FolderError {
                    kind: Kind::InUse(_),
                    ..
                }) if Instant::now() < until => std::thread::park_timeout(LOOK_EVERY),
                done => return done,
            }
        }
    }

    /// Opens the folder with the lock of its only part, which a predecessor hands over.
    ///
    /// # Errors
    ///
    /// When it cannot be written or is of a newer version.
    pub fn succeed(path: impl AsRef<Path>, lock: OwnedFd) -> Result<DataFolder, FolderError> {
        let path = path.as_ref();
        make(path)?;
        let mut lock = File::from(lock);
        name_holder(&mut lock).map_err(|source| FolderError {
            path: path.to_path_buf(),
            kind: Kind::Unwritable(source),
        })?;
        Ok(DataFolder {
            path: path.to_path_buf(),
            locks: vec![lock],
        })
    }

    /// The lock of the first part, for a successor: it is held until both have let it go.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    pub fn lock(&self) -> io::Result<OwnedFd> {
        let [lock, ..] = &*self.locks else {
            return Err(io::ErrorKind::NotFound.into());
        };
        Ok(lock.try_clone()?.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes down where the process that holds a part answers commands.
///
/// # Errors
///
/// When it cannot be written.
pub fn set_admin(folder: &Path, part: &str, admin: SocketAddr) -> io::Result<()> {
    std::fs::write(admin_path(folder, part), format!("{admin}\n"))
}

/// Where the process that holds a part answers commands; `None` where it has not said so.
pub fn admin_of(folder: &Path, part: &str) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(admin_path(folder, part)).ok()?;
    text.trim_end().parse().ok()
}

fn admin_path(folder: &Path, part: &str) -> PathBuf {
    folder.join("locks").join(format!("{part}.admin"))
}

/// Whether a data folder is there already.
pub fn is_made(path: &Path) -> bool {
    path.join("VERSION").exists()
}

/// Makes the folder (mode 0700) and marks it with its version, for a command that adds to it beside a running process.
///
/// # Errors
///
/// When it cannot be written or is of a newer version.
pub fn make(path: &Path) -> Result<(), FolderError> {
    let about = |kind| FolderError {
        path: path.to_path_buf(),
        kind,
    };
    let unwritable = |source| about(Kind::Unwritable(source));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(unwritable)?;
    match File::open(path.join("VERSION")).and_then(|mut file| short_text(&mut file)) {
        Ok(text) => match text.parse::<u32>() {
            Ok(found) if found > VERSION => Err(about(Kind::Newer(found))),
            Ok(found) if found > 0 => Ok(()),
            _ => Err(about(Kind::Foreign)),
        },
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            write_version(path).map_err(unwritable)
        }
        Err(source) => Err(unwritable(source)),
    }
}

/// Writes the version mark so that a crash leaves it whole or missing.
fn write_version(folder: &Path) -> io::Result<()> {
    let temporary = folder.join("VERSION.new");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{VERSION}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, folder.join("VERSION"))?;
    File::open(folder)?.sync_all()
}

/// Writes the id of this process into the lock it holds.
fn name_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

fn short_text(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MARK_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

/// Why a data folder cannot be used; its text names the folder and says what to do.
#[derive(Debug)]
pub struct FolderError {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Unwritable(io::Error),
    Newer(u32),
    Foreign,
    InUse(Option<u32>),
}

impl FolderError {
    /// A running process holds a part of it.
    pub fn is_in_use(&self) -> bool {
        matches!(self.kind, Kind::InUse(_))
    }
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.kind {
            Kind::Unwritable(source) => match source.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => write!(
                    f,
                    "data folder {path} cannot be written: it, or what it lies in, is a file: choose another with --data"
                ),
                _ => write!(
                    f,
                    "data folder {path} cannot be written: {source}: choose another with --data or make it writable"
                ),
            },
            Kind::Newer(found) => write!(
                f,
                "data folder {path} is of version {found}, this build reads up to {VERSION}: use a newer Sluice"
            ),
            Kind::Foreign => write!(
                f,
                "data folder {path} has a VERSION file that is not a Sluice version: choose another with --data"
            ),
            Kind::InUse(Some(holder)) => write!(
                f,
                "data folder {path} is in use by process {holder}: stop it or choose another with --data"
            ),
            Kind::InUse(None) => write!(
                f,
                "data folder {path} is in use by another process: stop it or choose another with --data"
            ),
        }
    }
}

impl error::Error for FolderError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.kind {
            Kind::Unwritable(source) => Some(source),
            Kind::Newer(_) | Kind::Foreign | Kind::InUse(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_command_finds_the_process_that_holds_a_part() {
        let root = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(root.path(), &["clicks"]).unwrap();
        assert_eq!(admin_of(root.path(), "clicks"), None);
        let admin = SocketAddr::from(([127, 0, 0, 1], 9090));
        set_admin(folder.path(), "clicks", admin).unwrap();
        assert_eq!(admin_of(root.path(), "clicks"), Some(admin));
        assert_eq!(admin_of(root.path(), "courier"), None);
        let error = DataFolder::open(root.path(), &["clicks"]).unwrap_err();
        assert!(error.is_in_use());
    }

    #[test]
    fn a_folder_is_made_marked_and_opened_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/data");
        let folder = DataFolder::open(&path, &["edge"]).unwrap();
        assert_eq!(folder.path(), path);
        assert_eq!(fs::read_to_string(path.join("VERSION")).unwrap(), "1\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(folder);
        DataFolder::open(&path, &["edge"]).unwrap();
    }

    #[test]
    fn a_folder_in_use_names_the_process() {
        let root = tempfile::tempdir().unwrap();
        let _held = DataFolder::open(root.path(), &["edge", "courier"]).unwrap();
        DataFolder::open(root.path(), &["clicks"]).unwrap();
        let error = DataFolder::open(root.path(), &["clicks", "courier"]).unwrap_err();
        let error = error.to_string();
        let expected = format!("is in use by process {}", std::process::id());
        assert!(error.contains(&expected), "{error}");
    }

    #[test]
    fn a_lock_that_is_handed_over_is_held_without_a_gap() {
        let root = tempfile::tempdir().unwrap();
        let predecessor = DataFolder::open(root.path(), &["edge"]).unwrap();
        let successor = DataFolder::succeed(root.path(), predecessor.lock().unwrap()).unwrap();
        drop(predecessor);
        let bound = Duration::from_millis(30);
        DataFolder::open_when_free(root.path(), &["edge"], bound).unwrap_err();
        drop(successor);
        DataFolder::open_when_free(root.path(), &["edge"], bound).unwrap();
    }

    #[test]
    fn a_newer_or_foreign_folder_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("VERSION"), "2\n").unwrap();
        let error = DataFolder::open(root.path(), &["edge"])
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("is of version 2, this build reads up to 1: use a newer Sluice"),
            "{error}"
        );
        fs::write(root.path().join("VERSION"), "gcc 12").unwrap();
        let error = DataFolder::open(root.path(), &["edge"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("not a Sluice version"), "{error}");
        assert!(!root.path().join("locks").exists());
    }

    #[test]
    fn a_path_that_is_a_file_is_refused_in_one_line() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        fs::write(&path, "").unwrap();
        let error = DataFolder::open(&path, &["edge"]).unwrap_err().to_string();
        assert!(error.contains("cannot be written"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}
