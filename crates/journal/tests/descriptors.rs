//! A process without a descriptor to spare. Alone in its process: the limit is one for all threads.

use std::fs::File;

use journal::{Options, Position, Reader, StreamId, open};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const LOG_BYTES_MAX: u64 = 4096;

#[test]
fn running_out_of_descriptors_at_a_rotation_poisons_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        ring_bytes: 1 << 16,
        ring_folder: Some(folder.path().join("rings")),
        log_bytes_max: LOG_BYTES_MAX,
        ..Options::new(StreamId::random())
    };
    let (mut writer, mut flusher, _) = open(folder.path(), options).unwrap();
    let files = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".log")).count()
    };
    let mut written = 0;
    let mut fill = |rotations: u64| {
        for _ in 0..rotations * LOG_BYTES_MAX / 1024 + 1 {
            writer.append(&[b'x'; 1024]).unwrap();
            written += 1;
            flusher.flush().unwrap();
        }
        assert!(!writer.poisoned());
        written
    };

    let before = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(64),
        ..before
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let mut held = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
    }
    fill(3);
    drop(held);
    // The next file was open already, and each rotation gives back as many descriptors as the next one needs.
    assert_eq!(files(), 4);

    setrlimit(Resource::Nofile, before).unwrap();
    let written = fill(2);
    assert_eq!(files(), 6);
    let mut entries = Vec::new();
    let mut reader = Reader::open(folder.path(), Position::default()).unwrap();
    reader.read(&mut entries, usize::MAX).unwrap();
    assert_eq!(entries.len(), written);
}
