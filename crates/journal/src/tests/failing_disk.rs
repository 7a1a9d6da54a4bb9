//! A full disk and a failed sync, as the owner of a journal and its readers see them.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::disk::{Disk, Lots};
use super::{folder, options, read_all, start, texts};
use crate::file::{self, HEADER_BYTES};
use crate::{Error, Flusher, Full, Log, Options, Position, Reader, Syncer, Writer, open, seal};

/// A reader that reads on all the time, and one that is started again at its position for each read.
struct Readers {
    lasting: Reader,
    position: Position,
    read: [Vec<String>; 2],
}

impl Readers {
    fn of(folder: &Path) -> Readers {
        Readers {
            lasting: Reader::open(folder, Position::default()).unwrap(),
            position: Position::default(),
            read: [Vec::new(), Vec::new()],
        }
    }

    fn read(&mut self, folder: &Path) {
        let mut entries = Vec::new();
        self.lasting.read(&mut entries, usize::MAX).unwrap();
        self.read[0].extend(texts(&entries));
        entries.clear();
        Reader::open(folder, self.position)
            .unwrap()
            .read(&mut entries, usize::MAX)
            .unwrap();
        self.read[1].extend(texts(&entries));
        if let Some(last) = entries.last() {
            self.position = last.next;
        }
    }

    /// Both were given the same, each record once.
    fn assert_read(&self, expected: &[&str]) {
        assert_eq!(self.read, [expected, expected]);
    }
}

/// A file for each commit, or one for all.
fn sized(log_bytes_max: u64) -> Options {
    Options {
        log_bytes_max,
        ..options(1)
    }
}

const SIZES: [u64; 2] = [HEADER_BYTES + 1, 1 << 20];

fn flush_all(writer: &mut Writer, flusher: &mut Flusher, records: &[&str]) -> Result<(), Error> {
    for text in records {
        writer.append(text.as_bytes()).unwrap();
    }
    flusher.flush().map(|_| ())
}

#[test]
fn a_full_disk_keeps_records_in_the_ring_and_goes_on_when_there_is_room() {
    // The header of a new file, frames, mark: the disk is full after each of their bytes.
    for (log_bytes_max, room_bytes) in SIZES
        .into_iter()
        .flat_map(|size| (0..=136).map(move |room| (size, room)))
    {
        let folder = folder();
        let disk = Disk::of(folder.path());
        let (mut writer, mut flusher, _) = open(folder.path(), sized(log_bytes_max)).unwrap();
        let mut readers = Readers::of(folder.path());
        flush_all(&mut writer, &mut flusher, &["one"]).unwrap();
        readers.read(folder.path());
        readers.read(folder.path());

        disk.set_room(Some(room_bytes));
        for text in ["two", "three"] {
            match flush_all(&mut writer, &mut flusher, &[text]) {
                Ok(()) => assert_eq!(flusher.unsynced_bytes(), 0),
                Err(error) => {
                    assert!(error.is_disk_full() && !writer.poisoned(), "{error}");
                    assert_ne!(flusher.unsynced_bytes(), 0);
                }
            }
            readers.read(folder.path());
        }
        let full = flusher.unsynced_bytes() > 0;
        disk.set_room(None);
        let flushed = flusher.flush().unwrap();
        assert_eq!((flushed.synced_sequence, flushed.records > 0), (3, full));
        readers.read(folder.path());
        readers.assert_read(&["one", "two", "three"]);
        assert_eq!(texts(&read_all(folder.path())), ["one", "two", "three"]);
    }
}

#[test]
fn a_ring_that_fills_while_the_disk_is_full_refuses_and_loses_nothing() {
    let folder = folder();
    let disk = Disk::of(folder.path());
    let (mut writer, mut flusher, _) = start(folder.path(), 1);
    disk.set_room(Some(500));
    let mut sent = Vec::new();
    loop {
        let text = format!("{:0200}", sent.len());
        match writer.append(text.as_bytes()) {
            Ok(_) => sent.push(text),
            Err(Full::Ring) => break,
            Err(other) => panic!("{other}"),
        }
        let _ = flusher.flush();
    }
    assert!(!writer.poisoned());
    // Killed, and started again before there is room: nothing can be opened, nothing is lost.
    drop((writer, flusher));
    assert!(
        open(folder.path(), options(2))
            .err()
            .unwrap()
            .is_disk_full()
    );
    assert!(seal(folder.path()).unwrap_err().is_disk_full());
    disk.set_room(None);
    drop(start(folder.path(), 3));
    assert_eq!(texts(&read_all(folder.path())), sent);
}

