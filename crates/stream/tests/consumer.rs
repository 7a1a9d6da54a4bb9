//! The consumers' loop over both backends, with a fold in memory.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

use std::cell::Cell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use stream::consumer::{Accepted, Error, Fold, Options, Progress, run};
use stream::gaps::Gap;
use stream::kafka::{Cleanup, KindNames, Settings, Topic, create_topics};
use stream::receipts::{Lanes, Receipt};
use stream::{Embedded, Kafka, Receipts, Record, Stream, StreamId};
use testkit::kafka::Broker;

const BOUND: Duration = Duration::from_secs(60);
const TOPIC: &str = "t.things";

/// What a store keeps.
#[derive(Default)]
struct Memory {
    offsets: HashMap<u16, u64>,
    highs: Vec<Receipt>,
    ended: Vec<(StreamId, Lanes)>,
    folded: Vec<Record>,
    outbox: Vec<(i64, String, Record)>,
    refused: Vec<Record>,
}

impl Fold for Memory {
    type Error = Infallible;

    fn offset(&mut self, partition: u16) -> Result<u64, Infallible> {
        Ok(self.offsets.get(&partition).copied().unwrap_or_default())
    }

    fn receipts(&mut self) -> Result<Receipts, Infallible> {
        Ok(Receipts::new(self.highs.clone(), self.ended.clone()))
    }

    fn apply(&mut self, accepted: &Accepted<'_>) -> Result<(), Infallible> {
        let offset = self.offsets.entry(accepted.partition).or_default();
        assert_eq!(
            *offset, accepted.from,
            "the store's offset moves from where it stands"
        );
        *offset = accepted.to;
        for (stream, lanes) in &accepted.ended {
            self.ended.retain(|(of, _)| of != stream);
            self.ended.push((*stream, *lanes));
            let is_ended = |high: &Receipt| high.1 == *stream && lanes.contains(high.0);
            self.highs.retain(|high| !is_ended(high));
        }
        for receipt in &accepted.highs {
            let of = (receipt.0, receipt.1);
            self.highs.retain(|high| (high.0, high.1) != of);
            self.highs.push(*receipt);
        }
        let records = accepted.records.iter();
        self.folded
            .extend(records.map(|(_, record)| (*record).clone()));
        Ok(())
    }

    fn outbox(&mut self, limit: usize) -> Result<Vec<(i64, String, Record)>, Infallible> {
        Ok(self.outbox.iter().take(limit).cloned().collect())
    }

    fn sent(&mut self, through: i64) -> Result<(), Infallible> {
        self.outbox.retain(|(id, ..)| *id > through);
        Ok(())
    }

    fn refused(&mut self, id: i64) -> Result<(), Infallible> {
        let row = self.outbox.iter_mut().find(|(of, ..)| *of == id);
        let (_, _, record) = row.unwrap();
        let tombstone = Record::tombstone(record.origin, record.lane, record.n, record.time_ms);
        self.refused.push(std::mem::replace(record, tombstone));
        Ok(())
    }
}

