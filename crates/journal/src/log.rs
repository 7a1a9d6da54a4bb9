//! Writing log files: the appender that both the flusher and [`Log`] use, and [`Log`] itself.
//!
//! One commit is: write the frames, `fdatasync`, write a mark behind them. The mark is synced by the next commit; until
//! then a power cut may take it, never the records it speaks of.
//!
//! A failed sync is never tried again, because the kernel may have dropped the pages and would then report success. The
//! file is left as it is, with its last mark telling the truth, and the frames go to a new one, at once. When that fails too
//! the appender is closed (*poisoned*) and tries another new file after 1, 2, 4 … 60 seconds. A full disk, and a machine without a descriptor or memory to spare, are different: the write was
//! refused before it was accepted, nothing is in doubt, and the same frames may be written to the same place later. So that
//! it does not come to that, the next file is opened when the one before it begins.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::file::{self, HEADER_BYTES, Header, Young};
use crate::frame::{self, Kind, MARK_BYTES};
use crate::writer::Options;
use crate::{Error, FolderLock, Recovered, StreamId, recovery};

/// Most bytes [`Log`] keeps in memory before it syncs by itself: a batch is a few MiB at most, and this bounds a caller
/// that forgets.
const BUFFER_BYTES_MAX: usize = 16 << 20;

/// How long a log that failed twice in a row is left alone before a new file is tried; doubles up to the maximum: a path that
/// fails over takes seconds, and a disk that is dead is not worn out.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Appender {
    folder: PathBuf,
    log_bytes_max: u64,
    file: File,
    path: PathBuf,
    /// The file after this one; none where it could not be made yet.
    next: Option<Young>,
    header: Header,
    end: u64,
    synced_sequence: u64,
    /// Bytes written to all files of this appender.
    bytes_written: u64,
    /// Set while the last two files could not be written.
    poisoned: Option<Poisoned>,
    /// How many of the next syncs fail.
    #[cfg(test)]
    pub(crate) syncs_to_fail: u32,
}

/// When the next file is tried.
#[derive(Clone, Copy)]
struct Poisoned {
    until: Instant,
    pause: Duration,
}

impl Appender {
    /// Starts a file for records from `header.first_sequence` on.
    pub(crate) fn create(
        folder: &Path,
        header: Header,
        log_bytes_max: u64,
    ) -> Result<Appender, Error> {
        let (file, path) = file::create(folder, &header, &[])?;
        let next = Some(Young::create(folder, header.index + 1)?);
        Ok(Appender {
            folder: folder.to_owned(),
            log_bytes_max,
            file,
            path,
            next,
            header,
            end: HEADER_BYTES,
            synced_sequence: header.first_sequence - 1,
            bytes_written: HEADER_BYTES,
            poisoned: None,
            #[cfg(test)]
            syncs_to_fail: 0,
        })
    }

    pub(crate) fn stream(&self) -> StreamId {
        self.header.stream
    }

