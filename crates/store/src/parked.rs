//! Events that a consumer could not fold: they wait for a catalog version, or they are set aside with a reason until
//! somebody lets them be folded.

use rusqlite::Row;

use crate::batch::stream_id;
use crate::{Batch, Result, View};

/// One row for each event and consumer. `waits_until_ms` is NULL once the event is set aside; `wanted` is 1 while somebody
/// waits for another attempt.
pub(crate) const SCHEMA: &str = "
CREATE TABLE parked (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer TEXT NOT NULL, topic INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    stream BLOB NOT NULL, lane INTEGER NOT NULL, n INTEGER NOT NULL, kind INTEGER NOT NULL, version INTEGER NOT NULL,
    time_ms INTEGER NOT NULL, key BLOB NOT NULL, bytes BLOB NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL, at_ms INTEGER NOT NULL, waits_until_ms INTEGER, wanted INTEGER NOT NULL,
    UNIQUE (consumer, topic, partition, offset)
) STRICT;
CREATE INDEX parked_by_detail ON parked (consumer, topic, reason, detail, id);
CREATE INDEX parked_waiting ON parked (consumer, topic, waits_until_ms) WHERE waits_until_ms IS NOT NULL;
CREATE INDEX parked_aside ON parked (consumer, topic) WHERE waits_until_ms IS NULL;
CREATE INDEX parked_wanted ON parked (consumer, topic, id) WHERE wanted = 1;";

/// An event to park: where it was read, what it is, and why it is not folded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedEvent {
    /// Who could not fold it.
    pub consumer: String,
    /// The number of its topic.
    pub topic: u8,
    /// Its partition.
    pub partition: u16,
    /// Its offset.
    pub offset: u64,
    /// The stream that recorded it; zeros where it is no record of ours.
    pub stream: [u8; 16],
    /// Its lane.
    pub lane: u8,
    /// Its number.
    pub n: u64,
    /// The number of its type.
    pub kind: u16,
    /// The version of its schema.
    pub version: u16,
    /// When it happened, Unix milliseconds.
    pub time_ms: u64,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub bytes: Vec<u8>,
    /// The name of the reason.
    pub reason: String,
    /// The reason in words. Events that lack the same thing have the same words.
    pub detail: String,
    /// When it was parked, Unix milliseconds.
    pub at_ms: u64,
    /// Until when it waits, Unix milliseconds; `None` once it is set aside.
    pub waits_until_ms: Option<u64>,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// What commands name it by.
    pub id: i64,
    /// The event.
    pub event: ParkedEvent,
}

const COLUMNS: &str = "id, consumer, topic, partition, offset, stream, lane, n, kind, version, time_ms, key, bytes, reason,
    detail, at_ms, waits_until_ms";

fn parked(row: &Row<'_>) -> Result<Parked> {
    let unsigned = |column| -> Result<u64> { Ok(row.get::<_, i64>(column)?.cast_unsigned()) };
    Ok(Parked {
        id: row.get(0)?,
        event: ParkedEvent {
            consumer: row.get(1)?,
            topic: row.get(2)?,
            partition: row.get(3)?,
            offset: unsigned(4)?,
            stream: stream_id(row.get(5)?)?,
            lane: row.get(6)?,
            n: unsigned(7)?,
            kind: row.get(8)?,
            version: row.get(9)?,
            time_ms: unsigned(10)?,
            key: row.get(11)?,
            bytes: row.get(12)?,
            reason: row.get(13)?,
            detail: row.get(14)?,
            at_ms: unsigned(15)?,
            waits_until_ms: row.get::<_, Option<i64>>(16)?.map(i64::cast_unsigned),
        },
    })
}