/// Runs the loop until it has seen so many records, or ends by itself.
fn read(stream: &Stream, memory: &mut Memory, records: u64) -> Result<bool, Error<Infallible>> {
    let seen = Cell::new(0);
    let started = Instant::now();
    let options = Options {
        records_max: 3,
        silence: stream.silence(),
        ..Options::default()
    };
    run(
        &mut *stream.receiver(TOPIC, "group", "member").unwrap(),
        None,
        memory,
        &options,
        &|| 0,
        &|| {
            assert!(started.elapsed() < BOUND, "{} of {records}", seen.get());
            seen.get() >= records
        },
        &mut |progress| {
            if let Progress::Folded {
                folded,
                repeats,
                early,
                ..
            } = progress
            {
                seen.set(seen.get() + folded + repeats + early);
            }
        },
    )
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

fn send(stream: &Stream, records: &[Record]) {
    let mut sender = stream.sender().unwrap();
    for record in records {
        sender.send(TOPIC, record).unwrap();
    }
    let sent = records.len() as u64;
    testkit::wait::until("all is acknowledged", BOUND, || {
        sender.acknowledged(Duration::from_millis(50)).unwrap() == sent
    });
}

fn numbers(memory: &Memory) -> Vec<u64> {
    memory.folded.iter().map(|record| record.n).collect()
}

/// A backend whose topic can be made anew.
trait Backend {
    fn open(&self) -> Stream;
    fn make_anew(&self);
}

struct Files(tempfile::TempDir);

impl Backend for Files {
    fn open(&self) -> Stream {
        Stream::Embedded(Embedded::open(self.0.path(), &[(TOPIC, 1)], StreamId::random).unwrap())
    }

    fn make_anew(&self) {
        std::fs::remove_dir_all(self.0.path().join(format!("{TOPIC}-0"))).unwrap();
    }
}

struct Cluster {
    broker: Broker,
    _folder: tempfile::TempDir,
}

const KINDS: KindNames = KindNames {
    name: |kind| (kind == 1).then_some("Thing"),
    number: |name| (name == "Thing").then_some(1),
};

fn topic() -> Topic {
    Topic {
        name: TOPIC.to_owned(),
        partitions: 1,
        cleanup: Cleanup::Days(100),
    }
}

impl Cluster {
    /// None where the test is skipped.
    fn start(test: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let broker = testkit::kafka::broker(test, &folder.path().join("kafka"))?;
        let cluster = Self {
            broker,
            _folder: folder,
        };
        create_topics(&cluster.settings(), &[topic()], 1).unwrap();
        Some(cluster)
    }

    fn settings(&self) -> Settings {
        Settings {
            brokers: self.broker.address(),
            ..Settings::default()
        }
    }

    fn admin<T>(&self, work: impl AsyncFnOnce(AdminClient<DefaultClientContext>) -> T) -> T {
        let client = ClientConfig::new()
            .set("bootstrap.servers", self.broker.address())
            .create()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(work(client))
    }
}

impl Backend for Cluster {
    fn open(&self) -> Stream {
        Stream::Kafka(Kafka::connect(&self.settings(), &[topic()], KINDS).unwrap())
    }

    fn make_anew(&self) {
        let deleted = self.admin(async |client| {
            let options = AdminOptions::new();
            client.delete_topics(&[TOPIC], &options).await.unwrap()
        });
        deleted[0].as_ref().unwrap();
        testkit::wait::until("the topic is gone and made again", BOUND, || {
            create_topics(&self.settings(), &[topic()], 1).is_ok_and(|made| made == [TOPIC])
        });
    }
}

/// More records than were read before, so that every offset is there again.
fn a_topic_made_anew_is_not_read_on(backend: &dyn Backend) {
    let mut memory = Memory::default();
    let stream = backend.open();
    let records: Vec<Record> = (1..=5).map(|n| record(3, n)).collect();
    send(&stream, &records);
    read(&stream, &mut memory, 5).unwrap();
    assert_eq!(numbers(&memory), [1, 2, 3, 4, 5]);
    assert_eq!(memory.offsets[&0], 5);

    // It is the same topic: the record before is read again, and not folded again.
    send(&stream, &[record(3, 6)]);
    read(&stream, &mut memory, 1).unwrap();
    assert_eq!(numbers(&memory), [1, 2, 3, 4, 5, 6]);
    drop(stream);

    backend.make_anew();
    let stream = backend.open();
    for others in [7, 8] {
        // Of the same stream, whose courier went on.
        let records: Vec<Record> = (others..others + 8).map(|n| record(3, n)).collect();
        send(&stream, &records);
        let error = read(&stream, &mut memory, 1).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("topic t.things, partition 0 was made anew: before offset 6"),
            "{error}"
        );
        let Error::Stream(error) = error;
        assert!(error.is_offset());
    }
    assert_eq!(
        numbers(&memory),
        [1, 2, 3, 4, 5, 6],
        "nothing of it is folded"
    );
    assert_eq!(memory.offsets[&0], 6, "and the store stands where it stood");
}

/// A batch that ends with records that came early must not look like a topic made anew.
fn early_records_at_the_end_are_read_again(backend: &dyn Backend) {
    let mut memory = Memory::default();
    let stream = backend.open();
    send(&stream, &[record(3, 1), record(3, 3), record(3, 4)]);
    read(&stream, &mut memory, 3).unwrap();
    assert_eq!(memory.offsets[&0], 1);
    send(&stream, &[record(3, 2), record(3, 3), record(3, 4)]);
    read(&stream, &mut memory, 5).unwrap();
    assert_eq!(numbers(&memory), [1, 2, 3, 4]);
    assert_eq!(memory.offsets[&0], 6);
}

