//! Made-up events, and the records they travel in.

use domain::event::{self, Class, Click, Decision, Kind, Postback, Reason, Status, Trust};
use domain::{Affiliate, ClickKey, Offer, Shard, Target, Token, Topic};
use proptest::prelude::*;
use prost::Message;
use stream::{Record, StreamId};

/// Half a minute before midnight of the demo's UTC, so that visitors' days end among the clicks.
const START_MS: u64 = 1_767_225_570_000;
const ORIGIN: StreamId = StreamId([7; 16]);

/// One click, as far as the rules look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub(crate) at_ms: u64,
    /// 0 is nobody.
    pub(crate) visitor: u64,
    pub(crate) offer: u32,
    pub(crate) class: Class,
    pub(crate) refused: bool,
}

/// One postback of an order, about the click of a visit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Said {
    pub(crate) order: u8,
    pub(crate) visit: usize,
    pub(crate) trusted: bool,
    /// The edge answered it with an error.
    pub(crate) bad: bool,
    pub(crate) amount: Option<u32>,
    pub(crate) status: Status,
    /// As the sender named it; empty where it named none.
    pub(crate) goal: &'static str,
    pub(crate) has_token: bool,
    pub(crate) catalog_version: u32,
}

impl Said {
    /// The goal it is about: the one that was named, or the only one of the token's offer.
    pub(crate) fn goal_name(&self, visits: &[Visit]) -> &'static str {
        match (self.goal, self.has_token, visits[self.visit].offer) {
            ("", true, 2) => "sale",
            (goal, ..) => goal,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// In order of time.
    pub(crate) visits: Vec<Visit>,
    pub(crate) said: Vec<Said>,
}

pub(crate) fn made_up() -> impl Strategy<Value = Traffic> {
    let visit = (
        prop_oneof![0..3_000_u64, 0..60_000_u64],
        0..4_u64,
        1..=2_u32,
        prop_oneof![
            6 => Just(Class::Browser),
            1 => Just(Class::Bot),
            1 => Just(Class::Head),
            1 => Just(Class::Speculative),
        ],
        prop::bool::weighted(0.1),
    );
    let visit = visit.prop_map(|(at_ms, visitor, offer, class, refused)| Visit {
        at_ms,
        visitor,
        offer,
        class,
        refused,
    });
    let status = prop_oneof![
        3 => Just(Status::Approved),
        1 => Just(Status::Pending),
        1 => Just(Status::Rejected),
        1 => Just(Status::Reversed),
        1 => Just(Status::Reinstated),
    ];
    let goal = prop_oneof![6 => Just("sale"), 1 => Just("signup"), 2 => Just("")];
    let said = (
        0..4_u8,
        any::<prop::sample::Index>(),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.2),
        prop::option::of(prop_oneof![1..4_u32, 1..1_000_u32]),
        status,
        goal,
        prop::bool::weighted(0.8),
        1..=2_u32,
    );
    (
        prop::collection::vec(visit, 1..30),
        prop::collection::vec(said, 0..20),
    )
        .prop_map(|(mut visits, said)| {
            visits.sort_by_key(|visit| visit.at_ms);
            let said = said.into_iter();
            let said = said.map(
                |(order, visit, trusted, bad, amount, status, goal, token, catalog_version)| {
                    let visit = visit.index(visits.len());
                    // The edge refuses a goal that the token's offer does not have.
                    let goal = if visits[visit].offer == 2 && goal == "signup" {
                        "sale"
                    } else {
                        goal
                    };
                    Said {
                        order,
                        visit,
                        trusted,
                        bad,
                        amount,
                        status,
                        goal,
                        // Boots have two goals: a token of theirs without a goal is refused.
                        has_token: token && (!goal.is_empty() || visits[visit].offer == 2),
                        catalog_version,
                    }
                },
            );
            Traffic {
                said: said.collect(),
                visits,
            }
        })
}

impl Traffic {
    pub(crate) fn one_sale() -> Self {
        Self::one_sale_said(&["approved"])
    }

    /// One click and what was said of one order, in this order; `bad` is an approval that the edge did not understand.
    pub(crate) fn one_sale_said(statuses: &[&str]) -> Self {
        let said = statuses.iter().map(|status| Said {
            order: 1,
            visit: 0,
            trusted: true,
            bad: *status == "bad",
            amount: (*status != "pending").then_some(80),
            status: match *status {
                "pending" => Status::Pending,
                "reversed" => Status::Reversed,
                _ => Status::Approved,
            },
            goal: "sale",
            has_token: true,
            catalog_version: 1,
        });
        Self {
            said: said.collect(),
            visits: vec![Visit {
                at_ms: 0,
                visitor: 1,
                offer: 1,
                class: Class::Browser,
                refused: false,
            }],
        }
    }

