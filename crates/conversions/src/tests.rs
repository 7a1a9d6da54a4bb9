//! The order-life rule: named sequences of words and where they lead, whatever the order of arrival, the repeats and the
//! clocks of edges that keep the words' order; and any words at all against a plain replay.

use domain::event::{Postback, Reason, Status, Trust};
use domain::{ClickKey, Micros};
use proptest::prelude::*;

use crate::life::{AMOUNTS_MAX, Step, Word};
use crate::order::Order;

/// Reads a word as people write it: `approved 500 goal=sale seq=3`. Parts: a status (`-` for none), an amount, `goal=`,
/// `seq=`, `time=`, `token=` (a number), `op` for a person of the network, `aff=`.
fn word(text: &str, at: ClickKey) -> Postback {
    let mut postback = Postback {
        key: Some(at.into()),
        catalog_version: 1,
        currency: "USD".into(),
        goal_name: "sale".into(),
        goal_text: "sale".into(),
        trust: Trust::Server.into(),
        ..Postback::default()
    };
    for part in text.split(' ') {
        let status = match part {
            "pending" => Some(Status::Pending),
            "approved" => Some(Status::Approved),
            "rejected" => Some(Status::Rejected),
            "reversed" => Some(Status::Reversed),
            "reinstated" => Some(Status::Reinstated),
            "-" => Some(Status::Unspecified),
            _ => None,
        };
        if let Some(status) = status {
            postback.status = status.into();
            continue;
        }
        match part.split_once('=') {
            Some(("goal", goal)) => {
                postback.goal_name = goal.into();
                postback.goal_text = goal.into();
            }
            // The only goal of the token's offer, which the sender did not name.
            Some(("only", goal)) => {
                postback.goal_name = goal.into();
                postback.goal_text = String::new();
            }
            Some(("seq", seq)) => postback.seq = Some(seq.parse().unwrap()),
            Some(("time", time)) => postback.said_us = Some(time.parse().unwrap()),
            Some(("aff", affiliate)) => postback.credit_affiliate = affiliate.parse().unwrap(),
            Some(("token", token)) => {
                postback.token = vec![token.parse().unwrap(); 20];
                postback.affiliate = token.parse().unwrap();
            }
            None if part == "op" => postback.trust = Trust::Operator.into(),
            _ => {
                postback.has_amount = true;
                postback.amount_micros = Micros::parse(part).unwrap().0;
            }
        }
    }
    postback
}

/// The key of the n-th word, taken by an edge whose clock is off by so much.
fn at(n: usize, off_ms: i64) -> ClickKey {
    ClickKey {
        time_ms: (1_790_000_000_000 + 60_000 * n as u64).saturating_add_signed(off_ms),
        stream: 1,
        sequence: n as u32,
    }
}

/// `approved 500`, or `sale: approved 500; lead: …` where there are several goals.
fn told(order: &Order) -> String {
    let standings = order.standings();
    let lines: Vec<String> = standings
        .iter()
        .map(|(goal, standing)| {
            let mut line = match standing.status {
                Step::Pending => "pending",
                Step::Approved => "approved",
                Step::Rejected => "rejected",
                Step::Reversed => "reversed",
            }
            .to_owned();
            if let Some(amount) = standing.amount {
                line += &format!(" {}", amount.value.0 / 1_000_000);
            }
            if let Some(credit) = &standing.credit {
                line += &format!(" token={}", credit.affiliate);
            }
            if let Some(affiliate) = standing.affiliate {
                line += &format!(" aff={affiliate}");
            }
            match standings.len() {
                1 => line,
                _ => format!("{goal}: {line}"),
            }
        })
        .collect();
    lines.join("; ")
}

fn heard(words: impl IntoIterator<Item = Postback>) -> Order {
    let mut order = Order::default();
    for postback in words {
        let at = ClickKey::from(postback.key.as_ref().unwrap());
        order.hear(&postback, &Word::of(&postback, at));
        // Through the store and back.
        order = Order::from_bytes(&order.to_bytes()).unwrap();
    }
    order
}

