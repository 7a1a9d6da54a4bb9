//! Rings in the machine's memory: whose they are, what they take, what they leave.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

use super::disk::{Disk, Lots, set_memory};
use super::{Folder, folder, options, read_all, start, texts};
use crate::{Full, Options, default_ring_folder, inspect, is_unsealed, ledger, open, seal};

/// The file that a journal names as its ring.
fn ring_of(folder: &Path) -> PathBuf {
    fs::read_link(folder.join("ring")).unwrap()
}

fn has_ring(folder: &Path) -> bool {
    inspect(folder).unwrap().ring.is_some()
}

/// A journal whose process died with "one" in the log and "two" in the ring.
fn left_behind() -> Folder {
    let folder = folder();
    let (mut writer, mut flusher, _) = start(folder.path(), 1);
    writer.append(b"one").unwrap();
    flusher.flush().unwrap();
    writer.append(b"two").unwrap();
    writer.unrecorded(Full::Ring);
    drop((writer, flusher));
    folder
}

#[test]
fn a_ring_lies_in_memory_as_large_as_it_was_asked_for_and_is_nobody_elses() {
    let folder = folder();
    let bytes = 1 << 20;
    let (_writer, flusher, _) = open(
        folder.path(),
        Options {
            ring_bytes: bytes,
            ..options(1)
        },
    )
    .unwrap();
    let ring = ring_of(folder.path());
    assert_eq!(fs::metadata(&ring).unwrap().len(), 4096 + bytes);
    assert_eq!(flusher.gauges().ring_bytes(), bytes);
    let rings = ring.parent().unwrap();
    let journals = folder.path().parent().unwrap();
    assert_eq!(rings, default_ring_folder(journals).unwrap());
    for (path, mode) in [(rings, 0o700), (&*ring, 0o600)] {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, mode);
    }
}

#[test]
fn a_ring_that_finds_too_little_room_is_halved_down_to_four_mebibytes() {
    const MIB: u64 = 1 << 20;
    for (asked, room, found) in [
        (64 * MIB, u64::MAX, Some(64 * MIB)),
        // The page before the data finds no room.
        (64 * MIB, 64 * MIB, Some(32 * MIB)),
        (64 * MIB, 5 * MIB, Some(4 * MIB)),
        (64 * MIB, 4 * MIB, None),
        // What was asked for is no less than was asked for.
        (MIB, MIB, None),
        (MIB, 2 * MIB, Some(MIB)),
    ] {
        set_memory(room);
        let folder = folder();
        let options = |stream| Options {
            ring_bytes: asked,
            ..options(stream)
        };
        match open(folder.path(), options(1)) {
            Ok((writer, flusher, _)) => {
                assert_eq!(Some(flusher.gauges().ring_bytes()), found);
                drop((writer, flusher));
            }
            Err(error) => {
                assert!(error.is_disk_full() && found.is_none(), "{error}");
                assert!(!has_ring(folder.path()));
                assert!(!ring_of(folder.path()).exists());
                // As soon as there is room it opens.
                set_memory(u64::MAX);
                drop(open(folder.path(), options(2)).unwrap());
            }
        }
    }
}

#[test]
fn a_ring_folder_that_may_be_somebody_elses_is_never_used() {
    type Make = fn(&Path);
    let private = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path).unwrap();
    let cases: [(&str, Make, &str); 4] = [
        (
            "a link",
            |path| {
                let to = path.with_extension("to");
                fs::DirBuilder::new().mode(0o700).create(&to).unwrap();
                symlink(to, path).unwrap();
            },
            "it is no folder",
        ),
        (
            "a file",
            |path| fs::write(path, "").unwrap(),
            "it is no folder",
        ),
        (
            "open to all",
            |path| {
                fs::create_dir(path).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
            },
            "others may use it (mode 777): chmod 700",
        ),
        (
            "another user's",
            |path| {
                fs::DirBuilder::new().mode(0o700).create(path).unwrap();
                if geteuid().is_root() {
                    std::os::unix::fs::chown(path, Some(65_533), None).unwrap();
                }
            },
            "it belongs to user 65533, this is user 0",
        ),
    ];
    for (name, make, why) in cases {
        if name == "another user's" && !geteuid().is_root() {
            // Only root can give a folder away; that the owner is looked at is seen where tests run as root.
            continue;
        }
        let folder = folder();
        let rings = folder.path().with_extension("rings");
        make(&rings);
        let options = |stream| Options {
            ring_folder: Some(rings.clone()),
            ..options(stream)
        };
        let refused = open(folder.path(), options(1)).err().unwrap().to_string();
        assert!(refused.contains(why), "{name}: {refused}");
        assert!(refused.contains("edge.ring_folder"), "{name}: {refused}");
        // Nothing was put there, and a folder of its own is taken.
        assert!(!ring_of(folder.path()).exists(), "{name}");
        fs::rename(&rings, folder.path().with_extension("away")).unwrap();
        private(&rings);
        drop(open(folder.path(), options(2)).unwrap());
    }
}

