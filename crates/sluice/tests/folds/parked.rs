//! One event that cannot be folded stops no other: it is parked with its reason, and folded later to the same end.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};

use catalog::Removes;
use consumer::parking::{Parking, WAIT_MS};
use consumer::{Handler, Reason};
use domain::Topic;
use domain::event::{Class, Click, Conversion, Postback};
use prost::Message;
use store::{Parked, Store, View};
use stream::consumer::Fold;
use stream::{Record, UNKNOWN_TYPE};

use crate::bench::{Bench, Consumers, Reading};
use crate::traffic::{Said, Traffic, Visit};

/// A store, and a catalog folder for its consumers.
struct Rig {
    bench: Bench,
    store: Store,
    path: PathBuf,
}

/// What a reader was told of parked events.
type Told = Arc<Mutex<Vec<Parking>>>;

impl Rig {
    fn new() -> Self {
        let bench = Bench::new();
        let path = bench.folder.path().join("store.sqlite");
        Self {
            store: Store::open(&path).unwrap(),
            bench,
            path,
        }
    }

    fn consumers(&self) -> Consumers {
        Consumers::start(&self.store, self.bench.folder.path())
    }

    fn parked(&self) -> Vec<Parked> {
        let view = View::open(&self.path).unwrap();
        view.parked_after(0, 100).unwrap()
    }

    fn clicks(&self) -> i64 {
        crate::bench::sums(&self.path).unique
    }

    /// Puts the demo in force once more, with one affiliate more: the next version.
    fn apply_next(&self) -> (u32, u64) {
        let demo = self.bench.folder.path().join("demo/catalog.toml");
        let text = std::fs::read_to_string(&demo).unwrap();
        let more = "\n[affiliate.ridgewalk]\nname = \"Ridge Walk\"\n";
        std::fs::write(&demo, format!("{text}{more}")).unwrap();
        let catalogs = self.bench.folder.path().join("catalog");
        let applied = catalog::apply(&demo, &catalogs, "id", Removes::Few).unwrap();
        (applied.catalog.version, applied.catalog.hash)
    }
}

/// Number and hash of the next version, wherever it is applied.
static NEXT: LazyLock<(u32, u64)> = LazyLock::new(|| Rig::new().apply_next());

fn observed<H: Handler>(mut reading: Reading<H>) -> (Reading<H>, Told) {
    let told = Told::default();
    let tell = Arc::clone(&told);
    let observe = move |parking| {
        if matches!(parking, Parking::SetAside { .. }) {
            tell.lock().unwrap().push(parking);
        }
    };
    reading.stored = reading.stored.observed(observe);
    (reading, told)
}

/// Three visitors of one partition, a click each, an hour apart.
fn three_clicks() -> [Vec<Record>; 2] {
    let visit = |number: u64| Visit {
        at_ms: number * 3_600_000,
        visitor: 2 * number,
        offer: 1,
        class: Class::Browser,
        refused: false,
    };
    let traffic = Traffic {
        visits: [1, 2, 3].map(visit).to_vec(),
        said: Vec::new(),
    };
    traffic.records(Topic::Clicks)
}

/// What makes another record of one.
type Change = fn(&mut Record);

/// The second record, changed.
fn changed(mut log: [Vec<Record>; 2], change: impl FnOnce(&mut Record)) -> [Vec<Record>; 2] {
    change(&mut log[0][1]);
    log
}

fn of_next_version(record: &mut Record) {
    let mut click = Click::decode(&*record.value).unwrap();
    (click.catalog_version, click.catalog_hash) = *NEXT;
    record.value = click.encode_to_vec();
}

#[test]
fn an_event_of_an_unknown_catalog_version_stopped_its_partition_for_ever() {
    let parking = Rig::new();
    let log = changed(three_clicks(), of_next_version);
    let (mut clicks, told) = observed(parking.consumers().clicks);
    clicks.step(&log, 0, 9);
    assert_eq!(parking.clicks(), 2, "the others are counted");
    let parked = parking.parked();
    assert_eq!(parked.len(), 1);
    assert_eq!(
        (parked[0].event.offset, parked[0].event.reason.as_str()),
        (1, "catalog_version")
    );

    // It waits, over a restart too, and is set aside after a minute.
    let (mut clicks, told_later) = observed(parking.consumers().clicks);
    clicks.step(&log, 0, 9);
    assert_eq!(parking.parked(), parked, "it is parked once");
    clicks.stored.tick(WAIT_MS - 1).unwrap();
    assert_eq!(parking.parked()[0].event.waits_until_ms, Some(WAIT_MS));
    clicks.stored.tick(WAIT_MS + 1000).unwrap();
    assert_eq!(parking.parked()[0].event.waits_until_ms, None);
    assert_eq!(*told.lock().unwrap(), []);
    let reason = Reason::CatalogVersion;
    assert_eq!(
        *told_later.lock().unwrap(),
        [Parking::SetAside { reason, events: 1 }]
    );

    // The version comes, however late: the store is what it would have been.
    parking.apply_next();
    clicks.stored.tick(WAIT_MS + 9_000).unwrap();
    assert_eq!(parking.parked(), []);
    assert_eq!(parking.clicks(), 3);
    let in_turn = Rig::new();
    in_turn.apply_next();
    in_turn.consumers().clicks.step(&log, 0, 9);
    assert_eq!(parking.store.dump().unwrap(), in_turn.store.dump().unwrap());
}

