//! The courier itself: read, send, wait for the acknowledgement, move the cursor.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use domain::event::{EdgeRecord, Kind, SCHEMA_VERSION, edge_record::Event};
use domain::{Shard, Topic};
use journal::{Cursor, Deleted, Entry, Reader, StreamId};
use prost::Message;
use service::clock::Clock;
use stream::letters::{Content, Letter, Letters, Reason as DeadReason};
use stream::{MakeSender, Record, SendError, Sender};

use crate::enrich::Enricher;
use crate::marks::{Marks, Outcome, Step, TOPICS, Totals, Unreadable};
use crate::metrics::JournalMetrics;
use crate::{Enrich, Error, Metrics};

/// Bytes read from the journal at once: some hundred records, which stay in the processor's cache until they are sent.
const READ_BYTES_MAX: usize = 128 << 10;

/// Records sent and not acknowledged at once: seconds at full rate, and what a failure sends again.
const UNDER_WAY_MAX: usize = 1 << 16;

/// How far a courier without a sender looks for a record of its topic.
const LOOK_BYTES_MAX: usize = 16 << 20;

/// The pause when there is nothing to do; doubles up to the maximum.
const IDLE_PAUSE: Duration = Duration::from_millis(1);
const IDLE_PAUSE_MAX: Duration = Duration::from_millis(20);

/// The pause after a sender failed; doubles up to the maximum while they go on failing.
const SENDER_PAUSE: Duration = Duration::from_millis(100);
const SENDER_PAUSE_MAX: Duration = Duration::from_secs(5);

/// A cursor that only passes records of other topics is saved this often; one that delivers, each time.
const SAVE_EVERY_MS: u64 = 1_000;

/// How a courier behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The journal's number, for metrics.
    pub journal: u16,
    /// The topic whose records it ships, one of [`TOPICS`].
    pub topic: Topic,
    /// The installation's prefix of topic names.
    pub topic_prefix: String,
    /// How many partitions the topic has.
    pub partitions: u16,
    /// Most records sent before acknowledgements are asked for.
    pub batch_records: usize,
    /// How long one step waits for acknowledgements when there is nothing else to do.
    pub acknowledgement_wait: Duration,
    /// How long to go on after a stop is asked for while there is something to ship.
    pub drain_max: Duration,
    /// Give the numbers of records that cannot be read to tombstones, and end streams that have ended. Who ships a copy of a
    /// journal does neither: the original may have what the copy lacks.
    pub gives_up: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            journal: 0,
            topic: TOPICS[0],
            topic_prefix: "sluice".to_owned(),
            partitions: 1,
            batch_records: 8192,
            acknowledgement_wait: Duration::from_millis(20),
            drain_max: Duration::from_secs(10),
            gives_up: true,
        }
    }
}

/// The files of a courier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The journal's folder.
    pub journal: PathBuf,
    /// The cursor.
    pub cursor: PathBuf,
    /// The folder of the dead letters.
    pub dead_letters: PathBuf,
}

/// What one step did, and what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Shipped {
    /// Records of the journal handed to the sender or passed.
    pub sent: u64,
    /// Records acknowledged and behind the cursor, dead ones and those of other topics included.
    pub acknowledged: u64,
    /// Records read and not behind the cursor.
    pub waiting: u64,
}

