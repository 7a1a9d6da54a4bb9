//! What journal folders hold, read by the format's description alone and with none of the journal's code: who counts by the
//! same hands as the one that is checked agrees with it in every mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;

use domain::Topic;
use domain::event::{EdgeRecord, edge_record::Event};
use prost::Message;

use super::streamed::Identity;

/// Of a log file: then frames follow, each of a head, a payload and zeros up to the next multiple of 8.
pub(super) const HEADER_BYTES: usize = 64;
const STREAM: std::ops::Range<usize> = 16..32;
const HEAD_BYTES: usize = 16;

/// The records of a journal folder.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// By stream and sequence: what a crash left and what was recovered of it may lie in two files.
    records: BTreeSet<([u8; 16], u64)>,
    /// What each is known by in its topic.
    pub(super) identities: BTreeMap<Topic, BTreeSet<Identity>>,
    /// Streams with records of topics, in their order.
    streams: Vec<[u8; 16]>,
    /// Those whose writer said that it ended.
    ended: BTreeSet<[u8; 16]>,
    /// Names of files with what nobody could read.
    pub(super) quarantined: Vec<String>,
    pub(super) wrong: Vec<String>,
}

impl Walked {
    /// How many records there are.
    pub(super) fn records(&self) -> u64 {
        self.records.len() as u64
    }

    /// The streams that have ended: their writer said so, or another one has begun.
    pub(super) fn ended(&self) -> impl Iterator<Item = [u8; 16]> {
        let streams = self.streams.iter().enumerate();
        let ended = streams
            .filter(|(at, stream)| at + 1 < self.streams.len() || self.ended.contains(*stream));
        ended.map(|(_, stream)| *stream)
    }

    /// Reads every log file of a folder.
    pub(super) fn read(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let mut walked = Self::default();
        let mut logs = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("quarantine-") {
                walked.quarantined.push(name.into_owned());
            } else if name.ends_with(".log") {
                logs.push(path);
            }
        }
        logs.sort();
        for log in logs {
            let bytes = fs::read(&log)?;
            if let Err(why) = walked.file(&bytes) {
                walked.wrong.push(format!("{}: {why}", log.display()));
            }
        }
        Ok(walked)
    }

    fn file(&mut self, bytes: &[u8]) -> Result<(), String> {
        let header = bytes.get(..HEADER_BYTES).ok_or("no header")?;
        let stream: [u8; 16] = header[STREAM].try_into().expect("16 bytes");
        let mut at = HEADER_BYTES;
        let (mut last, mut damaged) = (None, None);
        while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
            let word = u32::from_le_bytes(head[..4].try_into().expect("4 bytes"));
            let sequence = u64::from_le_bytes(head[8..].try_into().expect("8 bytes"));
            let length = (word & 0x00ff_ffff) as usize;
            let Some(payload) = bytes.get(at + HEAD_BYTES..at + HEAD_BYTES + length) else {
                return Ok(());
            };
            // What a killed writer left half written ends a file.
            if length == 0 {
                return Ok(());
            }
            at += HEAD_BYTES + length.next_multiple_of(8);
            let of = [&head[..4], &stream, &head[8..], payload];
            let checksum = of
                .iter()
                .fold(0, |crc, bytes| crc32c::crc32c_append(crc, bytes));
            if head[4..8] != checksum.to_le_bytes() {
                damaged = Some(sequence);
                continue;
            }
            // At the end of a file it is half written.
            if let Some(damaged) = damaged {
                return Err(format!("record {damaged} is damaged"));
            }
            if word >> 28 != 0 {
                continue;
            }
            if last.is_some_and(|last| sequence != last + 1) {
                return Err(format!("record {sequence} follows {last:?}"));
            }
            last = Some(sequence);
            if self.records.insert((stream, sequence)) {
                self.record(stream, payload)
                    .map_err(|why| format!("record {sequence}: {why}"))?;
            }
        }
        Ok(())
    }

    fn record(&mut self, stream: [u8; 16], payload: &[u8]) -> Result<(), String> {
        let record = EdgeRecord::decode(payload).map_err(|error| error.to_string())?;
        let topic = match record.event {
            Some(Event::End(_)) => {
                self.ended.insert(stream);
                return Ok(());
            }
            Some(Event::Postback(_)) => Topic::Postbacks,
            Some(_) => Topic::Clicks,
            None => return Err("it holds no event".to_owned()),
        };
        if self.streams.last() != Some(&stream) {
            self.streams.push(stream);
        }
        let lane = u8::try_from(record.lane).map_err(|error| error.to_string())?;
        let identity = (stream::StreamId(stream), lane, record.n);
        if !self.identities.entry(topic).or_default().insert(identity) {
            return Err(format!("{identity:?} is given twice"));
        }
        Ok(())
    }
}

