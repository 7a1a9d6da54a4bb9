//! The couriers' threads: one a journal folder, also of workers that no longer exist.

use std::fs;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use courier::{Courier, Enrich, Options};
use prometheus::{IntGaugeVec, Opts};
use service::{Clock, Health, Shutdown};
use stream::Embedded;

use crate::settings;

/// The pause after a failure; doubles up to the maximum.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What every courier thread needs.
#[derive(Clone)]
pub(crate) struct Around {
    pub(crate) stream: Embedded,
    pub(crate) settings: settings::Courier,
    /// What topic names begin with.
    pub(crate) prefix: String,
    pub(crate) visitor_key: [u8; 32],
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) stop: Shutdown,
}

/// What couriers count, and whether they can.
#[derive(Clone)]
pub(crate) struct Metrics {
    couriers: courier::Metrics,
    failing: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn register(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let failing = IntGaugeVec::new(
            Opts::new(
                "sluice_courier_failing",
                "1 while a courier cannot ship and tries again; the log says why.",
            ),
            &["journal"],
        )?;
        registry.register(Box::new(failing.clone()))?;
        Ok(Self {
            couriers: courier::Metrics::register(registry)?,
            failing,
        })
    }
}

/// Starts them.
pub(crate) fn start(
    around: &Around,
    journals: &Path,
    cursors: &Path,
) -> Result<Vec<JoinHandle<Result<(), String>>>, String> {
    let because =
        |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    fs::create_dir_all(cursors).map_err(|error| because(cursors, &error))?;
    let mut threads = Vec::new();
    for entry in fs::read_dir(journals).map_err(|error| because(journals, &error))? {
        let folder = entry.map_err(|error| because(journals, &error))?.path();
        let name = folder.file_name().and_then(|name| name.to_str());
        let journal: u16 = name
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| because(&folder, &"not a journal folder: move it elsewhere"))?;
        // A worker that is gone left its last records in its ring; where one lives, its lock is held.
        journal::seal(&folder).map_err(|error| error.to_string())?;
        let cursor = cursors.join(format!("{journal}.cursor"));
        // Opened once here, so that what will never work is said at the start.
        drop(open(around, &folder, &cursor, journal).map_err(|error| error.to_string())?);
        let around = around.clone();
        let thread = std::thread::Builder::new()
            .name(format!("courier-{journal}"))
            .spawn(move || run(&around, &folder, &cursor, journal));
        threads.push(thread.map_err(|error| error.to_string())?);
    }
    Ok(threads)
}

fn open(
    around: &Around,
    folder: &Path,
    cursor: &Path,
    journal: u16,
) -> Result<Courier, courier::Error> {
    let options = Options {
        journal,
        topic_prefix: around.prefix.clone(),
        retain_acked: Duration::from_secs(around.settings.retain_acked_s),
        ..Options::default()
    };
    let enrich = Enrich {
        visitor_key: around.visitor_key,
        truncate: around.settings.truncated_address,
    };
    Courier::open(folder, cursor, enrich, options, &around.metrics.couriers)
}

/// Ships until the stop. A courier that cannot (a full disk) stands still and tries again: the journal keeps what waits.
fn run(around: &Around, folder: &Path, cursor: &Path, journal: u16) -> Result<(), String> {
    let name = format!("courier-{journal}");
    let failing = around
        .metrics
        .failing
        .with_label_values(&[&journal.to_string()]);
    let mut pause = RETRY_PAUSE;
    loop {
        let done = open(around, folder, cursor, journal).and_then(|mut courier| {
            courier.run(
                &mut || Ok(around.stream.sender()),
                &around.clock,
                &|| around.stop.requested(),
                &mut |_| {
                    failing.set(0);
                    around.health.beat(&name);
                },
            )
        });
        let Err(error) = done else {
            around.health.ended(&name);
            return Ok(());
        };
        failing.set(1);
        tracing::error!(journal, %error, "courier stands still and tries again, nothing is lost");
        if around.stop.wait_timeout(pause) {
            around.health.ended(&name);
            return Err(format!("{name}: {error}"));
        }
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
        around.health.beat(&name);
    }
}
