//! All links of a version, as bytes that are looked up where they lie: in memory, or in a mapped snapshot.
//!
//! A number is never used again, so numbers are dense and need no room of their own: [`entries`] holds what each means, also
//! of links that are gone, since tokens and reports still name them. [`index`] finds the links that are there by their
//! slug. A look-up reads a bucket, a word of the directory and a few entries that lie together; it compares the whole slug
//! and the domain, and allocates nothing. Bytes that are damaged give wrong answers until [`Links::verify`] finds
//! them, and never more than that.

pub(crate) mod entries;
pub(crate) mod index;

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use domain::Domain;
use xxhash_rust::xxh3::xxh3_64;

use crate::{Link, LinkName};
pub use entries::LinkEntry;
use entries::{Directory, Entries};

/// Numbers in a row that mean nothing. There are none as a rule; more are a damaged lock, and would fill the memory.
const HOLES_MAX: u64 = 1 << 20;

/// The links of a version. Clones share their bytes.
#[derive(Clone, Default)]
pub struct Links {
    pub(crate) entries: Entries,
    pub(crate) buckets: Bytes,
    pub(crate) live: u32,
    /// crc32c of the entries.
    pub(crate) checksum: u32,
}

impl Links {
    /// Links by number, and what each number ever handed out means; `None` when they take more room than there can be.
    pub fn new(
        names: &BTreeMap<domain::Link, LinkName>,
        live: &BTreeMap<domain::Link, Link>,
    ) -> Option<Self> {
        let mut builder = LinksBuilder::default();
        let mut next = 1;
        for (number, name) in names {
            let missing = number.get() - next;
            if missing > HOLES_MAX {
                return None;
            }
            (0..missing).for_each(|_| builder.none());
            match live.get(number) {
                Some(link) => builder.live(link),
                None => builder.gone(name),
            }
            next = number.get() + 1;
        }
        builder.finish()
    }

    /// How many there are, without those that are gone.
    pub fn len(&self) -> usize {
        self.live as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// What a number means, also when the link is gone; `None` for a number never handed out.
    pub fn get(&self, number: domain::Link) -> Option<LinkEntry<'_>> {
        self.entries.get(ordinal(number)?)
    }

    /// The link of a slug in a domain.
    pub fn find(&self, domain: Domain, slug: &str) -> Option<(domain::Link, LinkEntry<'_>)> {
        self.look_up(slug)
            .filter(|(_, entry)| entry.domain == Some(domain))
    }

    /// The link of a slug, whatever its domain: a slug exists once.
    pub fn look_up(&self, slug: &str) -> Option<(domain::Link, LinkEntry<'_>)> {
        index::find(&self.buckets, slug_hash(slug), |ordinal| {
            let entry = self.entries.get(ordinal)?;
            (entry.is_of(slug) && entry.domain.is_some()).then_some((number(ordinal), entry))
        })
    }

    /// What every number means that was ever handed out, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (domain::Link, LinkEntry<'_>)> {
        let mut rest = &*self.entries.heap;
        (0..self.entries.count).filter_map(move |ordinal| {
            let bytes = entries::first(rest)?;
            rest = &rest[bytes.len()..];
            Some((number(ordinal), entries::read(bytes)?))
        })
    }

    /// Reads everything that was not checked when the snapshot was opened; `false` when it is damaged.
    pub fn verify(&self) -> bool {
        crc32c::crc32c(&self.entries.heap) == self.checksum
    }
}

/// Slugs are unique in a catalog, so they are hashed without their domain. No seed: only the catalog's author puts slugs in,
/// visitors only ask.
pub(crate) fn slug_hash(slug: &str) -> u64 {
    xxh3_64(slug.as_bytes())
}

fn ordinal(number: domain::Link) -> Option<u32> {
    u32::try_from(number.get() - 1).ok()
}

pub(crate) fn number(ordinal: u32) -> domain::Link {
    domain::Link::new(u64::from(ordinal) + 1).expect("not zero and far below the greatest")
}

impl PartialEq for Links {
    fn eq(&self, other: &Self) -> bool {
        self.live == other.live
            && self.checksum == other.checksum
            && self.entries == other.entries
            && self.buckets == other.buckets
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Puts links together in memory, in the order of their numbers.
#[derive(Default)]
pub struct LinksBuilder {
    directory: Directory,
    heap: Vec<u8>,
    live: u32,
    full: bool,
}

impl LinksBuilder {
    /// The next number is a link.
    pub fn live(&mut self, link: &Link) {
        self.live += 1;
        let (offer, affiliate, domain) = (link.offer, link.affiliate, Some(link.domain));
        self.push(|heap| {
            entries::write(heap, &link.slug, offer, affiliate, domain, |at| {
                &link.subs[at]
            });
        });
    }

    /// The next number is of a link that is gone.
    pub fn gone(&mut self, name: &LinkName) {
        self.push(|heap| {
            entries::write(heap, &name.slug, name.offer, name.affiliate, None, |_| "");
        });
    }

    /// The next number is what an entry of a version says.
    pub(crate) fn entry(&mut self, entry: &[u8]) {
        self.live += u32::from(entries::read(entry).is_some_and(|link| link.domain.is_some()));
        self.push(|heap| heap.extend(entry));
    }

    /// The next number means nothing.
    pub fn none(&mut self) {
        self.push(entries::write_none);
    }

    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.heap.len();
        write(&mut self.heap);
        let pushed = self.directory.push(self.heap.len() - start);
        self.full |= pushed.is_none();
    }

    /// The links; `None` when they take more room than there can be.
    pub fn finish(self) -> Option<Links> {
        if self.full {
            return None;
        }
        let mut links = Links {
            checksum: crc32c::crc32c(&self.heap),
            entries: Entries {
                count: self.directory.count,
                directory: self.directory.bytes.into(),
                heap: self.heap.into(),
            },
            buckets: Bytes::new(),
            live: self.live,
        };
        let mut buckets = index::buckets(self.live);
        for (number, entry) in links.iter().filter(|(_, entry)| entry.domain.is_some()) {
            let ordinal = ordinal(number).expect("made of one");
            index::insert(&mut buckets, slug_hash(entry.slug()), ordinal);
        }
        links.buckets = buckets.into();
        Some(links)
    }
}

#[cfg(test)]
mod tests;
