//! What the three consumers share: the store's side of the stream's loop.
//!
//! A consumer is a [`Handler`]: it folds records into a batch of the store. Around it, [`Stored`] moves the offset first,
//! keeps the receipts and hands the outbox on, all in the transaction of the fold. An event that cannot be folded is parked
//! ([`parking`]).

mod error;
pub mod parking;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use catalog::{Catalog, Folder, Lookup};
use domain::Topic;
use parking::Parking;
use stream::consumer::{Accepted, Fold};
use stream::letters::{self, Content, Letter, Letters};
use stream::receipts::{High, Lanes};
use stream::{END, Receipts, Record, StreamId, TOMBSTONE};

pub use error::{Error, Reason, Refusal};

/// What one consumer does with the records of its topic. The result must be a function of the set of records.
pub trait Handler {
    /// The name in offsets, and with the topic's in the outbox.
    const NAME: &'static str;

    /// Folds one record.
    ///
    /// # Errors
    /// [`Error::Event`]: this record cannot be folded and is parked. Any other: nothing of the batch is committed.
    fn fold(&mut self, out: &mut Output<'_, '_>, record: &Record) -> Result<(), Error>;

    /// Work no record causes; whether it did something.
    ///
    /// # Errors
    /// Nothing of it is committed.
    fn tick(&mut self, out: &mut Output<'_, '_>, now_ms: u64) -> Result<bool, Error> {
        let _ = (out, now_ms);
        Ok(false)
    }
}

/// What the rows in the outbox are known by of a consumer that reads `topic`.
pub fn outbox_name(consumer: &str, topic: Topic) -> String {
    format!("{consumer}/{}", topic.name())
}

/// Where a handler writes: the batch, and through it the outbox.
pub struct Output<'a, 'b> {
    /// The open batch.
    pub batch: &'a mut store::Batch<'b>,
    /// The partition being folded; 0 during a tick.
    pub partition: u16,
    outbox: &'a str,
    stream: [u8; 16],
}

impl Output<'_, '_> {
    /// Says something on a topic once the batch is committed.
    ///
    /// # Errors
    /// The store could not be changed.
    pub fn say(
        &mut self,
        topic: Topic,
        lane: domain::Lane,
        kind: domain::event::Kind,
        time_ms: u64,
        key: &[u8],
        value: &impl prost::Message,
    ) -> Result<(), Error> {
        let bytes = value.encode_to_vec();
        Ok(self.batch.outbox(
            self.outbox,
            self.stream,
            topic as u8,
            lane.0,
            kind as u16,
            time_ms,
            key,
            &bytes,
        )?)
    }
}

/// A handler over a store, as the stream's loop wants it.
pub struct Stored<H> {
    store: store::Store,
    handler: H,
    topic: Topic,
    prefix: String,
    /// What its rows in the outbox are known by. One handler may read several topics, each of these with a stream of its own.
    outbox: String,
    stream: [u8; 16],
    /// Under which the dead letters lie, and those of each topic.
    letters_folder: PathBuf,
    letters: BTreeMap<u8, Letters>,
    observe: Box<dyn FnMut(Parking) + Send>,
    /// When parked events were last looked at.
    looked_ms: u64,
}

impl<H: Handler> Stored<H> {
    /// Reads `topic`; topics it says something on are called `prefix.name` and have so many partitions. What it says from now on
    /// belongs to `stream`,
    /// which was never used before; the streams of earlier opens end when all that waits of them is acknowledged. What a topic
    /// refuses is kept in a folder of `letters`.
    ///
    /// # Errors
    /// The store could not be changed.
    pub fn new(
        store: store::Store,
        handler: H,
        topic: Topic,
        (prefix, partitions): (&str, u16),
        stream: StreamId,
        letters: &Path,
    ) -> Result<Self, Error> {
        let outbox = outbox_name(H::NAME, topic);
        store.batch(|batch| {
            let used = batch.outbox_take_counters(&outbox)?;
            for of_topic in used.chunk_by(|a, b| (a.stream, a.topic) == (b.stream, b.topic)) {
                let (stream, topic) = (of_topic[0].stream, of_topic[0].topic);
                let last: Vec<(u8, u64)> = of_topic.iter().map(|of| (of.lane, of.n)).collect();
                for end in Record::ends(StreamId(stream), &last, partitions) {
                    let of = (topic, end.lane, end.n);
                    batch.outbox_end(&outbox, stream, of, END, &end.value)?;
                }
            }
            Ok(())
        })?;
        Ok(Self {
            store,
            handler,
            topic,
            prefix: prefix.to_owned(),
            outbox,
            stream: stream.0,
            letters_folder: letters.to_owned(),
            letters: BTreeMap::new(),
            observe: Box::new(|_| {}),
            looked_ms: 0,
        })
    }

