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

#[cfg(loom)]
use loom::sync::atomic::Ordering;
#[cfg(not(loom))]
use std::sync::atomic::Ordering;

use map::Map;
pub(crate) use map::Words;

use crate::frame::{HEAD_BYTES, Head};
use crate::{Error, StreamId, file};

const _: () = assert!(
    cfg!(target_endian = "little"),
    "the ring's positions are stored as the machine stores them"
);

const MAGIC: &[u8; 8] = b"SLUICERG";
const VERSION: u32 = 1;
pub(crate) const PAGE_BYTES: usize = 4096;
const TAIL_AT: usize = 128;
const FLUSHED_AT: usize = 256;
/// One page: below it a ring is no ring.
const RING_BYTES_MIN: u64 = 4096;

pub(crate) const NAME: &str = "ring";

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

    Ok(ends(
        Map::of(&file, bytes).map_err(Error::io("map", &path))?,
    ))
}

/// The two sides of an empty ring.
fn ends(map: Map) -> (Producer, Consumer) {
    let map = Arc::new(map);
    let producer = Producer {
        map: Arc::clone(&map),
        tail: 0,
    };
    (producer, Consumer { map, flushed: 0 })
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
        // SAFETY: [flushed, tail) was published with Release and is left alone by the worker until `release`, which
        // needs this side mutably and therefore ends these borrows.
        unsafe { self.map.pieces(self.flushed, bytes) }
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

#[cfg(not(loom))]
mod map {
    use std::fs::File;
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};

    use memmap2::{MmapOptions, MmapRaw};

    use super::{FLUSHED_AT, PAGE_BYTES, TAIL_AT};

    pub(super) struct Map {
        raw: MmapRaw,
        mask: u64,
    }

    impl Map {
        /// Of a file of one page and `bytes`, a power of two.
        pub(super) fn of(file: &File, bytes: u64) -> io::Result<Map> {
            let raw = MmapOptions::new()
                .len(PAGE_BYTES + bytes as usize)
                .populate()
                .map_raw(file)?;
            // For writing too, or the first record in each page waits for the file system. Only advice: an older kernel does
            // not know it.
            #[cfg(target_os = "linux")]
            let _ = raw.advise(memmap2::Advice::PopulateWrite);
            Ok(Map {
                raw,
                mask: bytes - 1,
            })
        }

        pub(super) fn data_bytes(&self) -> u64 {
            self.mask + 1
        }

        fn data(&self) -> *mut u8 {
            // SAFETY: the mapping is one page longer than the data area, by `of`.
            unsafe { self.raw.as_mut_ptr().add(PAGE_BYTES) }
        }

        pub(super) fn tail(&self) -> &AtomicU64 {
            // SAFETY: 8-aligned, inside the header page, mapped as long as `self`, and only ever used as an atomic.
            unsafe { AtomicU64::from_ptr(self.raw.as_mut_ptr().add(TAIL_AT).cast()) }
        }

        pub(super) fn flushed(&self) -> &AtomicU64 {
            // SAFETY: as for `tail`.
            unsafe { AtomicU64::from_ptr(self.raw.as_mut_ptr().add(FLUSHED_AT).cast()) }
        }

        /// # Safety
        /// The caller owns the positions `[at, at + bytes.len())` and they are no more than the data area.
        pub(super) unsafe fn copy_in(&self, at: u64, bytes: &[u8]) {
            let start = (at & self.mask) as usize;
            let first = bytes.len().min(self.data_bytes() as usize - start);
            // SAFETY: both pieces end inside the data area by the line above; the caller owns them.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.data().add(start), first);
                if first < bytes.len() {
                    std::ptr::copy_nonoverlapping(
                        bytes.as_ptr().add(first),
                        self.data(),
                        bytes.len() - first,
                    );
                }
            }
        }

        /// The positions `[at, at + bytes)` as the one or two pieces in which they lie.
        ///
        /// # Safety
        /// Nobody writes to these positions while the pieces are borrowed, and they are no more than the data area.
        pub(super) unsafe fn pieces(&self, at: u64, bytes: u64) -> [&[u8]; 2] {
            let start = at & self.mask;
            let first = bytes.min(self.data_bytes() - start);
            // SAFETY: both pieces end inside the data area by the line above; the caller keeps writers away.
            unsafe {
                [
                    std::slice::from_raw_parts(self.data().add(start as usize), first as usize),
                    std::slice::from_raw_parts(self.data(), (bytes - first) as usize),
                ]
            }
        }
    }

    /// One page of numbers, each stored by one thread and looked at by any: the scoreboard's counters.
    pub(crate) struct Words(MmapRaw);

    impl Words {
        pub(crate) fn of(file: &File) -> io::Result<Words> {
            MmapOptions::new().len(PAGE_BYTES).map_raw(file).map(Words)
        }

        fn word(&self, at: usize) -> &AtomicU64 {
            assert!(
                at.is_multiple_of(8) && at < PAGE_BYTES,
                "a word of the page is meant"
            );
            // SAFETY: 8-aligned and inside the page by the line above, mapped as long as `self`, and only ever used as an
            // atomic.
            unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().add(at).cast()) }
        }

        pub(crate) fn get(&self, at: usize) -> u64 {
            self.word(at).load(Ordering::Relaxed)
        }

        pub(crate) fn set(&self, at: usize, number: u64) {
            self.word(at).store(number, Ordering::Relaxed);
        }
    }
}

