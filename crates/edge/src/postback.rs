//! A postback: what an advertiser reports, checked for form and token, given its trust, and answered once it is durable.
//!
//! A token identifies, it never authorizes: it stands in every visitor's address bar. Trust comes from the secret of
//! the advertiser that owns the token's offer.

use std::borrow::Cow;
use std::collections::BTreeMap;

use domain::event::{self, Reason, Status, Trust, edge_record::Event};
use domain::token::Refused;
use domain::{Currency, Micros, Rate, Shard, Target, Topic};
use hyper::{StatusCode, header};
use serde_json::json;

use crate::answer::{self, Answer};
use crate::click::{Address, Asked};
use crate::live::Live;
use crate::parameters::{self, PARAMETERS_MAX};
use crate::request::cut;
use crate::secrets::{Ownership, Secrets};
use crate::worker::Worker;

/// Longest body of a POST.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024;
/// Longest order id.
const ORDER_BYTES_MAX: usize = 128;
const KNOWN: [&str; 8] = [
    "token", "order", "goal", "amount", "currency", "status", "adv", "secret",
];

/// Records a postback: the sequence to wait for and the answer to give then, or the answer to give at once. Without the
/// body that was announced, what the query says is kept as malformed.
pub(crate) fn record(
    worker: &Worker,
    live: &Live,
    asked: &Asked<'_>,
    body: Option<&[u8]>,
) -> Result<(u64, Answer), Box<Answer>> {
    let query = asked.head.uri.query().unwrap_or_default();
    let mut given: BTreeMap<Cow<'_, str>, Cow<'_, str>> = BTreeMap::new();
    let pairs =
        parameters::read(query.as_bytes()).chain(parameters::read(body.unwrap_or_default()));
    for parameter in pairs.take(PARAMETERS_MAX) {
        // The first of a repeated parameter wins.
        given.entry(parameter.name).or_insert(parameter.value.text);
    }
    let bearer = asked
        .head
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let secret = bearer.or_else(|| given.get("secret").map(|secret| secret.as_bytes()));

    let mut recorder = worker.recorder.borrow_mut();
    let Some(key) = recorder.next() else {
        worker.metrics.recorded(false);
        return Err(Box::new(unrecorded()));
    };
    let said = |name: &str| given.get(name).map_or("", |value| &**value);
    let token = match said("token") {
        "" => Err(Reason::TokenMissing),
        text => recorder
            .keyring
            .open(text.as_bytes())
            .map_err(|refused| match refused {
                Refused::Malformed => Reason::TokenMalformed,
                Refused::Lowercased => Reason::TokenLowercased,
                Refused::Forged => Reason::TokenForged,
            }),
    };
    let mut postback = understood(
        live,
        &worker.secrets.load(),
        &given,
        secret,
        token,
        body.is_some(),
    );
    postback.key = Some(key.into());
    let shard = shard(recorder.seed, &postback);
    postback.shard = shard.get().into();
    let answer = answered(live, &postback, &given, secret.is_some());
    let sequence = recorder.append(
        Topic::Postbacks,
        shard,
        Address::of(asked.client, false).bytes(),
        Event::Postback(postback),
    );
    worker.metrics.recorded(sequence.is_some());
    match sequence {
        Some(sequence) => Ok((sequence, answer)),
        None => Err(Box::new(unrecorded())),
    }
}

/// A lost sale costs the sale: its sender is asked to come again.
fn unrecorded() -> Answer {
    answer::text(
        StatusCode::SERVICE_UNAVAILABLE,
        "the postback cannot be recorded at the moment: send it again",
    )
}

