//! What the store must say, worked out plainly from what was sent: every cell of the rollups, every label.
//!
//! Written from the words of the docs (REPORTS.md, TRACKING.md), not from the consumers' code: a day in the network's time zone,
//! a visitor, an offer and an affiliate make a group; its earliest valid click is unique, the others are duplicates; a
//! second click within two seconds of the one before is a repeat, whoever sent it.

use std::collections::{BTreeMap, BTreeSet};

use domain::ClickKey;
use domain::event::Reason;

use super::visits::{Kind, Worth, ZONE_AHEAD_MS};

/// Within this time a click repeats the one before.
const REPEAT_MS: u64 = 2_000;

const BUCKET_MS: u64 = 15 * 60 * 1000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What a cell counts, in the order of [`Sums`].
pub(super) const SUMS: [&str; 11] = [
    "clicks",
    "unique",
    "duplicate",
    "anonymous",
    "invalid",
    "prefetch",
    "unmatched",
    "conversions",
    "amount",
    "revenue",
    "payout",
];

/// Money is in millionths.
pub(super) type Sums = [i128; SUMS.len()];

/// The dimensions of a cell, as numbers of the catalog; 0 is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) bucket_ms: u64,
    pub(super) offer: u32,
    pub(super) affiliate: u32,
    pub(super) link: u64,
    pub(super) reason: u32,
    pub(super) currency: String,
}

/// Offer, affiliate and link by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Numbers {
    pub(super) offer: u32,
    pub(super) affiliate: u32,
    pub(super) link: u64,
}

/// A visit that was recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) key: ClickKey,
    pub(super) kind: Kind,
    pub(super) visitor: usize,
    pub(super) numbers: Numbers,
}

/// An order that is paid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paid {
    pub(super) time_ms: u64,
    pub(super) numbers: Numbers,
    pub(super) worth: Worth,
}

pub(super) struct Expected {
    pub(super) cells: BTreeMap<Cell, Sums>,
    pub(super) flags: BTreeSet<(ClickKey, u32)>,
}

impl Expected {
    pub(super) fn of(clicks: &[Counted], paid: &[Paid]) -> Self {
        let mut expected = Self {
            cells: BTreeMap::new(),
            flags: BTreeSet::new(),
        };
        expected.label(clicks);
        expected.count(clicks);
        for paid in paid {
            expected.pay(paid);
        }
        expected
    }

    fn add(
        &mut self,
        time_ms: u64,
        numbers: Numbers,
        reason: u32,
        currency: &str,
        sum: &str,
        by: i128,
    ) {
        if by == 0 {
            return;
        }
        let cell = Cell {
            bucket_ms: time_ms - time_ms % BUCKET_MS,
            offer: numbers.offer,
            affiliate: numbers.affiliate,
            link: numbers.link,
            reason,
            currency: currency.to_owned(),
        };
        let at = SUMS.iter().position(|known| *known == sum);
        self.cells.entry(cell).or_default()[at.expect("a sum of the list")] += by;
    }

    fn label(&mut self, clicks: &[Counted]) {
        let mut by_visitor: BTreeMap<_, Vec<ClickKey>> = BTreeMap::new();
        for click in clicks {
            if click.kind == Kind::Bot {
                self.flags.insert((click.key, Reason::DeclaredBot as u32));
            }
            if let Some(visitor) = person(click) {
                let Numbers {
                    offer, affiliate, ..
                } = click.numbers;
                let of = by_visitor.entry((visitor, offer, affiliate)).or_default();
                of.push(click.key);
            }
        }
        for mut keys in by_visitor.into_values() {
            keys.sort_unstable();
            for pair in keys.windows(2) {
                if pair[1].time_ms - pair[0].time_ms <= REPEAT_MS {
                    self.flags.insert((pair[1], Reason::RepeatClick as u32));
                }
            }
        }
    }

    fn count(&mut self, clicks: &[Counted]) {
        // The earliest valid click of each group.
        let mut first: BTreeMap<_, ClickKey> = BTreeMap::new();
        let mut valid = Vec::new();
        for click in clicks {
            let (key, numbers) = (click.key, click.numbers);
            let flagged = [Reason::DeclaredBot, Reason::RepeatClick]
                .into_iter()
                .find(|reason| self.flags.contains(&(key, *reason as u32)));
            let (reason, sum) = match click.kind {
                Kind::Unknown => (Reason::UnknownLink, "unmatched"),
                Kind::Prefetch => (Reason::Speculative, "prefetch"),
                Kind::Outsider => (Reason::NotApproved, "invalid"),
                Kind::Head => (Reason::Head, "invalid"),
                _ => match (flagged, person(click)) {
                    (Some(reason), _) => (reason, "invalid"),
                    (None, None) => (Reason::None, "anonymous"),
                    (None, Some(visitor)) => {
                        let day = (key.time_ms + ZONE_AHEAD_MS) / DAY_MS;
                        let group = (day, visitor, numbers.offer, numbers.affiliate);
                        let earliest = first.entry(group).or_insert(key);
                        *earliest = key.min(*earliest);
                        valid.push((group, key, numbers));
                        continue;
                    }
                },
            };
            self.add(key.time_ms, numbers, reason as u32, "", sum, 1);
        }
        for (group, key, numbers) in valid {
            let sum = match first[&group] == key {
                true => "unique",
                false => "duplicate",
            };
            self.add(key.time_ms, numbers, 0, "", "clicks", 1);
            self.add(key.time_ms, numbers, 0, "", sum, 1);
        }
    }

