use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use domain::event::{Click, ClickKey, Consent, Postback, StreamEnd, Unmatched};
use journal::{Log, Position, StreamId};
use stream::{Batch, END, Embedded, Receipts, Verdict, letters};

use super::*;
use crate::{Release, Released};

/// 2026-01-31T23:59:59.999Z
const NOW_MS: u64 = 1_769_903_999_999;
const ADDRESS: [u8; 4] = [203, 0, 113, 77];
const ENRICH: Enrich = Enrich {
    visitor_key: [5; 32],
    truncate: true,
    zone: None,
    catalog_lock: 0,
};

/// A journal, a stream and a place for the cursor.
struct Bench {
    folder: tempfile::TempDir,
    stream: Embedded,
    log: Log,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let topics = [("sluice.clicks", 2), ("sluice.postbacks", 1)];
        let stream =
            Embedded::open(&folder.path().join("stream"), &topics, StreamId::random).unwrap();
        let log = open_log(folder.path());
        Self {
            folder,
            stream,
            log,
        }
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    /// The journal's next stream.
    fn reopen(self) -> Self {
        let Self {
            folder,
            stream,
            log,
        } = self;
        drop(log);
        let log = open_log(folder.path());
        Self {
            folder,
            stream,
            log,
        }
    }

    fn record(&mut self, records: &[EdgeRecord]) {
        for record in records {
            self.log.append(&record.encode_to_vec()).unwrap();
        }
        self.log.sync().unwrap();
    }

    fn places(&self, topic: Topic) -> Places {
        let file = |what: &str| self.folder.path().join(format!("{}.{what}", topic.name()));
        Places {
            journal: self.journal(),
            cursor: file("cursor"),
            dead_letters: file("letters"),
        }
    }

    fn letters(&self, topic: Topic) -> Vec<Letter> {
        letters::read(&self.places(topic).dead_letters)
            .unwrap()
            .letters
    }

    /// The clicks' courier.
    fn courier(&self) -> (Courier, prometheus::Registry) {
        self.courier_of(Topic::Clicks)
    }

    fn courier_of(&self, topic: Topic) -> (Courier, prometheus::Registry) {
        self.courier_with(topic, ENRICH)
    }

    fn courier_with(&self, topic: Topic, enrich: Enrich) -> (Courier, prometheus::Registry) {
        let registry = prometheus::Registry::new();
        let courier = Courier::open(
            &self.places(topic),
            enrich,
            Options {
                topic,
                partitions: 2,
                acknowledgement_wait: Duration::ZERO,
                drain_max: Duration::from_secs(60),
                ..Options::default()
            },
            &Metrics::register(&registry).unwrap(),
        )
        .unwrap();
        (courier, registry)
    }

    /// Where the records of the log end.
    fn ends(&self) -> Vec<Position> {
        let mut entries = Vec::new();
        let mut reader = Reader::open(&self.journal(), Position::default()).unwrap();
        reader.read(&mut entries, usize::MAX).unwrap();
        entries.iter().map(|entry| entry.next).collect()
    }

    /// Flips a bit of the record that ends there, or flips it back.
    fn flip(&self, end: Position) {
        let path = self.journal().join(format!("{:016x}.log", end.file));
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, end.offset - 16).unwrap();
        file.write_all_at(&[byte[0] ^ 1], end.offset - 16).unwrap();
    }

    /// Everything in the clicks topic, in the order of lanes.
    fn clicks(&self) -> Vec<Record> {
        let mut receiver = self.stream.receiver("sluice.clicks").unwrap();
        let mut all = Vec::new();
        while let Some(Batch { records, .. }) = receiver.poll(100, Duration::ZERO).unwrap() {
            all.extend(records.into_iter().map(|(_, record)| record));
        }
        all.sort_by_key(|record| record.lane);
        all
    }
}

fn open_log(folder: &Path) -> Log {
    let options = journal::Options::new(StreamId::random());
    Log::open(&folder.join("journal"), options).unwrap().0
}

fn ship(courier: &mut Courier, sender: &mut dyn Sender) {
    while !courier.step(sender, NOW_MS).unwrap().is_idle() {}
}