fn understood(
    live: &Live,
    secrets: &Secrets,
    given: &BTreeMap<Cow<'_, str>, Cow<'_, str>>,
    secret: Option<&[u8]>,
    token: Result<domain::Token, Reason>,
    whole: bool,
) -> event::Postback {
    let catalog = live.table.catalog();
    let said = |name: &str| given.get(name).map_or("", |value| &**value);
    let mut postback = event::Postback {
        catalog_version: catalog.version,
        catalog_hash: catalog.hash,
        goal_text: cut(said("goal"), 100).to_owned(),
        order: cut(said("order"), ORDER_BYTES_MAX).to_owned(),
        amount_text: cut(said("amount"), 32).to_owned(),
        ..event::Postback::default()
    };
    // The first thing that is wrong is the reason; everything after it is still written down.
    let mut reason = Reason::None;
    let mut wrong = |why: Reason| {
        if reason == Reason::None {
            reason = why;
        }
    };
    let hostile = |text: &str| text.contains(['\r', '\n', '\0']);
    if !whole
        || given
            .iter()
            .any(|(name, value)| hostile(name) || hostile(value))
        || said("order").len() > ORDER_BYTES_MAX
    {
        wrong(Reason::Malformed);
        for text in [
            &mut postback.goal_text,
            &mut postback.order,
            &mut postback.amount_text,
        ] {
            text.retain(|c| !c.is_control());
        }
    }

    // Whose offer it is.
    let named = (!said("adv").is_empty()).then(|| live.advertiser(said("adv")));
    let mut owner = None;
    match token {
        Ok(token) => {
            postback.token = token.to_bytes().to_vec();
            if let Target::Link(link) = token.target {
                postback.link = link.get();
            }
            let (offer, affiliate) = catalog.target(token.target).unzip();
            postback.offer = offer.map_or(0, domain::Offer::get);
            postback.affiliate = affiliate.map_or(0, domain::Affiliate::get);
            owner = offer.and_then(|offer| catalog.offer_advertiser(offer));
            if owner.is_none() {
                wrong(Reason::UnknownOffer);
            }
            if named
                .flatten()
                .is_some_and(|named| owner.is_some_and(|owner| owner != named))
            {
                wrong(Reason::TokenForeign);
            }
        }
        Err(why) => {
            postback.token_text = cut(said("token"), 64)
                .chars()
                .filter(|c| !c.is_control())
                .collect();
            wrong(why);
        }
    }
    if named == Some(None) {
        wrong(Reason::UnknownAdvertiser);
    }
    let advertiser = owner.or(named.flatten());
    postback.advertiser = advertiser.map_or(0, domain::Advertiser::get);

    // Who speaks.
    match (advertiser, secret) {
        (Some(advertiser), Some(secret)) => match secrets.ownership(advertiser, secret) {
            Ownership::Own if named.is_none_or(|named| named == Some(advertiser)) => {
                postback.trust = Trust::Server.into();
            }
            Ownership::Own | Ownership::Foreign => wrong(Reason::TokenForeign),
            Ownership::Unreadable => wrong(Reason::SecretUnreadable),
            Ownership::Unknown => wrong(Reason::Unauthenticated),
        },
        _ => wrong(Reason::Unauthenticated),
    }

    // What is reported. The goals of an offer that is gone are known by name only, and pay nothing.
    let offer = domain::Offer::new(postback.offer);
    if offer.is_some_and(|offer| !catalog.offers.contains_key(&offer)) {
        wrong(Reason::UnknownOffer);
    }
    if let Some(offer) = offer.and_then(|offer| catalog.offers.get(&offer)) {
        let found = match said("goal") {
            "" if offer.goals.len() == 1 => offer.goals.keys().next(),
            "" => None,
            name => offer
                .goals
                .iter()
                .find(|(_, goal)| goal.name == name)
                .map(|(number, _)| number),
        };
        match found {
            Some(goal) => postback.goal = goal.get(),
            None => wrong(if said("goal").is_empty() {
                Reason::GoalMissing
            } else {
                Reason::UnknownGoal
            }),
        }
    }
    let currency = match said("currency") {
        "" => advertiser
            .and_then(|advertiser| catalog.advertisers.get(&advertiser))
            .map(|advertiser| advertiser.currency),
        code => Currency::parse(&code.to_ascii_uppercase()),
    };
    if currency.is_none() && !said("currency").is_empty() {
        wrong(Reason::UnknownCurrency);
    }
    postback.currency = currency
        .map(|currency| currency.code().to_owned())
        .unwrap_or_default();
    match (said("amount"), Micros::parse(said("amount"))) {
        ("", _) => {}
        (_, Some(amount)) if currency.is_some() => {
            postback.has_amount = true;
            postback.amount_micros = amount.0;
        }
        _ => wrong(Reason::AmountMalformed),
    }
    let status = match said("status").to_ascii_lowercase().as_str() {
        "" | "approved" => Status::Approved,
        "pending" => Status::Pending,
        "rejected" => Status::Rejected,
        "reversed" => Status::Reversed,
        _ => {
            wrong(Reason::UnknownStatus);
            Status::Pending
        }
    };
    postback.status = status.into();
    postback.reason = reason.into();
    postback
}