    /// The records of a topic, by partition: of the two there are, a visitor's and an order's are always in one.
    pub(crate) fn records(&self, topic: Topic) -> [Vec<Record>; 2] {
        let mut partitions = [Vec::new(), Vec::new()];
        match topic {
            Topic::Clicks => {
                for (at, visit) in self.visits.iter().enumerate() {
                    let lane = (visit.visitor % 2) as u8;
                    let click = click(at, visit);
                    add(
                        &mut partitions,
                        lane,
                        Kind::Click,
                        key_of(at, visit),
                        &click,
                    );
                }
            }
            Topic::Postbacks => {
                for (at, said) in self.said.iter().enumerate() {
                    let key = ClickKey {
                        time_ms: START_MS + 100_000 + at as u64,
                        stream: ORIGIN.prefix(),
                        sequence: 1_000 + at as u32,
                    };
                    let mut postback = self.postback(said);
                    postback.key = Some(key.into());
                    add(
                        &mut partitions,
                        said.order % 2,
                        Kind::Postback,
                        key,
                        &postback,
                    );
                }
            }
            _ => {}
        }
        partitions
    }

    fn postback(&self, said: &Said) -> Postback {
        let visit = &self.visits[said.visit];
        let mut postback = Postback {
            catalog_version: said.catalog_version,
            catalog_hash: crate::bench::CATALOG_HASHES[said.catalog_version as usize - 1],
            advertiser: 1,
            goal_text: said.goal.to_owned(),
            goal_name: said.goal_name(&self.visits).to_owned(),
            order: said.order.to_string(),
            currency: "USD".into(),
            ..Postback::default()
        };
        if said.has_token {
            postback.token = token(said.visit, visit).to_bytes().to_vec();
            postback.offer = visit.offer;
            postback.affiliate = 1;
        }
        if let Some(amount) = said.amount {
            postback.has_amount = true;
            postback.amount_micros = i64::from(amount) * 1_000_000;
        }
        postback.set_trust(if said.trusted {
            Trust::Server
        } else {
            Trust::None
        });
        postback.set_status(said.status);
        postback.set_reason(match (said.bad, said.trusted) {
            (true, _) => Reason::UnknownStatus,
            (false, true) => Reason::None,
            (false, false) => Reason::Unauthenticated,
        });
        postback
    }
}

pub(crate) fn time_ms(visit: &Visit) -> u64 {
    START_MS + visit.at_ms
}

fn key_of(at: usize, visit: &Visit) -> ClickKey {
    ClickKey {
        time_ms: time_ms(visit),
        stream: ORIGIN.prefix(),
        sequence: at as u32 + 1,
    }
}

fn token(at: usize, visit: &Visit) -> Token {
    Token {
        click: key_of(at, visit),
        target: Target::Offer(Offer::new(visit.offer).unwrap(), Affiliate::new(1).unwrap()),
        shard: shard(visit),
    }
}

fn shard(visit: &Visit) -> Shard {
    Shard::new((visit.visitor as u32 % 2) << 4).unwrap()
}

fn click(at: usize, visit: &Visit) -> Click {
    let mut click = Click {
        key: Some(key_of(at, visit).into()),
        shard: shard(visit).get().into(),
        catalog_version: 1,
        catalog_hash: crate::bench::CATALOG_HASHES[0],
        offer: visit.offer,
        affiliate: 1,
        advertiser: 1,
        visitor: visit.visitor,
        ..Click::default()
    };
    click.set_class(visit.class);
    click.set_decision(match (visit.class, visit.refused) {
        (Class::Speculative, _) => Decision::Speculative,
        (_, true) => Decision::Refuse,
        (_, false) => Decision::Redirect,
    });
    click.set_reason(match (visit.class, visit.refused) {
        (Class::Speculative, _) => Reason::Speculative,
        (_, true) => Reason::NotApproved,
        (Class::Head, false) => Reason::Head,
        (Class::Bot, false) => Reason::DeclaredBot,
        _ => Reason::None,
    });
    click
}

fn add(
    partitions: &mut [Vec<Record>; 2],
    lane: u8,
    kind: Kind,
    key: ClickKey,
    value: &impl Message,
) {
    let partition = &mut partitions[usize::from(lane)];
    partition.push(Record {
        key: Vec::new(),
        kind: kind as u16,
        version: event::SCHEMA_VERSION,
        origin: ORIGIN,
        lane,
        n: partition.len() as u64 + 1,
        time_ms: key.time_ms,
        value: value.encode_to_vec(),
    });
}