#[test]
fn a_copy_of_a_folder_took_the_ring_of_the_original() {
    let folder = left_behind();
    let copy = folder.path().with_file_name("copy");
    let mut copied = Command::new("cp");
    let copied = copied.arg("-a").arg(folder.path()).arg(&copy);
    assert!(copied.status().unwrap().success());

    assert!(!has_ring(&copy));
    assert_eq!(inspect(&copy).unwrap().ring, None);
    assert_eq!(seal(&copy).unwrap().unwrap().records, 0);
    assert!(!is_unsealed(&copy));
    drop(open(&copy, options(2)).unwrap());
    assert_eq!(texts(&read_all(&copy)), ["one"]);

    assert_eq!(seal(folder.path()).unwrap().unwrap().records, 1);
    assert_eq!(texts(&read_all(folder.path())), ["one", "two"]);
}

#[test]
fn a_recovery_that_ended_half_way_leaves_ring_and_counts_for_the_next_one() {
    for syncs in 0..10 {
        let folder = left_behind();
        let disk = Disk::of(folder.path());
        disk.power_goes_after(syncs);
        let done = seal(folder.path()).is_ok();
        assert_eq!(has_ring(folder.path()), !done, "{syncs}");
        drop(disk);
        seal(folder.path()).unwrap();
        assert_eq!(texts(&read_all(folder.path())), ["one", "two"]);
        let counted = ledger(folder.path()).unwrap().unwrap();
        assert_eq!((counted.recorded, counted.answered()), (2, 3), "{syncs}");
    }
}

#[test]
fn a_journal_was_not_sealed_after_its_ring_went_with_the_power() {
    for seed in 0..16 {
        let folder = folder();
        let disk = Disk::of(folder.path());
        let (mut writer, mut flusher, _) = start(folder.path(), 1);
        writer.append(b"one").unwrap();
        flusher.flush().unwrap();
        drop(writer);
        flusher.kill();
        disk.cut(&mut Lots(seed));
        assert!(is_unsealed(folder.path()), "{seed}");
        seal(folder.path()).unwrap();
        assert!(!is_unsealed(folder.path()), "{seed}");
        assert_eq!(texts(&read_all(folder.path())), ["one"], "{seed}");
    }
}

#[test]
fn a_courier_that_could_not_see_the_ring_folder_took_the_ring_from_the_next_edge() {
    let folder = left_behind();
    let rings = ring_of(folder.path()).parent().unwrap().to_owned();
    let elsewhere = rings.with_extension("elsewhere");
    fs::rename(&rings, &elsewhere).unwrap();
    assert_eq!(seal(folder.path()).unwrap().unwrap().records, 0);
    assert!(!is_unsealed(folder.path()));
    fs::rename(&elsewhere, &rings).unwrap();
    assert_eq!(start(folder.path(), 2).2.records, 1);
    assert_eq!(texts(&read_all(folder.path())), ["one", "two"]);
}

#[test]
fn a_folder_that_was_moved_finds_its_ring() {
    let folder = left_behind();
    let moved = folder.path().with_file_name("moved");
    fs::rename(folder.path(), &moved).unwrap();
    assert_eq!(seal(&moved).unwrap().unwrap().records, 1);
    assert_eq!(texts(&read_all(&moved)), ["one", "two"]);
}

#[test]
fn a_ring_that_is_used_by_the_same_disk_mounted_elsewhere_is_left_to_it() {
    let folder = left_behind();
    let ring = fs::File::open(ring_of(folder.path())).unwrap();
    flock(&ring, FlockOperation::LockExclusive).unwrap();
    assert_eq!(seal(folder.path()).unwrap().unwrap().records, 0);
    assert!(ring_of(folder.path()).exists());
    drop(ring);
    assert_eq!(seal(folder.path()).unwrap().unwrap().records, 1);

    // Its writer holds it for as long as it lives.
    let (writer, flusher, _) = start(folder.path(), 2);
    let ring = fs::File::open(ring_of(folder.path())).unwrap();
    assert!(flock(&ring, FlockOperation::NonBlockingLockExclusive).is_err());
    drop((writer, flusher));
}

