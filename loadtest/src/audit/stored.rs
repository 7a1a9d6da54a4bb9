//! What the store says, by `sluice dump-store`.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};

use domain::ClickKey;
use domain::event::{Click, Conversion};
use prost::Message;

use super::cluster::{Cluster, text};
use super::model::{Cell, Sums};
use crate::index::bytes;

/// What is paid for once: advertiser, order, goal.
pub(super) type OrderKey = (u32, String, String);

/// A click of the index.
pub(super) struct StoredClick {
    pub(super) key: ClickKey,
    /// Of the whole event.
    pub(super) digest: u64,
    /// How it differs from what was sent.
    pub(super) difference: Option<String>,
}

#[derive(Default)]
pub(super) struct Stored {
    /// By the click's own id.
    pub(super) clicks: BTreeMap<String, Vec<StoredClick>>,
    /// What each order has become, as the event that says so.
    pub(super) orders: BTreeMap<OrderKey, Vec<u8>>,
    /// Which click was flagged for what.
    pub(super) flags: BTreeSet<(ClickKey, u32)>,
    pub(super) cells: BTreeMap<Cell, Sums>,
}

impl Stored {
    /// `differs` says how a click is another one than was sent.
    pub(super) fn read(
        cluster: &Cluster,
        differs: impl Fn(&Click) -> Option<String>,
    ) -> Result<Self, Box<dyn Error>> {
        let data = cluster.data(0);
        let mut stored = Self::default();
        cluster.lines(&["dump-store", "--data", text(&data)?], |line| {
            // clicks_20261120 x'<key>' x'<event>', conversions 1 "<order>" "<goal>" … x'<event>', flags x'<click>' 8,
            // rollups and 23 columns
            let table = line.split(' ').next().unwrap_or_default();
            let parts: Vec<&str> = line.split('\'').collect();
            match (table, &parts[..]) {
                ("flags", [_, click, reason]) => {
                    stored.flags.insert((key(click)?, reason.trim().parse()?));
                }
                ("conversions", [.., event, _]) => {
                    let event = bytes(event);
                    let order = order_key(&Conversion::decode(&*event)?);
                    stored.orders.insert(order, event);
                }
                (table, [_, of, _, event, _]) if table.starts_with("clicks_") => {
                    let event = bytes(event);
                    let click = Click::decode(&*event)?;
                    let clicked = StoredClick {
                        key: key(of)?,
                        digest: digest(&event),
                        difference: differs(&click),
                    };
                    stored.clicks.entry(click.ext).or_default().push(clicked);
                }
                ("rollups", _) => stored.rollup(line)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(stored)
    }

    /// Adds the row of one writer to its cell.
    fn rollup(&mut self, line: &str) -> Result<(), Box<dyn Error>> {
        let columns: Vec<&str> = line.split(' ').skip(1).collect();
        let [
            _cube,
            bucket_ms,
            offer,
            affiliate,
            link,
            reason,
            currency,
            _consumer,
            _partition,
            sums @ ..,
        ] = &columns[..]
        else {
            return Err(format!("a row of rollups is {line:?}").into());
        };
        let cell = Cell {
            bucket_ms: bucket_ms.parse()?,
            offer: offer.parse()?,
            affiliate: affiliate.parse()?,
            link: link.parse()?,
            reason: reason.parse()?,
            currency: currency.trim_matches('"').to_owned(),
        };
        let sums: Vec<i128> = sums
            .iter()
            .map(|sum| sum.parse())
            .collect::<Result<_, _>>()?;
        // Eight counts, then units and millionths of three sums of money.
        let (counts, money) = sums.split_at_checked(8).ok_or("a row without its sums")?;
        let money = money.chunks(2).map(|pair| pair[0] * 1_000_000 + pair[1]);
        let of = self.cells.entry(cell).or_default();
        for (sum, by) in of.iter_mut().zip(counts.iter().copied().chain(money)) {
            *sum += by;
        }
        Ok(())
    }
}

pub(super) fn order_key(conversion: &Conversion) -> OrderKey {
    (
        conversion.advertiser,
        conversion.order.clone(),
        conversion.goal.clone(),
    )
}

/// Stands for an event where many are compared.
pub(super) fn digest(event: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.hash(&mut hasher);
    hasher.finish()
}

fn key(hex: &str) -> Result<ClickKey, Box<dyn Error>> {
    let key: [u8; 16] = bytes(hex)
        .try_into()
        .map_err(|_| format!("{hex} is not a key of 16 bytes"))?;
    Ok(ClickKey::from_bytes(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_two_writers_are_one_cell_and_millionths_belong_to_their_units() {
        let mut stored = Stored::default();
        for partition in [0, 1] {
            let line = format!(
                "rollups 1 900000 7 8 9 0 \"EUR\" 3 {partition} 1 2 3 4 5 6 7 8 9 500000 0 -3 -1 0"
            );
            stored.rollup(&line).unwrap();
        }
        let cell = Cell {
            bucket_ms: 900_000,
            offer: 7,
            affiliate: 8,
            link: 9,
            reason: 0,
            currency: "EUR".to_owned(),
        };
        let sums = [2, 4, 6, 8, 10, 12, 14, 16, 19_000_000, -6, -2_000_000];
        assert_eq!(stored.cells, BTreeMap::from([(cell, sums)]));
    }
}
