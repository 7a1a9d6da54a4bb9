//! What an order is worth and to whom, from everything said of it. Pure.
//!
//! What counts is what the advertiser's server said and the edge understood whole: the first such postback gives the token,
//! the first that names an amount the amount, the last one the status. What says the same as an earlier one is a repeat and
//! not kept, so that a late retry undoes no reversal. One that was answered with an error changes nothing that a good one
//! said, before or after. Without any good word the order pays nothing and says why.

use catalog::Catalog;
use domain::event::{Candidate, Click, Conversion, Postback, Reason, Status, Trust};
use domain::{ClickKey, Currency, Goal, Micros, Offer, Target, Token};
use store::OrderKey;

/// The postback that gives the token: the first good one, the first trusted one, the first.
pub(crate) fn basis(postbacks: &[(ClickKey, Postback)]) -> Option<&(ClickKey, Postback)> {
    let first = |wanted: fn(&Postback) -> bool| postbacks.iter().find(|said| wanted(&said.1));
    first(is_good)
        .or_else(|| first(is_trusted))
        .or_else(|| postbacks.first())
}

fn is_trusted(said: &Postback) -> bool {
    said.trust() == Trust::Server
}

fn is_good(said: &Postback) -> bool {
    is_trusted(said) && said.reason() == Reason::None
}

/// The postback that gives the amount.
fn amount(postbacks: &[(ClickKey, Postback)]) -> Option<(Micros, Currency)> {
    let mut named = postbacks.iter().map(|said| &said.1);
    let said = named.find(|said| is_good(said) && said.has_amount)?;
    Some((Micros(said.amount_micros), Currency::parse(&said.currency)?))
}

/// Works the conversion out. `postbacks` in key order, at least one; `facts` is the click of the basis' token, once known.
///
/// # Panics
/// Without a postback: an order exists because one named it.
pub fn settle(
    catalog: &Catalog,
    order: &OrderKey,
    postbacks: &[(ClickKey, Postback)],
    facts: Option<&Click>,
) -> Conversion {
    let (at, said) = basis(postbacks).expect("an order exists because a postback named it");
    let trusted = is_trusted(said);
    let last = postbacks.iter().rev().find(|said| is_good(&said.1));
    let amount = amount(postbacks);
    let token = Token::from_bytes(&said.token);
    let mut conversion = Conversion {
        advertiser: order.advertiser,
        order: order.order.clone(),
        goal: order.goal,
        revision: 2 * postbacks.len() as u64 + u64::from(facts.is_some()),
        offer: said.offer,
        affiliate: said.affiliate,
        link: said.link,
        click: token.map(|token| token.click.into()),
        time_ms: at.time_ms,
        status: last.map_or(Status::Pending, |last| last.1.status()).into(),
        facts_pending: token.is_some() && facts.is_none(),
        ..Conversion::default()
    };
    if let Some((amount, currency)) = amount {
        conversion.currency = currency.code().to_owned();
        conversion.amount_micros = amount.0;
    }

    let reason = judge(catalog, &mut conversion, said, *at, token, amount);
    conversion.reason = reason.into();
    conversion.candidates = candidates(catalog, &conversion, token, facts, reason);
    match reason {
        Reason::None => conversion.paid = conversion.status() == Status::Approved,
        Reason::Unauthenticated | Reason::AmountMissing => {
            conversion.status = Status::Pending.into();
        }
        _ if trusted => conversion.status = Status::Rejected.into(),
        _ => conversion.status = Status::Pending.into(),
    }
    conversion.explanation = explain(&conversion, postbacks.len(), trusted);
    conversion
}

/// The first thing that keeps it from being paid; on the way there, what it is worth.
fn judge(
    catalog: &Catalog,
    conversion: &mut Conversion,
    said: &Postback,
    at: ClickKey,
    token: Option<Token>,
    amount: Option<(Micros, Currency)>,
) -> Reason {
    if !is_trusted(said) {
        // What the edge found wrong says more than that nobody vouched for it.
        return if said.reason() == Reason::None {
            Reason::Unauthenticated
        } else {
            said.reason()
        };
    }
    if said.reason() != Reason::None {
        return said.reason();
    }
    let Some(token) = token else {
        return Reason::TokenMissing;
    };
    let Some(offer) = Offer::new(said.offer).and_then(|offer| catalog.offers.get(&offer)) else {
        return Reason::UnknownOffer;
    };
    let Some(goal) = Goal::new(said.goal).and_then(|goal| offer.goals.get(&goal)) else {
        return Reason::UnknownGoal;
    };
    if at.time_ms.saturating_sub(token.click.time_ms) > offer.window_ms {
        return Reason::OutsideWindow;
    }
    let (Some(revenue), Some(payout)) = (goal.revenue.apply(amount), goal.payout.apply(amount))
    else {
        return Reason::AmountMissing;
    };
    conversion.revenue_micros = revenue.0.0;
    conversion.revenue_currency = revenue.1.code().to_owned();
    conversion.payout_micros = payout.0.0;
    conversion.payout_currency = payout.1.code().to_owned();
    Reason::None
}

/// Every click that could have been credited, the latest first, with the rule that kept or removed it.
fn candidates(
    catalog: &Catalog,
    conversion: &Conversion,
    token: Option<Token>,
    facts: Option<&Click>,
    reason: Reason,
) -> Vec<Candidate> {
    let Some(token) = token else {
        return Vec::new();
    };
    let mut tokens = vec![token];
    tokens.extend(
        facts
            .iter()
            .flat_map(|click| &click.history)
            .filter_map(|bytes| Token::from_bytes(bytes)),
    );
    tokens.sort_by_key(|token| std::cmp::Reverse(token.click));
    tokens.dedup();
    let describe = |candidate: Token| {
        let (offer, affiliate) = catalog.target(candidate.target).unzip();
        let link = match candidate.target {
            Target::Link(link) => link.get(),
            Target::Offer(..) => 0,
        };
        let advertiser = offer
            .and_then(|offer| catalog.offers.get(&offer))
            .map(|offer| offer.advertiser.get());
        let credited = candidate == token && reason == Reason::None;
        let rule = if candidate == token {
            match reason {
                Reason::None => {
                    let label = facts.map_or(Reason::None, Click::reason);
                    let label = match label {
                        Reason::None => String::new(),
                        label => format!(" (labelled {})", label.name().replace('_', " ")),
                    };
                    format!(
                        "kept: the last click before the order, within the offer's window{label}"
                    )
                }
                reason => format!("removed: {}", reason.name().replace('_', " ")),
            }
        } else if advertiser != Some(conversion.advertiser) {
            "removed: another advertiser's click".to_owned()
        } else {
            "removed: an earlier click, the offer credits the last".to_owned()
        };
        Candidate {
            click: Some(candidate.click.into()),
            offer: offer.map_or(0, Offer::get),
            affiliate: affiliate.map_or(0, domain::Affiliate::get),
            link,
            credited,
            rule,
        }
    };
    tokens.into_iter().map(describe).collect()
}

fn explain(conversion: &Conversion, postbacks: usize, trusted: bool) -> String {
    let said = match (postbacks, trusted) {
        (1, true) => "one postback, sent with the advertiser's secret".to_owned(),
        (n, true) => format!(
            "{n} postbacks; the first good one gives the token, the first with an amount the amount, the last the status"
        ),
        (n, false) => {
            format!("{n} postback(s), none sent with the advertiser's secret: it pays nothing")
        }
    };
    match conversion.reason() {
        Reason::None => said,
        reason => format!("{said}; {}", reason.name().replace('_', " ")),
    }
}
