//! Postbacks, and what each (advertiser, order, goal) has become.

use domain::ClickKey;
use rusqlite::{Connection, OptionalExtension};

use crate::batch::click_key;
use crate::{Batch, Result, View, click};

/// Postbacks nobody vouched for that one order keeps: enough to explain what came, too few for a stranger to fill the disk.
pub const UNTRUSTED_MAX: u32 = 16;

/// What is paid for at most once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderKey {
    /// The advertiser's number.
    pub advertiser: u32,
    /// The order, as the advertiser spells it.
    pub order: String,
    /// The goal's number.
    pub goal: u32,
}

impl Batch<'_> {
    /// Keeps a postback of an order under the key of its own record. `content` tells what it says: of trusted ones that say the
    /// same, the earliest stays: what is said again is a repeat, and a late retry must not undo what came between. Of the
    /// untrusted ones the [`UNTRUSTED_MAX`] earliest stay. Both in whatever order they come. False when
    /// nothing is new: it was kept before, or is one too many.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn put_postback(
        &mut self,
        key: &OrderKey,
        at: ClickKey,
        trusted: bool,
        content: [u8; 16],
        bytes: &[u8],
    ) -> Result<bool> {
        let at = &at.to_bytes()[..];
        let inserted = self
            .connection()
            .prepare_cached("INSERT OR IGNORE INTO postbacks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute((
                key.advertiser,
                &key.order,
                key.goal,
                at,
                trusted,
                &content[..],
                bytes,
            ))?;
        if inserted == 0 {
            return Ok(false);
        }
        if trusted {
            let repeat: Option<Vec<u8>> = self
                .connection()
                .prepare_cached(
                    "SELECT at FROM postbacks
                     WHERE advertiser = ?1 AND order_id = ?2 AND goal = ?3 AND content = ?4 AND trusted = 1
                     ORDER BY at LIMIT 1 OFFSET 1",
                )?
                .query_row((key.advertiser, &key.order, key.goal, &content[..]), |row| row.get(0))
                .optional()?;
            let Some(repeat) = repeat else {
                return Ok(true);
            };
            self.delete_postback(key, &repeat)?;
            return Ok(repeat != at);
        }
        let beyond: Option<Vec<u8>> = self
            .connection()
            .prepare_cached(
                "SELECT at FROM postbacks WHERE advertiser = ?1 AND order_id = ?2 AND goal = ?3 AND trusted = 0
                 ORDER BY at LIMIT 1 OFFSET ?4",
            )?
            .query_row((key.advertiser, &key.order, key.goal, UNTRUSTED_MAX), |row| row.get(0))
            .optional()?;
        let Some(beyond) = beyond else {
            return Ok(true);
        };
        self.delete_postback(key, &beyond)?;
        Ok(beyond != at)
    }

    fn delete_postback(&mut self, key: &OrderKey, at: &[u8]) -> Result<()> {
        self.connection()
            .prepare_cached(
                "DELETE FROM postbacks WHERE advertiser = ?1 AND order_id = ?2 AND goal = ?3 AND at = ?4",
            )?
            .execute((key.advertiser, &key.order, key.goal, at))?;
        Ok(())
    }

    /// The postbacks of an order by the keys of their records, earliest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn postbacks(&self, key: &OrderKey) -> Result<Vec<(ClickKey, Vec<u8>)>> {
        let mut select = self.connection().prepare_cached(
            "SELECT at, bytes FROM postbacks WHERE advertiser = ?1 AND order_id = ?2 AND goal = ?3 ORDER BY at",
        )?;
        let mut rows = select.query((key.advertiser, &key.order, key.goal))?;
        let mut postbacks = Vec::new();
        while let Some(row) = rows.next()? {
            postbacks.push((click_key(row.get(0)?)?, row.get(1)?));
        }
        Ok(postbacks)
    }

    /// What an order has become.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn order(&self, key: &OrderKey) -> Result<Option<Vec<u8>>> {
        Ok(self
            .connection()
            .prepare_cached(
                "SELECT bytes FROM orders WHERE advertiser = ?1 AND order_id = ?2 AND goal = ?3",
            )?
            .query_row((key.advertiser, &key.order, key.goal), |row| row.get(0))
            .optional()?)
    }

    /// Keeps what an order has become, in place of what it was. With `facts_pending` it waits until `waits_for` is in the
    /// click index; `partition` is the one its postbacks come from.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn put_order(
        &mut self,
        key: &OrderKey,
        bytes: &[u8],
        facts_pending: bool,
        waits_for: Option<ClickKey>,
        partition: u16,
    ) -> Result<()> {
        let waits_for = waits_for
            .filter(|_| facts_pending)
            .map(|click| click.to_bytes().to_vec());
        self.connection()
            .prepare_cached("INSERT OR REPLACE INTO orders VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute((
                key.advertiser,
                &key.order,
                key.goal,
                bytes,
                waits_for,
                partition,
            ))?;
        Ok(())
    }

    /// Orders of a partition whose awaited click has come, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn orders_waiting(&self, partition: u16, limit: usize) -> Result<Vec<OrderKey>> {
        let tables = click::tables(self.connection())?;
        let mut select = self.connection().prepare_cached(
            "SELECT advertiser, order_id, goal, waits_for FROM orders
             WHERE partition = ?1 AND waits_for IS NOT NULL ORDER BY waits_for, advertiser, order_id, goal",
        )?;
        let mut rows = select.query((partition,))?;
        let mut ready = Vec::new();
        while ready.len() < limit
            && let Some(row) = rows.next()?
        {
            let awaited: Vec<u8> = row.get(3)?;
            let table = click::table(click_key(awaited.clone())?.time_ms);
            if tables.contains(&table) && has(self.connection(), &table, &awaited)? {
                ready.push(OrderKey {
                    advertiser: row.get(0)?,
                    order: row.get(1)?,
                    goal: row.get(2)?,
                });
            }
        }
        Ok(ready)
    }
}

