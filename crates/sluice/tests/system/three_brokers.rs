//! Three brokers under load: one that leads is killed, then so many are away that nothing may be acknowledged.
//!
//! It takes most of a minute: brokers are given up after some seconds, and come back in a few more.

use std::process::Command;

use stream::kafka::{Admin, Partition, Settings};
use testkit::{Running, System, bin, kafka, wait};

use crate::{BOUND, ledger};

/// Clicks a second, and a sale for every tenth.
const RATE: usize = 100;
const POSTBACK_EVERY: usize = 10;

/// Answers that wait while brokers are away: some seconds' worth, so far more than is ever under way otherwise.
const WAITING: usize = 4 * RATE;

/// The first partition of clicks, as the brokers at `address` have it.
fn first(address: &str) -> Partition {
    let settings = Settings {
        brokers: address.to_owned(),
        ..Settings::default()
    };
    let found = Admin::connect(&settings).and_then(|admin| admin.partitions("sluice.clicks"));
    let found = found.unwrap_or_default();
    found.into_iter().next().unwrap_or(Partition {
        leader: None,
        replicas: Vec::new(),
        in_sync: Vec::new(),
    })
}

/// Clicks in the report.
fn counted(system: &System) -> usize {
    let report = system.report("");
    let row = report.lines().nth(1).unwrap_or("0");
    let gross = row.split(',').next().unwrap_or("0");
    gross.parse().unwrap()
}

#[test]
fn a_lost_leader_and_too_few_replicas_lose_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let test = "a_lost_leader_and_too_few_replicas_lose_and_double_nothing";
    let Some(mut cluster) = kafka::three(test, &folder.path().join("kafka")) else {
        return;
    };
    let data = folder.path().join("data");
    let written = folder.path().join("ledger");
    let enough = folder.path().join("enough");
    let address = cluster.address();
    let mut create = Command::new(bin("sluice"));
    create.args(["topics", "create", "--kafka", &address]);
    assert!(create.status().unwrap().success());
    let system = System::start(&data, &["--kafka", &address]);

    let mut generate = Command::new(bin("loadtest"));
    generate
        .args(["generate", "--edge", &system.edge.to_string()])
        .args(["--host", &system.edge.to_string(), "--offer", "boots"])
        .args(["--affiliate", "trailblog", "--click-param", "npk"])
        .args(["--goal", "signup", "--clicks", "1000000"])
        .args(["--rate", &RATE.to_string()])
        .args(["--postback-every", &POSTBACK_EVERY.to_string()])
        .arg("--secret-file")
        .arg(data.join("demo/northpeak.secret"))
        .arg("--until")
        .arg(&enough)
        .arg("--ledger")
        .arg(&written);
    let mut generator = Running::spawn(generate, &folder.path().join("generator")).unwrap();
    // Everything answered so far gets into the report.
    let catches_up = |what: &str| {
        let answered = ledger::answered(&written);
        let clicks = answered - answered / POSTBACK_EVERY;
        wait::until(what, BOUND, || counted(&system) >= clicks);
    };
    wait::until("clicks are answered", BOUND, || {
        ledger::answered(&written) > RATE
    });
    catches_up("clicks are counted");

    // The leader goes: another one leads, and clicks go on.
    let leader = first(&address).leader.expect("somebody leads");
    cluster.broker(leader).kill9();
    wait::until("another one leads", BOUND, || {
        first(&address).leader.is_some_and(|now| now != leader)
    });
    catches_up("clicks are counted under the new leader");
    cluster.broker(leader).restart();
    wait::until("all are in sync", BOUND, || {
        first(&address).in_sync.len() == 3
    });

    // A follower falls back, and another one goes: the one that is left may acknowledge nothing.
    let leader = first(&address).leader.expect("somebody leads");
    let followers: Vec<i32> = (1..=3).filter(|id| *id != leader).collect();
    let rest = [leader, followers[1]].map(|id| cluster.broker(id).address());
    let paused = cluster.broker(followers[0]).running().unwrap();
    paused.pause();
    wait::until("the paused one is out of sync", BOUND, || {
        !first(&rest.join(",")).in_sync.contains(&followers[0])
    });
    cluster.broker(followers[1]).kill9();
    wait::until("clicks wait", BOUND, || {
        assert!(generator.ended().is_none(), "{}", generator.stderr());
        ledger::answered(&written) > counted(&system) + WAITING
    });
    cluster.broker(followers[0]).running().unwrap().resume();
    cluster.broker(followers[1]).restart();
    wait::until("all are in sync again", BOUND, || {
        first(&address).in_sync.len() == 3
    });
    catches_up("what waited is counted");

    std::fs::write(&enough, "").unwrap();
    let status = generator.wait(BOUND).expect("the generator ends");
    assert!(status.success(), "{}", generator.stderr());
    system.stop();
    let answered = ledger::check(&data, &written);
    assert!(answered.clicks > WAITING && answered.orders > 0);
}
