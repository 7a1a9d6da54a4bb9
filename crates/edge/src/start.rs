//! Starting the edge: journals opened, workers on their threads, the catalog followed.

use std::cell::RefCell;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use domain::Keyring;
use journal::{Options, StreamId, Syncer};
use service::{Clock, Health, Shutdown};
use tokio::runtime::LocalOptions;
use tokio::sync::watch;

use crate::classify::Classifier;
use crate::connection::Connections;
use crate::journals::Journals;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::recorder::Recorder;
use crate::secrets::{self, Secrets};
use crate::settings::Settings;
use crate::tls;
use crate::unmatched::Unmatched;
use crate::worker::Worker;

/// How often a newer catalog is looked for.
const CATALOG_POLL: Duration = Duration::from_millis(200);

/// How long a courier may take to seal a journal: a ring of the largest size, read and written once.
const SEALING_MAX: Duration = Duration::from_secs(30);

/// How long a start waits for the advertisers' secrets; afterwards their postbacks are asked to come again.
const SECRETS_MAX: Duration = Duration::from_secs(2);

/// What the edge is given.
pub struct Parts {
    /// The bound, non-blocking listener. Workers share it: none of its queue is lost when one ends.
    pub listener: TcpListener,
    /// Folder of the journals, one folder a worker.
    pub journals: PathBuf,
    /// Folder of the catalog's snapshots.
    pub catalog: PathBuf,
    /// The token keys, as the key file's text.
    pub keys: String,
    /// Seed of shards.
    pub seed: u64,
    /// Serve the listener's own address as the first domain, over plain HTTP.
    pub serve_own_address: bool,
    /// Time.
    pub clock: Clock,
    /// Where metrics are registered.
    pub metrics: service::Metrics,
    /// Where readiness and heartbeats are told.
    pub health: Health,
    /// When to stop.
    pub shutdown: Shutdown,
}

/// Why the edge does not start; the text says what to do.
#[derive(Debug)]
pub struct StartError(String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

fn because(what: &str) -> impl Fn(&dyn std::fmt::Display) -> StartError + '_ {
    move |error| StartError(format!("{what}: {error}"))
}

/// A running edge.
pub struct Edge {
    workers: Vec<JoinHandle<()>>,
    catalog: JoinHandle<()>,
    syncer: Syncer,
    folders: Vec<PathBuf>,
}

impl Edge {
    /// Opens the journals and starts the workers.
    pub fn start(settings: Settings, parts: Parts) -> Result<Self, StartError> {
        settings.check().map_err(StartError)?;
        let mut catalogs =
            catalog::Folder::open(&parts.catalog).map_err(|error| because("catalog")(&error))?;
        let current = catalogs
            .start()
            .map_err(|error| because("catalog")(&error))?;
        let catalog::Start {
            catalog: current,
            refused,
        } = current.ok_or_else(|| {
            StartError(format!(
                "{}: no catalog has been applied yet: run sluice catalog apply, or start the courier where the catalog is published",
                parts.catalog.display()
            ))
        })?;
        let live = Arc::new(ArcSwap::from_pointee(Live::new(Arc::clone(&current))));
        let secrets = Arc::new(ArcSwap::from_pointee(Secrets::default()));
        let metrics =
            Metrics::new(parts.metrics.registry()).map_err(|error| because("metrics")(&error))?;
        if let Some(error) = refused {
            metrics.catalog_refused.set(1);
            tracing::error!(version = current.version, %error, "the catalog cannot be used, the last good version is in force");
        }
        let address = parts
            .listener
            .local_addr()
            .map_err(|error| because("edge")(&error))?;
        let local_hosts = if parts.serve_own_address {
            vec![address.to_string(), format!("localhost:{}", address.port())]
        } else {
            Vec::new()
        };
        let count = match settings.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            count => count,
        };

