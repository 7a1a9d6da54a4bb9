//! The ring: a mapped file in memory through which one worker hands frames to one journal thread.
//!
//! ```text
//! 0     8   magic "SLUICERG"
//! 8     u32 format version, 1
//! 12    u32 crc32c over bytes 0..12 and 16..56
//! 16    16  stream
//! 32    u64 bytes of the data area, a power of two
//! 40    16  home: which journal's folder the ring belongs to, see `ring/home.rs`
//! 128   u64 tail: end of the last whole frame, counted from 0 for ever
//! 256   u64 flushed: everything before it is in the log and synced
//! 384   u64 appended: records put into the ring
//! 392   u64 × 4 answers that went without their record, by reason: see `scoreboard.rs`
//! 4096  …   data area: frames as one byte stream, position p at p modulo the area's size
//! ```
//!
//! Little endian. The worker writes a frame into the free part and then publishes it by moving `tail` with Release; the
//! thread reads `tail` with Acquire, copies, syncs, and gives the bytes back by moving `flushed` with Release, which the
//! worker reads with Acquire. So the mapping's bytes never have a writer and a reader at once: `[flushed, tail)` is the
//! thread's, the rest is the worker's. Both sides keep their own position and use the file's only as news of the other.
//!
//! The file lies in a memory file system, because a store into a page of a disk's file waits for that disk: the kernel
//! writes the page back and protects it, and the next store asks the file system. It outlives the process and not the
//! machine, as what is not synced does anyway. All of it is allocated when it is made and locked in memory as far as that
//! is allowed, so that no store finds a file system full or a page swapped out. Whoever makes it holds its `flock` as long
//! as it is used.

mod home;
mod map;
mod remains;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, fstatfs};
use rustix::io::Errno;

use crate::frame::{HEAD_BYTES, Head};
use crate::writer::Full;
use crate::{Error, StreamId, file};

use home::{Home, link};
pub use home::{RINGS_IN, default_folder, is_unsealed};
pub(crate) use home::{remove, set_aside};
use map::Map;
pub(crate) use map::{Consumer, Counters, Producer};
pub(crate) use remains::{Found, Remains, counts, remains, take};

const _: () = assert!(
    cfg!(target_endian = "little"),
    "the ring's positions are stored as the machine stores them"
);

const MAGIC: &[u8; 8] = b"SLUICERG";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 56;
const PAGE_BYTES: usize = 4096;
const TAIL_AT: usize = 128;
const FLUSHED_AT: usize = 256;
const APPENDED_AT: usize = 384;
const UNRECORDED_AT: usize = 392;
/// One page: below it a ring is no ring.
const RING_BYTES_MIN: u64 = 4096;
/// A ring that finds too little room is made smaller, down to this: some ten thousand clicks, a second of the fastest worker.
const RING_BYTES_LEAST: u64 = 4 << 20;

/// What a writer counted: records, and answers that went without theirs, by reason in the order of [`Full::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) appended: u64,
    pub(crate) unrecorded: [u64; Full::ALL.len()],
}

/// A new ring: its two sides, its size, and whether it is locked in memory.
pub(crate) struct Made {
    pub(crate) producer: Producer,
    pub(crate) consumer: Consumer,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) is_locked: bool,
}

/// Makes an empty ring in `ring_folder` for the journal in `folder`, which then names it; a size that is no power of two is
/// rounded up. `counts` is what the journal's writers counted before.
pub(crate) fn create(
    folder: &Path,
    ring_folder: &Path,
    stream: StreamId,
    bytes: u64,
    counts: &Counts,
) -> Result<Made, Error> {
    let path = ring_folder.join(format!("{stream}.ring"));
    // The name comes before the file: who dies in between leaves no ring that nobody would find again.
    link(folder, &path)?;
    let create = || {
        home::make_private(ring_folder)?;
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("create", &path))
    };
    // Somebody who removed the last ring there may just remove the folder.
    let file = match create() {
        Err(error) if error.is_not_found() => create(),
        done => done,
    }?;
    let made = fill(&file, &path, folder, stream, bytes, counts);
    if made.is_err() {
        let _ = fs::remove_file(&path);
    }
    made
}