impl Shipped {
    /// There was nothing to do, and nothing is under way.
    pub fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

/// Ships one topic's records of one journal folder.
pub struct Courier {
    folder: PathBuf,
    options: Options,
    /// What the topic is called on the stream.
    topic: String,
    enricher: Enricher,
    metrics: JournalMetrics,
    dead_letters: Letters,
    cursor_path: PathBuf,
    cursor: Cursor,
    /// As the cursor has it, or will have it after [`SAVE_EVERY_MS`].
    acknowledged: Marks,
    /// What the cursor counts: told, it never falls.
    saved: Totals,
    /// When the cursor was last saved; `None` when it has all of `acknowledged`.
    unsaved_since_ms: Option<u64>,
    /// As the last record handed to the sender leaves it.
    sent: Marks,
    reader: Reader,
    /// Read, not yet handed over.
    read: VecDeque<Entry>,
    /// The first of `read`, begun because the sender was full in the middle of it.
    begun: Option<Planned>,
    under_way: VecDeque<UnderWay>,
    /// Stream records this sender took and acknowledged; tombstones count.
    sender_sent: u64,
    corrupt_bytes: u64,
    /// So many records may be under way; halved at each refusal, to find the record that the stream refuses.
    at_once: usize,
    /// The record it refuses, once found.
    refused: Option<(StreamId, u64)>,
    /// The last record before which numbers were missing: only what is missing at a second reading is given up.
    missed_before: Option<(StreamId, u64)>,
    /// When the oldest record that is not acknowledged was made; kept while senders fail.
    waiting_since_ms: Option<u64>,
}

/// What becomes of a journal record.
struct Planned {
    step: Step,
    time_ms: u64,
    /// What it sends: the record, behind a tombstone where numbers before it are missing; the ends of a stream; nothing for a
    /// dead one and one of another topic.
    records: VecDeque<Record>,
}

impl Planned {
    /// The tombstone that takes the numbers missing before the record.
    fn tombstone(&self) -> Option<&Record> {
        self.records.iter().find(|record| record.is_tombstone())
    }
}

struct UnderWay {
    step: Step,
    time_ms: u64,
    /// It is acknowledged when the sender's count has reached this.
    at: u64,
    /// Of a dead one.
    letter: Option<Letter>,
}

impl Courier {
    /// Opens a journal folder (which may not exist yet) at its cursor, or at its beginning where there is none.
    ///
    /// # Errors
    /// The cursor cannot be used, or is of a newer version.
    pub fn open(
        places: &Places,
        enrich: Enrich,
        options: Options,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let Places {
            journal: folder,
            cursor: cursor_path,
            dead_letters,
        } = places;
        let (cursor, saved) =
            Cursor::open(cursor_path).map_err(|error| Error::cursor(cursor_path, error))?;
        let mut marks = marks(cursor_path, saved)?;
        if marks.is_new() {
            let is_whole = journal::is_whole(folder);
            marks.begin(is_whole.map_err(|error| Error::journal(folder, error))?);
        }
        let metrics = metrics.of(options.journal, options.topic);
        metrics.show(folder, &marks.totals, 0.0);
        Ok(Self {
            folder: folder.clone(),
            topic: format!("{}.{}", options.topic_prefix, options.topic.name()),
            options,
            enricher: Enricher::new(enrich),
            metrics,
            dead_letters: Letters::new(dead_letters.clone()),
            cursor_path: cursor_path.clone(),
            cursor,
            reader: open_reader(folder, &marks)?,
            sent: marks.clone(),
            saved: marks.totals,
            acknowledged: marks,
            unsaved_since_ms: None,
            read: VecDeque::new(),
            begun: None,
            under_way: VecDeque::new(),
            sender_sent: 0,
            corrupt_bytes: 0,
            at_once: UNDER_WAY_MAX,
            refused: None,
            missed_before: None,
            waiting_since_ms: None,
        })
    }

    /// Runs until `stop` says so; then ships what is in the journal, for at most `drain_max`. A failing sender is replaced.
    ///
    /// # Errors
    /// Journal, cursor or dead-letter file cannot be used. Open the courier again to go on.
    pub fn run(
        &mut self,
        make_sender: &mut MakeSender<'_>,
        clock: &Clock,
        stop: &dyn Fn() -> bool,
        observe: &mut dyn FnMut(&Shipped),
    ) -> Result<(), Error> {
        let mut sender: Option<Box<dyn Sender>> = None;
        let mut idle_pause = IDLE_PAUSE;
        let mut sender_pause = SENDER_PAUSE;
        let mut stopping: Option<Instant> = None;
        self.rewind()?;
        loop {
            if stopping.is_none() && stop() {
                stopping = Some(Instant::now());
            }
            if sender.is_none() {
                // Who makes it says why there is none.
                sender = make_sender().ok();
            }
            let stepped = match &mut sender {
                Some(sender) => self.step(&mut **sender, clock.now_ms()).map(Some),
                None => self.look(clock.now_ms()).map(|()| None),
            };
            let pause = match stepped {
                Ok(None) => {
                    let pause = sender_pause;
                    sender_pause = (sender_pause * 2).min(SENDER_PAUSE_MAX);
                    pause
                }
                Ok(Some(shipped)) => {
                    observe(&shipped);
                    if shipped.acknowledged > 0 {
                        sender_pause = SENDER_PAUSE;
                    }
                    if shipped.is_idle() && stopping.is_some() {
                        return Ok(());
                    }
                    if shipped.sent > 0 || shipped.acknowledged > 0 {
                        idle_pause = IDLE_PAUSE;
                        Duration::ZERO
                    } else {
                        let pause = idle_pause;
                        idle_pause = (idle_pause * 2).min(IDLE_PAUSE_MAX);
                        pause
                    }
                }
                Err(error) if error.is_sender() => {
                    tracing::warn!(%error, "courier's sender failed, sending again after a pause");
                    sender = None;
                    self.show(clock.now_ms());
                    let pause = sender_pause;
                    sender_pause = (sender_pause * 2).min(SENDER_PAUSE_MAX);
                    pause
                }
                Err(error) => return Err(error),
            };
            if stopping.is_some_and(|since| since.elapsed() >= self.options.drain_max) {
                tracing::warn!(
                    journal = self.options.journal,
                    "courier stopped before its journal was empty, the rest is sent at the next start"
                );
                return Ok(());
            }
            wait(pause, stopping.is_none(), stop);
        }
    }

