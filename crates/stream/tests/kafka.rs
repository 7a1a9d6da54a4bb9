//! The Kafka backend against a real broker.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use stream::kafka::{
    Cleanup, Gate, KindNames, Security, Settings, Topic, check_topics, create_topics,
};
use stream::{Kafka, Record, SendError, StreamId};
use testkit::{kafka, wait};

const BOUND: Duration = Duration::from_secs(60);

const KINDS: KindNames = KindNames {
    name: |kind| (kind == 1).then_some("Thing"),
    number: |name| (name == "Thing").then_some(1),
};

fn settings(brokers: impl Into<String>) -> Settings {
    Settings {
        brokers: brokers.into(),
        ..Settings::default()
    }
}

fn topic(name: &str, partitions: u16) -> Topic {
    Topic {
        name: name.to_owned(),
        partitions,
        cleanup: Cleanup::Days(100),
    }
}

fn record(lane: u8, n: u64) -> Record {
    Record {
        key: vec![lane],
        kind: 1,
        version: 1,
        origin: StreamId([7; 16]),
        lane,
        n,
        time_ms: n * 10,
        value: format!("{lane}/{n}").into_bytes(),
    }
}

/// Reads until so many records came, or in vain.
fn read(kafka: &Kafka, name: &str, from: &[(u16, u64)], count: usize) -> Vec<(u16, u64, Record)> {
    let mut receiver = kafka.receiver(name, "group", "member").unwrap();
    let mut all = Vec::new();
    wait::until("all records are read", BOUND, || {
        if let Some(assigned) = receiver.assigned() {
            for partition in assigned {
                let place = from.iter().find(|(number, _)| *number == partition);
                receiver
                    .seek(partition, place.map_or(0, |(_, offset)| *offset))
                    .unwrap();
            }
        }
        if let Some(batch) = receiver.poll(7, Duration::from_millis(100)).unwrap() {
            let partition = batch.partition;
            let records = batch.records.into_iter();
            all.extend(records.map(|(offset, record)| (partition, offset, record)));
        }
        all.len() >= count
    });
    all.sort_by_key(|(partition, offset, _)| (*partition, *offset));
    all
}

#[test]
fn topics_are_made_checked_and_their_differences_told() {
    let folder = tempfile::tempdir().unwrap();
    let test = "topics_are_made_checked_and_their_differences_told";
    let Some(cluster) = kafka::any(test, folder.path()) else {
        return;
    };
    let settings = settings(cluster.address());
    let [clicks, controls] =
        ["clicks", "controls"].map(|name| format!("{}.{name}", cluster.prefix()));
    let topics = [
        topic(&clicks, 4),
        Topic {
            cleanup: Cleanup::Compact,
            ..topic(&controls, 1)
        },
    ];
    let missing = check_topics(&settings, &topics).unwrap();
    assert_eq!(missing.len(), 2);
    assert_eq!(
        missing[0].to_string(),
        format!("topic {clicks}: is missing: run sluice topics create")
    );
    let error = Kafka::connect(&settings, &topics, KINDS).unwrap_err();
    assert!(
        error.to_string().contains("controls: is missing"),
        "{error}"
    );
    assert_eq!(
        create_topics(&settings, &topics, 1).unwrap(),
        [clicks.as_str(), controls.as_str()]
    );
    assert_eq!(create_topics(&settings, &topics, 1).unwrap(), [""; 0]);
    // A cluster of one cannot keep a record twice: said, and no reason to stop.
    let left = check_topics(&settings, &topics).unwrap();
    assert!(left.iter().all(|difference| !difference.stops), "{left:?}");
    assert!(left[0].text.contains("1 replicas"), "{left:?}");
    Kafka::connect(&settings, &topics, KINDS).unwrap();

    let other = [topic(&clicks, 8), topic(&controls, 1)];
    let error = Kafka::connect(&settings, &other, KINDS)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("clicks: has 4 partitions, 8 are set"),
        "{error}"
    );
    assert!(
        error.contains("controls: cleanup.policy is \"compact\""),
        "{error}"
    );
}