fn fill(
    file: &File,
    path: &Path,
    folder: &Path,
    stream: StreamId,
    bytes: u64,
    counts: &Counts,
) -> Result<Made, Error> {
    flock(file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|errno| Error::io("lock", path)(errno.into()))?;
    let asked = bytes.max(RING_BYTES_MIN).next_power_of_two();
    let bytes = allocate(file, path, asked)?;
    if bytes < asked {
        let ring = path.display();
        tracing::warn!(%ring, asked, bytes, "too little room for rings, this one is smaller");
    }
    if !is_memory(file) {
        let ring = path.display();
        tracing::warn!(%ring, "ring lies on a disk and waits for it: name a folder in a memory file system as edge.ring_folder");
    }
    let home = Home::of(folder)?;
    file::write(file, path, &header(stream, bytes, home), 0)?;
    let map = Map::of(file, bytes).map_err(Error::io("map", path))?;
    let is_locked = match map.lock() {
        Ok(()) => true,
        Err(error) => {
            let ring = path.display();
            tracing::warn!(%ring, %error, "ring is not locked in memory: raise the limit of locked memory (LimitMEMLOCK= of the unit, ulimit -l)");
            false
        }
    };
    map.count_from(counts);
    let (producer, consumer) = map::sides(map);
    Ok(Made {
        producer,
        consumer,
        path: path.to_owned(),
        bytes,
        is_locked,
    })
}

/// Gives the file all of its blocks: a page and so many bytes, or half as many, and so on, where there is no room.
fn allocate(file: &File, path: &Path, asked: u64) -> Result<u64, Error> {
    let mut bytes = asked;
    loop {
        let whole = PAGE_BYTES as u64 + bytes;
        #[cfg(test)]
        let allocated = crate::tests::disk::allocated(whole);
        #[cfg(not(test))]
        let allocated = Ok(());
        match allocated.and_then(|()| fallocate(file, FallocateFlags::empty(), 0, whole)) {
            Ok(()) => return Ok(bytes),
            Err(Errno::INTR) => {}
            Err(Errno::NOSPC | Errno::NOMEM | Errno::DQUOT)
                if bytes / 2 >= asked.min(RING_BYTES_LEAST) =>
            {
                bytes /= 2;
            }
            // A file system that cannot be asked for blocks is written full.
            Err(Errno::OPNOTSUPP) => {
                let zeros = vec![0; 1 << 16];
                for at in (0..whole).step_by(zeros.len()) {
                    let part = zeros.len().min((whole - at) as usize);
                    file::write(file, path, &zeros[..part], at)?;
                }
                return Ok(bytes);
            }
            Err(errno) => return Err(Error::io("allocate", path)(errno.into())),
        }
    }
}

/// Whether a file or folder lies in a memory file system; true where nobody says.
pub fn is_memory(of: impl AsFd) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    fstatfs(of).map_or(true, |found| {
        let kind = found.f_type.cast_unsigned();
        [TMPFS, RAMFS].contains(&kind)
    })
}

fn header(stream: StreamId, data_bytes: u64, home: Home) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..32].copy_from_slice(&stream.0);
    bytes[32..40].copy_from_slice(&data_bytes.to_le_bytes());
    bytes[40..56].copy_from_slice(&home.bytes());
    let crc = checksum(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn checksum(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[0..12]), &header[16..HEADER_BYTES])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_ring_had_holes_that_a_full_disk_could_not_fill() {
        let folder = crate::tests::folder();
        let path = folder.path().join("ring");
        let file = File::create_new(&path).unwrap();
        let bytes = allocate(&file, &path, 1 << 20).unwrap();
        let found = file.metadata().unwrap();
        assert_eq!(found.len(), PAGE_BYTES as u64 + bytes);
        assert!(found.blocks() * 512 >= found.len(), "{}", found.blocks());
    }

    #[test]
    fn golden_header() {
        let home = Home {
            inode: 7,
            made_ns: 9,
        };
        let hex: String = header(StreamId(*b"0123456789abcdef"), 4096, home)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "534c55494345524701000000014943bf30313233343536373839616263646566001000000000000007000000000000000900000000000000"
        );
    }
}
