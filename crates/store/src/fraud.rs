//! What fraud rules remember: clicks by (visitor, offer, affiliate) in time order, and which (click, reason) was flagged.

use domain::ClickKey;
use rusqlite::OptionalExtension;

use crate::batch::click_key;
use crate::{Batch, Result};

impl Batch<'_> {
    /// Remembers a click; false when it was remembered before.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn put_fraud_click(
        &mut self,
        visitor: u64,
        offer: u32,
        affiliate: u32,
        click: ClickKey,
        bytes: &[u8],
    ) -> Result<bool> {
        let inserted = self
            .connection()
            .prepare_cached("INSERT OR IGNORE INTO fraud_clicks VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute((
                visitor.cast_signed(),
                offer,
                affiliate,
                &click.to_bytes()[..],
                bytes,
            ))?;
        Ok(inserted > 0)
    }

    /// The click right before a key, however many the visitor made.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn fraud_before(
        &self,
        visitor: u64,
        offer: u32,
        affiliate: u32,
        click: ClickKey,
    ) -> Result<Option<(ClickKey, Vec<u8>)>> {
        self.fraud_next(
            "SELECT click, bytes FROM fraud_clicks
             WHERE visitor = ?1 AND offer = ?2 AND affiliate = ?3 AND click < ?4 ORDER BY click DESC LIMIT 1",
            (visitor, offer, affiliate),
            click,
        )
    }

    /// The click right after a key, however many the visitor made.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn fraud_after(
        &self,
        visitor: u64,
        offer: u32,
        affiliate: u32,
        click: ClickKey,
    ) -> Result<Option<(ClickKey, Vec<u8>)>> {
        self.fraud_next(
            "SELECT click, bytes FROM fraud_clicks
             WHERE visitor = ?1 AND offer = ?2 AND affiliate = ?3 AND click > ?4 ORDER BY click LIMIT 1",
            (visitor, offer, affiliate),
            click,
        )
    }

    /// Remembers that a click was flagged for a reason; false when it was before.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn put_flag(&mut self, click: ClickKey, reason: u32) -> Result<bool> {
        let inserted = self
            .connection()
            .prepare_cached("INSERT OR IGNORE INTO flags VALUES (?1, ?2)")?
            .execute((&click.to_bytes()[..], reason))?;
        Ok(inserted > 0)
    }

    /// Whether a click was flagged for a reason.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn flag(&self, click: ClickKey, reason: u32) -> Result<bool> {
        Ok(self
            .connection()
            .prepare_cached("SELECT 1 FROM flags WHERE click = ?1 AND reason = ?2")?
            .exists((&click.to_bytes()[..], reason))?)
    }

    fn fraud_next(
        &self,
        sql: &'static str,
        (visitor, offer, affiliate): (u64, u32, u32),
        click: ClickKey,
    ) -> Result<Option<(ClickKey, Vec<u8>)>> {
        let found = self
            .connection()
            .prepare_cached(sql)?
            .query_row(
                (
                    visitor.cast_signed(),
                    offer,
                    affiliate,
                    &click.to_bytes()[..],
                ),
                |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)),
            )
            .optional()?;
        found
            .map(|(click, bytes)| Ok((click_key(click)?, bytes)))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn neighbours_and_flags() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        let at = |time_ms| ClickKey {
            time_ms,
            stream: 3,
            sequence: 1,
        };
        store
            .batch(|batch| {
                for time_ms in [30, 10, 20] {
                    assert!(batch.put_fraud_click(u64::MAX, 1, 2, at(time_ms), b"b")?);
                }
                assert!(!batch.put_fraud_click(u64::MAX, 1, 2, at(10), b"c")?);
                batch.put_fraud_click(u64::MAX, 1, 3, at(15), b"d")?;
                let key = |found: Option<(ClickKey, Vec<u8>)>| found.map(|(key, _)| key.time_ms);
                assert_eq!(key(batch.fraud_before(u64::MAX, 1, 2, at(20))?), Some(10));
                assert_eq!(key(batch.fraud_after(u64::MAX, 1, 2, at(20))?), Some(30));
                assert_eq!(key(batch.fraud_before(u64::MAX, 1, 2, at(10))?), None);
                assert!(batch.put_flag(at(10), 8)?);
                assert!(!batch.put_flag(at(10), 8)?);
                assert!(batch.flag(at(10), 8)? && !batch.flag(at(10), 7)?);
                Ok(())
            })
            .unwrap();
    }
}
