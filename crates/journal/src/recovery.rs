//! What the next holder of a folder's lock does first: keep every valid record the last one left.
//!
//! The newest log file is walked forward. Bytes that are no frame are *corrupt* when a mark follows them (they were durable
//! once) and *torn* when none does (a write that a crash cut short, or a hole a power cut left); either way the walk goes
//! on at the next multiple of 8. Corrupt bytes are copied into quarantine first of all (`quarantine.rs`).
//!
//! Worth saving are the records behind the last mark, and the ring's records beyond that mark's sequence: after a killed
//! process those between `flushed` and `tail`. After a power cut there is no ring; one that lies on a disk holds whatever
//! pages reached it, so the whole ring is searched. The two overlap and may each have holes that the other fills. In order of sequence, each once, they become
//! one new log file that appears with its mark, whole and synced, or not at all. Nothing that exists is changed: readers
//! take from a file only what the next one of its stream does not begin with. Only then is the ring removed. Doing all
//! this again after a crash half way changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;

use crate::file::{self, HEADER_BYTES, Header};
use crate::frame::{self, ALIGN, FRAME_BYTES_MIN, HEAD_BYTES, Head, Kind};
use crate::ring::{self, Found, Remains};
use crate::scanner::{Scanner, follows};
use crate::{Error, FolderLock, StreamId, quarantine, scoreboard};

/// A ring is mostly what it was made of: zeros hold no frame and are passed over a page at a time.
const UNUSED: [u8; 4096] = [0; 4096];

/// What an earlier holder of the folder left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Records that were only in the ring and are now in the log.
    pub records: u64,
    /// Bytes of the newest log file behind its last mark that were no frame.
    pub torn_bytes: u64,
    /// Bytes of the newest log file before its last mark that were no frame: durable once, damaged since.
    pub corrupt_bytes: u64,
    /// Files that keep such bytes, made by this recovery; done again, it makes none.
    pub quarantined_files: u64,
    /// Records that were in the ring and are not in the log: a power cut took them.
    pub power_cut_records: u64,
    /// The stream of the folder's last open; none in a new folder.
    pub previous: Option<StreamId>,
}

/// Recovers a folder without opening it for writing, so that a dead writer's records can be read to the last one.
/// None where somebody live holds the folder's lock.
///
/// # Errors
/// When the folder does not exist, holds a newer format, or what the disk said.
pub fn seal(folder: &Path) -> Result<Option<Recovered>, Error> {
    fs::metadata(folder).map_err(Error::io("read", folder))?;
    let _lock = match FolderLock::take(folder) {
        Ok(lock) => lock,
        Err(error) if error.is_in_use() => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(recover(folder)?.0))
}

/// How many records ever written to a folder are durable there: those before the last mark, deleted ones included. Reads the
/// newest file alone, beside a writer.
///
/// # Errors
/// When the folder does not exist, holds a newer format, or what the disk said.
pub fn durable(folder: &Path) -> Result<u64, Error> {
    for &index in file::list(folder)?.iter().rev() {
        if let Some(survey) = Survey::of(&file::path_of(folder, index))? {
            return Ok(survey.header.ordinal_of(survey.marked_sequence + 1));
        }
    }
    Ok(0)
}

/// Recovers a folder and gives the header of the file with which `stream` starts. The caller holds the folder's lock.
pub(crate) fn succeed(folder: &Path, stream: StreamId) -> Result<(Recovered, Header), Error> {
    let (recovered, next) = recover(folder)?;
    assert!(
        recovered.previous != Some(stream),
        "each open is a new stream"
    );
    Ok((
        recovered,
        Header {
            stream,
            index: next.index,
            first_sequence: 1,
            ordinal: next.ordinal,
        },
    ))
}

/// Where the folder goes on.
struct Next {
    index: u64,
    ordinal: u64,
}