    /// Sends what is new, at most `batch_records`, and moves the cursor over what is acknowledged.
    ///
    /// # Errors
    /// [`Error::is_sender`]: the sender has ended; the next step takes a new one and sends everything after the cursor
    /// again. Otherwise journal, cursor or dead-letter file cannot be used, and the courier must be opened again.
    pub fn step(&mut self, sender: &mut dyn Sender, now_ms: u64) -> Result<Shipped, Error> {
        let done = self.send(sender).and_then(|sent| {
            let acknowledged = self.settle(sender, sent > 0, now_ms)?;
            Ok(Shipped {
                sent,
                acknowledged,
                waiting: (self.under_way.len() + self.read.len()) as u64,
            })
        });
        match self.under_way.front() {
            Some(first) => self.waiting_since_ms = Some(first.time_ms),
            None if done.is_ok() => self.waiting_since_ms = None,
            None => {}
        }
        if let Err(error) = &done {
            if error.is_refusal() {
                self.look_for_refused();
            }
            self.rewind()?;
        }
        self.show(now_ms);
        done
    }

    /// Half of what is under way is sent again, and half of that: what fits together goes together, and in the end the only
    /// one under way is the one.
    fn look_for_refused(&mut self) {
        let only = match (self.under_way.front(), self.read.front()) {
            (Some(first), _) => Some((first.step.stream, first.step.sequence)),
            // It was refused before it was sent.
            (None, Some(entry)) => Some((entry.stream, entry.sequence)),
            (None, None) => None,
        };
        if self.at_once == 1 {
            self.refused = only;
        }
        self.at_once = (self.at_once.min(self.under_way.len()) / 2).max(1);
    }

    /// Finds out since when something waits, where nobody takes it.
    fn look(&mut self, now_ms: u64) -> Result<(), Error> {
        let journal = |error| Error::journal(&self.folder, error);
        let mut reader = open_reader(&self.folder, &self.acknowledged)?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        self.waiting_since_ms = None;
        while bytes < LOOK_BYTES_MAX {
            entries.clear();
            if reader.read(&mut entries, READ_BYTES_MAX).map_err(journal)? == 0 {
                break;
            }
            bytes += entries
                .iter()
                .map(|entry| entry.payload.len())
                .sum::<usize>();
            let mut records = entries.iter().filter_map(|entry| {
                let topic = self.options.topic;
                match translate(&mut self.enricher, topic, entry.stream, &entry.payload) {
                    Ok(Translated::Record(record)) => Some(record.time_ms),
                    _ => None,
                }
            });
            self.waiting_since_ms = records.next();
            if self.waiting_since_ms.is_some() {
                break;
            }
        }
        self.show(now_ms);
        Ok(())
    }

    fn show(&self, now_ms: u64) {
        let since_ms = self.waiting_since_ms.unwrap_or(now_ms);
        let lag_seconds = now_ms.saturating_sub(since_ms) as f64 / 1000.0;
        self.metrics.show(&self.folder, &self.saved, lag_seconds);
    }

