//! Reading a journal from outside, while it is written or after.
//!
//! A reader only uses `pread`: it takes no lock, maps nothing, and may live in another process. It first looks ahead for
//! the last mark, then delivers the records before it. Bad bytes before a mark are skipped and counted. When a newer file
//! exists and this one has no new mark, it goes on there.
//!
//! A file's last mark is not synced with what it speaks of, so a power cut or a failed sync can take it. Where the next
//! file continues the stream, its header says the same: records below its first sequence were durable when it was made, and
//! are delivered from here. Those from it on are written again there, after a failed sync or by recovery, and are not.
//! Lost marks are also why the next file may begin below what was delivered from this one: nothing is delivered twice.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::file::{self, HEADER_BYTES, Header};
use crate::frame::Kind;
use crate::scanner::{Scanner, mark_offset};
use crate::{Error, StreamId};

/// The next file usually has the next index, and one look tells whether it is there. One idle read in this many lists the
/// folder instead, for the case that somebody took that file away.
const IDLE_READS_PER_LISTING: u32 = 64;

/// A place in a journal folder: the index of a log file and a byte offset in it. The default is before the oldest record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Position {
    /// Index of the log file.
    pub file: u64,
    /// Byte offset in it; below 64, the header's size, it means the first record.
    pub offset: u64,
}

/// One durable record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The stream it was written in.
    pub stream: StreamId,
    /// Its number in the stream, from 1.
    pub sequence: u64,
    /// Its number in the folder, from 0: never falls and never repeats; exact where no file header was damaged.
    pub ordinal: u64,
    /// The record.
    pub payload: Vec<u8>,
    /// Where to go on after it.
    pub next: Position,
}

/// What a reader could not deliver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Skipped {
    /// Bytes before a mark that were no frame: damaged, or left torn by a power cut and passed over by recovery.
    pub corrupt_bytes: u64,
}

/// Delivers the durable records of a folder in order.
pub struct Reader {
    folder: PathBuf,
    position: Position,
    from_ordinal: u64,
    /// The last record delivered: a file that repeats it after a failure does not deliver it again.
    delivered: Option<(StreamId, u64)>,
    current: Option<Current>,
    idle_reads: u32,
    skipped: Skipped,
}

struct Current {
    path: PathBuf,
    file: File,
    header: Header,
    records: Scanner,
    marks: Scanner,
    /// Everything before this offset is durable.
    durable: u64,
    /// Records below this sequence are durable, marked or not: a newer file goes on with it. 0 while there is none.
    continued_from: u64,
    /// Index of a newer file, once there is one.
    newer: Option<u64>,
}

impl Reader {
    /// A reader that begins at a position. A file that is gone is passed over; an empty or missing folder has nothing yet.
    ///
    /// # Errors
    /// None now; the folder is first touched by [`Reader::read`].
    pub fn open(folder: &Path, at: Position) -> Result<Reader, Error> {
        Ok(Reader {
            folder: folder.to_owned(),
            position: at,
            from_ordinal: 0,
            delivered: None,
            current: None,
            idle_reads: 0,
            skipped: Skipped::default(),
        })
    }

    /// A reader that begins with the first record whose ordinal is `ordinal` or more.
    ///
    /// # Errors
    /// When a file cannot be read or has a newer format.
    pub fn open_at_ordinal(folder: &Path, ordinal: u64) -> Result<Reader, Error> {
        let mut at = Position::default();
        for &index in file::list(folder)?.iter().rev() {
            let path = file::path_of(folder, index);
            let header = match File::open(&path) {
                Ok(file) => Header::read(&file, &path)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(Error::io("open", &path)(error)),
            };
            if header.is_some_and(|header| header.ordinal <= ordinal) {
                at.file = index;
                break;
            }
        }
        Ok(Reader {
            from_ordinal: ordinal,
            ..Reader::open(folder, at)?
        })
    }