/// The sender of 2 and 4 is gone for good, and nobody sends 3 and 5 again: a person gives 2 and 4 up.
fn what_waited_behind_a_number_that_was_given_up_was_never_folded(backend: &dyn Backend) {
    let mut memory = Memory::default();
    let stream = backend.open();
    let waits = [record(3, 1), record(3, 3), record(3, 5), record(7, 1)];
    send(&stream, &waits);
    read(&stream, &mut memory, 4).unwrap();
    // Also who begins anew knows what waits: the place is before it.
    assert_eq!(memory.offsets[&0], 1);
    let tombstone = |n| Record::tombstone(StreamId([7; 16]), 3, n, 0);
    send(&stream, &[record(7, 2), tombstone(2)]);
    read(&stream, &mut memory, 7).unwrap();
    assert_eq!(memory.offsets[&0], 2, "5 waits");
    send(&stream, &[tombstone(4)]);
    read(&stream, &mut memory, 9).unwrap();
    let mut folded = numbers(&memory);
    folded.sort_unstable();
    assert_eq!(folded, [1, 1, 2, 3, 5]);
    assert_eq!(memory.offsets[&0], 7);
}

#[test]
fn files_with_a_gap_that_is_given_up() {
    what_waited_behind_a_number_that_was_given_up_was_never_folded(&Files(
        tempfile::tempdir().unwrap(),
    ));
}

/// The end of a stream waits for a lane that is not its own: what is missing is told of that lane, and can be given up.
#[test]
fn what_an_end_waited_for_in_another_lane_could_not_be_given_up() {
    let files = Files(tempfile::tempdir().unwrap());
    let stream = files.open();
    let end = Record::ends(StreamId([7; 16]), &[(3, 1), (5, 4)], 1);
    send(&stream, &[record(3, 1), record(5, 1)]);
    send(&stream, &end);
    let mut memory = Memory::default();
    let (gaps, asked) = (Cell::new(None::<Vec<Gap>>), Cell::new(false));
    run(
        &mut *stream.receiver(TOPIC, "group", "member").unwrap(),
        None,
        &mut memory,
        &Options {
            idle_wait: Duration::ZERO,
            ..Options::default()
        },
        &|| 0,
        &|| {
            let Some(told) = gaps.take() else {
                return false;
            };
            if let [gap] = told[..] {
                let found = (gap.lane, gap.first, gap.last);
                assert_eq!(found, (5, 2, 4));
                if !asked.replace(true) {
                    let lost = gap.first..=gap.last;
                    send(
                        &stream,
                        &[Record::tombstone_of(gap.stream, gap.lane, lost, 0)],
                    );
                }
            }
            asked.get() && told.is_empty()
        },
        &mut |progress| {
            if let Progress::Gaps(found) = progress {
                gaps.set(Some(found.clone()));
            }
        },
    )
    .unwrap();
    assert_eq!(memory.highs, [], "the stream has ended");
    assert_eq!(memory.offsets[&0], 4);
}

