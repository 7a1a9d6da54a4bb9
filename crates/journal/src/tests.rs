//! Whole journals: what was recorded comes back in order, exactly once, whatever happened in between.

pub(crate) mod disk;
mod failing_disk;
mod model;
mod rings;

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use crate::file::{self, HEADER_BYTES, Header};
use crate::frame::{self, Kind, MARK_BYTES};
use crate::quarantine::QUARANTINE_BYTES_MAX;
use crate::scanner::Scanner;
use crate::{
    Cursor, Entry, Flusher, Full, Log, Options, Position, Reader, Recovered, StreamId, Syncer,
    Writer, delete_before,
};
use crate::{ledger, open, seal};

use disk::{Disk, Lots};

/// A journal's folder, with room for its ring beside it.
pub(crate) struct Folder {
    path: PathBuf,
    _both: TempDir,
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// In memory where the machine has such a folder: what is tested is the order of writes, not the disk.
pub(crate) fn folder() -> Folder {
    let memory = Path::new("/dev/shm");
    let both = if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    let path = both.path().join("journal");
    fs::create_dir(&path).unwrap();
    Folder { path, _both: both }
}

fn options(stream: u8) -> Options {
    Options {
        stream: StreamId([stream; 16]),
        ring_bytes: 4096,
        ring_folder: None,
        log_bytes_max: 4096,
        folder_bytes_max: 1 << 30,
    }
}

pub(crate) fn start(folder: &Path, stream: u8) -> (Writer, Flusher, Recovered) {
    open(folder, options(stream)).unwrap()
}

pub(crate) fn read_all(folder: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    Reader::open(folder, Position::default())
        .unwrap()
        .read(&mut entries, usize::MAX)
        .unwrap();
    entries
}

pub(crate) fn texts(entries: &[Entry]) -> Vec<String> {
    entries
        .iter()
        .map(|entry| String::from_utf8(entry.payload.clone()).unwrap())
        .collect()
}

fn newest(folder: &Path) -> PathBuf {
    file::path_of(folder, *file::list(folder).unwrap().last().unwrap())
}

/// Where a file's last mark begins, or 0.
fn last_mark(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    let header = Header::read(&file, path).unwrap().unwrap();
    let mut scanner = Scanner::new(header.stream, HEADER_BYTES, 0);
    let mut last = 0;
    while let Some(found) = scanner.next(&file, file.metadata().unwrap().len()).unwrap() {
        if found.kind == Kind::Mark {
            last = scanner.at - MARK_BYTES as u64;
        }
    }
    last
}

#[test]
fn only_what_is_synced_is_delivered() {
    let folder = folder();
    let mut reader = Reader::open(&folder.path().join("missing"), Position::default()).unwrap();
    assert_eq!(reader.read(&mut Vec::new(), 1).unwrap(), 0);

    let (mut writer, mut flusher, recovered) = start(folder.path(), 1);
    assert_eq!(recovered, Recovered::default());
    assert_eq!(writer.append(b"one").unwrap(), 1);
    assert_eq!(writer.append(b"two").unwrap(), 2);
    assert!(read_all(folder.path()).is_empty());
    assert_eq!((writer.synced(), flusher.unsynced_bytes()), (0, 48));
    let flushed = flusher.flush().unwrap();
    assert_eq!(
        (flushed.records, flushed.bytes, flushed.synced_sequence),
        (2, 48, 2)
    );
    assert_eq!((writer.synced(), flusher.unsynced_bytes()), (2, 0));
    assert_eq!(flusher.flush().unwrap().records, 0);
    assert_eq!(texts(&read_all(folder.path())), ["one", "two"]);
    assert!(!flusher.writer_gone());
    drop(writer);
    assert!(flusher.writer_gone());
}

#[test]
fn a_full_ring_refuses_at_once_and_goes_on_after_a_flush() {
    let folder = folder();
    let (mut writer, mut flusher, _) = start(folder.path(), 1);
    let mut sent = Vec::new();
    // Three rounds of 4096 bytes in frames of 16 + 104: no round ends where the ring ends.
    for round in 0..3 {
        while writer.room(100).is_ok() {
            let text = format!("{:0100}", sent.len());
            assert_eq!(
                writer.append(text.as_bytes()).unwrap(),
                sent.len() as u64 + 1
            );
            sent.push(text);
        }
        let refused = writer.append(&[b'x'; 100]);
        assert_eq!(refused, Err(Full::Ring), "round {round}");
        assert_eq!(writer.next_sequence(), sent.len() as u64 + 1);
        flusher.flush().unwrap();
    }
    assert_eq!(texts(&read_all(folder.path())), sent);
}

#[test]
fn a_killed_writers_ring_is_saved_by_the_next_open_and_only_once() {
    let folder = folder();
    let (mut writer, mut flusher, _) = start(folder.path(), 1);
    writer.append(b"one").unwrap();
    flusher.flush().unwrap();
    writer.append(b"two").unwrap();
    writer.append(b"three").unwrap();
    assert_eq!(seal(folder.path()).unwrap(), None);
    assert!(open(folder.path(), options(2)).err().unwrap().is_in_use());
    drop((writer, flusher));
    let previous = Some(StreamId([1; 16]));
    assert_eq!(
        seal(folder.path()).unwrap(),
        Some(Recovered {
            records: 2,
            previous,
            ..Recovered::default()
        })
    );
    assert_eq!(
        seal(folder.path()).unwrap(),
        Some(Recovered {
            previous,
            ..Recovered::default()
        })
    );
    let (_writer, _flusher, recovered) = start(folder.path(), 2);
    assert_eq!(
        recovered,
        Recovered {
            previous,
            ..Recovered::default()
        }
    );
    let entries = read_all(folder.path());
    assert_eq!(texts(&entries), ["one", "two", "three"]);
    assert_eq!(
        entries
            .iter()
            .map(|entry| entry.sequence)
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
}

#[test]
fn a_ring_whose_log_files_were_deleted_gives_only_what_was_never_flushed() {
    let folder = folder();
    let (mut writer, mut flusher, _) = start(folder.path(), 1);
    writer.append(b"one").unwrap();
    flusher.flush().unwrap();
    writer.append(b"two").unwrap();
    drop((writer, flusher));
    fs::remove_file(newest(folder.path())).unwrap();
    assert_eq!(seal(folder.path()).unwrap().unwrap().records, 1);
    let entries = read_all(folder.path());
    assert_eq!(
        (texts(&entries), entries[0].sequence),
        (vec!["two".to_owned()], 2)
    );
}

#[test]
fn one_failed_sync_goes_to_a_new_file_and_a_second_closes_the_journal() {
    let folder = folder();
    let (mut writer, mut flusher, _) = start(folder.path(), 1);
    writer.append(b"one").unwrap();
    flusher.flush().unwrap();
    writer.append(b"two").unwrap();
    flusher.fail_syncs(1);
    assert_eq!(flusher.flush().unwrap().synced_sequence, 2);
    assert_eq!(file::list(folder.path()).unwrap().len(), 2);
    assert_eq!(texts(&read_all(folder.path())), ["one", "two"]);

    writer.append(b"three").unwrap();
    flusher.fail_syncs(2);
    assert!(flusher.flush().unwrap_err().is_poisoned());
    assert!(flusher.flush().unwrap_err().is_poisoned());
    assert!(writer.poisoned());
    assert_eq!(writer.append(b"four"), Err(Full::Poisoned));
    assert_eq!(writer.synced(), 2);
    drop((writer, flusher));
    seal(folder.path()).unwrap();
    let entries = read_all(folder.path());
    assert_eq!(texts(&entries), ["one", "two", "three"]);
    assert_eq!(
        entries
            .iter()
            .map(|entry| entry.ordinal)
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
}

/// As a power cut or a failed sync may leave it: a mark is written after the sync it speaks of, and not synced with it.
fn lose_last_mark(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0; MARK_BYTES], last_mark(path))
        .unwrap();
}

#[test]
fn a_lost_mark_hid_durable_records_of_a_file_that_was_not_the_newest() {
    let folder = folder();
    let mut small = options(1);
    small.log_bytes_max = HEADER_BYTES + 1;
    let (mut writer, mut flusher, _) = open(folder.path(), small).unwrap();
    for (text, syncs_to_fail) in [("one", 0), ("two", 0), ("three", 1)] {
        writer.append(text.as_bytes()).unwrap();
        flusher.fail_syncs(syncs_to_fail);
        flusher.flush().unwrap();
    }
    // One, two, three that may not be durable, three again.
    assert_eq!(file::list(folder.path()).unwrap(), [1, 2, 3, 4]);
    for index in [1, 2] {
        lose_last_mark(&file::path_of(folder.path(), index));
    }
    assert_eq!(texts(&read_all(folder.path())), ["one", "two", "three"]);
}

#[test]
fn a_full_disk_at_the_end_of_a_file_hid_the_next_one_from_readers_for_a_while() {
    let folder = folder();
    let disk = Disk::of(folder.path());
    let mut small = options(1);
    small.log_bytes_max = HEADER_BYTES + 1;
    let (mut writer, mut flusher, _) = open(folder.path(), small).unwrap();
    let mut reader = Reader::open(folder.path(), Position::default()).unwrap();
    let mut entries = Vec::new();
    writer.append(b"one").unwrap();
    flusher.flush().unwrap();
    for delivered in [1, 0, 0] {
        assert_eq!(reader.read(&mut entries, usize::MAX).unwrap(), delivered);
    }
    writer.append(b"two").unwrap();
    disk.set_room(Some(0));
    assert!(flusher.flush().unwrap_err().is_disk_full());
    disk.set_room(None);
    flusher.flush().unwrap();
    assert_eq!(reader.read(&mut entries, usize::MAX).unwrap(), 1);
}

#[test]
fn a_mark_was_not_durable_when_another_stream_followed_it() {
    for seed in 0..32 {
        let folder = folder();
        let disk = Disk::of(folder.path());
        let (mut writer, mut flusher, _) = start(folder.path(), 1);
        writer.append(b"one").unwrap();
        flusher.flush().unwrap();
        drop((writer, flusher));
        drop(start(folder.path(), 2));
        disk.cut(&mut Lots(seed));
        seal(folder.path()).unwrap();
        assert_eq!(texts(&read_all(folder.path())), ["one"], "{seed}");
    }
}

#[test]
fn a_restarted_reader_was_given_again_what_recovery_had_written_again() {
    let folder = folder();
    let mut log = Log::open(folder.path(), options(1)).unwrap().0;
    for text in ["one", "two"] {
        log.append(text.as_bytes()).unwrap();
        log.sync().unwrap();
    }
    drop(log);
    let entries = read_all(folder.path());
    lose_last_mark(&newest(folder.path()));
    seal(folder.path()).unwrap();
    assert_eq!(file::list(folder.path()).unwrap(), [1, 2]);
    assert_eq!(texts(&read_all(folder.path())), ["one", "two"]);
    for (entry, rest) in entries.iter().zip([vec!["two"], vec![]]) {
        let mut found = Vec::new();
        Reader::open(folder.path(), entry.next)
            .unwrap()
            .read(&mut found, usize::MAX)
            .unwrap();
        assert_eq!(texts(&found), rest);
    }
}

#[test]
fn a_log_numbers_its_records_across_opens_and_files() {
    let folder = folder();
    let mut expected = Vec::new();
    for stream in 1..4 {
        let (mut log, _) = Log::open(folder.path(), options(stream)).unwrap();
        assert_eq!(log.end(), expected.len() as u64);
        for _ in 0..20 {
            for _ in 0..5 {
                let text = format!("{:0200}", expected.len());
                assert_eq!(log.append(text.as_bytes()).unwrap(), expected.len() as u64);
                expected.push(text);
            }
            if expected.len() == 50 {
                log.fail_syncs(1);
            }
            assert_eq!(log.sync().unwrap(), expected.len() as u64);
        }
        // Kept in memory only: its number is given again.
        log.append(b"lost").unwrap();
    }
    assert!(file::list(folder.path()).unwrap().len() > 12);
    let entries = read_all(folder.path());
    assert_eq!(texts(&entries), expected);
    for ordinal in [0, 1, 49, 50, 51, 100, 299, 300, 1000] {
        let mut found = Vec::new();
        let mut reader = Reader::open_at_ordinal(folder.path(), ordinal).unwrap();
        reader.read(&mut found, usize::MAX).unwrap();
        assert_eq!(found, entries[(ordinal as usize).min(entries.len())..]);
    }
}

#[test]
fn deleting_keeps_what_is_wanted_and_always_the_newest() {
    let folder = folder();
    for stream in 1..5 {
        let (mut log, _) = Log::open(folder.path(), options(stream)).unwrap();
        log.append(&[b'0' + stream]).unwrap();
        log.sync().unwrap();
    }
    let mut reader = Reader::open(folder.path(), Position::default()).unwrap();
    let mut entries = Vec::new();
    reader.read(&mut entries, 1).unwrap();
    let kept = file::path_of(folder.path(), 2);
    assert_eq!(
        delete_before(folder.path(), 3, |path| path == kept)
            .unwrap()
            .files,
        1
    );
    assert_eq!(
        delete_before(folder.path(), u64::MAX, |_| false)
            .unwrap()
            .files,
        2
    );
    assert_eq!(file::list(folder.path()).unwrap(), [4]);
    assert_eq!(reader.read(&mut entries, usize::MAX).unwrap(), 1);
    assert_eq!(texts(&entries), ["1", "4"]);
    let (_log, _) = Log::open(folder.path(), options(9)).unwrap();
    assert_eq!(file::list(folder.path()).unwrap(), [4, 5]);
}

#[test]
fn deleted_files_came_back_after_a_power_cut() {
    for seed in 0..16 {
        let folder = folder();
        let disk = Disk::of(folder.path());
        for stream in 1..4 {
            let (mut log, _) = Log::open(folder.path(), options(stream)).unwrap();
            log.append(&[b'0' + stream]).unwrap();
            log.sync().unwrap();
        }
        delete_before(folder.path(), 3, |_| false).unwrap();
        disk.cut(&mut Lots(seed));
        assert_eq!(file::list(folder.path()).unwrap(), [3], "{seed}");
    }
}

#[test]
fn a_saved_cursor_was_gone_after_a_power_cut() {
    for seed in 0..16 {
        let folder = folder();
        let disk = Disk::of(folder.path());
        let path = folder.path().join("cursor");
        let (mut cursor, _) = Cursor::open(&path).unwrap();
        for value in [b"one", b"two"] {
            cursor.save(value).unwrap();
        }
        drop(cursor);
        disk.cut(&mut Lots(seed));
        assert_eq!(Cursor::read(&path).unwrap().unwrap(), b"two", "{seed}");
    }
}

#[test]
fn a_flipped_bit_in_a_header_lost_a_whole_file() {
    let folder = folder();
    for stream in 1..4 {
        let (mut log, recovered) = Log::open(folder.path(), options(stream)).unwrap();
        assert_eq!((recovered.corrupt_bytes, recovered.records), (0, 0));
        for n in 0..3 {
            log.append(&[b'0' + stream, b'a' + n]).unwrap();
            log.sync().unwrap();
        }
        drop(log);
        let file = File::options().write(true).open(newest(folder.path()));
        file.unwrap().write_all_at(b"?", 60).unwrap();
    }
    let entries = read_all(folder.path());
    let expected = ["1a", "1b", "1c", "2a", "2b", "2c", "3a", "3b", "3c"];
    assert_eq!(texts(&entries), expected);
    let ordinals = entries.iter().map(|entry| entry.ordinal);
    assert!(ordinals.eq(0..9), "they keep their numbers");
    let inspection = crate::inspect(folder.path()).unwrap();
    let corrupt = inspection.files.iter().map(|file| file.corrupt_bytes);
    assert!(corrupt.eq([HEADER_BYTES; 3]), "and are said to be damaged");
}

#[test]
fn marks_that_a_record_carries_are_no_header() {
    let folder = folder();
    let forged = Header {
        stream: StreamId([9; 16]),
        index: 1,
        first_sequence: 1,
        ordinal: 0,
    };
    let (mut log, _) = Log::open(folder.path(), options(1)).unwrap();
    // One of them stands by chance where it says.
    let mut marks = Vec::new();
    for _ in 0..100 {
        forged.encode_mark(1, HEADER_BYTES + 16, &mut marks);
    }
    log.append(&marks).unwrap();
    log.sync().unwrap();
    log.append(b"more").unwrap();
    log.sync().unwrap();
    drop(log);
    let path = newest(folder.path());
    let file = File::options().read(true).write(true).open(&path).unwrap();
    file.write_all_at(b"?", 20).unwrap();
    let header = Header::read(&file, &path).unwrap().unwrap();
    assert_eq!(header.stream, StreamId([1; 16]));
}

#[test]
fn a_file_without_header_and_marks_is_counted_and_passed_over() {
    let folder = folder();
    for stream in 1..4 {
        let (mut log, recovered) = Log::open(folder.path(), options(stream)).unwrap();
        let corrupt = if stream == 3 {
            HEADER_BYTES + 24 + MARK_BYTES as u64
        } else {
            0
        };
        assert_eq!(recovered.corrupt_bytes, corrupt);
        log.append(&[b'0' + stream]).unwrap();
        log.sync().unwrap();
        if stream == 2 {
            let path = newest(folder.path());
            lose_last_mark(&path);
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(b"?", 20).unwrap();
        }
    }
    let mut entries = Vec::new();
    let mut reader = Reader::open(folder.path(), Position::default()).unwrap();
    reader.read(&mut entries, usize::MAX).unwrap();
    assert_eq!(texts(&entries), ["1", "3"]);
    assert_eq!(
        reader.skipped().corrupt_bytes,
        HEADER_BYTES + 24 + MARK_BYTES as u64
    );
    assert!(
        entries[1].ordinal > entries[0].ordinal + 1,
        "the damaged file's record keeps its number"
    );
}

/// Three records in one file, the middle one overwritten in part; returns where it stands.
fn damage_the_middle(folder: &Path) -> Range<u64> {
    let mut log = Log::open(folder, options(1)).unwrap().0;
    for text in ["one", "two", "three"] {
        log.append(text.as_bytes()).unwrap();
        log.sync().unwrap();
    }
    let frame_bytes = (frame::frame_bytes(3) + MARK_BYTES) as u64;
    let from = HEADER_BYTES + frame_bytes;
    let file = File::options().write(true).open(newest(folder)).unwrap();
    file.write_all_at(b"bad", from + 17).unwrap();
    from..from + frame::frame_bytes(3) as u64
}

#[test]
fn bytes_gone_bad_are_kept_once_and_outlive_their_file() {
    let folder = folder();
    let range = damage_the_middle(folder.path());
    let log = fs::read(newest(folder.path())).unwrap();
    let kept = folder.path().join(format!(
        "quarantine-0000000000000001-{:016x}.bin",
        range.start
    ));
    for quarantined_files in [1, 0] {
        assert_eq!(
            seal(folder.path()).unwrap(),
            Some(Recovered {
                corrupt_bytes: range.end - range.start,
                quarantined_files,
                previous: Some(StreamId([1; 16])),
                ..Recovered::default()
            })
        );
        let bytes = &log[range.start as usize..range.end as usize];
        assert_eq!(fs::read(&kept).unwrap(), bytes);
    }
    let mut reader = Reader::open(folder.path(), Position::default()).unwrap();
    let mut entries = Vec::new();
    reader.read(&mut entries, usize::MAX).unwrap();
    assert_eq!(texts(&entries), ["one", "three"]);
    assert_eq!(reader.skipped().corrupt_bytes, range.end - range.start);

    let (log, recovered) = Log::open(folder.path(), options(2)).unwrap();
    assert_eq!(recovered.quarantined_files, 0);
    drop(log);
    delete_before(folder.path(), u64::MAX, |_| false).unwrap();
    assert!(kept.exists());

    // A file that cannot be read at all is kept whole; what is torn was never durable and is not kept.
    let file = File::options()
        .write(true)
        .open(newest(folder.path()))
        .unwrap();
    file.write_all_at(&[b'?'; 100], 0).unwrap();
    let recovered = seal(folder.path()).unwrap().unwrap();
    assert_eq!(
        (recovered.corrupt_bytes, recovered.quarantined_files),
        (100, 1)
    );
    let (mut log, _) = Log::open(folder.path(), options(3)).unwrap();
    log.append(b"four").unwrap();
    log.sync().unwrap();
    drop(log);
    let file = File::options()
        .append(true)
        .open(newest(folder.path()))
        .unwrap();
    (&file).write_all(b"torn").unwrap();
    let recovered = seal(folder.path()).unwrap().unwrap();
    assert_eq!((recovered.torn_bytes, recovered.quarantined_files), (4, 0));
}

#[test]
fn what_could_not_be_read_in_an_older_file_was_deleted_with_it() {
    let folder = folder();
    let range = damage_the_middle(folder.path());
    let damaged = fs::read(newest(folder.path())).unwrap();
    // Nobody looked at the damage while the file was the newest.
    let header = Header {
        stream: StreamId([2; 16]),
        index: 2,
        first_sequence: 1,
        ordinal: 3,
    };
    file::create(folder.path(), &header, &[]).unwrap();
    let deleted = delete_before(folder.path(), 2, |_| false).unwrap();
    assert_eq!(
        (deleted.files, deleted.quarantined, deleted.held),
        (1, 1, 0)
    );
    let kept = format!("quarantine-0000000000000001-{:016x}.bin", range.start);
    let kept = fs::read(folder.path().join(kept)).unwrap();
    assert_eq!(kept, damaged[range.start as usize..range.end as usize]);

    // Without room in the quarantine the file itself stays.
    fs::write(file::path_of(folder.path(), 1), &damaged).unwrap();
    let room = QUARANTINE_BYTES_MAX - kept.len() as u64;
    for (name, bytes) in [("quarantine-a.bin", room), ("quarantine-b.bin", 8)] {
        let file = File::create(folder.path().join(name)).unwrap();
        file.set_len(bytes).unwrap();
    }
    let name = format!("quarantine-0000000000000001-{:016x}.bin", range.start);
    fs::remove_file(folder.path().join(name)).unwrap();
    let deleted = delete_before(folder.path(), 2, |_| false).unwrap();
    assert_eq!((deleted.files, deleted.held), (0, 1));
    assert!(file::path_of(folder.path(), 1).exists());
}

#[test]
fn a_power_cut_in_the_middle_of_a_recovery_leaves_no_half_of_what_went_bad() {
    for (syncs, seed) in (0..6).flat_map(|syncs| (0..8).map(move |seed| (syncs, seed))) {
        let folder = folder();
        let disk = Disk::of(folder.path());
        let range = damage_the_middle(folder.path());
        disk.written(&newest(folder.path()));
        disk.power_goes_after(syncs);
        let done = seal(folder.path()).is_ok();
        disk.cut(&mut Lots(seed));
        let kept = || {
            let name = format!("quarantine-0000000000000001-{:016x}.bin", range.start);
            fs::metadata(folder.path().join(name))
                .map(|found| found.len())
                .ok()
        };
        let whole = Some(range.end - range.start);
        assert!(
            kept() == whole || kept().is_none() && !done,
            "{syncs} {seed}"
        );
        seal(folder.path()).unwrap();
        assert_eq!(kept(), whole, "{syncs} {seed}");
    }
}

#[test]
fn journals_are_synced_and_let_go_when_their_writer_went() {
    let (first, second) = (folder(), folder());
    let (mut one, flusher_one, _) = start(first.path(), 1);
    let (mut two, flusher_two, _) = start(second.path(), 2);
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
    one.append(b"one").unwrap();
    assert_eq!(
        synced.recv_timeout(Duration::from_secs(10)).unwrap(),
        (0, 1)
    );
    two.append(b"two").unwrap();
    assert_eq!(
        synced.recv_timeout(Duration::from_secs(10)).unwrap(),
        (1, 1)
    );
    one.append(b"last").unwrap();
    drop(one);
    syncer.stop().unwrap();
    assert_eq!(two.synced(), 1);
    assert_eq!(texts(&read_all(first.path())), ["one", "last"]);
    assert_eq!(seal(second.path()).unwrap(), None);
    drop(two);
    assert!(seal(second.path()).unwrap().is_some());
}

proptest! {
    #[test]
    fn a_reader_goes_on_from_any_entry(sizes in prop::collection::vec(1..400_usize, 1..60), batch in 1..7_usize) {
        let folder = folder();
        let (mut log, _) = Log::open(folder.path(), options(1)).unwrap();
        for (count, bytes) in sizes.iter().enumerate() {
            log.append(&vec![count as u8; *bytes]).unwrap();
            if count % batch == 0 {
                log.sync().unwrap();
            }
        }
        log.sync().unwrap();
        let whole = read_all(folder.path());
        prop_assert_eq!(whole.len(), sizes.len());
        for (count, entry) in whole.iter().enumerate() {
            let mut rest = Vec::new();
            Reader::open(folder.path(), entry.next).unwrap().read(&mut rest, usize::MAX).unwrap();
            prop_assert_eq!(&rest[..], &whole[count + 1..]);
        }
    }

    #[test]
    fn bytes_of_any_kind_are_no_frame(bytes in prop::collection::vec(any::<u8>(), 16..64)) {
        if let Some(head) = frame::Head::parse(&bytes) {
            let payload = vec![0; head.payload_bytes];
            prop_assert!(!head.is_of(StreamId([1; 16]), &payload));
        }
    }
}

#[test]
fn a_folder_at_its_bound_takes_nothing_until_files_are_deleted() {
    const BOUND: u64 = 16 << 10;
    let bounded = |stream| Options {
        folder_bytes_max: BOUND,
        ..options(stream)
    };
    let folder = folder();
    let (mut writer, mut flusher, _) = open(folder.path(), bounded(1)).unwrap();
    let gauges = flusher.gauges();
    let mut sent = Vec::new();
    let refused = loop {
        let text = format!("{:0200}", sent.len());
        match writer.append(text.as_bytes()) {
            Ok(_) => sent.push(text),
            Err(full) => break full,
        }
        flusher.flush().unwrap();
    };
    writer.unrecorded(refused);
    assert_eq!((refused, writer.room(1)), (Full::Bound, Err(Full::Bound)));
    assert_eq!(gauges.folder_bytes_max(), BOUND);
    let bytes = gauges.folder_bytes();
    assert!((BOUND..BOUND + 300).contains(&bytes), "{bytes}");
    assert_eq!(bytes, file::folder_bytes(folder.path()).unwrap());
    assert_eq!(texts(&read_all(folder.path())), sent);

    // As it was found at a start.
    drop((writer, flusher));
    let (mut writer, mut flusher, _) = open(folder.path(), bounded(2)).unwrap();
    assert_eq!(writer.append(b"one"), Err(Full::Bound));
    writer.unrecorded(Full::Bound);
    assert!(
        delete_before(folder.path(), u64::MAX, |_| false)
            .unwrap()
            .files
            > 3
    );
    let begun = Instant::now();
    while writer.room(1).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "a look a second");
        flusher.flush().unwrap();
    }
    assert_eq!(writer.append(b"one"), Ok(1));
    let ledger = ledger(folder.path()).unwrap().unwrap();
    assert_eq!(ledger.recorded, sent.len() as u64 + 1);
    assert_eq!((ledger.unrecorded, ledger.bytes_max), ([0, 2, 0, 0], BOUND));
}

#[test]
fn the_age_of_what_a_power_cut_would_take_grows_until_it_is_synced() {
    let folder = folder();
    let disk = Disk::of(folder.path());
    let (mut writer, mut flusher, _) = start(folder.path(), 1);
    let gauges = flusher.gauges();
    assert_eq!(gauges.unsynced(), Duration::ZERO);
    for _ in 0..2 {
        let idle = Instant::now();
        flusher.flush().unwrap();
        assert_eq!(gauges.unsynced(), Duration::ZERO);
        let appended = Instant::now();
        writer.append(b"one").unwrap();
        disk.set_room(Some(0));
        for _ in 0..2 {
            assert!(flusher.flush().unwrap_err().is_disk_full());
            let least = appended.elapsed();
            let age = gauges.unsynced();
            assert!(age >= least && age <= idle.elapsed(), "{least:?} {age:?}");
        }
        disk.set_room(None);
        flusher.flush().unwrap();
        assert_eq!(gauges.unsynced(), Duration::ZERO);
    }
    // Whoever watches does not keep the folder from its next owner.
    drop((writer, flusher));
    drop(start(folder.path(), 2));
    assert!(!gauges.poisoned());
}
