//! Sums of the rollups by some of their dimensions.

use crate::error::{Error, Kind};
use crate::rollup::MILLION;
use crate::{Cube, Result, View};

/// What a report can group by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dimension {
    /// The affiliate's number.
    Affiliate,
    /// The offer's number.
    Offer,
    /// The link's number.
    Link,
    /// The reason's code.
    Reason,
    /// The start of the 15 minutes, Unix milliseconds.
    Bucket,
}

/// Which rollups, grouped how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Buckets that start at or after this, Unix milliseconds.
    pub from_ms: Option<u64>,
    /// Buckets that start before this, Unix milliseconds.
    pub to_ms: Option<u64>,
    /// The groups; empty for one sum of everything.
    pub by: Vec<Dimension>,
    /// Only rows whose number is one of these, for each dimension named.
    pub only: Vec<(Dimension, Vec<u64>)>,
}

impl Dimension {
    /// The column it is kept in.
    fn column(self) -> &'static str {
        match self {
            Self::Affiliate => "affiliate",
            Self::Offer => "offer",
            Self::Link => "link",
            Self::Reason => "reason",
            Self::Bucket => "bucket_ms",
        }
    }
}

/// The sums of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// A number for each dimension of the query, in its order.
    pub group: Vec<u64>,
    /// What has no currency.
    pub counts: Counts,
    /// What has, one entry a currency, by code.
    pub money: Vec<Money>,
}

/// Sums without a currency, as in [`crate::Change`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Valid clicks.
    pub clicks: i64,
    /// The unique ones.
    pub unique: i64,
    /// The duplicate ones.
    pub duplicate: i64,
    /// Valid clicks without a person.
    pub anonymous: i64,
    /// Labelled clicks.
    pub invalid: i64,
    /// Prefetches.
    pub speculative: i64,
    /// Requests that named nothing known.
    pub unmatched: i64,
    /// Conversions that count.
    pub conversions: i64,
}

/// Sums in one currency, in millionths of its unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Money {
    /// ISO 4217.
    pub currency: String,
    /// Value of the orders.
    pub amount: i128,
    /// Owed by advertisers.
    pub revenue: i128,
    /// Owed to affiliates.
    pub payout: i128,
}

impl Counts {
    /// Adds another group's.
    pub fn add(&mut self, other: &Self) {
        self.clicks += other.clicks;
        self.unique += other.unique;
        self.duplicate += other.duplicate;
        self.anonymous += other.anonymous;
        self.invalid += other.invalid;
        self.speculative += other.speculative;
        self.unmatched += other.unmatched;
        self.conversions += other.conversions;
    }
}

impl View {
    /// All rows of [`Self::each_row`], where they are known to be few.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn report(&self, query: &Query) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        self.each_row(query, &mut |row| {
            rows.push(row);
            true
        })?;
        Ok(rows)
    }

    /// Hands over one row for each group that has sums, ordered by the group's numbers, until `take` wants no more. All rows are
    /// of one moment.
    ///
    /// # Errors
    ///
    /// When the store cannot be read, or a sum leaves 64 bits.
    pub fn each_row(&self, query: &Query, take: &mut dyn FnMut(Row) -> bool) -> Result<()> {
        let mut by = String::new();
        for dimension in &query.by {
            by.push_str(dimension.column());
            by.push_str(", ");
        }
        let mut only = String::new();
        for (dimension, numbers) in &query.only {
            let numbers: Vec<String> = numbers
                .iter()
                .map(|number| number.cast_signed().to_string())
                .collect();
            let column = dimension.column();
            only.push_str(&format!(" AND {column} IN ({})", numbers.join(", ")));
        }
        let width = query.by.len();
        let sql = format!(
            "SELECT {by}currency, sum(clicks), sum(uniques), sum(duplicates), sum(anonymous), sum(invalid),
                    sum(speculative), sum(unmatched), sum(conversions), sum(amount_units), sum(amount_millionths),
                    sum(revenue_units), sum(revenue_millionths), sum(payout_units), sum(payout_millionths)
             FROM rollups WHERE cube = ?1 AND bucket_ms >= ?2 AND bucket_ms < ?3{only}
             GROUP BY {by}currency ORDER BY {by}currency"
        );
        let mut select = self.connection.prepare(&sql)?;
        let bound = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let mut found = select.query((
            Cube::Traffic as u8,
            query.from_ms.map_or(0, bound),
            query.to_ms.map_or(i64::MAX, bound),
        ))?;
        let mut group_row: Option<Row> = None;
        while let Some(row) = found.next()? {
            let mut group = Vec::with_capacity(width);
            for column in 0..width {
                group.push(row.get::<_, i64>(column)?.cast_unsigned());
            }
            let currency: String = row.get(width)?;
            let mut sums = [0_i64; 14];
            for (column, sum) in sums.iter_mut().enumerate() {
                *sum = row.get(width + 1 + column)?;
            }
            // What one partition added and, since topics grew, another one took back.
            if sums == [0; 14] {
                continue;
            }
            let [
                clicks,
                unique,
                duplicate,
                anonymous,
                invalid,
                speculative,
                unmatched,
                conversions,
                amount_units,
                amount_millionths,
                revenue_units,
                revenue_millionths,
                payout_units,
                payout_millionths,
            ] = sums;
            let money = |units: i64, millionths: i64| {
                i128::from(units) * i128::from(MILLION) + i128::from(millionths)
            };
            let (amount, revenue, payout) = (
                money(amount_units, amount_millionths),
                money(revenue_units, revenue_millionths),
                money(payout_units, payout_millionths),
            );
            let counts = Counts {
                clicks,
                unique,
                duplicate,
                anonymous,
                invalid,
                speculative,
                unmatched,
                conversions,
            };
            let money = (!currency.is_empty()).then_some(Money {
                currency,
                amount,
                revenue,
                payout,
            });
            if money.is_none() && (amount, revenue, payout) != (0, 0, 0) {
                return Err(Error::new(Kind::Damaged("money without a currency")));
            }
            match &mut group_row {
                Some(row) if row.group == group => {
                    row.counts.add(&counts);
                    row.money.extend(money);
                }
                _ => {
                    let next = Row {
                        group,
                        counts,
                        money: money.into_iter().collect(),
                    };
                    if let Some(whole) = group_row.replace(next)
                        && !take(whole)
                    {
                        return Ok(());
                    }
                }
            }
        }
        if let Some(last) = group_row {
            take(last);
        }
        Ok(())
    }
}