fn incompressible(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// A record too large for the topic, between others, in the outbox.
fn a_refused_row_becomes_a_tombstone(stream: &Stream, too_large: usize) {
    let mut memory = Memory::default();
    for n in 1..=20 {
        let mut record = record(3, n);
        if n == 7 || n == 15 {
            record.value = incompressible(too_large);
        }
        memory.outbox.push((n as i64, TOPIC.to_owned(), record));
    }
    let sent = memory.outbox.clone();
    let started = Instant::now();
    let (shipped, refused) = (Cell::new(0), Cell::new(0));
    run(
        &mut *stream.receiver(TOPIC, "sender", "member").unwrap(),
        Some(&mut || stream.sender()),
        &mut memory,
        &Options::default(),
        &|| 0,
        &|| {
            assert!(started.elapsed() < BOUND, "{} shipped", shipped.get());
            shipped.get() == 20
        },
        &mut |progress| match progress {
            Progress::Shipped { records } => shipped.set(shipped.get() + records),
            Progress::Refused => refused.set(refused.get() + 1),
            _ => {}
        },
    )
    .unwrap();
    assert_eq!(refused.get(), 2);
    assert_eq!(memory.refused, [sent[6].2.clone(), sent[14].2.clone()]);
    assert_eq!(memory.outbox, []);

    let mut reader = Memory::default();
    read(stream, &mut reader, 18).unwrap();
    let mut numbers = numbers(&reader);
    numbers.dedup();
    let expected: Vec<u64> = (1..=20).filter(|n| *n != 7 && *n != 15).collect();
    assert_eq!(numbers, expected, "nothing waits for a refused one");
}

#[test]
fn files_refuse_a_row() {
    let folder = Files(tempfile::tempdir().unwrap());
    a_refused_row_becomes_a_tombstone(&folder.open(), 32 << 20);
}

#[test]
fn a_topic_of_kafka_refuses_a_row() {
    let Some(cluster) = Cluster::start("a_topic_of_kafka_refuses_a_row") else {
        return;
    };
    cluster.admin(async |client| {
        let options = AdminOptions::new();
        let topic = ResourceSpecifier::Topic(TOPIC);
        // All that differs from the broker's own: what is left out would be taken back.
        let small = [AlterConfig::new(topic)
            .set("max.message.bytes", "10000")
            .set("message.timestamp.type", "LogAppendTime")];
        let altered = client.alter_configs(&small, &options).await;
        altered.unwrap()[0].as_ref().unwrap();
        // It is in force when the broker says so.
        let started = Instant::now();
        loop {
            let described = client.describe_configs([&topic], &options).await.unwrap();
            let resource = described[0].as_ref().unwrap();
            let limit = resource.get("max.message.bytes").unwrap();
            if limit.value.as_deref() == Some("10000") {
                return;
            }
            assert!(started.elapsed() < BOUND, "{limit:?}");
        }
    });
    a_refused_row_becomes_a_tombstone(&cluster.open(), 20_000);
}

/// What the loop says of gaps while a clock runs from minute to minute.
#[test]
fn a_gap_that_stays_is_told_once_and_ends() {
    let files = Files(tempfile::tempdir().unwrap());
    let stream = files.open();
    send(
        &stream,
        &[record(3, 1), record(3, 4), record(3, 5), record(4, 1)],
    );
    let mut memory = Memory::default();
    let (minute, oldest, told, ended) = (
        Cell::new(0_u64),
        Cell::new(0),
        Cell::new(Vec::new()),
        Cell::new(false),
    );
    run(
        &mut *stream.receiver(TOPIC, "group", "member").unwrap(),
        None,
        &mut memory,
        &Options {
            idle_wait: Duration::ZERO,
            ..Options::default()
        },
        &|| minute.get() * 60_000,
        &|| {
            if minute.get() == 15 {
                send(&stream, &[record(3, 2)]);
            }
            if minute.get() == 30 {
                assert!(oldest.get() > 0, "3 is missing still");
                // 4 and 5 are not sent again.
                send(&stream, &[record(3, 3)]);
            }
            ended.get() || minute.get() > 1000
        },
        &mut |progress| match progress {
            Progress::Gaps(gaps) => {
                let since_ms = gaps.first().map(|gap| gap.since_ms);
                let oldest_ms = since_ms.map_or(0, |since| minute.get() * 60_000 - since);
                if gaps.is_empty() && oldest.get() > 0 {
                    ended.set(true);
                }
                oldest.set(oldest_ms);
                minute.set(minute.get() + 1);
            }
            Progress::Overdue(gap) => {
                let mut all = told.take();
                all.push((minute.get(), *gap));
                told.set(all);
            }
            _ => {}
        },
    )
    .unwrap();
    assert!(ended.get(), "{} min", oldest.get() / 60_000);
    let told = told.take();
    let gap = Gap {
        lane: 3,
        stream: StreamId([7; 16]),
        first: 2,
        last: 3,
        since_ms: told[0].1.since_ms,
    };
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].1, gap);
    assert!((10..=13).contains(&told[0].0), "{told:?}");
    assert_eq!(memory.folded.len(), 6);
}

#[test]
fn files_made_anew() {
    a_topic_made_anew_is_not_read_on(&Files(tempfile::tempdir().unwrap()));
}