impl Batch<'_> {
    /// Parks an event; false where it is parked already, and then nothing changes.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn park(&mut self, event: &ParkedEvent) -> Result<bool> {
        let inserted = self
            .connection()
            .prepare_cached(
                "INSERT OR IGNORE INTO parked (consumer, topic, partition, offset, stream, lane, n, kind, version,
                     time_ms, key, bytes, reason, detail, at_ms, waits_until_ms, wanted)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, 0)",
            )?
            .execute(rusqlite::params![
                event.consumer,
                event.topic,
                event.partition,
                event.offset.cast_signed(),
                &event.stream[..],
                event.lane,
                event.n.cast_signed(),
                event.kind,
                event.version,
                event.time_ms.cast_signed(),
                event.key,
                event.bytes,
                event.reason,
                event.detail,
                event.at_ms.cast_signed(),
                event.waits_until_ms.map(u64::cast_signed),
            ])?;
        Ok(inserted > 0)
    }

    /// The first event of each thing that events of a reason lack, so that one attempt tells of all of them.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn parked_firsts(&self, consumer: &str, topic: u8, reason: &str) -> Result<Vec<Parked>> {
        // From one text to the next, and not over the rows of each.
        self.select_parked(
            "id IN (
                 WITH RECURSIVE texts (detail) AS (
                     SELECT min(detail) FROM parked WHERE consumer = ?1 AND topic = ?2 AND reason = ?3
                     UNION ALL
                     SELECT (SELECT min(detail) FROM parked
                             WHERE consumer = ?1 AND topic = ?2 AND reason = ?3 AND detail > texts.detail)
                     FROM texts WHERE texts.detail IS NOT NULL)
                 SELECT (SELECT min(id) FROM parked
                         WHERE consumer = ?1 AND topic = ?2 AND reason = ?3 AND detail = texts.detail)
                 FROM texts)
             ORDER BY id",
            (consumer, topic, reason),
        )
    }

    /// Events that lack the same thing, the longest parked first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn parked_alike(&self, like: &ParkedEvent, limit: u32) -> Result<Vec<Parked>> {
        self.select_parked(
            "consumer = ?1 AND topic = ?2 AND reason = ?3 AND detail = ?4 ORDER BY id LIMIT ?5",
            (
                &like.consumer,
                like.topic,
                &like.reason,
                &like.detail,
                limit,
            ),
        )
    }

    /// Events that somebody wants to be attempted again.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn parked_wanted(&self, consumer: &str, topic: u8, limit: u32) -> Result<Vec<Parked>> {
        self.select_parked(
            "consumer = ?1 AND topic = ?2 AND wanted = 1 ORDER BY id LIMIT ?3",
            (consumer, topic, limit),
        )
    }

    fn select_parked(&self, rest: &str, parameters: impl rusqlite::Params) -> Result<Vec<Parked>> {
        let sql = format!("SELECT {COLUMNS} FROM parked WHERE {rest}");
        let mut select = self.connection().prepare_cached(&sql)?;
        let mut rows = select.query(parameters)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(parked(row)?);
        }
        Ok(found)
    }

    /// Keeps why another attempt failed, and that nobody waits for it any more.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn keep_parked(
        &mut self,
        id: i64,
        reason: &str,
        detail: &str,
        waits_until_ms: Option<u64>,
    ) -> Result<()> {
        self.connection()
            .prepare_cached(
                "UPDATE parked SET reason = ?2, detail = ?3, waits_until_ms = ?4, wanted = 0 WHERE id = ?1",
            )?
            .execute((id, reason, detail, waits_until_ms.map(u64::cast_signed)))?;
        Ok(())
    }

    /// Sets aside what has waited long enough: how many events of each reason, and the words of one of them.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn end_waits(
        &mut self,
        consumer: &str,
        topic: u8,
        now_ms: u64,
    ) -> Result<Vec<(String, u64, String)>> {
        let over = "consumer = ?1 AND topic = ?2 AND waits_until_ms <= ?3";
        let parameters = (consumer, topic, now_ms.cast_signed());
        let ended = self
            .connection()
            .prepare_cached(&format!(
                "SELECT reason, count(*), min(detail) FROM parked WHERE {over} GROUP BY reason"
            ))?
            .query_map(parameters, |row| {
                Ok((
                    row.get(0)?,
                    row.get::<_, i64>(1)?.cast_unsigned(),
                    row.get(2)?,
                ))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        if !ended.is_empty() {
            self.connection()
                .prepare_cached(&format!(
                    "UPDATE parked SET waits_until_ms = NULL WHERE {over}"
                ))?
                .execute(parameters)?;
        }
        Ok(ended)
    }

    /// Takes an event out: it is folded, or nobody needs it.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn unpark(&mut self, id: i64) -> Result<bool> {
        let deleted = self
            .connection()
            .prepare_cached("DELETE FROM parked WHERE id = ?1")?
            .execute((id,))?;
        Ok(deleted > 0)
    }

    /// Asks for another attempt at one event, or at all of them: how many, and the last id of them.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn want_parked(&mut self, id: Option<i64>) -> Result<(u64, i64)> {
        self.connection()
            .prepare_cached("UPDATE parked SET wanted = 1 WHERE id = ?1 OR ?1 IS NULL")?
            .execute((id,))?;
        let mut select = self
            .connection()
            .prepare_cached("SELECT count(*), ifnull(max(id), 0) FROM parked WHERE wanted = 1")?;
        Ok(select.query_row((), |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
        })?)
    }

    /// What is left of one event, or of all up to an id: how many wait for an attempt that somebody asked for, and how many
    /// are parked all the same.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn parked_left(&self, id: Option<i64>, through: i64) -> Result<(u64, u64)> {
        let mut select = self.connection().prepare_cached(
            "SELECT ifnull(sum(wanted), 0), count(*) FROM parked WHERE id <= ?2 AND (id = ?1 OR ?1 IS NULL)",
        )?;
        Ok(select.query_row((id, through), |row| {
            let count =
                |column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.cast_unsigned());
            Ok((count(0)?, count(1)?))
        })?)
    }

    /// How many events of a reader are set aside.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn parked_count(&self, consumer: &str, topic: u8) -> Result<u64> {
        let count: i64 = self
            .connection()
            .prepare_cached(
                "SELECT count(*) FROM parked WHERE consumer = ?1 AND topic = ?2 AND waits_until_ms IS NULL",
            )?
            .query_row((consumer, topic), |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }
}

