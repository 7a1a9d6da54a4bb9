//! Orders: the log of what was said of them, the summary each is worked out from, and what each of its goals has become.

use domain::ClickKey;
use domain::event::{Click, Conversion};
use rusqlite::{OptionalExtension, Row, named_params};

use crate::batch::click_key;
use crate::{Batch, Result, View};

/// Who a postback in the log comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Somebody whom nobody vouches for.
    Stranger,
    /// The advertiser, by its secret.
    Advertiser,
    /// A person of the network.
    Operator,
}

/// How many postbacks of one order, sent with the advertiser's secret, the log keeps: the latest. They explain the order;
/// what they said is in its summary. What a person of the network said of it stays for ever.
pub const TRUSTED_MAX: u32 = 100;

/// How many postbacks that nobody vouched for the log keeps of one partition: the latest. Enough to see what comes, too few
/// for a stranger to fill the disk.
pub const UNTRUSTED_MAX: u32 = 1000;

/// What is worked out from one partition's postbacks alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderKey {
    /// The advertiser's number.
    pub advertiser: u32,
    /// The order's id as the advertiser spells it, or what stands in for it.
    pub order: String,
}

/// A postback in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedPostback {
    /// Which order it is about.
    pub order: OrderKey,
    /// The key of its own record.
    pub at: ClickKey,
    /// The event.
    pub bytes: Vec<u8>,
    /// What became of it, as the consumer wrote it; empty for one that is not believed.
    pub outcome: Vec<u8>,
}

/// Where a conversion stands in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversionPlace {
    /// Its time, Unix milliseconds.
    pub time_ms: u64,
    /// Its order.
    pub key: OrderKey,
    /// Its goal.
    pub goal: String,
}

/// A conversion as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptConversion {
    /// Where it stands.
    pub place: ConversionPlace,
    /// What [`Batch::put_conversion`] kept.
    pub bytes: Vec<u8>,
    /// Of its click: sub1 to sub10, ext, source, creative, page, coupon.
    pub texts: Vec<String>,
}

