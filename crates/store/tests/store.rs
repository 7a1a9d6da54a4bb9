//! The store as consumers and readers see it.

use std::path::Path;

use domain::ClickKey;
use proptest::prelude::*;
use store::{
    Change, Counts, Cube, Dimension, Error, High, Mark, MarkGroup, Money, OrderKey, Query,
    RollupKey, Sender, Source, Store, View,
};

const QUARTER_MS: u64 = 900_000;

/// What a consumer might do; any order of the same actions must give the same store.
#[derive(Clone, Debug)]
enum Action {
    Add(RollupKey, Change),
    Click(ClickKey),
    Mark(u64, ClickKey),
    Postback(ClickKey, bool),
    FraudClick(u64, ClickKey),
    Flag(ClickKey, u32),
}

fn key(offer: u32, currency: &str) -> RollupKey {
    RollupKey {
        cube: Cube::Traffic,
        bucket_ms: u64::from(offer % 3) * QUARTER_MS,
        offer,
        affiliate: 7,
        link: u64::MAX,
        reason: 0,
        currency: currency.into(),
        source: Source {
            consumer: 1,
            partition: 0,
        },
    }
}

fn apply(store: &Store, actions: &[Action], batch_max: usize) {
    for actions in actions.chunks(batch_max) {
        store
            .batch(|batch| {
                for action in actions {
                    match action {
                        Action::Add(key, change) => batch.add_rollup(key, change)?,
                        Action::Click(key) => {
                            batch.put_click(*key, &key.sequence.to_be_bytes())?;
                        }
                        Action::Mark(visitor, click) => {
                            let group = MarkGroup {
                                day: 3,
                                visitor: *visitor,
                                offer: 1,
                                affiliate: 2,
                            };
                            let mark = Mark {
                                click: *click,
                                seen: true,
                                reasons: 0,
                                link: 4,
                            };
                            batch.put_mark(&group, &mark)?;
                        }
                        Action::Postback(at, trusted) => {
                            let key = OrderKey {
                                advertiser: 1,
                                order: "A 1\n".into(),
                            };
                            let sender = match trusted {
                                true => Sender::Advertiser,
                                false => Sender::Stranger,
                            };
                            batch.put_postback(&key, *at, sender, 3, b"said")?;
                        }
                        Action::FraudClick(visitor, click) => {
                            batch.put_fraud_click(*visitor, 1, 2, *click, b"link")?;
                        }
                        Action::Flag(click, reason) => {
                            batch.put_flag(*click, *reason)?;
                        }
                    }
                }
                Ok(())
            })
            .expect("every action is good");
    }
}

fn click_keys() -> impl Strategy<Value = ClickKey> {
    (0..3_u64, 0..4_u32).prop_map(|(day, sequence)| ClickKey {
        time_ms: 1_790_000_000_000 + day * 86_400_000,
        stream: 1,
        sequence,
    })
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0..4_u32, prop::bool::ANY, -2..3_i64).prop_map(|(offer, money, by)| {
            let change = Change {
                clicks: by,
                unique: -by,
                revenue: if money { by * 1_000 } else { 0 },
                ..Change::default()
            };
            Action::Add(key(offer, if money { "USD" } else { "" }), change)
        }),
        click_keys().prop_map(Action::Click),
        (0..3_u64, click_keys()).prop_map(|(visitor, click)| Action::Mark(visitor, click)),
        // Trust is a property of the record, so it follows from the key.
        click_keys().prop_map(|at| Action::Postback(at, at.sequence.is_multiple_of(2))),
        (0..3_u64, click_keys()).prop_map(|(visitor, click)| Action::FraudClick(visitor, click)),
        (click_keys(), 7..9_u32).prop_map(|(click, reason)| Action::Flag(click, reason)),
    ]
}

fn two_orders() -> impl Strategy<Value = (Vec<Action>, Vec<Action>)> {
    prop::collection::vec(actions(), 1..80)
        .prop_flat_map(|actions| (Just(actions.clone()), Just(actions).prop_shuffle()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_order_and_batching_gives_the_same_dump((one, other) in two_orders(), a in 1..40_usize, b in 1..40_usize) {
        let folder = tempfile::tempdir().unwrap();
        let first = Store::open(&folder.path().join("first.db")).unwrap();
        let second = Store::open(&folder.path().join("second.db")).unwrap();
        apply(&first, &one, a);
        apply(&second, &other, b);
        let dump = first.dump().unwrap();
        prop_assert_eq!(&dump, &second.dump().unwrap());
        prop_assert_eq!(dump, View::open(&folder.path().join("first.db")).unwrap().dump().unwrap());
    }
}

fn store(folder: &Path) -> (Store, View) {
    let path = folder.join("store.db");
    let store = Store::open(&path).expect("a new store");
    let view = View::open(&path).expect("an existing store");
    (store, view)
}

fn clicks(clicks: i64) -> Change {
    Change {
        clicks,
        unique: clicks,
        ..Change::default()
    }
}

#[test]
fn the_second_owner_of_a_partition_is_overtaken_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, view) = store(folder.path());
    let step = |from, to| {
        store.batch(|batch| {
            batch.move_offset("clicks", 1, 5, from, to)?;
            batch.add_rollup(&key(1, ""), &clicks(1))
        })
    };
    step(0, 10).unwrap();
    step(10, 20).unwrap();
    for (from, to) in [(0, 10), (10, 20), (21, 30)] {
        let error = step(from, to).unwrap_err();
        assert!(error.is_overtaken(), "{error}");
    }
    assert_eq!(view.offset("clicks", 1, 5).unwrap(), Some(20));
    assert_eq!(
        view.report(&Query::default()).unwrap()[0].counts.clicks,
        2,
        "an overtaken batch rolls back"
    );
}