/// Of the cursors of a data folder, the sum of what each says it delivered: `None` for one that cannot be read.
pub(super) fn delivered(cursor: &[u8]) -> Option<u64> {
    // Two slots of 12 KiB: magic, version, checksum, generation, length, value.
    let slots = cursor
        .chunks(12 << 10)
        .filter(|slot| slot.starts_with(b"SLUICECU"));
    let newest =
        slots.max_by_key(|slot| u64::from_le_bytes(slot[16..24].try_into().expect("8 bytes")))?;
    let length = u32::from_le_bytes(newest[24..28].try_into().expect("4 bytes")) as usize;
    let value = newest.get(32..32 + length)?;
    // Version, file, offset, stream; then varints: passed, midway, delivered.
    let mut rest = value.get(33..)?;
    let mut delivered = 0;
    for _ in 0..3 {
        delivered = prost::encoding::decode_varint(&mut rest).ok()?;
    }
    Some(delivered)
}

#[cfg(test)]
mod tests {
    use domain::event::{Click, StreamEnd};
    use journal::{Log, Options};

    use super::*;

    fn record(n: u64, event: Event) -> Vec<u8> {
        EdgeRecord {
            topic: Topic::Clicks as u32,
            lane: 9,
            n,
            event: Some(event),
            ..EdgeRecord::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn records_are_found_by_the_description_and_a_torn_end_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let stream = journal::StreamId([7; 16]);
        let (mut log, _) = Log::open(folder.path(), Options::new(stream)).unwrap();
        for n in 1..=3 {
            log.append(&record(n, Event::Click(Click::default())))
                .unwrap();
            log.sync().unwrap();
        }
        log.append(&record(0, Event::End(StreamEnd::default())))
            .unwrap();
        log.sync().unwrap();
        drop(log);
        let walked = Walked::read(folder.path()).unwrap();
        assert_eq!(walked.wrong, Vec::<String>::new());
        assert_eq!((walked.records(), walked.ended().count()), (4, 1));
        let lanes = &walked.identities[&Topic::Clicks];
        assert!(lanes.contains(&(stream, 9, 3)), "{lanes:?}");

        let path = folder.path().join("0000000000000001.log");
        let mut bytes = fs::read(&path).unwrap();
        // The head of the last record is half there; a mark stands after each.
        let click = HEAD_BYTES
            + record(1, Event::Click(Click::default()))
                .len()
                .next_multiple_of(8);
        let end = HEAD_BYTES
            + record(0, Event::End(StreamEnd::default()))
                .len()
                .next_multiple_of(8);
        let mark = (bytes.len() - HEADER_BYTES - 3 * click - end) / 4;
        bytes.truncate(HEADER_BYTES + 3 * (click + mark) + 4);
        bytes.resize(bytes.len() + 100, 0);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(Walked::read(folder.path()).unwrap().records(), 3);

        // The sequence of the second record.
        bytes[HEADER_BYTES + click + mark + 8] = 3;
        fs::write(&path, &bytes).unwrap();
        let wrong = Walked::read(folder.path()).unwrap().wrong;
        assert!(wrong[0].contains("record 3 is damaged"), "{wrong:?}");
    }
}