#[test]
fn a_log_on_a_full_disk_keeps_its_records_and_syncs_them_later() {
    let enough = 2 * crate::frame::frame_bytes(3) + crate::frame::MARK_BYTES;
    for room_bytes in 0..=enough {
        let folder = folder();
        let disk = Disk::of(folder.path());
        let (mut log, _) = Log::open(folder.path(), options(1)).unwrap();
        log.append(b"one").unwrap();
        log.append(b"two").unwrap();
        disk.set_room(Some(room_bytes));
        let done = log.sync();
        assert_eq!(done.is_ok(), room_bytes == enough);
        assert!(done.err().is_none_or(|error| error.is_disk_full()));
        log.append(b"three").unwrap();
        disk.set_room(None);
        assert_eq!(log.sync().unwrap(), 3);
        assert_eq!(texts(&read_all(folder.path())), ["one", "two", "three"]);
    }
}

#[test]
fn a_failed_sync_goes_on_in_one_new_file_and_nobody_sees_a_record_twice() {
    for log_bytes_max in SIZES {
        let folder = folder();
        let (mut writer, mut flusher, _) = open(folder.path(), sized(log_bytes_max)).unwrap();
        let mut readers = Readers::of(folder.path());
        let sent = ["one", "two", "three", "four", "five", "six"];
        for (text, failures) in sent.iter().zip([0, 1, 1, 0, 1, 0]) {
            let before = file::list(folder.path()).unwrap().len();
            flusher.fail_syncs(failures);
            flush_all(&mut writer, &mut flusher, &[text]).unwrap();
            let made = file::list(folder.path()).unwrap().len() - before;
            let rotated = usize::from(log_bytes_max == SIZES[0] && *text != "one");
            assert_eq!(made, failures as usize + rotated, "{text}");
            readers.read(folder.path());
        }
        readers.assert_read(&sent);
        assert_eq!(texts(&read_all(folder.path())), sent);
    }
}

#[test]
fn a_second_failed_sync_closes_the_journal_and_the_next_open_saves_the_ring() {
    for log_bytes_max in SIZES {
        let folder = folder();
        let (mut writer, mut flusher, _) = open(folder.path(), sized(log_bytes_max)).unwrap();
        let mut readers = Readers::of(folder.path());
        flush_all(&mut writer, &mut flusher, &["one"]).unwrap();
        flusher.fail_syncs(2);
        let error = flush_all(&mut writer, &mut flusher, &["two", "three"]).unwrap_err();
        assert!(error.is_poisoned() && !error.is_disk_full(), "{error}");
        assert!(writer.poisoned());
        assert_eq!(writer.append(b"four"), Err(Full::Poisoned));
        // What is in two files and durable in neither is not delivered.
        readers.read(folder.path());
        readers.assert_read(&["one"]);
        // The disk works again, but is left alone for a while.
        assert!(flusher.flush().unwrap_err().is_poisoned());
        assert_eq!((writer.synced(), flusher.unsynced_bytes()), (1, 48));
        drop((writer, flusher));
        assert_eq!(start(folder.path(), 2).2.previous, Some(options(1).stream));
        readers.read(folder.path());
        readers.assert_read(&["one", "two", "three"]);
    }
}

#[test]
fn a_disk_that_failed_for_minutes_closed_the_journal_for_ever() {
    for log_bytes_max in SIZES {
        let folder = folder();
        let (mut writer, mut flusher, _) = open(folder.path(), sized(log_bytes_max)).unwrap();
        let mut readers = Readers::of(folder.path());
        flush_all(&mut writer, &mut flusher, &["one"]).unwrap();
        flusher.fail_syncs(u32::MAX);
        assert!(flush_all(&mut writer, &mut flusher, &["two", "three"]).is_err());
        let files_bytes = file::folder_bytes(folder.path()).unwrap();
        let mut tried = Instant::now();
        flusher.fail_syncs(u32::MAX);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            // A moment too early the disk is left alone, then it is tried once.
            tried += Duration::from_secs(pause);
            for (at, tries) in [(tried - Duration::from_millis(10), 0), (tried, 1)] {
                let before = flusher.syncs_to_fail();
                assert!(flusher.flush_at(at).unwrap_err().is_poisoned());
                assert_eq!(before - flusher.syncs_to_fail(), tries, "{pause} s");
            }
            readers.read(folder.path());
            assert_eq!(writer.append(b"four"), Err(Full::Poisoned));
        }
        // What was tried in vain takes no room.
        let tries_bytes = file::folder_bytes(folder.path()).unwrap() - files_bytes;
        assert!(tries_bytes <= 8 * HEADER_BYTES, "{tries_bytes}");

        flusher.fail_syncs(0);
        tried += Duration::from_secs(60);
        assert_eq!(flusher.flush_at(tried).unwrap().records, 2);
        writer.append(b"four").unwrap();
        // The next failure is the first again.
        flusher.fail_syncs(2);
        assert!(flusher.flush_at(tried).unwrap_err().is_poisoned());
        tried += Duration::from_secs(1);
        assert_eq!(flusher.flush_at(tried).unwrap().records, 1);
        readers.read(folder.path());
        readers.read(folder.path());
        readers.assert_read(&["one", "two", "three", "four"]);
        drop((writer, flusher));
        drop(start(folder.path(), 2));
        assert_eq!(
            texts(&read_all(folder.path())),
            ["one", "two", "three", "four"]
        );
    }
}