    /// Forgets what was sent and goes back to the cursor; the next step needs a new sender.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn rewind(&mut self) -> Result<(), Error> {
        self.reader = open_reader(&self.folder, &self.acknowledged)?;
        self.sent = self.acknowledged.clone();
        self.read.clear();
        self.begun = None;
        self.under_way.clear();
        self.sender_sent = 0;
        self.corrupt_bytes = 0;
        Ok(())
    }

    /// Hands over until the batch is full, the journal empty or the sender full. How many.
    fn send(&mut self, sender: &mut dyn Sender) -> Result<u64, Error> {
        let mut sent = 0;
        while sent < self.options.batch_records as u64 && self.under_way.len() < self.at_once {
            if self.read.is_empty() && !self.read_more()? {
                break;
            }
            let Some(entry) = self.read.front() else {
                break;
            };
            let mut planned = match self.begun.take() {
                Some(planned) => planned,
                None if self.refused == Some((entry.stream, entry.sequence)) => {
                    dead(entry, DeadReason::Refused)
                }
                None => match plan(&mut self.enricher, &self.sent, &self.options, entry) {
                    Ok(planned) if planned.tombstone().is_none() => planned,
                    // What lies before it is settled first; then the disk is asked once more.
                    Ok(_) if !self.under_way.is_empty() => break,
                    Ok(planned) => {
                        let at = Some((entry.stream, entry.sequence));
                        if self.missed_before != at {
                            self.missed_before = at;
                            self.read_again()?;
                            continue;
                        }
                        self.say_given_up(&planned);
                        planned
                    }
                    // What lies before it is settled first, or each try would send that again.
                    Err(_) if !self.under_way.is_empty() => break,
                    Err(other) => return Err(Error::other_catalog(&self.folder, other)),
                },
            };
            match hand_over(sender, &self.topic, &mut planned, &mut self.sender_sent) {
                Ok(()) => {}
                Err(SendError::Full) => {
                    self.begun = Some(planned);
                    break;
                }
                Err(SendError::Failed(error)) => return Err(Error::sender(&self.folder, error)),
            }
            let entry = self.read.pop_front().expect("it is the one just sent");
            self.sent.advance(&planned.step);
            let letter = match planned.step.outcome {
                Outcome::Dead(reason) => Some(Letter {
                    reason,
                    content: Content::EdgeRecord {
                        stream: entry.stream,
                        sequence: entry.sequence,
                        bytes: entry.payload,
                    },
                }),
                Outcome::Record { .. } | Outcome::End | Outcome::Other => None,
            };
            self.under_way.push_back(UnderWay {
                step: planned.step,
                time_ms: planned.time_ms,
                at: self.sender_sent,
                letter,
            });
            sent += 1;
        }
        Ok(sent)
    }

    /// Goes back to the cursor, and to the disk itself. Nothing may be under way.
    fn read_again(&mut self) -> Result<(), Error> {
        let journal = |error| Error::journal(&self.folder, error);
        self.reader = open_reader(&self.folder, &self.acknowledged)?;
        self.reader.drop_cache().map_err(journal)?;
        self.sent = self.acknowledged.clone();
        self.read.clear();
        self.corrupt_bytes = 0;
        Ok(())
    }

    fn say_given_up(&self, planned: &Planned) {
        let Some(tombstone) = planned.tombstone() else {
            return;
        };
        tracing::error!(
            journal = self.options.journal,
            topic = self.topic,
            stream = %tombstone.origin,
            lane = tombstone.lane,
            first = tombstone.n,
            last = tombstone.last(),
            "journal records cannot be read, also not at a second try, or are dead: their numbers are given up"
        );
    }

    /// False when there is nothing new.
    fn read_more(&mut self) -> Result<bool, Error> {
        let mut read = Vec::new();
        self.reader
            .read(&mut read, READ_BYTES_MAX)
            .map_err(|error| Error::journal(&self.folder, error))?;
        let corrupt_bytes = self.reader.skipped().corrupt_bytes;
        if corrupt_bytes > self.corrupt_bytes {
            tracing::error!(
                journal = self.options.journal,
                bytes = corrupt_bytes - self.corrupt_bytes,
                "the journal is damaged"
            );
            self.corrupt_bytes = corrupt_bytes;
        }
        self.read = read.into();
        Ok(!self.read.is_empty())
    }