/// Text of the click's facts is copied into its conversion, so that a list can filter by it after the click is gone.
pub(crate) const SCHEMA: &str = "
CREATE TABLE postbacks (
    at BLOB NOT NULL PRIMARY KEY, advertiser INTEGER NOT NULL, order_key TEXT NOT NULL, sender INTEGER NOT NULL,
    partition INTEGER NOT NULL, bytes BLOB NOT NULL, outcome BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX postbacks_by_order ON postbacks (advertiser, order_key, sender, at);
CREATE INDEX postbacks_untrusted ON postbacks (partition, at) WHERE sender = 0;
CREATE TABLE orders (
    advertiser INTEGER NOT NULL, order_key TEXT NOT NULL, partition INTEGER NOT NULL, lane INTEGER NOT NULL,
    summary BLOB NOT NULL,
    PRIMARY KEY (advertiser, order_key)
) STRICT, WITHOUT ROWID;
CREATE TABLE conversions (
    advertiser INTEGER NOT NULL, order_key TEXT NOT NULL, goal TEXT NOT NULL,
    -- Empty where the token stands in for it.
    order_id TEXT NOT NULL, change INTEGER NOT NULL,
    status INTEGER NOT NULL, reason INTEGER NOT NULL, matched INTEGER NOT NULL,
    offer INTEGER NOT NULL, affiliate INTEGER NOT NULL, link INTEGER NOT NULL,
    click BLOB, click_ms INTEGER, time_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL,
    currency TEXT NOT NULL, amount_micros INTEGER NOT NULL,
    revenue_currency TEXT NOT NULL, revenue_micros INTEGER NOT NULL,
    payout_currency TEXT NOT NULL, payout_micros INTEGER NOT NULL,
    facts_pending INTEGER NOT NULL,
    sub1 TEXT NOT NULL, sub2 TEXT NOT NULL, sub3 TEXT NOT NULL, sub4 TEXT NOT NULL, sub5 TEXT NOT NULL,
    sub6 TEXT NOT NULL, sub7 TEXT NOT NULL, sub8 TEXT NOT NULL, sub9 TEXT NOT NULL, sub10 TEXT NOT NULL,
    ext TEXT NOT NULL, source TEXT NOT NULL, creative TEXT NOT NULL, page TEXT NOT NULL, coupon TEXT NOT NULL,
    -- The event, without what is of one change only.
    bytes BLOB NOT NULL,
    PRIMARY KEY (advertiser, order_key, goal)
) STRICT, WITHOUT ROWID;
CREATE INDEX conversions_by_time ON conversions (time_ms);
CREATE INDEX conversions_by_order ON conversions (order_key);
CREATE INDEX conversions_waiting ON conversions (click) WHERE facts_pending = 1;
-- Orders whose awaited click has come. One that could not be completed is held: it says what it lacks.
CREATE TABLE woken (
    advertiser INTEGER NOT NULL, order_key TEXT NOT NULL, lacks TEXT NOT NULL,
    PRIMARY KEY (advertiser, order_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX woken_by_lacks ON woken (lacks, advertiser, order_key);
";

impl Batch<'_> {
    /// Keeps a postback in the log; false when it was there before. Of an order's advertiser the [`TRUSTED_MAX`] latest
    /// stay, of a partition's strangers the [`UNTRUSTED_MAX`] latest, in whatever order they come.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn put_postback(
        &mut self,
        key: &OrderKey,
        at: ClickKey,
        sender: Sender,
        partition: u16,
        bytes: &[u8],
    ) -> Result<bool> {
        let at = &at.to_bytes()[..];
        let inserted = self
            .connection()
            .prepare_cached("INSERT OR IGNORE INTO postbacks VALUES (?1, ?2, ?3, ?4, ?5, ?6, x'')")?
            .execute((
                at,
                key.advertiser,
                &key.order,
                sender as u8,
                partition,
                bytes,
            ))?;
        if inserted == 0 {
            return Ok(false);
        }
        let beyond: Option<Vec<u8>> = match sender {
            Sender::Operator => None,
            Sender::Advertiser => self
                .connection()
                .prepare_cached(
                    "SELECT at FROM postbacks WHERE advertiser = ?1 AND order_key = ?2 AND sender = 1
                     ORDER BY at DESC LIMIT 1 OFFSET ?3",
                )?
                .query_row((key.advertiser, &key.order, TRUSTED_MAX), |row| row.get(0))
                .optional()?,
            Sender::Stranger => self
                .connection()
                .prepare_cached(
                    "SELECT at FROM postbacks WHERE sender = 0 AND partition = ?1
                     ORDER BY at DESC LIMIT 1 OFFSET ?2",
                )?
                .query_row((partition, UNTRUSTED_MAX), |row| row.get(0))
                .optional()?,
        };
        if let Some(beyond) = beyond {
            self.connection()
                .prepare_cached("DELETE FROM postbacks WHERE at = ?1")?
                .execute((beyond,))?;
        }
        Ok(true)
    }

    /// Writes down what became of a postback in the log.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn set_outcome(&mut self, at: ClickKey, outcome: &[u8]) -> Result<()> {
        self.connection()
            .prepare_cached("UPDATE postbacks SET outcome = ?2 WHERE at = ?1")?
            .execute((&at.to_bytes()[..], outcome))?;
        Ok(())
    }

    /// The summary of an order, the partition and the lane its postbacks come from.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn order(&self, key: &OrderKey) -> Result<Option<(Vec<u8>, u16, u8)>> {
        Ok(self
            .connection()
            .prepare_cached(
                "SELECT summary, partition, lane FROM orders WHERE advertiser = ?1 AND order_key = ?2",
            )?
            .query_row((key.advertiser, &key.order), |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?)
    }

    /// Keeps the summary of an order. Partition and lane stay those it was first kept with, because what it counted in
    /// rollups is there.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn put_order(
        &mut self,
        key: &OrderKey,
        summary: &[u8],
        partition: u16,
        lane: u8,
    ) -> Result<()> {
        self.connection()
            .prepare_cached(
                "INSERT INTO orders VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET summary = excluded.summary",
            )?
            .execute((key.advertiser, &key.order, partition, lane, summary))?;
        Ok(())
    }

    /// What a goal of an order has become, as [`Self::put_conversion`] kept it.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn conversion(&self, key: &OrderKey, goal: &str) -> Result<Option<Vec<u8>>> {
        Ok(self
            .connection()
            .prepare_cached(
                "SELECT bytes FROM conversions WHERE advertiser = ?1 AND order_key = ?2 AND goal = ?3",
            )?
            .query_row((key.advertiser, &key.order, goal), |row| row.get(0))
            .optional()?)
    }

    /// Keeps what a goal of an order has become, in place of what it was. With `facts_pending` the order is woken when its
    /// click comes. `bytes` is what [`Self::conversion`] gives back; `facts` is the click, once known.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn put_conversion(
        &mut self,
        key: &OrderKey,
        conversion: &Conversion,
        facts: Option<&Click>,
        bytes: &[u8],
    ) -> Result<()> {
        let unknown = Click::default();
        let facts = facts.unwrap_or(&unknown);
        let click = conversion.click.as_ref().map(ClickKey::from);
        self.connection()
            .prepare_cached(
                "INSERT OR REPLACE INTO conversions VALUES (
                     :advertiser, :order_key, :goal, :order_id, :change, :status, :reason, :matched,
                     :offer, :affiliate, :link, :click, :click_ms, :time_ms, :changed_ms,
                     :currency, :amount_micros, :revenue_currency, :revenue_micros,
                     :payout_currency, :payout_micros, :facts_pending,
                     :sub1, :sub2, :sub3, :sub4, :sub5, :sub6, :sub7, :sub8, :sub9, :sub10,
                     :ext, :source, :creative, :page, :coupon, :bytes)",
            )?
            .execute(named_params! {
                ":advertiser": key.advertiser,
                ":order_key": key.order,
                ":goal": conversion.goal,
                ":order_id": conversion.order,
                ":change": conversion.change.cast_signed(),
                ":status": conversion.status,
                ":reason": conversion.reason,
                ":matched": conversion.r#match,
                ":offer": conversion.offer,
                ":affiliate": conversion.affiliate,
                ":link": conversion.link.cast_signed(),
                ":click": click.map(|click| click.to_bytes().to_vec()),
                ":click_ms": click.map(|click| click.time_ms.cast_signed()),
                ":time_ms": conversion.time_ms.cast_signed(),
                ":changed_ms": conversion.changed_ms.cast_signed(),
                ":currency": conversion.currency,
                ":amount_micros": conversion.amount_micros,
                ":revenue_currency": conversion.revenue_currency,
                ":revenue_micros": conversion.revenue_micros,
                ":payout_currency": conversion.payout_currency,
                ":payout_micros": conversion.payout_micros,
                ":facts_pending": conversion.facts_pending,
                ":sub1": facts.sub1,
                ":sub2": facts.sub2,
                ":sub3": facts.sub3,
                ":sub4": facts.sub4,
                ":sub5": facts.sub5,
                ":sub6": facts.sub6,
                ":sub7": facts.sub7,
                ":sub8": facts.sub8,
                ":sub9": facts.sub9,
                ":sub10": facts.sub10,
                ":ext": facts.ext,
                ":source": facts.source,
                ":creative": facts.creative,
                ":page": facts.page,
                ":coupon": facts.coupon,
                ":bytes": bytes,
            })?;
        Ok(())
    }

    /// Wakes the orders that wait for a click.
    pub(crate) fn wake(&mut self, click: ClickKey) -> Result<()> {
        self.connection()
            .prepare_cached(
                "INSERT OR IGNORE INTO woken SELECT DISTINCT advertiser, order_key, '' FROM conversions
                 WHERE click = ?1 AND facts_pending = 1",
            )?
            .execute((&click.to_bytes()[..],))?;
        Ok(())
    }

    /// Orders whose awaited click has come, at most `limit`; the next call gives others.
    ///
    /// # Errors
    ///
    /// When the store cannot be changed.
    pub fn take_woken(&mut self, limit: usize) -> Result<Vec<OrderKey>> {
        let mut select = self
            .connection()
            .prepare_cached("SELECT advertiser, order_key FROM woken WHERE lacks = '' LIMIT ?1")?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let woken = select
            .query_map((limit,), order_key)?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        for key in &woken {
            self.connection()
                .prepare_cached("DELETE FROM woken WHERE advertiser = ?1 AND order_key = ?2")?
                .execute((key.advertiser, &key.order))?;
        }
        Ok(woken)
    }

    /// Holds a woken order that cannot be completed: [`Self::take_woken`] passes it over.
    ///
    /// # Errors
    ///
    /// When the store cannot be changed.
    pub fn hold(&mut self, key: &OrderKey, lacks: &str) -> Result<()> {
        self.connection()
            .prepare_cached("INSERT OR REPLACE INTO woken VALUES (?1, ?2, ?3)")?
            .execute((key.advertiser, &key.order, lacks))?;
        Ok(())
    }

    /// Forgets that an order is held.
    ///
    /// # Errors
    ///
    /// When the store cannot be changed.
    pub fn unhold(&mut self, key: &OrderKey) -> Result<()> {
        self.connection()
            .prepare_cached("DELETE FROM woken WHERE advertiser = ?1 AND order_key = ?2")?
            .execute((key.advertiser, &key.order))?;
        Ok(())
    }

    /// Of everything that held orders lack, the first of them and what it lacks.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn held_firsts(&self) -> Result<Vec<(OrderKey, String)>> {
        let mut select = self.connection().prepare_cached(
            "SELECT min(advertiser), order_key, lacks FROM woken WHERE lacks > '' GROUP BY lacks",
        )?;
        let firsts = select.query_map((), |row| Ok((order_key(row)?, row.get(2)?)))?;
        Ok(firsts.collect::<rusqlite::Result<_>>()?)
    }

    /// Wakes all held orders that lack the same.
    ///
    /// # Errors
    ///
    /// When the store cannot be changed.
    pub fn wake_held(&mut self, lacks: &str) -> Result<()> {
        self.connection()
            .prepare_cached("UPDATE woken SET lacks = '' WHERE lacks = ?1")?
            .execute((lacks,))?;
        Ok(())
    }
}

