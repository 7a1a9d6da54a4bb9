//! The ring: a mapped file through which one worker hands frames to one journal thread.
//!
//! ```text
//! 0     8   magic "SLUICERG"
//! 8     u32 format version, 1
//! 12    u32 crc32c over bytes 0..12 and 16..40
//! 16    16  stream
//! 32    u64 bytes of the data area, a power of two
//! 128   u64 tail: end of the last whole frame, counted from 0 for ever
//! 256   u64 flushed: everything before it is in the log and synced
//! 4096  …   data area: frames as one byte stream, position p at p modulo the area's size
//! ```
//!
//! Little endian. The worker writes a frame into the free part and then publishes it by moving `tail` with Release; the
//! thread reads `tail` with Acquire, copies, syncs, and gives the bytes back by moving `flushed` with Release, which the
//! worker reads with Acquire. So the mapping's bytes never have a writer and a reader at once: `[flushed, tail)` is the
//! thread's, the rest is the worker's. Both sides keep their own position and use the file's only as news of the other.
//!
//! The file is written full when it is made, so that a later store finds its block and no store meets a full disk. It is
//! never synced: its job is to outlive the process, not the machine.
#![allow(
    unsafe_code,
    reason = "the one shared mapping of the crate; each block says who upholds it"
)]

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use crate::frame::{HEAD_BYTES, Head};
use crate::{Error, StreamId, file};

const _: () = assert!(
    cfg!(target_endian = "little"),
    "the ring's positions are stored as the machine stores them"
);

const MAGIC: &[u8; 8] = b"SLUICERG";
const VERSION: u32 = 1;
const PAGE_BYTES: usize = 4096;
const TAIL_AT: usize = 128;
const FLUSHED_AT: usize = 256;
/// One page: below it a ring is no ring.
const RING_BYTES_MIN: u64 = 4096;

pub(crate) const NAME: &str = "ring";

struct Map {
    raw: MmapRaw,
    mask: u64,
}

/// The worker's side.
pub(crate) struct Producer {
    map: Arc<Map>,
    tail: u64,
}

/// The journal thread's side.
pub(crate) struct Consumer {
    map: Arc<Map>,
    flushed: u64,
}

/// Replaces the folder's ring by an empty one; a size that is no power of two is rounded up.
pub(crate) fn create(
    folder: &Path,
    stream: StreamId,
    bytes: u64,
) -> Result<(Producer, Consumer), Error> {
    let bytes = bytes.max(RING_BYTES_MIN).next_power_of_two();
    let path = folder.join(NAME);
    let young = folder.join("ring.new");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&young)
        .map_err(Error::io("create", &young))?;
    let zeros = vec![0; 1 << 16];
    let mut at = 0;
    while at < bytes + PAGE_BYTES as u64 {
        let part = zeros.len().min((bytes + PAGE_BYTES as u64 - at) as usize);
        file::write(&file, &young, &zeros[..part], at)?;
        at += part as u64;
    }
    file::write(&file, &young, &header(stream, bytes), 0)?;
    fs::rename(&young, &path).map_err(Error::io("create", &path))?;

    let raw = MmapOptions::new()
        .len(PAGE_BYTES + bytes as usize)
        .populate()
        .map_raw(&file)
        .map_err(Error::io("map", &path))?;
    let map = Arc::new(Map {
        raw,
        mask: bytes - 1,
    });
    Ok((
        Producer {
            map: Arc::clone(&map),
            tail: 0,
        },
        Consumer { map, flushed: 0 },
    ))
}

impl Producer {
    pub(crate) fn has_room(&self, frame_bytes: usize) -> bool {
        let used = self
            .tail
            .saturating_sub(self.map.flushed().load(Ordering::Acquire));
        used.saturating_add(frame_bytes as u64) <= self.map.data_bytes()
    }

    /// False, and nothing written, where there is no room.
    pub(crate) fn push(&mut self, head: &Head, payload: &[u8]) -> bool {
        if !self.has_room(head.frame_bytes()) {
            return false;
        }
        let padding = [0; crate::frame::ALIGN];
        let padding_bytes = head.frame_bytes() - HEAD_BYTES - payload.len();
        let payload_at = self.tail + HEAD_BYTES as u64;
        // SAFETY: `has_room` found [tail, tail + frame) outside [flushed, tail), so that only this side, of which there
        // is one and which is borrowed mutably, touches these bytes until `tail` is moved below.
        unsafe {
            self.map.copy_in(self.tail, &head.bytes());
            self.map.copy_in(payload_at, payload);
            self.map
                .copy_in(payload_at + payload.len() as u64, &padding[..padding_bytes]);
        }
        self.tail += head.frame_bytes() as u64;
        self.map.tail().store(self.tail, Ordering::Release);
        true
    }
}

