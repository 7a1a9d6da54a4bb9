//! What the three consumers share: the store's side of the stream's loop.
//!
//! A consumer is a [`Handler`]: it folds records into a batch of the store. Around it, [`Stored`] moves the offset first,
//! keeps the receipts and hands the outbox on, all in the transaction of the fold.

use catalog::{Catalog, Folder, Lookup};
use domain::Topic;
use std::sync::Arc;
use stream::consumer::{Accepted, Fold, Position};
use stream::receipts::High;
use stream::{END, Record, StreamId, TOMBSTONE};

/// Why a batch was not folded.
#[derive(Debug)]
pub enum Error {
    /// The store could not be read or changed.
    Store(store::Error),
    /// An event could not be understood, or names a catalog version that is not there.
    Event(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Event(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Event(_) => None,
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

/// What one consumer does with the records of its topic. The result must be a function of the set of records.
pub trait Handler {
    /// The name in offsets, and with the topic's in the outbox.
    const NAME: &'static str;

    /// Folds one record.
    ///
    /// # Errors
    /// Nothing of the batch is committed.
    fn fold(&mut self, out: &mut Output<'_, '_>, record: &Record) -> Result<(), Error>;

    /// Work no record causes; whether it did something.
    ///
    /// # Errors
    /// Nothing of it is committed.
    fn tick(&mut self, out: &mut Output<'_, '_>) -> Result<bool, Error> {
        let _ = out;
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
}

impl<H: Handler> Stored<H> {
    /// Reads `topic`; topics it says something on are called `prefix.name`. What it says from now on belongs to `stream`,
    /// which was never used before; the streams of earlier opens end when all that waits of them is acknowledged.
    ///
    /// # Errors
    /// The store could not be changed.
    pub fn new(
        store: store::Store,
        handler: H,
        topic: Topic,
        prefix: &str,
        stream: StreamId,
    ) -> Result<Self, Error> {
        let outbox = outbox_name(H::NAME, topic);
        store.batch(|batch| {
            let used = batch.outbox_take_counters(&outbox)?;
            for of_topic in used.chunk_by(|a, b| (a.stream, a.topic) == (b.stream, b.topic)) {
                let ends: Vec<(u8, u64)> = of_topic
                    .iter()
                    .map(|last| (last.lane, last.n + 1))
                    .collect();
                for last in of_topic {
                    let end = Record::end(StreamId(last.stream), last.lane, &ends);
                    batch.outbox_end(&outbox, *last, END, &end.value)?;
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
        })
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
                Err(Error::Event(what)) => {
                    failed = Some(what.clone());
                    Err(store::Error::other(what))
                }
            }
        });
        done.map_err(|error| failed.map_or(Error::Store(error), Error::Event))
    }
}

impl<H: Handler> Fold for Stored<H> {
    type Error = Error;

    fn position(&mut self, partition: u16) -> Result<Position, Error> {
        let position = self
            .store
            .batch(|batch| batch.position(H::NAME, self.topic as u8, partition))?;
        let highs = position.highs.into_iter().map(|high| {
            (
                high.lane,
                StreamId(high.stream),
                High {
                    n: high.n,
                    time_ms: high.time_ms,
                },
            )
        });
        Ok(Position {
            offset: position.offset,
            highs: highs.collect(),
            ended: position.ended.into_iter().map(StreamId).collect(),
        })
    }

    fn apply(&mut self, accepted: &Accepted<'_>) -> Result<(), Error> {
        let topic = self.topic as u8;
        self.with(accepted.partition, |handler, out| {
            out.batch.move_offset(
                H::NAME,
                topic,
                accepted.partition,
                accepted.from,
                accepted.to,
            )?;
            for record in &accepted.records {
                handler.fold(out, record)?;
            }
            for (lane, stream, high) in &accepted.highs {
                let high = store::High {
                    lane: *lane,
                    stream: stream.0,
                    n: high.n,
                    time_ms: high.time_ms,
                };
                out.batch
                    .set_high(H::NAME, topic, accepted.partition, &high)?;
            }
            for stream in &accepted.ended {
                out.batch
                    .end_stream(H::NAME, topic, accepted.partition, stream.0)?;
            }
            Ok(())
        })
    }

    fn outbox(&mut self, limit: usize) -> Result<Vec<(i64, String, Record)>, Error> {
        let rows = self
            .store
            .batch(|batch| batch.outbox_waiting(&self.outbox, limit))?;
        let rows = rows.into_iter().map(|row| {
            let stream = StreamId(row.stream);
            let topic = Topic::from_number(row.topic.into())
                .ok_or_else(|| Error::Event(format!("outbox: unknown topic {}", row.topic)))?;
            let record = if row.kind == TOMBSTONE {
                Record::tombstone(stream, row.lane, row.n, row.time_ms)
            } else {
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
            };
            Ok((row.id, format!("{}.{}", self.prefix, topic.name()), record))
        });
        rows.collect()
    }

    fn sent(&mut self, through: i64) -> Result<(), Error> {
        Ok(self
            .store
            .batch(|batch| batch.outbox_delete(&self.outbox, through))?)
    }

    fn refused(&mut self, id: i64) -> Result<(), Error> {
        Ok(self
            .store
            .batch(|batch| batch.outbox_refused(&self.outbox, id, TOMBSTONE))?)
    }

    fn tick(&mut self) -> Result<bool, Error> {
        self.with(0, Handler::tick)
    }
}

/// Decodes a record's value.
///
/// # Errors
/// It is no such message.
pub fn decode<M: prost::Message + Default>(record: &Record) -> Result<M, Error> {
    M::decode(&*record.value).map_err(|error| {
        Error::Event(format!(
            "{} lane {} n {}: kind {} does not decode: {error}",
            record.origin, record.lane, record.n, record.kind
        ))
    })
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
    /// It is not there, is another one or cannot be read.
    pub fn get(&self, version: u32, hash: u64) -> Result<Arc<Catalog>, Error> {
        match self.folder.version(version, hash) {
            Ok(Lookup::Found(catalog)) => Ok(catalog),
            Ok(Lookup::Missing) => Err(Error::Event(format!(
                "catalog version {version} is not here"
            ))),
            Ok(Lookup::Other { hash: here }) => Err(Error::Event(format!(
                "catalog version {version} has hash {here:016x} here, not {hash:016x}: it is another catalog"
            ))),
            Err(error) => Err(Error::Event(format!("catalog version {version}: {error}"))),
        }
    }
}
