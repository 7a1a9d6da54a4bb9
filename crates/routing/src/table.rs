//! A catalog version, arranged for look-ups by what a request says.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use catalog::{Catalog, LinkEntry};
use domain::{Affiliate, Domain, Link, Offer};

/// Longest cookie life browsers keep: 400 days.
const COOKIE_MAX_AGE_S: u64 = 400 * 86_400;

/// By the bytes of a name: what is asked for comes from outside, and need not be text.
type Names<N> = HashMap<Box<[u8]>, N, BuildHasherDefault<Xxh3>>;

/// What requests are looked up in. Links are looked up where the catalog has them: making a table takes as long for millions.
#[derive(Debug)]
pub struct Table {
    catalog: Arc<Catalog>,
    domains: Names<Domain>,
    offers: Names<Offer>,
    affiliates: Names<Affiliate>,
    cookie_max_age_s: u64,
}

impl Table {
    /// Arranges a catalog.
    pub fn new(catalog: Arc<Catalog>) -> Self {
        Self {
            domains: names(catalog.domains.iter().map(|(n, e)| (&*e.host, *n))),
            offers: names(catalog.offers.iter().map(|(n, e)| (&*e.name, *n))),
            affiliates: names(catalog.affiliates.iter().map(|(n, e)| (&*e.name, *n))),
            cookie_max_age_s: catalog
                .offers
                .values()
                .map(|offer| offer.window_ms.div_ceil(1000))
                .max()
                .unwrap_or(0)
                .min(COOKIE_MAX_AGE_S),
            catalog,
        }
    }

    /// The version arranged here.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The domain of a host: lower case, no port.
    pub fn domain(&self, host: &[u8]) -> Option<Domain> {
        self.domains.get(host).copied()
    }

    /// The domain numbered first of those that are left, for a development address that stands for it.
    pub fn first_domain(&self) -> Option<Domain> {
        self.catalog.domains.keys().next().copied()
    }

    /// The longest window of all offers, at most 400 days.
    pub fn cookie_max_age_s(&self) -> u64 {
        self.cookie_max_age_s
    }

    /// Where a click goes that nothing in the domain wants.
    pub fn fallback(&self, domain: Domain) -> Option<&str> {
        self.catalog.domains.get(&domain)?.fallback.as_deref()
    }

    /// In any case: names in the catalog have only small letters.
    pub(crate) fn offer(&self, name: &str) -> Option<Offer> {
        find(&self.offers, name)
    }

    /// In any case.
    pub(crate) fn affiliate(&self, name: &str) -> Option<Affiliate> {
        find(&self.affiliates, name)
    }

    pub(crate) fn link(&self, domain: Domain, slug: &str) -> Option<(Link, LinkEntry<'_>)> {
        self.catalog.links.find(domain, slug)
    }
}

fn find<N: Copy>(names: &Names<N>, name: &str) -> Option<N> {
    if let Some(found) = names.get(name.as_bytes()) {
        return Some(*found);
    }
    // Only where the name was not found as it came.
    let lower = name.to_ascii_lowercase();
    (lower != name)
        .then(|| names.get(lower.as_bytes()).copied())
        .flatten()
}

fn names<'a, N>(entries: impl Iterator<Item = (&'a str, N)>) -> Names<N> {
    entries
        .map(|(name, n)| (name.as_bytes().into(), n))
        .collect()
}

/// xxh3 of a name. No seed: only the catalog's author puts keys in, visitors only ask.
#[derive(Default)]
struct Xxh3(u64);

impl Hasher for Xxh3 {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, self.0);
    }

    /// A slice's length, which tells keys of several slices apart: these are of one.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
