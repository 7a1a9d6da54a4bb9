//! The ring's memory and its two sides: the crate's only shared mapping.
#![allow(
    unsafe_code,
    reason = "the one shared mapping of the crate; each block says who upholds it"
)]

use std::sync::Arc;

#[cfg(loom)]
use loom::sync::atomic::Ordering;
#[cfg(not(loom))]
use std::sync::atomic::Ordering;

pub(super) use memory::Map;

use super::{Counts, Full, HEAD_BYTES, Head};

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

/// The two sides of an empty ring.
pub(super) fn sides(map: Map) -> (Producer, Consumer) {
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

    /// Puts a frame into the ring and counts it. False, and nothing written, where there is no room.
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
        // After the frame, and not before it in any order of stores: a process that dies in between has one record more
        // than it counted, and the next open finds it.
        self.map.appended().store(head.sequence, Ordering::Release);
        true
    }

    /// Counts answers that go without their record.
    pub(crate) fn unrecorded(&self, why: Full, count: u64) {
        let counter = self.map.unrecorded(why);
        // A plain store, because this side is the only one that stores.
        let sum = counter.load(Ordering::Relaxed).saturating_add(count);
        counter.store(sum, Ordering::Relaxed);
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

    /// What the worker counted, for somebody who looks on.
    pub(crate) fn counters(&self) -> Counters {
        Counters(Arc::clone(&self.map))
    }
}

/// What the worker counted, to look at.
#[derive(Clone)]
pub(crate) struct Counters(Arc<Map>);

impl Counters {
    pub(crate) fn appended(&self) -> u64 {
        self.0.appended().load(Ordering::Acquire)
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            appended: self.appended(),
            unrecorded: Full::ALL.map(|why| self.0.unrecorded(why).load(Ordering::Relaxed)),
        }
    }
}

impl Map {
    /// Starts from what earlier writers counted.
    pub(super) fn count_from(&self, counts: &Counts) {
        for why in Full::ALL {
            let count = counts.unrecorded[why as usize];
            self.unrecorded(why).store(count, Ordering::Relaxed);
        }
    }
}

#[cfg(not(loom))]
mod memory {
    use std::fs::File;
    use std::io;
    use std::sync::atomic::AtomicU64;

    use memmap2::{MmapOptions, MmapRaw};

    use super::super::{APPENDED_AT, FLUSHED_AT, Full, PAGE_BYTES, TAIL_AT, UNRECORDED_AT};

    pub(in super::super) struct Map {
        raw: MmapRaw,
        mask: u64,
        /// Holds the file's lock.
        _file: File,
    }

    impl Map {
        /// Of a file of one page and `bytes`, a power of two.
        pub(in super::super) fn of(file: &File, bytes: u64) -> io::Result<Map> {
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
                _file: file.try_clone()?,
            })
        }

        /// Keeps the kernel from taking the memory for something else.
        pub(in super::super) fn lock(&self) -> io::Result<()> {
            self.raw.lock()
        }

        pub(super) fn data_bytes(&self) -> u64 {
            self.mask + 1
        }

        fn data(&self) -> *mut u8 {
            // SAFETY: the mapping is one page longer than the data area, by `of`.
            unsafe { self.raw.as_mut_ptr().add(PAGE_BYTES) }
        }

        fn word(&self, at: usize) -> &AtomicU64 {
            debug_assert!(
                at.is_multiple_of(8) && at < PAGE_BYTES,
                "a word of the page"
            );
            // SAFETY: only called below with multiples of 8 inside the header page, which is mapped as long as `self`, and
            // these words are only ever used as atomics.
            unsafe { AtomicU64::from_ptr(self.raw.as_mut_ptr().add(at).cast()) }
        }

        pub(super) fn tail(&self) -> &AtomicU64 {
            self.word(TAIL_AT)
        }

        pub(super) fn flushed(&self) -> &AtomicU64 {
            self.word(FLUSHED_AT)
        }

        pub(super) fn appended(&self) -> &AtomicU64 {
            self.word(APPENDED_AT)
        }

        pub(super) fn unrecorded(&self, why: Full) -> &AtomicU64 {
            self.word(UNRECORDED_AT + 8 * why as usize)
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
}

/// The same memory for loom, which follows who may see what each position and each byte holds. Only the memory differs:
/// what the two sides do with it is the code above.
#[cfg(loom)]
mod memory {
    use std::fs::File;
    use std::io;

    use loom::cell::UnsafeCell;
    use loom::sync::atomic::AtomicU64;

    use super::super::Full;

    pub(in super::super) struct Map {
        tail: AtomicU64,
        flushed: AtomicU64,
        appended: AtomicU64,
        unrecorded: AtomicU64,
        data: Box<[UnsafeCell<u8>]>,
    }

    // SAFETY: as the mapping is; that the sides keep off each other's cells is what loom finds out.
    unsafe impl Sync for Map {}

    impl Map {
        pub(in super::super) fn of(_file: &File, bytes: u64) -> io::Result<Map> {
            Ok(Map::new(bytes))
        }

        pub(in super::super) fn lock(&self) -> io::Result<()> {
            Ok(())
        }

        pub(super) fn new(bytes: u64) -> Map {
            Map {
                tail: AtomicU64::new(0),
                flushed: AtomicU64::new(0),
                appended: AtomicU64::new(0),
                unrecorded: AtomicU64::new(0),
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

        pub(super) fn appended(&self) -> &AtomicU64 {
            &self.appended
        }

        /// One for all reasons: no model looks at it.
        pub(super) fn unrecorded(&self, _why: Full) -> &AtomicU64 {
            &self.unrecorded
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
}

/// Every order in which the two sides' steps can fall and be seen. Run alone, because everything then has loom's atomics:
/// `RUSTFLAGS="--cfg loom" cargo test -p journal --lib --release ring::map`
#[cfg(all(test, loom))]
mod every_order {
    use loom::thread;

    use super::*;
    use crate::StreamId;
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
    fn append_some(mut producer: Producer, appends: usize) -> u64 {
        let mut last = 0;
        for _ in 0..appends {
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
            let (producer, mut consumer) = sides(Map::new(DATA_BYTES));
            let worker = thread::spawn(move || append_some(producer, APPENDS));
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

    #[test]
    fn a_record_is_never_counted_before_it_is_there() {
        loom::model(|| {
            let (producer, consumer) = sides(Map::new(DATA_BYTES));
            let worker = thread::spawn(move || append_some(producer, 2));
            let counted = consumer.counters().appended();
            let frames = consumer.unflushed_bytes() / FRAME_BYTES_MIN as u64;
            assert!(counted <= frames, "{counted} counted, {frames} there");
            assert_eq!(worker.join().expect("two fit"), 2);
            assert_eq!(consumer.counters().appended(), 2);
        });
    }
}