impl View {
    /// What every goal of every order of this key has become: the advertiser, and what [`Batch::put_conversion`] kept.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn conversions_of(&self, order: &str) -> Result<Vec<(OrderKey, Vec<u8>)>> {
        let mut select = self.connection.prepare_cached(
            "SELECT advertiser, order_key, bytes FROM conversions WHERE order_key = ?1 ORDER BY advertiser, goal",
        )?;
        let found = select.query_map((order,), |row| Ok((order_key(row)?, row.get(2)?)))?;
        Ok(found.collect::<rusqlite::Result<_>>()?)
    }

    /// The newest conversions behind a place (all where there is none), not before a time: at most `limit`. The place of the
    /// last one is where to go on.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn conversions_before(
        &self,
        before: &ConversionPlace,
        from_ms: u64,
        limit: u32,
    ) -> Result<Vec<KeptConversion>> {
        let mut select = self.connection.prepare_cached(
            "SELECT time_ms, advertiser, order_key, goal, bytes, sub1, sub2, sub3, sub4, sub5, sub6, sub7, sub8, sub9,
                 sub10, ext, source, creative, page, coupon
             FROM conversions
             WHERE time_ms >= ?5 AND time_ms <= ?1 AND (time_ms, advertiser, order_key, goal) < (?1, ?2, ?3, ?4)
             ORDER BY time_ms DESC, advertiser DESC, order_key DESC, goal DESC LIMIT ?6",
        )?;
        let bound = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let mut rows = select.query((
            bound(before.time_ms),
            before.key.advertiser,
            &before.key.order,
            &before.goal,
            bound(from_ms),
            limit,
        ))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let texts = (5..20).map(|column| row.get(column));
            found.push(KeptConversion {
                place: ConversionPlace {
                    time_ms: row.get::<_, i64>(0)?.cast_unsigned(),
                    key: OrderKey {
                        advertiser: row.get(1)?,
                        order: row.get(2)?,
                    },
                    goal: row.get(3)?,
                },
                bytes: row.get(4)?,
                texts: texts.collect::<rusqlite::Result<_>>()?,
            });
        }
        Ok(found)
    }

    /// What one kind of sender said of an order, earliest first, at most `limit`, the latest.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn postbacks(
        &self,
        key: &OrderKey,
        sender: Sender,
        limit: u32,
    ) -> Result<Vec<LoggedPostback>> {
        let mut select = self.connection.prepare_cached(
            "SELECT advertiser, order_key, at, bytes, outcome FROM postbacks
             WHERE advertiser = ?1 AND order_key = ?2 AND sender = ?3 ORDER BY at DESC LIMIT ?4",
        )?;
        let mut rows = select.query((key.advertiser, &key.order, sender as u8, limit))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(logged(row)?);
        }
        found.reverse();
        Ok(found)
    }

    /// One postback of the log by the key of its record.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn postback(&self, at: ClickKey) -> Result<Option<LoggedPostback>> {
        let mut select = self.connection.prepare_cached(
            "SELECT advertiser, order_key, at, bytes, outcome FROM postbacks WHERE at = ?1",
        )?;
        let mut rows = select.query((&at.to_bytes()[..],))?;
        rows.next()?.map(logged).transpose()
    }
}