    /// Tells `observe` of events that are parked.
    #[must_use]
    pub fn observed(mut self, observe: impl FnMut(Parking) + Send + 'static) -> Self {
        self.observe = Box::new(observe);
        self
    }

    fn with<T>(
        &mut self,
        partition: u16,
        f: impl FnOnce(&mut H, &mut Output<'_, '_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Self {
            store,
            handler,
            outbox,
            stream,
            ..
        } = self;
        let mut failed = None;
        let done = store.batch(|batch| {
            let mut out = Output {
                batch,
                partition,
                outbox,
                stream: *stream,
            };
            match f(handler, &mut out) {
                Ok(value) => Ok(value),
                Err(Error::Store(error)) => Err(error),
                Err(error) => {
                    let text = error.to_string();
                    failed = Some(error);
                    Err(store::Error::other(text))
                }
            }
        });
        done.map_err(|error| failed.unwrap_or(Error::Store(error)))
    }

    /// Folds a batch. With `one_by_one`, what cannot be folded is parked; otherwise it fails the batch.
    fn fold_batch(&mut self, accepted: &Accepted<'_>, one_by_one: bool) -> Result<(), Error> {
        let topic = self.topic as u8;
        let partition = accepted.partition;
        let parked = self.with(partition, |handler, out| {
            out.batch
                .move_offset(H::NAME, topic, partition, accepted.from, accepted.to)?;
            let mut parked = Vec::new();
            for (offset, record) in &accepted.records {
                if !one_by_one {
                    parking::fold(handler, out, record)?;
                } else if let Err(refusal) = parking::attempt(handler, out, record)? {
                    let place = (H::NAME, topic, partition);
                    let event = parking::event(place, (*offset, record), &refusal, accepted.now_ms);
                    if out.batch.park(&event)? {
                        parked.push((*offset, refusal));
                    }
                }
            }
            for (lane, stream, high) in &accepted.highs {
                let high = store::High {
                    lane: *lane,
                    stream: stream.0,
                    n: high.n,
                    time_ms: high.time_ms,
                };
                out.batch.set_high(H::NAME, topic, &high)?;
            }
            for (stream, lanes) in &accepted.ended {
                let ended = store::Ended {
                    stream: stream.0,
                    lanes: lanes.0,
                };
                out.batch.end_lanes(H::NAME, topic, &ended)?;
            }
            Ok(parked)
        })?;
        for reason in Reason::ALL {
            let mut of_reason = parked
                .iter()
                .filter(|(_, refusal)| refusal.reason == reason);
            let Some((offset, refusal)) = of_reason.next() else {
                continue;
            };
            let events = 1 + of_reason.count() as u64;
            let (consumer, topic) = (H::NAME, self.topic.name());
            if parking::waits_until(reason, 0).is_some() {
                tracing::warn!(
                    consumer,
                    topic,
                    partition,
                    offset,
                    events,
                    why = refusal.detail,
                    "events wait for their catalog version, the others are folded"
                );
            } else {
                self.tell_set_aside(reason, events, &refusal.detail);
            }
        }
        Ok(())
    }

    fn tell_set_aside(&mut self, reason: Reason, events: u64, why: &str) {
        tracing::error!(
            consumer = H::NAME,
            topic = self.topic.name(),
            reason = reason.name(),
            events,
            why,
            "events are set aside, the others are folded: see sluice parked list"
        );
        (self.observe)(Parking::SetAside { reason, events });
    }

    /// Attempts parked events again: those that somebody asked for, and those whose catalog version has come. Sets aside what
    /// has waited long enough. Says whether more is to be done at once.
    ///
    /// # Errors
    /// The store cannot be read or changed.
    pub fn look_at_parked(&mut self, now_ms: u64) -> Result<bool, Error> {
        let topic = self.topic as u8;
        let mut attempts = 0;
        let (aside, now) = self.with(0, |handler, out| {
            let mut aside = Vec::new();
            for row in out
                .batch
                .parked_wanted(H::NAME, topic, parking::ATTEMPTS_MAX)?
            {
                attempts += 1;
                aside.extend(attempt_again(handler, out, &row)?.err().flatten());
            }
            let waited_for = Reason::CatalogVersion.name();
            for first in out.batch.parked_firsts(H::NAME, topic, waited_for)? {
                if attempts >= parking::ATTEMPTS_MAX {
                    break;
                }
                // One attempt tells of all that lack the same.
                let again = attempt_again(handler, out, &first)?;
                if let Err(set_aside) = again {
                    aside.extend(set_aside);
                    continue;
                }
                let limit = parking::ATTEMPTS_MAX - attempts;
                for row in out.batch.parked_alike(&first.event, limit)? {
                    attempts += 1;
                    aside.extend(attempt_again(handler, out, &row)?.err().flatten());
                }
            }
            let over = out.batch.end_waits(H::NAME, topic, now_ms)?;
            aside.extend(over.into_iter().map(|(_, events, detail)| {
                let reason = Reason::CatalogVersion;
                (Refusal { reason, detail }, events)
            }));
            Ok((aside, out.batch.parked_count(H::NAME, topic)?))
        })?;
        for (refusal, events) in aside {
            self.tell_set_aside(refusal.reason, events, &refusal.detail);
        }
        (self.observe)(Parking::Now(now));
        Ok(attempts >= parking::ATTEMPTS_MAX)
    }
}

/// Attempts a parked event again. Where that fails, says whether it is set aside only now.
fn attempt_again<H: Handler>(
    handler: &mut H,
    out: &mut Output<'_, '_>,
    row: &store::Parked,
) -> Result<Result<(), Option<(Refusal, u64)>>, Error> {
    out.partition = row.event.partition;
    let Err(refusal) = parking::attempt(handler, out, &parking::record(row))? else {
        out.batch.unpark(row.id)?;
        return Ok(Ok(()));
    };
    let waits = refusal.reason == Reason::CatalogVersion;
    let waits_until_ms = row.event.waits_until_ms.filter(|_| waits);
    out.batch.keep_parked(
        row.id,
        refusal.reason.name(),
        &refusal.detail,
        waits_until_ms,
    )?;
    let waited = row.event.waits_until_ms.is_some();
    Ok(Err((waited && !waits).then_some((refusal, 1))))
}

impl<H: Handler> Fold for Stored<H> {
    type Error = Error;

