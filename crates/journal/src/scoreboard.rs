//! The scoreboard: what the writers of a folder counted since it was made. It outlives them.
//!
//! The file `scoreboard` is one page:
//!
//! ```text
//! 0   8   magic "SLUICESB"
//! 8   u32 format version, 1
//! 12  u32 crc32c over bytes 0..12 and 16..64
//! 16  u64 ordinal: records ever written to this folder before this open
//! 24  u64 power_cut: records that power cuts took, ever
//! 32  u64 most bytes of the folder's log files together
//! 40  16  stream of the writer whose ring has the newest counts; zero where no ring does
//! 56  8   zero
//! 64  u64 appended: records this open's writer put into the ring
//! 72  u64 × 4 answers that went without their record, ever, by reason in the order of [`Full::ALL`]
//! 104 …   zeros up to 4096
//! ```
//!
//! Little endian. The head is written with the page, which then replaces the one before it under its name. The writer counts
//! in its ring, because a store must not wait for a disk; the journal thread copies the counts behind the head once a
//! second. Whoever looks takes them from the ring while there is one of the page's stream.
//!
//! The copies are not synced, so a power cut may leave the page older than the log, and the log older than it. The log
//! says what was written: whoever holds the folder's lock after a writer puts the log's number in the head, and what the
//! page knew beyond it is what the power cut took; mostly the page is the older one, and that is not known. So `recorded` never
//! drifts from the log; answers without a record that were counted in the last half minute before a power cut may be
//! missing. A damaged page is begun anew from the log.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::ring::{self, Counts};
use crate::writer::Full;
use crate::{Error, StreamId, file};

pub(crate) const NAME: &str = "scoreboard";
const MAGIC: &[u8; 8] = b"SLUICESB";
const VERSION: u32 = 1;
const PAGE_BYTES: usize = 4096;
const HEAD_BYTES: usize = 64;
const APPENDED_AT: usize = 64;
const UNRECORDED_AT: usize = 72;
const COUNTS_END: usize = UNRECORDED_AT + 8 * Full::ALL.len();
const NOBODY: StreamId = StreamId([0; 16]);

/// What the answers of a folder's writers came to, since the folder was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Records that were put into the ring, those included that a power cut took from there.
    pub recorded: u64,
    /// Answers that owed the journal a record it did not take, in the order of [`Full::ALL`].
    pub unrecorded: [u64; Full::ALL.len()],
    /// Records that power cuts took.
    pub power_cut: u64,
    /// The bound of the folder's log files together, as its last writer was told.
    pub bytes_max: u64,
}

impl Ledger {
    /// Answers that owed the journal a record.
    pub fn answered(&self) -> u64 {
        self.recorded + self.unrecorded.iter().sum::<u64>()
    }

    /// Records that the log and the ring hold or held: the ordinal of the next one.
    pub fn written(&self) -> u64 {
        self.recorded - self.power_cut
    }
}

/// Reads a folder's scoreboard; None where it has none yet or a damaged one.
///
/// # Errors
/// `is_newer_format`, or what the disk said.
pub fn ledger(folder: &Path) -> Result<Option<Ledger>, Error> {
    // The ring before the page: one that is begun meanwhile is of another stream than the page that is read then.
    let counted = ring::counts(folder)?;
    Ok(Page::read(folder)?.map(|page| {
        let page = page.with(counted);
        Ledger {
            recorded: page.written().saturating_add(page.power_cut),
            unrecorded: page.counts.unrecorded,
            power_cut: page.power_cut,
            bytes_max: page.bytes_max,
        }
    }))
}

/// Brings the page, if there is one, in line with the log, whose next record has this ordinal, and keeps in it what a ring
/// that will be removed has counted. Returns how many records were counted beyond the log. The caller holds the folder's
/// lock. Done again it changes nothing.
pub(crate) fn settle(
    folder: &Path,
    ordinal: u64,
    counted: Option<(StreamId, Counts)>,
) -> Result<u64, Error> {
    let Some(found) = Page::read(folder)? else {
        return Ok(0);
    };
    let page = found.with(counted);
    let settled = page.settled(ordinal);
    if settled != found {
        settled.replace(folder)?;
    }
    Ok(page.written().saturating_sub(ordinal))
}

