//! What a postback means: one function a field, each with the reasons that the field can be refused for.

use catalog::Catalog;
use domain::event::{Postback, Reason, Status, Trust};
use domain::token::Refused;
use domain::{Advertiser, Currency, Keyring, Micros, Offer, Target, Token};

use super::form::Form;
use super::sender::{self, Claim};
use crate::live::Live;
use crate::request::cut;
use crate::secrets::Secrets;

/// Longest order id.
const ORDER_BYTES_MAX: usize = 128;
const GOAL_BYTES_MAX: usize = 100;
const AMOUNT_BYTES_MAX: usize = 32;
const TOKEN_TEXT_BYTES_MAX: usize = 64;
/// How far `time` may be ahead of the edge's clock. A time of next century, as milliseconds read as seconds give, would
/// stand above everything that is said of the order later.
const AHEAD_US_MAX: i64 = 24 * 3_600 * 1_000_000;

/// The first thing that is wrong is the reason; everything after it is still written down.
#[derive(Debug, Default)]
struct Wrong(Reason);

impl Wrong {
    fn note(&mut self, reason: Reason) {
        if self.0 == Reason::None {
            self.0 = reason;
        }
    }

    /// The value, or where it is refused the default.
    fn or_note<T: Default>(&mut self, read: Result<T, Reason>) -> T {
        read.unwrap_or_else(|reason| {
            self.note(reason);
            T::default()
        })
    }
}

/// Works out what a form means. Numbers of the catalog are filled in as far as the token leads to them.
pub(super) fn understand(
    live: &Live,
    secrets: &Secrets,
    keyring: &Keyring,
    form: &Form,
    secret: Option<&[u8]>,
    now_ms: u64,
) -> Postback {
    let catalog = live.table.catalog();
    let mut wrong = Wrong::default();
    if !form.is_sound() || form.text("order").len() > ORDER_BYTES_MAX {
        wrong.note(Reason::Malformed);
    }
    let mut postback = Postback {
        catalog_version: catalog.version,
        catalog_hash: catalog.hash,
        goal_text: kept(form, "goal", GOAL_BYTES_MAX),
        order: kept(form, "order", ORDER_BYTES_MAX),
        amount_text: kept(form, "amount", AMOUNT_BYTES_MAX),
        ..Postback::default()
    };
    for name in [
        "token", "order", "goal", "adv", "currency", "status", "amount",
    ] {
        if form.is_encoded(name) {
            wrong.note(Reason::NotUtf8);
        }
    }
    for name in ["token", "order", "goal", "adv"] {
        if form.is_placeholder(name) {
            wrong.note(Reason::Placeholder);
        }
    }

    let token = token(keyring, form);
    if token.is_err() {
        postback.token_text = kept(form, "token", TOKEN_TEXT_BYTES_MAX);
    }
    let claim = claim(live, form, token.ok().flatten());
    match token {
        Ok(Some(token)) => fill_in(&mut postback, catalog, token),
        Ok(None) if form.text("adv").is_empty() => wrong.note(Reason::TokenMissing),
        Ok(None) if form.text("order").is_empty() => wrong.note(Reason::OrderMissing),
        Ok(None) => {}
        Err(reason) => wrong.note(reason),
    }
    let advertiser = claim.advertiser();
    postback.advertiser = advertiser.map_or(0, Advertiser::get);
    let trust: Trust = wrong.or_note(sender::trust(secrets, claim, secret));
    postback.trust = trust.into();

    let status = wrong.or_note(status(form));
    postback.status = status.into();
    let goal = goal(catalog, &postback, form, advertiser);
    let (goal, goal_name) = wrong.or_note(goal);
    (postback.goal, postback.goal_name) = (goal, goal_name);
    if let Some(currency) = wrong.or_note(currency(catalog, form, advertiser)) {
        postback.currency = currency.code().to_owned();
        if let Some(amount) = wrong.or_note(amount(form, currency)) {
            postback.has_amount = true;
            postback.amount_micros = amount.0;
        }
    } else if !form.text("amount").is_empty() {
        wrong.note(Reason::AmountMalformed);
    }
    postback.seq = wrong.or_note(seq(form));
    postback.said_us = wrong.or_note(time(form, now_ms));
    postback.reason = wrong.0.into();
    postback
}

