//! What came and went from one version to the next, so that people see what a file did, and a file that lost a part of itself
//! on its way is refused.

use std::{collections::BTreeMap, fmt};

use crate::{
    Catalog,
    links::entries::{self, Entries},
    lock::Kind,
};

/// A change that takes away more than this many entries of a kind, and more than one in [`LOSS_SHARE`] of them, is more often
/// a file that was cut off than a decision.
const LOSS_MIN: u64 = 5;
const LOSS_SHARE: u64 = 5;

/// Whether a version may lose many of its entries at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removes {
    /// At most one entry in five, or five of a kind.
    Few,
    /// As many as the file says: a person decided it.
    Many,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    before: u64,
    came: u64,
    went: u64,
    changed: u64,
}

/// What came, went and changed, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes([Count; Kind::ALL.len()]);

impl Changes {
    /// From the version in force to the next, whose links are those of `links`: an entry by its ordinal.
    pub(crate) fn between<'l>(
        before: Option<&Catalog>,
        after: &Catalog,
        links_count: u32,
        links: impl Fn(u32) -> Option<&'l [u8]>,
    ) -> Self {
        let mut changes = Self::default();
        let mut count = |kind: Kind, counted: Count| changes.0[kind as usize] = counted;
        macro_rules! compare {
            ($kind:ident, $entries:ident) => {
                let before = before.map(|before| &before.$entries);
                count(Kind::$kind, compare(before, &after.$entries));
            };
        }
        compare!(Domain, domains);
        compare!(Advertiser, advertisers);
        compare!(Offer, offers);
        compare!(Affiliate, affiliates);
        let before = before.map(|before| &before.links.entries);
        count(Kind::Link, compare_links(before, links_count, links));
        changes
    }

    /// Whether nothing came, went or changed.
    pub fn is_empty(&self) -> bool {
        self.0
            .iter()
            .all(|count| count.came + count.went + count.changed == 0)
    }

    /// What goes in greater numbers than people remove at once.
    pub(crate) fn loss(&self) -> Option<String> {
        let kinds = Kind::ALL.into_iter().zip(self.0);
        let lost: Vec<String> = kinds
            .filter(|(_, count)| count.went > LOSS_MIN && count.went > count.before / LOSS_SHARE)
            .map(|(kind, count)| format!("{} of {} {}s", count.went, count.before, kind.name()))
            .collect();
        (!lost.is_empty()).then(|| lost.join(" and "))
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (kind, count) in Kind::ALL.into_iter().zip(self.0) {
            for (number, what) in [
                (count.came, "came"),
                (count.went, "went"),
                (count.changed, "changed"),
            ] {
                if number > 0 {
                    let s = if number == 1 { "" } else { "s" };
                    parts.push(format!("{number} {}{s} {what}", kind.name()));
                }
            }
        }
        if parts.is_empty() {
            return f.write_str("no entries came, went or changed");
        }
        f.write_str(&parts.join(", "))
    }
}

fn compare<N: Ord, E: PartialEq>(before: Option<&BTreeMap<N, E>>, after: &BTreeMap<N, E>) -> Count {
    let none = BTreeMap::new();
    let before = before.unwrap_or(&none);
    let mut count = Count {
        before: before.len() as u64,
        ..Count::default()
    };
    for (number, entry) in after {
        match before.get(number) {
            None => count.came += 1,
            Some(was) => count.changed += u64::from(was != entry),
        }
    }
    let went = before.keys().filter(|number| !after.contains_key(number));
    count.went = went.count() as u64;
    count
}

fn compare_links<'l>(
    before: Option<&Entries>,
    after_count: u32,
    after: impl Fn(u32) -> Option<&'l [u8]>,
) -> Count {
    fn live(entry: Option<&[u8]>) -> Option<&[u8]> {
        entry.filter(|entry| entries::read(entry).is_some_and(|link| link.domain.is_some()))
    }
    let before_count = before.map_or(0, |before| before.count);
    let mut count = Count::default();
    for ordinal in 0..before_count.max(after_count) {
        let was = live(before.and_then(|before| before.bytes(ordinal)));
        count.before += u64::from(was.is_some());
        match (was, live(after(ordinal))) {
            (None, Some(_)) => count.came += 1,
            (Some(_), None) => count.went += 1,
            (Some(was), Some(is)) => count.changed += u64::from(was != is),
            (None, None) => {}
        }
    }
    count
}
