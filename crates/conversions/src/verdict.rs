//! What an order is worth and to whom, from where it stands. Pure.

use catalog::Catalog;
use domain::event::{Candidate, Class, Click, Conversion, Line, Match, Reason, Rule, Status};
use domain::{Affiliate, Currency, Micros, Offer, Target, Token};

use crate::life::Standing;

/// All of a conversion, in [`Line::share_millionths`].
const WHOLE: u32 = 1_000_000;

/// Works out what one goal of an order has become. `catalog` is the version in force when the first word came; `facts` is
/// the click of the credited token, once known.
pub(crate) fn conversion(
    catalog: &Catalog,
    standing: &Standing,
    goal: &str,
    facts: Option<&Click>,
) -> Conversion {
    let token = standing
        .credit
        .as_ref()
        .and_then(|credit| Token::from_bytes(&credit.token));
    let mut conversion = Conversion {
        goal: goal.to_owned(),
        click: token.map(|token| token.click.into()),
        time_ms: standing.time_ms,
        changed_ms: standing.changed_ms,
        status: Status::from(standing.status).into(),
        facts_pending: token.is_some() && facts.is_none(),
        catalog_version: standing.catalog.number,
        catalog_hash: standing.catalog.hash,
        ..Conversion::default()
    };
    if let Some(credit) = &standing.credit {
        conversion.offer = credit.offer;
        conversion.affiliate = credit.affiliate;
        conversion.link = credit.link;
        conversion.r#match = Match::Token.into();
    }
    if let Some(affiliate) = standing.affiliate {
        if affiliate != conversion.affiliate {
            // The link is another affiliate's.
            conversion.link = 0;
        }
        conversion.affiliate = affiliate;
        conversion.r#match = Match::Operator.into();
    }
    if let Some(amount) = standing.amount {
        conversion.currency = amount.currency.code().to_owned();
        conversion.amount_micros = amount.value.0;
    }

    let refused = worth(catalog, &mut conversion, standing, token, facts);
    // What the advertiser took back stays so, whatever else is wrong with it.
    let is_taken_back = standing.status.is_taken_back();
    let reason = refused.err().filter(|_| !is_taken_back).unwrap_or_default();
    conversion.candidates = candidates(catalog, &conversion, token, facts, reason);
    conversion.reason = reason.into();
    match reason {
        Reason::None => {}
        Reason::AmountMissing | Reason::TokenMissing => {
            conversion.status = Status::Pending.into();
        }
        _ => conversion.status = Status::Rejected.into(),
    }
    if conversion.status() == Status::Approved {
        conversion.after = vec![line(&conversion)];
    }
    conversion
}

/// Writes down what the conversion is worth, or says what keeps it from being worth anything.
fn worth(
    catalog: &Catalog,
    conversion: &mut Conversion,
    standing: &Standing,
    token: Option<Token>,
    facts: Option<&Click>,
) -> Result<(), Reason> {
    let token = token.ok_or(Reason::TokenMissing)?;
    let offer = Offer::new(conversion.offer).and_then(|offer| catalog.offers.get(&offer));
    let offer = offer.ok_or(Reason::UnknownOffer)?;
    let (_, goal) = offer.goal(&conversion.goal).ok_or(Reason::UnknownGoal)?;
    if standing.time_ms.saturating_sub(token.click.time_ms) > offer.window_ms {
        return Err(Reason::OutsideWindow);
    }
    if facts.is_some_and(|click| click.class() == Class::Head) {
        return Err(Reason::TokenOfHead);
    }
    let amount: Option<(Micros, Currency)> = standing
        .amount
        .map(|amount| (amount.value, amount.currency));
    let (Some(revenue), Some(payout)) = (goal.revenue.apply(amount), goal.payout.apply(amount))
    else {
        return Err(Reason::AmountMissing);
    };
    conversion.revenue_micros = revenue.0.0;
    conversion.revenue_currency = revenue.1.code().to_owned();
    conversion.payout_micros = payout.0.0;
    conversion.payout_currency = payout.1.code().to_owned();
    Ok(())
}

fn line(conversion: &Conversion) -> Line {
    Line {
        affiliate: conversion.affiliate,
        offer: conversion.offer,
        link: conversion.link,
        share_millionths: WHOLE,
        time_ms: conversion.time_ms,
        currency: conversion.currency.clone(),
        amount_micros: conversion.amount_micros,
        revenue_currency: conversion.revenue_currency.clone(),
        revenue_micros: conversion.revenue_micros,
        payout_currency: conversion.payout_currency.clone(),
        payout_micros: conversion.payout_micros,
    }
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
    let owner_of = |offer| catalog.offer_advertiser(offer);
    let owner = Offer::new(conversion.offer).and_then(owner_of);
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
        let is_of_token = candidate == token;
        let rule = if is_of_token {
            match reason {
                Reason::None => Rule::Credited,
                _ => Rule::Refused,
            }
        } else if offer.and_then(owner_of) != owner {
            Rule::OtherAdvertiser
        } else {
            Rule::EarlierClick
        };
        Candidate {
            click: Some(candidate.click.into()),
            offer: offer.map_or(0, Offer::get),
            affiliate: affiliate.map_or(0, Affiliate::get),
            link,
            credited: rule == Rule::Credited,
            rule: rule.into(),
            label: facts
                .filter(|_| is_of_token)
                .map_or(0, |click| click.reason),
        }
    };
    tokens.into_iter().map(describe).collect()
}
