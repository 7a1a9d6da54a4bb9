//! The workers' journals: each opened in a folder that is free, each synced by a thread of its own, and their state as metrics.
//!
//! A folder is not a worker's for ever. A process that takes over from a running one finds its predecessor's folders in use
//! and takes others, and so does a worker whose clock was set back. Couriers drain every folder there is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use journal::{Gauges, Options, StreamId, Syncer, Writer};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntGaugeVec, Opts};
use rustix::fs::statvfs;
use tokio::sync::{oneshot, watch};

/// How long a courier may take to seal a journal: a ring of the largest size, read and written once.
const SEALING_MAX: Duration = Duration::from_secs(30);
/// Far more than workers of two processes at once; a folder's number is a `u16` where it is told.
const FOLDERS_MAX: usize = 4096;
/// Below it nothing is gained by another worker's ring: the worker that finds no room starts closed.
const RING_BYTES_LEAST: u64 = 4 << 20;

/// Opens journals, and holds what all of them need.
pub(crate) struct Journals {
    folder: PathBuf,
    settings: crate::Settings,
    /// Folders in use are a predecessor's, who goes on for a while: nobody waits for them.
    is_beside_predecessor: bool,
    syncer: Syncer,
    gauges: Arc<Mutex<BTreeMap<usize, Gauges>>>,
}

/// A journal that is being opened on a thread that may wait for the disk; closed where the system gives no thread.
pub(crate) type Opening = oneshot::Receiver<Result<Opened, journal::Error>>;

/// When a journal that could not be opened is tried again: after 1, 2, 4 … 60 seconds.
#[derive(Default)]
pub(crate) struct Again {
    failures: u32,
    due: Option<Instant>,
}

impl Again {
    const PAUSE_MAX: Duration = Duration::from_secs(60);

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| now >= due)
    }

    /// How long it is left alone now.
    pub(crate) fn failed(&mut self, now: Instant) -> Duration {
        let pause = Duration::from_secs(1) * 2_u32.saturating_pow(self.failures);
        let pause = pause.min(Self::PAUSE_MAX);
        self.failures += 1;
        self.due = Some(now + pause);
        pause
    }
}

/// A journal that was opened for a worker.
pub(crate) struct Opened {
    /// Its folder's name.
    pub(crate) number: usize,
    pub(crate) writer: Writer,
    /// The last sequence that would survive a power cut.
    pub(crate) synced: watch::Receiver<u64>,
}

impl Journals {
    pub(crate) fn new(
        folder: PathBuf,
        settings: &crate::Settings,
        is_beside_predecessor: bool,
    ) -> Self {
        Self {
            folder,
            settings: settings.clone(),
            is_beside_predecessor,
            syncer: Syncer::new(Duration::from_millis(settings.sync_ms)),
            gauges: Arc::default(),
        }
    }

    /// Opens the free folder of the lowest number: a new stream. It takes the place of the journal `before`, which its
    /// worker lets go.
    pub(crate) fn open(&self, before: Option<usize>) -> Result<Opened, journal::Error> {
        let ring_folder = self.settings.ring_folder();
        let ring_bytes = self.ring_bytes(ring_folder.as_deref());
        let mut number = 0;
        let until = Instant::now() + SEALING_MAX;
        loop {
            let stream = StreamId::random();
            let options = Options {
                ring_bytes,
                ring_folder: ring_folder.clone(),
                folder_bytes_max: self.settings.journal_bytes_max,
                ..Options::new(stream)
            };
            if lock(&self.gauges).contains_key(&number) {
                number += 1;
                continue;
            }
            let folder = self.folder.join(number.to_string());
            let (writer, flusher, recovered) = match journal::open(&folder, options) {
                Err(error) if error.is_in_use() && number < FOLDERS_MAX => {
                    let is_ours = error.holder() == Some(std::process::id());
                    if is_ours || self.is_beside_predecessor || Instant::now() >= until {
                        number += 1;
                    } else {
                        // A courier holds it for a moment, to save what a dead worker left in the ring.
                        std::thread::park_timeout(Duration::from_millis(50));
                    }
                    continue;
                }
                opened => opened?,
            };
            tracing::info!(journal = number, %stream, recovered = recovered.records, "journal opened");
            if recovered.power_cut_records > 0 {
                tracing::warn!(
                    journal = number,
                    records = recovered.power_cut_records,
                    "a power cut took records that were not synced"
                );
            }
            if recovered.corrupt_bytes > 0 {
                tracing::error!(
                    journal = number,
                    bytes = recovered.corrupt_bytes,
                    files = recovered.quarantined_files,
                    "the journal was damaged, what could not be read is in its quarantine files"
                );
            }
            {
                let mut gauges = lock(&self.gauges);
                if let Some(before) = before {
                    gauges.remove(&before);
                }
                gauges.insert(number, flusher.gauges());
            }
            let (sender, synced) = watch::channel(0);
            self.syncer.add(flusher, move |sequence| {
                sender.send_replace(sequence);
            })?;
            return Ok(Opened {
                number,
                writer,
                synced,
            });
        }
    }