    fn offset(&mut self, partition: u16) -> Result<u64, Error> {
        let topic = self.topic as u8;
        Ok(self
            .store
            .batch(|batch| batch.offset(H::NAME, topic, partition))?)
    }

    fn receipts(&mut self) -> Result<Receipts, Error> {
        let topic = self.topic as u8;
        let kept = self.store.batch(|batch| batch.receipts(H::NAME, topic))?;
        let highs = kept.highs.into_iter().map(|high| {
            let folded = High {
                n: high.n,
                time_ms: high.time_ms,
            };
            (high.lane, StreamId(high.stream), folded)
        });
        let ended = kept.ended.into_iter();
        let ended = ended.map(|ended| (StreamId(ended.stream), Lanes(ended.lanes)));
        Ok(Receipts::new(highs, ended))
    }

    fn apply(&mut self, accepted: &Accepted<'_>) -> Result<(), Error> {
        // A batch is seldom refused: only then is it worth a part of the transaction for each event.
        match self.fold_batch(accepted, false) {
            Err(Error::Event(_)) => self.fold_batch(accepted, true),
            done => done,
        }
    }

    fn outbox(&mut self, limit: usize) -> Result<Vec<(i64, String, Record)>, Error> {
        let rows = self
            .store
            .batch(|batch| batch.outbox_waiting(&self.outbox, limit))?;
        let rows = rows.into_iter().map(|row| {
            let (id, topic) = (row.id, topic_of(&row)?);
            let topic = format!("{}.{}", self.prefix, topic.name());
            Ok((id, topic, record_of(row)))
        });
        rows.collect()
    }

