//! The decision.

use catalog::{LinkEntry, SUBS};
use domain::{Advertiser, Affiliate, Domain, Link, Offer, Target, event::Reason};

use crate::{Table, Value};

/// What was asked for, within a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// `/{slug}`, decoded, without the first slash.
    Slug(&'a str),
    /// `/c`, the parameters say what.
    Click,
}

/// The parameters of a tracking URL, decoded; of a repeated one the first.
#[derive(Clone, Debug, Default)]
pub struct Params<'a> {
    /// The offer's name.
    pub offer: Option<Value<'a>>,
    /// The affiliate's name.
    pub aff: Option<Value<'a>>,
    /// A link's slug.
    pub link: Option<Value<'a>>,
    /// For the macro of that name.
    pub page: Option<Value<'a>>,
    /// For the macro of that name.
    pub creative: Option<Value<'a>>,
    /// For the macro of that name.
    pub source: Option<Value<'a>>,
    /// The affiliate's own id of the click.
    pub ext: Option<Value<'a>>,
    /// For the macro of that name.
    pub coupon: Option<Value<'a>>,
    /// What the click cost the affiliate; kept, never sent on.
    pub cost: Option<Value<'a>>,
    /// `sub1` to `sub10`.
    pub sub: [Option<Value<'a>>; SUBS],
    /// Whether `group` was given: not built yet.
    pub group: bool,
    /// Whether `url` was given: not built yet.
    pub url: bool,
}

/// Where a click goes.
#[derive(Clone, Debug)]
pub struct Route<'t> {
    /// What is promoted.
    pub offer: Offer,
    /// Who promotes it.
    pub affiliate: Affiliate,
    /// Who owes for it.
    pub advertiser: Advertiser,
    /// The link that fixed both, if one did.
    pub link: Option<Link>,
    /// What the token says.
    pub target: Target,
    /// The offer's entry.
    pub offer_entry: &'t catalog::Offer,
    /// The affiliate's entry.
    pub affiliate_entry: &'t catalog::Affiliate,
    /// The link's entry, if one fixed both.
    pub link_entry: Option<LinkEntry<'t>>,
    /// The visitor's sub ids, the link's defaults where they are missing or empty; empty is none.
    pub subs: [&'t str; SUBS],
}

/// What to do with a click.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once a click and never stored: a box would be an allocation a click"
)]
pub enum Decision<'t> {
    /// Send it there.
    Redirect(Route<'t>),
    /// Send it nowhere: the domain's fallback, or 404.
    Refuse {
        /// Why.
        reason: Reason,
        /// As far as known.
        offer: Option<Offer>,
        /// As far as known.
        affiliate: Option<Affiliate>,
        /// As far as known.
        link: Option<Link>,
    },
}

/// Decides from the table and the request alone.
pub fn decide<'t>(
    table: &'t Table,
    domain: Domain,
    path: Path<'_>,
    params: &'t Params<'_>,
) -> Decision<'t> {
    let catalog = table.catalog();
    let slug = match path {
        Path::Slug(slug) => Some(slug),
        Path::Click => params.link.as_deref().filter(|slug| !slug.is_empty()),
    };
    let (link, link_entry) = slug.and_then(|slug| table.link(domain, slug)).unzip();
    let (offer, affiliate) = match (slug, link_entry) {
        (_, Some(entry)) => (Some(entry.offer), Some(entry.affiliate)),
        (Some(_), None) => (None, None),
        (None, None) => (
            params.offer.as_deref().and_then(|name| table.offer(name)),
            params.aff.as_deref().and_then(|name| table.affiliate(name)),
        ),
    };
    let refuse = |reason| Decision::Refuse {
        reason,
        offer,
        affiliate,
        link,
    };

    if params.group || params.url {
        return refuse(Reason::NotBuilt);
    }
    if slug.is_some() && link.is_none() {
        return refuse(Reason::UnknownLink);
    }
    let Some((offer, offer_entry)) = offer.and_then(|n| Some((n, catalog.offers.get(&n)?))) else {
        return refuse(Reason::UnknownOffer);
    };
    let Some((affiliate, affiliate_entry)) =
        affiliate.and_then(|n| Some((n, catalog.affiliates.get(&n)?)))
    else {
        return refuse(Reason::UnknownAffiliate);
    };
    if !affiliate_entry.offers.contains(&offer) {
        return refuse(Reason::NotApproved);
    }

    let mut subs = [""; SUBS];
    for (at, default) in link_entry.iter().flat_map(LinkEntry::subs) {
        if let Some(sub) = subs.get_mut(at) {
            *sub = default;
        }
    }
    for (sub, own) in subs.iter_mut().zip(&params.sub) {
        if let Some(own) = own.as_deref().filter(|own| !own.is_empty()) {
            *sub = own;
        }
    }
    Decision::Redirect(Route {
        offer,
        affiliate,
        advertiser: offer_entry.advertiser,
        link,
        target: match link {
            Some(link) => Target::Link(link),
            None => Target::Offer(offer, affiliate),
        },
        offer_entry,
        affiliate_entry,
        link_entry,
        subs,
    })
}