/// What was sent, in the advertiser's order, and where the order stands in the end.
const LIVES: [(&str, &[&str], &str); 52] = [
    // Status.
    ("a sale", &["approved 500"], "approved 500"),
    ("a sale without an amount", &["approved"], "approved"),
    (
        "held, then approved",
        &["pending 500", "approved 500"],
        "approved 500",
    ),
    (
        "held with an amount, approved without",
        &["pending 500", "approved"],
        "approved 500",
    ),
    (
        "held without an amount, approved with",
        &["pending", "approved 500"],
        "approved 500",
    ),
    (
        "approved, then held again",
        &["approved 500", "pending 500"],
        "approved 500",
    ),
    ("refused", &["pending 500", "rejected"], "rejected 500"),
    ("refused at once", &["rejected 500"], "rejected 500"),
    (
        "approved, then refused",
        &["approved 500", "rejected"],
        "rejected 500",
    ),
    ("reversed", &["approved 500", "reversed"], "reversed 500"),
    (
        "reversed with its amount",
        &["approved 500", "reversed 500"],
        "reversed 500",
    ),
    (
        "refused, then reversed",
        &["rejected", "reversed"],
        "reversed",
    ),
    (
        "reversed, then refused",
        &["approved 500", "reversed", "rejected"],
        "reversed 500",
    ),
    // Retries.
    ("a retry", &["approved 500", "approved 500"], "approved 500"),
    (
        "a retry after the reversal",
        &["approved 500", "reversed", "approved 500"],
        "reversed 500",
    ),
    (
        "a retry spelled otherwise",
        &["approved 500.00", "reversed", "approved 500.0"],
        "reversed 500",
    ),
    (
        "a retry without the amount",
        &["approved 500", "reversed", "approved"],
        "reversed 500",
    ),
    (
        "a retry of the first of two amounts",
        &["approved 500", "approved 50", "approved 500"],
        "approved 50",
    ),
    (
        "a retry after a correction and a reversal",
        &["approved 500", "approved 501", "reversed", "approved 501"],
        "reversed 501",
    ),
    (
        "a retry of the hold",
        &["pending 500", "approved 500", "reversed", "pending 500"],
        "reversed 500",
    ),
    // Corrections.
    (
        "a correction down",
        &["approved 500", "approved 50"],
        "approved 50",
    ),
    (
        "a correction up",
        &["approved 50", "approved 500"],
        "approved 500",
    ),
    (
        "a part refund",
        &["approved 80", "approved 30"],
        "approved 30",
    ),
    (
        "a refund of everything as an amount",
        &["approved 80", "approved 0"],
        "approved 0",
    ),
    (
        "three corrections",
        &["approved 1", "approved 2", "approved 3"],
        "approved 3",
    ),
    (
        "a correction of the hold",
        &["pending 80", "pending 70", "approved"],
        "approved 70",
    ),
    (
        "a held correction of an approved order",
        &["approved 80", "pending 70"],
        "approved 70",
    ),
    (
        "a reversal that names the part",
        &["approved 80", "reversed 30"],
        "reversed 80",
    ),
    // What leaves rejected and reversed, and what rises after it.
    (
        "sold again for another amount",
        &["approved 500", "reversed", "approved 501"],
        "approved 501",
    ),
    (
        "sold again and reversed",
        &["approved 500", "reversed", "approved 501", "reversed"],
        "reversed 501",
    ),
    (
        "sold again and reversed by its old amount",
        &["approved 500", "reversed", "approved 501", "reversed 500"],
        "reversed 501",
    ),
    (
        "a third sale",
        &[
            "approved 500",
            "reversed",
            "approved 501",
            "reversed",
            "approved 502",
        ],
        "approved 502",
    ),
    (
        "held again for another amount",
        &["approved 500", "reversed", "pending 501"],
        "reversed 501",
    ),
    (
        "a reversal before the first sale",
        &["reversed", "approved 500"],
        "reversed 500",
    ),
    (
        "a reversal, a sale, another sale",
        &["reversed", "approved 500", "approved 501"],
        "approved 501",
    ),
    (
        "reinstated",
        &["approved 500", "reversed", "reinstated"],
        "approved 500",
    ),
    (
        "reinstated after a refusal",
        &["pending 500", "rejected", "reinstated"],
        "approved 500",
    ),
    (
        "reinstated with another amount",
        &["approved 500", "reversed", "reinstated 400"],
        "approved 400",
    ),
    (
        "reinstated and reversed",
        &["approved 500", "reversed", "reinstated", "reversed"],
        "reversed 500",
    ),
    (
        "a retry of the reinstatement",
        &[
            "approved 500",
            "reversed",
            "reinstated",
            "reversed",
            "reinstated",
        ],
        "reversed 500",
    ),
    // With seq or time everything is corrected freely.
    (
        "numbered",
        &["approved 500 seq=1", "reversed seq=2", "approved 500 seq=3"],
        "approved 500",
    ),
    (
        "numbered, amount back to the first",
        &[
            "approved 500 seq=1",
            "approved 50 seq=2",
            "approved 500 seq=3",
        ],
        "approved 500",
    ),
    (
        "numbered, sent out of order",
        &["reversed seq=2", "approved 500 seq=1"],
        "reversed 500",
    ),
    (
        "numbered, a retry of an older one",
        &[
            "approved 500 seq=1",
            "approved 50 seq=2",
            "approved 500 seq=1",
        ],
        "approved 50",
    ),
    (
        "numbered, back to pending",
        &["approved 500 seq=1", "pending seq=2"],
        "pending 500",
    ),
    (
        "dated",
        &[
            "reversed time=30",
            "approved 500 time=10",
            "approved 501 time=20",
        ],
        "reversed 501",
    ),
    (
        "numbered sale, reversed by hand without a number",
        &["approved 500 seq=1", "reversed"],
        "reversed 500",
    ),
    (
        "numbered again after that",
        &["approved 500 seq=1", "reversed", "approved 500 seq=2"],
        "approved 500",
    ),
    // Goals.
    (
        "two goals, one reversal of both",
        &[
            "approved 5 goal=lead",
            "approved 80 goal=sale",
            "reversed goal=",
        ],
        "lead: reversed 5; sale: reversed 80",
    ),
    (
        "two goals, an approval of neither",
        &[
            "pending 5 goal=lead",
            "pending 80 goal=sale",
            "approved goal=",
        ],
        "lead: pending 5; sale: pending 80",
    ),
    (
        "one goal, an approval without it",
        &["pending 80 goal=sale", "approved goal="],
        "approved 80",
    ),
    // The network's people.
    (
        "adjusted",
        &[
            "approved 80 token=1",
            "op - 60",
            "op - aff=7",
            "approved 80 token=1",
            "approved 50",
        ],
        "approved 50 token=1 aff=7",
    ),
];