#[test]
fn files_with_early_records() {
    early_records_at_the_end_are_read_again(&Files(tempfile::tempdir().unwrap()));
}

/// Two lanes that part when the topic grows, a stream that ends before it does and one that goes on.
fn records_of_a_growth() -> [Vec<Record>; 2] {
    let other = |record: Record| Record {
        origin: StreamId([8; 16]),
        ..record
    };
    let mut before = Vec::new();
    for n in 1..=20 {
        before.extend([0, 1, 2, 3].map(|lane| record(lane, n)));
        before.extend([1, 3].map(|lane| other(record(lane, n))));
    }
    let last: Vec<(u8, u64)> = (0..4).map(|lane| (lane, 20)).collect();
    before.extend(Record::ends(StreamId([7; 16]), &last, 2));
    // What was under way is sent again.
    let mut after = vec![other(record(3, 20))];
    for n in 21..=40 {
        after.extend([1, 3].map(|lane| other(record(lane, n))));
    }
    after.extend(Record::ends(StreamId([8; 16]), &[(1, 40), (3, 40)], 4));
    [before, after]
}

/// Whoever reads them from the beginning folds all of them once and in order.
#[track_caller]
fn assert_read_from_the_beginning(stream: &Stream) {
    let mut memory = Memory::default();
    let sent = records_of_a_growth().concat();
    let events = sent.iter().filter(|record| record.kind != stream::END);
    let events = events.count() as u64 - 1;
    let (started, seen) = (Instant::now(), Cell::new(0));
    run(
        &mut *stream.receiver(TOPIC, "group", "member").unwrap(),
        None,
        &mut memory,
        &Options {
            records_max: 3,
            silence: stream.silence(),
            ..Options::default()
        },
        &|| 0,
        &|| {
            assert!(started.elapsed() < BOUND, "{} of {events}", seen.get());
            seen.get() == events
        },
        &mut |progress| {
            if let Progress::Folded { folded, .. } = progress {
                seen.set(seen.get() + folded);
            }
        },
    )
    .unwrap();
    let place = |record: &Record| (record.origin, record.lane);
    let mut places: Vec<_> = sent.iter().map(place).collect();
    places.sort_unstable();
    places.dedup();
    for of in places {
        let folded = memory.folded.iter().filter(|record| place(record) == of);
        let folded: Vec<u64> = folded.map(|record| record.n).collect();
        let last = if of.0 == StreamId([8; 16]) { 40 } else { 20 };
        assert_eq!(folded, (1..=last).collect::<Vec<_>>(), "{of:?}");
    }
    assert_eq!(memory.highs, [], "both streams have ended");
    let offsets: u64 = memory.offsets.values().sum();
    assert_eq!(offsets, sent.len() as u64, "nothing waits");
}

#[test]
fn a_topic_of_kafka_with_early_records_and_made_anew() {
    let Some(cluster) = Cluster::start("a_topic_of_kafka_with_early_records_and_made_anew") else {
        return;
    };
    early_records_at_the_end_are_read_again(&cluster);
    cluster.make_anew();
    a_topic_made_anew_is_not_read_on(&cluster);
}

#[test]
fn a_topic_of_kafka_that_had_grown_could_not_be_read_from_its_beginning() {
    let test = "a_topic_of_kafka_that_had_grown_could_not_be_read_from_its_beginning";
    let Some(cluster) = Cluster::start(test) else {
        return;
    };
    let grow = async |client: AdminClient<DefaultClientContext>, partitions| {
        let grown = [rdkafka::admin::NewPartitions::new(TOPIC, partitions)];
        let made = client.create_partitions(&grown, &AdminOptions::new()).await;
        made.unwrap()[0].as_ref().unwrap();
    };
    let open = |partitions| {
        let topic = Topic {
            partitions,
            ..topic()
        };
        let kafka = Kafka::new(&cluster.settings(), &[topic], KINDS).unwrap();
        testkit::wait::until("the broker tells of all", BOUND, || kafka.check().is_ok());
        Stream::Kafka(kafka)
    };
    let [before, after] = records_of_a_growth();
    cluster.admin(async |client| grow(client, 2).await);
    send(&open(2), &before);
    cluster.admin(async |client| grow(client, 4).await);
    let grown = open(4);
    send(&grown, &after);
    assert_read_from_the_beginning(&grown);
}
