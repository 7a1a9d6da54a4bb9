//! The file: its format, its schema, and the two ways of opening it.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::error::Kind;
use crate::{Batch, Error, Result, dump, order};

/// The format this build writes, and the only one it reads (`user_version`).
pub const FORMAT: u32 = 5;

/// Marks the file as ours (`application_id`): "Slui".
const APPLICATION: i64 = 0x536c_7569;

/// Far above the time one batch takes; only a second process with the same file is waited for this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Every fixed statement and those of a few day tables; SQLite's own default of 16 would compile them again and again.
const STATEMENTS_MAX: usize = 128;

/// Cuts the write-ahead log back after a long reader made it grow.
const WAL_BYTES_MAX: u32 = 64 << 20;

/// The tables that do not stand beside their noun. Unsigned 64-bit numbers are stored as the signed number of the same bits; times and counts never reach the sign.
const SCHEMA: &str = "
CREATE TABLE positions (
    consumer TEXT NOT NULL, topic INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY (consumer, topic, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE highs (
    consumer TEXT NOT NULL, topic INTEGER NOT NULL, lane INTEGER NOT NULL,
    stream BLOB NOT NULL, n INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    PRIMARY KEY (consumer, topic, lane, stream)
) STRICT, WITHOUT ROWID;
CREATE TABLE rollups (
    cube INTEGER NOT NULL, bucket_ms INTEGER NOT NULL, offer INTEGER NOT NULL, affiliate INTEGER NOT NULL,
    link INTEGER NOT NULL, reason INTEGER NOT NULL, currency TEXT NOT NULL,
    consumer INTEGER NOT NULL, partition INTEGER NOT NULL,
    clicks INTEGER NOT NULL, uniques INTEGER NOT NULL, duplicates INTEGER NOT NULL, anonymous INTEGER NOT NULL,
    invalid INTEGER NOT NULL,
    speculative INTEGER NOT NULL, unmatched INTEGER NOT NULL, conversions INTEGER NOT NULL,
    amount_units INTEGER NOT NULL, amount_millionths INTEGER NOT NULL,
    revenue_units INTEGER NOT NULL, revenue_millionths INTEGER NOT NULL,
    payout_units INTEGER NOT NULL, payout_millionths INTEGER NOT NULL,
    PRIMARY KEY (cube, bucket_ms, offer, affiliate, link, reason, currency, consumer, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE marks (
    day INTEGER NOT NULL, visitor INTEGER NOT NULL, offer INTEGER NOT NULL, affiliate INTEGER NOT NULL,
    click BLOB NOT NULL, seen INTEGER NOT NULL, reasons INTEGER NOT NULL, link INTEGER NOT NULL,
    PRIMARY KEY (day, visitor, offer, affiliate, click)
) STRICT, WITHOUT ROWID;
-- A group of a thousand labelled clicks must not be walked to find its first valid one.
CREATE INDEX marks_valid ON marks (day, visitor, offer, affiliate, click) WHERE seen = 1 AND reasons = 0;
CREATE TABLE fraud_clicks (
    visitor INTEGER NOT NULL, offer INTEGER NOT NULL, affiliate INTEGER NOT NULL, click BLOB NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (visitor, offer, affiliate, click)
) STRICT, WITHOUT ROWID;
CREATE TABLE flags (
    click BLOB NOT NULL, reason INTEGER NOT NULL,
    PRIMARY KEY (click, reason)
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox_counters (
    consumer TEXT NOT NULL, stream BLOB NOT NULL, topic INTEGER NOT NULL, lane INTEGER NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (consumer, stream, topic, lane)
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer TEXT NOT NULL, topic INTEGER NOT NULL, lane INTEGER NOT NULL, stream BLOB NOT NULL, n INTEGER NOT NULL,
    kind INTEGER NOT NULL, time_ms INTEGER NOT NULL, key BLOB NOT NULL, bytes BLOB NOT NULL
) STRICT;
CREATE INDEX outbox_by_consumer ON outbox (consumer, id);
-- Streams of which nothing but their end is kept.
CREATE TABLE ended (
    consumer TEXT NOT NULL, topic INTEGER NOT NULL, stream BLOB NOT NULL, lanes BLOB NOT NULL,
    PRIMARY KEY (consumer, topic, stream)
) STRICT, WITHOUT ROWID;
";

/// The writing end of a store. Clones share one connection: one batch runs at a time.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    failed: bool,
}

/// A read-only connection: sees whole batches, and never holds up the writer.
#[derive(Debug)]
pub struct View {
    pub(crate) connection: Connection,
}

/// Ends the question under way of a [`View`]; its error then [`Error::is_interrupted`].
#[derive(Clone)]
pub struct Interrupter(Arc<rusqlite::InterruptHandle>);

impl Interrupter {
    /// Ends it.
    pub fn interrupt(&self) {
        self.0.interrupt();
    }
}

impl Store {
    /// Opens the store, making it where it is missing.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, is of another format or is not a store; it is then left as it was.
    pub fn open(path: &Path) -> Result<Self> {
        let open = |source| {
            Error::new(Kind::Open {
                path: path.to_path_buf(),
                source,
            })
        };
        let mut connection = Connection::open(path).map_err(open)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(open)?;
        let found = check_format(&connection, path)?;

        connection
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(open)?;
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(open)?;
        connection
            .pragma_update(None, "foreign_keys", false)
            .map_err(open)?;
        connection
            .pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)
            .map_err(open)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        if found == 0 {
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(open)?;
            // Another process may have made the store since the look.
            if check_format(&transaction, path)? == 0 {
                for schema in [SCHEMA, order::SCHEMA] {
                    transaction.execute_batch(schema).map_err(open)?;
                }
                transaction
                    .execute_batch(crate::parked::SCHEMA)
                    .map_err(open)?;
                transaction
                    .pragma_update(None, "application_id", APPLICATION)
                    .map_err(open)?;
                transaction
                    .pragma_update(None, "user_version", FORMAT)
                    .map_err(open)?;
            }
            transaction.commit().map_err(open)?;
        }
        Ok(Self {
            inner: Arc::new(Mutex::new(Inner {
                connection,
                failed: false,
            })),
        })
    }

    /// Runs `work` as one transaction: all of it is kept, or on an error none of it.
    ///
    /// # Errors
    ///
    /// What `work` returned, or why the transaction could not begin or commit.
    pub fn batch<T>(&self, work: impl FnOnce(&mut Batch<'_>) -> Result<T>) -> Result<T> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.failed {
            return Err(Error::new(Kind::Failed));
        }
        let transaction = inner
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut batch = Batch::new(transaction);
        let answer = work(&mut batch)?;
        let committed = batch.commit();
        if let Err(error) = &committed {
            // Whether those pages reached the disk is unknown; a restart reads what is really there.
            inner.failed = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
        }
        committed?;
        Ok(answer)
    }

    /// What happened, as canonical text: rollups, click index, marks, postbacks, orders, what fraud remembers. Offsets,
    /// highs and outbox are left out: they say where in a log, not what happened.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn dump(&self) -> Result<String> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = inner.connection.transaction()?;
        dump::dump(&moment)
    }
}

impl View {
    /// Opens an existing store for reading.
    ///
    /// # Errors
    ///
    /// When there is none ([`Error::is_missing`]), or it cannot be read by this build.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(Error::new(Kind::Missing(path.to_path_buf())));
        }
        let open = |source| {
            Error::new(Kind::Open {
                path: path.to_path_buf(),
                source,
            })
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(open)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(open)?;
        if check_format(&connection, path)? == 0 {
            return Err(Error::new(Kind::Missing(path.to_path_buf())));
        }
        Ok(Self { connection })
    }

    /// Writes a whole and consistent copy of the store, readable by its owner alone, while others go on writing; what they
    /// write meanwhile is not in it.
    ///
    /// # Errors
    ///
    /// When there is a file already, or it cannot be written.
    pub fn copy_to(&self, path: &Path) -> Result<()> {
        let copy = |source| {
            Error::new(Kind::Copy {
                path: path.to_path_buf(),
                source,
            })
        };
        // SQLite writes into an empty file, which gets its rights here.
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| copy(Box::new(error)))?;
        let name = path.to_str().ok_or("a path that is not UTF-8");
        let name = name.map_err(|what| copy(what.into()))?;
        self.connection
            .execute("VACUUM INTO ?1", (name,))
            .map_err(|error| copy(Box::new(error)))?;
        file.sync_all().map_err(|error| copy(Box::new(error)))
    }

    /// What ends a question of this view from another thread.
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(Arc::new(self.connection.get_interrupt_handle()))
    }

    /// The same text as [`Store::dump`].
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn dump(&self) -> Result<String> {
        let moment = self.connection.unchecked_transaction()?;
        dump::dump(&moment)
    }
}