    /// Opens a journal on a thread of its own, as [`Self::open`].
    pub(crate) fn open_aside(self: &Arc<Self>, before: Option<usize>) -> Opening {
        let (sender, opening) = oneshot::channel();
        let journals = Arc::clone(self);
        let open = move || _ = sender.send(journals.open(before));
        // Without a thread the channel is closed.
        let _ = std::thread::Builder::new()
            .name("edge-journal".into())
            .spawn(open);
        opening
    }

    /// What was asked for, or less, so that all workers' rings fit into the memory file system.
    fn ring_bytes(&self, ring_folder: Option<&Path>) -> u64 {
        let asked = self.settings.ring_bytes();
        let memory = Path::new(journal::RINGS_IN);
        let mut looked = ring_folder.unwrap_or(memory).ancestors();
        let Some(found) = looked.find_map(|folder| statvfs(folder).ok()) else {
            return asked;
        };
        let all = found.f_blocks.saturating_mul(found.f_frsize);
        let share = all / self.settings.workers().max(1) as u64;
        // A page goes before the data.
        let fits = share.saturating_sub(4096).max(1);
        asked.min((1 << fits.ilog2()).max(RING_BYTES_LEAST))
    }

    /// The open journals' state.
    pub(crate) fn collector(&self) -> Result<Collected, prometheus::Error> {
        Collected::new(Arc::clone(&self.gauges))
    }

    /// Syncs every journal a last time.
    pub(crate) fn stop(self) -> Result<(), journal::Error> {
        self.syncer.stop()
    }
}

fn lock(gauges: &Mutex<BTreeMap<usize, Gauges>>) -> MutexGuard<'_, BTreeMap<usize, Gauges>> {
    gauges.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The journals of all workers as metrics, found out when they are scraped, each labelled with its number.
pub(crate) struct Collected {
    of: Arc<Mutex<BTreeMap<usize, Gauges>>>,
    unsynced_seconds: GaugeVec,
    /// Of whole numbers.
    families: Vec<(IntGaugeVec, Value)>,
}

/// What a family shows of a journal.
type Value = fn(&Gauges) -> u64;

/// Names, helps and values.
const FAMILIES: [(&str, &str, Value); 5] = [
    (
        "sluice_journal_poisoned",
        "1 while the log could not be written twice in a row: nothing is recorded until a new file can be written.",
        |gauges| gauges.poisoned().into(),
    ),
    (
        "sluice_journal_bytes",
        "Bytes of the journal's log files together.",
        Gauges::folder_bytes,
    ),
    (
        "sluice_journal_bytes_max",
        "The bytes at which the journal takes no more records.",
        Gauges::folder_bytes_max,
    ),
    (
        "sluice_journal_ring_bytes",
        "Size of the ring: less than edge.ring_bytes where its memory file system had too little room.",
        Gauges::ring_bytes,
    ),
    (
        "sluice_journal_ring_locked",
        "1 where the ring is locked in memory; 0 where the limit of locked memory is too low, and it may be swapped out.",
        |gauges| gauges.is_locked().into(),
    ),
];

impl Collected {
    fn new(of: Arc<Mutex<BTreeMap<usize, Gauges>>>) -> Result<Self, prometheus::Error> {
        let label = &["journal"];
        let mut families = Vec::new();
        for (name, help, value) in FAMILIES {
            families.push((IntGaugeVec::new(Opts::new(name, help), label)?, value));
        }
        Ok(Self {
            of,
            unsynced_seconds: GaugeVec::new(
                Opts::new(
                    "sluice_journal_unsynced_seconds",
                    "Age of the oldest record that a power cut would take; 0 when there is none.",
                ),
                label,
            )?,
            families,
        })
    }

    fn collectors(&self) -> impl Iterator<Item = &dyn Collector> {
        let families = self.families.iter();
        let families = families.map(|(family, _)| -> &dyn Collector { family });
        families.chain([&self.unsynced_seconds as &dyn Collector])
    }
}

impl Collector for Collected {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let of = lock(&self.of);
        self.families.iter().for_each(|(family, _)| family.reset());
        self.unsynced_seconds.reset();
        for (number, gauges) in of.iter() {
            let journal = [number.to_string()];
            self.unsynced_seconds
                .with_label_values(&journal)
                .set(gauges.unsynced().as_secs_f64());
            for (family, value) in &self.families {
                let value = i64::try_from(value(gauges)).unwrap_or(i64::MAX);
                family.with_label_values(&journal).set(value);
            }
        }
        self.collectors().flat_map(Collector::collect).collect()
    }
}
