//! The couriers' threads: one a journal folder and topic, also of workers that no longer exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use courier::{Courier, Enrich, Options, Places, TOPICS};
use domain::Topic;
use prometheus::{IntGauge, IntGaugeVec, Opts};
use service::{Clock, Health, Shutdown};
use stream::{Sender, Stream};

use crate::settings;
use crate::waiting::Waiting;

/// The pause after a failure; doubles up to the maximum.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often new journal folders and dead workers are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often files are looked for that are acknowledged and old.
const DELETE_EVERY: Duration = Duration::from_secs(60);

/// What every courier thread needs.
#[derive(Clone)]
pub(crate) struct Around {
    pub(crate) stream: Stream,
    pub(crate) settings: settings::Courier,
    /// What topic names begin with.
    pub(crate) prefix: String,
    /// Of every topic.
    pub(crate) partitions: u16,
    pub(crate) visitor_key: [u8; 32],
    /// The folder of the catalog's versions.
    pub(crate) catalog: PathBuf,
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
            &["journal", "topic"],
        )?;
        registry.register(Box::new(failing.clone()))?;
        Ok(Self {
            couriers: courier::Metrics::register(registry)?,
            failing,
        })
    }
}

/// One courier's work.
#[derive(Clone, Debug)]
struct Task {
    journal: u16,
    topic: Topic,
    places: Places,
}

impl Task {
    fn name(&self) -> String {
        format!("courier-{}-{}", self.journal, self.topic.name())
    }
}

/// The folders of the data folder that couriers use.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    journals: PathBuf,
    cursors: PathBuf,
    dead_letters: PathBuf,
}

impl Folders {
    pub(crate) fn of(data: &Path) -> Self {
        Self {
            journals: data.join("journal"),
            cursors: data.join("cursors"),
            dead_letters: data.join("dead-letters"),
        }
    }

    /// The tasks of a journal, in the order of [`TOPICS`].
    fn tasks(&self, journal: u16, folder: &Path) -> [Task; TOPICS.len()] {
        TOPICS.map(|topic| {
            let name = format!("{journal}.{}", topic.name());
            Task {
                journal,
                topic,
                places: Places {
                    journal: folder.to_owned(),
                    cursor: self.cursors.join(format!("{name}.cursor")),
                    dead_letters: self.dead_letters.join(&name),
                },
            }
        })
    }
}

/// Starts the thread that looks for journal folders and has a courier for each and each topic, until the stop; then it ends
/// with the last of them. A folder of a dead edge is sealed first, so that its ring is shipped too.
pub(crate) fn start(
    around: Around,
    folders: Folders,
) -> Result<JoinHandle<Result<(), String>>, String> {
    for folder in [&folders.journals, &folders.cursors, &folders.dead_letters] {
        fs::create_dir_all(folder).map_err(|error| because(folder, &error))?;
    }
    // What is there is opened once here, so that what will never work is said at the start.
    let mut strangers = BTreeSet::new();
    for (journal, folder) in journals(&folders.journals, &mut strangers)? {
        let tasks = folders.tasks(journal, &folder);
        for task in tasks {
            drop(open(&around, &task).map_err(|error| error.to_string())?);
        }
    }
    std::thread::Builder::new()
        .name("couriers".into())
        .spawn(move || supervise(&around, &folders, &mut strangers))
        .map_err(|error| error.to_string())
}

