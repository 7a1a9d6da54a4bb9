//! What a consumer says of itself, over restarts and over a store that is put back from its backup.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

use std::path::Path;

use consumer::{Error, Handler, Output, Stored};
use domain::event::{FraudSignal, Kind};
use domain::{Lane, Topic};
use store::{Store, View};
use stream::consumer::Fold;
use stream::letters::Content;
use stream::{END, Receipts, Record, StreamId, Verdict};

/// Says one signal a tick, each of another visitor.
struct Speaker(u64);

impl Handler for Speaker {
    const NAME: &'static str = "fraud";

    fn fold(&mut self, _: &mut Output<'_, '_>, _: &Record) -> Result<(), Error> {
        Ok(())
    }

    fn tick(&mut self, out: &mut Output<'_, '_>, _now_ms: u64) -> Result<bool, Error> {
        self.0 += 1;
        let signal = FraudSignal {
            visitor: self.0,
            ..FraudSignal::default()
        };
        let topic = Topic::FraudSignals;
        out.say(topic, Lane(7), Kind::FraudSignal, self.0, b"k", &signal)?;
        Ok(true)
    }
}

/// Opens a store as a process does; what is said begins behind `said`.
fn open(path: &Path, said: u64) -> Stored<Speaker> {
    let store = Store::open(path).unwrap();
    let stream = StreamId::random();
    let letters = path.with_file_name("dead-letters");
    Stored::new(
        store,
        Speaker(said),
        Topic::Clicks,
        ("sluice", 1),
        stream,
        &letters,
    )
    .unwrap()
}

/// Sends what waits to the topic; tells nobody that it is sent where the process dies before.
fn send(stored: &mut Stored<Speaker>, topic: &mut Vec<Record>, acknowledged: bool) {
    let rows = stored.outbox(100).unwrap();
    topic.extend(rows.iter().map(|(_, _, record)| record.clone()));
    if let (true, Some((id, ..))) = (acknowledged, rows.last()) {
        stored.sent(*id).unwrap();
    }
}

/// The visitors a reader takes, and how many streams it must remember lane by lane.
fn read(topic: &[Record]) -> (Vec<u64>, usize) {
    let mut receipts = Receipts::default();
    let new = |record: &&Record| receipts.judge(record) == Verdict::Fold;
    let new: Vec<&Record> = topic.iter().filter(new).collect();
    let visitors = new
        .iter()
        .filter(|record| record.kind != END)
        .map(|record| {
            let signal: FraudSignal = consumer::decode(record).unwrap();
            signal.visitor
        });
    (visitors.collect(), receipts.changed().len())
}

#[test]
fn a_store_put_back_from_its_backup_gave_taken_numbers_to_new_facts() {
    let folder = tempfile::tempdir().unwrap();
    let [path, backup] = ["store.sqlite", "backup.sqlite"].map(|name| folder.path().join(name));
    let mut topic = Vec::new();

    let mut stored = open(&path, 0);
    for _ in 0..3 {
        stored.tick(0).unwrap();
    }
    send(&mut stored, &mut topic, true);
    stored.tick(0).unwrap();
    View::open(&path).unwrap().copy_to(&backup).unwrap();
    // The backup knows neither that the fourth is sent nor the fifth and sixth.
    for _ in 0..2 {
        stored.tick(0).unwrap();
    }
    send(&mut stored, &mut topic, true);
    drop(stored);

    let mut restored = open(&backup, 6);
    restored.tick(0).unwrap();
    send(&mut restored, &mut topic, true);
    assert_eq!(read(&topic).0, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn the_stream_of_each_open_ends_behind_what_waited_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let mut topic = Vec::new();
    for (said, acknowledged) in [(0, true), (1, false), (2, true), (3, true)] {
        let mut stored = open(&path, said);
        stored.tick(0).unwrap();
        send(&mut stored, &mut topic, acknowledged);
    }
    // Nothing is said: the last stream with words ends, and this open leaves no trace.
    let mut silent = open(&path, 4);
    send(&mut silent, &mut topic, true);
    assert_eq!(read(&topic), (vec![1, 2, 3, 4], 0));
    let ends = topic.iter().filter(|record| record.kind == END);
    assert_eq!(ends.count(), 4 + 1, "of four streams, one sent twice");
    drop(silent);
    assert_eq!(open(&path, 4).outbox(100).unwrap(), []);
}

#[test]
fn nothing_could_release_what_a_topic_had_refused_of_an_outbox() {
    let folder = tempfile::tempdir().unwrap();
    let mut stored = open(&folder.path().join("store.sqlite"), 0);
    stored.tick(1).unwrap();
    let (id, _, said) = stored.outbox(1).unwrap().remove(0);
    for _ in 0..2 {
        stored.refused(id).unwrap();
    }
    let (_, _, left) = stored.outbox(1).unwrap().remove(0);
    assert!(left.is_tombstone() && left.n == said.n);
    let letters = folder
        .path()
        .join("dead-letters/fraud-clicks.fraud-signals");
    let found = stream::letters::read(&letters).unwrap().letters;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].content, Content::Record(said));
}