    /// Moves the cursor over what is acknowledged. How many records that were.
    fn settle(&mut self, sender: &mut dyn Sender, busy: bool, now_ms: u64) -> Result<u64, Error> {
        // Tombstones before a record that is only begun fill a sender too: it must be asked, or it stays full for ever.
        if self.under_way.is_empty() && self.begun.is_none() {
            self.follow_reader(now_ms);
            self.save_passed(now_ms)?;
            return Ok(0);
        }
        let wait = if busy {
            Duration::ZERO
        } else {
            self.options.acknowledgement_wait
        };
        let count = sender
            .acknowledged(wait)
            .map_err(|error| Error::sender(&self.folder, error))?;
        debug_assert!(
            count <= self.sender_sent,
            "no more is acknowledged than was sent"
        );
        let (mut settled, mut delivered, mut done) = (0, false, Ok(()));
        while let Some(first) = self.under_way.front()
            && first.at <= count
        {
            if let Some(letter) = &first.letter {
                tracing::error!(
                    journal = self.options.journal,
                    stream = %first.step.stream,
                    sequence = first.step.sequence,
                    reason = letter.reason.name(),
                    folder = %self.dead_letters.folder().display(),
                    "journal record cannot be shipped, kept with the dead letters"
                );
                done = self
                    .dead_letters
                    .add(letter)
                    .map_err(|error| Error::dead_letters(self.dead_letters.folder(), error));
                if done.is_err() {
                    break;
                }
            }
            delivered |= first.step.outcome != Outcome::Other;
            self.acknowledged.advance(&first.step);
            self.under_way.pop_front();
            // What the stream takes may grow again.
            self.at_once = (self.at_once + 1).min(UNDER_WAY_MAX);
            settled += 1;
        }
        if settled > 0 {
            self.unsaved_since_ms.get_or_insert(now_ms);
        }
        if delivered {
            self.save()?;
        } else {
            self.save_passed(now_ms)?;
        }
        done.map(|()| settled)
    }

    /// Where all there is was passed, the reader may already stand in a newer file that has nothing yet: the older ones can be
    /// deleted then.
    fn follow_reader(&mut self, now_ms: u64) {
        let at = self.reader.position();
        if self.read.is_empty() && at.file > self.acknowledged.position.file {
            self.acknowledged.position = at;
            self.sent.position = at;
            self.unsaved_since_ms.get_or_insert(now_ms);
        }
    }

    /// Saves a cursor that passed records of other topics, now and then: reading them again costs less than the disk does.
    fn save_passed(&mut self, now_ms: u64) -> Result<(), Error> {
        match self.unsaved_since_ms {
            // Also where the clock was set back.
            Some(since) if now_ms.abs_diff(since) >= SAVE_EVERY_MS => self.save(),
            _ => Ok(()),
        }
    }

    fn save(&mut self) -> Result<(), Error> {
        self.cursor
            .save(&self.acknowledged.encode())
            .map_err(|error| Error::cursor(&self.cursor_path, error))?;
        self.unsaved_since_ms = None;
        self.saved = self.acknowledged.totals;
        Ok(())
    }
}

/// Deletes the files of a journal folder that every topic's cursor has passed and that did not change for `retain`.
///
/// # Errors
/// The cursors or the folder cannot be read, or a file cannot be deleted.
pub fn delete_acknowledged(
    journal_folder: &Path,
    cursors: &[PathBuf; TOPICS.len()],
    retain: Duration,
    now_ms: u64,
) -> Result<Deleted, Error> {
    let mut passed = u64::MAX;
    for path in cursors {
        let saved = Cursor::read(path).map_err(|error| Error::cursor(path, error))?;
        passed = passed.min(marks(path, saved)?.position.file);
    }
    let now = UNIX_EPOCH + Duration::from_millis(now_ms);
    let young = |path: &Path| {
        let changed = std::fs::metadata(path).and_then(|found| found.modified());
        changed.is_ok_and(|changed| now.duration_since(changed).unwrap_or_default() < retain)
    };
    journal::delete_before(journal_folder, passed, young)
        .map_err(|error| Error::journal(journal_folder, error))
}

