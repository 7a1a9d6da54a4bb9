//! A store, the consumers on it, and the logs they read, driven by a schedule.

use std::path::Path;
use std::sync::LazyLock;

use catalog::{Folder, Removes};
use clicks::Clicks;
use consumer::{Handler, Stored, Versions};
use conversions::Conversions;
use domain::Topic;
use fraud::Fraud;
use proptest::prelude::*;
use store::{Query, Store, View};
use stream::consumer::{Accepted, Fold};
use stream::{Receipts, Record, StreamId, Verdict};

use crate::model::Sums;
use crate::traffic::Traffic;

/// What the store says in the end.
pub(crate) struct Told {
    pub(crate) dump: String,
    pub(crate) sums: Sums,
}

/// Who folds how much of which partition next; and how often each record stands in the logs again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    turns: Vec<(Turn, usize, usize)>,
    /// After each record of a log, how many of those before it are sent again.
    repeats: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Clicks,
    Signals,
    Fraud,
    Conversions,
    /// Every consumer ends and starts again from the store.
    Restart,
}

pub(crate) fn schedule() -> impl Strategy<Value = Schedule> {
    let turn = prop_oneof![
        3 => Just(Turn::Clicks),
        2 => Just(Turn::Signals),
        3 => Just(Turn::Fraud),
        3 => Just(Turn::Conversions),
        1 => Just(Turn::Restart),
    ];
    let turns = prop::collection::vec((turn, 0..2_usize, 1..8_usize), 0..40);
    let repeats = prop::collection::vec(prop_oneof![3 => Just(0), 1 => 1..4_usize], 0..40);
    (turns, repeats).prop_map(|(turns, repeats)| Schedule { turns, repeats })
}

impl Schedule {
    pub(crate) fn conversions_first() -> Self {
        Self {
            turns: vec![
                (Turn::Conversions, 0, usize::MAX),
                (Turn::Conversions, 1, usize::MAX),
            ],
            repeats: Vec::new(),
        }
    }
}

/// The hashes of both versions of the demo catalog, which events name. The second pays another share of boots.
pub(crate) static CATALOG_HASHES: LazyLock<[u64; 2]> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    apply_demo(folder.path())
});

fn apply_demo(folder: &Path) -> [u64; 2] {
    let demo = catalog::write_demo(&folder.join("demo"), "0123456789abcdef").unwrap();
    let id = "00112233445566778899aabbccddeeff";
    let apply = || {
        let applied = catalog::apply(&demo, &folder.join("catalog"), id, Removes::Few);
        applied.unwrap().catalog.hash
    };
    let first = apply();
    let text = std::fs::read_to_string(&demo).unwrap();
    let dearer = text
        .replace("\"12 %\"", "\"20 %\"")
        .replace("\"8 %\"", "\"10 %\"");
    std::fs::write(&demo, dearer).unwrap();
    [first, apply()]
}

pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        apply_demo(folder.path());
        Self { folder }
    }

    pub(crate) fn run(&self, traffic: &Traffic, schedule: &Schedule) -> Told {
        let path = self.folder.path().join("store.sqlite");
        let store = Store::open(&path).unwrap();
        let log = |topic| {
            traffic
                .records(topic)
                .map(|log| with_repeats(&log, &schedule.repeats))
        };
        let mut consumers = Consumers::start(&store, self.folder.path());
        let (clicks_log, postbacks_log) = (log(Topic::Clicks), log(Topic::Postbacks));
        let mut signals_log = [Vec::new(), Vec::new()];
        for (turn, partition, count) in &schedule.turns {
            let (partition, count) = (*partition, *count);
            let Consumers {
                clicks,
                signals,
                fraud,
                conversions,
            } = &mut consumers;
            let _busy = match turn {
                Turn::Clicks => clicks.step(&clicks_log, partition, count),
                Turn::Signals => signals.step(&signals_log, partition, count),
                Turn::Fraud => fraud.step(&clicks_log, partition, count),
                Turn::Conversions => conversions.step(&postbacks_log, partition, count),
                Turn::Restart => {
                    consumers = Consumers::start(&store, self.folder.path());
                    false
                }
            };
            consumers.fraud.ship(&mut signals_log);
        }
        // A quiet end in which everything there is is folded.
        let mut busy = true;
        while busy {
            busy = false;
            for partition in 0..2 {
                busy |= consumers.clicks.step(&clicks_log, partition, 5);
                busy |= consumers.fraud.step(&clicks_log, partition, 5);
                consumers.fraud.ship(&mut signals_log);
                busy |= consumers.signals.step(&signals_log, partition, 5);
                busy |= consumers.conversions.step(&postbacks_log, partition, 5);
            }
        }
        Told {
            dump: store.dump().unwrap(),
            sums: sums(&path),
        }
    }
}