impl View {
    /// What every (advertiser, goal) knows of an order, by their numbers.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn orders_by_order(&self, order: &str) -> Result<Vec<(OrderKey, Vec<u8>)>> {
        let mut select = self.connection.prepare_cached(
            "SELECT advertiser, goal, bytes FROM orders WHERE order_id = ?1 ORDER BY advertiser, goal",
        )?;
        let found = select.query_map((order,), |row| {
            let key = OrderKey {
                advertiser: row.get(0)?,
                order: order.to_owned(),
                goal: row.get(1)?,
            };
            Ok((key, row.get(2)?))
        })?;
        Ok(found.collect::<rusqlite::Result<_>>()?)
    }
}

fn has(connection: &Connection, table: &str, key: &[u8]) -> Result<bool> {
    Ok(connection
        .prepare_cached(&format!("SELECT 1 FROM {table} WHERE key = ?1"))?
        .exists((key,))?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Store;

    fn at(sequence: u32) -> ClickKey {
        ClickKey {
            time_ms: 1_790_000_000_000,
            stream: 1,
            sequence,
        }
    }

    fn key() -> OrderKey {
        OrderKey {
            advertiser: 1,
            order: "A-1".into(),
            goal: 2,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_earliest_untrusted_stay_in_any_order(
            order in Just((0..40_u32).collect::<Vec<_>>()).prop_shuffle(),
            again in prop::collection::vec(0..40_u32, 0..20),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("store.db")).unwrap();
            let kept = store.batch(|batch| {
                for n in order.into_iter().chain(again) {
                    batch.put_postback(&key(), at(n), n % 10 == 9, [n as u8; 16], &[])?;
                }
                batch.postbacks(&key())
            }).unwrap();
            let kept: Vec<u32> = kept.into_iter().map(|(at, _)| at.sequence).collect();
            // 9, 19, 29 and 39 are trusted; 0 to 16 without 9 are the 16 earliest others.
            let expected: Vec<u32> =
                (0..40).filter(|n| n % 10 == 9 || *n < 17).collect();
            prop_assert_eq!(kept, expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn of_what_is_said_again_the_first_stays(
            order in Just((0..20_u32).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("store.db")).unwrap();
            let kept = store.batch(|batch| {
                for n in order {
                    batch.put_postback(&key(), at(n), true, [(n % 3) as u8; 16], &[])?;
                }
                batch.postbacks(&key())
            }).unwrap();
            let kept: Vec<u32> = kept.into_iter().map(|(at, _)| at.sequence).collect();
            prop_assert_eq!(kept, [0, 1, 2]);
        }
    }

    #[test]
    fn an_untrusted_one_too_many_is_nothing_new() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        store
            .batch(|batch| {
                let mut put =
                    |n, trusted| batch.put_postback(&key(), at(n), trusted, [1; 16], b"x");
                for n in 1..=UNTRUSTED_MAX {
                    assert!(put(n, false)?);
                }
                assert!(!put(99, false)?);
                assert!(put(99, true)?);
                assert!(!put(99, true)?);
                assert!(put(0, false)?);
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn an_order_waits_until_its_click_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = Store::open(&path).unwrap();
        let other = OrderKey { goal: 3, ..key() };
        store
            .batch(|batch| {
                batch.put_order(&key(), b"pending", true, Some(at(5)), 4)?;
                batch.put_order(&other, b"other", true, Some(at(6)), 4)?;
                assert_eq!(batch.orders_waiting(4, 10)?, []);
                batch.put_click(at(5), b"facts")?;
                assert_eq!(batch.orders_waiting(3, 10)?, []);
                assert_eq!(batch.orders_waiting(4, 10)?, [key()]);
                batch.put_order(&key(), b"done", false, Some(at(5)), 4)?;
                assert_eq!(batch.orders_waiting(4, 10)?, []);
                assert_eq!(batch.order(&key())?, Some(b"done".to_vec()));
                Ok(())
            })
            .unwrap();
        let found = View::open(&path).unwrap().orders_by_order("A-1").unwrap();
        assert_eq!(
            found,
            [(key(), b"done".to_vec()), (other, b"other".to_vec())]
        );
    }
}