/// What a cursor holds.
fn marks(cursor: &Path, saved: Option<Vec<u8>>) -> Result<Marks, Error> {
    match saved.map(|value| Marks::decode(&value)) {
        None => Ok(Marks::default()),
        Some(Ok(marks)) => Ok(marks),
        Some(Err(Unreadable::Newer(version))) => Err(Error::cursor_format(cursor, version)),
        Some(Err(Unreadable::Damaged)) => Err(Error::cursor_damaged(cursor)),
    }
}

fn open_reader(folder: &Path, marks: &Marks) -> Result<Reader, Error> {
    Reader::open(folder, marks.position).map_err(|error| Error::journal(folder, error))
}

/// Pauses; ends early when a stop is asked for, except while stopping already.
fn wait(pause: Duration, watch: bool, stop: &dyn Fn() -> bool) {
    let started = Instant::now();
    while let Some(rest) = pause.checked_sub(started.elapsed())
        && !rest.is_zero()
        && !(watch && stop())
    {
        std::thread::park_timeout(rest.min(IDLE_PAUSE_MAX));
    }
}

/// Sends what a record of the journal becomes.
fn hand_over(
    sender: &mut dyn Sender,
    topic: &str,
    planned: &mut Planned,
    sender_sent: &mut u64,
) -> Result<(), SendError> {
    while let Some(record) = planned.records.front() {
        sender.send(topic, record)?;
        *sender_sent += 1;
        planned.records.pop_front();
    }
    Ok(())
}

fn plan(
    enricher: &mut Enricher,
    sent: &Marks,
    options: &Options,
    entry: &Entry,
) -> Result<Planned, OtherCatalog> {
    let mut planned = plan_entry(enricher, sent, options, entry)?;
    // A new stream is its predecessor's end, however that one died.
    if options.gives_up && !sent.is_of(entry.stream) {
        for end in sent.ends(options.partitions).into_iter().rev() {
            planned.records.push_front(end);
        }
    }
    Ok(planned)
}

fn plan_entry(
    enricher: &mut Enricher,
    sent: &Marks,
    options: &Options,
    entry: &Entry,
) -> Result<Planned, OtherCatalog> {
    let topic = options.topic;
    let of = topic_of(&entry.payload);
    if TOPICS
        .iter()
        .any(|&known| known != topic && of == Some(known as u64))
    {
        return Ok(passed(entry, Outcome::Other));
    }
    let planned = match translate(enricher, topic, entry.stream, &entry.payload) {
        Ok(Translated::Record(record)) => {
            // Each record of a lane is one of its stream: a higher number is wrong, and no hole however large.
            if record.n > entry.sequence {
                return Ok(dead(entry, DeadReason::Invalid));
            }
            let last = match options.gives_up {
                true => sent.last(entry, record.lane),
                false => None,
            };
            let first = last.unwrap_or(record.n - 1) + 1;
            let (lane, n, time_ms) = (record.lane, record.n, record.time_ms);
            let lost = first..=n - 1;
            let tombstone =
                (!lost.is_empty()).then(|| Record::tombstone_of(entry.stream, lane, lost, time_ms));
            Planned {
                time_ms,
                records: tombstone.into_iter().chain([record]).collect(),
                ..passed(entry, Outcome::Record { lane, n })
            }
        }
        Ok(Translated::End) => {
            let records = match options.gives_up && sent.is_of(entry.stream) {
                true => sent.ends(options.partitions).into(),
                false => VecDeque::new(),
            };
            let outcome = if topic == TOPICS[0] {
                Outcome::End
            } else {
                Outcome::Other
            };
            let mut planned = Planned {
                records,
                ..passed(entry, outcome)
            };
            planned.step.is_end = true;
            planned
        }
        Err(Untranslated::OtherCatalog(other)) => return Err(other),
        // What is of no known topic is the first one's to keep.
        Err(_) if of != Some(topic as u64) && topic != TOPICS[0] => passed(entry, Outcome::Other),
        Err(Untranslated::Dead(reason)) => dead(entry, reason),
    };
    Ok(planned)
}

/// A record that is not shipped. Its number shows as a hole, which is filled before the lane's next record.
fn dead(entry: &Entry, reason: DeadReason) -> Planned {
    passed(entry, Outcome::Dead(reason))
}