/// A text as it is recorded: cut, and without what could steer a terminal.
fn kept(form: &Form, name: &str, bytes_max: usize) -> String {
    let mut text = cut(form.text(name), bytes_max).to_owned();
    text.retain(|c| !c.is_control());
    text
}

fn token(keyring: &Keyring, form: &Form) -> Result<Option<Token>, Reason> {
    match form.text("token") {
        "" => Ok(None),
        text => match keyring.open(text.as_bytes()) {
            Ok(token) => Ok(Some(token)),
            Err(Refused::Malformed) => Err(Reason::TokenMalformed),
            Err(Refused::Lowercased) => Err(Reason::TokenLowercased),
            Err(Refused::Forged) => Err(Reason::TokenForged),
        },
    }
}

fn claim(live: &Live, form: &Form, token: Option<Token>) -> Claim {
    let catalog = live.table.catalog();
    let offer = token.and_then(|token| catalog.target(token.target));
    let named = match form.text("adv") {
        "" => None,
        name => Some(live.advertiser(&name.to_ascii_lowercase())),
    };
    Claim {
        owner: offer.and_then(|(offer, _)| catalog.offer_advertiser(offer)),
        named,
    }
}

/// What the token leads to.
fn fill_in(postback: &mut Postback, catalog: &Catalog, token: Token) {
    postback.token = token.to_bytes().to_vec();
    if let Target::Link(link) = token.target {
        postback.link = link.get();
    }
    if let Some((offer, affiliate)) = catalog.target(token.target) {
        postback.offer = offer.get();
        postback.affiliate = affiliate.get();
    }
}

fn status(form: &Form) -> Result<Status, Reason> {
    Ok(match form.text("status").to_ascii_lowercase().as_str() {
        "" | "approved" => Status::Approved,
        "pending" => Status::Pending,
        "rejected" => Status::Rejected,
        "reversed" => Status::Reversed,
        "reinstated" => Status::Reinstated,
        _ => return Err(Reason::UnknownStatus),
    })
}

/// The goal's number and its name. Without a token there is no offer to look a goal up in, and no number. What takes an order
/// away needs no goal, and may be of an offer that is gone.
fn goal(
    catalog: &Catalog,
    postback: &Postback,
    form: &Form,
    advertiser: Option<Advertiser>,
) -> Result<(u32, String), Reason> {
    let name = form.text("goal").to_ascii_lowercase();
    let takes_back = matches!(postback.status(), Status::Rejected | Status::Reversed);
    let offer = Offer::new(postback.offer).and_then(|offer| catalog.offers.get(&offer));
    let Some(offer) = offer else {
        if !postback.token.is_empty() && !takes_back {
            return Err(Reason::UnknownOffer);
        }
        let is_known = name.is_empty()
            || advertiser.is_some_and(|advertiser| sender::has_goal(catalog, advertiser, &name));
        return match is_known {
            true => Ok((0, name)),
            false => Err(Reason::UnknownGoal),
        };
    };
    if name.is_empty() {
        let mut goals = offer.goals.iter();
        return match (goals.next(), goals.next()) {
            (Some((number, goal)), None) => Ok((number.get(), goal.name.clone())),
            _ if takes_back => Ok((0, String::new())),
            _ => Err(Reason::GoalMissing),
        };
    }
    match offer.goal(&name) {
        Some((number, _)) => Ok((number.get(), name)),
        None => Err(Reason::UnknownGoal),
    }
}

fn currency(
    catalog: &Catalog,
    form: &Form,
    advertiser: Option<Advertiser>,
) -> Result<Option<Currency>, Reason> {
    let code = form.text("currency").to_ascii_uppercase();
    if code.is_empty() {
        let advertiser = advertiser.and_then(|advertiser| catalog.advertisers.get(&advertiser));
        return Ok(advertiser.map(|advertiser| advertiser.currency));
    }
    match Currency::parse(&code) {
        Some(currency) => Ok(Some(currency)),
        None if Currency::is_unpayable(&code) => Err(Reason::CurrencyNotPayable),
        None => Err(Reason::UnknownCurrency),
    }
}