fn recover(folder: &Path) -> Result<(Recovered, Next), Error> {
    let indexes = file::list(folder)?;
    let mut recovered = Recovered::default();
    let mut next = Next {
        index: indexes.last().map_or(1, |newest| newest + 1),
        ordinal: 0,
    };

    let mut newest = None;
    for &index in indexes.iter().rev() {
        let path = file::path_of(folder, index);
        // Its last mark may not be on the disk yet, and when this file is not the newest any more, nobody will look for
        // records behind the last mark it has then.
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        file::sync(&file, &path)?;
        if let Some(survey) = Survey::of(&path)? {
            recovered.previous = Some(survey.header.stream);
            next.ordinal += survey.header.ordinal_of(survey.marked_sequence + 1);
            // One with a damaged successor was left in order: its tail, if any, was written again there.
            newest = Some(survey).filter(|_| index + 1 == next.index);
            break;
        }
        // A file without a readable header keeps the numbers of as many records as fit into it.
        let bytes = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        let whole = 0..bytes;
        recovered.quarantined_files += quarantine::keep(folder, index, &[whole])?.made;
        recovered.corrupt_bytes += bytes;
        next.ordinal += bytes / FRAME_BYTES_MIN as u64 + 1;
    }
    if let Some(survey) = &newest {
        recovered.torn_bytes = bytes_of(&survey.torn);
        recovered.corrupt_bytes = bytes_of(&survey.corrupt);
        let kept = quarantine::keep(folder, next.index - 1, &survey.corrupt)?;
        recovered.quarantined_files = kept.made;
    }

    let found = ring::take(folder)?;
    let remains = match &found {
        Found::Ring(remains) => Some(remains),
        Found::Nothing | Found::InUse => None,
    };
    let same_stream = match (&newest, remains) {
        (Some(survey), Some(remains)) => survey.header.stream == remains.stream,
        _ => false,
    };
    let mut tail = newest.as_ref().map(Survey::tail).unwrap_or_default();
    if let (Some(survey), false) = (&newest, same_stream) {
        next = save(
            folder,
            survey.header.stream,
            survey.marked_sequence + 1,
            &tail,
            next,
        )?;
        tail.clear();
    }
    if let Some(remains) = remains {
        let marked = match &newest {
            Some(survey) if same_stream => Some(survey.marked_sequence),
            _ => marked_sequence(folder, remains.stream)?,
        };
        for (sequence, frame) in frames_beyond(remains, marked) {
            recovered.records += u64::from(tail.insert(sequence, frame).is_none());
        }
        let first = marked
            .map(|marked| marked + 1)
            .or(tail.keys().next().copied());
        next = save(folder, remains.stream, first.unwrap_or(1), &tail, next)?;
        recovered.previous = recovered.previous.or(Some(remains.stream));
    }
    let counted = remains.map(|remains| (remains.stream, remains.counts));
    recovered.power_cut_records = scoreboard::settle(folder, next.ordinal, counted)?;
    match &found {
        Found::Ring(remains) => ring::remove(folder, &remains.path)?,
        Found::Nothing => ring::set_aside(folder)?,
        Found::InUse => {}
    }
    Ok((recovered, next))
}

/// Frames by sequence.
type Frames<'a> = BTreeMap<u64, &'a [u8]>;

/// Makes one log file of frames, if there are any.
fn save(
    folder: &Path,
    stream: StreamId,
    first_sequence: u64,
    frames: &Frames<'_>,
    next: Next,
) -> Result<Next, Error> {
    let Some((&last_sequence, _)) = frames.last_key_value() else {
        return Ok(next);
    };
    let header = Header {
        stream,
        index: next.index,
        first_sequence,
        ordinal: next.ordinal,
    };
    let mut bytes: Vec<u8> = Vec::new();
    for frame in frames.values() {
        bytes.extend_from_slice(frame);
    }
    let end = HEADER_BYTES + bytes.len() as u64;
    header.encode_mark(last_sequence, end, &mut bytes);
    file::create(folder, &header, &bytes)?;
    Ok(Next {
        index: next.index + 1,
        ordinal: header.ordinal_of(last_sequence + 1),
    })
}

/// What one log file holds.
pub(crate) struct Survey {
    pub(crate) header: Header,
    /// Sequence of the last record that is durable for sure.
    pub(crate) marked_sequence: u64,
    /// Bytes behind it that are no frame.
    pub(crate) torn: Vec<Range<u64>>,
    /// Bytes before it that are no frame.
    pub(crate) corrupt: Vec<Range<u64>>,
    /// Frames of the records behind the last mark.
    bytes: Vec<u8>,
    records: Vec<(u64, Range<usize>)>,
}

