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

/// The last number of a lane that an outbox has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxCounter {
    /// The outbox's stream.
    pub stream: [u8; 16],
    /// The topic's number.
    pub topic: u8,
    /// The lane.
    pub lane: u8,
    /// The last number used.
    pub n: u64,
}

impl Batch<'_> {
    /// Takes the counters of the streams a consumer's outbox had so far, in order of stream, topic and lane: from now on they
    /// are used up. Whoever opens the outbox begins a stream of its own and ends these ([`Self::outbox_end`]): a store that
    /// was put back from a copy must not give away a number a second time.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn outbox_take_counters(&mut self, consumer: &str) -> Result<Vec<OutboxCounter>> {
        let mut select = self.connection().prepare_cached(
            "SELECT stream, topic, lane, n FROM outbox_counters WHERE consumer = ?1 ORDER BY stream, topic, lane",
        )?;
        let mut rows = select.query((consumer,))?;
        let mut counters = Vec::new();
        while let Some(row) = rows.next()? {
            counters.push(OutboxCounter {
                stream: stream_id(row.get(0)?)?,
                topic: row.get(1)?,
                lane: row.get(2)?,
                n: row.get::<_, i64>(3)?.cast_unsigned(),
            });
        }
        self.connection()
            .prepare_cached("DELETE FROM outbox_counters WHERE consumer = ?1")?
            .execute((consumer,))?;
        Ok(counters)
    }

    /// Puts an end of a used-up stream behind everything that waits: it goes out once that is acknowledged. It takes a number
    /// of a lane on a topic; `kind` and `bytes` are those of an end.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn outbox_end(
        &mut self,
        consumer: &str,
        stream: [u8; 16],
        (topic, lane, n): (u8, u8, u64),
        kind: u16,
        bytes: &[u8],
    ) -> Result<()> {
        let of = (topic, lane, &stream[..]);
        self.insert_outbox_row(consumer, of, n.cast_signed(), (kind, 0, b"", bytes))
    }

    fn insert_outbox_row(
        &mut self,
        consumer: &str,
        (topic, lane, stream): (u8, u8, &[u8]),
        n: i64,
        (kind, time_ms, key, bytes): (u16, i64, &[u8], &[u8]),
    ) -> Result<()> {
        self.connection()
            .prepare_cached(
                "INSERT INTO outbox (consumer, topic, lane, stream, n, kind, time_ms, key, bytes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute((consumer, topic, lane, stream, n, kind, time_ms, key, bytes))?;
        Ok(())
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
        let row = (kind, time_ms.cast_signed(), key, bytes);
        self.insert_outbox_row(consumer, (topic, lane, &stream[..]), n, row)
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
    /// Takes an event out that the stream refuses for itself; the caller keeps it. A row of the kind `tombstone` keeps its id
    /// and its number, so that the events after it can be sent. `None` where that was done before.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn outbox_refused(
        &mut self,
        consumer: &str,
        id: i64,
        tombstone: u16,
    ) -> Result<Option<OutboxRow>> {
        let connection = self.connection();
        let mut select = connection.prepare_cached(
            "SELECT id, topic, lane, stream, n, kind, time_ms, key, bytes FROM outbox
             WHERE consumer = ?1 AND id = ?2 AND kind <> ?3",
        )?;
        let refused = next_row(&mut select.query((consumer, id, tombstone))?)?;
        connection
            .prepare_cached(
                "UPDATE outbox SET kind = ?3, key = x'', bytes = x'' WHERE consumer = ?1 AND id = ?2",
            )?
            .execute((consumer, id, tombstone))?;
        Ok(refused)
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
    while let Some(row) = next_row(&mut rows)? {
        waiting.push(row);
    }
    Ok(waiting)
}

/// The next row, with its columns in the order of [`OutboxRow`].
fn next_row(rows: &mut rusqlite::Rows<'_>) -> Result<Option<OutboxRow>> {
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    Ok(Some(OutboxRow {
        id: row.get(0)?,
        topic: row.get(1)?,
        lane: row.get(2)?,
        stream: stream_id(row.get(3)?)?,
        n: row.get::<_, i64>(4)?.cast_unsigned(),
        kind: row.get(5)?,
        time_ms: row.get::<_, i64>(6)?.cast_unsigned(),
        key: row.get(7)?,
        bytes: row.get(8)?,
    }))
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
                let refused = batch
                    .outbox_refused("conversions", 2, 0)?
                    .expect("it is there");
                assert_eq!((refused.n, &*refused.bytes), (2, &b"too large"[..]));
                // Twice, as after a crash that nobody knows the end of.
                assert!(batch.outbox_refused("conversions", 2, 0)?.is_none());
                assert!(batch.outbox_refused("fraud", 3, 0)?.is_none());
                Ok(())
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
    }

    #[test]
    fn numbers_have_no_holes_over_rollbacks_and_a_copy_put_back_uses_none_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (
            folder.path().join("store.db"),
            folder.path().join("copy.db"),
        );
        let say = |store: &Store, stream: u8, event: &[u8]| {
            store
                .batch(|batch| batch.outbox("conversions", [stream; 16], 3, 1, 4, 7, b"k", event))
                .unwrap();
        };
        let store = Store::open(&path).unwrap();
        say(&store, 1, b"a");
        let failed = store.batch(|batch| {
            batch.outbox("conversions", [1; 16], 3, 1, 4, 7, b"k", b"rolled back")?;
            Err::<(), _>(Error::other("a failing batch"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "a failing batch");
        say(&store, 1, b"b");
        View::open(&path).unwrap().copy_to(&copy).unwrap();
        // What the copy does not know: it must not happen under the same numbers again.
        say(&store, 1, b"c");
        drop(store);

        let restored = Store::open(&copy).unwrap();
        let (used, again) = restored
            .batch(|batch| {
                let used = batch.outbox_take_counters("conversions")?;
                for last in &used {
                    let of = (last.topic, last.lane, last.n + 1);
                    batch.outbox_end("conversions", last.stream, of, u16::MAX, b"ends")?;
                }
                Ok((used, batch.outbox_take_counters("conversions")?))
            })
            .unwrap();
        let last = OutboxCounter {
            stream: [1; 16],
            topic: 3,
            lane: 1,
            n: 2,
        };
        assert_eq!((used, again), (vec![last], vec![]));
        say(&restored, 2, b"c");
        let rows = View::open(&copy)
            .unwrap()
            .outbox_waiting("conversions", 10)
            .unwrap();
        let rows: Vec<_> = rows
            .iter()
            .map(|row| (row.stream[0], row.n, row.kind, &*row.bytes))
            .collect();
        assert_eq!(
            rows,
            [
                (1, 1, 4, &b"a"[..]),
                (1, 2, 4, b"b"),
                (1, 3, u16::MAX, b"ends"),
                (2, 1, 4, b"c")
            ]
        );
    }
}
