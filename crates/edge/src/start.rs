//! Starting the edge: journals opened, workers on their threads, the catalog followed.

use std::cell::RefCell;
use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use domain::Keyring;
use service::{Clock, Health, Shutdown};
use tokio::runtime::LocalOptions;
use tokio::sync::oneshot::error::TryRecvError;

use crate::classify::Classifier;
use crate::connection::Connections;
use crate::journals::{Journals, Opened, Opening};
use crate::live::Live;
use crate::local_hosts::LocalHosts;
use crate::metrics::Metrics;
use crate::recorder::Recorder;
use crate::secrets::{self, Secrets};
use crate::settings::Settings;
use crate::tls::{self, Tls};
use crate::unmatched::Unmatched;
use crate::worker::Worker;

/// How often a newer catalog is looked for.
const CATALOG_POLL: Duration = Duration::from_millis(200);

/// How long a start waits for the advertisers' secrets; afterwards their postbacks are asked to come again.
const SECRETS_MAX: Duration = Duration::from_secs(2);

/// How long a start waits for the workers' journals: a ring of the usual size is saved and synced in less. A worker whose
/// journal takes longer starts without it.
const JOURNALS_MAX: Duration = Duration::from_secs(5);

/// What the edge is given.
pub struct Parts {
    /// The bound, non-blocking listener. Workers share it: none of its queue is lost when one ends.
    pub listener: TcpListener,
    /// Folder of the journals, one folder each.
    pub journals: PathBuf,
    /// Whether another edge goes on in this folder for a while: its journals are left to it.
    pub is_beside_predecessor: bool,
    /// Folder of the catalog's snapshots.
    pub catalog: PathBuf,
    /// The token keys, as the key file's text.
    pub keys: String,
    /// Seed of shards.
    pub seed: u64,
    /// Serve the listener's own address as the first domain, over plain HTTP.
    pub serve_own_address: bool,
    /// How many files this process may have open.
    pub files_max: u64,
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

fn because<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> StartError + '_ {
    move |error| StartError(format!("{what}: {error}"))
}

/// A running edge.
pub struct Edge {
    workers: Vec<JoinHandle<()>>,
    catalog: JoinHandle<()>,
    journals: Arc<Journals>,
    reloader: Reloader,
}