fn amount(form: &Form, currency: Currency) -> Result<Option<Micros>, Reason> {
    let text = form.text("amount");
    if text.is_empty() {
        return Ok(None);
    }
    let amount = Micros::parse(text).ok_or(Reason::AmountMalformed)?;
    if amount > currency.order_max() {
        return Err(Reason::AmountAbsurd);
    }
    if !currency.can_charge(amount) {
        return Err(Reason::AmountTooFine);
    }
    Ok(Some(amount))
}

fn seq(form: &Form) -> Result<Option<i64>, Reason> {
    match form.text("seq") {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| Reason::SeqMalformed),
    }
}

/// RFC 3339, or a Unix time in seconds, milliseconds or microseconds, which are told apart by their length.
fn time(form: &Form, now_ms: u64) -> Result<Option<i64>, Reason> {
    let text = form.text("time");
    if text.is_empty() {
        return Ok(None);
    }
    let time_us = if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let number = |digits: &str| digits.parse::<i64>().map_err(|_| Reason::SeqMalformed);
        match whole.len() {
            ..=11 => number(whole)? * 1_000_000 + number(&format!("{fraction:0<6.6}"))?,
            12..=14 => number(whole)? * 1_000,
            _ => number(whole)?,
        }
    } else {
        let time: jiff::Timestamp = text.parse().map_err(|_| Reason::SeqMalformed)?;
        time.as_microsecond()
    };
    let now_us = i64::try_from(now_ms).unwrap_or(i64::MAX / 1_000) * 1_000;
    match time_us <= now_us.saturating_add(AHEAD_US_MAX) {
        true => Ok(Some(time_us)),
        false => Err(Reason::SeqMalformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postback::form::BodyKind;

    const NOW_MS: u64 = 1_795_000_000_000;

    fn form(text: &str) -> Form {
        Form::read(text, Some((BodyKind::Form, b"")))
    }

    #[test]
    fn times_are_told_apart_by_their_length() {
        for (text, expected) in [
            ("", Ok(None)),
            ("1790000000", Ok(Some(1_790_000_000_000_000))),
            ("1790000000.5", Ok(Some(1_790_000_000_500_000))),
            ("1790000000123", Ok(Some(1_790_000_000_123_000))),
            ("1790000000123456", Ok(Some(1_790_000_000_123_456))),
            ("1790000000.1.2", Err(Reason::SeqMalformed)),
            ("2026-09-21T14:13:20Z", Ok(Some(1_790_000_000_000_000))),
            (
                "2026-09-21T16:13:20%2B02:00",
                Ok(Some(1_790_000_000_000_000)),
            ),
            ("2026-09-21 14:13:20", Err(Reason::SeqMalformed)),
            ("yesterday", Err(Reason::SeqMalformed)),
            ("9999999999", Err(Reason::SeqMalformed)),
            ("1795000000", Ok(Some(1_795_000_000_000_000))),
        ] {
            let found = time(&form(&format!("time={text}")), NOW_MS);
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_number_of_the_sender_is_an_integer() {
        for (text, expected) in [
            ("", Ok(None)),
            ("7", Ok(Some(7))),
            ("-7", Ok(Some(-7))),
            ("7.0", Err(Reason::SeqMalformed)),
            ("{seq}", Err(Reason::SeqMalformed)),
        ] {
            assert_eq!(seq(&form(&format!("seq={text}"))), expected, "{text}");
        }
    }

    #[test]
    fn money_nobody_can_be_paid_is_refused_with_its_reason() {
        let jpy = Currency::parse("JPY").unwrap();
        let usd = Currency::parse("USD").unwrap();
        for (currency, text, expected) in [
            (usd, "", Ok(None)),
            (usd, "80.00", Ok(Some(Micros(80_000_000)))),
            (usd, "+80.00 ", Ok(Some(Micros(80_000_000)))),
            (usd, "80.001", Err(Reason::AmountTooFine)),
            (jpy, "80.5", Err(Reason::AmountTooFine)),
            (jpy, "80.0", Ok(Some(Micros(80_000_000)))),
            (usd, "999999999", Err(Reason::AmountAbsurd)),
            (usd, "80,00", Err(Reason::AmountMalformed)),
            (usd, "-80", Err(Reason::AmountMalformed)),
        ] {
            let found = amount(&form(&format!("amount={text}")), currency);
            assert_eq!(found, expected, "{currency} {text}");
        }
    }
}