#[test]
fn a_position_is_what_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = store(folder.path());
    let high = |lane, n| High {
        lane,
        stream: [7; 16],
        n,
        time_ms: 99,
    };
    store
        .batch(|batch| {
            assert_eq!(batch.offset("clicks", 1, 0)?, 0);
            assert_eq!(batch.receipts("clicks", 1)?, store::Receipts::default());
            batch.move_offset("clicks", 1, 0, 0, 4)?;
            batch.set_high("clicks", 1, &high(9, 1))?;
            batch.set_high("clicks", 1, &high(2, 5))?;
            batch.set_high("clicks", 1, &high(9, 2))?;
            batch.set_high("fraud", 1, &high(1, 1))
        })
        .unwrap();
    let offset = |partition| store.batch(|batch| batch.offset("clicks", 1, partition));
    assert_eq!((offset(0).unwrap(), offset(1).unwrap()), (4, 0));
    let receipts = |consumer: &str| store.batch(|batch| batch.receipts(consumer, 1)).unwrap();
    assert_eq!(receipts("clicks").highs, [high(2, 5), high(9, 2)]);

    // Lane 9 ends, then lane 2.
    let mut ended = store::Ended {
        stream: [7; 16],
        lanes: [0; 32],
    };
    for (byte, bit, left) in [(1, 2, vec![high(2, 5)]), (0, 4, vec![])] {
        ended.lanes[byte] |= bit;
        store
            .batch(|batch| batch.end_lanes("clicks", 1, &ended))
            .unwrap();
        let found = receipts("clicks");
        assert_eq!((found.highs, found.ended), (left, vec![ended]));
    }
    let other = receipts("fraud");
    assert_eq!((other.highs, other.ended), (vec![high(1, 1)], vec![]));
}

#[test]
fn a_reader_sees_whole_batches_only() {
    let folder = tempfile::tempdir().unwrap();
    let (store, view) = store(folder.path());
    store
        .batch(|batch| {
            batch.add_rollup(&key(1, ""), &clicks(1))?;
            assert_eq!(view.report(&Query::default())?, []);
            Ok(())
        })
        .unwrap();
    assert_eq!(view.report(&Query::default()).unwrap()[0].counts.clicks, 1);
    let failed = store.batch(|batch| {
        batch.add_rollup(&key(1, ""), &clicks(5))?;
        Err::<(), _>(Error::other("weather"))
    });
    assert_eq!(failed.unwrap_err().to_string(), "weather");
    assert_eq!(view.report(&Query::default()).unwrap()[0].counts.clicks, 1);
}

#[test]
fn sums_that_are_taken_back_leave_no_row() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = store(folder.path());
    for by in [-3, 1, 2] {
        store
            .batch(|batch| batch.add_rollup(&key(1, ""), &clicks(by)))
            .unwrap();
    }
    assert_eq!(store.dump().unwrap(), "");
}

#[test]
fn a_sum_beyond_64_bits_is_refused_and_not_rounded() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = store(folder.path());
    let add = |by| store.batch(|batch| batch.add_rollup(&key(1, ""), &clicks(by)));
    add(i64::MAX).unwrap();
    assert!(add(1).is_err());
    add(-1).unwrap();
}

#[test]
fn a_report_keeps_currencies_apart_and_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let (store, view) = store(folder.path());
    let money = |conversions, revenue| Change {
        conversions,
        revenue,
        payout: 1,
        ..Change::default()
    };
    let of = |partition| Source {
        consumer: 2,
        partition,
    };
    store
        .batch(|batch| {
            batch.add_rollup(&key(1, ""), &clicks(10))?;
            batch.add_rollup(&key(2, ""), &clicks(3))?;
            for (currency, partition, change) in [
                ("USD", 1, money(1, 5)),
                ("USD", 2, money(1, 6)),
                ("EUR", 1, money(1, 7)),
            ] {
                let key = RollupKey {
                    source: of(partition),
                    ..key(1, currency)
                };
                batch.add_rollup(&key, &change)?;
            }
            Ok(())
        })
        .unwrap();
    let rows = view
        .report(&Query {
            by: vec![Dimension::Link, Dimension::Offer],
            ..Query::default()
        })
        .unwrap();
    let in_currency = |currency: &str, revenue, payout| Money {
        currency: currency.into(),
        amount: 0,
        revenue,
        payout,
    };
    assert_eq!(rows[0].group, [u64::MAX, 1]);
    assert_eq!(
        rows[0].counts,
        Counts {
            clicks: 10,
            unique: 10,
            conversions: 3,
            ..Counts::default()
        }
    );
    assert_eq!(
        rows[0].money,
        [in_currency("EUR", 7, 1), in_currency("USD", 11, 2)]
    );
    assert_eq!(
        (rows[1].counts.clicks, rows[1].money.len(), rows.len()),
        (3, 0, 2)
    );

    let later = Query {
        from_ms: Some(2 * QUARTER_MS),
        to_ms: Some(3 * QUARTER_MS),
        by: vec![Dimension::Bucket],
        only: Vec::new(),
    };
    let rows = view.report(&later).unwrap();
    assert_eq!(
        (rows.len(), rows[0].group.clone(), rows[0].counts.clicks),
        (1, vec![2 * QUARTER_MS], 3)
    );
}