impl Edge {
    /// Opens the journals and starts the workers.
    ///
    /// # Errors
    /// What keeps it from starting, and what to do.
    pub fn start(settings: Settings, parts: Parts) -> Result<Self, StartError> {
        settings.check().map_err(StartError)?;
        let connections_max = settings.connections_that_fit(parts.files_max);
        let connections_max = connections_max.map_err(StartError)?;
        let mut catalogs = catalog::Folder::open(&parts.catalog).map_err(because("catalog"))?;
        let current = catalogs.start().map_err(because("catalog"))?;
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
        let metrics = Metrics::new(parts.metrics.registry()).map_err(because("metrics"))?;
        if let Some(error) = refused {
            metrics.catalog_refused.set(1);
            tracing::error!(version = current.version, %error, "the catalog cannot be used, the last good version is in force");
        }
        let address = parts.listener.local_addr().map_err(because("edge"))?;
        let local_hosts = match (parts.serve_own_address, &settings.tls) {
            (false, _) => LocalHosts::default(),
            (true, None) => LocalHosts::of(address, 80),
            (true, Some(_)) => LocalHosts::of(address, 443),
        };
        let local_hosts = Arc::new(local_hosts);
        let count = settings.workers();
        let all = i64::try_from(connections_max.saturating_mul(count));
        metrics.connections_max.set(all.unwrap_or(i64::MAX));

        let tls = settings.tls.as_ref().map(tls::load).transpose();
        let tls = tls.map_err(because("edge.tls"))?;
        let tls = tls.map(|tls| Arc::new(ArcSwap::from_pointee(tls)));
        let journals = Journals::new(parts.journals, &settings, parts.is_beside_predecessor);
        let journals = Arc::new(journals);
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let collector = journals.collector().map_err(because("metrics"))?;
        let registered = parts.metrics.registry().register(Box::new(collector));
        registered.map_err(because("metrics"))?;
        {
            let (live, secrets, metrics) =
                (Arc::clone(&live), Arc::clone(&secrets), metrics.clone());
            let shutdown = parts.shutdown.clone();
            let (looked, first_look) = mpsc::sync_channel(1);
            let watch = move || {
                let failing = &metrics.secrets_failing;
                secrets::watch(&live, &secrets, failing, &shutdown, || {
                    metrics.secrets_age.done();
                    // Only the first look is waited for.
                    let _ = looked.try_send(());
                });
            };
            // Nobody joins it: a file on a mount that hangs would hold up the end.
            let thread = std::thread::Builder::new().name("edge-secrets".into());
            thread.spawn(watch).map_err(because("edge"))?;
            let _ = first_look.recv_timeout(SECRETS_MAX);
        }

        // All at once, so that one disk that stands still is waited for once.
        let openings: Vec<Opening> = (0..count).map(|_| journals.open_aside(None)).collect();
        let until = Instant::now() + JOURNALS_MAX;
        let mut workers = Vec::new();
        for (index, mut opening) in openings.into_iter().enumerate() {
            let keyring = Keyring::parse(&parts.keys).map_err(because("token keys"))?;
            let (lock, clock) = (current.lock(), parts.clock.clone());
            let mut recorder = Recorder::new(keyring, parts.seed, lock, clock);
            let opening = match opened_until(&mut opening, until) {
                Some(Ok(opened)) => {
                    recorder.go_on_in(opened);
                    None
                }
                // What a newer build wrote this one never understands.
                Some(Err(error)) if error.is_newer_format() => {
                    return Err(because("journal")(error));
                }
                // The visitor comes first: the worker answers without a journal, and tries again.
                Some(Err(error)) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(worker = index, %error, cause, "journal not opened, starting without");
                    None
                }
                None => {
                    tracing::error!(
                        worker = index,
                        "the journal's disk stands still, starting without"
                    );
                    Some(opening)
                }
            };
            let listener = parts.listener.try_clone().map_err(because("edge"))?;
            let (settings, live, metrics, secrets, journals) = (
                Arc::clone(&settings),
                Arc::clone(&live),
                metrics.clone(),
                Arc::clone(&secrets),
                Arc::clone(&journals),
            );
            let (local_hosts, shutdown, health, tls) = (
                Arc::clone(&local_hosts),
                parts.shutdown.clone(),
                parts.health.clone(),
                tls.clone(),
            );
            let worker = move || {
                let silent_s = settings.load().head_timeout_s;
                let worker = Rc::new(Worker {
                    index,
                    settings,
                    live,
                    secrets,
                    recorder: RefCell::new(recorder),
                    unmatched: RefCell::new(Unmatched::default()),
                    metrics,
                    classifier: RefCell::new(Classifier::new()),
                    local_hosts,
                    health,
                    journals,
                    tls,
                    connections: Connections::new(connections_max, silent_s),
                    scratch: RefCell::default(),
                });
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default())
                    .expect("epoll is there");
                runtime.block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener)
                        .expect("the listener does not block");
                    worker.run(listener, opening, shutdown).await;
                });
            };
            let thread = std::thread::Builder::new().name(format!("edge-{index}"));
            workers.push(thread.spawn(worker).map_err(because("edge"))?);
        }
        parts.health.set_ready("edge", Ok(()));

        let (shutdown, health) = (parts.shutdown, parts.health);
        metrics.catalog_version.set(current.version.into());
        let catalog = std::thread::Builder::new()
            .name("edge-catalog".into())
            .spawn(move || {
                verify(&catalogs, &current, &live, &metrics, &health);
                follow(&mut catalogs, &live, &metrics, &health, &shutdown);
            });
        let catalog = catalog.map_err(because("edge"))?;
        Ok(Self {
            workers,
            catalog,
            journals,
            reloader: Reloader { settings, tls },
        })
    }

    /// Changes settings while the edge runs.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Waits for the workers to drain and the last records to be synced.
    ///
    /// # Errors
    /// A thread panicked, or the last records could not be synced.
    pub fn join(self) -> Result<(), StartError> {
        for thread in self.workers.into_iter().chain([self.catalog]) {
            thread
                .join()
                .map_err(|_| StartError("an edge thread panicked".into()))?;
        }
        match Arc::into_inner(self.journals) {
            Some(journals) => journals.stop().map_err(because("journal")),
            // A thread still opens one in the place of another: what is recorded is kept in the ring.
            None => Ok(()),
        }
    }
}