#[test]
fn records_keep_their_envelope_and_a_broker_that_is_killed_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    let test = "records_keep_their_envelope_and_a_broker_that_is_killed_loses_none";
    let Some(mut broker) = kafka::broker(test, folder.path()) else {
        return;
    };
    let settings = settings(broker.address());
    create_topics(&settings, &[topic("t.things", 2)], 1).unwrap();
    let kafka = Kafka::connect(&settings, &[topic("t.things", 2)], KINDS).unwrap();
    let mut sender = kafka.sender().unwrap();
    let mut sent = 0;
    for n in 1..=100 {
        for lane in [0, 1, 255] {
            sender.send("t.things", &record(lane, n)).unwrap();
            sent += 1;
        }
        if n == 50 {
            sender
                .send("t.things", &Record::tombstone(StreamId([8; 16]), 3, 1, 5))
                .unwrap();
            sent += 1;
            wait::until("half is acknowledged", BOUND, || {
                sender.acknowledged(Duration::from_millis(50)).unwrap() == sent
            });
            broker.kill9();
        }
    }
    assert!(matches!(
        sender.send("t.nothing", &record(0, 1)),
        Err(SendError::Failed(_))
    ));
    assert!(sender.acknowledged(Duration::from_millis(100)).unwrap() < sent);
    broker.restart();
    wait::until("all is acknowledged", BOUND, || {
        sender.acknowledged(Duration::from_millis(50)).unwrap() == sent
    });

    let all = read(&kafka, "t.things", &[], sent as usize);
    let lane = |wanted: u8| -> Vec<&Record> {
        let records = all.iter().map(|(_, _, record)| record);
        records.filter(|record| record.lane == wanted).collect()
    };
    for wanted in [0, 1, 255] {
        let expected: Vec<Record> = (1..=100).map(|n| record(wanted, n)).collect();
        assert_eq!(lane(wanted), expected.iter().collect::<Vec<_>>());
    }
    assert_eq!(lane(3), [&Record::tombstone(StreamId([8; 16]), 3, 1, 5)]);
    for (partition, _, record) in &all {
        assert_eq!(*partition, u16::from(record.lane) % 2);
    }
    // On from the middle of one partition; beyond the end is an error and no guess.
    let tail = read(&kafka, "t.things", &[(0, 95), (1, 200)], 5);
    assert_eq!(tail[0].1, 95);
    let mut receiver = kafka.receiver("t.things", "other", "member").unwrap();
    let mut failed = None;
    wait::until("the place is refused", BOUND, || {
        for partition in receiver.assigned().unwrap_or_default() {
            receiver.seek(partition, 1_000_000).unwrap();
        }
        failed = receiver.poll(7, Duration::from_millis(100)).err();
        failed.is_some()
    });
}

#[test]
fn a_compacted_topic_says_when_it_is_read_and_a_closed_gate_lets_nothing_else_through() {
    let folder = tempfile::tempdir().unwrap();
    let test = "a_compacted_topic_says_when_it_is_read_and_a_closed_gate_lets_nothing_else_through";
    let Some(cluster) = kafka::any(test, folder.path()) else {
        return;
    };
    let settings = settings(cluster.address());
    let [things, latest] = ["things", "latest"].map(|name| format!("{}.{name}", cluster.prefix()));
    let compacted = Topic {
        cleanup: Cleanup::Compact,
        ..topic(&latest, 2)
    };
    let topics = [topic(&things, 1), compacted];
    create_topics(&settings, &topics, 1).unwrap();
    let kafka = Kafka::connect(&settings, &topics, KINDS).unwrap();
    for count in [0_u64, 20] {
        let mut sender = kafka.sender().unwrap();
        for n in 1..=count {
            sender.send(&latest, &record(0, n)).unwrap();
        }
        wait::until("all is acknowledged", BOUND, || {
            sender.acknowledged(Duration::from_millis(50)).unwrap() == count
        });
        let group = format!("group-{count}");
        let mut receiver = kafka.receiver(&latest, &group, "member").unwrap();
        let mut came = 0;
        wait::until("the topic is read to its end", BOUND, || {
            for partition in receiver.assigned().unwrap_or_default() {
                receiver.seek(partition, 0).unwrap();
            }
            let batch = receiver.poll(7, Duration::from_millis(100)).unwrap();
            came += batch.map_or(0, |batch| batch.records.len());
            receiver.is_at_end()
        });
        assert_eq!(came as u64, count, "the end came before the records");
    }

    let mut sender = kafka.sender().unwrap();
    let mut receiver = kafka.receiver(&things, "group", "member").unwrap();
    kafka.set_gate(Gate::Closed("two catalogs".to_owned()));
    let refused = |error: stream::Error| {
        assert_eq!(error.to_string(), "two catalogs");
    };
    refused(kafka.sender().err().unwrap());
    refused(kafka.receiver(&things, "group", "other").err().unwrap());
    refused(receiver.poll(7, Duration::ZERO).unwrap_err());
    let Err(SendError::Failed(error)) = sender.send(&things, &record(0, 1)) else {
        panic!("it was sent");
    };
    refused(error);
    kafka.receiver(&latest, "group", "member").unwrap();
}