impl Consumer {
    pub(crate) fn unflushed_bytes(&self) -> u64 {
        self.map
            .tail()
            .load(Ordering::Acquire)
            .saturating_sub(self.flushed)
    }

    /// The frames not yet given back, in order, as the one or two pieces in which they lie.
    pub(crate) fn unflushed(&self) -> [&[u8]; 2] {
        let bytes = self.unflushed_bytes();
        assert!(
            bytes <= self.map.data_bytes(),
            "the ring's tail is not beyond its room"
        );
        let start = self.flushed & self.map.mask;
        let first = bytes.min(self.map.data_bytes() - start);
        // SAFETY: [flushed, tail) was published with Release and is left alone by the worker until `release`, which
        // needs this side mutably and therefore ends these borrows; both pieces lie inside the data area.
        unsafe {
            let data = self.map.data();
            [
                std::slice::from_raw_parts(data.add(start as usize), first as usize),
                std::slice::from_raw_parts(data, (bytes - first) as usize),
            ]
        }
    }

    /// Gives the oldest `bytes` back to the worker.
    pub(crate) fn release(&mut self, bytes: u64) {
        assert!(
            bytes <= self.unflushed_bytes(),
            "only published bytes are given back"
        );
        self.flushed += bytes;
        self.map.flushed().store(self.flushed, Ordering::Release);
    }
}

impl Map {
    fn data_bytes(&self) -> u64 {
        self.mask + 1
    }

    fn data(&self) -> *mut u8 {
        // SAFETY: the mapping is one page longer than the data area, by `create`.
        unsafe { self.raw.as_mut_ptr().add(PAGE_BYTES) }
    }

    fn tail(&self) -> &AtomicU64 {
        // SAFETY: 8-aligned, inside the header page, mapped as long as `self`, and only ever used as an atomic.
        unsafe { AtomicU64::from_ptr(self.raw.as_mut_ptr().add(TAIL_AT).cast()) }
    }

    fn flushed(&self) -> &AtomicU64 {
        // SAFETY: as for `tail`.
        unsafe { AtomicU64::from_ptr(self.raw.as_mut_ptr().add(FLUSHED_AT).cast()) }
    }

    /// # Safety
    /// The caller owns the positions `[at, at + bytes.len())` and they are no more than the data area.
    unsafe fn copy_in(&self, at: u64, bytes: &[u8]) {
        let start = (at & self.mask) as usize;
        let first = bytes.len().min(self.data_bytes() as usize - start);
        // SAFETY: both pieces end inside the data area by the line above; the caller owns them.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.data().add(start), first);
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr().add(first),
                self.data(),
                bytes.len() - first,
            );
        }
    }
}

/// What a dead process left in its ring, read as a plain file.
pub(crate) struct Remains {
    pub(crate) stream: StreamId,
    pub(crate) tail: u64,
    pub(crate) flushed: u64,
    /// The data area, turned so that it begins at `tail`: oldest byte first, newest last.
    pub(crate) data: Vec<u8>,
}

/// None where there is no ring, or none with a valid header (a power cut before its first page was written back).
pub(crate) fn remains(folder: &Path) -> Result<Option<Remains>, Error> {
    let path = folder.join(NAME);
    let mut bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    if bytes.len() < PAGE_BYTES {
        return Ok(None);
    }
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    if &bytes[0..8] != MAGIC || u32_at(12) != checksum(&bytes) {
        return Ok(None);
    }
    if u32_at(8) != VERSION {
        return Err(Error::newer_format(&path, u32_at(8)));
    }
    let (size, tail, flushed) = (u64_at(32), u64_at(TAIL_AT), u64_at(FLUSHED_AT));
    let stream = StreamId(bytes[16..32].try_into().expect("16 bytes"));
    if (bytes.len() - PAGE_BYTES) as u64 != size || !size.is_power_of_two() {
        return Ok(None);
    }
    bytes.drain(..PAGE_BYTES);
    bytes.rotate_left((tail & (size - 1)) as usize);
    Ok(Some(Remains {
        stream,
        tail,
        flushed,
        data: bytes,
    }))
}

fn header(stream: StreamId, data_bytes: u64) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[0..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..32].copy_from_slice(&stream.0);
    bytes[32..40].copy_from_slice(&data_bytes.to_le_bytes());
    let crc = checksum(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn checksum(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[0..12]), &header[16..40])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_header() {
        let hex: String = header(StreamId(*b"0123456789abcdef"), 4096)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "534c5549434552470100000073071867303132333435363738396162636465660010000000000000"
        );
    }
}
