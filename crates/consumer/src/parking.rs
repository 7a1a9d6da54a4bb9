//! Events that cannot be folded: they are parked in the transaction that moves over them, so that nothing behind them waits.
//!
//! An event whose catalog version is not here waits for it up to [`WAIT_MS`] and is then set aside; it is folded as soon as
//! the version comes, however late. Every other one is set aside at once, and attempted again when somebody asks for it. A
//! fold does not depend on the order of its events, so that an event folded later leaves what it would have left in its turn.

use domain::event::Kind;
use store::{Parked, ParkedEvent};
use stream::{FOREIGN, Record, StreamId};

use crate::{Error, Handler, Output, Reason, Refusal};

/// How long an event waits for its catalog version: far longer than a version takes to every machine.
pub const WAIT_MS: u64 = 60_000;

/// How often parked events are looked at.
pub(crate) const LOOK_EVERY_MS: u64 = 1000;

/// Attempts in one transaction, so that it stays short.
pub(crate) const ATTEMPTS_MAX: u32 = 500;

/// What became of events that could not be folded, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parking {
    /// Events were set aside.
    SetAside {
        /// Why.
        reason: Reason,
        /// How many.
        events: u64,
    },
    /// So many are set aside now.
    Now(u64),
}

/// Folds one record. What the stream could not read is refused here, the rest by the handler.
pub(crate) fn fold<H: Handler>(
    handler: &mut H,
    out: &mut Output<'_, '_>,
    record: &Record,
) -> Result<(), Error> {
    if record.kind == FOREIGN {
        return Err(Error::event(
            Reason::Foreign,
            "it has none of the headers that every record of Sluice has: somebody else wrote it to the topic",
        ));
    }
    let Some((name, value)) = record.unknown_type() else {
        return handler.fold(out, record);
    };
    let kind = Kind::from_name(name).ok_or_else(|| Error::unknown_type(name))?;
    let known = Record {
        kind: kind as u16,
        value: value.to_vec(),
        ..record.clone()
    };
    handler.fold(out, &known)
}

/// Folds one record as a part of the batch: an event that cannot be folded leaves nothing behind.
pub(crate) fn attempt<H: Handler>(
    handler: &mut H,
    out: &mut Output<'_, '_>,
    record: &Record,
) -> Result<Result<(), Refusal>, Error> {
    out.batch.begin_part()?;
    match fold(handler, out, record) {
        Ok(()) => {
            out.batch.keep_part()?;
            Ok(Ok(()))
        }
        Err(Error::Event(refusal)) => {
            out.batch.undo_part()?;
            Ok(Err(refusal))
        }
        Err(error) => Err(error),
    }
}

pub(crate) fn waits_until(reason: Reason, now_ms: u64) -> Option<u64> {
    (reason == Reason::CatalogVersion).then_some(now_ms + WAIT_MS)
}

/// The row of a record.
pub(crate) fn event(
    (consumer, topic, partition): (&str, u8, u16),
    (offset, record): (u64, &Record),
    refusal: &Refusal,
    now_ms: u64,
) -> ParkedEvent {
    ParkedEvent {
        consumer: consumer.to_owned(),
        topic,
        partition,
        offset,
        stream: record.origin.0,
        lane: record.lane,
        n: record.n,
        kind: record.kind,
        version: record.version,
        time_ms: record.time_ms,
        key: record.key.clone(),
        bytes: record.value.clone(),
        reason: refusal.reason.name().to_owned(),
        detail: refusal.detail.clone(),
        at_ms: now_ms,
        waits_until_ms: waits_until(refusal.reason, now_ms),
    }
}

/// The record of a row.
pub(crate) fn record(parked: &Parked) -> Record {
    let event = &parked.event;
    Record {
        key: event.key.clone(),
        kind: event.kind,
        version: event.version,
        origin: StreamId(event.stream),
        lane: event.lane,
        n: event.n,
        time_ms: event.time_ms,
        value: event.bytes.clone(),
    }
}