/// One that sends nothing.
fn passed(entry: &Entry, outcome: Outcome) -> Planned {
    Planned {
        step: Step {
            stream: entry.stream,
            sequence: entry.sequence,
            ordinal: entry.ordinal,
            next: entry.next,
            outcome,
            is_end: false,
        },
        time_ms: u64::MAX,
        records: VecDeque::new(),
    }
}

/// The topic of an encoded [`EdgeRecord`] without decoding the rest of it; field 1 is written first.
fn topic_of(payload: &[u8]) -> Option<u64> {
    let mut rest = payload;
    let (tag, wire_type) = prost::encoding::decode_key(&mut rest).ok()?;
    if (tag, wire_type) != (1, prost::encoding::WireType::Varint) {
        return None;
    }
    prost::encoding::decode_varint(&mut rest).ok()
}

pub(crate) enum Translated {
    Record(Record),
    End,
}

/// Why a record is not translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untranslated {
    Dead(DeadReason),
    OtherCatalog(OtherCatalog),
}

/// A record has the numbers of another catalog: shipped, it would pay somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherCatalog {
    pub(crate) found: u64,
    pub(crate) here: u64,
}

impl std::fmt::Display for OtherCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "a record was made with the catalog.lock {:016x}…, the catalog here has {:016x}…, whose numbers mean other things: put the catalog back that the record was made with, or move the record's file out of the data folder",
            self.found, self.here
        )
    }
}

impl std::error::Error for OtherCatalog {}

impl From<DeadReason> for Untranslated {
    fn from(reason: DeadReason) -> Self {
        Self::Dead(reason)
    }
}

/// A journal record as the stream's topic gets it.
pub(crate) fn translate(
    enricher: &mut Enricher,
    topic: Topic,
    stream: StreamId,
    payload: &[u8],
) -> Result<Translated, Untranslated> {
    let edge = EdgeRecord::decode(payload).map_err(|_| DeadReason::Undecodable)?;
    if let Some(here) = enricher.other_catalog(edge.catalog_lock) {
        return Err(Untranslated::OtherCatalog(OtherCatalog {
            found: edge.catalog_lock,
            here,
        }));
    }
    let lane = u8::try_from(edge.lane).map_err(|_| DeadReason::Invalid)?;
    let (of, kind, time_ms, key, value) = match edge.event.ok_or(DeadReason::Invalid)? {
        Event::Click(mut click) => {
            let time_ms = click.key.ok_or(DeadReason::Invalid)?.time_ms;
            enricher.click(&mut click, time_ms, &edge.address);
            let key = shard_key(click.shard)?;
            (
                Topic::Clicks,
                Kind::Click,
                time_ms,
                key,
                click.encode_to_vec(),
            )
        }
        Event::Unmatched(unmatched) => {
            let time_ms = unmatched.key.ok_or(DeadReason::Invalid)?.time_ms;
            let key = shard_key(unmatched.shard)?;
            let value = unmatched.encode_to_vec();
            (Topic::Clicks, Kind::Unmatched, time_ms, key, value)
        }
        Event::Postback(mut postback) => {
            let time_ms = postback.key.ok_or(DeadReason::Invalid)?.time_ms;
            enricher.postback(&mut postback, &edge.address);
            let key = format!("{}/{}", postback.advertiser, postback.order).into_bytes();
            let value = postback.encode_to_vec();
            (Topic::Postbacks, Kind::Postback, time_ms, key, value)
        }
        Event::End(_) => return Ok(Translated::End),
    };
    let is_consistent = topic == of && topic as u32 == edge.topic;
    if !is_consistent || edge.n == 0 || key.len() > stream::record::KEY_BYTES_MAX {
        return Err(DeadReason::Invalid.into());
    }
    Ok(Translated::Record(Record {
        key,
        kind: kind as u16,
        version: SCHEMA_VERSION,
        origin: stream,
        lane,
        n: edge.n,
        time_ms,
        value,
    }))
}

fn shard_key(shard: u32) -> Result<Vec<u8>, DeadReason> {
    let shard = Shard::new(shard).ok_or(DeadReason::Invalid)?;
    Ok(shard.get().to_be_bytes().to_vec())
}

#[cfg(test)]
mod tests;
