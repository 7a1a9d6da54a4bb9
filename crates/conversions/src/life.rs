//! The life of an order: what its advertiser's words make of it. Pure.
//!
//! A [`Life`] is a bounded summary that words are folded into. [`Life::join`] is commutative, associative and idempotent,
//! and a word is folded by joining the life of this word alone: so any order of arrival and any repeats give the same
//! life, and the thousandth word of an order costs what the first one did.
//!
//! A word without `seq` and `time` is placed by the clock of the edge that took it:
//! - An amount that was not heard yet is a correction; the one first heard last is in force. Words that take the order
//!   away name no amount.
//! - The status only rises: pending, approved, rejected, reversed. Two things leave rejected and reversed: the first
//!   `reinstated`, and another amount in a word that approves. The order's first amount is no other amount, so that an
//!   approval and its reversal give the same whichever edge's clock is ahead. What rises after that counts again.
//!
//! A word with `seq` or `time` is placed by it, and the highest is in force. Words without one count beside it when they
//! were taken after it. A person of the network stands above all words that were taken before theirs.

use std::collections::BTreeMap;

use domain::event::{Postback, Reason, Status, Trust};
use domain::{ClickKey, Currency, Micros};
use serde::{Deserialize, Serialize};

/// How many different amounts one order may be given. A shop that sends all its sales under one order id must not make
/// the order grow without end; no honest order is corrected as often.
pub(crate) const AMOUNTS_MAX: usize = 64;

/// When and where an edge took a word; unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct At {
    pub(crate) time_ms: u64,
    stream: u32,
    sequence: u32,
}

impl From<ClickKey> for At {
    fn from(key: ClickKey) -> Self {
        Self {
            time_ms: key.time_ms,
            stream: key.stream,
            sequence: key.sequence,
        }
    }
}

/// An order's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Amount {
    pub(crate) currency: Currency,
    pub(crate) value: Micros,
}

/// A status as it rises. The number is the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Step {
    Pending,
    Approved,
    Rejected,
    Reversed,
}

impl Step {
    const ALL: [Self; 4] = [
        Self::Pending,
        Self::Approved,
        Self::Rejected,
        Self::Reversed,
    ];

    /// Whether the order is not paid any more.
    pub(crate) fn is_taken_back(self) -> bool {
        self >= Self::Rejected
    }
}

impl From<Step> for Status {
    fn from(step: Step) -> Self {
        match step {
            Step::Pending => Self::Pending,
            Step::Approved => Self::Approved,
            Step::Rejected => Self::Rejected,
            Step::Reversed => Self::Reversed,
        }
    }
}

/// The advertiser's own order of its words: `seq`, or without it `time`. Any `seq` is above any `time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Rank {
    Time(i64),
    Seq(i64),
}

/// The catalog that was in force at the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct CatalogVersion {
    pub(crate) number: u32,
    pub(crate) hash: u64,
}

/// Whose click an order is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Credit {
    pub(crate) token: Vec<u8>,
    pub(crate) offer: u32,
    pub(crate) affiliate: u32,
    pub(crate) link: u64,
}

/// One word about an order, as far as its life goes.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) at: At,
    pub(crate) rank: Option<Rank>,
    /// Whether a person of the network says it.
    pub(crate) by_operator: bool,
    /// `None` where it says nothing of the status.
    pub(crate) status: Option<Said>,
    pub(crate) amount: Option<Amount>,
    pub(crate) credit: Option<Credit>,
    /// The affiliate that a person gives the order to.
    pub(crate) affiliate: Option<u32>,
    pub(crate) catalog: CatalogVersion,
}

/// What a word says of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Step(Step),
    Reinstated,
}

impl Word {
    pub(crate) fn of(postback: &Postback, at: ClickKey) -> Self {
        let currency = Currency::parse(&postback.currency);
        let status = match postback.status() {
            Status::Unspecified => None,
            Status::Pending => Some(Said::Step(Step::Pending)),
            Status::Approved => Some(Said::Step(Step::Approved)),
            Status::Rejected => Some(Said::Step(Step::Rejected)),
            Status::Reversed => Some(Said::Step(Step::Reversed)),
            Status::Reinstated => Some(Said::Reinstated),
        };
        let rank = match (postback.seq, postback.said_us) {
            (Some(seq), _) => Some(Rank::Seq(seq)),
            (None, Some(time_us)) => Some(Rank::Time(time_us)),
            (None, None) => None,
        };
        Self {
            at: at.into(),
            rank,
            by_operator: postback.trust() == Trust::Operator,
            status,
            amount: currency
                .filter(|_| postback.has_amount)
                .map(|currency| Amount {
                    currency,
                    value: Micros(postback.amount_micros),
                }),
            credit: (!postback.token.is_empty()).then(|| Credit {
                token: postback.token.clone(),
                offer: postback.offer,
                affiliate: postback.affiliate,
                link: postback.link,
            }),
            affiliate: (postback.credit_affiliate != 0).then_some(postback.credit_affiliate),
            catalog: CatalogVersion {
                number: postback.catalog_version,
                hash: postback.catalog_hash,
            },
        }
    }