#[test]
fn a_new_file_whose_sync_failed_was_taken_again_for_the_next_one() {
    for (failures, seed) in (1..4).flat_map(|failures| (0..8).map(move |seed| (failures, seed))) {
        let folder = folder();
        let disk = Disk::of(folder.path());
        let (mut writer, mut flusher, _) = open(folder.path(), sized(SIZES[0])).unwrap();
        flush_all(&mut writer, &mut flusher, &["one"]).unwrap();
        // "two" needs a new file, which is made durable before it has its name.
        disk.fail_syncs(failures);
        writer.append(b"two").unwrap();
        let mut at = Instant::now();
        for _ in 0..failures {
            if flusher.flush_at(at).is_ok() {
                break;
            }
            at += Duration::from_secs(2);
        }
        assert_eq!((writer.synced(), flusher.unsynced_bytes()), (2, 0));
        drop(writer);
        flusher.kill();
        disk.cut(&mut Lots(seed));
        seal(folder.path()).unwrap();
        assert_eq!(texts(&read_all(folder.path())), ["one", "two"]);
    }
}

#[test]
fn a_failed_sync_on_a_full_disk_closes_the_journal_too() {
    let folder = folder();
    let disk = Disk::of(folder.path());
    let (mut writer, mut flusher, _) = start(folder.path(), 1);
    flusher.fail_syncs(1);
    disk.set_room(Some(50));
    // The old file is not trusted and a new one has no room: there is no third way.
    let error = flush_all(&mut writer, &mut flusher, &["one"]).unwrap_err();
    assert!(error.is_poisoned() && writer.poisoned(), "{error}");
    drop((writer, flusher));
    disk.set_room(None);
    seal(folder.path()).unwrap();
    assert_eq!(texts(&read_all(folder.path())), ["one"]);
}

#[test]
fn a_closed_log_keeps_what_was_synced_and_takes_nothing_more() {
    let folder = folder();
    let (mut log, _) = Log::open(folder.path(), options(1)).unwrap();
    log.append(b"one").unwrap();
    assert_eq!(log.sync().unwrap(), 1);
    log.append(b"two").unwrap();
    log.fail_syncs(2);
    assert!(log.sync().unwrap_err().is_poisoned());
    assert!(log.append(b"three").unwrap_err().is_poisoned());
    assert!(log.sync().unwrap_err().is_poisoned());
    assert_eq!(log.end(), 1);
    assert_eq!(texts(&read_all(folder.path())), ["one"]);
}

#[test]
fn a_closed_journal_does_not_stop_the_others() {
    let (first, second) = (folder(), folder());
    let (mut one, mut flusher_one, _) = start(first.path(), 1);
    let (mut two, flusher_two, _) = start(second.path(), 2);
    flusher_one.fail_syncs(2);
    one.append(b"one").unwrap();
    let (send, synced) = mpsc::channel();
    let syncer = Syncer::new(Duration::from_millis(1));
    for (journal, flusher) in [flusher_one, flusher_two].into_iter().enumerate() {
        let send = send.clone();
        syncer
            .add(flusher, move |sequence| {
                let _ = send.send((journal, sequence));
            })
            .unwrap();
    }
    for sequence in 1..4 {
        two.append(b"two").unwrap();
        assert_eq!(
            synced.recv_timeout(Duration::from_secs(10)).unwrap(),
            (1, sequence)
        );
    }
    assert!(one.poisoned());
    assert!(syncer.stop().unwrap_err().is_poisoned());
}

#[test]
fn a_journal_that_was_long_at_it_held_up_the_others() {
    let (first, second) = (folder(), folder());
    let (mut one, flusher_one, _) = start(first.path(), 1);
    let (mut two, flusher_two, _) = start(second.path(), 2);
    let syncer = Syncer::new(Duration::from_millis(1));
    let (begin, begun) = mpsc::channel();
    let (go_on, held) = mpsc::channel::<()>();
    let is_long = move |_| {
        begin.send(()).unwrap();
        held.recv().unwrap();
    };
    syncer.add(flusher_one, is_long).unwrap();
    one.append(b"one").unwrap();
    begun.recv_timeout(Duration::from_secs(10)).unwrap();
    let (send, synced) = mpsc::channel();
    let tell = move |sequence| _ = send.send(sequence);
    syncer.add(flusher_two, tell).unwrap();
    two.append(b"two").unwrap();
    assert_eq!(synced.recv_timeout(Duration::from_secs(10)).unwrap(), 1);
    go_on.send(()).unwrap();
    syncer.stop().unwrap();
}
