//! A catalog as bytes, for edges and consumers.
//!
//! | magic | format | checksum | length | body |
//! |---|---|---|---|---|
//! | `SLUICECT` | u32 | u32, crc32c over length and body | u64 | postcard |
//!
//! Numbers are little-endian. Another format than [`FORMAT`] is refused: an older one once there is one will be upgraded
//! here, a newer one needs a newer program.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::Catalog;

/// The format this version writes.
pub const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"SLUICECT";
const HEAD_BYTES: usize = 24;
/// Largest snapshot read: several times what the largest catalog encodes to.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 256 << 20;

/// Why a snapshot cannot be used.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    path: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    NotASnapshot,
    Newer(u32),
    Damaged,
    BadCurrent,
    Disk(io::Error),
}

impl Error {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, path: None }
    }

    pub(crate) fn at(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What happened, without the path.
    pub(crate) fn what(&self) -> String {
        match &self.kind {
            Kind::NotASnapshot => "not a catalog snapshot".to_owned(),
            Kind::Newer(format) => format!(
                "catalog snapshot of format {format}, this version reads up to {FORMAT}: use a newer version of sluice"
            ),
            Kind::Damaged => "catalog snapshot is damaged: restore it from backup".to_owned(),
            Kind::BadCurrent => {
                "does not name a catalog version: write the number of the newest snapshot into it"
                    .to_owned()
            }
            Kind::Disk(_) => "cannot be read or written".to_owned(),
        }
    }

    /// Whether a newer program wrote it.
    pub fn is_newer(&self) -> bool {
        matches!(self.kind, Kind::Newer(_))
    }

    /// Whether it is not there.
    pub fn is_missing(&self) -> bool {
        matches!(&self.kind, Kind::Disk(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        f.write_str(&self.what())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::Disk(error) => Some(error),
            _ => None,
        }
    }
}

impl Catalog {
    /// The snapshot's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("the model has no type postcard refuses");
        let length = (body.len() as u64).to_le_bytes();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(checksum(&length, &body).to_le_bytes());
        bytes.extend(length);
        bytes.extend(body);
        bytes
    }

    /// The inverse of [`Self::encode`].
    ///
    /// # Errors
    /// Not a snapshot, damaged, or of a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let Some((head, body)) = bytes.split_at_checked(HEAD_BYTES) else {
            let kind = if bytes.starts_with(MAGIC) {
                Kind::Damaged
            } else {
                Kind::NotASnapshot
            };
            return Err(Error::new(kind));
        };
        if !head.starts_with(MAGIC) {
            return Err(Error::new(Kind::NotASnapshot));
        }
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        match word(8) {
            FORMAT => {}
            0 => return Err(Error::new(Kind::Damaged)),
            newer => return Err(Error::new(Kind::Newer(newer))),
        }
        let length = &head[16..24];
        let complete = length == (body.len() as u64).to_le_bytes();
        if !complete || word(12) != checksum(length, body) {
            return Err(Error::new(Kind::Damaged));
        }
        match postcard::take_from_bytes(body) {
            Ok((catalog, [])) => Ok(catalog),
            _ => Err(Error::new(Kind::Damaged)),
        }
    }
}

fn checksum(length: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(length), body)
}
