//! The consumer that turns postbacks into conversions: one order once, by (advertiser, order id, goal's name).
//!
//! What an advertiser says of an order is folded into a summary of bounded size (`life`); what the order is worth is
//! worked out from this summary alone, so arrival order does not matter. A postback whose click is not in the index yet is
//! credited by its token and completed when the click is there. A postback that is not believed changes nothing but the
//! log.

mod life;
mod order;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;

use consumer::{Error, Handler, Output, Versions, decode};
use domain::event::{Click, Conversion, Kind, Line, Postback, Reason, Trust};
use domain::{ClickKey, Lane, Token, Topic, time::bucket};
use life::{Standing, Word};
use order::Order;
use prost::Message;
use store::{Change, Cube, OrderKey, RollupKey, Sender, Source};
use stream::Record;

/// The code of this consumer in the source of rollup rows.
const SOURCE: u8 = 3;
/// How many waiting orders one tick completes, so that a transaction stays short.
const WOKEN_MAX: usize = 1000;

/// How often it is looked whether held orders can be completed.
const LOOK_EVERY_MS: u64 = 1000;

/// Folds `postbacks`.
pub struct Conversions {
    versions: Versions,
    /// When that was.
    looked_ms: u64,
}

/// An order as it is worked on.
struct Open {
    key: OrderKey,
    order: Order,
    /// Where its rollup rows and its events are.
    partition: u16,
    lane: Lane,
}

/// The word that an event is about.
struct Cause {
    at: ClickKey,
    /// Why nothing changed, where nothing does.
    outcome: Reason,
}

impl Conversions {
    /// Rules are those of the catalog version that was in force when an order's first word came.
    pub fn new(versions: Versions) -> Self {
        Self {
            versions,
            looked_ms: 0,
        }
    }

    fn open(out: &Output<'_, '_>, key: OrderKey, lane: Lane) -> Result<Open, Error> {
        let (order, partition, lane) = match out.batch.order(&key)? {
            Some((bytes, partition, lane)) => {
                let order = Order::from_bytes(&bytes).map_err(Error::Damaged)?;
                (order, partition, Lane(lane))
            }
            None => (Order::default(), out.partition, lane),
        };
        Ok(Open {
            key,
            order,
            partition,
            lane,
        })
    }

    /// Folds a word that is believed.
    fn hear(
        &mut self,
        out: &mut Output<'_, '_>,
        key: OrderKey,
        lane: Lane,
        postback: &Postback,
        at: ClickKey,
    ) -> Result<(), Error> {
        let mut open = Self::open(out, key, lane)?;
        let word = Word::of(postback, at);
        open.order.hear(postback, &word);
        out.batch.put_order(
            &open.key,
            &open.order.to_bytes(),
            open.partition,
            open.lane.0,
        )?;
        let outcome = open.order.outcome(postback, &word);
        let cause = Cause { at, outcome };
        let concerned = open.order.concerned(postback);
        let mut events = Vec::new();
        for (goal, standing) in open.order.standings() {
            let is_about = concerned.contains(&goal);
            let cause = is_about.then_some(&cause);
            events.extend(self.settle(out, &open, &goal, &standing, cause)?);
        }
        if events.is_empty() {
            // No sale has given the order a goal yet.
            events.push(Conversion {
                repeat: true,
                outcome: outcome.into(),
                ..Conversion::default()
            });
        }
        let mut log = Vec::new();
        for event in &mut events {
            event.candidates.clear();
            log.extend(event.encode_length_delimited_to_vec());
        }
        Ok(out.batch.set_outcome(at, &log)?)
    }

    /// Completes an order whose click has come. One whose catalog version cannot be read is held until it can, and holds up no
    /// other; what it lacks is said.
    fn complete_or_hold(
        &mut self,
        out: &mut Output<'_, '_>,
        key: &OrderKey,
    ) -> Result<Result<(), String>, Error> {
        out.batch.begin_part()?;
        match self.complete(out, key) {
            Ok(()) => {
                out.batch.keep_part()?;
                out.batch.unhold(key)?;
                Ok(Ok(()))
            }
            Err(Error::Event(refusal)) => {
                out.batch.undo_part()?;
                out.batch.hold(key, &refusal.detail)?;
                Ok(Err(refusal.detail))
            }
            Err(error) => Err(error),
        }
    }

    fn complete(&mut self, out: &mut Output<'_, '_>, key: &OrderKey) -> Result<(), Error> {
        let open = Self::open(out, key.clone(), Lane(0))?;
        for (goal, standing) in open.order.standings() {
            self.settle(out, &open, &goal, &standing, None)?;
        }
        Ok(())
    }