#[test]
fn two_stores_in_one_group_each_counted_a_part() {
    let folder = tempfile::tempdir().unwrap();
    let test = "two_stores_in_one_group_each_counted_a_part";
    let Some(cluster) = kafka::any(test, folder.path()) else {
        return;
    };
    let settings = settings(cluster.address());
    let things = format!("{}.things", cluster.prefix());
    let topics = [topic(&things, 2)];
    create_topics(&settings, &topics, 1).unwrap();
    let kafka = Kafka::connect(&settings, &topics, KINDS).unwrap();
    let group = format!("{}-group", cluster.prefix());
    let mut first = kafka.receiver(&things, &group, "store-1").unwrap();
    let mut seek = move || {
        for partition in first.assigned().unwrap_or_default() {
            first.seek(partition, 0).unwrap();
        }
        first.poll(7, Duration::from_millis(100))
    };
    wait::until("the second is refused", BOUND, || {
        seek().unwrap();
        let second = kafka.receiver(&things, &group, "store-2");
        second.is_err_and(|error| error.to_string().contains("would count a part"))
    });
    // One that joins all the same is seen by the partitions that are gone.
    let other: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.address())
        .set("group.id", &group)
        .set("partition.assignment.strategy", "range")
        .create()
        .unwrap();
    other.subscribe(&[&things]).unwrap();
    wait::until("the first stands still", BOUND, || {
        other.poll(Duration::from_millis(10));
        seek().is_err_and(|error| error.to_string().contains("would count a part"))
    });
}

#[test]
fn a_reader_that_knows_no_headers_met_values_it_could_not_decode() {
    let folder = tempfile::tempdir().unwrap();
    let test = "a_reader_that_knows_no_headers_met_values_it_could_not_decode";
    let Some(cluster) = kafka::any(test, folder.path()) else {
        return;
    };
    let settings = settings(cluster.address());
    let things = format!("{}.things", cluster.prefix());
    create_topics(&settings, &[topic(&things, 1)], 1).unwrap();
    let kafka = Kafka::connect(&settings, &[topic(&things, 1)], KINDS).unwrap();
    let sent = [
        record(0, 1),
        Record::tombstone(StreamId([7; 16]), 0, 2, 20),
        Record::ends(StreamId([7; 16]), &[(0, 2), (4, u64::MAX)], 1).remove(0),
    ];
    let mut sender = kafka.sender().unwrap();
    for record in &sent {
        sender.send(&things, record).unwrap();
    }
    wait::until("all is acknowledged", BOUND, || {
        sender.acknowledged(Duration::from_millis(50)).unwrap() == 3
    });

    let blind: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.address())
        .set("group.id", format!("{}-blind", cluster.prefix()))
        .create()
        .unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(&things, 0, Offset::Beginning)
        .unwrap();
    blind.assign(&from).unwrap();
    let mut values = Vec::new();
    wait::until("all values are read", BOUND, || {
        if let Some(message) = blind.poll(Duration::from_millis(100)) {
            values.push(message.unwrap().payload().map(<[u8]>::to_vec));
        }
        values.len() == 3
    });
    // Empty is a message with nothing in it; null would be a deletion.
    assert_eq!(
        values,
        [&b"0/1"[..], b"", b""].map(|value| Some(value.to_vec()))
    );
    let records = read(&kafka, &things, &[], 3).into_iter();
    assert_eq!(records.map(|read| read.2).collect::<Vec<_>>(), sent);
}

#[test]
fn a_record_too_large_ends_the_sender() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = kafka::any("a_record_too_large_ends_the_sender", folder.path()) else {
        return;
    };
    let settings = settings(cluster.address());
    let things = format!("{}.things", cluster.prefix());
    create_topics(&settings, &[topic(&things, 1)], 1).unwrap();
    let kafka = Kafka::connect(&settings, &[topic(&things, 1)], KINDS).unwrap();
    let mut sender = kafka.sender().unwrap();
    let mut large = record(0, 1);
    large.value = vec![0; 2 << 20];
    let refused = sender.send(&things, &large).is_err();
    assert!(refused);
    let mut sender = kafka.sender().unwrap();
    sender.send(&things, &record(0, 1)).unwrap();
    wait::until("a new one goes on", BOUND, || {
        sender.acknowledged(Duration::from_millis(50)).unwrap() == 1
    });
}

