//! The whole system, as a real process: started, driven over HTTP, killed, started again, asked for its report.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod first_click;

mod backed_up;
mod bad_requests;
mod checked;
mod connections;
mod refused_catalogs;
mod refused_starts;
mod said_plainly;

mod catalog_changes;
mod edge_alone;
mod folded_again;
mod foreign_reader;
mod gaps;
mod grown;
mod kafka_away;
mod killed;
mod links_file;
mod listed;
mod orders;
mod parked;
mod replayed;
mod rings;
mod second_machine;
mod size_bound;
mod stalled;
mod three_brokers;

mod ledger;
mod on_kafka;
mod process;
mod quiet_logs;
mod units;

use std::path::Path;

use testkit::http::Response;
use testkit::{System, http, wait};

/// How long something may take that takes milliseconds on a machine that does nothing else.
const BOUND: std::time::Duration = std::time::Duration::from_secs(60);

const CHROME: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";

/// The whole report after one click on the demo's boots and a signup it led to.
const ONE_CLICK_AND_ITS_SIGNUP: &str = "gross,clicks,unique,duplicate,anonymous,invalid,conversions,cvr,currency,amount,revenue,payout,profit,epc\n\
     1,1,1,0,0,0,1,100.00,USD,0.00,4.00,3.00,1.00,3.0000\n";

/// The click token of a redirect.
#[track_caller]
fn token(response: &Response, click_param: &str) -> String {
    let location = response.header("location").expect("a redirect");
    let (_, token) = location
        .split_once(&format!("{click_param}="))
        .unwrap_or_else(|| panic!("no {click_param} in {location}"));
    token.to_owned()
}

/// The demo advertiser's secret.
fn demo_secret(data: &Path) -> String {
    let secret = std::fs::read_to_string(data.join("demo/northpeak.secret"));
    secret.expect("the demo is there").trim().to_owned()
}

/// The value of a metric, by its name and labels as they are written.
fn metric(system: &System, name: &str) -> Option<f64> {
    let metrics = http::get(system.admin, "/metrics", &[]).unwrap().text();
    let mut lines = metrics.lines();
    lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Waits until the report says so.
#[track_caller]
fn until_report(system: &System, by: &str, expected: &str) {
    let mut last = String::new();
    let found = wait::holds_within(BOUND, || {
        last = system.report(by);
        last == expected
    });
    assert!(found, "expected\n{expected}\nin the end it was\n{last}");
}