    fn sent(&mut self, through: i64) -> Result<(), Error> {
        Ok(self
            .store
            .batch(|batch| batch.outbox_delete(&self.outbox, through))?)
    }

    fn refused(&mut self, id: i64) -> Result<(), Error> {
        let Self {
            store,
            outbox,
            letters,
            letters_folder,
            ..
        } = self;
        // The letter is durable before its row is gone.
        store.batch(|batch| {
            let Some(row) = batch.outbox_refused(outbox, id, TOMBSTONE)? else {
                return Ok(());
            };
            let topic = topic_of(&row).map_err(|error| store::Error::other(error.to_string()))?;
            let name = format!("{}.{}", outbox.replace('/', "-"), topic.name());
            let letters = letters
                .entry(row.topic)
                .or_insert_with(|| Letters::new(letters_folder.join(name)));
            let letter = Letter {
                reason: letters::Reason::Refused,
                content: Content::Record(record_of(row)),
            };
            letters
                .add(&letter)
                .map_err(|error| store::Error::other(error.to_string()))
        })?;
        Ok(())
    }

    fn tick(&mut self, now_ms: u64) -> Result<bool, Error> {
        let mut busy = self.with(0, |handler, out| handler.tick(out, now_ms))?;
        if now_ms.abs_diff(self.looked_ms) >= parking::LOOK_EVERY_MS {
            let more = self.look_at_parked(now_ms)?;
            self.looked_ms = if more { 0 } else { now_ms };
            busy |= more;
        }
        Ok(busy)
    }
}

fn topic_of(row: &store::OutboxRow) -> Result<Topic, Error> {
    Topic::from_number(row.topic.into())
        .ok_or_else(|| Error::Damaged(format!("an outbox row of topic {}", row.topic)))
}

/// What an outbox's row says.
fn record_of(row: store::OutboxRow) -> Record {
    let stream = StreamId(row.stream);
    if row.kind == TOMBSTONE {
        return Record::tombstone(stream, row.lane, row.n, row.time_ms);
    }
    Record {
        key: row.key,
        kind: row.kind,
        version: match row.kind {
            END => 0,
            _ => domain::event::SCHEMA_VERSION,
        },
        origin: stream,
        lane: row.lane,
        n: row.n,
        time_ms: row.time_ms,
        value: row.bytes,
    }
}

/// Decodes a record's value.
///
/// # Errors
/// It is no such message.
pub fn decode<M: prost::Message + Default>(record: &Record) -> Result<M, Error> {
    M::decode(&*record.value)
        .map_err(|error| Error::undecodable(record, format!("it does not decode: {error}")))
}

/// The catalog versions events name.
pub struct Versions {
    folder: Folder,
}

impl Versions {
    /// Over the folder snapshots are kept in.
    pub fn new(folder: Folder) -> Self {
        Self { folder }
    }

    /// The catalog of a version, which has this hash.
    ///
    /// # Errors
    /// [`Reason::CatalogVersion`]: it is not here or cannot be read, the event waits for it. [`Reason::CatalogHash`]: it is
    /// another one.
    pub fn get(&self, version: u32, hash: u64) -> Result<Arc<Catalog>, Error> {
        match self.folder.version(version, hash) {
            Ok(Lookup::Found(catalog)) => Ok(catalog),
            Ok(Lookup::Missing) => Err(Error::event(
                Reason::CatalogVersion,
                format!("catalog version {version} is not here"),
            )),
            Ok(Lookup::Other { hash: here }) => Err(Error::event(
                Reason::CatalogHash,
                format!(
                    "catalog version {version} has hash {here:016x} here, not {hash:016x}: it is another catalog"
                ),
            )),
            Err(error) => Err(Error::event(
                Reason::CatalogVersion,
                format!("catalog version {version}: {error}"),
            )),
        }
    }
}
