//! A catalog as a file, for edges and consumers.
//!
//! | head | body | directory | buckets | entries |
//! |---|---|---|---|---|
//! | 64 bytes | postcard: everything but the links | [`crate::links::entries`] | [`crate::links::index`] | [`crate::links::entries`] |
//!
//! The directory and the buckets begin at a multiple of 64 bytes, with zeros before them. The head, little-endian:
//!
//! | bytes | |
//! |---|---|
//! | 0 | magic `SLUICECT` |
//! | 8 | format, u32 |
//! | 12 | crc32c of the head from byte 16 |
//! | 16 | body's length, u64 |
//! | 24 | body's crc32c |
//! | 28 | crc32c from the body's end to the entries |
//! | 32 | entries' crc32c |
//! | 36 | how many entries, u32: the greatest number handed out |
//! | 40 | how many of them are links that are there, u32 |
//! | 44 | zero, u32 |
//! | 48 | entries' length, u64 |
//! | 56 | version of the body, of directory and buckets, of the entries, u8 each; zero to byte 64 |
//!
//! Opening checks all but the entries, so that it takes as long for a link as for millions; [`crate::Links::verify`] checks
//! these.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    Catalog, Links,
    links::{
        entries::{Directory, Entries, HEAP_BYTES_MAX},
        index,
    },
};

/// The format this version writes.
pub const FORMAT: u32 = 3;

const MAGIC: &[u8; 8] = b"SLUICECT";
/// What comes before the body; also what directory and buckets are aligned to: a cache line.
const HEAD_BYTES: usize = 64;
/// Versions of the parts. A part that changes makes a new format; these say which one it was.
const PARTS: [u8; 8] = [1, 1, 1, 0, 0, 0, 0, 0];
/// Largest body read: several times what the largest catalog encodes to without its links.
const BODY_BYTES_MAX: u64 = 256 << 20;
/// Largest file that is mapped: more than the entries can take, and what the index of as many as fit there takes.
const SNAPSHOT_BYTES_MAX: u64 = 8 << 30;

