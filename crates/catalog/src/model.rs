//! The checked model: entries by number, and the name of every number ever handed out.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use domain::{Currency, Rate};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::{Destination, Links, SecretRef, lock::Kind};

/// How many sub ids a click carries.
pub const SUBS: usize = 10;

/// What the name of a number that was never handed out reads as.
pub const UNKNOWN: &str = "(unknown)";

/// One version of everything that is promoted, who promotes it, and what for.
#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
pub struct Catalog {
    /// Counted from 1 in `catalog.lock`; 0 while it is not published.
    #[serde(with = "postcard::fixint::le")]
    pub version: u32,
    /// Of everything below: two versions with one number and another hash are two catalogs. 0 while it is not published.
    #[serde(with = "postcard::fixint::le")]
    pub hash: u64,
    /// The identity of the lock its numbers come from; empty while it is not published.
    pub lock_id: String,
    /// What everything below inherits.
    pub network: Network,
    /// Redirect hosts.
    pub domains: BTreeMap<domain::Domain, DomainEntry>,
    /// Who owes money.
    pub advertisers: BTreeMap<domain::Advertiser, Advertiser>,
    /// What is promoted.
    pub offers: BTreeMap<domain::Offer, Offer>,
    /// Who promotes it.
    pub affiliates: BTreeMap<domain::Affiliate, Affiliate>,
    /// Slugs that fix affiliate and offer, also those that are gone. A snapshot holds them in parts of their own.
    #[serde(skip)]
    pub links: Links,
    /// Of every number ever handed out, also of entries that are gone.
    pub names: Names,
}

/// What everything inherits.
#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
pub struct Network {
    /// IANA name of the zone in which days begin.
    pub timezone: String,
    /// What totals are shown in.
    pub currency: Currency,
}

impl Network {
    /// The zone in which days begin. Always from the rules that came with this build, as when the catalog was checked: the
    /// machine's own may be older, or lack the name.
    ///
    /// # Errors
    /// This build has no such zone: the catalog was published by a newer one.
    pub fn zone(&self) -> Result<jiff::tz::TimeZone, jiff::Error> {
        jiff::tz::TimeZoneDatabase::bundled().get(&self.timezone)
    }
}

/// A redirect host.
#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
pub struct DomainEntry {
    /// Lower case, no port.
    pub host: String,
    /// Where a click goes that nothing wants: a serialized http or https address.
    pub fallback: Option<String>,
}

/// Owes money for goals.
#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
pub struct Advertiser {
    /// The name in the catalog.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// What it is billed in.
    pub currency: Currency,
    /// What authenticates its postbacks; several are valid while one is being replaced.
    pub secrets: Vec<SecretRef>,
}

/// Is promoted.
#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
pub struct Offer {
    /// The name in the catalog.
    pub name: String,
    /// Who owes for its goals.
    pub advertiser: domain::Advertiser,
    /// Where its clicks go.
    pub destination: Destination,
    /// The landing-page parameter that carries the token.
    pub click_param: String,
    /// Click to conversion, milliseconds.
    pub window_ms: u64,
    /// What is paid for.
    pub goals: BTreeMap<domain::Goal, Goal>,
}

impl Offer {
    /// The goal of a name.
    pub fn goal(&self, name: &str) -> Option<(domain::Goal, &Goal)> {
        let mut goals = self.goals.iter();
        goals
            .find(|(_, goal)| goal.name == name)
            .map(|(number, goal)| (*number, goal))
    }
}

/// Is paid for.
#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
pub struct Goal {
    /// The name within its offer.
    pub name: String,
    /// What the advertiser owes the network.
    pub revenue: Rate,
    /// What the network owes the affiliate.
    pub payout: Rate,
}

/// Promotes offers.
#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
pub struct Affiliate {
    /// The name in the catalog.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// What it is approved for.
    pub offers: BTreeSet<domain::Offer>,
}

/// A slug that fixes affiliate and offer.
#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
pub struct Link {
    /// The path without its first slash; case matters.
    pub slug: String,
    /// Where it lives.
    pub domain: domain::Domain,
    /// Who promotes.
    pub affiliate: domain::Affiliate,
    /// What is promoted.
    pub offer: domain::Offer,
    /// Defaults for the visitor's own sub ids; empty is none.
    pub subs: [String; SUBS],
}

/// The names of all numbers but the links', also of entries that are gone.
#[derive(Clone, Default, Serialize, Deserialize, PartialEq, Debug)]
pub struct Names {
    /// Hosts.
    pub domains: BTreeMap<domain::Domain, String>,
    /// Advertisers.
    pub advertisers: BTreeMap<domain::Advertiser, String>,
    /// Offers.
    pub offers: BTreeMap<domain::Offer, OfferName>,
    /// Goals.
    pub goals: BTreeMap<domain::Goal, GoalName>,
    /// Affiliates.
    pub affiliates: BTreeMap<domain::Affiliate, String>,
}

/// An offer's name, and who owes for it for ever.
#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
pub struct OfferName {
    /// The name.
    pub name: String,
    /// Who owes for it.
    pub advertiser: domain::Advertiser,
}

/// A goal's name, and the offer whose goal it is for ever.
#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
pub struct GoalName {
    /// Whose goal.
    pub offer: domain::Offer,
    /// The name within the offer.
    pub name: String,
}

/// A link's slug, and what its number means for ever: a link that is pointed elsewhere gets another number, so that
/// tokens issued before still mean what they meant.
#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
pub struct LinkName {
    /// The path without its first slash.
    pub slug: String,
    /// What it promotes.
    pub offer: domain::Offer,
    /// Who promotes.
    pub affiliate: domain::Affiliate,
}

