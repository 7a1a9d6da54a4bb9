//! What a process left in its ring, read as a plain file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::geteuid;

use super::home::{self, Home};
use super::{
    APPENDED_AT, Counts, FLUSHED_AT, Full, HEAD_BYTES, Head, MAGIC, PAGE_BYTES, TAIL_AT,
    UNRECORDED_AT, VERSION, checksum,
};
use crate::{Error, StreamId};

/// What a dead process left in its ring.
pub(crate) struct Remains {
    pub(crate) stream: StreamId,
    pub(crate) tail: u64,
    pub(crate) flushed: u64,
    pub(crate) counts: Counts,
    /// The data area, turned so that it begins at `tail`: oldest byte first, newest last.
    pub(crate) data: Vec<u8>,
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// Its lock, where it was taken.
    _file: File,
}

impl Remains {
    /// Sequence of the last record that was not flushed; 0 where there is none.
    pub(crate) fn last_unflushed(&self) -> u64 {
        let unflushed = self.tail.saturating_sub(self.flushed) as usize;
        let mut rest = &self.data[self.data.len().saturating_sub(unflushed)..];
        let mut last = 0;
        while rest.len() >= HEAD_BYTES
            && let Some(head) = Head::parse(rest)
        {
            last = head.sequence;
            rest = rest.get(head.frame_bytes()..).unwrap_or_default();
        }
        last
    }
}

/// The ring of this journal. None where there is none: its writer ended in good order, or the machine was started again.
pub(crate) fn remains(folder: &Path) -> Result<Option<Remains>, Error> {
    let Some((mut file, path, page)) = open(folder)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(Error::io("read", &path))?;
    let (size, tail) = (page.u64_at(32), page.u64_at(TAIL_AT));
    let data_bytes = bytes.len().saturating_sub(PAGE_BYTES) as u64;
    if data_bytes != size || !size.is_power_of_two() {
        return Ok(None);
    }
    bytes.drain(..PAGE_BYTES);
    bytes.rotate_left((tail & (size - 1)) as usize);
    Ok(Some(Remains {
        stream: page.stream(),
        tail,
        flushed: page.u64_at(FLUSHED_AT),
        counts: page.counts(),
        data: bytes,
        path,
        _file: file,
    }))
}

/// What a recovery finds.
pub(crate) enum Found {
    Nothing,
    /// The recovery's to save and remove.
    Ring(Remains),
    /// Somebody uses it: this folder is the same disk seen a second time, and the ring is the other one's.
    InUse,
}

/// As [`remains`], for whoever saves and removes it.
pub(crate) fn take(folder: &Path) -> Result<Found, Error> {
    let Some(remains) = remains(folder)? else {
        return Ok(Found::Nothing);
    };
    match flock(&remains._file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Found::Ring(remains)),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let (folder, ring) = (folder.display(), remains.path.display());
            tracing::warn!(%folder, %ring, "the ring is in use by the journal this folder is a copy of, and left to it");
            Ok(Found::InUse)
        }
        Err(errno) => Err(Error::io("lock", &remains.path)(errno.into())),
    }
}

/// What the ring's writer counted, as it says now, and that writer's stream.
pub(crate) fn counts(folder: &Path) -> Result<Option<(StreamId, Counts)>, Error> {
    Ok(open(folder)?.map(|(_, _, page)| (page.stream(), page.counts())))
}

/// The first page of a ring.
struct Page([u8; PAGE_BYTES]);

impl Page {
    fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("8 bytes"))
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("4 bytes"))
    }

    fn stream(&self) -> StreamId {
        StreamId(self.0[16..32].try_into().expect("16 bytes"))
    }

    fn counts(&self) -> Counts {
        Counts {
            appended: self.u64_at(APPENDED_AT),
            unrecorded: Full::ALL.map(|why| self.u64_at(UNRECORDED_AT + 8 * why as usize)),
        }
    }
}

/// The file that the journal's folder names, if it is a ring of this folder.
fn open(folder: &Path) -> Result<Option<(File, PathBuf, Page)>, Error> {
    let Some(path) = home::linked(folder)? else {
        return Ok(None);
    };
    let opened = File::options()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", &path)(error)),
    };
    let mut page = Page([0; PAGE_BYTES]);
    match file.read_exact_at(&mut page.0, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(Error::io("read", &path)(error)),
    }
    if &page.0[0..8] != MAGIC || page.u32_at(12) != checksum(&page.0) {
        return Ok(None);
    }
    if page.u32_at(8) != VERSION {
        return Err(Error::newer_format(&path, page.u32_at(8)));
    }
    let owners = std::fs::metadata(folder).and_then(|folder| {
        let ring = file.metadata()?;
        Ok((folder.uid(), ring.uid()))
    });
    let (owner, ring_owner) = owners.map_err(Error::io("read", &path))?;
    let is_ours = ring_owner == owner || ring_owner == geteuid().as_raw();
    let is_home = page.0[40..56] == Home::of(folder)?.bytes();
    Ok((is_ours && is_home).then_some((file, path, page)))
}
