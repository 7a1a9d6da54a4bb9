//! The promise itself: a click that was answered is a click that is counted, once, whatever is killed in between.

use std::fs;
use std::process::Command;

use testkit::{Running, System, bin, wait};

use crate::{BOUND, ledger};

const CLICKS: usize = 4000;
const KILLS: usize = 3;
const POSTBACK_EVERY: usize = 20;

#[test]
fn every_answered_click_is_counted_once_though_the_process_is_killed_three_times() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let ledger = folder.path().join("ledger");
    let edge = testkit::lasting_address();
    let mut system = System::start_at(edge, &data, &[]);

    let mut generate = Command::new(bin("loadtest"));
    generate
        .arg("generate")
        .args(["--edge", &edge.to_string(), "--host", &edge.to_string()])
        .args(["--offer", "boots", "--affiliate", "trailblog"])
        .args(["--click-param", "npk", "--goal", "signup", "--retry"])
        .args(["--clicks", &CLICKS.to_string()])
        .args(["--postback-every", &POSTBACK_EVERY.to_string()])
        .arg("--secret-file")
        .arg(data.join("demo/northpeak.secret"))
        .arg("--ledger")
        .arg(&ledger);
    let mut generator = Running::spawn(generate, &folder.path().join("generator")).unwrap();
    let answered = || ledger::answered(&ledger);
    for kill in 1..=KILLS {
        wait::until("the next part is answered", BOUND, || {
            assert!(generator.ended().is_none(), "{}", generator.stderr());
            answered() > kill * CLICKS / (KILLS + 1)
        });
        system.kill9();
        system = System::start_at(edge, &data, &[]);
    }
    let status = generator.wait(BOUND).expect("the generator ends");
    assert!(status.success(), "{}", generator.stderr());
    system.stop();

    let answered = ledger::check(&data, &ledger);
    assert_eq!(answered.clicks, CLICKS);
    assert_eq!(answered.orders, CLICKS / POSTBACK_EVERY);

    // Each journal's scoreboard lived through the kills.
    let mut recorded = 0;
    for folder in fs::read_dir(data.join("journal")).unwrap() {
        let folder = folder.unwrap().path();
        let found = journal::inspect(&folder).unwrap();
        let counted = found.ledger.expect("a page");
        assert_eq!(found.written(), Some(counted.written()));
        assert_eq!(counted.power_cut, 0);
        recorded += counted.recorded;
    }
    assert!(
        recorded >= (answered.clicks + answered.orders) as u64,
        "{recorded}"
    );
}