impl Survey {
    /// None where the header is damaged.
    pub(crate) fn of(path: &Path) -> Result<Option<Survey>, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let Some(header) = Header::read(&file, path)? else {
            return Ok(None);
        };
        let limit = file.metadata().map_err(Error::io("read", path))?.len();
        let marked_sequence = header.first_sequence.saturating_sub(1);
        let mut scanner = Scanner::new(header.stream, HEADER_BYTES, marked_sequence);
        let (bytes, records) = (Vec::new(), Vec::new());
        let mut survey = Survey {
            header,
            marked_sequence,
            torn: Vec::new(),
            corrupt: Vec::new(),
            bytes,
            records,
        };
        let mut from = HEADER_BYTES;
        while let Some(found) = scanner
            .next(&file, limit)
            .map_err(Error::io("read", path))?
        {
            survey.torn.extend(not_empty(from..from + found.bad_bytes));
            from = scanner.at;
            match found.kind {
                Kind::Record => {
                    let from = survey.bytes.len();
                    let payload = scanner.payload(&found);
                    frame::encode(
                        Kind::Record,
                        header.stream,
                        found.sequence,
                        payload,
                        &mut survey.bytes,
                    );
                    survey
                        .records
                        .push((found.sequence, from..survey.bytes.len()));
                }
                Kind::Mark => {
                    survey.corrupt.append(&mut survey.torn);
                    // A damaged record before the mark used its number all the same.
                    survey.marked_sequence = survey.marked_sequence.max(found.sequence);
                    survey.bytes.clear();
                    survey.records.clear();
                }
            }
        }
        survey.torn.extend(not_empty(from..limit));
        Ok(Some(survey))
    }

    fn tail(&self) -> Frames<'_> {
        self.records
            .iter()
            .map(|(sequence, range)| (*sequence, &self.bytes[range.clone()]))
            .collect()
    }
}

fn not_empty(range: Range<u64>) -> Option<Range<u64>> {
    Some(range).filter(|range| !range.is_empty())
}

fn bytes_of(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// The last durable sequence of a stream in this folder; None when it has no file here.
fn marked_sequence(folder: &Path, stream: StreamId) -> Result<Option<u64>, Error> {
    for &index in file::list(folder)?.iter().rev() {
        let path = file::path_of(folder, index);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        if Header::read(&file, &path)?.is_some_and(|header| header.stream == stream) {
            return Ok(Survey::of(&path)?.map(|survey| survey.marked_sequence));
        }
    }
    Ok(None)
}

/// The ring's frames beyond the last durable sequence. Where the log knows nothing of the stream (its files were deleted
/// as done), only what was never flushed counts.
fn frames_beyond(remains: &Remains, marked: Option<u64>) -> Frames<'_> {
    let data = &remains.data;
    let mut at = match marked {
        Some(_) => 0,
        None => data
            .len()
            .saturating_sub(remains.tail.saturating_sub(remains.flushed) as usize),
    };
    at = at.next_multiple_of(ALIGN);
    let mut frames = Frames::new();
    while at + FRAME_BYTES_MIN <= data.len() {
        let frame = Head::parse(&data[at..]).and_then(|head| {
            let frame = data.get(at..at + head.frame_bytes())?;
            let wanted = head.kind == Kind::Record && follows(head.sequence, marked.unwrap_or(0));
            let payload = &frame[HEAD_BYTES..HEAD_BYTES + head.payload_bytes];
            (wanted && head.is_of(remains.stream, payload)).then_some((head.sequence, frame))
        });
        match frame {
            Some((sequence, frame)) => {
                frames.insert(sequence, frame);
                at += frame.len();
            }
            None if data[at..].starts_with(&UNUSED) => at += UNUSED.len(),
            None => at += ALIGN,
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Log, Options};

    #[test]
    fn what_is_durable_is_counted_beside_the_writer_and_over_opens() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(durable(folder.path()).unwrap(), 0);
        let mut expected = 0;
        for open in 1..=3_u8 {
            let (mut log, _) =
                Log::open(folder.path(), Options::new(StreamId([open; 16]))).unwrap();
            assert_eq!(durable(folder.path()).unwrap(), expected, "{open}");
            for _ in 0..5 {
                log.append(b"a record").unwrap();
            }
            log.sync().unwrap();
            expected += 5;
            assert_eq!(durable(folder.path()).unwrap(), expected, "{open}");
            log.append(b"not synced").unwrap();
            assert_eq!(durable(folder.path()).unwrap(), expected, "{open}");
        }
    }
}
