//! What a journal folder holds, for a person. Reads only; takes no lock, so that it may be asked beside a writer.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::file::{self, HEADER_BYTES, Header};
use crate::frame::Kind;
use crate::scanner::Scanner;
use crate::{Error, Ledger, StreamId, ring, scoreboard};

/// A journal folder at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its log files, oldest first.
    pub files: Vec<FileInspection>,
    /// Its ring, where there is one.
    pub ring: Option<RingInspection>,
    /// What its writers counted on the scoreboard, where there is one.
    pub ledger: Option<Ledger>,
    /// Records on the scoreboard before the files were walked.
    counted_before: u64,
}

impl Inspection {
    /// Records ever written to the folder, as its files say: the number of the first one kept, and every one from there
    /// to the end of log and ring. None where no file can be read.
    pub fn written(&self) -> Option<u64> {
        let newest = self.files.iter().rev().find(|file| file.stream.is_some())?;
        let of_ring = self.ring.as_ref();
        let of_ring = of_ring.filter(|ring| Some(ring.stream) == newest.stream);
        let last = of_ring
            .map_or(0, |ring| ring.last_sequence)
            .max(newest.last_sequence);
        Some(newest.ordinal + (last + 1).saturating_sub(newest.first_sequence))
    }

    /// Whether the scoreboard says the same of that number as the walk of the files does; true where one of them is not
    /// there. What was counted while the files were walked may be seen by either, and a writer killed between a record
    /// and its count leaves one record more than it counted, which the next open counts.
    pub fn agrees(&self) -> bool {
        let (Some(ledger), Some(written)) = (self.ledger, self.written()) else {
            return true;
        };
        let under_way = u64::from(self.ring.is_some());
        (self.counted_before..=ledger.written() + under_way).contains(&written)
    }
}

/// One log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInspection {
    /// As in its name.
    pub index: u64,
    /// Its size.
    pub bytes: u64,
    /// The stream it belongs to; none where its header is damaged, and then nothing of it is readable.
    pub stream: Option<StreamId>,
    /// Number of its first record in the stream.
    pub first_sequence: u64,
    /// Number of its last record in the stream, marked or not; one less than the first where it holds none.
    pub last_sequence: u64,
    /// Records ever written to the folder before it.
    pub ordinal: u64,
    /// Records before the last mark: durable.
    pub records: u64,
    /// Records behind it: a writer's last words, not durable yet, or left by one that died.
    pub records_unmarked: u64,
    /// Bytes before the last mark that are no frame: durable once, damaged since.
    pub corrupt_bytes: u64,
    /// Bytes behind it that are no frame.
    pub torn_bytes: u64,
}

/// The ring of a writer that lives or died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingInspection {
    /// Where it lies.
    pub path: PathBuf,
    /// The writer's stream.
    pub stream: StreamId,
    /// Its size.
    pub bytes: u64,
    /// Bytes of frames that are not in the log yet.
    pub unflushed_bytes: u64,
    /// Number of the last of their records in the stream; 0 where there are none.
    pub last_sequence: u64,
}

/// Looks at every file of a folder.
///
/// # Errors
/// When a file cannot be read or has a newer format.
pub fn inspect(folder: &Path) -> Result<Inspection, Error> {
    let counted_before = scoreboard::ledger(folder)?.map_or(0, |ledger| ledger.written());
    // The ring before the files: what leaves it meanwhile is then found in them.
    let ring = ring::remains(folder)?.map(|remains| RingInspection {
        path: remains.path.clone(),
        stream: remains.stream,
        bytes: remains.data.len() as u64,
        unflushed_bytes: remains.tail.saturating_sub(remains.flushed),
        last_sequence: remains.last_unflushed(),
    });
    let mut files = Vec::new();
    for index in file::list(folder)? {
        match inspect_file(&file::path_of(folder, index), index) {
            Ok(file) => files.push(file),
            // Deleted while this was looking.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Inspection {
        files,
        ring,
        ledger: scoreboard::ledger(folder)?,
        counted_before,
    })
}