    /// The ordinal of the oldest record kept, or of the next one where there is none; `None` in an empty folder.
    ///
    /// # Errors
    /// When a file cannot be read or has a newer format.
    pub fn earliest_ordinal(folder: &Path) -> Result<Option<u64>, Error> {
        for &index in &file::list(folder)? {
            let path = file::path_of(folder, index);
            let file = File::open(&path).map_err(Error::io("open", &path))?;
            if let Some(header) = Header::read(&file, &path)? {
                return Ok(Some(header.ordinal));
            }
        }
        Ok(None)
    }

    /// Lets the kernel forget what it has read of the files from the reader's place on, so that the next reader asks the disk.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn drop_cache(&self) -> Result<(), Error> {
        for index in file::list(&self.folder)? {
            if index < self.position.file {
                continue;
            }
            let path = file::path_of(&self.folder, index);
            let file = File::open(&path).map_err(Error::io("open", &path))?;
            // A hint, which a file system may not know.
            _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
        Ok(())
    }

    /// Where the next record will be looked for.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What was passed over so far.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// Adds new durable records to `into` and returns how many. Stops once their payloads reach `bytes_max` bytes, but
    /// delivers at least one if there is one; 0 means nothing new yet.
    ///
    /// # Errors
    /// When a file cannot be read or has a newer format. The position stays right: call again.
    pub fn read(&mut self, into: &mut Vec<Entry>, bytes_max: usize) -> Result<usize, Error> {
        let before = into.len();
        let mut bytes = 0;
        loop {
            if bytes >= bytes_max && into.len() > before {
                return Ok(into.len() - before);
            }
            if self.current.is_none() && !self.open_current()? {
                return Ok(into.len() - before);
            }
            let current = self.current.as_mut().expect("opened above");
            while current.records.at < current.durable {
                if bytes >= bytes_max && into.len() > before {
                    return Ok(into.len() - before);
                }
                let found = current
                    .records
                    .next(&current.file, current.durable)
                    .map_err(Error::io("read", &current.path))?;
                let Some(found) = found else {
                    self.skipped.corrupt_bytes += current.durable - current.records.at;
                    current.records.at = current.durable;
                    self.position.offset = current.durable;
                    break;
                };
                self.skipped.corrupt_bytes += found.bad_bytes;
                self.position.offset = current.records.at;
                let ordinal = current.header.ordinal_of(found.sequence);
                let stream = current.header.stream;
                let repeated = self
                    .delivered
                    .is_some_and(|(of, last)| of == stream && found.sequence <= last);
                if found.kind == Kind::Record && ordinal >= self.from_ordinal && !repeated {
                    self.delivered = Some((stream, found.sequence));
                    let payload = current.records.payload(&found).to_vec();
                    bytes += payload.len();
                    into.push(Entry {
                        stream,
                        sequence: found.sequence,
                        ordinal,
                        payload,
                        next: self.position,
                    });
                }
            }
            if current.find_mark()? {
                continue;
            }
            if let Some(newer) = current.newer {
                self.position = Position {
                    file: newer,
                    offset: 0,
                };
                self.current = None;
                continue;
            }
            let newer = newer_file(&self.folder, current.header.index, &mut self.idle_reads)?;
            if newer.is_none() {
                return Ok(into.len() - before);
            }
            // This file got its last mark before the newer one was made: one more look at it is the last.
            current.newer = newer;
            current.continued_from =
                continued_from(&self.folder, current.header.index, current.header.stream)?;
            if current.continued_from > 0 {
                current.marks = Scanner::new(
                    current.header.stream,
                    current.records.at,
                    current.records.last,
                );
                if self
                    .delivered
                    .is_none_or(|(of, _)| of != current.header.stream)
                {
                    self.delivered = current.last_before(self.position.offset)?;
                }
            }
        }
    }

