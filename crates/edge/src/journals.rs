//! The workers' journals: each opened in a folder that is free, all synced by one thread, and their state as metrics.
//!
//! A folder is not a worker's for ever. A process that takes over from a running one finds its predecessor's folders in use
//! and takes others, and so does a worker whose clock was set back. Couriers drain every folder there is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use journal::{Gauges, Options, StreamId, Syncer, Writer};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntGaugeVec, Opts};
use tokio::sync::watch;

/// How long a courier may take to seal a journal: a ring of the largest size, read and written once.
const SEALING_MAX: Duration = Duration::from_secs(30);
/// Far more than workers of two processes at once; a folder's number is a `u16` where it is told.
const FOLDERS_MAX: usize = 4096;

/// Opens journals, and holds what all of them need.
pub(crate) struct Journals {
    folder: PathBuf,
    ring_bytes: u64,
    folder_bytes_max: u64,
    /// Folders in use are a predecessor's, who goes on for a while: nobody waits for them.
    is_beside_predecessor: bool,
    syncer: Syncer,
    gauges: Arc<Mutex<BTreeMap<usize, Gauges>>>,
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
            ring_bytes: settings.ring_bytes,
            folder_bytes_max: settings.journal_bytes_max,
            is_beside_predecessor,
            syncer: Syncer::start(Duration::from_millis(settings.sync_ms)),
            gauges: Arc::default(),
        }
    }

    /// Opens the free folder of the lowest number: a new stream. It takes the place of the journal `before`, which its
    /// worker lets go.
    pub(crate) fn open(&self, before: Option<usize>) -> Result<Opened, journal::Error> {
        let mut number = 0;
        let until = Instant::now() + SEALING_MAX;
        loop {
            let stream = StreamId::random();
            let options = Options {
                ring_bytes: self.ring_bytes,
                folder_bytes_max: self.folder_bytes_max,
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
            });
            return Ok(Opened {
                number,
                writer,
                synced,
            });
        }
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
    poisoned: IntGaugeVec,
    bytes: IntGaugeVec,
    bytes_max: IntGaugeVec,
}

impl Collected {
    fn new(of: Arc<Mutex<BTreeMap<usize, Gauges>>>) -> Result<Self, prometheus::Error> {
        let label = &["journal"];
        Ok(Self {
            of,
            unsynced_seconds: GaugeVec::new(
                Opts::new(
                    "sluice_journal_unsynced_seconds",
                    "Age of the oldest record that a power cut would take; 0 when there is none.",
                ),
                label,
            )?,
            poisoned: IntGaugeVec::new(
                Opts::new(
                    "sluice_journal_poisoned",
                    "1 when the log could not be written twice in a row: nothing is recorded until a restart.",
                ),
                label,
            )?,
            bytes: IntGaugeVec::new(
                Opts::new(
                    "sluice_journal_bytes",
                    "Bytes of the journal's log files together.",
                ),
                label,
            )?,
            bytes_max: IntGaugeVec::new(
                Opts::new(
                    "sluice_journal_bytes_max",
                    "The bytes at which the journal takes no more records.",
                ),
                label,
            )?,
        })
    }

    fn families(&self) -> [&dyn Collector; 4] {
        [
            &self.unsynced_seconds,
            &self.poisoned,
            &self.bytes,
            &self.bytes_max,
        ]
    }
}

impl Collector for Collected {
    fn desc(&self) -> Vec<&Desc> {
        let families = self.families();
        families.into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let of = lock(&self.of);
        for family in [&self.poisoned, &self.bytes, &self.bytes_max] {
            family.reset();
        }
        self.unsynced_seconds.reset();
        for (number, gauges) in of.iter() {
            let journal = [number.to_string()];
            let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            self.unsynced_seconds
                .with_label_values(&journal)
                .set(gauges.unsynced().as_secs_f64());
            self.poisoned
                .with_label_values(&journal)
                .set(gauges.poisoned().into());
            self.bytes
                .with_label_values(&journal)
                .set(whole(gauges.folder_bytes()));
            self.bytes_max
                .with_label_values(&journal)
                .set(whole(gauges.folder_bytes_max()));
        }
        let families = self.families();
        families.into_iter().flat_map(Collector::collect).collect()
    }
}