        let tls = settings.tls.as_ref().map(tls::load).transpose();
        let tls = tls.map_err(|error| because("edge.tls")(&error))?;
        let settings = Arc::new(settings);
        let local_hosts = Arc::new(local_hosts);
        let (mut flushers, mut synced, mut seeds, mut folders) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for index in 0..count {
            let folder = parts.journals.join(index.to_string());
            let stream = StreamId::random();
            let options = Options {
                ring_bytes: settings.ring_bytes,
                folder_bytes_max: settings.journal_bytes_max,
                ..Options::new(stream)
            };
            let (writer, flusher, recovered) =
                open(&folder, options).map_err(|error| because("journal")(&error))?;
            tracing::info!(journal = index, %stream, recovered = recovered.records, "journal opened");
            if recovered.power_cut_records > 0 {
                tracing::warn!(
                    journal = index,
                    records = recovered.power_cut_records,
                    "a power cut took records that were not synced"
                );
            }
            if recovered.corrupt_bytes > 0 {
                tracing::error!(
                    journal = index,
                    bytes = recovered.corrupt_bytes,
                    files = recovered.quarantined_files,
                    "the journal was damaged, what could not be read is in its quarantine files"
                );
            }
            let keyring =
                Keyring::parse(&parts.keys).map_err(|error| because("token keys")(&error))?;
            let (sender, receiver) = watch::channel(0);
            flushers.push(flusher);
            synced.push(sender);
            seeds.push((writer, keyring, receiver));
            folders.push(folder);
        }
        let gauges = flushers.iter().map(journal::Flusher::gauges).collect();
        let journals = Journals::new(gauges).map_err(|error| because("metrics")(&error))?;
        let registered = parts.metrics.registry().register(Box::new(journals));
        registered.map_err(|error| because("metrics")(&error))?;
        let syncer = Syncer::start(
            flushers,
            Duration::from_millis(settings.sync_ms),
            move |index, sequence| {
                synced[index].send_replace(sequence);
            },
        );

        {
            let (live, secrets, metrics) =
                (Arc::clone(&live), Arc::clone(&secrets), metrics.clone());
            let (shutdown, name) = (parts.shutdown.clone(), "edge-secrets".to_owned());
            let (looked, first_look) = mpsc::sync_channel(1);
            let watch = move || {
                let failing = &metrics.secrets_failing;
                // Only the first look is waited for.
                secrets::watch(&live, &secrets, failing, &shutdown, || {
                    _ = looked.try_send(());
                });
            };
            // Nobody joins it: a file on a mount that hangs would hold up the end.
            let thread = std::thread::Builder::new().name(name).spawn(watch);
            thread.map_err(|error| because("edge")(&error))?;
            let _ = first_look.recv_timeout(SECRETS_MAX);
        }

