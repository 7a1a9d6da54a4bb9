//! One transaction of the writing connection; what it can change stands in the files of the nouns.

use std::collections::HashMap;

use domain::ClickKey;
use rusqlite::{Connection, Transaction};

use crate::Result;
use crate::error::{Error, Kind};

/// One transaction, given to the closure of [`crate::Store::batch`].
#[derive(Debug)]
pub struct Batch<'a> {
    transaction: Transaction<'a>,
    /// The day tables this batch has made sure of, by UTC day number.
    pub(crate) days: HashMap<u64, String>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(transaction: Transaction<'a>) -> Self {
        Self {
            transaction,
            days: HashMap::new(),
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.transaction
    }

    /// Begins a part of the transaction that can be undone by itself; parts do not nest.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn begin_part(&mut self) -> Result<()> {
        Ok(self.transaction.execute_batch("SAVEPOINT part")?)
    }

    /// Ends the part: what it changed belongs to the transaction.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn keep_part(&mut self) -> Result<()> {
        Ok(self.transaction.execute_batch("RELEASE part")?)
    }

    /// Ends the part: what it changed is as it was before.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn undo_part(&mut self) -> Result<()> {
        // A table made in the part is gone with it.
        self.days.clear();
        Ok(self
            .transaction
            .execute_batch("ROLLBACK TO part; RELEASE part")?)
    }

    pub(crate) fn commit(self) -> rusqlite::Result<()> {
        self.transaction.commit()
    }
}

pub(crate) fn click_key(bytes: Vec<u8>) -> Result<ClickKey> {
    let bytes = bytes
        .try_into()
        .map_err(|_| Error::new(Kind::Damaged("a click key that is not 16 bytes long")))?;
    Ok(ClickKey::from_bytes(bytes))
}

pub(crate) fn stream_id(bytes: Vec<u8>) -> Result<[u8; 16]> {
    bytes
        .try_into()
        .map_err(|_| Error::new(Kind::Damaged("a stream that is not 16 bytes long")))
}