/// Why a snapshot cannot be used.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    path: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    NotASnapshot,
    OtherFormat(u32),
    Damaged,
    TooLarge,
    BadCurrent,
    OtherLock,
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
            Kind::OtherFormat(format) => format!(
                "catalog snapshot of format {format}, this version reads format {FORMAT}: use the version of sluice that wrote it, or apply the catalog again"
            ),
            Kind::Damaged => "catalog snapshot is damaged: restore it from backup".to_owned(),
            Kind::TooLarge => format!(
                "catalog snapshot would take more than {} GiB: remove links, or their sub ids",
                SNAPSHOT_BYTES_MAX >> 30
            ),
            Kind::BadCurrent => {
                "does not name a catalog version: write the number of the newest snapshot into it"
                    .to_owned()
            }
            Kind::OtherLock => {
                "has its numbers from another catalog.lock: they mean other things. Put the catalog back that belongs here"
                    .to_owned()
            }
            Kind::Disk(_) => "cannot be read or written".to_owned(),
        }
    }

    /// Whether it is damaged.
    pub(crate) fn is_damaged(&self) -> bool {
        matches!(self.kind, Kind::Damaged | Kind::NotASnapshot)
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

/// What a head says of the rest.
#[derive(Clone, Copy, Default)]
struct Head {
    pub(crate) body_bytes: u64,
    pub(crate) body_checksum: u32,
    pub(crate) index_checksum: u32,
    pub(crate) entries_checksum: u32,
    pub(crate) count: u32,
    pub(crate) live: u32,
    pub(crate) entries_bytes: u64,
}

/// Where each part begins, and where the file ends.
struct Places {
    pub(crate) directory: u64,
    pub(crate) buckets: u64,
    pub(crate) entries: u64,
    end: u64,
}

impl Head {
    /// `None` when a length is out of bounds.
    pub(crate) fn places(&self) -> Option<Places> {
        let aligned = |at: u64| at.next_multiple_of(HEAD_BYTES as u64);
        let bounded = self.body_bytes <= BODY_BYTES_MAX && self.entries_bytes <= HEAP_BYTES_MAX;
        let directory = aligned(HEAD_BYTES as u64 + bounded.then_some(self.body_bytes)?);
        let buckets = aligned(directory + Directory::bytes_for(self.count));
        let entries = buckets + index::bytes_for(self.live);
        let end = entries + self.entries_bytes;
        (end <= SNAPSHOT_BYTES_MAX).then_some(Places {
            directory,
            buckets,
            entries,
            end,
        })
    }

    fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, MAGIC);
        put(8, &FORMAT.to_le_bytes());
        put(16, &self.body_bytes.to_le_bytes());
        put(24, &self.body_checksum.to_le_bytes());
        put(28, &self.index_checksum.to_le_bytes());
        put(32, &self.entries_checksum.to_le_bytes());
        put(36, &self.count.to_le_bytes());
        put(40, &self.live.to_le_bytes());
        put(48, &self.entries_bytes.to_le_bytes());
        put(56, &PARTS);
        let checksum = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` when it is damaged.
    fn decode(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("in the head"));
        let long = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("in the head"));
        let good = word(12) == crc32c::crc32c(&bytes[16..]) && bytes[56..] == PARTS;
        good.then(|| Self {
            body_bytes: long(16),
            body_checksum: word(24),
            index_checksum: word(28),
            entries_checksum: word(32),
            count: word(36),
            live: word(40),
            entries_bytes: long(48),
        })
    }
}

/// Everything of a catalog's snapshot but the entries of its links, so many bytes that follow it.
pub(crate) fn before_entries(catalog: &Catalog, entries_bytes: u64) -> Option<Vec<u8>> {
    let Links {
        entries,
        buckets,
        live,
        checksum,
    } = &catalog.links;
    let body = postcard::to_stdvec(catalog).expect("the model has no type postcard refuses");
    let mut head = Head {
        body_bytes: body.len() as u64,
        body_checksum: crc32c::crc32c(&body),
        index_checksum: 0,
        entries_checksum: *checksum,
        count: entries.count,
        live: *live,
        entries_bytes,
    };
    let places = head.places()?;
    let place = |at: u64| usize::try_from(at).expect("a program's memory can be addressed");
    let mut bytes = vec![0; HEAD_BYTES];
    bytes.reserve_exact(place(places.entries) - HEAD_BYTES);
    bytes.extend(body);
    let index = bytes.len();
    bytes.resize(place(places.directory), 0);
    bytes.extend_from_slice(&entries.directory);
    bytes.resize(place(places.buckets), 0);
    bytes.extend_from_slice(buckets);
    head.index_checksum = crc32c::crc32c(&bytes[index..]);
    bytes[..HEAD_BYTES].copy_from_slice(&head.encode());
    Some(bytes)
}

/// Where the entries of so many links begin.
pub(crate) fn entries_place(catalog: &Catalog, count: u32, live: u32) -> Option<u64> {
    let body = postcard::to_stdvec(catalog).expect("the model has no type postcard refuses");
    let head = Head {
        body_bytes: body.len() as u64,
        count,
        live,
        ..Head::default()
    };
    Some(head.places()?.entries)
}

impl Catalog {
    /// The snapshot's bytes; `None` when they are more than a snapshot may have.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = before_entries(self, self.links.entries.heap.len() as u64)?;
        bytes.extend_from_slice(&self.links.entries.heap);
        Some(bytes)
    }

    /// The inverse of [`Self::encode`], with everything checked.
    ///
    /// # Errors
    /// Not a snapshot, damaged, or of another format.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let catalog = Self::open(&Bytes::copy_from_slice(bytes))?;
        catalog.verify()?;
        Ok(catalog)
    }

    /// Checks what opening it did not.
    ///
    /// # Errors
    /// Damaged.
    pub fn verify(&self) -> Result<(), Error> {
        let good = self.links.verify();
        good.then_some(()).ok_or(Error::new(Kind::Damaged))
    }

    /// A snapshot whose links stay where they are in the bytes, and are not all checked.
    pub(crate) fn open(bytes: &Bytes) -> Result<Self, Error> {
        let damaged = || Error::new(Kind::Damaged);
        if !bytes.starts_with(MAGIC) {
            return Err(Error::new(Kind::NotASnapshot));
        }
        let format = bytes.get(8..12).ok_or_else(damaged)?;
        match u32::from_le_bytes(*format.first_chunk().expect("four bytes")) {
            0 => Err(damaged()),
            FORMAT => open(bytes).ok_or_else(damaged),
            other => Err(Error::new(Kind::OtherFormat(other))),
        }
    }
}

/// `None` when it is damaged.
fn open(bytes: &Bytes) -> Option<Catalog> {
    let head = Head::decode(bytes.first_chunk()?)?;
    let places = head.places()?;
    if bytes.len() as u64 != places.end {
        return None;
    }
    let place = |at: u64| usize::try_from(at).expect("not beyond the end of what is in memory");
    let body_end = place(HEAD_BYTES as u64 + head.body_bytes);
    let body = &bytes[HEAD_BYTES..body_end];
    let index = &bytes[body_end..place(places.entries)];
    let good =
        crc32c::crc32c(body) == head.body_checksum && crc32c::crc32c(index) == head.index_checksum;
    let (mut catalog, rest) = postcard::take_from_bytes::<Catalog>(good.then_some(body)?).ok()?;
    let directory_end = places.directory + Directory::bytes_for(head.count);
    catalog.links = Links {
        entries: Entries {
            count: head.count,
            directory: bytes.slice(place(places.directory)..place(directory_end)),
            heap: bytes.slice(place(places.entries)..),
        },
        buckets: bytes.slice(place(places.buckets)..place(places.entries)),
        live: head.live,
        checksum: head.entries_checksum,
    };
    rest.is_empty().then_some(catalog)
}
