//! A worker's way into its journal: keys that never repeat, numbers without holes, one append a request.

use domain::event::{BorrowedClick, EdgeRecord, StreamEnd, edge_record::Event};
use domain::time::EPOCH_MS;
use domain::{ClickKey, Keyring, Lane, Numbering, Shard, Topic};
use journal::Full;
use prost::Message;
use service::Clock;
use tokio::sync::watch;

use crate::journals::Opened;

/// Most bytes of a record: ten sub ids and a dozen other values of 255 bytes, a user agent, eight tokens, and room.
pub(crate) const RECORD_BYTES_MAX: usize = 16 * 1024;

/// How far the wall clock may step back within a stream, whose time then stands still for as long. A longer step takes a new
/// stream: an hour in which all clicks have one millisecond would make every second one a repeat of the one before.
const CLOCK_BACK_MAX_MS: u64 = 1000;

/// What belongs to one worker's stream.
pub(crate) struct Recorder {
    /// None until one could be opened.
    journal: Option<Opened>,
    /// Answers that went without their record for want of a journal, until there is one to count them.
    unopened: u64,
    numbering: Numbering,
    clock: Clock,
    last_ms: u64,
    buffer: Vec<u8>,
    /// Where a click's record is written.
    click: Box<[u8]>,
    /// Keys of the installation.
    pub(crate) keyring: Keyring,
    /// Seed of shards.
    pub(crate) seed: u64,
    /// The identity of the numbers in what is recorded: of a data folder, it never changes.
    catalog_lock: u64,
}

impl Recorder {
    pub(crate) fn new(keyring: Keyring, seed: u64, catalog_lock: u64, clock: Clock) -> Self {
        Self {
            journal: None,
            unopened: 0,
            numbering: Numbering::default(),
            clock,
            // A token tells no time before it, so that events must not either.
            last_ms: EPOCH_MS,
            buffer: Vec::new(),
            click: vec![0; RECORD_BYTES_MAX].into(),
            keyring,
            seed,
            catalog_lock,
        }
    }

    /// The time, which never goes back within a stream.
    pub(crate) fn now_ms(&mut self) -> u64 {
        self.last_ms = self.last_ms.max(self.clock.now_ms());
        self.last_ms
    }

    /// How far the stream's time is ahead of the clock: the clock was ahead before, or stands before any click.
    pub(crate) fn ahead_ms(&self) -> u64 {
        self.last_ms.saturating_sub(self.clock.now_ms())
    }

    /// The journal's number, where its stream has to end because the clock was set back.
    pub(crate) fn outlived(&self) -> Option<usize> {
        let journal = self.journal.as_ref()?;
        let now_ms = self.clock.now_ms().max(EPOCH_MS);
        (self.last_ms.saturating_sub(now_ms) > CLOCK_BACK_MAX_MS).then_some(journal.number)
    }

    /// Ends the stream, if there is one, and goes on in another one.
    pub(crate) fn go_on_in(&mut self, opened: Opened) {
        self.end();
        let unopened = std::mem::take(&mut self.unopened);
        opened.writer.unrecorded_times(Full::Unopened, unopened);
        self.journal = Some(opened);
        self.numbering = Numbering::default();
        self.last_ms = EPOCH_MS;
    }

    /// Whether there is a journal.
    pub(crate) fn is_open(&self) -> bool {
        self.journal.is_some()
    }

    /// Whether the journal takes records; if not, why.
    pub(crate) fn ready(&self) -> Result<(), String> {
        let room = match &self.journal {
            Some(journal) => journal.writer.room(RECORD_BYTES_MAX),
            None => Err(Full::Unopened),
        };
        room.map_err(|full| full.to_string())
    }

    /// The last sequence that would survive a power cut, where there is a journal.
    pub(crate) fn synced(&self) -> Option<watch::Receiver<u64>> {
        Some(self.journal.as_ref()?.synced.clone())
    }

    /// The key of the record that is appended next; `None` when the journal cannot take one, which counts as an answer
    /// without its record. No other record can come between this and the append: the worker is one thread and does not
    /// wait in between.
    pub(crate) fn next(&mut self) -> Option<ClickKey> {
        let time_ms = self.now_ms();
        let Some(Opened { writer, .. }) = &self.journal else {
            self.unopened += 1;
            return None;
        };
        if let Err(why) = writer.room(RECORD_BYTES_MAX) {
            writer.unrecorded(why);
            return None;
        }
        Some(ClickKey {
            time_ms,
            stream: writer.stream().prefix(),
            sequence: writer.next_sequence() as u32,
        })
    }

    /// Appends, after [`Self::next`] said that there is room. The sequence, or `None` when the journal closed just now,
    /// counted as above.
    pub(crate) fn append(
        &mut self,
        topic: Topic,
        shard: Shard,
        address: &[u8],
        event: Event,
    ) -> Option<u64> {
        let lane = shard.lane();
        let record = EdgeRecord {
            topic: topic as u32,
            lane: u32::from(lane.0),
            n: self.numbering.next(topic, lane),
            address: address.to_vec(),
            event: Some(event),
            catalog_lock: self.catalog_lock,
        };
        let put = self.put(&record);
        self.counted(topic, lane, put)
    }

    /// As [`Self::append`], for a click.
    pub(crate) fn append_click(
        &mut self,
        click: &BorrowedClick<'_>,
        address: &[u8],
    ) -> Option<u64> {
        let (topic, lane) = (Topic::Clicks, click.shard.lane());
        let n = self.numbering.next(topic, lane);
        let lock = self.catalog_lock;
        let record = click.record(topic, lane, n, lock, address, &mut self.click);
        let put = append(&mut self.journal, record);
        self.counted(topic, lane, put)
    }

    fn counted(&mut self, topic: Topic, lane: Lane, put: Result<u64, Full>) -> Option<u64> {
        match put {
            Ok(sequence) => Some(sequence),
            Err(why) => {
                self.numbering.take_back(topic, lane);
                match &self.journal {
                    Some(journal) => journal.writer.unrecorded(why),
                    None => self.unopened += 1,
                }
                None
            }
        }
    }

    /// Says that nothing comes after this. Where the journal does not take it, the stream stays one that may go on.
    pub(crate) fn end(&mut self) {
        let journal = self.journal.as_ref();
        if journal.is_none_or(|journal| journal.writer.next_sequence() == 1) {
            return;
        }
        let _ = self.put(&EdgeRecord {
            event: Some(Event::End(StreamEnd {})),
            catalog_lock: self.catalog_lock,
            ..EdgeRecord::default()
        });
    }

    fn put(&mut self, record: &EdgeRecord) -> Result<u64, Full> {
        self.buffer.clear();
        record.encode(&mut self.buffer).expect("a vector grows");
        debug_assert!(
            self.buffer.len() <= RECORD_BYTES_MAX,
            "every value in a record is bounded"
        );
        append(&mut self.journal, &self.buffer)
    }
}

fn append(journal: &mut Option<Opened>, record: &[u8]) -> Result<u64, Full> {
    let journal = journal.as_mut().ok_or(Full::Unopened)?;
    journal.writer.append(record)
}
