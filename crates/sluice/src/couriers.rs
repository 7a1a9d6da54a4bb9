//! The couriers' threads: one a journal folder, also of workers that no longer exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use courier::{Courier, Enrich, Options};
use prometheus::{IntGaugeVec, Opts};
use service::{Clock, Health, Shutdown};
use stream::Stream;

use crate::settings;

/// The pause after a failure; doubles up to the maximum.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often new journal folders and dead workers are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What every courier thread needs.
#[derive(Clone)]
pub(crate) struct Around {
    pub(crate) stream: Stream,
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

/// Starts the thread that looks for journal folders and has a courier for each, until the stop; then it ends with the last
/// of them. A folder of a dead edge is sealed first, so that its ring is shipped too.
pub(crate) fn start(
    around: Around,
    journals: &Path,
    cursors: &Path,
) -> Result<JoinHandle<Result<(), String>>, String> {
    for folder in [journals, cursors] {
        fs::create_dir_all(folder).map_err(|error| because(folder, &error))?;
    }
    // What is there is opened once here, so that what will never work is said at the start.
    for (journal, folder) in folders(journals)? {
        let cursor = cursors.join(format!("{journal}.cursor"));
        drop(open(&around, &folder, &cursor, journal).map_err(|error| error.to_string())?);
    }
    let (journals, cursors) = (journals.to_path_buf(), cursors.to_path_buf());
    std::thread::Builder::new()
        .name("couriers".into())
        .spawn(move || supervise(&around, &journals, &cursors))
        .map_err(|error| error.to_string())
}

fn supervise(around: &Around, journals: &Path, cursors: &Path) -> Result<(), String> {
    let mut threads = BTreeMap::new();
    let mut told = None;
    loop {
        // Asked before the last look, so that what a stopped edge left is seen.
        let last = around.stop.requested();
        match folders(journals) {
            Ok(found) => {
                for (journal, folder) in found {
                    // A worker that is gone left its last records in its ring; where one lives, its lock is held.
                    if folder.join("ring").exists() {
                        seal(journal, &folder);
                    }
                    threads.entry(journal).or_insert_with(|| {
                        let around = around.clone();
                        let cursor = cursors.join(format!("{journal}.cursor"));
                        std::thread::Builder::new()
                            .name(format!("courier-{journal}"))
                            .spawn(move || run(&around, &folder, &cursor, journal))
                            .expect("the system gives a thread a journal")
                    });
                }
                told = None;
            }
            Err(error) => {
                if told.as_ref() != Some(&error) {
                    tracing::error!(error, "journals cannot be looked for");
                }
                told = Some(error);
            }
        }
        if last {
            break;
        }
        around.stop.wait_timeout(LOOK_EVERY);
    }
    let ended = threads.into_values().map(|thread| {
        thread
            .join()
            .unwrap_or_else(|_| Err("a courier panicked".to_owned()))
    });
    let failures: Vec<String> = ended.filter_map(Result::err).collect();
    if failures.is_empty() {
        return Ok(());
    }
    Err(failures.join("; "))
}

fn seal(journal: u16, folder: &Path) {
    match journal::seal(folder) {
        Ok(None) => {}
        Ok(Some(found)) if found.corrupt_bytes > 0 => tracing::error!(
            journal,
            bytes = found.corrupt_bytes,
            files = found.quarantined_files,
            "the journal of a dead worker was damaged, what could not be read is in its quarantine files"
        ),
        Ok(Some(found)) => {
            tracing::info!(
                journal,
                recovered = found.records,
                "journal of a dead worker sealed"
            );
        }
        Err(error) => tracing::error!(journal, %error, "journal of a dead worker not sealed yet"),
    }
}

/// The journals' numbers and folders.
fn folders(journals: &Path) -> Result<Vec<(u16, PathBuf)>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(journals).map_err(|error| because(journals, &error))? {
        let folder = entry.map_err(|error| because(journals, &error))?.path();
        let name = folder.file_name().and_then(|name| name.to_str());
        let journal = name
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| because(&folder, &"not a journal folder: move it elsewhere"))?;
        found.push((journal, folder));
    }
    Ok(found)
}

fn because(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
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
                &mut || around.stream.sender(),
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