/// The same memory for loom, which follows who may see what each position and each byte holds. Only the memory differs:
/// what the two sides do with it is the code above.
#[cfg(loom)]
mod map {
    use std::fs::File;
    use std::io;

    use loom::cell::UnsafeCell;
    use loom::sync::atomic::AtomicU64;

    pub(super) struct Map {
        tail: AtomicU64,
        flushed: AtomicU64,
        data: Box<[UnsafeCell<u8>]>,
    }

    // SAFETY: as the mapping is; that the sides keep off each other's cells is what loom finds out.
    unsafe impl Sync for Map {}

    impl Map {
        pub(super) fn of(_file: &File, bytes: u64) -> io::Result<Map> {
            Ok(Map::new(bytes))
        }

        pub(super) fn new(bytes: u64) -> Map {
            Map {
                tail: AtomicU64::new(0),
                flushed: AtomicU64::new(0),
                data: (0..bytes).map(|_| UnsafeCell::new(0)).collect(),
            }
        }

        pub(super) fn data_bytes(&self) -> u64 {
            self.data.len() as u64
        }

        pub(super) fn tail(&self) -> &AtomicU64 {
            &self.tail
        }

        pub(super) fn flushed(&self) -> &AtomicU64 {
            &self.flushed
        }

        fn cell(&self, at: u64) -> &UnsafeCell<u8> {
            &self.data[(at % self.data_bytes()) as usize]
        }

        /// # Safety
        /// As for the mapping.
        pub(super) unsafe fn copy_in(&self, at: u64, bytes: &[u8]) {
            for (&byte, at) in bytes.iter().zip(at..) {
                // SAFETY: the pointer is good inside the closure; loom panics where the caller does not own the cell.
                self.cell(at).with_mut(|cell| unsafe { *cell = byte });
            }
        }

        /// # Safety
        /// As for the mapping.
        pub(super) unsafe fn pieces(&self, at: u64, bytes: u64) -> [&[u8]; 2] {
            let first = bytes.min(self.data_bytes() - at % self.data_bytes());
            [at..at + first, at + first..at + bytes].map(|piece| {
                let copy: Box<[u8]> = piece
                    // SAFETY: as in `copy_in`.
                    .map(|at| self.cell(at).with(|cell| unsafe { *cell }))
                    .collect();
                // Cells do not lie side by side, so this is a copy; a model makes few and short ones, and ends.
                &*Box::leak(copy)
            })
        }
    }

