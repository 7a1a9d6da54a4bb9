//! The rules in plain words, over all events at once.

use std::collections::{BTreeMap, BTreeSet};

use domain::event::{Class, Status};

use crate::traffic::{Said, Traffic, Visit, time_ms};

/// What the whole store adds up to. Money in whole units of USD times 100, which the demo's percentages keep whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) unique: i64,
    pub(crate) duplicate: i64,
    pub(crate) invalid: i64,
    pub(crate) speculative: i64,
    pub(crate) conversions: i64,
    pub(crate) revenue: i64,
    pub(crate) payout: i64,
}

pub(crate) fn sums(traffic: &Traffic) -> Sums {
    let mut sums = Sums::default();
    clicks(&traffic.visits, &mut sums);
    let orders: BTreeSet<(u8, u32)> = traffic
        .said
        .iter()
        .map(|said| (said.order, traffic.visits[said.visit].offer))
        .collect();
    for (order, offer) in orders {
        let of_order =
            |said: &&Said| said.order == order && traffic.visits[said.visit].offer == offer;
        let said: Vec<&Said> = traffic.said.iter().filter(of_order).collect();
        conversion(offer, &said, &mut sums);
    }
    sums
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
        } else if visit.visitor == 0 || seen.insert((day, visit.visitor, visit.offer)) {
            sums.unique += 1;
        } else {
            sums.duplicate += 1;
        }
    }
}

fn conversion(offer: u32, said: &[&Said], sums: &mut Sums) {
    let mut good: Vec<&Said> = Vec::new();
    for said in said.iter().filter(|said| said.trusted && !said.bad) {
        // What says the same again is a repeat.
        if !good.contains(said) {
            good.push(said);
        }
    }
    let approved = good
        .last()
        .is_some_and(|last| last.status == Status::Approved);
    let amount = good.iter().find_map(|said| said.amount);
    // Both sales are paid for in percent of the amount.
    let (Some(amount), true) = (amount, approved) else {
        return;
    };
    let (revenue, payout) = if offer == 1 { (12, 8) } else { (10, 7) };
    sums.conversions += 1;
    sums.revenue += i64::from(amount) * revenue;
    sums.payout += i64::from(amount) * payout;
}
