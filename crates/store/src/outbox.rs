//! The outbox: what a consumer says, written with the state it follows from and sent afterwards, in order, until it is
//! acknowledged. An outbox is a stream like any other: n = 1, 2, 3 … without holes per (stream, topic, lane).

use rusqlite::{Connection, OptionalExtension};

use crate::batch::stream_id;
use crate::{Batch, Result, View};

/// One event that waits to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its place in the outbox.
    pub id: i64,
    /// The topic's number.
    pub topic: u8,
    /// The lane.
    pub lane: u8,
    /// The consumer's stream in this store.
    pub stream: [u8; 16],
    /// Its number in (stream, topic, lane).
    pub n: u64,
    /// The message type.
    pub kind: u16,
    /// Event time, Unix milliseconds.
    pub time_ms: u64,
    /// The key it is sent under.
    pub key: Vec<u8>,
    /// The event.
    pub bytes: Vec<u8>,
}

impl Batch<'_> {
    /// The stream of a consumer's outbox: what was kept for it, or from now on the (random) candidate.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn outbox_stream(&mut self, consumer: &str, candidate: [u8; 16]) -> Result<[u8; 16]> {
        self.connection()
            .prepare_cached("INSERT OR IGNORE INTO outbox_streams VALUES (?1, ?2)")?
            .execute((consumer, &candidate[..]))?;
        let stream = self
            .connection()
            .prepare_cached("SELECT stream FROM outbox_streams WHERE consumer = ?1")?
            .query_row((consumer,), |row| row.get(0))?;
        stream_id(stream)
    }

    /// Puts an event into the outbox under the next number of its lane.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the row's columns, and a caller names each once"
    )]
    pub fn outbox(
        &mut self,
        consumer: &str,
        stream: [u8; 16],
        topic: u8,
        lane: u8,
        kind: u16,
        time_ms: u64,
        key: &[u8],
        bytes: &[u8],
    ) -> Result<()> {
        let n: i64 = self
            .connection()
            .prepare_cached(
                "INSERT INTO outbox_counters VALUES (?1, ?2, ?3, ?4, 1)
                 ON CONFLICT DO UPDATE SET n = n + 1 RETURNING n",
            )?
            .query_row((consumer, &stream[..], topic, lane), |row| row.get(0))?;
        self.connection()
            .prepare_cached(
                "INSERT INTO outbox (consumer, topic, lane, stream, n, kind, time_ms, key, bytes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute((
                consumer,
                topic,
                lane,
                &stream[..],
                n,
                kind,
                time_ms.cast_signed(),
                key,
                bytes,
            ))?;
        Ok(())
    }

    /// The oldest events that wait, at most `limit`, in the order they must be sent.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn outbox_waiting(&self, consumer: &str, limit: usize) -> Result<Vec<OutboxRow>> {
        waiting(self.connection(), consumer, limit)
    }

    /// Forgets the events through an id: they are acknowledged.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn outbox_delete(&mut self, consumer: &str, through_id: i64) -> Result<()> {
        self.connection()
            .prepare_cached("DELETE FROM outbox WHERE consumer = ?1 AND id <= ?2")?
            .execute((consumer, through_id))?;
        Ok(())
    }
}

impl Batch<'_> {
    /// Moves an event that the stream refuses for itself into `dead_letters`. A row of the kind `tombstone` keeps its id and
    /// its number, so that the events after it can be sent. Nothing changes where that was done before.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn outbox_refused(&mut self, consumer: &str, id: i64, tombstone: u16) -> Result<()> {
        self.connection()
            .prepare_cached(
                "INSERT INTO dead_letters SELECT * FROM outbox WHERE consumer = ?1 AND id = ?2 AND kind <> ?3",
            )?
            .execute((consumer, id, tombstone))?;
        self.connection()
            .prepare_cached(
                "UPDATE outbox SET kind = ?3, key = x'', bytes = x'' WHERE consumer = ?1 AND id = ?2",
            )?
            .execute((consumer, id, tombstone))?;
        Ok(())
    }
}

impl View {
    /// The same as [`Batch::outbox_waiting`], without holding up the writer.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn outbox_waiting(&self, consumer: &str, limit: usize) -> Result<Vec<OutboxRow>> {
        waiting(&self.connection, consumer, limit)
    }

    /// The offset a consumer goes on from; `None` for one that never read the partition.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn offset(&self, consumer: &str, topic: u8, partition: u16) -> Result<Option<u64>> {
        let mut select = self.connection.prepare_cached(
            "SELECT offset FROM positions WHERE consumer = ?1 AND topic = ?2 AND partition = ?3",
        )?;
        let offset = select
            .query_row((consumer, topic, partition), |row| row.get::<_, i64>(0))
            .optional()?;
        Ok(offset.map(i64::cast_unsigned))
    }
}

