//! The click index: the facts of every click by its key, one table a UTC day (`clicks_20261120`), dropped whole. Keys begin
//! with the time, so that inserts go to the end of the youngest table.

use std::collections::{BTreeSet, HashSet};

use domain::ClickKey;
use rusqlite::{Connection, OptionalExtension};

use crate::batch::click_key;
use crate::{Batch, Result, View};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl Batch<'_> {
    /// Keeps the facts of a click, and wakes the orders that wait for it; false when they were kept before, and then nothing
    /// changes.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn put_click(&mut self, key: ClickKey, facts: &[u8]) -> Result<bool> {
        let day = key.time_ms / DAY_MS;
        if !self.days.contains_key(&day) {
            let table = table(key.time_ms);
            self.connection().execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS {table} (key BLOB NOT NULL PRIMARY KEY, facts BLOB NOT NULL)
                 STRICT, WITHOUT ROWID"
            ))?;
            self.days.insert(day, table);
        }
        let sql = format!("INSERT OR IGNORE INTO {} VALUES (?1, ?2)", self.days[&day]);
        let changed = self
            .connection()
            .prepare_cached(&sql)?
            .execute((&key.to_bytes()[..], facts))?;
        if changed > 0 {
            self.wake(key)?;
        }
        Ok(changed > 0)
    }

    /// The facts of each click, in the order of the keys; `None` for one that is not known.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn clicks(&self, keys: &[ClickKey]) -> Result<Vec<Option<Vec<u8>>>> {
        let tables = tables(self.connection())?;
        let mut facts = Vec::with_capacity(keys.len());
        for key in keys {
            let table = table(key.time_ms);
            if !tables.contains(&table) {
                facts.push(None);
                continue;
            }
            let mut select = self
                .connection()
                .prepare_cached(&format!("SELECT facts FROM {table} WHERE key = ?1"))?;
            facts.push(
                select
                    .query_row((&key.to_bytes()[..],), |row| row.get(0))
                    .optional()?,
            );
        }
        Ok(facts)
    }
}

/// A click as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptClick {
    /// Its key.
    pub key: ClickKey,
    /// Its facts.
    pub facts: Vec<u8>,
    /// The codes of the labels found for it later.
    pub labels: Vec<u32>,
}

impl View {
    /// The newest clicks before a key (all where there is none) and not before a time, with their facts and the codes of the
    /// labels found for them later: at most `limit`, of one day. None means that there are no more.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn clicks_before(
        &self,
        before: ClickKey,
        from_ms: u64,
        limit: u32,
    ) -> Result<Vec<KeptClick>> {
        let from = ClickKey {
            time_ms: from_ms,
            stream: 0,
            sequence: 0,
        };
        let (first, last) = (table(from_ms), table(before.time_ms));
        // The names are of one length, so that their order is the days'.
        let days: BTreeSet<String> = tables(&self.connection)?
            .into_iter()
            .filter(|table| *table >= first && *table <= last)
            .collect();
        let mut found = Vec::new();
        for table in days.into_iter().rev() {
            let mut select = self.connection.prepare_cached(&format!(
                "SELECT key, facts, (SELECT group_concat(reason) FROM flags WHERE click = key) FROM {table}
                 WHERE key < ?1 AND key >= ?2 ORDER BY key DESC LIMIT ?3"
            ))?;
            let mut rows = select.query((&before.to_bytes()[..], &from.to_bytes()[..], limit))?;
            while let Some(row) = rows.next()? {
                let labels: Option<String> = row.get(2)?;
                let labels = labels.unwrap_or_default();
                let labels = labels.split(',').filter_map(|code| code.parse().ok());
                found.push(KeptClick {
                    key: click_key(row.get(0)?)?,
                    facts: row.get(1)?,
                    labels: labels.collect(),
                });
            }
            if !found.is_empty() {
                break;
            }
        }
        Ok(found)
    }
}

/// The day tables there are.
pub(crate) fn tables(connection: &Connection) -> Result<HashSet<String>> {
    let mut select = connection.prepare_cached(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'clicks_[0-9]*'",
    )?;
    let names = select.query_map((), |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

/// The name of the table a time belongs to.
pub(crate) fn table(time_ms: u64) -> String {
    let timestamp = i64::try_from(time_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or(jiff::Timestamp::MAX);
    let date = jiff::tz::Offset::UTC.to_datetime(timestamp).date();
    format!(
        "clicks_{:04}{:02}{:02}",
        date.year(),
        date.month(),
        date.day()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    fn key(time_ms: u64, sequence: u32) -> ClickKey {
        ClickKey {
            time_ms,
            stream: 7,
            sequence,
        }
    }

    #[test]
    fn clicks_live_in_tables_of_their_day() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        let (old, new) = (
            key(1_790_000_000_000, 1),
            key(1_790_000_000_000 + DAY_MS, 1),
        );
        assert_eq!(table(old.time_ms), "clicks_20260921");
        store
            .batch(|batch| {
                assert!(batch.put_click(old, b"old")?);
                assert!(!batch.put_click(old, b"other")?);
                assert!(batch.put_click(new, b"new")?);
                let found = batch.clicks(&[new, key(0, 0), old])?;
                assert_eq!(found, [Some(b"new".to_vec()), None, Some(b"old".to_vec())]);
                Ok(())
            })
            .unwrap();
        let view = View::open(&folder.path().join("store.db")).unwrap();
        let newest = ClickKey::from_bytes([0xff; 16]);
        let sequence = |before, from_ms| {
            let found = view.clicks_before(before, from_ms, 9).unwrap();
            let keys = found.into_iter().map(|click| click.key.time_ms);
            keys.collect::<Vec<_>>()
        };
        assert_eq!(sequence(newest, 0), [new.time_ms]);
        assert_eq!(sequence(new, 0), [old.time_ms]);
        assert_eq!(sequence(new, old.time_ms + 1), []);
        assert_eq!(sequence(old, 0), []);
    }
}