#[test]
fn tls_and_passwords() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = kafka::broker("tls_and_passwords", folder.path()) else {
        return;
    };
    let topics = [topic("t.things", 1)];
    create_topics(&settings(broker.address()), &topics, 1).unwrap();
    let password = folder.path().join("password");
    // As Windows programs save them: with a mark, which the library and the brokers would take for a part of it.
    std::fs::write(&password, format!("\u{feff}{}\r\n", kafka::PASSWORD)).unwrap();
    let ca = folder.path().join("ca.pem");
    let certificates = std::fs::read_to_string(broker.ca()).unwrap();
    std::fs::write(&ca, format!("\u{feff}{certificates}")).unwrap();
    let secured = |mechanism: &str, user: &str| Settings {
        brokers: broker.secure_address(),
        security: Security::SaslTls,
        ca: ca.to_str().unwrap().to_owned(),
        user: user.to_owned(),
        password_file: password.to_str().unwrap().to_owned(),
        mechanism: mechanism.to_owned(),
        ..Settings::default()
    };
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let settings = secured(mechanism, kafka::USER);
        let kafka = Kafka::connect(&settings, &topics, KINDS).unwrap();
        let mut sender = kafka.sender().unwrap();
        sender.send("t.things", &record(0, 1)).unwrap();
        wait::until("it is acknowledged", BOUND, || {
            sender.acknowledged(Duration::from_millis(50)).unwrap() == 1
        });
    }
    let error = Kafka::connect(&secured("PLAIN", "stranger"), &topics, KINDS).unwrap_err();
    assert!(
        error.to_string().contains("cannot reach a broker"),
        "{error}"
    );
    // Without the certificate the broker is not believed.
    let unknown = Settings {
        ca: String::new(),
        ..secured("PLAIN", kafka::USER)
    };
    assert!(Kafka::connect(&unknown, &topics, KINDS).is_err());
    for (mechanism, user, said) in [
        (
            "MD5",
            "sluice",
            "kafka.mechanism is \"MD5\": choose one of PLAIN",
        ),
        ("PLAIN", "", "kafka.user is missing in the settings"),
    ] {
        let error = Kafka::connect(&secured(mechanism, user), &topics, KINDS).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    for (session_timeout_ms, max_poll_interval_ms) in [(5_999, 300_000), (6_001, 6_000)] {
        let settings = Settings {
            session_timeout_ms,
            max_poll_interval_ms,
            ..secured("PLAIN", kafka::USER)
        };
        let error = Kafka::connect(&settings, &topics, KINDS).unwrap_err();
        let said = format!("kafka.session_timeout_ms is {session_timeout_ms}");
        assert!(error.to_string().contains(&said), "{error}");
    }
}

#[test]
fn a_topic_grown_under_them_ends_sender_and_receiver() {
    let folder = tempfile::tempdir().unwrap();
    let test = "a_topic_grown_under_them_ends_sender_and_receiver";
    let Some(broker) = kafka::broker(test, folder.path()) else {
        return;
    };
    let settings = settings(broker.address());
    let topics = [topic("t.things", 2)];
    create_topics(&settings, &topics, 1).unwrap();
    let kafka = Kafka::connect(&settings, &topics, KINDS).unwrap();
    let mut sender = kafka.sender().unwrap();
    for n in 1..=3 {
        sender.send("t.things", &record(0, n)).unwrap();
    }
    let mut receiver = kafka.receiver("t.things", "group", "member").unwrap();
    let mut read = 0;
    // Nobody asks the sender for anything, and its statistics come all the same.
    wait::until("statistics of both clients", BOUND, || {
        for partition in receiver.assigned().unwrap_or_default() {
            receiver.seek(partition, 0).unwrap();
        }
        let batch = receiver.poll(7, Duration::from_millis(100)).unwrap();
        read += batch.map_or(0, |batch| batch.records.len());
        let statistics = kafka.statistics();
        let clients = [statistics.producers, statistics.consumers];
        let lag = statistics
            .lag
            .get(&("group".to_owned(), "t.things".to_owned(), 0));
        clients
            .iter()
            .all(|client| client.brokers_connected > 0 && client.round_trip_p99_seconds > 0.0)
            && lag == Some(&0)
    });
    assert_eq!(read, 3);

    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .create()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let grown = [NewPartitions::new("t.things", 3)];
    let made = runtime.block_on(admin.create_partitions(&grown, &AdminOptions::new()));
    made.unwrap()[0].as_ref().unwrap();
    let mut ends = [None, None];
    wait::until("both end", BOUND, || {
        // A member that is given the new partition asks for it as for the others.
        for partition in receiver.assigned().unwrap_or_default() {
            receiver.seek(partition, 0).unwrap();
        }
        let wait = Duration::from_millis(100);
        ends[0] = ends[0].take().or(receiver.poll(7, wait).err());
        ends[1] = ends[1].take().or(sender.acknowledged(wait).err());
        ends.iter().all(Option::is_some)
    });
    for end in ends.iter().flatten() {
        assert!(end.is_topics_differ(), "{end}");
        assert_eq!(
            end.to_string(),
            "topic t.things: has 3 partitions, 2 are set: set stream.partitions to 3"
        );
    }
    assert!(sender.send("t.things", &record(0, 4)).is_err());
    assert!(kafka.sender().err().unwrap().is_topics_differ());
}
