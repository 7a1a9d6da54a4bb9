//! The consumers are folds: whatever the order across lanes, the batches, the repeats and the restarts, the same records give
//! the same store, and what it says is what a plain model of the rules says.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod bench;
mod model;
mod parked;
mod traffic;

use proptest::prelude::*;

use bench::{Bench, Schedule};
use traffic::Traffic;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_order_batching_and_repeats_give_the_same_store(
        traffic in traffic::made_up(),
        one in bench::schedule(),
        other in bench::schedule(),
    ) {
        let first = Bench::new().run(&traffic, &one);
        let second = Bench::new().run(&traffic, &other);
        prop_assert_eq!(&first.dump, &second.dump);
        prop_assert_eq!(first.sums, model::sums(&traffic));
    }
}

#[test]
fn a_sale_before_its_click_ends_as_one_after_it() {
    let traffic = Traffic::one_sale();
    let clicks_first = Bench::new().run(&traffic, &Schedule::default());
    let sale_first = Bench::new().run(&traffic, &Schedule::conversions_first());
    assert_eq!(clicks_first.dump, sale_first.dump);
    assert_eq!(sale_first.sums.conversions, 1);
}

#[test]
fn a_mistaken_postback_changes_nothing_that_a_good_one_says() {
    for (statuses, conversions) in [
        (&["bad", "approved"][..], 1),
        (&["approved", "bad"], 1),
        (&["pending", "approved"], 1),
        (&["approved", "reversed"], 0),
        (&["approved", "reversed", "bad"], 0),
        (&["approved", "reversed", "approved"], 0),
        (&["bad"], 0),
    ] {
        let traffic = Traffic::one_sale_said(statuses);
        let told = Bench::new().run(&traffic, &Schedule::default());
        assert_eq!(told.sums.conversions, conversions, "{statuses:?}");
    }
}