#[test]
fn a_writer_that_ended_in_good_order_leaves_nothing_in_memory_and_keeps_its_counts() {
    let folder = folder();
    let (mut writer, mut flusher, _) = start(folder.path(), 1);
    let ring = ring_of(folder.path());
    writer.append(b"one").unwrap();
    writer.unrecorded_times(Full::Unopened, 3);
    drop(writer);
    flusher.flush().unwrap();
    drop(flusher);
    assert!(!ring.exists() && !ring.parent().unwrap().exists());
    assert!(!has_ring(folder.path()));
    let counted = ledger(folder.path()).unwrap().unwrap();
    assert_eq!((counted.recorded, counted.unrecorded), (1, [0, 0, 0, 3]));
    assert!(inspect(folder.path()).unwrap().agrees());
}

#[test]
fn a_machine_that_was_started_again_goes_on_from_the_log_and_the_last_copy_of_the_counts() {
    for is_copied in [false, true] {
        let folder = folder();
        let (mut writer, mut flusher, _) = start(folder.path(), 1);
        writer.append(b"one").unwrap();
        writer.unrecorded(Full::Ring);
        flusher.flush().unwrap();
        if is_copied {
            let later = Instant::now() + Duration::from_secs(2);
            flusher.flush_at(later).unwrap();
        }
        writer.append(b"two").unwrap();
        drop((writer, flusher));
        // Its memory is gone.
        fs::remove_file(ring_of(folder.path())).unwrap();
        assert!(!has_ring(folder.path()));
        assert_eq!(seal(folder.path()).unwrap().unwrap().records, 0);
        let counted = ledger(folder.path()).unwrap().unwrap();
        let answered = 1 + u64::from(is_copied);
        assert_eq!((counted.recorded, counted.answered()), (1, answered));
        go_on_with_three(&folder);
    }
}

fn go_on_with_three(folder: &Folder) {
    let (mut writer, mut flusher, _) = start(folder.path(), 2);
    writer.append(b"three").unwrap();
    flusher.flush().unwrap();
    assert_eq!(texts(&read_all(folder.path())), ["one", "three"]);
    assert!(inspect(folder.path()).unwrap().agrees());
}

/// A ring folder that was used before, then another one, then the first again: what lies there is of an earlier life.
#[test]
fn a_ring_of_an_earlier_life_gives_what_nobody_saved_and_nothing_twice() {
    for is_saved in [true, false] {
        let folder = left_behind();
        let (link, ring) = (folder.path().join("ring"), ring_of(folder.path()));
        let bytes = fs::read(&ring).unwrap();
        if !is_saved {
            fs::remove_file(&link).unwrap();
        }
        let (mut writer, mut flusher, recovered) = start(folder.path(), 2);
        assert_eq!(recovered.records, u64::from(is_saved));
        writer.append(b"three").unwrap();
        flusher.flush().unwrap();
        drop((writer, flusher));

        let mut rings = fs::DirBuilder::new();
        let rings = rings.recursive(true).mode(0o700);
        rings.create(ring.parent().unwrap()).unwrap();
        fs::write(&ring, bytes).unwrap();
        let _ = fs::remove_file(&link);
        symlink(&ring, &link).unwrap();
        let counted = ledger(folder.path()).unwrap().unwrap();
        for records in [u64::from(!is_saved), 0] {
            assert_eq!(seal(folder.path()).unwrap().unwrap().records, records);
        }
        let mut expected = match is_saved {
            true => vec!["one", "two", "three"],
            false => vec!["one", "three", "two"],
        };
        assert_eq!(texts(&read_all(folder.path())), expected);
        let found = ledger(folder.path()).unwrap().unwrap();
        assert_eq!(found.recorded, 3);
        assert_eq!(found.unrecorded, counted.unrecorded);
        let (mut writer, mut flusher, _) = start(folder.path(), 3);
        writer.append(b"four").unwrap();
        flusher.flush().unwrap();
        expected.push("four");
        assert_eq!(texts(&read_all(folder.path())), expected);
    }
}
