//! Rollups: additive sums, keyed (cube, bucket, dimensions, source). A row has one writer, its source; readers sum.

use crate::{Batch, Result};

/// Millionths of a unit.
pub(crate) const MILLION: i64 = 1_000_000;

/// A list of dimensions that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Cube {
    /// Offer, affiliate, link, reason, currency over buckets of 15 minutes of UTC.
    Traffic = 1,
}

/// Who writes a row: one writer a row, so that writers never wait for each other's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The consumer's number.
    pub consumer: u8,
    /// The input partition.
    pub partition: u16,
}

/// The key of a row. Numbers are the catalog's, 0 is "none". Orders as rows are stored: a batch writes in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RollupKey {
    /// The cube.
    pub cube: Cube,
    /// The bucket's start, Unix milliseconds.
    pub bucket_ms: u64,
    /// The offer.
    pub offer: u32,
    /// The affiliate.
    pub affiliate: u32,
    /// The link.
    pub link: u64,
    /// The reason's code.
    pub reason: u32,
    /// Of the money in the row; empty in rows without money.
    pub currency: String,
    /// The writer.
    pub source: Source,
}

/// A signed change of a row's sums. Money is millionths of the key's currency; rows keep whole units and millionths apart, so
/// that no sum of amounts within their bound leaves 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Valid clicks: unique + duplicate.
    pub clicks: i64,
    /// The earliest valid click of each visitor, offer and affiliate in a day.
    pub unique: i64,
    /// The other valid ones.
    pub duplicate: i64,
    /// Valid ones without a person.
    pub anonymous: i64,
    /// Labelled clicks.
    pub invalid: i64,
    /// Prefetches; not clicks.
    pub speculative: i64,
    /// Requests that named nothing known.
    pub unmatched: i64,
    /// Conversions that count.
    pub conversions: i64,
    /// Value of their orders.
    pub amount: i64,
    /// Owed by advertisers.
    pub revenue: i64,
    /// Owed to affiliates.
    pub payout: i64,
}

impl Batch<'_> {
    /// Adds to a row. A row whose sums are all zero does not exist, so that what was added and taken back leaves no trace.
    ///
    /// # Errors
    ///
    /// When the store cannot be written, or a sum leaves 64 bits.
    pub fn add_rollup(&mut self, key: &RollupKey, change: &Change) -> Result<()> {
        if *change == Change::default() {
            return Ok(());
        }
        let bucket_ms = key.bucket_ms.cast_signed();
        let link = key.link.cast_signed();
        let empty: bool = self
            .connection()
            .prepare_cached(
                "INSERT INTO rollups VALUES
                     (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)
                 ON CONFLICT DO UPDATE SET
                     clicks = clicks + excluded.clicks, uniques = uniques + excluded.uniques,
                     duplicates = duplicates + excluded.duplicates, anonymous = anonymous + excluded.anonymous,
                     invalid = invalid + excluded.invalid,
                     speculative = speculative + excluded.speculative, unmatched = unmatched + excluded.unmatched,
                     conversions = conversions + excluded.conversions,
                     amount_units = amount_units + excluded.amount_units,
                     amount_millionths = amount_millionths + excluded.amount_millionths,
                     revenue_units = revenue_units + excluded.revenue_units,
                     revenue_millionths = revenue_millionths + excluded.revenue_millionths,
                     payout_units = payout_units + excluded.payout_units,
                     payout_millionths = payout_millionths + excluded.payout_millionths
                 RETURNING clicks = 0 AND uniques = 0 AND duplicates = 0 AND anonymous = 0 AND invalid = 0 AND speculative = 0
                     AND unmatched = 0 AND conversions = 0 AND amount_units = 0 AND amount_millionths = 0
                     AND revenue_units = 0 AND revenue_millionths = 0 AND payout_units = 0 AND payout_millionths = 0",
            )?
            .query_row(
                rusqlite::params![
                    key.cube as u8,
                    bucket_ms,
                    key.offer,
                    key.affiliate,
                    link,
                    key.reason,
                    key.currency,
                    key.source.consumer,
                    key.source.partition,
                    change.clicks,
                    change.unique,
                    change.duplicate,
                    change.anonymous,
                    change.invalid,
                    change.speculative,
                    change.unmatched,
                    change.conversions,
                    change.amount / MILLION,
                    change.amount % MILLION,
                    change.revenue / MILLION,
                    change.revenue % MILLION,
                    change.payout / MILLION,
                    change.payout % MILLION,
                ],
                |row| row.get(0),
            )?;
        if empty {
            self.connection()
                .prepare_cached(
                    "DELETE FROM rollups WHERE cube = ?1 AND bucket_ms = ?2 AND offer = ?3 AND affiliate = ?4
                     AND link = ?5 AND reason = ?6 AND currency = ?7 AND consumer = ?8 AND partition = ?9",
                )?
                .execute(rusqlite::params![
                    key.cube as u8,
                    bucket_ms,
                    key.offer,
                    key.affiliate,
                    link,
                    key.reason,
                    key.currency,
                    key.source.consumer,
                    key.source.partition,
                ])?;
        }
        Ok(())
    }
}