fn waiting(connection: &Connection, consumer: &str, limit: usize) -> Result<Vec<OutboxRow>> {
    let mut select = connection.prepare_cached(
        "SELECT id, topic, lane, stream, n, kind, time_ms, key, bytes FROM outbox
         WHERE consumer = ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = select.query((consumer, i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let mut waiting = Vec::new();
    while let Some(row) = rows.next()? {
        waiting.push(OutboxRow {
            id: row.get(0)?,
            topic: row.get(1)?,
            lane: row.get(2)?,
            stream: stream_id(row.get(3)?)?,
            n: row.get::<_, i64>(4)?.cast_unsigned(),
            kind: row.get(5)?,
            time_ms: row.get::<_, i64>(6)?.cast_unsigned(),
            key: row.get(7)?,
            bytes: row.get(8)?,
        });
    }
    Ok(waiting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, Store};

    #[test]
    fn a_refused_event_is_kept_apart_and_its_number_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = Store::open(&path).unwrap();
        store
            .batch(|batch| {
                for event in [&b"good"[..], b"too large", b"good"] {
                    batch.outbox("conversions", [9; 16], 3, 1, 4, 7, b"key", event)?;
                }
                // Twice, as after a crash that nobody knows the end of.
                batch.outbox_refused("conversions", 2, 0)?;
                batch.outbox_refused("conversions", 2, 0)?;
                batch.outbox_refused("fraud", 3, 0)
            })
            .unwrap();
        let view = View::open(&path).unwrap();
        let rows = view.outbox_waiting("conversions", 10).unwrap();
        let rows: Vec<(i64, u64, u16, &[u8])> = rows
            .iter()
            .map(|row| (row.id, row.n, row.kind, &*row.bytes))
            .collect();
        assert_eq!(
            rows,
            [(1, 1, 4, &b"good"[..]), (2, 2, 0, b""), (3, 3, 4, b"good")]
        );
        type Letter = (i64, String, u64, Vec<u8>, Vec<u8>);
        let letters: Vec<Letter> = view
            .connection
            .prepare("SELECT id, consumer, n, key, bytes FROM dead_letters")
            .unwrap()
            .query_map((), |row| {
                let n: i64 = row.get(2)?;
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    n.cast_unsigned(),
                    row.get(3)?,
                    row.get(4)?,
                ))
            })
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap();
        assert_eq!(
            letters,
            [(
                2,
                "conversions".to_owned(),
                2,
                b"key".to_vec(),
                b"too large".to_vec()
            )]
        );
    }

    #[test]
    fn numbers_have_no_holes_over_rollbacks_deletes_and_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let mut numbers = Vec::new();
        for round in 0..5_u8 {
            let store = Store::open(&path).unwrap();
            let failed = store.batch(|batch| {
                let stream = batch.outbox_stream("conversions", [round; 16])?;
                batch.outbox("conversions", stream, 3, 1, 4, 7, b"k", b"lost")?;
                Err::<(), _>(Error::other("a failing batch"))
            });
            assert_eq!(failed.unwrap_err().to_string(), "a failing batch");
            store
                .batch(|batch| {
                    let stream = batch.outbox_stream("conversions", [9 + round; 16])?;
                    batch.outbox("conversions", stream, 3, 1, 4, 7, b"k", b"a")?;
                    batch.outbox("conversions", stream, 3, 2, 4, 7, b"k", b"b")?;
                    batch.outbox("conversions", stream, 3, 1, 4, 7, b"k", b"c")
                })
                .unwrap();
            let waiting = View::open(&path)
                .unwrap()
                .outbox_waiting("conversions", 10)
                .unwrap();
            assert_eq!(waiting.len(), 3);
            assert!(
                waiting.iter().all(|row| row.stream == [9; 16]),
                "one stream for the life of the store"
            );
            numbers.extend(waiting.iter().map(|row| (row.lane, row.n)));
            store
                .batch(|batch| {
                    assert_eq!(batch.outbox_waiting("fraud", 10)?, []);
                    batch.outbox_delete("fraud", i64::MAX)?;
                    batch.outbox_delete("conversions", waiting[2].id)
                })
                .unwrap();
        }
        let lane = |lane: u8| {
            numbers
                .iter()
                .filter(|(l, _)| *l == lane)
                .map(|(_, n)| *n)
                .collect::<Vec<_>>()
        };
        assert_eq!(lane(1), (1..=10).collect::<Vec<_>>());
        assert_eq!(lane(2), (1..=5).collect::<Vec<_>>());
    }
}