    /// Whether it takes the order away.
    pub(crate) fn takes_back(&self) -> bool {
        matches!(self.status, Some(Said::Step(step)) if step.is_taken_back())
    }
}

/// The word that first named an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Heard {
    at: At,
    approves: bool,
    ranked: bool,
}

/// What the word of the highest rank says of something. Two words of one rank that differ: the greater value, so that the
/// clocks of edges do not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ranked<T> {
    rank: Rank,
    value: T,
    /// When it was first heard.
    at: At,
}

/// What somebody said, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Dated<T> {
    at: At,
    value: T,
}

/// Everything that was said of one goal of an order, as much as can still matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    /// The first word: its time is the conversion's, the rates of its catalog count.
    first: Option<Dated<CatalogVersion>>,
    last: Option<At>,
    /// The [`AMOUNTS_MAX`] amounts that were heard first.
    amounts: BTreeMap<Amount, Heard>,
    /// The first amount in words that take the order away: shown where no other was named.
    amount_taken_back: Option<Dated<Amount>>,
    /// By step: the last word without rank that says it.
    said: [Option<At>; 4],
    /// The first word without rank that reinstates.
    reinstated: Option<At>,
    ranked_status: Option<Ranked<Step>>,
    ranked_amount: Option<Ranked<Amount>>,
    operator_status: Option<Dated<Step>>,
    operator_amount: Option<Dated<Amount>>,
    operator_affiliate: Option<Dated<u32>>,
    credit: Option<Dated<Credit>>,
    ranked_credit: Option<Ranked<Credit>>,
}

/// Where an order stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) status: Step,
    pub(crate) amount: Option<Amount>,
    pub(crate) credit: Option<Credit>,
    /// The affiliate that a person gave it to.
    pub(crate) affiliate: Option<u32>,
    pub(crate) time_ms: u64,
    pub(crate) changed_ms: u64,
    /// Whose rates count.
    pub(crate) catalog: CatalogVersion,
}

impl Life {
    /// The life of which this word is all there is.
    fn alone(word: &Word) -> Self {
        let at = word.at;
        let mut life = Self {
            first: Some(Dated {
                at,
                value: word.catalog,
            }),
            last: Some(at),
            ..Self::default()
        };
        // What `reinstated` leads to.
        let step = word.status.map(|said| match said {
            Said::Step(step) => step,
            Said::Reinstated => Step::Approved,
        });
        if word.by_operator {
            life.operator_status = step.map(|value| Dated { at, value });
            life.operator_amount = word.amount.map(|value| Dated { at, value });
            life.operator_affiliate = word.affiliate.map(|value| Dated { at, value });
            return life;
        }
        life.credit = word.credit.clone().map(|value| Dated { at, value });
        match word.amount {
            Some(amount) if word.takes_back() => {
                life.amount_taken_back = Some(Dated { at, value: amount });
            }
            Some(amount) => {
                let heard = Heard {
                    at,
                    approves: step == Some(Step::Approved),
                    ranked: word.rank.is_some(),
                };
                life.amounts.insert(amount, heard);
                life.ranked_amount = word.rank.map(|rank| Ranked {
                    rank,
                    value: amount,
                    at,
                });
            }
            None => {}
        }
        match (word.rank, word.status) {
            (Some(rank), _) => {
                life.ranked_status = step.map(|value| Ranked { rank, value, at });
                life.ranked_credit = word.credit.clone().map(|value| Ranked { rank, value, at });
            }
            (None, Some(Said::Step(step))) => life.said[step as usize] = Some(at),
            (None, Some(Said::Reinstated)) => life.reinstated = Some(at),
            (None, None) => {}
        }
        life
    }

    /// Folds a word in.
    pub(crate) fn hear(&mut self, word: &Word) {
        self.join(Self::alone(word));
    }