fn postbacks(words: &[&str], off_ms: impl Fn(usize) -> i64) -> Vec<Postback> {
    let words = words.iter().enumerate();
    words
        .map(|(n, text)| word(text, at(n, off_ms(n))))
        .collect()
}

#[test]
fn lives_end_as_the_table_says() {
    for (name, words, expected) in LIVES {
        let order = heard(postbacks(words, |_| 0));
        assert_eq!(told(&order), expected, "{name}: {words:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_arrival_no_repeat_and_no_clock_changes_a_life(
        seed in any::<u64>(),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        off_ms in prop::collection::vec(-29_000..29_000_i64, 2),
    ) {
        for (name, words, expected) in LIVES {
            // Two edges take the words in turn; their clocks differ by less than lies between two words.
            let sent = postbacks(words, |n| off_ms[n % 2]);
            let mut arrived = sent.clone();
            arrived.extend(again.iter().map(|index| index.get(&sent).clone()));
            shuffle(&mut arrived, seed);
            prop_assert_eq!(told(&heard(arrived)), expected, "{}: {:?}", name, words);
        }
    }

    /// An approval and what takes it away give the same, however far clocks are apart.
    #[test]
    fn a_reversal_holds_whatever_the_clocks_say(off_ms in -3_600_000..3_600_000_i64) {
        for words in [&["approved 500", "reversed"][..], &["approved 500", "reversed 500"], &["pending 500", "approved 500", "rejected"]] {
            let sent = postbacks(words, |n| if n == words.len() - 1 { off_ms } else { 0 });
            let told = told(&heard(sent));
            prop_assert!(told == "reversed 500" || told == "rejected 500", "{}", told);
        }
    }

    /// Words without rank, against a replay of all of them in the order of their times.
    #[test]
    fn a_life_is_what_a_plain_replay_says(
        words in prop::collection::vec((0..5_usize, prop::option::of(0..5_i64)), 1..24),
        seed in any::<u64>(),
    ) {
        const NAMES: [&str; 5] = ["pending", "approved", "rejected", "reversed", "reinstated"];
        let texts: Vec<String> = words
            .iter()
            .map(|(status, amount)| match amount {
                Some(amount) => format!("{} {amount}", NAMES[*status]),
                None => NAMES[*status].to_owned(),
            })
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut arrived = postbacks(&texts, |_| 0);
        shuffle(&mut arrived, seed);
        prop_assert_eq!(told(&heard(arrived)), replay(&words), "{:?}", texts);
    }

    /// With `seq`, in whatever order: the last number that says something of it.
    #[test]
    fn numbered_words_are_in_force_by_their_number(
        words in prop::collection::vec((0..4_usize, 0..5_i64), 1..24),
        seed in any::<u64>(),
    ) {
        const NAMES: [&str; 4] = ["pending", "approved", "rejected", "reversed"];
        let texts: Vec<String> = words
            .iter()
            .enumerate()
            .map(|(seq, (status, amount))| format!("{} {amount} seq={seq}", NAMES[*status]))
            .collect();
        // The edges' clocks say nothing here.
        let mut arrived: Vec<Postback> = texts
            .iter()
            .enumerate()
            .map(|(n, text)| word(text, at((n * 7919 + seed as usize % 97) % 101, 0)))
            .collect();
        shuffle(&mut arrived, seed);
        let (status, _) = words[words.len() - 1];
        let named = words.iter().rev().find(|(status, _)| *status < 2).or(words.iter().rev().next_back());
        let order = told(&heard(arrived));
        prop_assert!(order.starts_with(NAMES[status]), "{} {:?}", order, texts);
        if words.iter().any(|(status, _)| *status < 2) {
            let (_, amount) = named.unwrap();
            prop_assert!(order.ends_with(&format!(" {amount}")), "{} {:?}", order, texts);
        }
    }
}

/// The rule as a person would go through it, word by word.
fn replay(words: &[(usize, Option<i64>)]) -> String {
    const REINSTATED: usize = 4;
    let mut heard: Vec<i64> = Vec::new();
    let (mut status, mut amount, mut taken_back, mut reinstated) = (0, None, None, false);
    for (said, named) in words {
        let takes_back = *said == 2 || *said == 3;
        let mut reopens = false;
        match named {
            Some(named) if takes_back => taken_back = taken_back.or(Some(*named)),
            Some(named) if !heard.contains(named) => {
                reopens = matches!(*said, 1 | REINSTATED) && !heard.is_empty();
                heard.push(*named);
                amount = Some(*named);
            }
            _ => {}
        }
        if *said == REINSTATED && !reinstated {
            (reinstated, reopens) = (true, true);
        }
        status = match (reopens, *said) {
            (true, _) => 1,
            (false, REINSTATED) => status,
            (false, said) => status.max(said),
        };
    }
    let name = ["pending", "approved", "rejected", "reversed"][status];
    match amount.or(taken_back) {
        Some(amount) => format!("{name} {amount}"),
        None => name.to_owned(),
    }
}

fn shuffle(words: &mut [Postback], mut seed: u64) {
    for at in (1..words.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        words.swap(at, (seed >> 33) as usize % (at + 1));
    }
}

#[test]
fn a_shop_with_one_order_id_for_all_sales_costs_no_more_than_its_first() {
    let mut order = Order::default();
    for n in 0..5_000_usize {
        let postback = word(&format!("approved {n}"), at(n, 0));
        order.hear(&postback, &Word::of(&postback, at(n, 0)));
    }
    assert!(order.to_bytes().len() < 3_000, "{}", order.to_bytes().len());
    // What was heard first stays, and what comes after it changes nothing.
    assert_eq!(told(&order), format!("approved {}", AMOUNTS_MAX - 1));
    let postback = word("approved 9999", at(6_000, 0));
    let late = Word::of(&postback, at(6_000, 0));
    order.hear(&postback, &late);
    assert_eq!(order.outcome(&postback, &late), Reason::AmountsSpent);
}

#[test]
fn a_word_that_changed_nothing_says_why() {
    for (words, late, expected) in [
        (&["approved 500"][..], "approved 500.00", Reason::Repeat),
        (
            &["approved 500", "reversed"],
            "approved 500",
            Reason::NotReopened,
        ),
        (
            &["approved 500", "reversed", "reinstated", "reversed"],
            "reinstated",
            Reason::NotReopened,
        ),
        (
            &["approved 500 seq=2"],
            "approved 400 seq=1",
            Reason::Superseded,
        ),
        (
            &["pending 5 goal=lead", "pending 80 goal=sale"],
            "approved goal=",
            Reason::GoalAmbiguous,
        ),
        (&[], "reversed goal=", Reason::TokenMissing),
    ] {
        let mut order = heard(postbacks(words, |_| 0));
        let before = told(&order);
        let postback = word(late, at(9, 0));
        let late_word = Word::of(&postback, at(9, 0));
        order.hear(&postback, &late_word);
        assert_eq!(told(&order), before, "{words:?} {late}");
        assert_eq!(
            order.outcome(&postback, &late_word),
            expected,
            "{words:?} {late}"
        );
    }
}

#[test]
fn a_reversal_without_goal_also_takes_a_goal_that_comes_later() {
    let words = [
        "approved 5 goal=lead",
        "reversed goal=",
        "approved 80 goal=sale",
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let sent = postbacks(&words, |_| 0);
        let arrived = order.map(|n| sent[n].clone());
        assert_eq!(told(&heard(arrived)), "lead: reversed 5; sale: reversed 80");
    }
}

#[test]
fn one_order_reported_with_two_tokens_is_paid_once() {
    // A shop that posts every token it holds: the first has the order, of whichever offer it is.
    let sent = postbacks(&["approved 80 token=1", "approved 80 token=2"], |_| 0);
    assert_eq!(told(&heard(sent.clone())), "approved 80 token=1");
    assert_eq!(told(&heard(sent.into_iter().rev())), "approved 80 token=1");
    let sent = postbacks(
        &["approved 80 token=1 seq=1", "approved 80 token=2 seq=2"],
        |_| 0,
    );
    assert_eq!(told(&heard(sent)), "approved 80 token=2");
}