    /// Opens the file of the position, or the next one there is. False where there is nothing yet.
    fn open_current(&mut self) -> Result<bool, Error> {
        let indexes = file::list(&self.folder)?;
        for (place, &index) in indexes.iter().enumerate() {
            if index < self.position.file {
                continue;
            }
            let path = file::path_of(&self.folder, index);
            let file = match File::open(&path).map_err(Error::io("open", &path)) {
                Ok(file) => file,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            let Some(header) = Header::read(&file, &path)? else {
                if place + 1 == indexes.len() {
                    return Ok(false);
                }
                self.skipped.corrupt_bytes +=
                    file.metadata().map_err(Error::io("read", &path))?.len();
                self.position = Position {
                    file: index + 1,
                    offset: 0,
                };
                continue;
            };
            let offset = if index == self.position.file {
                self.position.offset.max(HEADER_BYTES)
            } else {
                HEADER_BYTES
            };
            let records = Scanner::new(
                header.stream,
                offset,
                header.first_sequence.saturating_sub(1),
            );
            let marks = Scanner::new(
                header.stream,
                offset,
                header.first_sequence.saturating_sub(1),
            );
            self.position = Position {
                file: index,
                offset,
            };
            self.idle_reads = 0;
            self.current = Some(Current {
                path,
                file,
                header,
                records,
                marks,
                durable: 0,
                continued_from: 0,
                newer: None,
            });
            return Ok(true);
        }
        Ok(false)
    }
}

impl Current {
    /// Looks for marks beyond those known; true where more became durable.
    fn find_mark(&mut self) -> Result<bool, Error> {
        let before = self.durable;
        let bytes = self
            .file
            .metadata()
            .map_err(Error::io("read", &self.path))?
            .len();
        if bytes <= self.marks.at {
            return Ok(false);
        }
        self.marks.forget();
        while let Some(found) = self
            .marks
            .next(&self.file, bytes)
            .map_err(Error::io("read", &self.path))?
        {
            let durable = match found.kind {
                Kind::Mark => mark_offset(self.marks.payload(&found)),
                Kind::Record if found.sequence < self.continued_from => self.marks.at,
                Kind::Record => continue,
            };
            self.durable = self.durable.max(durable);
        }
        // The two may have read the same bytes at different times.
        self.records.forget();
        Ok(self.durable > before && self.durable > self.records.at)
    }

    /// The last record that ends at or before an offset: what a reader that begins there was given last.
    fn last_before(&self, offset: u64) -> Result<Option<(StreamId, u64)>, Error> {
        let stream = self.header.stream;
        let mut last = None;
        let mut scanner = Scanner::new(
            stream,
            HEADER_BYTES,
            self.header.first_sequence.saturating_sub(1),
        );
        while let Some(found) = scanner
            .next(&self.file, offset)
            .map_err(Error::io("read", &self.path))?
        {
            if found.kind == Kind::Record {
                last = Some((stream, found.sequence));
            }
        }
        Ok(last)
    }
}

/// The sequence with which a later file goes on with the stream; 0 when the next one that can be read is of another.
pub(crate) fn continued_from(folder: &Path, index: u64, stream: StreamId) -> Result<u64, Error> {
    for later in file::list(folder)?
        .into_iter()
        .filter(|&other| other > index)
    {
        let path = file::path_of(folder, later);
        let header = match File::open(&path).map_err(Error::io("open", &path)) {
            Ok(file) => Header::read(&file, &path)?,
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        if let Some(header) = header {
            return Ok(if header.stream == stream {
                header.first_sequence
            } else {
                0
            });
        }
    }
    Ok(0)
}

fn newer_file(folder: &Path, index: u64, idle_reads: &mut u32) -> Result<Option<u64>, Error> {
    *idle_reads = idle_reads.wrapping_add(1);
    if *idle_reads % IDLE_READS_PER_LISTING == 1 {
        return Ok(file::list(folder)?.into_iter().find(|&other| other > index));
    }
    let path = file::path_of(folder, index + 1);
    let there = path.try_exists().map_err(Error::io("read", &path))?;
    Ok(there.then_some(index + 1))
}
