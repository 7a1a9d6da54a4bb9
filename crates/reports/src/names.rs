//! The names of numbers, also of entries the catalog no longer has.

use catalog::{Catalog, UNKNOWN};
use domain::event::Reason;
use domain::{Advertiser, Affiliate, Domain, Link, Offer};

/// What number 0 reads as.
pub(crate) const NONE: &str = "(none)";

pub(crate) fn advertiser(catalog: &Catalog, number: u32) -> String {
    named(
        u64::from(number),
        Advertiser::new(number).map(|n| catalog.advertiser_name(n)),
    )
}

pub(crate) fn affiliate(catalog: &Catalog, number: u32) -> String {
    named(
        u64::from(number),
        Affiliate::new(number).map(|n| catalog.affiliate_name(n)),
    )
}

pub(crate) fn domain(catalog: &Catalog, number: u32) -> String {
    named(
        u64::from(number),
        Domain::new(number).map(|n| catalog.domain_name(n)),
    )
}

pub(crate) fn link(catalog: &Catalog, number: u64) -> String {
    named(number, Link::new(number).map(|n| catalog.link_name(n)))
}

pub(crate) fn offer(catalog: &Catalog, number: u32) -> String {
    named(
        u64::from(number),
        Offer::new(number).map(|n| catalog.offer_name(n)),
    )
}

/// The number of the advertiser of an offer; 0 for a number never handed out.
pub(crate) fn advertiser_of(catalog: &Catalog, offer: u32) -> u32 {
    Offer::new(offer)
        .and_then(|number| catalog.offer_advertiser(number))
        .map_or(0, Advertiser::get)
}

pub(crate) fn reason(code: u32) -> String {
    i32::try_from(code)
        .ok()
        .and_then(|code| Reason::try_from(code).ok())
        .map_or_else(|| format!("#{code}"), Reason::name)
}

/// The code of a reason's name.
pub(crate) fn reason_code(name: &str) -> Option<u32> {
    let reason = Reason::from_str_name(&format!("REASON_{}", name.to_ascii_uppercase()))?;
    (reason.name() == name).then_some(reason as u32)
}

fn named(number: u64, name: Option<&str>) -> String {
    match name {
        _ if number == 0 => NONE.to_owned(),
        None | Some(UNKNOWN) => format!("#{number}"),
        Some(name) => name.to_owned(),
    }
}