impl View {
    /// Parked events after an id, the longest parked first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn parked_after(&self, id: i64, limit: u32) -> Result<Vec<Parked>> {
        let sql = format!("SELECT {COLUMNS} FROM parked WHERE id > ?1 ORDER BY id LIMIT ?2");
        let mut select = self.connection.prepare_cached(&sql)?;
        let mut rows = select.query((id, limit))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(parked(row)?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    fn event(offset: u64, detail: &str, waits_until_ms: Option<u64>) -> ParkedEvent {
        ParkedEvent {
            consumer: "clicks".into(),
            topic: 1,
            offset,
            stream: [7; 16],
            n: u64::MAX,
            bytes: b"value".to_vec(),
            reason: "catalog_version".into(),
            detail: detail.into(),
            at_ms: 5,
            waits_until_ms,
            ..ParkedEvent::default()
        }
    }

    #[test]
    fn an_event_waits_is_set_aside_is_wanted_and_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = Store::open(&path).unwrap();
        store
            .batch(|batch| {
                assert!(batch.park(&event(1, "version 7", Some(60)))?);
                assert!(!batch.park(&event(1, "again", None))?);
                assert!(batch.park(&event(2, "version 7", Some(70)))?);
                assert!(batch.park(&event(3, "version 8", None))?);
                assert_eq!(batch.parked_count("clicks", 1)?, 1);
                assert_eq!(batch.parked_count("clicks", 4)?, 0);

                let offsets = |found: Vec<Parked>| -> Vec<u64> {
                    found.iter().map(|row| row.event.offset).collect()
                };
                let all = batch.parked_firsts("clicks", 1, "catalog_version")?;
                let alike = batch.parked_alike(&all[0].event, 9)?;
                let (first, second) = (alike[0].id, alike[1].id);
                let firsts = batch.parked_firsts("clicks", 1, "catalog_version")?;
                assert_eq!(offsets(batch.parked_alike(&firsts[0].event, 9)?), [1, 2]);
                assert_eq!(offsets(firsts), [1, 3]);

                assert_eq!(batch.end_waits("clicks", 1, 59)?, []);
                let ended = batch.end_waits("clicks", 1, 60)?;
                assert_eq!(ended, [("catalog_version".into(), 1, "version 7".into())]);
                assert_eq!(batch.parked_count("clicks", 1)?, 2);

                assert_eq!(batch.want_parked(Some(second))?, (1, second));
                assert_eq!(batch.parked_left(Some(second), second)?, (1, 1));
                assert_eq!(offsets(batch.parked_wanted("clicks", 1, 9)?), [2]);
                batch.keep_parked(second, "undecodable", "truncated", None)?;
                assert_eq!(batch.parked_left(Some(second), second)?, (0, 1));
                assert_eq!(batch.want_parked(None)?.0, 3);
                assert_eq!(batch.parked_left(None, second)?, (2, 2));
                assert!(batch.unpark(first)?);
                assert!(!batch.unpark(first)?);
                Ok(())
            })
            .unwrap();
        let view = View::open(&path).unwrap();
        let left = view.parked_after(0, 9).unwrap();
        assert_eq!(left.len(), 2);
        assert_eq!(left[0].event.detail, "truncated");
        assert_eq!(view.parked_after(left[0].id, 9).unwrap(), left[1..]);
    }

    #[test]
    fn a_part_that_is_undone_leaves_the_rest_of_the_batch() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        let key = |time_ms| domain::ClickKey {
            time_ms,
            stream: 1,
            sequence: 1,
        };
        store
            .batch(|batch| {
                batch.begin_part()?;
                batch.put_click(key(1), b"undone")?;
                batch.undo_part()?;
                batch.begin_part()?;
                batch.put_click(key(2), b"kept")?;
                batch.keep_part()
            })
            .unwrap();
        let found = store.batch(|batch| batch.clicks(&[key(1), key(2)]));
        assert_eq!(found.unwrap(), [None, Some(b"kept".to_vec())]);
    }
}