    /// What both know.
    pub(crate) fn join(&mut self, other: Self) {
        fn min<T: Ord>(ours: &mut Option<T>, theirs: Option<T>) {
            *ours = ours.take().into_iter().chain(theirs).min();
        }
        fn max<T: Ord>(ours: &mut Option<T>, theirs: Option<T>) {
            *ours = ours.take().into_iter().chain(theirs).max();
        }
        fn highest<T: Ord>(ours: &mut Option<Ranked<T>>, theirs: Option<Ranked<T>>) {
            let both = ours.take().into_iter().chain(theirs);
            *ours = both.max_by(|one, other| {
                let by_word = (one.rank, &one.value).cmp(&(other.rank, &other.value));
                by_word.then(other.at.cmp(&one.at))
            });
        }
        min(&mut self.first, other.first);
        max(&mut self.last, other.last);
        for (amount, theirs) in other.amounts {
            let ours = self.amounts.entry(amount).or_insert(theirs);
            if theirs.at < ours.at {
                *ours = theirs;
            }
        }
        while self.amounts.len() > AMOUNTS_MAX {
            let youngest = self.amounts.iter().max_by_key(|(_, heard)| heard.at);
            let youngest = *youngest.expect("there are more than none").0;
            self.amounts.remove(&youngest);
        }
        min(&mut self.amount_taken_back, other.amount_taken_back);
        for (ours, theirs) in self.said.iter_mut().zip(other.said) {
            max(ours, theirs);
        }
        min(&mut self.reinstated, other.reinstated);
        highest(&mut self.ranked_status, other.ranked_status);
        highest(&mut self.ranked_amount, other.ranked_amount);
        max(&mut self.operator_status, other.operator_status);
        max(&mut self.operator_amount, other.operator_amount);
        max(&mut self.operator_affiliate, other.operator_affiliate);
        min(&mut self.credit, other.credit);
        highest(&mut self.ranked_credit, other.ranked_credit);
    }

    /// Where the order stands; `None` while nothing was said.
    pub(crate) fn standing(&self) -> Option<Standing> {
        let first = self.first?;
        let credit = match &self.ranked_credit {
            Some(ranked) => Some(ranked.value.clone()),
            None => self.credit.as_ref().map(|credit| credit.value.clone()),
        };
        Some(Standing {
            status: self.status(),
            amount: self.amount(),
            credit,
            affiliate: self.operator_affiliate.map(|affiliate| affiliate.value),
            time_ms: first.at.time_ms,
            changed_ms: self.last.unwrap_or(first.at).time_ms,
            catalog: first.value,
        })
    }

    fn status(&self) -> Step {
        let base = later(self.ranked_status, self.operator_status);
        let base_at = base.map(|base| base.at);
        let reopened = self.reopened(base_at);
        let since = reopened.max(base_at);
        let start = match reopened {
            Some(_) => Some(Step::Approved),
            None => base.map(|base| base.value),
        };
        let risen = Step::ALL
            .into_iter()
            .filter(|step| self.said[*step as usize] > since);
        risen.chain(start).max().unwrap_or(Step::Pending)
    }

    /// The last word without rank that left rejected or reversed, after `base_at`.
    fn reopened(&self, base_at: Option<At>) -> Option<At> {
        let first = self.amounts.values().map(|heard| heard.at).min();
        let corrections = self
            .amounts
            .values()
            .filter(|heard| heard.approves && !heard.ranked && Some(heard.at) != first)
            .map(|heard| heard.at);
        corrections
            .chain(self.reinstated)
            .filter(|at| Some(*at) > base_at)
            .max()
    }

    fn amount(&self) -> Option<Amount> {
        let base = later(self.ranked_amount, self.operator_amount);
        let base_at = base.map(|base| base.at);
        let heard = self.amounts.iter();
        let corrected = heard
            .filter(|(_, heard)| !heard.ranked && Some(heard.at) > base_at)
            .max_by_key(|(_, heard)| heard.at)
            .map(|(amount, _)| *amount);
        corrected
            .or(base.map(|base| base.value))
            .or(self.amount_taken_back.map(|dated| dated.value))
    }

    /// Why a word that changed nothing changed nothing.
    pub(crate) fn outcome(&self, word: &Word) -> Reason {
        let is_below = |rank: Rank| {
            let ranks = [
                self.ranked_status.map(|ranked| ranked.rank),
                self.ranked_amount.map(|ranked| ranked.rank),
            ];
            ranks.into_iter().flatten().any(|heard| heard > rank)
        };
        if word.rank.is_some_and(is_below) {
            return Reason::Superseded;
        }
        if word
            .amount
            .is_some_and(|amount| !word.takes_back() && !self.amounts.contains_key(&amount))
            && !word.by_operator
        {
            return Reason::AmountsSpent;
        }
        let approves = matches!(
            word.status,
            Some(Said::Step(Step::Approved) | Said::Reinstated)
        );
        if approves && self.status().is_taken_back() {
            return Reason::NotReopened;
        }
        Reason::Repeat
    }
}

/// What was said later, of a word with rank and a person's.
fn later<T: Copy>(ranked: Option<Ranked<T>>, operator: Option<Dated<T>>) -> Option<Dated<T>> {
    let ranked = ranked.map(|ranked| Dated {
        at: ranked.at,
        value: ranked.value,
    });
    [ranked, operator]
        .into_iter()
        .flatten()
        .max_by_key(|dated| dated.at)
}