/// Begins the page of a new open, whose writer counts on from what is returned. The caller holds the folder's lock and has
/// settled the page.
pub(crate) fn begin(
    folder: &Path,
    stream: StreamId,
    ordinal: u64,
    bytes_max: u64,
) -> Result<(Board, Counts), Error> {
    let page = Page::read(folder)?.unwrap_or_default();
    let page = Page {
        bytes_max,
        stream,
        ..page.settled(ordinal)
    };
    let file = page.replace(folder)?;
    let path = folder.join(NAME);
    Ok((Board { file, path }, page.counts))
}

/// The page of an open, for copies of what its writer counts.
pub(crate) struct Board {
    file: File,
    path: PathBuf,
}

impl Board {
    /// Writes the counts behind the head: in one sector, so that none is half of a copy.
    pub(crate) fn copy(&self, counts: &Counts) -> Result<(), Error> {
        let bytes = counts_bytes(counts);
        file::write(&self.file, &self.path, &bytes, HEAD_BYTES as u64)
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        file::sync(&self.file, &self.path)
    }
}

fn counts_bytes(counts: &Counts) -> [u8; COUNTS_END - HEAD_BYTES] {
    let mut bytes = [0; COUNTS_END - HEAD_BYTES];
    let mut put = |at: usize, number: u64| {
        bytes[at - HEAD_BYTES..at - HEAD_BYTES + 8].copy_from_slice(&number.to_le_bytes());
    };
    put(APPENDED_AT, counts.appended);
    for why in Full::ALL {
        put(
            UNRECORDED_AT + 8 * why as usize,
            counts.unrecorded[why as usize],
        );
    }
    bytes
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Page {
    ordinal: u64,
    power_cut: u64,
    bytes_max: u64,
    stream: StreamId,
    counts: Counts,
}

impl Default for Page {
    fn default() -> Page {
        Page {
            ordinal: 0,
            power_cut: 0,
            bytes_max: 0,
            stream: NOBODY,
            counts: Counts::default(),
        }
    }
}

impl Page {
    fn written(&self) -> u64 {
        self.ordinal.saturating_add(self.counts.appended)
    }

    /// With the counts of a ring, if they are of the page's open.
    fn with(self, counted: Option<(StreamId, Counts)>) -> Page {
        match counted {
            Some((stream, counts)) if stream == self.stream => Page { counts, ..self },
            _ => self,
        }
    }

    fn settled(self, ordinal: u64) -> Page {
        let taken = self.written().saturating_sub(ordinal);
        Page {
            ordinal,
            power_cut: self.power_cut.saturating_add(taken),
            stream: NOBODY,
            counts: Counts {
                appended: 0,
                ..self.counts
            },
            ..self
        }
    }

    /// None where there is none or a damaged one.
    fn read(folder: &Path) -> Result<Option<Page>, Error> {
        let path = folder.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if bytes.len() < PAGE_BYTES || &bytes[0..8] != MAGIC || u32_at(12) != checksum(&bytes) {
            return Ok(None);
        }
        if u32_at(8) != VERSION {
            return Err(Error::newer_format(&path, u32_at(8)));
        }
        Ok(Some(Page {
            ordinal: u64_at(16),
            power_cut: u64_at(24),
            bytes_max: u64_at(32),
            stream: StreamId(bytes[40..56].try_into().expect("16 bytes")),
            counts: Counts {
                appended: u64_at(APPENDED_AT),
                unrecorded: Full::ALL.map(|why| u64_at(UNRECORDED_AT + 8 * why as usize)),
            },
        }))
    }

    fn bytes(&self) -> [u8; PAGE_BYTES] {
        let mut bytes = [0; PAGE_BYTES];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.ordinal.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.power_cut.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.bytes_max.to_le_bytes());
        bytes[40..56].copy_from_slice(&self.stream.0);
        bytes[HEAD_BYTES..COUNTS_END].copy_from_slice(&counts_bytes(&self.counts));
        let crc = checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Puts the page in the place of the one before it, whole and durable or not at all.
    fn replace(&self, folder: &Path) -> Result<File, Error> {
        let path = folder.join(NAME);
        let young = folder.join("scoreboard.new");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&young)
            .map_err(Error::io("create", &young))?;
        file::write(&file, &young, &self.bytes(), 0)?;
        file::sync(&file, &young)?;
        fs::rename(&young, &path).map_err(Error::io("create", &path))?;
        file::sync_folder(folder)?;
        Ok(file)
    }
}

