//! The identity of the `catalog.lock` whose numbers are in this store's rows: under another one they mean other things.

use rusqlite::OptionalExtension;

use crate::{Result, Store};

impl Store {
    /// Keeps the identity where there is none yet; the one that is kept.
    ///
    /// # Errors
    ///
    /// When the store cannot be changed.
    pub fn keep_catalog_lock(&self, lock: u64) -> Result<u64> {
        self.batch(|batch| {
            let connection = batch.connection();
            connection.execute_batch(
                "CREATE TABLE IF NOT EXISTS catalog_lock (first_64_bits BLOB NOT NULL)",
            )?;
            let select = "SELECT first_64_bits FROM catalog_lock";
            let kept = connection.query_row(select, (), |row| row.get(0));
            if let Some(kept) = kept.optional()? {
                return Ok(u64::from_be_bytes(kept));
            }
            let insert = "INSERT INTO catalog_lock VALUES (?1)";
            connection.execute(insert, (lock.to_be_bytes(),))?;
            Ok(lock)
        })
    }
}