    pub(crate) fn synced_sequence(&self) -> u64 {
        self.synced_sequence
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.is_some()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    pub(crate) fn ordinal_of(&self, sequence: u64) -> u64 {
        self.header.ordinal_of(sequence)
    }

    /// Makes whole frames durable, the last of them with sequence `last_sequence`.
    pub(crate) fn commit(
        &mut self,
        frames: [&[u8]; 2],
        last_sequence: u64,
        now: Instant,
    ) -> Result<(), Error> {
        if let Some(poisoned) = self.poisoned {
            if now < poisoned.until {
                return Err(Error::poisoned(&self.path, None));
            }
            let pause = (poisoned.pause * 2).min(RETRY_PAUSE_MAX);
            self.commit_in_new_file(frames, last_sequence, now, pause)?;
            tracing::info!(path = %self.path.display(), "log is written again");
            return Ok(());
        }
        let rotated = match self.end >= self.log_bytes_max {
            true => match self.next_file() {
                // The file at hand takes more until there is a descriptor for the next one.
                Err(error) if error.is_passing() && !error.is_disk_full() => Ok(()),
                done => done,
            },
            false => Ok(()),
        };
        let first = match rotated.and_then(|()| self.write(frames, last_sequence)) {
            Err(error) if !error.is_passing() => error,
            done => {
                self.open_ahead();
                return done;
            }
        };
        let cause = std::error::Error::source(&first).map(ToString::to_string);
        tracing::warn!(path = %self.path.display(), cause, "log file closed after a failure, going on in a new one");
        self.commit_in_new_file(frames, last_sequence, now, RETRY_PAUSE)
    }

    /// Where that fails, nothing is tried before the pause is over.
    fn commit_in_new_file(
        &mut self,
        frames: [&[u8]; 2],
        last_sequence: u64,
        now: Instant,
        pause: Duration,
    ) -> Result<(), Error> {
        let done = self
            .next_file()
            .and_then(|()| self.write(frames, last_sequence));
        match done {
            Ok(()) => self.poisoned = None,
            Err(error) => {
                if self.end == HEADER_BYTES {
                    // Nothing in it is durable, and all of it is still with the caller: many tries must not fill the disk.
                    let _ = self.file.set_len(HEADER_BYTES);
                }
                let until = now + pause;
                self.poisoned = Some(Poisoned { until, pause });
                return Err(error.into_poisoned());
            }
        }
        self.open_ahead();
        Ok(())
    }

    fn write(&mut self, frames: [&[u8]; 2], last_sequence: u64) -> Result<(), Error> {
        let mut end = self.end;
        for part in frames {
            file::write(&self.file, &self.path, part, end)?;
            end += part.len() as u64;
        }
        self.sync()?;
        let mut mark = Vec::with_capacity(MARK_BYTES);
        self.header.encode_mark(last_sequence, end, &mut mark);
        file::write(&self.file, &self.path, &mark, end)?;
        let marked = end + MARK_BYTES as u64;
        self.bytes_written += marked - self.end;
        self.end = marked;
        self.synced_sequence = last_sequence;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        #[cfg(test)]
        if self.syncs_to_fail > 0 {
            self.syncs_to_fail -= 1;
            crate::tests::disk::sync_failed(&self.path);
            return Err(Error::sync(
                &self.path,
                std::io::Error::other("made to fail"),
            ));
        }
        file::sync(&self.file, &self.path)
    }

    fn next_file(&mut self) -> Result<(), Error> {
        let first_sequence = self.synced_sequence + 1;
        let header = Header {
            stream: self.header.stream,
            index: self.header.index + 1,
            first_sequence,
            ordinal: self.header.ordinal_of(first_sequence),
        };
        let young = match self.next.take() {
            Some(young) if young.index() == header.index => young,
            _ => Young::create(&self.folder, header.index)?,
        };
        let path = young.become_log(&header, &[]).inspect_err(|_| {
            // It may have its name and a reader may have it open: then the next try takes the next index. Otherwise the
            // same, because readers look for the next index first.
            let path = file::path_of(&self.folder, header.index);
            if path.try_exists().unwrap_or(true) {
                self.header.index = header.index;
            }
        })?;
        (self.file, self.path, self.header, self.end) = (young.file, path, header, HEADER_BYTES);
        self.bytes_written += HEADER_BYTES;
        Ok(())
    }

    /// Opens the next file long before it is needed. Without it the next file is made when it is needed, if that is
    /// possible then.
    fn open_ahead(&mut self) {
        if self.next.is_none() {
            self.next = Young::create(&self.folder, self.header.index + 1).ok();
        }
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        if let Some(young) = self.next.take() {
            young.discard();
        }
    }
}

/// A log without a ring: records are kept in memory until [`Log::sync`] and lost with the process before it.
pub struct Log {
    appender: Appender,
    buffer: Vec<u8>,
    next_sequence: u64,
    _lock: FolderLock,
}

impl Log {
    /// Takes the folder's lock, recovers what the last owner left, and starts a new stream. What is said of
    /// the ring and `folder_bytes_max` are not used.
    ///
    /// # Errors
    /// `is_in_use`, `is_newer_format`, or what the disk said.
    ///
    /// # Panics
    /// When `options.stream` is the stream of the folder's last open: each open needs a new one.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "as `journal::open` takes them"
    )]
    pub fn open(folder: &Path, options: Options) -> Result<(Log, Recovered), Error> {
        let lock = FolderLock::take(folder)?;
        let (recovered, header) = recovery::succeed(folder, options.stream)?;
        let appender = Appender::create(folder, header, options.log_bytes_max)?;
        Ok((
            Log {
                appender,
                buffer: Vec::new(),
                next_sequence: 1,
                _lock: lock,
            },
            recovered,
        ))
    }

    /// The stream of this open.
    pub fn stream(&self) -> StreamId {
        self.appender.stream()
    }

    /// Takes a record into memory and returns its ordinal: its number in this folder, from 0, continued across opens.
    ///
    /// # Errors
    /// When the log is poisoned, or when so much waits in memory that it must be synced first and that fails; the record
    /// is then not taken.
    ///
    /// # Panics
    /// When the payload is empty or longer than [`crate::PAYLOAD_BYTES_MAX`].
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, Error> {
        if self.appender.is_poisoned() {
            return Err(Error::poisoned(&self.appender.path, None));
        }
        if self.buffer.len() + frame::frame_bytes(payload.len()) > BUFFER_BYTES_MAX {
            self.sync()?;
        }
        let sequence = self.next_sequence;
        frame::encode(
            Kind::Record,
            self.appender.stream(),
            sequence,
            payload,
            &mut self.buffer,
        );
        self.next_sequence += 1;
        Ok(self.appender.ordinal_of(sequence))
    }

    /// Makes all appended records durable and visible to readers; returns the ordinal the next record will get.
    ///
    /// # Errors
    /// `is_passing`: nothing is lost, call again later. `is_poisoned`: what was appended since the last sync is not
    /// durable, and this log takes nothing until a later call, in 1, 2 … 60 seconds, finds that a new file can be written.
    pub fn sync(&mut self) -> Result<u64, Error> {
        if !self.buffer.is_empty() {
            self.appender
                .commit([&self.buffer, &[]], self.next_sequence - 1, Instant::now())?;
            self.buffer.clear();
        }
        Ok(self.end())
    }

    /// The ordinal after the last synced record.
    pub fn end(&self) -> u64 {
        self.appender
            .ordinal_of(self.appender.synced_sequence() + 1)
    }

    #[cfg(test)]
    pub(crate) fn fail_syncs(&mut self, count: u32) {
        self.appender.syncs_to_fail = count;
    }
}