        let mut workers = Vec::new();
        for (index, (writer, keyring, synced)) in seeds.into_iter().enumerate() {
            let listener = parts
                .listener
                .try_clone()
                .map_err(|error| because("edge")(&error))?;
            let (lock, clock) = (current.lock(), parts.clock.clone());
            let recorder = Recorder::new(writer, keyring, parts.seed, lock, clock);
            let (settings, live, metrics) =
                (Arc::clone(&settings), Arc::clone(&live), metrics.clone());
            let secrets = Arc::clone(&secrets);
            let (local_hosts, shutdown, health) = (
                Arc::clone(&local_hosts),
                parts.shutdown.clone(),
                parts.health.clone(),
            );
            let name = format!("edge-{index}");
            let thread = std::thread::Builder::new().name(name.clone());
            let tls = tls.clone();
            let worker = move || {
                let connections =
                    Connections::new(settings.connections_max, settings.head_timeout_s);
                let worker = Rc::new(Worker {
                    settings,
                    live,
                    secrets,
                    recorder: RefCell::new(recorder),
                    unmatched: RefCell::new(Unmatched::default()),
                    metrics,
                    classifier: RefCell::new(Classifier::new()),
                    local_hosts,
                    synced,
                    tls,
                    connections,
                    scratch: RefCell::default(),
                });
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default())
                    .expect("epoll is there");
                runtime.block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener)
                        .expect("the listener does not block");
                    let beat = |ready| {
                        health.beat(&name);
                        health.set_ready(&name, ready);
                    };
                    worker.run(listener, shutdown, beat).await;
                });
                health.ended(&name);
            };
            workers.push(
                thread
                    .spawn(worker)
                    .map_err(|error| because("edge")(&error))?,
            );
        }
        parts.health.set_ready("edge", Ok(()));

        let (shutdown, health) = (parts.shutdown, parts.health);
        metrics.catalog_version.set(current.version.into());
        let catalog = std::thread::Builder::new()
            .name("edge-catalog".into())
            .spawn(move || {
                verify(&catalogs, &current, &live, &metrics, &health);
                follow(&mut catalogs, &live, &metrics, &health, &shutdown);
                health.set_ready("edge", Err("draining".into()));
            });
        let catalog = catalog.map_err(|error| because("edge")(&error))?;
        Ok(Self {
            workers,
            catalog,
            syncer,
            folders,
        })
    }

    /// The workers' journal folders.
    pub fn journals(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Waits for the workers to drain and the last records to be synced.
    pub fn join(self) -> Result<(), StartError> {
        for thread in self.workers.into_iter().chain([self.catalog]) {
            thread
                .join()
                .map_err(|_| StartError("an edge thread panicked".into()))?;
        }
        self.syncer
            .stop()
            .map_err(|error| because("journal")(&error))
    }
}

/// Opens a journal. A courier may hold its folder for a moment, to save what a dead worker left in the ring.
fn open(
    folder: &Path,
    options: Options,
) -> Result<(journal::Writer, journal::Flusher, journal::Recovered), journal::Error> {
    let until = Instant::now() + SEALING_MAX;
    loop {
        match journal::open(folder, options) {
            Err(error) if error.is_in_use() && Instant::now() < until => {
                std::thread::park_timeout(Duration::from_millis(50));
            }
            done => return done,
        }
    }
}

/// Checks what the start did not wait for, and so reads all of it into memory before visitors need it. Where it is damaged,
/// the last version that is whole is put in force instead.
fn verify(
    catalogs: &catalog::Folder,
    current: &catalog::Catalog,
    live: &ArcSwap<Live>,
    metrics: &Metrics,
    health: &Health,
) {
    let Err(error) = current.verify() else {
        return;
    };
    let version = current.version;
    metrics.catalog_damaged.set(1);
    match catalogs.whole_before(version) {
        Some(whole) => {
            let instead = whole.version;
            tracing::error!(version, instead, %error, "the catalog is damaged, an earlier version is in force");
            live.store(Arc::new(Live::new(whole)));
            metrics.catalog_version.set(instead.into());
        }
        None => {
            health.set_ready("catalog", Err(format!("version {version}: {error}")));
            tracing::error!(version, %error, "the catalog in force is damaged and no earlier one is whole, clicks may go astray");
        }
    }
}

/// Puts newer catalog versions in force until the shutdown. What cannot be put in force is tried again at every look and
/// told once.
fn follow(
    catalogs: &mut catalog::Folder,
    live: &ArcSwap<Live>,
    metrics: &Metrics,
    health: &Health,
    shutdown: &Shutdown,
) {
    let mut told = None;
    while !shutdown.wait_timeout(CATALOG_POLL) {
        let failure = match catalogs.changed() {
            Ok(Some(newer)) => {
                let version = newer.version;
                live.store(Arc::new(Live::new(newer)));
                tracing::info!(version, "catalog in force");
                metrics.catalog_version.set(version.into());
                metrics.catalog_damaged.set(0);
                metrics.catalog_refused.set(0);
                health.set_ready("catalog", Ok(()));
                None
            }
            Ok(None) => None,
            Err(error) => {
                metrics.catalog_refused.set(1);
                Some(error.to_string())
            }
        };
        if failure != told
            && let Some(error) = &failure
        {
            tracing::error!(%error, "newer catalog refused, the old one goes on");
        }
        told = failure;
    }
}