fn checksum(page: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&page[0..12]), &page[16..HEAD_BYTES])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    const STREAM: StreamId = StreamId(*b"0123456789abcdef");
    const COUNTS: Counts = Counts {
        appended: 7,
        unrecorded: [1, 2, 5, 0],
    };

    #[test]
    fn golden() {
        let page = Page {
            ordinal: 1000,
            power_cut: 3,
            bytes_max: 1 << 34,
            stream: STREAM,
            counts: COUNTS,
        };
        let bytes = page.bytes();
        let hex: String = bytes[..COUNTS_END]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "534c554943455342010000007787040ee8030000000000000300000000000000000000000400000030313233343536373839616263646566000000000000000007000000000000000100000000000000020000000000000005000000000000000000000000000000"
        );
        assert!(bytes[COUNTS_END..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_was_copied_outlives_the_ring_and_what_the_log_lacks_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ledger(folder.path()).unwrap(), None);
        assert_eq!(settle(folder.path(), 10, None).unwrap(), 0);
        let (board, _) = begin(folder.path(), STREAM, 10, 500).unwrap();
        board.copy(&COUNTS).unwrap();
        let mut expected = Ledger {
            recorded: 17,
            unrecorded: COUNTS.unrecorded,
            power_cut: 0,
            bytes_max: 500,
        };
        assert_eq!(ledger(folder.path()).unwrap(), Some(expected));
        assert_eq!(expected.answered(), 25);

        // The log has two less.
        assert_eq!(settle(folder.path(), 15, None).unwrap(), 2);
        assert_eq!(settle(folder.path(), 15, None).unwrap(), 0);
        expected.power_cut = 2;
        assert_eq!(ledger(folder.path()).unwrap(), Some(expected));
        // The log has more: the page is the older one.
        assert_eq!(settle(folder.path(), 20, None).unwrap(), 0);
        let (_, counts) = begin(folder.path(), STREAM, 20, 600).unwrap();
        assert_eq!((counts.appended, counts.unrecorded), (0, COUNTS.unrecorded));
        expected.recorded = 22;
        expected.bytes_max = 600;
        assert_eq!(ledger(folder.path()).unwrap(), Some(expected));
    }

    #[test]
    fn a_ring_counts_once_and_only_for_the_open_it_is_of() {
        let folder = tempfile::tempdir().unwrap();
        drop(begin(folder.path(), STREAM, 10, 500).unwrap());
        let stale = Some((StreamId([7; 16]), COUNTS));
        assert_eq!(settle(folder.path(), 10, stale).unwrap(), 0);
        assert_eq!(ledger(folder.path()).unwrap().unwrap().answered(), 10);

        drop(begin(folder.path(), STREAM, 10, 500).unwrap());
        // Its process died before the ring was removed, and it is found once more.
        for lost in [2, 0] {
            assert_eq!(
                settle(folder.path(), 15, Some((STREAM, COUNTS))).unwrap(),
                lost
            );
            let found = ledger(folder.path()).unwrap().unwrap();
            assert_eq!((found.recorded, found.power_cut), (17, 2));
            assert_eq!(found.unrecorded, COUNTS.unrecorded);
        }
    }

    #[test]
    fn a_damaged_page_is_begun_anew_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let begin = |ordinal| begin(folder.path(), STREAM, ordinal, 500);
        begin(10).unwrap().0.copy(&COUNTS).unwrap();
        let path = folder.path().join(NAME);
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[9], 17).unwrap();
        assert_eq!(ledger(folder.path()).unwrap(), None);
        assert_eq!(settle(folder.path(), 17, None).unwrap(), 0);
        drop(begin(17).unwrap());
        let anew = ledger(folder.path()).unwrap().unwrap();
        assert_eq!((anew.recorded, anew.power_cut), (17, 0));

        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 2;
        let crc = checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        let refused = begin(17).err().unwrap();
        assert!(refused.is_newer_format(), "{refused}");
        fs::write(&path, &bytes[..100]).unwrap();
        drop(begin(17).unwrap());
    }
}
