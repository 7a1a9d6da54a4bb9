//! The edge on a machine whose clock is wrong, and put right.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use domain::time::EPOCH_MS;
use domain::{ClickKey, Keyring};
use edge::{Edge, Keys, Parts, Settings};
use service::{Clock, Health, Metrics, Shutdown, listen};
use testkit::{http, wait};

const BOUND: Duration = Duration::from_secs(60);
const NOW_MS: u64 = EPOCH_MS + 40 * 24 * 3_600_000;
const HOUR_MS: u64 = 3_600_000;

struct Bench {
    edge: Edge,
    address: SocketAddr,
    keyring: Keyring,
    clock: Clock,
    metrics: Metrics,
    shutdown: Shutdown,
}

impl Bench {
    fn start(folder: &Path) -> Bench {
        let catalog = catalog::write_demo(&folder.join("demo"), "secret of northpeak").unwrap();
        let versions = folder.join("catalog");
        let id = "00112233445566778899aabbccddeeff";
        catalog::apply(&catalog, &versions, id, catalog::Removes::Many).unwrap();
        Keys::make(&folder.join("keys")).unwrap();
        let keys = Keys::read(&folder.join("keys")).unwrap();
        let listener = listen::bind(SocketAddr::from(([127, 0, 0, 1], 0)), "edge").unwrap();
        let address = listener.local_addr().unwrap();
        let (clock, metrics, shutdown) = (Clock::fixed(NOW_MS), Metrics::new(), Shutdown::new());
        let settings = Settings {
            workers: 1,
            ring_bytes: Some(1 << 20),
            ..Settings::default()
        };
        let parts = Parts {
            listener,
            journals: folder.join("journal"),
            is_beside_predecessor: false,
            catalog: versions,
            seed: keys.seed(),
            keys: keys.tokens.clone(),
            serve_own_address: true,
            files_max: 10_000,
            clock: clock.clone(),
            metrics: metrics.clone(),
            health: Health::new(),
            shutdown: shutdown.clone(),
        };
        Bench {
            edge: Edge::start(settings, parts).unwrap(),
            address,
            keyring: Keyring::parse(&keys.tokens).unwrap(),
            clock,
            metrics,
            shutdown,
        }
    }

    /// The key of one more click, as its token tells it.
    fn click(&self) -> ClickKey {
        let agent = (
            "User-Agent",
            "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
        );
        let answer = http::get(self.address, "/fall-boots", &[agent]).unwrap();
        let location = answer.header("location").unwrap();
        let (_, token) = location.split_once("npk=").unwrap();
        self.keyring.open(token.as_bytes()).unwrap().click
    }

    fn stop(self) {
        self.shutdown.request();
        self.edge.join().unwrap();
    }
}

#[test]
fn a_clock_that_was_ahead_does_not_freeze_the_time_of_clicks() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::start(folder.path());
    let first = bench.click();
    assert_eq!(first.time_ms, NOW_MS);
    bench.clock.set(NOW_MS + HOUR_MS);
    assert_eq!(bench.click().time_ms, NOW_MS + HOUR_MS);

    // Set right again: within a second or two the worker is in another stream, with the right time.
    bench.clock.set(NOW_MS + 5000);
    let mut click = bench.click();
    wait::until("the time is right", BOUND, || {
        click = bench.click();
        click.time_ms == NOW_MS + 5000
    });
    assert_ne!(click.stream, first.stream);
    wait::until("the metric says so", BOUND, || {
        let metrics = bench.metrics.render();
        metrics.contains("sluice_edge_clock_ahead_seconds{worker=\"0\"} 0\n")
    });
    bench.clock.set(NOW_MS + 9000);
    assert_eq!(bench.click().time_ms, NOW_MS + 9000);

    // A small step is no reason for another stream, and time does not go back within one.
    bench.clock.set(NOW_MS + 8500);
    let small = bench.click();
    assert_eq!((small.time_ms, small.stream), (NOW_MS + 9000, click.stream));
    bench.stop();
}

#[test]
fn a_click_under_a_clock_before_2025_is_found_by_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::start(folder.path());
    bench.clock.set(0);
    wait::until("the clock's step is seen", BOUND, || {
        bench.click().time_ms == EPOCH_MS
    });
    bench.stop();
    // What the token tells is what is recorded.
    let mut recorded = Vec::new();
    for journal in std::fs::read_dir(folder.path().join("journal")).unwrap() {
        let journal = journal.unwrap().path();
        let mut reader = journal::Reader::open(&journal, journal::Position::default()).unwrap();
        reader.read(&mut recorded, usize::MAX).unwrap();
    }
    let times = recorded.iter().filter_map(|entry| {
        use domain::event::edge_record::Event;
        let record: domain::event::EdgeRecord = prost::Message::decode(&*entry.payload).unwrap();
        match record.event? {
            Event::Click(click) => Some(click.key.unwrap().time_ms),
            _ => None,
        }
    });
    let times: Vec<u64> = times.collect();
    assert!(times.contains(&EPOCH_MS), "{times:?}");
    assert!(
        times
            .iter()
            .all(|time| *time == EPOCH_MS || *time == NOW_MS),
        "{times:?}"
    );
}