    fn pay(&mut self, paid: &Paid) {
        let Paid {
            time_ms,
            numbers,
            worth,
        } = *paid;
        self.add(time_ms, numbers, 0, "", "conversions", 1);
        for (sum, value) in [
            ("amount", worth.amount),
            ("revenue", worth.revenue),
            ("payout", worth.payout),
        ] {
            self.add(time_ms, numbers, 0, worth.currency, sum, value.into());
        }
    }
}

/// Who it is that can be told from others and may be valid. A bot says who it is, so that it is another visitor than the person
/// behind the same address.
fn person(click: &Counted) -> Option<(usize, bool)> {
    match click.kind {
        Kind::Click => Some((click.visitor, false)),
        Kind::Bot => Some((click.visitor, true)),
        _ => None,
    }
}

/// How two sets of cells differ, each cell in words.
pub(super) fn differences(
    expected: &BTreeMap<Cell, Sums>,
    stored: &BTreeMap<Cell, Sums>,
) -> Vec<String> {
    let cells: BTreeSet<&Cell> = expected.keys().chain(stored.keys()).collect();
    let mut differences = Vec::new();
    for cell in cells {
        let of = |side: &BTreeMap<Cell, Sums>| side.get(cell).copied().unwrap_or_default();
        let (must, is) = (of(expected), of(stored));
        if must == is {
            continue;
        }
        let sums = SUMS.iter().zip(must.iter().zip(is));
        let sums: Vec<String> = sums
            .filter(|(_, (must, is))| *must != is)
            .map(|(name, (must, is))| format!("{name} is {is}, must be {must}"))
            .collect();
        differences.push(format!("cell {cell:?}: {}", sums.join(", ")));
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: Numbers = Numbers {
        offer: 1,
        affiliate: 2,
        link: 3,
    };

    /// Noon of a day, so that a second is no other day.
    const NOON_MS: u64 = 1_790_000_000_000 - 1_790_000_000_000 % DAY_MS + DAY_MS / 2;

    fn click(after_ms: u64, kind: Kind, visitor: usize) -> Counted {
        Counted {
            key: ClickKey {
                time_ms: NOON_MS + after_ms,
                stream: 1,
                sequence: u32::try_from(after_ms).unwrap(),
            },
            kind,
            visitor,
            numbers: NUMBERS,
        }
    }

    #[track_caller]
    fn check(clicks: &[Counted], expected: &[(u32, &str, i128)]) {
        let found = Expected::of(clicks, &[]);
        let mut sums: BTreeMap<(u32, &str), i128> = BTreeMap::new();
        for (cell, of) in &found.cells {
            for (name, sum) in SUMS.iter().zip(of) {
                *sums.entry((cell.reason, name)).or_default() += sum;
            }
        }
        sums.retain(|_, sum| *sum != 0);
        let expected = expected
            .iter()
            .map(|(reason, name, sum)| ((*reason, *name), *sum));
        assert_eq!(sums, expected.collect());
    }

    #[test]
    fn clicks_are_counted_as_the_docs_say() {
        let at = |after_ms| click(after_ms, Kind::Click, 1);
        check(&[at(0)], &[(0, "clicks", 1), (0, "unique", 1)]);
        // Later than a repeat, and of one day.
        check(
            &[at(5_000), at(0)],
            &[(0, "clicks", 2), (0, "duplicate", 1), (0, "unique", 1)],
        );
        // Each within two seconds of the one before it, though that is a repeat itself.
        check(
            &[at(0), at(2_000), at(4_000)],
            &[(0, "clicks", 1), (0, "unique", 1), (8, "invalid", 2)],
        );
        check(
            &[at(0), at(2_001)],
            &[(0, "clicks", 2), (0, "duplicate", 1), (0, "unique", 1)],
        );
        check(
            &[at(0), click(0, Kind::Click, 2)],
            &[(0, "clicks", 2), (0, "unique", 2)],
        );
        // Midnight lies between.
        check(
            &[at(0), at(DAY_MS / 2)],
            &[(0, "clicks", 2), (0, "unique", 2)],
        );
        for (kind, reason, sum) in [
            (Kind::Bot, 7, "invalid"),
            (Kind::Head, 6, "invalid"),
            (Kind::Prefetch, 5, "prefetch"),
            (Kind::Unknown, 1, "unmatched"),
            (Kind::Outsider, 4, "invalid"),
            (Kind::Nameless, 0, "anonymous"),
            (Kind::Refusing, 0, "anonymous"),
        ] {
            check(&[click(0, kind, 1), click(1, kind, 2)], &[(reason, sum, 2)]);
        }
    }

    #[test]
    fn a_cell_that_differs_is_named_with_both_values() {
        let paid = Paid {
            time_ms: NOON_MS + BUCKET_MS + 7,
            numbers: NUMBERS,
            worth: Worth {
                goal: "sale",
                currency: "EUR",
                amount: 100,
                revenue: 12,
                payout: 8,
            },
        };
        let expected = Expected::of(&[], &[paid]).cells;
        assert_eq!(differences(&expected, &expected), Vec::<String>::new());
        let mut stored = expected.clone();
        for (cell, sums) in &mut stored {
            assert_eq!(cell.bucket_ms, NOON_MS + BUCKET_MS);
            sums[10] *= 2;
        }
        let found = differences(&expected, &stored);
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("payout is 16, must be 8"), "{found:?}");
        assert_eq!(differences(&expected, &BTreeMap::new()).len(), 2);
    }
}