fn inspect_file(path: &Path, index: u64) -> Result<FileInspection, Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let bytes = file.metadata().map_err(Error::io("read", path))?.len();
    let mut found = FileInspection {
        index,
        bytes,
        stream: None,
        first_sequence: 0,
        last_sequence: 0,
        ordinal: 0,
        records: 0,
        records_unmarked: 0,
        corrupt_bytes: 0,
        torn_bytes: 0,
    };
    let Some(header) = Header::read(&file, path)? else {
        found.corrupt_bytes = bytes;
        return Ok(found);
    };
    if Header::read_intact(&file, path)?.is_none() {
        found.corrupt_bytes = HEADER_BYTES;
    }
    found.stream = Some(header.stream);
    found.first_sequence = header.first_sequence;
    found.ordinal = header.ordinal;
    let last = header.first_sequence.saturating_sub(1);
    let mut scanner = Scanner::new(header.stream, HEADER_BYTES, last);
    while let Some(frame) = scanner
        .next(&file, bytes)
        .map_err(Error::io("read", path))?
    {
        found.torn_bytes += frame.bad_bytes;
        match frame.kind {
            Kind::Record => found.records_unmarked += 1,
            Kind::Mark => {
                found.records += std::mem::take(&mut found.records_unmarked);
                found.corrupt_bytes += std::mem::take(&mut found.torn_bytes);
            }
        }
    }
    found.torn_bytes += bytes.saturating_sub(scanner.at);
    found.last_sequence = scanner.last;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::{Log, Options};

    #[test]
    fn records_damage_and_the_ring_are_told() {
        let folder = crate::tests::folder();
        let stream = StreamId([1; 16]);
        let (mut log, _) = Log::open(folder.path(), Options::new(stream)).unwrap();
        for payload in [&b"first"[..], b"second", b"third"] {
            log.append(payload).unwrap();
        }
        log.sync().unwrap();
        drop(log);
        let clean = inspect(folder.path()).unwrap();
        assert_eq!(clean.ring, None);
        let [file] = &clean.files[..] else {
            panic!("{clean:?}");
        };
        assert_eq!(
            (file.stream, file.records, file.corrupt_bytes),
            (Some(stream), 3, 0)
        );
        assert_eq!((file.records_unmarked, file.torn_bytes), (0, 0));

        let path = file::path_of(folder.path(), 1);
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(6).position(|part| part == b"second").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"S", at as u64).unwrap();
        let damaged = inspect(folder.path()).unwrap();
        assert_eq!(damaged.files[0].records, 2);
        assert_eq!(damaged.files[0].corrupt_bytes, 24);

        let (mut writer, flusher, _) = crate::open(
            folder.path(),
            Options {
                ring_bytes: 4096,
                ..Options::new(StreamId([2; 16]))
            },
        )
        .unwrap();
        writer.append(b"in the ring").unwrap();
        let ring = inspect(folder.path()).unwrap().ring.unwrap();
        assert_eq!(
            (ring.stream, ring.bytes, ring.unflushed_bytes),
            (StreamId([2; 16]), 4096, 32)
        );
        drop((writer, flusher));
    }

    #[test]
    fn the_files_and_the_scoreboard_say_the_same_until_one_of_them_is_changed() {
        let folder = crate::tests::folder();
        let small = |stream| Options {
            ring_bytes: 4096,
            ..Options::new(StreamId([stream; 16]))
        };
        let look = || {
            let found = inspect(folder.path()).unwrap();
            (found.written(), found.agrees())
        };
        for stream in [1, 2] {
            let (mut writer, mut flusher, _) = crate::open(folder.path(), small(stream)).unwrap();
            let before = u64::from(stream - 1) * 5;
            assert_eq!(look(), (Some(before), true));
            for flushed in [true, false] {
                for payload in [&b"first"[..], b"second"] {
                    writer.append(payload).unwrap();
                }
                if flushed {
                    flusher.flush().unwrap();
                    assert_eq!(look(), (Some(before + 2), true));
                }
            }
            writer.append(b"third").unwrap();
            assert_eq!(look(), (Some(before + 5), true));
        }
        // Sealed or not, and with the oldest file gone.
        crate::seal(folder.path()).unwrap();
        std::fs::remove_file(file::path_of(folder.path(), 1)).unwrap();
        assert_eq!(look(), (Some(10), true));

        let newest = file::path_of(
            folder.path(),
            *file::list(folder.path()).unwrap().last().unwrap(),
        );
        let bytes = std::fs::read(&newest).unwrap();
        std::fs::write(&newest, &bytes[..HEADER_BYTES as usize]).unwrap();
        assert_eq!(look(), (Some(7), false));
        std::fs::write(&newest, &bytes).unwrap();
        assert_eq!(look(), (Some(10), true));
        scoreboard::settle(folder.path(), 9, None).unwrap();
        assert_eq!(look(), (Some(10), false));
    }
}