fn click(lane: u32, n: u64) -> EdgeRecord {
    let mut click = Click {
        key: Some(ClickKey {
            time_ms: (NOW_MS - 1000).wrapping_add(n),
            stream: 1,
            sequence: 1,
        }),
        shard: lane << 4,
        user_agent: "agent".to_owned(),
        ..Click::default()
    };
    click.set_consent(Consent::All);
    EdgeRecord {
        topic: Topic::Clicks as u32,
        lane,
        n,
        address: ADDRESS.to_vec(),
        catalog_lock: 0,
        event: Some(Event::Click(click)),
    }
}

fn identities(records: &[Record]) -> Vec<(u8, u64)> {
    records
        .iter()
        .map(|record| (record.lane, record.n))
        .collect()
}

fn metric(registry: &prometheus::Registry, line: &str) -> bool {
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    text.lines().any(|found| found == line)
}

/// Passes on to a real sender and misbehaves as told.
struct Faulty {
    inner: Box<dyn Sender>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Faults {
    /// Records arrive and are never acknowledged.
    withhold: bool,
    /// The sender fails at this many more sends.
    fail_after: Option<u32>,
    /// The sender is full after this many sends, until it is asked for acknowledgements.
    full_after: Option<u32>,
    /// A batch that holds this number of lane 0 is refused when acknowledgements are asked for.
    refuse: Option<u64>,
    refusing: bool,
    since_asked: u32,
    senders: u32,
}

impl Sender for Faulty {
    fn send(&mut self, topic: &str, record: &Record) -> Result<(), SendError> {
        let mut faults = self.faults.lock().unwrap();
        if let Some(left) = &mut faults.fail_after {
            if *left == 0 {
                faults.fail_after = None;
                // What was sent before does arrive.
                self.inner.acknowledged(Duration::ZERO)?;
                return Err(stream::Error::other("made to fail").into());
            }
            *left -= 1;
        }
        if faults
            .full_after
            .is_some_and(|most| faults.since_asked >= most)
        {
            return Err(SendError::Full);
        }
        faults.since_asked += 1;
        if record.lane == 0 && Some(record.n) == faults.refuse && !record.is_tombstone() {
            // As a broker does: nothing of the batch is kept.
            faults.refusing = true;
        }
        if faults.refusing {
            return Ok(());
        }
        self.inner.send(topic, record)
    }