impl Catalog {
    /// The first 64 bits of the lock's identity, by which events and topics name it; 0 while it is not published.
    pub fn lock(&self) -> u64 {
        crate::lock::id_number(&self.lock_id)
    }

    /// Puts files that secrets are in, and that are named relative to the catalog's folder, there.
    pub(crate) fn resolve_secrets(&mut self, home: &Path) {
        for advertiser in self.advertisers.values_mut() {
            for secret in &mut advertiser.secrets {
                secret.resolve(home);
            }
        }
    }

    /// Whether an entry of this number is there, and not gone.
    pub(crate) fn has(&self, kind: Kind, number: u64) -> bool {
        let is = |known: u32| u64::from(known) == number;
        match kind {
            Kind::Domain => self.domains.keys().any(|known| is(known.get())),
            Kind::Advertiser => self.advertisers.keys().any(|known| is(known.get())),
            Kind::Offer => self.offers.keys().any(|known| is(known.get())),
            Kind::Goal => self
                .offers
                .values()
                .flat_map(|offer| offer.goals.keys())
                .any(|known| is(known.get())),
            Kind::Affiliate => self.affiliates.keys().any(|known| is(known.get())),
            Kind::Link => domain::Link::new(number)
                .and_then(|number| self.links.get(number))
                .is_some_and(|link| link.domain.is_some()),
        }
    }

    /// The hash of the content, without the version, with links whose entries hash to `entries_hash`.
    pub(crate) fn content_hash(&self, entries_hash: u64) -> u64 {
        // Every field is named, so that one that is added has to be thought of here.
        let Self {
            version: _,
            hash: _,
            lock_id,
            network,
            domains,
            advertisers,
            offers,
            affiliates,
            links: _,
            names,
        } = self;
        let things = (network, domains, advertisers, offers, affiliates);
        let content = (lock_id, things, names, entries_hash);
        let bytes = postcard::to_stdvec(&content).expect("the model has no type postcard refuses");
        xxh3_64(&bytes)
    }

    /// The host, or [`UNKNOWN`].
    pub fn domain_name(&self, number: domain::Domain) -> &str {
        named(self.names.domains.get(&number))
    }

    /// The name, or [`UNKNOWN`].
    pub fn advertiser_name(&self, number: domain::Advertiser) -> &str {
        named(self.names.advertisers.get(&number))
    }

    /// The name, or [`UNKNOWN`].
    pub fn offer_name(&self, number: domain::Offer) -> &str {
        named(self.names.offers.get(&number).map(|offer| &offer.name))
    }

    /// Who owes for an offer, also when it is gone; `None` for a number never handed out.
    pub fn offer_advertiser(&self, number: domain::Offer) -> Option<domain::Advertiser> {
        Some(self.names.offers.get(&number)?.advertiser)
    }

    /// The name within its offer, or [`UNKNOWN`].
    pub fn goal_name(&self, number: domain::Goal) -> &str {
        named(self.names.goals.get(&number).map(|goal| &goal.name))
    }

    /// The name, or [`UNKNOWN`].
    pub fn affiliate_name(&self, number: domain::Affiliate) -> &str {
        named(self.names.affiliates.get(&number))
    }

    /// The slug, or [`UNKNOWN`].
    pub fn link_name(&self, number: domain::Link) -> &str {
        self.links.get(number).map_or(UNKNOWN, |link| link.slug())
    }

    /// What a token's link means, also when the link is gone; `None` for a number never handed out.
    pub fn link_target(&self, number: domain::Link) -> Option<(domain::Offer, domain::Affiliate)> {
        let link = self.links.get(number)?;
        Some((link.offer, link.affiliate))
    }

    /// What a token means, also when its link is gone.
    pub fn target(&self, target: domain::Target) -> Option<(domain::Offer, domain::Affiliate)> {
        match target {
            domain::Target::Link(link) => self.link_target(link),
            domain::Target::Offer(offer, affiliate) => Some((offer, affiliate)),
        }
    }

    /// The domain that lives under a host. These look-ups walk the entries: for tools and reports, not for requests.
    pub fn domain_number(&self, host: &str) -> Option<domain::Domain> {
        number_of(&self.domains, |entry| entry.host == host)
    }

    /// The advertiser of a name.
    pub fn advertiser_number(&self, name: &str) -> Option<domain::Advertiser> {
        number_of(&self.advertisers, |entry| entry.name == name)
    }

    /// The offer of a name.
    pub fn offer_number(&self, name: &str) -> Option<domain::Offer> {
        number_of(&self.offers, |entry| entry.name == name)
    }

    /// The goal of a name in an offer.
    pub fn goal_number(&self, offer: domain::Offer, name: &str) -> Option<domain::Goal> {
        let (number, _) = self.offers.get(&offer)?.goal(name)?;
        Some(number)
    }

    /// The affiliate of a name.
    pub fn affiliate_number(&self, name: &str) -> Option<domain::Affiliate> {
        number_of(&self.affiliates, |entry| entry.name == name)
    }

    /// The link of a slug.
    pub fn link_number(&self, slug: &str) -> Option<domain::Link> {
        self.links.look_up(slug).map(|(number, _)| number)
    }
}

fn named(name: Option<&String>) -> &str {
    name.map_or(UNKNOWN, String::as_str)
}

fn number_of<N: Copy, E>(entries: &BTreeMap<N, E>, is: impl Fn(&E) -> bool) -> Option<N> {
    let mut entries = entries.iter();
    entries
        .find(|(_, entry)| is(entry))
        .map(|(number, _)| *number)
}
