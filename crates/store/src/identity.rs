//! Who a store is, and whose numbers are in its rows.

use rusqlite::OptionalExtension;

use crate::{Result, Store};

impl Store {
    /// Keeps the store's own identity where it has none yet; the one that is kept. Two stores that count one installation's
    /// events would say everything twice.
    ///
    /// # Errors
    ///
    /// When the store cannot be changed.
    pub fn keep_identity(&self, candidate: [u8; 8]) -> Result<[u8; 8]> {
        self.keep("identity", candidate)
    }

    /// Keeps the identity of a `catalog.lock`, under another of which numbers mean other things, where there is none yet; the
    /// one that is kept.
    ///
    /// # Errors
    ///
    /// When the store cannot be changed.
    pub fn keep_catalog_lock(&self, lock: u64) -> Result<u64> {
        let kept = self.keep("catalog_lock", lock.to_be_bytes())?;
        Ok(u64::from_be_bytes(kept))
    }

    fn keep(&self, table: &str, candidate: [u8; 8]) -> Result<[u8; 8]> {
        self.batch(|batch| {
            let connection = batch.connection();
            connection.execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS {table} (first_64_bits BLOB NOT NULL)"
            ))?;
            let select = format!("SELECT first_64_bits FROM {table}");
            let kept = connection.query_row(&select, (), |row| row.get(0));
            if let Some(kept) = kept.optional()? {
                return Ok(kept);
            }
            connection.execute(&format!("INSERT INTO {table} VALUES (?1)"), (candidate,))?;
            Ok(candidate)
        })
    }
}