    fn acknowledged(&mut self, wait: Duration) -> stream::Result<u64> {
        let mut faults = self.faults.lock().unwrap();
        faults.since_asked = 0;
        if std::mem::take(&mut faults.refusing) {
            return Err(stream::Error::refused("made to refuse"));
        }
        let count = self.inner.acknowledged(wait)?;
        Ok(if faults.withhold { 0 } else { count })
    }
}

fn faulty(bench: &Bench, faults: &Arc<Mutex<Faults>>) -> Box<dyn Sender> {
    faults.lock().unwrap().senders += 1;
    Box::new(Faulty {
        inner: bench.stream.sender(),
        faults: Arc::clone(faults),
    })
}

#[test]
fn what_the_journal_holds_arrives_once_enriched_and_without_the_address() {
    let mut bench = Bench::new();
    let key = Some(ClickKey {
        time_ms: NOW_MS,
        stream: 1,
        sequence: 3,
    });
    let unmatched = EdgeRecord {
        topic: Topic::Clicks as u32,
        lane: 1,
        n: 1,
        address: Vec::new(),
        catalog_lock: 0,
        event: Some(Event::Unmatched(Unmatched {
            key,
            shard: 0x12,
            count: 4,
            ..Unmatched::default()
        })),
    };
    let postback = EdgeRecord {
        topic: Topic::Postbacks as u32,
        lane: 9,
        n: 1,
        address: ADDRESS.to_vec(),
        catalog_lock: 0,
        event: Some(Event::Postback(Postback {
            key,
            advertiser: 3,
            order: "A-1".to_owned(),
            ..Postback::default()
        })),
    };
    bench.record(&[click(0, 1), click(0, 2), unmatched, postback]);
    let registries: Vec<prometheus::Registry> = TOPICS
        .map(|topic| {
            let (mut courier, registry) = bench.courier_of(topic);
            ship(&mut courier, &mut *bench.stream.sender());
            drop(courier);
            let (mut courier, _) = bench.courier_of(topic);
            ship(&mut courier, &mut *bench.stream.sender());
            registry
        })
        .into();

    let mut all = bench.clicks();
    assert_eq!(identities(&all), [(0, 1), (0, 2), (1, 1)]);
    let first = Click::decode(&*all[0].value).unwrap();
    assert_eq!(first.network, "203.0.113.0/24");
    assert_ne!(first.visitor, 0);
    assert_eq!((all[0].kind, all[0].version), (1, SCHEMA_VERSION));
    assert_eq!(all[0].time_ms, NOW_MS - 999);
    assert_eq!(all[0].key, [0, 0]);
    assert_eq!((all[2].kind, &all[2].key), (2, &vec![0, 0x12]));
    let mut receiver = bench.stream.receiver("sluice.postbacks").unwrap();
    let batch = receiver.poll(10, Duration::ZERO).unwrap().unwrap();
    all.extend(batch.records.into_iter().map(|(_, record)| record));
    assert_eq!((all[3].kind, all[3].lane, all[3].n), (3, 9, 1));
    assert_eq!(all[3].key, b"3/A-1");
    assert_eq!(
        Postback::decode(&*all[3].value).unwrap().network,
        "203.0.113.0/24"
    );
    for record in &all {
        let mut bytes = Vec::new();
        assert!(record.encode(&mut bytes));
        for address in [&ADDRESS[..], b"203.0.113.77"] {
            assert!(!bytes.windows(address.len()).any(|part| part == address));
        }
    }
    for (registry, line) in [
        (
            0,
            "sluice_journal_delivered_total{journal=\"0\",topic=\"clicks\"} 3",
        ),
        (
            1,
            "sluice_journal_delivered_total{journal=\"0\",topic=\"postbacks\"} 1",
        ),
        (
            0,
            "sluice_journal_lost_total{journal=\"0\",reason=\"hole\"} 0",
        ),
        (
            0,
            "sluice_courier_delivery_lag_seconds{journal=\"0\",topic=\"clicks\"} 0",
        ),
    ] {
        assert!(metric(&registries[registry], line), "{line}");
    }
}

#[test]
fn killed_between_sending_and_saving_it_sends_the_same_again() {
    let mut bench = Bench::new();
    bench.record(&[click(0, 1), click(2, 1), click(0, 2)]);
    let faults = Arc::new(Mutex::new(Faults {
        withhold: true,
        ..Faults::default()
    }));
    let (mut courier, registry) = bench.courier();
    let shipped = courier.step(&mut *faulty(&bench, &faults), NOW_MS).unwrap();
    assert_eq!(
        shipped,
        Shipped {
            sent: 3,
            acknowledged: 0,
            waiting: 3
        }
    );
    assert!(metric(
        &registry,
        "sluice_courier_delivery_lag_seconds{journal=\"0\",topic=\"clicks\"} 0.999"
    ));
    drop(courier);
    let (mut courier, _) = bench.courier();
    ship(&mut courier, &mut *bench.stream.sender());
    let all = bench.clicks();
    assert_eq!(
        identities(&all),
        [(0, 1), (0, 2), (0, 1), (0, 2), (2, 1), (2, 1)]
    );
    assert_eq!(all[0], all[2]);
    assert_eq!(all[1], all[3]);
    assert_eq!(all[4], all[5]);
}

#[test]
fn one_that_stood_still_and_goes_on_beside_its_successor_does_no_harm() {
    let mut bench = Bench::new();
    let records: Vec<_> = (1..=9).map(|n| click(0, n)).collect();
    bench.record(&records[..2]);
    let (mut stale, _) = bench.courier();
    let mut stale_sender = bench.stream.sender();
    ship(&mut stale, &mut *stale_sender);
    let (mut successor, _) = bench.courier();
    let mut sender = bench.stream.sender();
    for part in [&records[2..4], &records[4..6]] {
        bench.record(part);
        ship(&mut successor, &mut *sender);
    }
    // An hour later: its cursor is old, and it saves over the successor's.
    ship(&mut stale, &mut *stale_sender);
    bench.record(&records[6..]);
    ship(&mut successor, &mut *sender);
    ship(&mut stale, &mut *stale_sender);
    let (mut last, _) = bench.courier();
    ship(&mut last, &mut *bench.stream.sender());

    let mut receipts = Receipts::default();
    let all = bench.clicks();
    let folded = all
        .iter()
        .filter(|&record| receipts.judge(record) == Verdict::Fold);
    assert_eq!(folded.count(), 9);
    assert!(all.len() > 9, "some were sent twice");
}

#[test]
fn a_failed_sender_is_replaced_and_everything_after_the_watermark_sent_again() {
    let mut bench = Bench::new();
    let records: Vec<_> = (1..=10).map(|n| click(0, n)).collect();
    bench.record(&records[..4]);
    let faults = Arc::new(Mutex::new(Faults::default()));
    let (mut courier, _) = bench.courier();
    ship(&mut courier, &mut *faulty(&bench, &faults));
    bench.record(&records[4..]);
    faults.lock().unwrap().fail_after = Some(3);
    let acknowledged = std::cell::Cell::new(0);
    courier
        .run(
            &mut || Ok(faulty(&bench, &faults)),
            &Clock::fixed(NOW_MS),
            &|| acknowledged.get() == 6,
            &mut |shipped| acknowledged.set(acknowledged.get() + shipped.acknowledged),
        )
        .unwrap();
    assert_eq!(faults.lock().unwrap().senders, 3);
    let numbers: Vec<u64> = bench.clicks().iter().map(|record| record.n).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn the_lag_was_0_while_everything_waited_for_a_sender() {
    let mut bench = Bench::new();
    bench.record(&[click(0, 1)]);
    let lag = |topic| {
        let (mut courier, registry) = bench.courier_of(topic);
        courier.options.drain_max = Duration::ZERO;
        let mut tries = 0;
        let stop = std::cell::Cell::new(false);
        courier
            .run(
                &mut || {
                    tries += 1;
                    stop.set(tries == 2);
                    Err(stream::Error::other("the cluster is away"))
                },
                &Clock::fixed(NOW_MS + 5000),
                &|| stop.get(),
                &mut |_| {},
            )
            .unwrap();
        let name = topic.name();
        move |seconds: &str| {
            let line = format!(
                "sluice_courier_delivery_lag_seconds{{journal=\"0\",topic=\"{name}\"}} {seconds}"
            );
            metric(&registry, &line)
        }
    };
    assert!(lag(Topic::Clicks)("5.999"));
    assert!(lag(Topic::Postbacks)("0"), "nothing of it waits");
}

#[test]
fn holes_are_filled_with_tombstones_and_a_full_sender_repeats_none() {
    let mut bench = Bench::new();
    let first: Vec<_> = (1..=9).map(|n| click(0, n)).collect();
    bench.record(&first);
    bench.record(&[click(2, 1)]);
    let mut bench = bench.reopen();
    bench.record(&[click(0, 1), click(0, 2), click(0, 3)]);
    let ends = bench.ends();
    for lost in [0, 3, 4, 5, 6, 7, 11] {
        bench.flip(ends[lost]);
    }
    let faults = Arc::new(Mutex::new(Faults {
        full_after: Some(3),
        ..Faults::default()
    }));
    let (mut courier, registry) = bench.courier();
    ship(&mut courier, &mut *faulty(&bench, &faults));
    let found: Vec<_> = bench
        .clicks()
        .iter()
        .filter(|record| record.kind != END)
        .map(|record| (record.lane, record.n, record.last(), record.is_tombstone()))
        .collect();
    assert_eq!(
        found,
        [
            (0, 1, 1, true),
            (0, 2, 2, false),
            (0, 3, 3, false),
            (0, 4, 8, true),
            (0, 9, 9, false),
            (0, 1, 1, false),
            (0, 2, 2, true),
            (0, 3, 3, false),
            (2, 1, 1, false),
        ]
    );
    assert!(metric(
        &registry,
        "sluice_journal_delivered_total{journal=\"0\",topic=\"clicks\"} 6"
    ));
}

#[test]
fn a_read_that_went_wrong_once_became_a_tombstone_for_ever() {
    let mut bench = Bench::new();
    bench.record(&[click(0, 1), click(0, 2), click(0, 3)]);
    let end = bench.ends()[1];
    bench.flip(end);
    let (mut courier, _) = bench.courier();
    let mut sender = bench.stream.sender();
    // What lies before the hole goes; at the hole it looks again.
    let mut sent = 0;
    while sent < 1 {
        sent += courier.step(&mut *sender, NOW_MS).unwrap().sent;
    }
    assert_eq!(identities(&bench.clicks()), [(0, 1)]);
    bench.flip(end);
    ship(&mut courier, &mut *sender);
    let found = bench.clicks();
    assert_eq!(identities(&found), [(0, 1), (0, 2), (0, 3)]);
    assert!(!found.iter().any(Record::is_tombstone));
}

#[test]
fn a_first_file_that_cannot_be_read_was_neither_lost_nor_waited_for() {
    let mut bench = Bench::new();
    bench.record(&[click(0, 1), click(0, 2), click(0, 3)]);
    let mut bench = bench.reopen();
    bench.record(&[click(0, 1)]);
    let first = bench.journal().join(format!("{:016x}.log", 1));
    std::fs::write(&first, vec![0x55; 1000]).unwrap();
    let (mut courier, registry) = bench.courier();
    ship(&mut courier, &mut *bench.stream.sender());
    assert_eq!(identities(&bench.clicks()), [(0, 1)]);
    assert_eq!(courier.saved.lost, 3);
    assert!(metric(
        &registry,
        "sluice_journal_delivered_total{journal=\"0\",topic=\"clicks\"} 1"
    ));
    // A courier that comes when files are deleted knows nothing of what they held.
    std::fs::remove_file(first).unwrap();
    std::fs::remove_file(bench.places(Topic::Clicks).cursor).unwrap();
    let (mut courier, _) = bench.courier();
    ship(&mut courier, &mut *bench.stream.sender());
    assert_eq!(courier.saved.lost, 0);
}

#[test]
fn a_damaged_copy_took_the_numbers_of_records_that_the_original_had() {
    let mut bench = Bench::new();
    bench.record(&[click(0, 1), click(0, 2), click(0, 3)]);
    let end = EdgeRecord {
        event: Some(Event::End(StreamEnd {})),
        ..EdgeRecord::default()
    };
    bench.record(&[end]);
    bench.flip(bench.ends()[1]);
    let places = bench.places(Topic::Clicks);
    let ship_copy = |gives_up| {
        let copy = Places {
            cursor: bench.folder.path().join(format!("copy-{gives_up}")),
            ..places.clone()
        };
        let options = Options {
            gives_up,
            ..Options::default()
        };
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let mut courier = Courier::open(&copy, ENRICH, options, &metrics).unwrap();
        ship(&mut courier, &mut *bench.stream.sender());
    };
    ship_copy(false);
    assert_eq!(identities(&bench.clicks()), [(0, 1), (0, 3)]);
    ship_copy(true);
    let added = &identities(&bench.clicks())[2..];
    assert_eq!(
        added,
        [(0, 1), (0, 2), (0, 3), (0, 4)],
        "by a person's word"
    );
}

#[test]
fn a_killed_workers_stream_never_ended_and_one_that_ended_has_one_end_a_partition() {
    let mut bench = Bench::new();
    bench.record(&[click(0, 1), click(4, 1), click(1, 1)]);
    // Killed; its successor ends its stream.
    let mut bench = bench.reopen();
    let end = EdgeRecord {
        event: Some(Event::End(StreamEnd {})),
        ..EdgeRecord::default()
    };
    bench.record(&[click(2, 1), click(0, 1), click(2, 2), end]);
    let mut bench = bench.reopen();
    bench.record(&[click(0, 1)]);
    let faults = Arc::new(Mutex::new(Faults {
        full_after: Some(4),
        ..Faults::default()
    }));
    let (mut courier, registry) = bench.courier();
    ship(&mut courier, &mut *faulty(&bench, &faults));
    let ends: Vec<_> = bench.clicks();
    let ends: Vec<_> = ends.iter().filter(|record| record.kind == END).collect();
    let mut found: Vec<_> = ends
        .iter()
        .map(|end| (end.lane, end.n, end.ended_lanes()))
        .collect();
    found.sort();
    let [killed, odd, ended] = [vec![(0, 2), (4, 1)], vec![(1, 2)], vec![(0, 2), (2, 2)]];
    assert_eq!(found, [(0, 2, ended), (0, 2, killed), (1, 2, odd)]);
    assert!(metric(
        &registry,
        "sluice_journal_delivered_total{journal=\"0\",topic=\"clicks\"} 8"
    ));
    let (mut courier, _) = bench.courier_of(Topic::Postbacks);
    ship(&mut courier, &mut *bench.stream.sender());
    let mut receiver = bench.stream.receiver("sluice.postbacks").unwrap();
    assert_eq!(
        receiver.poll(10, Duration::ZERO).unwrap(),
        None,
        "no lane of it was used"
    );
}

#[test]
fn what_cannot_be_shipped_of_one_topic_does_not_hold_up_the_other() {
    let mut bench = Bench::new();
    let postback = |n| EdgeRecord {
        topic: Topic::Postbacks as u32,
        lane: 0,
        n,
        address: Vec::new(),
        catalog_lock: 0,
        event: Some(Event::Postback(Postback {
            key: Some(ClickKey::default()),
            ..Postback::default()
        })),
    };
    bench.record(&[postback(1), click(0, 1), postback(2)]);
    let (mut postbacks, _) = bench.courier_of(Topic::Postbacks);
    let faults = Arc::new(Mutex::new(Faults {
        withhold: true,
        ..Faults::default()
    }));
    postbacks
        .step(&mut *faulty(&bench, &faults), NOW_MS)
        .unwrap();
    let (mut clicks, _) = bench.courier();
    ship(&mut clicks, &mut *bench.stream.sender());
    assert_eq!(identities(&bench.clicks()), [(0, 1)]);
    // What it only passes is saved now and then.
    let path = bench.places(Topic::Clicks).cursor;
    let saved = || Cursor::read(&path).unwrap();
    let before = saved();
    bench.record(&[postback(3)]);
    let mut sender = bench.stream.sender();
    for (now_ms, same) in [(NOW_MS, true), (NOW_MS + SAVE_EVERY_MS, false)] {
        clicks.rewind().unwrap();
        clicks.step(&mut *sender, now_ms).unwrap();
        assert_eq!(saved() == before, same);
    }
}

#[test]
fn what_is_not_understood_goes_to_the_dead_letters() {
    let mut bench = Bench::new();
    bench.record(&[click(0, 1)]);
    bench.log.append(b"\xff no message").unwrap();
    let mut misplaced = click(0, 3);
    misplaced.topic = Topic::Postbacks as u32;
    bench.record(&[misplaced, click(0, u64::MAX), click(0, 4)]);
    let (mut courier, registry) = bench.courier();
    ship(&mut courier, &mut *bench.stream.sender());
    let clicks = bench.clicks();
    assert_eq!(identities(&clicks), [(0, 1), (0, 2), (0, 4)]);
    assert_eq!(clicks[1].last(), 3, "one tombstone for both");
    for line in [
        "sluice_journal_dead_total{journal=\"0\",reason=\"undecodable\",topic=\"clicks\"} 1",
        "sluice_journal_dead_total{journal=\"0\",reason=\"invalid\",topic=\"clicks\"} 1",
        "sluice_journal_delivered_total{journal=\"0\",topic=\"clicks\"} 2",
    ] {
        assert!(metric(&registry, line), "{line}");
    }
    let (mut postbacks, registry) = bench.courier_of(Topic::Postbacks);
    ship(&mut postbacks, &mut *bench.stream.sender());
    let line = "sluice_journal_dead_total{journal=\"0\",reason=\"invalid\",topic=\"postbacks\"} 1";
    assert!(metric(&registry, line));
    let letters = bench.letters(Topic::Clicks);
    assert_eq!(bytes(&letters[0]), b"\xff no message");
    assert_eq!(bench.letters(Topic::Postbacks).len(), 1);
    let (_, registry) = bench.courier();
    assert!(
        metric(
            &registry,
            "sluice_journal_delivered_total{journal=\"0\",topic=\"clicks\"} 2"
        ),
        "a restart resets nothing"
    );
}

#[test]
fn clicks_recorded_with_another_catalog_were_shipped_as_if_of_this_one() {
    let mut bench = Bench::new();
    let of = |catalog_lock, n| EdgeRecord {
        catalog_lock,
        ..click(0, n)
    };
    bench.record(&[of(7, 1), of(8, 2)]);
    let courier = |catalog_lock| {
        let enrich = Enrich {
            catalog_lock,
            ..ENRICH
        };
        bench.courier_with(Topic::Clicks, enrich).0
    };
    let mut sender = bench.stream.sender();
    let error = courier(8).step(&mut *sender, NOW_MS).unwrap_err();
    assert!(!error.is_sender());
    assert!(
        error.to_string().contains("catalog.lock 0000000000000007"),
        "{error}"
    );
    assert_eq!(identities(&bench.clicks()), []);
    // With the catalog it belongs to each goes on; where none is known yet, nothing speaks against any.
    let mut first = courier(7);
    while first.step(&mut *sender, NOW_MS).is_ok() {}
    drop(first);
    ship(&mut courier(0), &mut *bench.stream.sender());
    assert_eq!(identities(&bench.clicks()), [(0, 1), (0, 2)]);
}

#[test]
fn a_refused_record_is_found_kept_and_replaced_by_a_tombstone() {
    let mut bench = Bench::new();
    let records: Vec<_> = (1..=6).map(|n| click(0, n)).collect();
    bench.record(&records);
    let faults = Arc::new(Mutex::new(Faults {
        refuse: Some(3),
        ..Faults::default()
    }));
    let (mut courier, registry) = bench.courier();
    let acknowledged = std::cell::Cell::new(0);
    courier
        .run(
            &mut || Ok(faulty(&bench, &faults)),
            &Clock::fixed(NOW_MS),
            &|| acknowledged.get() == 6,
            &mut |shipped| acknowledged.set(acknowledged.get() + shipped.acknowledged),
        )
        .unwrap();
    let mut found: Vec<_> = bench
        .clicks()
        .iter()
        .map(|record| (record.n, record.is_tombstone()))
        .collect();
    found.dedup();
    let expected = [1, 2, 3, 4, 5, 6].map(|n| (n, n == 3));
    assert_eq!(found[found.len() - 6..], expected);
    let letters = bench.letters(Topic::Clicks);
    assert_eq!(letters.len(), 1);
    assert_eq!(bytes(&letters[0]), records[2].encode_to_vec());
    for line in [
        "sluice_journal_dead_total{journal=\"0\",reason=\"refused\",topic=\"clicks\"} 1",
        "sluice_journal_delivered_total{journal=\"0\",topic=\"clicks\"} 5",
        "sluice_journal_lost_total{journal=\"0\",reason=\"hole\"} 0",
    ] {
        assert!(metric(&registry, line), "{line}");
    }

    // Now it is taken; released twice it counts once.
    let mut release = Release::new(Topic::Clicks, "sluice", ENRICH);
    for _ in 0..2 {
        let mut sender = bench.stream.sender();
        let released = release.send(&letters[0], &mut *sender).unwrap();
        assert_eq!(released, Released::Sent);
    }
    let mut receipts = Receipts::default();
    let mut counted: Vec<u64> = bench
        .clicks()
        .iter()
        .filter(|record| receipts.judge(record) == Verdict::Fold && record.kind == 1)
        .map(|record| record.time_ms)
        .collect();
    counted.sort_unstable();
    assert_eq!(counted, [1, 2, 3, 4, 5, 6].map(|n| NOW_MS - 1000 + n));
    let undecodable = Letter {
        content: Content::EdgeRecord {
            stream: StreamId([1; 16]),
            sequence: 1,
            bytes: b"\xff".to_vec(),
        },
        ..letters[0].clone()
    };
    let released = release.send(&undecodable, &mut *bench.stream.sender());
    assert_eq!(released.unwrap(), Released::Dead(DeadReason::Undecodable));

    // What a consumer said is a record already.
    let said = Record {
        key: b"key".to_vec(),
        kind: 9,
        ..Record::tombstone(StreamId([4; 16]), 1, 77, 5)
    };
    let letter = Letter {
        reason: DeadReason::Refused,
        content: Content::Record(said.clone()),
    };
    let released = release.send(&letter, &mut *bench.stream.sender());
    assert_eq!(released.unwrap(), Released::Sent);
    let found = bench.clicks().into_iter().find(|record| record.kind == 9);
    let found = found.expect("it was sent");
    assert_eq!((&found.key, found.n, found.time_ms), (&said.key, 1, 5));
}

fn bytes(letter: &Letter) -> &[u8] {
    match &letter.content {
        Content::EdgeRecord { bytes, .. } => bytes,
        Content::Record(record) => panic!("{record:?}"),
    }
}

#[test]
fn acknowledged_files_are_deleted_when_they_are_old() {
    let files = |bench: &Bench| {
        std::fs::read_dir(bench.journal())
            .unwrap()
            .filter(|file| {
                let name = file.as_ref().unwrap().file_name();
                name.to_string_lossy().ends_with(".log")
            })
            .count()
    };
    let mut bench = Bench::new();
    bench.record(&[click(0, 1)]);
    let mut bench = bench.reopen();
    bench.record(&[click(0, 1)]);
    let before = files(&bench);
    let cursors = TOPICS.map(|topic| bench.places(topic).cursor);
    let day = Duration::from_secs(24 * 3600);
    let changed = std::fs::metadata(bench.journal().join("lock")).unwrap();
    let since = changed.modified().unwrap().duration_since(UNIX_EPOCH);
    let changed_ms = u64::try_from(since.unwrap().as_millis()).unwrap();
    let later_ms = changed_ms + 24 * 3600 * 1000 + 60_000;
    let delete = |now_ms| delete_acknowledged(&bench.journal(), &cursors, day, now_ms).unwrap();
    let pass = |topic| {
        let (mut courier, _) = bench.courier_of(topic);
        for now_ms in [NOW_MS, NOW_MS + SAVE_EVERY_MS] {
            let mut sender = bench.stream.sender();
            while !courier.step(&mut *sender, now_ms).unwrap().is_idle() {}
        }
    };
    pass(Topic::Clicks);
    assert_eq!(
        delete(later_ms).files,
        0,
        "the other topic's courier has not been here"
    );
    pass(Topic::Postbacks);
    assert_eq!(delete(changed_ms).files, 0, "they are young");
    assert_eq!(delete(later_ms).files, 1);
    assert_eq!(files(&bench), before - 1);
}

#[test]
fn a_shipped_file_is_deleted_though_nothing_was_recorded_after_it() {
    let mut bench = Bench::new();
    bench.record(&[click(0, 1)]);
    let bench = bench.reopen();
    for topic in TOPICS {
        let (mut courier, _) = bench.courier_of(topic);
        for now_ms in [NOW_MS, NOW_MS + SAVE_EVERY_MS, NOW_MS + 2 * SAVE_EVERY_MS] {
            let mut sender = bench.stream.sender();
            while !courier.step(&mut *sender, now_ms).unwrap().is_idle() {}
        }
    }
    let cursors = TOPICS.map(|topic| bench.places(topic).cursor);
    let deleted = delete_acknowledged(&bench.journal(), &cursors, Duration::ZERO, u64::MAX / 2);
    assert_eq!(deleted.unwrap().files, 1);
}

#[test]
fn a_cursor_of_a_newer_version_is_refused() {
    let bench = Bench::new();
    let path = bench.places(Topic::Clicks).cursor;
    Cursor::open(&path).unwrap().0.save(&[u8::MAX]).unwrap();
    let error = Courier::open(
        &bench.places(Topic::Clicks),
        ENRICH,
        Options::default(),
        &Metrics::register(&prometheus::Registry::new()).unwrap(),
    )
    .err()
    .expect("it is newer");
    assert!(error.to_string().contains("version 255"), "{error}");
}