fn supervise(
    around: &Around,
    folders: &Folders,
    strangers: &mut BTreeSet<PathBuf>,
) -> Result<(), String> {
    let mut threads = BTreeMap::new();
    let mut told = None;
    let mut deleted = None;
    let mut unsealed = BTreeSet::new();
    loop {
        // Asked before the last look, so that what a stopped edge left is seen.
        let last = around.stop.requested();
        let delete = deleted.is_none_or(|at: Instant| at.elapsed() >= DELETE_EVERY);
        match journals(&folders.journals, strangers) {
            Ok(found) => {
                for (journal, folder) in found {
                    // A worker that is gone left its last records in its ring; where one lives, its lock is held.
                    if journal::is_unsealed(&folder) {
                        seal(journal, &folder, &mut unsealed);
                    }
                    let tasks = folders.tasks(journal, &folder);
                    let short = short_of_room(&folder);
                    if delete || short {
                        delete_acknowledged(around, &tasks, short);
                    }
                    for task in tasks {
                        threads
                            .entry((journal, task.topic as u8))
                            .or_insert_with(|| {
                                let around = around.clone();
                                std::thread::Builder::new()
                                    .name(task.name())
                                    .spawn(move || run(&around, &task))
                                    .expect("the system gives a thread a courier")
                            });
                    }
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
        if delete {
            deleted = Some(Instant::now());
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

/// Whether a journal has half of the bytes it may have: before its worker stops recording, files go that are kept only for
/// a while.
fn short_of_room(folder: &Path) -> bool {
    let Ok(Some(ledger)) = journal::ledger(folder) else {
        return false;
    };
    journal::folder_bytes(folder).is_ok_and(|bytes| bytes >= ledger.bytes_max / 2)
}

/// Deletes files that are old enough, or of any age where room is short. A failure only leaves them for the next time.
fn delete_acknowledged(around: &Around, tasks: &[Task; TOPICS.len()], short: bool) {
    let [
        Task {
            journal, places, ..
        },
        ..,
    ] = tasks;
    let cursors = tasks.each_ref().map(|task| task.places.cursor.clone());
    let retain = match short {
        true => Duration::ZERO,
        false => Duration::from_secs(around.settings.retain_acked_s),
    };
    match courier::delete_acknowledged(&places.journal, &cursors, retain, around.clock.now_ms()) {
        Ok(deleted) => {
            if deleted.files > 0 {
                let files = deleted.files;
                tracing::info!(journal, files, "acknowledged journal files deleted");
            }
            if deleted.quarantined > 0 {
                let files = deleted.quarantined;
                tracing::error!(
                    journal,
                    files,
                    "acknowledged journal files were damaged, what could not be read is in quarantine files"
                );
            }
            if deleted.held > 0 {
                let files = deleted.held;
                tracing::error!(
                    journal,
                    files,
                    "damaged journal files stay: move the journal's quarantine files elsewhere, there is no room for more"
                );
            }
        }
        Err(error) => tracing::warn!(journal, %error, "acknowledged journal files not deleted"),
    }
}

/// Keeps what a dead worker left in its ring. A failure is told when it begins: on a full disk there is one a second.
fn seal(journal: u16, folder: &Path, unsealed: &mut BTreeSet<u16>) {
    let sealed = journal::seal(folder);
    let is_told = match sealed {
        Ok(_) => unsealed.remove(&journal),
        Err(_) => !unsealed.insert(journal),
    };
    match sealed {
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
                power_cut = found.power_cut_records,
                "journal of a dead worker sealed"
            );
        }
        Err(_) if is_told => {}
        Err(error) => tracing::error!(journal, %error, "journal of a dead worker not sealed yet"),
    }
}

/// The journals' numbers and folders. Whatever else lies there is not ours (`lost+found` of a volume of its own, an editor's
/// backup): it is passed over, and told once.
fn journals(
    folder: &Path,
    strangers: &mut BTreeSet<PathBuf>,
) -> Result<Vec<(u16, PathBuf)>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| because(folder, &error))? {
        let path = entry.map_err(|error| because(folder, &error))?.path();
        match number(&path).filter(|_| path.is_dir()) {
            Some(journal) => found.push((journal, path)),
            None if strangers.contains(&path) => {}
            None => {
                tracing::warn!(path = %path.display(), "not a journal's folder, passed over");
                strangers.insert(path);
            }
        }
    }
    Ok(found)
}

/// The number of a journal's folder, where its name is one as an edge writes it.
fn number(folder: &Path) -> Option<u16> {
    let name = folder.file_name()?.to_str()?;
    name.parse()
        .ok()
        .filter(|number: &u16| number.to_string() == name)
}

fn because(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

/// How records are enriched with the last good catalog, where there is one.
pub(crate) fn enrich(visitor_key: [u8; 32], truncate: bool, catalog: &Path) -> Enrich {
    let current = crate::commands::last_good(catalog).ok().flatten();
    Enrich {
        visitor_key,
        truncate,
        zone: current
            .as_ref()
            .and_then(|current| current.network.zone().ok()),
        catalog_lock: current.map_or(0, |current| current.lock()),
    }
}

fn open(around: &Around, task: &Task) -> Result<Courier, courier::Error> {
    let options = Options {
        journal: task.journal,
        topic: task.topic,
        topic_prefix: around.prefix.clone(),
        partitions: around.partitions,
        ..Options::default()
    };
    let truncate = around.settings.truncated_address;
    let enrich = enrich(around.visitor_key, truncate, &around.catalog);
    let metrics = &around.metrics.couriers;
    Courier::open(&task.places, enrich, options, metrics)
}

/// A sender, where the cluster is there and its topics are as they should be.
fn sender(
    around: &Around,
    name: &str,
    failing: &IntGauge,
    waiting: &mut Waiting,
) -> Result<Box<dyn Sender>, stream::Error> {
    around.health.beat(name);
    let made = around.stream.sender();
    match &made {
        Ok(_) => _ = waiting.ended(name),
        Err(error) => {
            failing.set(1);
            waiting.because(name, error);
        }
    }
    made
}

/// Ships until the stop. A courier that cannot (a full disk) stands still and tries again: the journal keeps what waits.
fn run(around: &Around, task: &Task) -> Result<(), String> {
    let name = task.name();
    let failing = around
        .metrics
        .failing
        .with_label_values(&[task.journal.to_string().as_str(), task.topic.name()]);
    let mut pause = RETRY_PAUSE;
    let mut waiting = Waiting::default();
    loop {
        let done = open(around, task).and_then(|mut courier| {
            courier.run(
                &mut || sender(around, &name, &failing, &mut waiting),
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
        tracing::error!(courier = name, %error, "courier stands still and tries again, nothing is lost");
        if around.stop.wait_timeout(pause) {
            around.health.ended(&name);
            return Err(format!("{name}: {error}"));
        }
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
        around.health.beat(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volumes_lost_and_found_and_other_strangers_stopped_every_courier() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["0", "12", "lost+found", "+3", "007", "70000"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("4"), "a file").unwrap();
        let mut strangers = BTreeSet::new();
        let mut found = journals(folder.path(), &mut strangers).unwrap();
        found.sort();
        let numbers: Vec<u16> = found.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 12]);
        assert_eq!(strangers.len(), 5);
        journals(folder.path(), &mut strangers).unwrap();
        assert_eq!(strangers.len(), 5, "each is told once");
    }
}
