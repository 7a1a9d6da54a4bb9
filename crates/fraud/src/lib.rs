//! The consumer that looks at clicks over time and labels them. Labels only: what they mean for money is decided elsewhere.
//!
//! A verdict is a function of the set of clicks: a click that arrives late may make a later one a repeat, so both sides of
//! it are looked at. A label is said once.

use consumer::{Error, Handler, Output, decode};
use domain::event::{Class, Click, Decision, FraudSignal, Kind, Reason};
use domain::{ClickKey, Shard, Topic};
use prost::Message;
use stream::Record;

/// A second click of the same visitor on the same offer and affiliate within this time is nobody's second decision.
pub const REPEAT_MS: u64 = 2_000;

/// Folds `clicks`.
pub struct Fraud;

impl Handler for Fraud {
    const NAME: &'static str = "fraud";

    fn fold(&mut self, out: &mut Output<'_, '_>, record: &Record) -> Result<(), Error> {
        match Kind::from_number(record.kind) {
            Some(Kind::Click) => {}
            Some(Kind::Unmatched) => return Ok(()),
            _ => return Err(Error::unknown_type(record.kind)),
        }
        let click: Click = decode(record)?;
        let Some(key) = click.key.as_ref().map(ClickKey::from) else {
            return Err(Error::undecodable(record, "no key"));
        };
        if Shard::new(click.shard).is_none() {
            return Err(Error::undecodable(
                record,
                "its shard has more than 12 bits",
            ));
        }
        if click.decision() != Decision::Redirect || click.class() == Class::Head {
            return Ok(());
        }
        let signal = |click_key: ClickKey, reason: Reason, link: u64| FraudSignal {
            click: Some(click_key.into()),
            shard: click.shard,
            reason: reason.into(),
            offer: click.offer,
            affiliate: click.affiliate,
            link,
            visitor: click.visitor,
            catalog_version: click.catalog_version,
            catalog_hash: click.catalog_hash,
        };
        if click.class() == Class::Bot {
            say(out, key, &signal(key, Reason::DeclaredBot, click.link))?;
        }
        if click.visitor == 0 {
            return Ok(());
        }
        // Kept is what would be said of the click, should an earlier one turn up.
        let kept = signal(key, Reason::RepeatClick, click.link);
        out.batch.put_fraud_click(
            click.visitor,
            click.offer,
            click.affiliate,
            key,
            &kept.encode_to_vec(),
        )?;
        // The neighbours suffice: whatever follows the next one closely was labelled because of that one.
        let (visitor, offer, affiliate) = (click.visitor, click.offer, click.affiliate);
        let before = out.batch.fraud_before(visitor, offer, affiliate, key)?;
        if before.is_some_and(|(earlier, _)| key.time_ms - earlier.time_ms <= REPEAT_MS) {
            say(out, key, &kept)?;
        }
        let after = out.batch.fraud_after(visitor, offer, affiliate, key)?;
        if let Some((later, kept)) = after
            && later.time_ms - key.time_ms <= REPEAT_MS
        {
            let kept = FraudSignal::decode(&*kept).map_err(|error| {
                Error::Damaged(format!("a click that does not decode ({error})"))
            })?;
            say(out, later, &kept)?;
        }
        Ok(())
    }
}

/// Says a label once.
fn say(out: &mut Output<'_, '_>, click: ClickKey, signal: &FraudSignal) -> Result<(), Error> {
    let code = u32::try_from(signal.reason).unwrap_or(0);
    if !out.batch.put_flag(click, code)? {
        return Ok(());
    }
    let shard = Shard::new(signal.shard)
        .ok_or_else(|| Error::Damaged("a click whose shard has more than 12 bits".into()))?;
    out.say(
        Topic::FraudSignals,
        shard.lane(),
        Kind::FraudSignal,
        click.time_ms,
        &shard.get().to_be_bytes(),
        signal,
    )
}
