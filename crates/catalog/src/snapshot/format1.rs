//! The first format: everything in one postcard body, links and their names too.
//!
//! | magic | format | checksum | length | body |
//! |---|---|---|---|---|
//! | `SLUICECT` | u32 | u32, crc32c over length and body | u64 | postcard |

use std::collections::BTreeMap;

use serde::Deserialize;

use super::BODY_BYTES_MAX;
use crate::{
    Advertiser, Affiliate, Catalog, DomainEntry, GoalName, Link, LinkName, Names, Network, Offer,
    OfferName,
};

const HEAD_BYTES: usize = 24;

#[derive(Deserialize)]
struct Body {
    version: u32,
    lock_id: String,
    network: Network,
    domains: BTreeMap<domain::Domain, DomainEntry>,
    advertisers: BTreeMap<domain::Advertiser, Advertiser>,
    offers: BTreeMap<domain::Offer, Offer>,
    affiliates: BTreeMap<domain::Affiliate, Affiliate>,
    links: BTreeMap<domain::Link, Link>,
    names: BodyNames,
}

#[derive(Deserialize)]
struct BodyNames {
    domains: BTreeMap<domain::Domain, String>,
    advertisers: BTreeMap<domain::Advertiser, String>,
    offers: BTreeMap<domain::Offer, OfferName>,
    goals: BTreeMap<domain::Goal, GoalName>,
    affiliates: BTreeMap<domain::Affiliate, String>,
    links: BTreeMap<domain::Link, LinkName>,
}

/// `None` when it is damaged.
pub(super) fn decode(bytes: &[u8]) -> Option<Catalog> {
    let (head, body) = bytes.split_at_checked(HEAD_BYTES)?;
    let (checksum, length) = (&head[12..16], &head[16..]);
    let now = crc32c::crc32c_append(crc32c::crc32c(length), body);
    let bytes = body.len() as u64;
    if bytes > BODY_BYTES_MAX || length != bytes.to_le_bytes() || checksum != now.to_le_bytes() {
        return None;
    }
    let (body, rest) = postcard::take_from_bytes::<Body>(body).ok()?;
    let catalog = Catalog {
        version: body.version,
        lock_id: body.lock_id,
        network: body.network,
        domains: body.domains,
        advertisers: body.advertisers,
        offers: body.offers,
        affiliates: body.affiliates,
        links: super::Links::new(&body.names.links, &body.links)?,
        names: Names {
            domains: body.names.domains,
            advertisers: body.names.advertisers,
            offers: body.names.offers,
            goals: body.names.goals,
            affiliates: body.names.affiliates,
        },
    };
    rest.is_empty().then_some(catalog)
}
