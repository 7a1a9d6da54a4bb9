//! What each number means: one entry a number, in the order of the numbers.
//!
//! | head | slug's length | slug | length of the sub ids | sub ids |
//! |---|---|---|---|---|
//! | u64 | u8 | 1 to 255 bytes | u16, where the head says so | each: which (u8), length (u8), bytes |
//!
//! The head holds, from its lowest bit: offer (18 bits), affiliate (24), domain (21; 0 when the link is gone), whether there
//! are sub ids (1). An entry without a slug stands for a number that means nothing. Entries follow each other without gaps;
//! a directory has the place of every eighth, and the few before the one wanted are walked over. Everything is
//! little-endian, and nothing read here is believed: what is not in bounds is not there.

use bytes::Bytes;
use domain::{Affiliate, Domain, Offer};

use crate::SUBS;

/// Entries from one directory word to the next: two or three cache lines of short slugs.
const BLOCK: u32 = 8;
const HEAD_BYTES: usize = 9;
/// Most bytes of all entries: what a directory word can name.
pub(crate) const HEAP_BYTES_MAX: u64 = 1 << 32;
/// Greatest number of a domain that links lie on.
pub(crate) const DOMAIN_MAX: u32 = (1 << 21) - 1;

const AFFILIATE_SHIFT: u32 = 18;
const DOMAIN_SHIFT: u32 = 42;
const SUBS_FLAG: u64 = 1 << 63;

/// What a link's number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkEntry<'a> {
    /// As it stands in the entry.
    slug: &'a [u8],
    /// What is promoted.
    pub offer: Offer,
    /// Who promotes.
    pub affiliate: Affiliate,
    /// Where it lives; `None` when it is gone, or was pointed elsewhere and is another number now.
    pub domain: Option<Domain>,
    /// As they stand in the entry.
    subs: &'a [u8],
}

impl<'a> LinkEntry<'a> {
    /// The path without its first slash; case matters.
    pub fn slug(&self) -> &'a str {
        std::str::from_utf8(self.slug).unwrap_or_default()
    }

    pub(crate) fn is_of(&self, slug: &str) -> bool {
        self.slug == slug.as_bytes()
    }

    /// The defaults for the visitor's sub ids, by their index from 0, where there are any.
    pub fn subs(&self) -> impl Iterator<Item = (usize, &'a str)> + use<'a> {
        let mut rest = self.subs;
        std::iter::from_fn(move || {
            let [which, length, more @ ..] = rest else {
                return None;
            };
            let (sub, more) = more.split_at_checked(usize::from(*length))?;
            rest = more;
            Some((
                usize::from(*which),
                std::str::from_utf8(sub).unwrap_or_default(),
            ))
        })
    }

    /// The default for the visitor's sub id of an index from 0; empty is none.
    pub fn sub(&self, at: usize) -> &'a str {
        let mut subs = self.subs();
        subs.find(|(which, _)| *which == at)
            .map_or("", |(_, sub)| sub)
    }
}

/// Appends an entry. A slug has at most 255 bytes, as has a sub id, and a domain is at most [`DOMAIN_MAX`].
pub(crate) fn write<'s>(
    out: &mut Vec<u8>,
    slug: &str,
    offer: Offer,
    affiliate: Affiliate,
    domain: Option<Domain>,
    subs: impl Fn(usize) -> &'s str,
) {
    let has_subs = (0..SUBS).any(|at| !subs(at).is_empty());
    let domain = domain.map_or(0, Domain::get);
    debug_assert!(domain <= DOMAIN_MAX, "the lock hands out no greater one");
    let head = u64::from(offer.get())
        | u64::from(affiliate.get()) << AFFILIATE_SHIFT
        | u64::from(domain) << DOMAIN_SHIFT
        | if has_subs { SUBS_FLAG } else { 0 };
    out.extend(head.to_le_bytes());
    short(out, slug);
    if has_subs {
        let start = out.len();
        out.extend([0, 0]);
        for at in 0..SUBS {
            let sub = subs(at);
            if !sub.is_empty() {
                out.push(u8::try_from(at).expect("few sub ids"));
                short(out, sub);
            }
        }
        let length = u16::try_from(out.len() - start - 2).expect("few and short");
        out[start..start + 2].copy_from_slice(&length.to_le_bytes());
    }
}

/// Appends the entry of a number that means nothing.
pub(crate) fn write_none(out: &mut Vec<u8>) {
    out.extend([0; HEAD_BYTES]);
}

fn short(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).expect("checked to be short"));
    out.extend(text.as_bytes());
}

/// The bytes of the first entry.
pub(crate) fn first(bytes: &[u8]) -> Option<&[u8]> {
    let (head, length) = head(bytes)?;
    let mut end = HEAD_BYTES + length;
    if head & SUBS_FLAG != 0 {
        let subs = bytes.get(end..end + 2)?;
        end += 2 + usize::from(u16::from_le_bytes([subs[0], subs[1]]));
    }
    bytes.get(..end)
}

/// What an entry's bytes say; `None` when they mean nothing.
pub(crate) fn read(entry: &[u8]) -> Option<LinkEntry<'_>> {
    let (head, length) = head(entry)?;
    let end = HEAD_BYTES + length;
    let field = |shift: u32, max: u32| {
        u32::try_from(head >> shift & u64::from(max)).expect("masked by a u32")
    };
    Some(LinkEntry {
        slug: entry.get(HEAD_BYTES..end)?,
        offer: Offer::new(field(0, Offer::MAX))?,
        affiliate: Affiliate::new(field(AFFILIATE_SHIFT, Affiliate::MAX))?,
        domain: Domain::new(field(DOMAIN_SHIFT, DOMAIN_MAX)),
        subs: entry.get(end + 2..).unwrap_or_default(),
    })
}

fn head(bytes: &[u8]) -> Option<(u64, usize)> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*head), usize::from(*rest.first()?)))
}

/// Entries by ordinal, which is the number less one.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Entries {
    pub(crate) count: u32,
    pub(crate) directory: Bytes,
    pub(crate) heap: Bytes,
}

impl Entries {
    /// The bytes of an entry.
    pub(crate) fn bytes(&self, ordinal: u32) -> Option<&[u8]> {
        if ordinal >= self.count {
            return None;
        }
        let word = usize::try_from(ordinal / BLOCK).ok()? * 4;
        let word = self.directory.get(word..)?.first_chunk::<4>()?;
        let mut rest = self.heap.get(u32::from_le_bytes(*word) as usize..)?;
        for _ in 0..ordinal % BLOCK {
            rest = rest.get(first(rest)?.len()..)?;
        }
        first(rest)
    }

    pub(crate) fn get(&self, ordinal: u32) -> Option<LinkEntry<'_>> {
        read(self.bytes(ordinal)?)
    }
}

/// The directory of entries that are being written.
#[derive(Default)]
pub(crate) struct Directory {
    pub(crate) count: u32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) heap_bytes: u64,
}

impl Directory {
    /// Takes note of the next entry; `None` when it would lie beyond [`HEAP_BYTES_MAX`].
    pub(crate) fn push(&mut self, entry_bytes: usize) -> Option<()> {
        if self.count.is_multiple_of(BLOCK) {
            let place = u32::try_from(self.heap_bytes).ok()?;
            self.bytes.extend(place.to_le_bytes());
        }
        self.heap_bytes += entry_bytes as u64;
        self.count += 1;
        (self.heap_bytes <= HEAP_BYTES_MAX).then_some(())
    }

    /// How long it is for so many entries.
    pub(crate) fn bytes_for(count: u32) -> u64 {
        u64::from(count.div_ceil(BLOCK)) * 4
    }
}
