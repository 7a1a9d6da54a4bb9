//! The scoreboard: what the writers of a folder counted, on one page that outlives them.
//!
//! ```text
//! 0   8   magic "SLUICESB"
//! 8   u32 format version, 1
//! 12  u32 crc32c over bytes 0..12 and 16..64
//! 16  u64 ordinal: records ever written to this folder before this open
//! 24  u64 power_cut: records that power cuts took, ever
//! 32  u64 most bytes of the folder's log files together
//! 40  24  zero
//! 64  u64 appended: records this open's writer put into the ring
//! 72  u64 × 3 answers that went without their record, ever, by reason in the order of [`Full::ALL`]
//! 96  …   zeros up to 4096
//! ```
//!
//! Little endian. The head is written with the page, which then replaces the one before it under its name; the counters
//! behind it are stored by the one writer through a mapping, in one sector, and are read as a plain file.
//!
//! It is never synced while it counts, so a power cut may leave it older than the log, and the log older than it. The log
//! says what was written: whoever holds the folder's lock after a writer puts the log's number in the head, and what the
//! page knew beyond it is what the power cut took; mostly the page is the older one, and that is not known. So `recorded` never
//! drifts from the log; answers without a record that were counted in the last half minute before a power cut may be
//! missing. A damaged page is begun anew from the log.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::ring::{PAGE_BYTES, Words};
use crate::writer::Full;
use crate::{Error, file};

pub(crate) const NAME: &str = "scoreboard";
const MAGIC: &[u8; 8] = b"SLUICESB";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 64;
const APPENDED_AT: usize = 64;
const UNRECORDED_AT: usize = 72;

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
    Ok(Page::read(folder)?.map(|page| Ledger {
        recorded: page.written().saturating_add(page.power_cut),
        unrecorded: page.unrecorded,
        power_cut: page.power_cut,
        bytes_max: page.bytes_max,
    }))
}

/// The writer's way to the counters: plain stores, because it is the only one that stores.
pub(crate) struct Counters(Arc<Words>);

impl Counters {
    pub(crate) fn appended(&self, sequence: u64) {
        self.0.set(APPENDED_AT, sequence);
    }

    pub(crate) fn unrecorded(&self, why: Full) {
        let at = UNRECORDED_AT + 8 * why as usize;
        self.0.set(at, self.0.get(at).saturating_add(1));
    }

    /// For somebody who looks on.
    pub(crate) fn view(&self) -> View {
        View(Arc::clone(&self.0))
    }
}

/// The counters, to look at.
#[derive(Clone)]
pub(crate) struct View(Arc<Words>);

impl View {
    pub(crate) fn appended(&self) -> u64 {
        self.0.get(APPENDED_AT)
    }
}

/// Brings the page, if there is one, in line with the log, whose next record has this ordinal. Returns how many records
/// the page knew beyond it. The caller holds the folder's lock. Done again it changes nothing.
pub(crate) fn settle(folder: &Path, ordinal: u64) -> Result<u64, Error> {
    let Some(page) = Page::read(folder)? else {
        return Ok(0);
    };
    let taken = page.written().saturating_sub(ordinal);
    if page.written() != ordinal {
        page.settled(ordinal).replace(folder)?;
    }
    Ok(taken)
}

/// Begins the page of a new open. The caller holds the folder's lock.
pub(crate) fn begin(folder: &Path, ordinal: u64, bytes_max: u64) -> Result<Counters, Error> {
    let page = Page::read(folder)?.unwrap_or_default();
    let page = Page {
        bytes_max,
        ..page.settled(ordinal)
    };
    let file = page.replace(folder)?;
    let words = Words::of(&file).map_err(Error::io("map", &folder.join(NAME)))?;
    Ok(Counters(Arc::new(words)))
}

#[derive(Clone, Copy, Default)]
struct Page {
    ordinal: u64,
    power_cut: u64,
    bytes_max: u64,
    appended: u64,
    unrecorded: [u64; Full::ALL.len()],
}

impl Page {
    fn written(&self) -> u64 {
        self.ordinal.saturating_add(self.appended)
    }

    fn settled(self, ordinal: u64) -> Page {
        let taken = self.written().saturating_sub(ordinal);
        Page {
            ordinal,
            power_cut: self.power_cut.saturating_add(taken),
            appended: 0,
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
            appended: u64_at(APPENDED_AT),
            unrecorded: Full::ALL.map(|why| u64_at(UNRECORDED_AT + 8 * why as usize)),
        }))
    }

    fn bytes(&self) -> [u8; PAGE_BYTES] {
        let mut bytes = [0; PAGE_BYTES];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let mut put = |at: usize, number: u64| {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        };
        put(16, self.ordinal);
        put(24, self.power_cut);
        put(32, self.bytes_max);
        put(APPENDED_AT, self.appended);
        for why in Full::ALL {
            put(
                UNRECORDED_AT + 8 * why as usize,
                self.unrecorded[why as usize],
            );
        }
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

    #[test]
    fn golden() {
        let page = Page {
            ordinal: 1000,
            power_cut: 3,
            bytes_max: 1 << 34,
            appended: 7,
            unrecorded: [1, 2, 5],
        };
        let bytes = page.bytes();
        let hex: String = bytes[..96]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "534c554943455342010000007b4e6912e803000000000000030000000000000000000000040000000000000000000000000000000000000000000000000000000700000000000000010000000000000002000000000000000500000000000000"
        );
        assert!(bytes[96..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_is_counted_outlives_the_writer_and_what_the_log_lacks_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ledger(folder.path()).unwrap(), None);
        assert_eq!(settle(folder.path(), 10).unwrap(), 0);
        let counters = begin(folder.path(), 10, 500).unwrap();
        counters.appended(7);
        for why in [Full::Bound, Full::Ring, Full::Bound] {
            counters.unrecorded(why);
        }
        let mut expected = Ledger {
            recorded: 17,
            unrecorded: [1, 2, 0],
            power_cut: 0,
            bytes_max: 500,
        };
        assert_eq!(ledger(folder.path()).unwrap(), Some(expected));
        assert_eq!(expected.answered(), 20);
        drop(counters);

        // The log has two less.
        assert_eq!(settle(folder.path(), 15).unwrap(), 2);
        assert_eq!(settle(folder.path(), 15).unwrap(), 0);
        expected.power_cut = 2;
        assert_eq!(ledger(folder.path()).unwrap(), Some(expected));
        // The log has more: the page is the older one.
        assert_eq!(settle(folder.path(), 20).unwrap(), 0);
        drop(begin(folder.path(), 20, 600).unwrap());
        expected.recorded = 22;
        expected.bytes_max = 600;
        assert_eq!(ledger(folder.path()).unwrap(), Some(expected));
    }

    #[test]
    fn a_damaged_page_is_begun_anew_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        begin(folder.path(), 10, 500).unwrap().appended(7);
        let path = folder.path().join(NAME);
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[9], 17).unwrap();
        assert_eq!(ledger(folder.path()).unwrap(), None);
        assert_eq!(settle(folder.path(), 17).unwrap(), 0);
        drop(begin(folder.path(), 17, 500).unwrap());
        let anew = ledger(folder.path()).unwrap().unwrap();
        assert_eq!((anew.recorded, anew.power_cut), (17, 0));

        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 2;
        let crc = checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        let refused = begin(folder.path(), 17, 500).err().unwrap();
        assert!(refused.is_newer_format(), "{refused}");
        fs::write(&path, &bytes[..100]).unwrap();
        drop(begin(folder.path(), 17, 500).unwrap());
    }
}
