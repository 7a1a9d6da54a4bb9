//! The consumer that folds clicks, and the labels fraud finds for them later, into rollups.
//!
//! Every click of a (day, visitor, offer, affiliate) is kept as a mark. What it adds to its bucket is a function of the
//! marks alone: labelled ones are invalid, the earliest of the others is unique, the rest are duplicates; those without a
//! person are anonymous. A label may come
//! before its click, an earlier click after a later one: the difference is taken back and added, so the store ends the same.

mod marks;

use consumer::{Error, Handler, Output, Versions, decode};
use domain::event::{Class, Click, Decision, FraudSignal, Kind, Reason, Unmatched};
use domain::{ClickKey, Day, time::bucket};
use store::{Change, Cube, MarkGroup, RollupKey, Source};
use stream::Record;

/// The code of this consumer in the source of rollup rows. A row belongs to the partition it was counted from; sums are over all
/// of them.
const SOURCE: u8 = 1;

/// Folds `clicks` and `fraud-signals`.
pub struct Clicks {
    versions: Versions,
}

impl Clicks {
    /// Days begin in the time zone of the catalog version a click names.
    pub fn new(versions: Versions) -> Self {
        Self { versions }
    }

    fn click(&mut self, out: &mut Output<'_, '_>, record: &Record) -> Result<(), Error> {
        let click: Click = decode(record)?;
        let key = key(click.key.as_ref(), record)?;
        let row = |reason: Reason| RollupKey {
            cube: Cube::Traffic,
            bucket_ms: bucket(key.time_ms),
            offer: click.offer,
            affiliate: click.affiliate,
            link: click.link,
            reason: reason as u32,
            currency: String::new(),
            source: Source {
                consumer: SOURCE,
                partition: out.partition,
            },
        };
        if click.offer == 0 && click.link == 0 {
            return Ok(out.batch.add_rollup(
                &row(click.reason()),
                &Change {
                    unmatched: 1,
                    ..Change::default()
                },
            )?);
        }
        if click.class() == Class::Speculative {
            return Ok(out.batch.add_rollup(
                &row(Reason::Speculative),
                &Change {
                    speculative: 1,
                    ..Change::default()
                },
            )?);
        }
        out.batch.put_click(key, &record.value)?;
        if click.decision() != Decision::Redirect || click.class() == Class::Head {
            return Ok(out.batch.add_rollup(
                &row(click.reason()),
                &Change {
                    invalid: 1,
                    ..Change::default()
                },
            )?);
        }
        let group = self.group(
            key,
            (click.catalog_version, click.catalog_hash),
            click.visitor,
            click.offer,
            click.affiliate,
        )?;
        // The edge knows a declared bot at once: it is never valid for a while.
        let label = match click.class() {
            Class::Bot => bit(Reason::DeclaredBot),
            _ => 0,
        };
        marks::change(out, SOURCE, &group, key, click.link, |mark| {
            mark.seen = true;
            mark.reasons |= label;
        })
    }

    fn signal(&mut self, out: &mut Output<'_, '_>, record: &Record) -> Result<(), Error> {
        let signal: FraudSignal = decode(record)?;
        let key = key(signal.click.as_ref(), record)?;
        let group = self.group(
            key,
            (signal.catalog_version, signal.catalog_hash),
            signal.visitor,
            signal.offer,
            signal.affiliate,
        )?;
        let reason = Reason::try_from(signal.reason).unwrap_or_default();
        if reason == Reason::None {
            return Err(Error::unknown_type(format_args!(
                "FraudSignal with reason {}",
                signal.reason
            )));
        }
        marks::change(out, SOURCE, &group, key, signal.link, |mark| {
            mark.reasons |= bit(reason);
        })
    }

    fn group(
        &mut self,
        key: ClickKey,
        (version, hash): (u32, u64),
        visitor: u64,
        offer: u32,
        affiliate: u32,
    ) -> Result<MarkGroup, Error> {
        let catalog = self.versions.get(version, hash)?;
        let zone = catalog.network.zone().map_err(|error| {
            Error::event(
                consumer::Reason::CatalogVersion,
                format!("time zone of catalog version {version}: {error}"),
            )
        })?;
        Ok(MarkGroup {
            day: Day::of(key.time_ms, &zone).0,
            visitor,
            offer,
            affiliate,
        })
    }
}

impl Handler for Clicks {
    const NAME: &'static str = "clicks";

    fn fold(&mut self, out: &mut Output<'_, '_>, record: &Record) -> Result<(), Error> {
        match Kind::from_number(record.kind) {
            Some(Kind::Click) => self.click(out, record),
            Some(Kind::FraudSignal) => self.signal(out, record),
            Some(Kind::Unmatched) => {
                let unmatched: Unmatched = decode(record)?;
                let row = RollupKey {
                    cube: Cube::Traffic,
                    bucket_ms: bucket(unmatched.minute_ms),
                    offer: 0,
                    affiliate: 0,
                    link: 0,
                    reason: u32::try_from(unmatched.reason).unwrap_or(0),
                    currency: String::new(),
                    source: Source {
                        consumer: SOURCE,
                        partition: out.partition,
                    },
                };
                let count = i64::try_from(unmatched.count).unwrap_or(i64::MAX);
                Ok(out.batch.add_rollup(
                    &row,
                    &Change {
                        unmatched: count,
                        ..Change::default()
                    },
                )?)
            }
            _ => Err(Error::unknown_type(record.kind)),
        }
    }
}

/// The bit of a reason in a mark: codes are below 64.
fn bit(reason: Reason) -> u64 {
    1 << (reason as u32)
}

fn key(key: Option<&domain::event::ClickKey>, record: &Record) -> Result<ClickKey, Error> {
    key.map(ClickKey::from)
        .ok_or_else(|| Error::undecodable(record, "no key"))
}