/// What came of a journal by then; None while it is still being opened.
fn opened_until(opening: &mut Opening, until: Instant) -> Option<Result<Opened, journal::Error>> {
    loop {
        match opening.try_recv() {
            Ok(opened) => return Some(opened),
            Err(_) if Instant::now() >= until => return None,
            // Dropped without a word where there was no thread for it; then the worker finds out.
            Err(TryRecvError::Closed) => return None,
            Err(TryRecvError::Empty) => std::thread::park_timeout(Duration::from_millis(1)),
        }
    }
}

/// Changes what can change of a running edge's settings.
#[derive(Clone)]
pub struct Reloader {
    settings: Arc<ArcSwap<Settings>>,
    tls: Option<Arc<ArcSwap<Tls>>>,
}

impl Reloader {
    /// The settings a running edge changes, by their names in the file. All others take effect at the next start.
    pub const CHANGEABLE: [&str; 5] = [
        "edge.trusted_forwarders",
        "edge.when_full",
        "edge.head_timeout_s",
        "edge.tls.certificate",
        "edge.tls.key",
    ];

    /// Puts settings in force for all requests from now on, and the certificate and key as they are now for all connections
    /// from now on.
    ///
    /// # Errors
    /// What is wrong with them; nothing has changed then.
    pub fn reload(&self, settings: Settings) -> Result<(), String> {
        settings.check()?;
        // Switched on or off at the next start only.
        if let (Some(tls), Some(files)) = (&self.tls, &settings.tls) {
            let newer = tls::load(files).map_err(|error| format!("edge.tls: {error}"))?;
            tls.store(Arc::new(newer));
        }
        self.settings.store(Arc::new(settings));
        Ok(())
    }
}

/// What a process with an edge does at SIGHUP: it loads its settings anew and changes what can change. `reloader` is there once
/// the edge runs.
pub fn at_hang_up(
    file: Option<PathBuf>,
    load: impl Fn() -> Result<Settings, service::Refusal> + Send + 'static,
    reloader: Arc<OnceLock<Reloader>>,
) -> Box<dyn FnMut() + Send> {
    let read = move || {
        let file = file.as_ref()?;
        std::fs::read_to_string(file).ok()
    };
    let at_start = read().unwrap_or_default();
    let mut before = at_start.clone();
    Box::new(move || {
        let Some(reloader) = reloader.get() else {
            return;
        };
        let done = load().map_err(|refusal| refusal.to_string());
        let reloaded = done.and_then(|settings| {
            let serves_tls = settings.tls.is_some() && reloader.tls.is_some();
            reloader.reload(settings)?;
            Ok(serves_tls)
        });
        let serves_tls = match reloaded {
            Ok(serves_tls) => serves_tls,
            Err(error) => {
                tracing::error!(error, "settings not reloaded, those before go on");
                return;
            }
        };
        let now = read().unwrap_or_default();
        let is_changeable = |setting: &String| {
            let is_switched = setting.starts_with("edge.tls.") && !serves_tls;
            Reloader::CHANGEABLE.contains(&&**setting) && !is_switched
        };
        let mut in_force = service::settings::changes(&before, &now);
        in_force.retain(is_changeable);
        let mut at_next_start = service::settings::changes(&at_start, &now);
        at_next_start.retain(|setting| !is_changeable(setting));
        let named = |settings: &[String]| match settings {
            [] => "nothing".to_owned(),
            settings => settings.join(", "),
        };
        tracing::info!(
            in_force = named(&in_force),
            at_next_start = named(&at_next_start),
            "settings and certificates reloaded"
        );
        before = now;
    })
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
    let name = "edge-catalog";
    let mut told = None;
    loop {
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
            Ok(None) => {
                metrics.catalog_refused.set(0);
                None
            }
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
        metrics.catalog_age.done();
        health.beat(name);
        if shutdown.wait_timeout(CATALOG_POLL) {
            health.ended(name);
            return;
        }
    }
}
