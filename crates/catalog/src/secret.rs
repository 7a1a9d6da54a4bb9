//! Secrets are named in the catalog, never written there.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Shortest secret: what is shorter is guessed.
pub const SECRET_BYTES_MIN: usize = 8;
/// Longest secret: a file beyond it is not a secret but a mistake.
pub const SECRET_BYTES_MAX: usize = 4096;

/// Where a secret is kept.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq, Debug)]
pub enum SecretRef {
    /// The whole file, without the line's end.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
}

impl SecretRef {
    /// Reads `file:NAME` or `env:NAME`; the error says what was expected.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        match text.split_once(':') {
            Some(("file", name)) if !name.is_empty() && !name.contains('\0') => {
                Ok(Self::File(name.into()))
            }
            Some(("env", name)) if !name.is_empty() && !name.contains(['\0', '=']) => {
                Ok(Self::Env(name.to_owned()))
            }
            _ => Err(
                r#"expected "file:NAME" or "env:NAME": secrets are named here, never written here"#,
            ),
        }
    }

    /// Puts a file that is named relative to a folder there. The name itself stays the same on every machine.
    pub(crate) fn resolve(&mut self, folder: &Path) {
        if let Self::File(path) = self {
            *path = folder.join(&*path);
        }
    }

    /// The secret's bytes.
    ///
    /// # Errors
    /// It is missing, or its length is outside of [`SECRET_BYTES_MIN`] and [`SECRET_BYTES_MAX`]. The text never
    /// contains the secret.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self {
            Self::File(path) => {
                let file = File::open(path)?;
                // A pipe or a device would never end, and a folder is no secret.
                if !file.metadata()?.is_file() {
                    return Err(io::Error::other("not a plain file"));
                }
                // Five more for a mark and the line's end, one more to see that it is too long.
                file.take(SECRET_BYTES_MAX as u64 + 6)
                    .read_to_end(&mut bytes)?;
            }
            Self::Env(name) => {
                let value = std::env::var_os(name)
                    .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "not set"))?;
                bytes = value.into_encoded_bytes();
            }
        }
        // A program of Windows may have put a mark before it, which nobody ever sends.
        let marked = text::without_mark(&bytes).map_err(io::Error::other)?;
        let secret = marked.strip_suffix(b"\n").unwrap_or(marked);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        if secret.iter().any(u8::is_ascii_control) {
            return Err(io::Error::other(
                "has more than one line, or a byte that no header can carry",
            ));
        }
        if secret.trim_ascii() != secret {
            return Err(io::Error::other(
                "begins or ends with a blank, which no header carries",
            ));
        }
        let bytes = secret.to_vec();
        match bytes.len() {
            0 => Err(io::Error::other("empty")),
            1..SECRET_BYTES_MIN => Err(io::Error::other(format!(
                "shorter than {SECRET_BYTES_MIN} bytes"
            ))),
            SECRET_BYTES_MIN..=SECRET_BYTES_MAX => Ok(bytes),
            _ => Err(io::Error::other(format!(
                "longer than {SECRET_BYTES_MAX} bytes"
            ))),
        }
    }
}

impl std::fmt::Display for SecretRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "variable {name}"),
        }
    }
}