    /// Works one goal of an order out, and says what it has become where that is new or `cause` asks for an event.
    fn settle(
        &mut self,
        out: &mut Output<'_, '_>,
        open: &Open,
        goal: &str,
        standing: &Standing,
        cause: Option<&Cause>,
    ) -> Result<Option<Conversion>, Error> {
        let token = standing
            .credit
            .as_ref()
            .and_then(|credit| Token::from_bytes(&credit.token));
        let facts = match token {
            Some(token) => out.batch.clicks(&[token.click])?.pop().flatten(),
            None => None,
        };
        let facts = facts
            .map(|bytes| Click::decode(&*bytes))
            .transpose()
            .map_err(|error| Error::Damaged(format!("a click that does not decode ({error})")))?;
        let catalog = self
            .versions
            .get(standing.catalog.number, standing.catalog.hash)?;
        let mut conversion = verdict::conversion(&catalog, standing, goal, facts.as_ref());
        conversion.advertiser = open.key.advertiser;
        (conversion.order, conversion.token) = domain::order::parts(&open.key.order);
        // Each word and the click's arrival make it greater, whatever came first.
        conversion.change = 2 * open.order.words + u64::from(!conversion.facts_pending);

        let before = out
            .batch
            .conversion(&open.key, goal)?
            .map(|bytes| Conversion::decode(&*bytes))
            .transpose()
            .map_err(|error| {
                Error::Damaged(format!("a conversion that does not decode ({error})"))
            })?;
        let is_same = before.as_ref().is_some_and(|before| {
            let conversion = Conversion {
                change: before.change,
                changed_ms: before.changed_ms,
                ..conversion.clone()
            };
            *before == conversion
        });
        let before_lines = before.as_ref().map_or(&[][..], |before| &before.after);
        if before_lines != conversion.after {
            for line in before_lines {
                count(out, line, open.partition, -1)?;
            }
            for line in &conversion.after {
                count(out, line, open.partition, 1)?;
            }
        }
        out.batch.put_conversion(
            &open.key,
            &conversion,
            facts.as_ref(),
            &conversion.encode_to_vec(),
        )?;
        if is_same && cause.is_none() {
            return Ok(None);
        }
        conversion.before = before_lines.to_vec();
        let was = before.as_ref().map_or(0, |before| before.status);
        conversion.was = was;
        conversion.repeat = is_same;
        if let Some(cause) = cause {
            conversion.postback = Some(cause.at.into());
            if is_same {
                conversion.outcome = cause.outcome.into();
            }
        }
        let key = domain::order::event_key(open.key.advertiser, goal, &open.key.order);
        out.say(
            Topic::Conversions,
            open.lane,
            Kind::Conversion,
            conversion.changed_ms,
            &key,
            &conversion,
        )?;
        Ok(Some(conversion))
    }
}

impl Handler for Conversions {
    const NAME: &'static str = "conversions";

    fn fold(&mut self, out: &mut Output<'_, '_>, record: &Record) -> Result<(), Error> {
        if Kind::from_number(record.kind) != Some(Kind::Postback) {
            return Err(Error::unknown_type(record.kind));
        }
        let postback: Postback = decode(record)?;
        let Some(at) = postback.key.as_ref().map(ClickKey::from) else {
            return Err(Error::undecodable(record, "no key"));
        };
        let key = OrderKey {
            advertiser: postback.advertiser,
            order: domain::order::key(&postback.order, &postback.token, &postback.token_text),
        };
        let sender = match postback.trust() {
            Trust::Server => Sender::Advertiser,
            Trust::Operator => Sender::Operator,
            _ => Sender::Stranger,
        };
        out.batch
            .put_postback(&key, at, sender, out.partition, &record.value)?;
        if sender == Sender::Stranger || postback.reason() != Reason::None {
            return Ok(());
        }
        self.hear(out, key, Lane(record.lane), &postback, at)
    }

    fn tick(&mut self, out: &mut Output<'_, '_>, now_ms: u64) -> Result<bool, Error> {
        let woken = out.batch.take_woken(WOKEN_MAX)?;
        let mut held = BTreeMap::<String, usize>::new();
        let mut is_busy = !woken.is_empty();
        for key in woken {
            if let Err(lacks) = self.complete_or_hold(out, &key)? {
                *held.entry(lacks).or_default() += 1;
            }
        }
        for (why, orders) in held {
            tracing::error!(
                orders,
                why,
                "orders whose click has come wait for their catalog version, the others are completed"
            );
        }
        if now_ms.abs_diff(self.looked_ms) >= LOOK_EVERY_MS {
            self.looked_ms = now_ms;
            // One attempt tells of all that lack the same.
            for (key, lacks) in out.batch.held_firsts()? {
                if self.complete_or_hold(out, &key)?.is_ok() {
                    out.batch.wake_held(&lacks)?;
                    is_busy = true;
                }
            }
        }
        Ok(is_busy)
    }
}

/// Adds a line to its bucket, or takes it back.
fn count(out: &mut Output<'_, '_>, line: &Line, partition: u16, sign: i64) -> Result<(), Error> {
    let mut add = |currency: &str, change: Change| -> Result<(), Error> {
        let row = RollupKey {
            cube: Cube::Traffic,
            bucket_ms: bucket(line.time_ms),
            offer: line.offer,
            affiliate: line.affiliate,
            link: line.link,
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
    if line.amount_micros != 0 {
        add(
            &line.currency,
            Change {
                amount: sign * line.amount_micros,
                ..Change::default()
            },
        )?;
    }
    add(
        &line.revenue_currency,
        Change {
            revenue: sign * line.revenue_micros,
            ..Change::default()
        },
    )?;
    add(
        &line.payout_currency,
        Change {
            payout: sign * line.payout_micros,
            ..Change::default()
        },
    )
}