/// The file's format; 0 while it is still empty.
fn check_format(connection: &Connection, path: &Path) -> Result<u32> {
    let open = |source: rusqlite::Error| {
        Error::new(match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Kind::Foreign(path.to_path_buf()),
            _ => Kind::Open {
                path: path.to_path_buf(),
                source,
            },
        })
    };
    let number = |sql| {
        connection
            .query_row(sql, (), |row| row.get::<_, i64>(0))
            .map_err(open)
    };
    let application = number("PRAGMA application_id")?;
    let found = number("PRAGMA user_version")?;
    if application == 0 && found == 0 && number("SELECT count(*) FROM sqlite_master")? == 0 {
        return Ok(0);
    }
    if application != APPLICATION || found < 1 {
        return Err(Error::new(Kind::Foreign(path.to_path_buf())));
    }
    u32::try_from(found)
        .ok()
        .filter(|found| *found == FORMAT)
        .ok_or_else(|| {
            Error::new(Kind::Format {
                path: path.to_path_buf(),
                found,
            })
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn another_format_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        Store::open(&path).unwrap();
        for (found, expected) in [
            (FORMAT + 1, "use a newer Sluice"),
            (
                FORMAT - 1,
                "use the Sluice that wrote it, or begin a new data folder",
            ),
        ] {
            Connection::open(&path)
                .unwrap()
                .pragma_update(None, "user_version", found)
                .unwrap();
            for error in [
                Store::open(&path).unwrap_err(),
                View::open(&path).unwrap_err(),
            ] {
                let text = error.to_string();
                let format = format!("is of format {found}, this build reads {FORMAT}: ");
                assert!(text.contains(&format), "{text}");
                assert!(text.ends_with(expected), "{text}");
            }
        }
    }

    #[test]
    fn a_copy_is_whole_while_batches_go_on_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let [path, copy] = ["store.db", "copy.db"].map(|name| folder.path().join(name));
        let store = Store::open(&path).unwrap();
        let move_to = |from, to| {
            store.batch(|batch| {
                batch.move_offset("clicks", 1, 0, from, to)?;
                batch.outbox("clicks", [1; 16], 3, 1, 4, 7, b"k", b"v")
            })
        };
        move_to(0, 5).unwrap();
        let view = View::open(&path).unwrap();
        let moment = view.connection.unchecked_transaction().unwrap();
        let offset = || view.offset("clicks", 1, 0).unwrap();
        assert_eq!(offset(), Some(5));
        move_to(5, 9).unwrap();
        assert_eq!(offset(), Some(5), "a view sees one moment");
        drop(moment);
        view.copy_to(&copy).unwrap();
        let copied = View::open(&copy).unwrap();
        assert_eq!(copied.offset("clicks", 1, 0).unwrap(), Some(9));
        assert_eq!(copied.outbox_waiting("clicks", 9).unwrap().len(), 2);
        let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // It is a store that can be written.
        Store::open(&copy).unwrap();
        let refused = view.copy_to(&copy).unwrap_err().to_string();
        assert!(refused.contains("copy.db"), "{refused}");
    }

    #[test]
    fn foreign_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text");
        std::fs::write(
            &text,
            "a text that is long enough to be looked at as a database header, and is none. "
                .repeat(20),
        )
        .unwrap();
        let other = folder.path().join("other.db");
        Connection::open(&other)
            .unwrap()
            .execute_batch("CREATE TABLE t (x)")
            .unwrap();
        for path in [text, other] {
            let error = Store::open(&path).unwrap_err().to_string();
            assert!(error.contains("is not a store of Sluice"), "{error}");
        }
    }

    #[test]
    fn a_view_without_a_store_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            View::open(&folder.path().join("none"))
                .unwrap_err()
                .is_missing()
        );
    }

    #[test]
    fn writes_are_synced_and_logged_ahead() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        let inner = store.inner.lock().unwrap();
        let pragma = |name: &str| {
            inner
                .connection
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
                .unwrap()
        };
        assert_eq!(
            pragma("journal_mode"),
            rusqlite::types::Value::Text("wal".into())
        );
        assert_eq!(pragma("synchronous"), rusqlite::types::Value::Integer(2));
    }
}
