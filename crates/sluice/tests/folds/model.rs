//! The rules in plain words, over all events at once.

use std::collections::{BTreeMap, BTreeSet};

use domain::event::{Class, Status};

use crate::traffic::{Said, Traffic, Visit, time_ms};

/// What the whole store adds up to. Money in whole units of USD times 100, which the demo's percentages keep whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) unique: i64,
    pub(crate) duplicate: i64,
    pub(crate) anonymous: i64,
    pub(crate) invalid: i64,
    pub(crate) speculative: i64,
    pub(crate) conversions: i64,
    pub(crate) revenue: i64,
    pub(crate) payout: i64,
}

pub(crate) fn sums(traffic: &Traffic) -> Sums {
    let mut sums = Sums::default();
    clicks(&traffic.visits, &mut sums);
    for order in 0..=u8::MAX {
        // Whoever has no secret, or was answered with an error, said nothing.
        let is_heard = |said: &&Said| said.order == order && said.trusted && !said.bad;
        let said: Vec<&Said> = traffic.said.iter().filter(is_heard).collect();
        let goal_of = |said: &&Said| said.goal_name(&traffic.visits);
        let goals: BTreeSet<&str> = said
            .iter()
            .map(goal_of)
            .filter(|goal| !goal.is_empty())
            .collect();
        for goal in &goals {
            let is_about = |said: &&&Said| {
                goal_of(said) == *goal
                    || said.goal.is_empty()
                        && (takes_back(said.status) || goal_of(said).is_empty() && goals.len() == 1)
            };
            let said: Vec<&Said> = said.iter().filter(is_about).copied().collect();
            conversion(goal, &said, &traffic.visits, &mut sums);
        }
    }
    sums
}

fn takes_back(status: Status) -> bool {
    matches!(status, Status::Rejected | Status::Reversed)
}

fn clicks(visits: &[Visit], sums: &mut Sums) {
    let mut seen: BTreeSet<(u64, u64, u32)> = BTreeSet::new();
    let mut last: BTreeMap<(u64, u32), u64> = BTreeMap::new();
    for visit in visits {
        if visit.class == Class::Speculative {
            sums.speculative += 1;
            continue;
        }
        if visit.refused || visit.class == Class::Head {
            sums.invalid += 1;
            continue;
        }
        let now_ms = time_ms(visit);
        let before = last.insert((visit.visitor, visit.offer), now_ms);
        let repeat =
            visit.visitor != 0 && before.is_some_and(|before| now_ms - before <= fraud::REPEAT_MS);
        let day = now_ms / 86_400_000;
        if repeat || visit.class == Class::Bot {
            sums.invalid += 1;
        } else if visit.visitor == 0 {
            sums.anonymous += 1;
        } else if seen.insert((day, visit.visitor, visit.offer)) {
            sums.unique += 1;
        } else {
            sums.duplicate += 1;
        }
    }
}

/// Goes through the words about one goal of an order as a person would.
fn conversion(goal: &str, said: &[&Said], visits: &[Visit], sums: &mut Sums) {
    let mut heard: Vec<u32> = Vec::new();
    let (mut status, mut amount, mut taken_back) = (Status::Pending, None, None);
    let (mut credit, mut reinstated) = (None, false);
    for said in said {
        let is_named = said.goal_name(visits) == goal;
        if said.has_token && is_named {
            credit = credit.or(Some(&visits[said.visit]));
        }
        let mut reopens = false;
        match said.amount {
            Some(named) if takes_back(said.status) => {
                taken_back = taken_back.or(Some(named).filter(|_| is_named));
            }
            Some(named) if !heard.contains(&named) => {
                reopens = matches!(said.status, Status::Approved | Status::Reinstated)
                    && !heard.is_empty();
                heard.push(named);
                amount = Some(named);
            }
            _ => {}
        }
        if said.status == Status::Reinstated && !reinstated {
            (reinstated, reopens) = (true, true);
        }
        status = match (reopens, said.status) {
            (true, _) => Status::Approved,
            (false, Status::Reinstated) => status,
            (false, said) => status.max(said),
        };
    }
    let Some(visit) = credit else { return };
    if status != Status::Approved || visit.class == Class::Head {
        return;
    }
    // The rates of the version in force when the first word came.
    let (revenue, payout) = match (goal, visit.offer, said[0].catalog_version) {
        ("signup", ..) => {
            sums.conversions += 1;
            sums.revenue += 400;
            sums.payout += 300;
            return;
        }
        (_, 1, 1) => (12, 8),
        (_, 1, _) => (20, 10),
        _ => (10, 7),
    };
    // Sales are paid for in percent of the amount.
    let Some(amount) = amount.or(taken_back) else {
        return;
    };
    sums.conversions += 1;
    sums.revenue += i64::from(amount) * revenue;
    sums.payout += i64::from(amount) * payout;
}