fn with_repeats(log: &[Record], repeats: &[usize]) -> Vec<Record> {
    let mut with = Vec::new();
    for (at, record) in log.iter().enumerate() {
        with.push(record.clone());
        let again = repeats.get(at).copied().unwrap_or(0);
        with.extend_from_slice(&log[at.saturating_sub(again)..at]);
    }
    with
}

pub(crate) struct Consumers {
    pub(crate) clicks: Reading<Clicks>,
    signals: Reading<Clicks>,
    fraud: Reading<Fraud>,
    pub(crate) conversions: Reading<Conversions>,
}

impl Consumers {
    pub(crate) fn start(store: &Store, folder: &Path) -> Self {
        let versions = || Versions::new(Folder::open(folder.join("catalog")).unwrap());
        Self {
            clicks: Reading::start(store, Clicks::new(versions()), Topic::Clicks),
            signals: Reading::start(store, Clicks::new(versions()), Topic::FraudSignals),
            fraud: Reading::start(store, Fraud, Topic::Clicks),
            conversions: Reading::start(store, Conversions::new(versions()), Topic::Postbacks),
        }
    }
}

/// A consumer and where it stands.
pub(crate) struct Reading<H> {
    pub(crate) stored: Stored<H>,
    offsets: [u64; 2],
    receipts: Receipts,
}

impl<H: Handler> Reading<H> {
    fn start(store: &Store, handler: H, topic: Topic) -> Self {
        // Each start of an outbox is a stream of its own.
        let candidate = StreamId::random();
        // Nothing is refused here.
        let letters = Path::new("/nonexistent");
        let installation = ("sluice", 2);
        let stored = Stored::new(
            store.clone(),
            handler,
            topic,
            installation,
            candidate,
            letters,
        );
        let mut stored = stored.unwrap();
        Self {
            offsets: [0, 1].map(|partition| stored.offset(partition).unwrap()),
            receipts: stored.receipts().unwrap(),
            stored,
        }
    }

    /// Folds the next records of a partition, then does what waits; whether there was anything.
    pub(crate) fn step(&mut self, log: &[Vec<Record>; 2], partition: usize, count: usize) -> bool {
        let from = self.offsets[partition];
        let rest = log[partition].get(from as usize..).unwrap_or_default();
        let chunk = &rest[..rest.len().min(count)];
        if !chunk.is_empty() {
            let receipts = &mut self.receipts;
            // As the loop does: what has no number is not judged, and the end of an outbox carries no event.
            let new = |(_, record): &(u64, &Record)| {
                record.kind == stream::FOREIGN
                    || receipts.judge(record) == Verdict::Fold && record.kind != stream::END
            };
            let records = (from..).zip(chunk).filter(new).collect();
            let accepted = Accepted {
                partition: partition as u16,
                from,
                to: from + chunk.len() as u64,
                records,
                highs: receipts.changed(),
                ended: receipts.ended(),
                tombstones: 0,
                repeats: 0,
                conflicts: 0,
                early: 0,
                now_ms: 0,
            };
            self.stored.apply(&accepted).unwrap();
            receipts.commit();
            self.offsets[partition] = accepted.to;
        }
        self.stored.tick(0).unwrap() || !chunk.is_empty()
    }

    /// Moves what the consumer says into a topic's log.
    fn ship(&mut self, log: &mut [Vec<Record>; 2]) {
        let rows = self.stored.outbox(100).unwrap();
        for (id, _, record) in rows {
            log[usize::from(record.lane) % 2].push(record);
            self.stored.sent(id).unwrap();
        }
    }
}

pub(crate) fn sums(path: &Path) -> Sums {
    let rows = View::open(path).unwrap().report(&Query::default()).unwrap();
    let Some(row) = rows.first() else {
        return Sums::default();
    };
    let money = row.money.iter().find(|money| money.currency == "USD");
    let cents = |millionths: i128| i64::try_from(millionths / 10_000).unwrap();
    Sums {
        unique: row.counts.unique,
        duplicate: row.counts.duplicate,
        anonymous: row.counts.anonymous,
        invalid: row.counts.invalid,
        speculative: row.counts.speculative,
        conversions: row.counts.conversions,
        revenue: money.map_or(0, |money| cents(money.revenue)),
        payout: money.map_or(0, |money| cents(money.payout)),
    }
}