fn order_key(row: &Row<'_>) -> rusqlite::Result<OrderKey> {
    Ok(OrderKey {
        advertiser: row.get(0)?,
        order: row.get(1)?,
    })
}

fn logged(row: &Row<'_>) -> Result<LoggedPostback> {
    Ok(LoggedPostback {
        order: order_key(row)?,
        at: click_key(row.get(2)?)?,
        bytes: row.get(3)?,
        outcome: row.get(4)?,
    })
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
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn the_latest_stay_in_any_order(
            order in Just((0..1_300_u32).collect::<Vec<_>>()).prop_shuffle(),
            again in prop::collection::vec(0..1_300_u32, 0..20),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store.db");
            let store = Store::open(&path).unwrap();
            store.batch(|batch| {
                for n in order.into_iter().chain(again) {
                    let sender = match n % 10 {
                        9 => Sender::Advertiser,
                        8 => Sender::Operator,
                        _ => Sender::Stranger,
                    };
                    batch.put_postback(&key(), at(n), sender, 0, &[])?;
                }
                Ok(())
            }).unwrap();
            let view = View::open(&path).unwrap();
            let kept = |sender| -> Vec<u32> {
                let log = view.postbacks(&key(), sender, u32::MAX).unwrap();
                log.into_iter().map(|postback| postback.at.sequence).collect()
            };
            let all = |last| -> Vec<u32> { (0..1_300).filter(|n| n % 10 == last).collect() };
            prop_assert_eq!(kept(Sender::Advertiser), &all(9)[30..]);
            // Why a person changed an order is not forgotten over the advertiser's retries.
            prop_assert_eq!(kept(Sender::Operator), all(8));
            let others: Vec<u32> = (0..1_300).filter(|n| n % 10 < 8).collect();
            prop_assert_eq!(kept(Sender::Stranger), &others[others.len() - 1_000..]);
        }
    }

    #[test]
    fn an_order_is_woken_by_its_click_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        let waiting = |click| Conversion {
            click: Some(at(click).into()),
            facts_pending: true,
            ..Conversion::default()
        };
        let other = OrderKey {
            order: "B".into(),
            ..key()
        };
        store
            .batch(|batch| {
                batch.put_conversion(&key(), &waiting(5), None, b"pending")?;
                batch.put_conversion(&other, &waiting(6), None, b"other")?;
                batch.put_click(at(7), b"facts")?;
                assert_eq!(batch.take_woken(10)?, []);
                batch.put_click(at(5), b"facts")?;
                batch.put_click(at(5), b"facts again")?;
                assert_eq!(batch.take_woken(10)?, [key()]);
                assert_eq!(batch.take_woken(10)?, []);
                assert_eq!(batch.conversion(&key(), "")?, Some(b"pending".to_vec()));
                Ok(())
            })
            .unwrap();
    }
}
