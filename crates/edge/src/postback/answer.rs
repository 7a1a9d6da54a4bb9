//! The answer to a postback. It says what the edge knows: what was recorded under which `id`, what was understood, and what is
//! wrong with it. What becomes of the order is an event that is read by this `id`: no edge reads a store.

use catalog::Catalog;
use domain::event::{Postback, Reason, Status, Trust};
use domain::{ClickKey, Goal, Micros, Offer, Rate};
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::form::Form;
use crate::answer::{self, Answer};

/// What a postback may say.
const KNOWN: [&str; 10] = [
    "token", "order", "goal", "amount", "currency", "status", "adv", "secret", "seq", "time",
];

/// The answer once the postback is on disk.
pub(super) fn recorded(
    catalog: &Catalog,
    postback: &Postback,
    at: ClickKey,
    form: &Form,
    has_secret: bool,
) -> Answer {
    let mut body = Map::new();
    // First, because a person who reads "recorded" has read enough.
    if postback.reason() != Reason::None {
        body.insert("accepted".into(), false.into());
    }
    body.insert("recorded".into(), true.into());
    body.insert("id".into(), at.to_string().into());
    body.insert("asked".into(), asked(postback));
    if let Some(missing) = missing(catalog, postback) {
        body.insert("missing".into(), missing.into());
    }
    if postback.reason() != Reason::None {
        body.insert("reason".into(), postback.reason().name().into());
    }
    let ignored: Vec<&str> = form.ignored(&KNOWN).collect();
    if !ignored.is_empty() {
        body.insert("ignored".into(), json!(ignored));
    }
    answer::json(status(postback.reason(), has_secret), &body.into())
}

fn status(reason: Reason, has_secret: bool) -> StatusCode {
    match reason {
        Reason::None => StatusCode::OK,
        // A wrong secret is a sender's mistake that it must hear of; none at all is somebody who never had one.
        Reason::Unauthenticated if !has_secret => StatusCode::ACCEPTED,
        Reason::Unauthenticated | Reason::TokenForeign => StatusCode::FORBIDDEN,
        // Recorded without trust; the sender comes again until the secret can be read.
        Reason::SecretUnreadable => StatusCode::SERVICE_UNAVAILABLE,
        Reason::UnknownOffer
        | Reason::UnknownGoal
        | Reason::GoalMissing
        | Reason::AmountMalformed
        | Reason::AmountTooFine
        | Reason::AmountAbsurd
        | Reason::UnknownCurrency
        | Reason::CurrencyNotPayable
        | Reason::UnknownStatus
        | Reason::Placeholder
        | Reason::NotUtf8
        | Reason::SeqMalformed => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// What was understood. Names of the catalog that the sender did not write are told only to the advertiser.
fn asked(postback: &Postback) -> Value {
    let is_trusted = postback.trust() == Trust::Server;
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let goal = text(&postback.goal_name).filter(|_| is_trusted);
    let status = postback.status().as_str_name();
    let mut asked = Map::new();
    let is_known = postback.status() != Status::Unspecified;
    let status = is_known.then(|| status.trim_start_matches("STATUS_").to_ascii_lowercase());
    asked.insert("status".into(), status.into());
    let amount = postback
        .has_amount
        .then(|| Micros(postback.amount_micros).to_string());
    asked.insert("amount".into(), amount.into());
    if postback.has_amount && is_trusted {
        asked.insert("currency".into(), postback.currency.as_str().into());
    }
    asked.insert("order".into(), text(&postback.order).into());
    let goal = goal.or_else(|| text(&postback.goal_text));
    asked.insert("goal".into(), goal.into());
    asked.into()
}

/// What a good postback may have left out: it is not wrong, and alone it does not lead to a payout.
fn missing(catalog: &Catalog, postback: &Postback) -> Option<&'static str> {
    let reports_sale = matches!(postback.status(), Status::Approved | Status::Pending);
    if postback.reason() != Reason::None || !reports_sale {
        return None;
    }
    if postback.token.is_empty() {
        // It changes an order that is known by its token already.
        return Some("token");
    }
    (!postback.has_amount && needs_amount(catalog, postback)).then_some("amount")
}

/// Whether the goal pays a percentage, which is nothing before an amount is named.
fn needs_amount(catalog: &Catalog, postback: &Postback) -> bool {
    let offer = Offer::new(postback.offer).and_then(|offer| catalog.offers.get(&offer));
    let goal = Goal::new(postback.goal);
    let goal = offer.and_then(|offer| offer.goals.get(&goal?));
    goal.is_some_and(|goal| {
        [goal.revenue, goal.payout]
            .iter()
            .any(|rate| matches!(rate, Rate::Percent { .. }))
    })
}