    /// Counters that no model looks at.
    pub(crate) struct Words(std::sync::Mutex<[u64; super::PAGE_BYTES / 8]>);

    impl Words {
        pub(crate) fn of(_file: &File) -> io::Result<Words> {
            Ok(Words(std::sync::Mutex::new([0; super::PAGE_BYTES / 8])))
        }

        pub(crate) fn get(&self, at: usize) -> u64 {
            self.0.lock().expect("nobody panics with it")[at / 8]
        }

        pub(crate) fn set(&self, at: usize, number: u64) {
            self.0.lock().expect("nobody panics with it")[at / 8] = number;
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

/// Every order in which the two sides' steps can fall and be seen. Run alone, because everything then has loom's atomics:
/// `RUSTFLAGS="--cfg loom" cargo test -p journal --lib --release ring::`
#[cfg(all(test, loom))]
mod every_order {
    use loom::thread;

    use super::*;
    use crate::frame::{FRAME_BYTES_MIN, Kind};

    const STREAM: StreamId = StreamId([7; 16]);
    /// Two frames and two thirds of one: the third needs room given back and lies across the end.
    const DATA_BYTES: u64 = 64;
    /// Two that always succeed, one that does where the thread was quick. Nobody waits for the other, so that the orders
    /// are few enough to try all.
    const APPENDS: usize = 3;
    const FLUSHES: usize = 2;

    fn payload(sequence: u64) -> [u8; 8] {
        [sequence as u8; 8]
    }

    /// Returns the last sequence taken.
    fn append_some(mut producer: Producer) -> u64 {
        let mut last = 0;
        for _ in 0..APPENDS {
            let payload = payload(last + 1);
            let head = Head::new(Kind::Record, STREAM, last + 1, &payload);
            let room = producer.has_room(head.frame_bytes());
            let taken = producer.push(&head, &payload);
            assert!(taken || !room, "room once seen does not go away");
            last += u64::from(taken);
        }
        last
    }

    /// The sequences of whole frames with the right bytes.
    fn sequences(pieces: [&[u8]; 2]) -> Vec<u64> {
        let bytes = pieces.concat();
        assert_eq!(bytes.len() % FRAME_BYTES_MIN, 0, "only whole frames");
        bytes
            .chunks(FRAME_BYTES_MIN)
            .map(|frame| {
                let head = Head::parse(frame).expect("a frame");
                assert_eq!(&frame[HEAD_BYTES..], payload(head.sequence));
                assert!(head.is_of(STREAM, &frame[HEAD_BYTES..]));
                head.sequence
            })
            .collect()
    }

    /// Takes what is there, gives back some of it, and returns the last sequence given back.
    fn flush(consumer: &mut Consumer, frames_max: usize, mut last: u64) -> u64 {
        let found = sequences(consumer.unflushed());
        for (sequence, expected) in found.iter().zip(last + 1..) {
            assert_eq!(*sequence, expected);
        }
        let frames = found.len().min(frames_max);
        consumer.release((frames * FRAME_BYTES_MIN) as u64);
        last += frames as u64;
        last
    }

    fn model(frames_max: usize) {
        loom::model(move || {
            let (producer, mut consumer) = ends(Map::new(DATA_BYTES));
            let worker = thread::spawn(move || append_some(producer));
            let mut flushed = 0;
            for _ in 0..FLUSHES {
                flushed = flush(&mut consumer, frames_max, flushed);
            }
            let appended = worker.join().expect("the worker's assertions hold");
            flushed = flush(&mut consumer, usize::MAX, flushed);
            assert_eq!(flushed, appended);
            assert_eq!(consumer.unflushed_bytes(), 0);
        });
    }

    #[test]
    fn each_frame_is_handed_over_whole_and_once() {
        model(usize::MAX);
    }

    #[test]
    fn room_is_written_again_only_when_it_was_given_back() {
        model(1);
    }
}