#[test]
fn an_event_that_cannot_be_folded_is_set_aside_at_once_and_the_others_are_folded() {
    let cases: [(&str, Reason, Change); 7] = [
        ("of another catalog", Reason::CatalogHash, |record| {
            let mut click = Click::decode(&*record.value).unwrap();
            click.catalog_hash += 1;
            record.value = click.encode_to_vec();
        }),
        ("not protobuf", Reason::Undecodable, |record| {
            record.value = vec![0xff; 9];
        }),
        ("no key", Reason::Undecodable, |record| {
            record.value = Vec::new();
        }),
        ("a type without a name", Reason::UnknownType, |record| {
            record.kind = 77;
        }),
        ("a type of another topic", Reason::UnknownType, |record| {
            record.kind = 4;
        }),
        ("a type of a newer version", Reason::UnknownType, |record| {
            record.value.splice(..0, *b"Impression\0");
            record.kind = UNKNOWN_TYPE;
        }),
        ("somebody else's message", Reason::Foreign, |record| {
            *record = Record::foreign(0, b"k".to_vec(), b"hello".to_vec());
        }),
    ];
    for (what, reason, change) in cases {
        let parking = Rig::new();
        let mut log = changed(three_clicks(), change);
        if reason == Reason::Foreign {
            log[0][2].n = 2;
        }
        let (mut clicks, told) = observed(parking.consumers().clicks);
        clicks.step(&log, 0, 9);
        assert_eq!(parking.clicks(), 2, "{what}");
        let parked = parking.parked();
        assert_eq!(parked.len(), 1, "{what}");
        let event = &parked[0].event;
        assert_eq!(
            (event.reason.as_str(), event.waits_until_ms),
            (reason.name(), None),
            "{what}"
        );
        assert_eq!(
            *told.lock().unwrap(),
            [Parking::SetAside { reason, events: 1 }],
            "{what}"
        );
        // Another attempt keeps it, and nobody waits for it any more.
        let (count, through) = parking
            .store
            .batch(|batch| batch.want_parked(None))
            .unwrap();
        clicks.stored.tick(5_000).unwrap();
        let left = parking
            .store
            .batch(|batch| batch.parked_left(None, through))
            .unwrap();
        assert_eq!((count, left), (1, (0, 1)), "{what}");
    }
}

#[test]
fn an_event_parked_as_of_a_newer_version_is_folded_by_it() {
    let parking = Rig::new();
    let log = three_clicks();
    // As an older version read it: the type's name was not known then.
    let mut older = log.clone();
    older[0][1].kind = UNKNOWN_TYPE;
    older[0][1].value.splice(..0, *b"Click\0");
    parking.consumers().clicks.step(&older, 0, 9);
    assert_eq!((parking.clicks(), parking.parked()), (3, Vec::new()));
}

#[test]
fn a_postback_that_is_parked_leaves_nothing_of_itself_in_its_order() {
    let traffic = Traffic::one_sale_said(&["approved"]);
    let mut log = traffic.records(Topic::Postbacks);
    let partition = usize::from(log[0].is_empty());
    let record = &mut log[partition][0];
    let mut postback = Postback::decode(&*record.value).unwrap();
    (postback.catalog_version, postback.catalog_hash) = *NEXT;
    record.value = postback.encode_to_vec();

    let rig = Rig::new();
    let before = rig.store.dump().unwrap();
    rig.consumers().conversions.step(&log, partition, 9);
    assert_eq!(rig.parked().len(), 1);
    assert_eq!(rig.store.dump().unwrap(), before);

    rig.apply_next();
    let mut conversions = rig.consumers().conversions;
    conversions.stored.tick(9_000).unwrap();
    assert_eq!(rig.parked(), []);
    assert_eq!(crate::bench::sums(&rig.path).conversions, 1);
}

#[test]
fn a_catalog_version_that_was_lost_held_up_every_order_that_waited_for_its_click() {
    let rig = Rig::new();
    let one = Traffic::one_sale();
    let said = [1, 2].map(|version| Said {
        order: version as u8 * 2,
        catalog_version: version,
        ..one.said[0]
    });
    let traffic = Traffic {
        said: said.to_vec(),
        ..one
    };
    let (clicks, postbacks) = (
        traffic.records(Topic::Clicks),
        traffic.records(Topic::Postbacks),
    );
    rig.consumers().conversions.step(&postbacks, 0, 9);
    let pending = || {
        let view = View::open(&rig.path).unwrap();
        let orders = ["2", "4"].into_iter();
        let orders = orders.filter(|order| {
            let key = domain::order::key(order, &[], "");
            let (_, bytes) = view.conversions_of(&key).unwrap().pop().expect("a sale");
            Conversion::decode(&*bytes).unwrap().facts_pending
        });
        orders.collect::<Vec<_>>()
    };
    assert_eq!(pending(), ["2", "4"]);

    let snapshot = rig.bench.folder.path().join("catalog/1.snapshot");
    let lost = rig.bench.folder.path().join("lost");
    rig.consumers().clicks.step(&clicks, 1, 9);
    std::fs::rename(&snapshot, &lost).unwrap();
    let conversions = &mut rig.consumers().conversions.stored;
    conversions.tick(0).unwrap();
    assert_eq!(pending(), ["2"]);
    // It is looked for now and then, not all the time.
    assert!(!conversions.tick(5_000).unwrap());
    assert_eq!(pending(), ["2"]);
    std::fs::rename(&lost, &snapshot).unwrap();
    assert!(!conversions.tick(5_999).unwrap());
    assert_eq!(pending(), ["2"]);
    assert!(conversions.tick(6_000).unwrap());
    assert_eq!(pending(), Vec::<&str>::new());
    assert!(!conversions.tick(6_001).unwrap());

    let in_turn = Rig::new();
    let mut consumers = in_turn.consumers();
    consumers.clicks.step(&clicks, 1, 9);
    consumers.conversions.step(&postbacks, 0, 9);
    assert_eq!(rig.store.dump().unwrap(), in_turn.store.dump().unwrap());
}
