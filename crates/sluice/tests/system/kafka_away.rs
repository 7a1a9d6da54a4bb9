//! `sluice up` on a cluster that is not there yet: visitors are redirected, the rest waits.

use std::process::{Command, Output};

use testkit::kafka::Broker;
use testkit::{System, bin, http, skip, wait};

use crate::{BOUND, CHROME, metric, until_report};

fn sluice(arguments: &[&str]) -> Output {
    let mut command = Command::new(bin("sluice"));
    command.args(arguments).output().unwrap()
}

#[track_caller]
fn until_metric(system: &System, name: &str, expected: impl Fn(f64) -> bool) {
    wait::until(name, BOUND, || metric(system, name).is_some_and(&expected));
}

#[test]
fn clicks_are_redirected_while_the_cluster_is_away_and_counted_when_it_comes() {
    let test = "clicks_are_redirected_while_the_cluster_is_away_and_counted_when_it_comes";
    let Some(jars) = testkit::kafka::jars() else {
        skip(
            test,
            "Apache Kafka is not there: cargo xtask test fetches it",
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // It gives the address; then it is away.
    let mut broker = Broker::start(&jars, &folder.path().join("kafka"), &[]);
    broker.kill9();
    let address = broker.address();
    let kafka = ["--kafka", &address];

    let system = System::start(&data, &kafka);
    let click = system.get("/fall-boots", &[("User-Agent", CHROME)]);
    assert_eq!(click.status, 302);
    let courier = "sluice_courier_failing{journal=\"0\",topic=\"clicks\"}";
    let consumer = "sluice_consumer_failing{consumer=\"clicks\"}";
    until_metric(&system, courier, |value| value == 1.0);
    until_metric(&system, consumer, |value| value == 1.0);
    assert!(
        system.running.stderr().contains("cannot reach a broker"),
        "{}",
        system.running.stderr()
    );
    assert_eq!(
        http::get(system.admin, "/livez", &[]).unwrap().status,
        200,
        "waiting is no standstill"
    );

    // There, but without its topics: that is told, and no topic is made by accident.
    broker.restart();
    wait::until("the reason changes", BOUND, || {
        let stderr = system.running.stderr();
        stderr.contains("is missing: run sluice topics create")
    });
    let alone = folder.path().join("alone");
    let output = sluice(&[
        "consume",
        "--only",
        "clicks",
        "--kafka",
        &address,
        "--admin",
        "127.0.0.1:0",
        "--data",
        alone.to_str().unwrap(),
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("is missing"), "{stderr}");
    assert_eq!(metric(&system, courier), Some(1.0));

    let made = sluice(&[
        "topics",
        "create",
        "--kafka",
        &address,
        "--replication",
        "1",
    ]);
    assert!(made.status.success());
    until_report(
        &system,
        "offer",
        "offer,gross,clicks,unique,duplicate,anonymous,invalid,conversions,cvr,currency,amount,revenue,payout,profit,epc\nboots,1,1,1,0,0,0,0,0.00,USD,0.00,0.00,0.00,0.00,0.0000\n",
    );
    until_metric(&system, courier, |value| value == 0.0);
    until_metric(&system, consumer, |value| value == 0.0);

    // What librdkafka says arrives with its next statistics.
    for client in ["producer", "consumer"] {
        let name = format!("sluice_kafka_brokers_connected{{client=\"{client}\"}}");
        until_metric(&system, &name, |value| value >= 1.0);
        let name =
            format!("sluice_kafka_round_trip_seconds{{client=\"{client}\",quantile=\"0.99\"}}");
        until_metric(&system, &name, |value| value > 0.0);
    }
    // Each consumer tells of itself every few seconds, none waits for another.
    wait::until("the consumer of clicks has read everything", BOUND, || {
        let metrics = http::get(system.admin, "/metrics", &[]).unwrap().text();
        let mut lags = metrics
            .lines()
            .filter(|line| {
                line.starts_with("sluice_kafka_lag_records{consumer=\"clicks\"")
                    && line.contains("topic=\"clicks\"")
            })
            .peekable();
        lags.peek().is_some() && lags.all(|line| line.ends_with(" 0"))
    });
    system.stop();

    // A stop is heard while it waits.
    broker.kill9();
    let mut system = System::start(&data, &kafka);
    until_metric(&system, consumer, |value| value == 1.0);
    let status = system.running.terminate(BOUND);
    assert_eq!(
        status.and_then(|status| status.code()),
        Some(1),
        "{}",
        system.running.stderr()
    );
}