/// Postbacks shard by advertiser and order, or by the token where there is none.
fn shard(seed: u64, postback: &event::Postback) -> Shard {
    let mut bytes = postback.advertiser.to_le_bytes().to_vec();
    if postback.order.is_empty() {
        bytes.extend_from_slice(&postback.token);
        bytes.extend_from_slice(postback.token_text.as_bytes());
    } else {
        bytes.extend_from_slice(postback.order.as_bytes());
    }
    Shard::of(seed, &bytes)
}

/// Whether the goal pays a percentage, which is nothing before an amount is named.
fn needs_amount(catalog: &catalog::Catalog, postback: &event::Postback) -> bool {
    let offer = domain::Offer::new(postback.offer).and_then(|offer| catalog.offers.get(&offer));
    let goal = domain::Goal::new(postback.goal);
    let goal = offer.and_then(|offer| offer.goals.get(&goal?));
    goal.is_some_and(|goal| {
        [goal.revenue, goal.payout]
            .iter()
            .any(|rate| matches!(rate, Rate::Percent { .. }))
    })
}

/// One line that says what was understood.
fn answered(
    live: &Live,
    postback: &event::Postback,
    given: &BTreeMap<Cow<'_, str>, Cow<'_, str>>,
    has_secret: bool,
) -> Answer {
    let catalog = live.table.catalog();
    let trusted = postback.trust() == Trust::Server;
    let status = match postback.reason() {
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
        | Reason::UnknownCurrency
        | Reason::UnknownStatus => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut said = serde_json::Map::new();
    said.insert("recorded".into(), true.into());
    said.insert(
        "trust".into(),
        if trusted { "server" } else { "none" }.into(),
    );
    let amount_missing = postback.reason() == Reason::None
        && !postback.has_amount
        && matches!(postback.status(), Status::Approved | Status::Pending)
        && needs_amount(catalog, postback);
    match postback.reason() {
        Reason::None if !amount_missing => {
            let name = postback.status().as_str_name();
            let name = name.trim_start_matches("STATUS_").to_ascii_lowercase();
            said.insert("status".into(), name.into());
        }
        Reason::None => {
            said.insert("status".into(), "pending".into());
        }
        Reason::Unauthenticated if !has_secret => {
            said.insert("status".into(), "pending".into());
        }
        // What is refused has no status.
        _ => {}
    }
    if amount_missing {
        said.insert("missing".into(), "amount".into());
    }
    if postback.reason() != Reason::None {
        said.insert("reason".into(), postback.reason().name().into());
    }
    if !postback.order.is_empty() {
        said.insert("order".into(), postback.order.as_str().into());
    }
    // Names of the catalog are told only to whoever proved to be the advertiser.
    if trusted {
        if let Some(offer) = domain::Offer::new(postback.offer) {
            said.insert("offer".into(), catalog.offer_name(offer).into());
        }
        if let Some(goal) = domain::Goal::new(postback.goal) {
            said.insert("goal".into(), catalog.goal_name(goal).into());
        }
        if postback.has_amount {
            said.insert(
                "amount".into(),
                Micros(postback.amount_micros).to_string().into(),
            );
            said.insert("currency".into(), postback.currency.as_str().into());
        }
    }
    let ignored: Vec<&str> = given
        .keys()
        .map(|name| &**name)
        .filter(|name| !KNOWN.contains(name))
        .collect();
    if !ignored.is_empty() {
        said.insert("ignored".into(), json!(ignored));
    }
    answer::json(status, &said.into())
}
