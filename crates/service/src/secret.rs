//! Secrets and keys live in files, never in settings or the catalog; this reads and writes those files.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{error, fmt};

/// The longest secret: far above any key or HMAC secret, far below what would hurt to read by mistake.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// The secret in a file, without its trailing newline.
///
/// # Errors
///
/// When the file is missing, unreadable, empty or longer than [`SECRET_BYTES_MAX`]; the text says what to do.
pub fn read(path: &Path) -> Result<Vec<u8>, SecretError> {
    read_checked(path, false)
}

/// Like [`read`], for key files: also refuses a file that anybody but its owner can read or write.
///
/// # Errors
///
/// As [`read`], and for a file with permissions for group or world.
pub fn read_private(path: &Path) -> Result<Vec<u8>, SecretError> {
    read_checked(path, true)
}

/// Creates `path` with mode 0600 and writes the bytes through to the disk. Never overwrites.
///
/// # Errors
///
/// When the file exists or cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
    let about = |kind| SecretError {
        path: path.to_path_buf(),
        kind,
    };
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| {
            // The name is durable only when its folder is.
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        });
    written.map_err(|source| about(Kind::Write(source)))
}

fn read_checked(path: &Path, private: bool) -> Result<Vec<u8>, SecretError> {
    let about = |kind| SecretError {
        path: path.to_path_buf(),
        kind,
    };
    let file = File::open(path).map_err(|source| about(Kind::Read(source)))?;
    let meta = file
        .metadata()
        .map_err(|source| about(Kind::Read(source)))?;
    if private && meta.mode() & 0o077 != 0 {
        return Err(about(Kind::Exposed(meta.mode() & 0o777)));
    }

    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| about(Kind::Read(source)))?;
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(about(Kind::TooLong));
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        return Err(about(Kind::Empty));
    }
    Ok(bytes)
}

/// Why a secret could not be read or written. Its text names the file and says what to do, and never holds the secret.
#[derive(Debug)]
pub struct SecretError {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Read(io::Error),
    Write(io::Error),
    Exposed(u32),
    TooLong,
    Empty,
}

impl SecretError {
    /// The file it was about.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is simply not there.
    pub fn is_missing(&self) -> bool {
        matches!(&self.kind, Kind::Read(source) if source.kind() == io::ErrorKind::NotFound)
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.kind {
            Kind::Read(source) if source.kind() == io::ErrorKind::NotFound => write!(
                f,
                "secret file {path} does not exist: write the secret into it and run chmod 600 {path}"
            ),
            Kind::Read(source) => write!(
                f,
                "secret file {path} cannot be read: {source}: make it readable for the user that runs Sluice"
            ),
            Kind::Write(source) if source.kind() == io::ErrorKind::AlreadyExists => write!(
                f,
                "secret file {path} exists already: move it away first, it is never overwritten"
            ),
            Kind::Write(source) => write!(
                f,
                "secret file {path} cannot be written: {source}: make its folder writable for the user that runs Sluice"
            ),
            Kind::Exposed(mode) => write!(
                f,
                "key file {path} can be used by others (mode {mode:03o}): run chmod 600 {path}"
            ),
            Kind::TooLong => write!(
                f,
                "secret file {path} is longer than {SECRET_BYTES_MAX} bytes: name the file that holds the secret alone"
            ),
            Kind::Empty => write!(f, "secret file {path} is empty: write the secret into it"),
        }
    }
}

impl error::Error for SecretError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.kind {
            Kind::Read(source) | Kind::Write(source) => Some(source),
            Kind::Exposed(_) | Kind::TooLong | Kind::Empty => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_private(&path, b"abc\n").unwrap();
        assert_eq!(read_private(&path).unwrap(), b"abc");
        let again = write_private(&path, b"other").unwrap_err();
        assert!(again.to_string().contains("never overwritten"), "{again}");
    }

    #[test]
    fn each_bad_file_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let missing = read(&path).unwrap_err();
        assert!(missing.is_missing());
        assert!(missing.to_string().contains("does not exist"), "{missing}");

        fs::write(&path, "\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("is empty"));

        fs::write(&path, vec![b'x'; SECRET_BYTES_MAX + 1]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("longer"));

        fs::write(&path, "abc").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(read(&path).unwrap(), b"abc");
        let exposed = read_private(&path).unwrap_err();
        assert!(exposed.to_string().contains("chmod 600"), "{exposed}");
    }
}
