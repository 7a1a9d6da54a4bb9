//! The consumer that turns postbacks into conversions: one order once, by (advertiser, order, goal).
//!
//! Everything an advertiser said of an order is kept; its conversion is worked out anew from all of it whenever something
//! arrives, so arrival order does not matter. A postback whose click is not in the index yet is credited by its token and
//! completed when the click is there.

mod settle;

use catalog::Catalog;
use consumer::{Error, Handler, Output, Versions, decode};
use domain::event::{Click, Conversion, Kind, Postback, Trust};
use domain::{ClickKey, Lane, Shard, Token, Topic, time::bucket};
use prost::Message;
use store::{Change, Cube, OrderKey, RollupKey, Source};
use stream::Record;

pub use settle::settle;

/// The code of this consumer in the source of rollup rows.
const SOURCE: u8 = 3;
/// How many waiting orders one tick completes, so that a transaction stays short.
const WAITING_MAX: usize = 1000;

/// Folds `postbacks`.
pub struct Conversions {
    versions: Versions,
    partitions: u16,
}

impl Conversions {
    /// Rules are those of the catalog version a postback names; `partitions` is how many the topic has.
    pub fn new(versions: Versions, partitions: u16) -> Self {
        Self {
            versions,
            partitions,
        }
    }

    fn resettle(
        &mut self,
        out: &mut Output<'_, '_>,
        order: &OrderKey,
        partition: u16,
    ) -> Result<(), Error> {
        let kept = out.batch.postbacks(order)?;
        let mut postbacks = Vec::with_capacity(kept.len());
        for (at, bytes) in &kept {
            let postback = Postback::decode(&**bytes)
                .map_err(|error| Error::Event(format!("a kept postback: {error}")))?;
            postbacks.push((*at, postback));
        }
        let Some(basis) = settle::basis(&postbacks) else {
            return Ok(());
        };
        let token = Token::from_bytes(&basis.1.token);
        let facts = match token {
            Some(token) => out.batch.clicks(&[token.click])?.pop().flatten(),
            None => None,
        };
        let facts = facts
            .map(|bytes| Click::decode(&*bytes))
            .transpose()
            .map_err(|error| Error::Event(format!("a kept click: {error}")))?;
        let catalog: std::sync::Arc<Catalog> = self
            .versions
            .get(basis.1.catalog_version, basis.1.catalog_hash)?;
        let conversion = settle(&catalog, order, &postbacks, facts.as_ref());

        let before = out
            .batch
            .order(order)?
            .map(|bytes| Conversion::decode(&*bytes))
            .transpose();
        let before = before.map_err(|error| Error::Event(format!("a kept conversion: {error}")))?;
        if before.as_ref() == Some(&conversion) {
            return Ok(());
        }
        if let Some(before) = &before {
            count(out, before, partition, -1)?;
        }
        count(out, &conversion, partition, 1)?;
        let waits_for = token
            .filter(|_| conversion.facts_pending)
            .map(|token| token.click);
        out.batch.put_order(
            order,
            &conversion.encode_to_vec(),
            conversion.facts_pending,
            waits_for,
            partition,
        )?;
        let key =
            (u64::from(conversion.affiliate) << 32 | u64::from(conversion.offer)).to_be_bytes();
        let lane = lane(&key);
        out.say(
            Topic::Conversions,
            lane,
            Kind::Conversion,
            conversion.time_ms,
            &key,
            &conversion,
        )
    }
}

impl Handler for Conversions {
    const NAME: &'static str = "conversions";

    fn fold(&mut self, out: &mut Output<'_, '_>, record: &Record) -> Result<(), Error> {
        if Kind::from_number(record.kind) != Some(Kind::Postback) {
            return Err(Error::Event(format!(
                "conversions: kind {} is not known to this version: use a newer Sluice",
                record.kind
            )));
        }
        let postback: Postback = decode(record)?;
        let Some(at) = postback.key.as_ref().map(ClickKey::from) else {
            return Err(Error::Event(format!(
                "{} lane {} n {}: no key",
                record.origin, record.lane, record.n
            )));
        };
        let order = OrderKey {
            advertiser: postback.advertiser,
            order: order(&postback),
            goal: postback.goal,
        };
        let trusted = postback.trust() == Trust::Server;
        let new = out
            .batch
            .put_postback(&order, at, trusted, content(&postback), &record.value)?;
        if !new {
            return Ok(());
        }
        self.resettle(out, &order, out.partition)
    }

    fn tick(&mut self, out: &mut Output<'_, '_>) -> Result<bool, Error> {
        let mut completed = false;
        for partition in 0..self.partitions {
            for order in out.batch.orders_waiting(partition, WAITING_MAX)? {
                self.resettle(out, &order, partition)?;
                completed = true;
            }
        }
        Ok(completed)
    }
}

/// What a postback says, whenever and from wherever it was said.
fn content(postback: &Postback) -> [u8; 16] {
    let said = Postback {
        key: None,
        shard: 0,
        catalog_version: 0,
        catalog_hash: 0,
        network: String::new(),
        ..postback.clone()
    };
    xxhash_rust::xxh3::xxh3_128(&said.encode_to_vec()).to_be_bytes()
}

/// The order's id; where the shop gave none, the token stands in for it. An order that reads like a stand-in is told apart.
fn order(postback: &Postback) -> String {
    if ["token:", "order:"]
        .iter()
        .any(|prefix| postback.order.starts_with(prefix))
    {
        return format!("order:{}", postback.order);
    }
    if !postback.order.is_empty() {
        return postback.order.clone();
    }
    let hex: String = postback
        .token
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("token:{hex}{}", postback.token_text)
}

/// Conversions are keyed by (affiliate, offer), under no secret: the numbers are the installation's own.
fn lane(key: &[u8]) -> Lane {
    Shard::of(0, key).lane()
}

/// Adds a conversion to its bucket, or takes it back. By the time of the conversion.
fn count(
    out: &mut Output<'_, '_>,
    conversion: &Conversion,
    partition: u16,
    sign: i64,
) -> Result<(), Error> {
    if !conversion.paid {
        return Ok(());
    }
    let mut add = |currency: &str, change: Change| -> Result<(), Error> {
        let row = RollupKey {
            cube: Cube::Traffic,
            bucket_ms: bucket(conversion.time_ms),
            offer: conversion.offer,
            affiliate: conversion.affiliate,
            link: conversion.link,
            reason: 0,
            currency: currency.to_owned(),
            source: Source {
                consumer: SOURCE,
                partition,
            },
        };
        Ok(out.batch.add_rollup(&row, &change)?)
    };
    add(
        "",
        Change {
            conversions: sign,
            ..Change::default()
        },
    )?;
    if conversion.amount_micros != 0 {
        add(
            &conversion.currency,
            Change {
                amount: sign * conversion.amount_micros,
                ..Change::default()
            },
        )?;
    }
    add(
        &conversion.revenue_currency,
        Change {
            revenue: sign * conversion.revenue_micros,
            ..Change::default()
        },
    )?;
    add(
        &conversion.payout_currency,
        Change {
            payout: sign * conversion.payout_micros,
            ..Change::default()
        },
    )
}
