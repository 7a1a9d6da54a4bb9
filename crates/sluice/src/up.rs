//! The processes: `sluice up` is every part in one, the others are one part each beside others on Kafka.
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use catalog::Removes;
use clap::{Args, ValueEnum};
use clicks::Clicks;
use consumer::{Handler, Stored, Versions};
use conversions::Conversions;
use domain::Topic;
use edge::{Edge, Keys};
use fraud::Fraud;
use journal::StreamId;
use prometheus::{IntGauge, Opts};
use service::admin::Commands;
use service::{
    Clock, DataFolder, Health, Metrics, Refusal, Shutdown, Signals, admin, descriptors, handover,
    listen, logs,
};
use store::Store;
use stream::{Kafka, Stream};

use crate::commands::{self, refuse};
use crate::gaps::Gaps;
use crate::settings::{Installation, Settings};
use crate::{
    consumers, couriers, demo, follow, kafka_metrics, live_line, parked, published, topics,
    wall_clock,
};

/// What a running `sluice up` is asked for by its successor.
const HANDOVER: &str = "up";

/// How long a successor waits until its predecessor has drained: a drain is bounded to less.
const PREDECESSOR_MAX: Duration = Duration::from_secs(60);

/// A part of the system, in the order of the way an event takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Edge,
    Courier,
    Fraud,
    Clicks,
    Conversions,
    Reports,
}

impl Part {
    const ALL: [Self; 6] = [
        Self::Edge,
        Self::Courier,
        Self::Fraud,
        Self::Clicks,
        Self::Conversions,
        Self::Reports,
    ];

    /// The parts that fold, in the order in which they stop.
    pub(crate) const CONSUMERS: [Self; 3] = [Self::Fraud, Self::Clicks, Self::Conversions];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Courier => "courier",
            Self::Fraud => "fraud",
            Self::Clicks => "clicks",
            Self::Conversions => "conversions",
            Self::Reports => "reports",
        }
    }
}

/// Flags of every process; each wins over the settings file.
#[derive(Clone, Args)]
pub(crate) struct Common {
    #[command(flatten)]
    installation: Installation,
    /// Kafka's brokers, `HOST:PORT`, comma separated. `up` without any carries its own stream.
    #[arg(long)]
    kafka: Option<String>,
    /// Where metrics and health are served; loopback only.
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// Where reports are served; loopback only.
    #[arg(long)]
    reports: Option<SocketAddr>,
}

/// `sluice up`
#[derive(Clone, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// The catalog's file. Without one a small demo catalog is written and used.
    #[arg(long)]
    catalog: Option<PathBuf>,
    /// The file of its links (CSV), where they stand in one of their own.
    #[arg(long, requires = "catalog")]
    links: Option<PathBuf>,
    /// Where visitors arrive.
    #[arg(long)]
    edge: Option<SocketAddr>,
    /// Take the place of the `sluice up` that runs on this data folder: it hands over its sockets, drains and ends, and
    /// visitors wait meanwhile; nobody is refused. Not for a service manager that starts it again when it ends.
    #[arg(long)]
    take_over: bool,
}

impl Arguments {
    fn load(&self) -> Result<Settings, Refusal> {
        let mut settings = self.common.load()?;
        settings.catalog = self.catalog.clone().or(settings.catalog);
        settings.links = self.links.clone().or(settings.links);
        settings.edge.listen = self.edge.unwrap_or(settings.edge.listen);
        settings.edge.ring_bytes.get_or_insert(edge::RING_BYTES_UP);
        Ok(settings)
    }
}

/// `sluice consume`
#[derive(Args)]
pub(crate) struct Consume {
    #[command(flatten)]
    common: Common,
    /// Consumers to run, comma separated; all of them where none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Consumer>,
}

/// What `--only` can name.
#[derive(Clone, Copy, ValueEnum)]
enum Consumer {
    Clicks,
    Conversions,
    Fraud,
}

/// Every part in one process.
pub(crate) fn up(arguments: &Arguments) -> Result<ExitCode, Refusal> {
    let settings = arguments.load()?;
    let admin = arguments.common.admin.unwrap_or(settings.admin.listen);
    let again = Again {
        take_over: arguments.take_over,
        file: arguments.common.installation.settings.clone(),
        load: {
            let arguments = arguments.clone();
            Box::new(move || arguments.load().map(|settings| settings.edge))
        },
    };
    run("up", &settings, &Part::ALL, admin, Some(again))
}

/// Consumers beside other processes.
pub(crate) fn consume(arguments: &Consume) -> Result<ExitCode, Refusal> {
    let named = arguments.only.iter().map(|consumer| match consumer {
        Consumer::Clicks => Part::Clicks,
        Consumer::Conversions => Part::Conversions,
        Consumer::Fraud => Part::Fraud,
    });
    let named: Vec<Part> = named.collect();
    let parts = Part::CONSUMERS
        .into_iter()
        .filter(|part| named.is_empty() || named.contains(part));
    one("consume", &parts.collect::<Vec<_>>(), &arguments.common)
}

/// Some parts beside other processes.
pub(crate) fn one(
    process: &'static str,
    parts: &[Part],
    common: &Common,
) -> Result<ExitCode, Refusal> {
    let settings = common.load()?;
    if settings.kafka.brokers.is_empty() && parts != [Part::Reports] {
        return Err(refuse(format!(
            "sluice {process} runs beside other processes and needs Kafka: set kafka.brokers, or use sluice up"
        )));
    }
    let admin = match process {
        "courier" => settings.admin.courier,
        "reports" => settings.admin.reports,
        _ => settings.admin.consume,
    };
    if !settings.kafka.brokers.is_empty() {
        wall_clock::end_when_set_back(Clock::system()).map_err(refuse)?;
    }
    let admin = common.admin.unwrap_or(admin);
    run(process, &settings, parts, admin, None)
}

impl Common {
    pub(crate) fn load(&self) -> Result<Settings, Refusal> {
        let mut settings = self.installation.load()?;
        settings.reports.listen = self.reports.unwrap_or(settings.reports.listen);
        if let Some(brokers) = &self.kafka {
            settings.kafka.brokers.clone_from(brokers);
        }
        Ok(settings)
    }
}

/// What `sluice up` needs to take over, and to read its settings again.
struct Again {
    take_over: bool,
    /// The settings file.
    file: Option<PathBuf>,
    load: Box<dyn Fn() -> Result<edge::Settings, Refusal> + Send>,
}

/// A catalog file that is followed.
struct Followed {
    source: follow::Source,
    start: follow::Start,
    version: u32,
    is_demo: bool,
}

fn run(
    process: &'static str,
    settings: &Settings,
    parts: &[Part],
    admin: SocketAddr,
    again: Option<Again>,
) -> Result<ExitCode, Refusal> {
    logs::init();
    let files_max = descriptors::raise();
    let has = |part: Part| parts.contains(&part);
    listen::loopback_only(admin, "admin")?;
    if has(Part::Reports) {
        listen::loopback_only(settings.reports.listen, "reports")?;
    }
    let names: Vec<&str> = parts.iter().map(|part| part.name()).collect();
    // What would only be found out later must not cost the one that runs.
    settings.edge.check().map_err(refuse)?;
    let mut handed = Vec::new();
    if again.as_ref().is_some_and(|again| again.take_over)
        && let Some(mut predecessor) = handover::ask(&settings.data, HANDOVER).map_err(refuse)?
    {
        let names = ["edge", "admin", "reports"];
        handed.extend(names.map(|name| (name, predecessor.take(name))));
        predecessor.release().map_err(refuse)?;
    }
    let wait_max = match handed.is_empty() {
        true => Duration::ZERO,
        false => PREDECESSOR_MAX,
    };
    let mut bind = |address, what: &'static str| -> Result<(TcpListener, SocketAddr), Refusal> {
        let socket = handed.iter_mut().find(|(name, _)| *name == what);
        let socket = socket.and_then(|(_, socket)| socket.take());
        // The visitors' socket is the one that a service manager keeps open.
        let listener = listen::inherit_or_bind(address, what, socket, what == "edge")?;
        let address = listener.local_addr().map_err(refuse)?;
        Ok((listener, address))
    };
    let mut bind_all = || -> Result<_, Refusal> {
        let edge = has(Part::Edge).then(|| bind(settings.edge.listen, "edge"));
        let edge = edge.transpose()?;
        let admin = bind(admin, "admin")?;
        let reports = has(Part::Reports).then(|| bind(settings.reports.listen, "reports"));
        Ok((edge, admin, reports.transpose()?))
    };
    let bound = bind_all();
    // A start that is refused leaves nothing in a folder that was empty. One that is in use says more than an address.
    let bound = match bound {
        Err(refusal) if !service::folder::is_made(&settings.data) => return Err(refusal),
        bound => bound,
    };
    let folder = DataFolder::open_when_free(&settings.data, &names, wait_max)?;
    let (edge_listener, admin_listener, reports_listener) = bound?;
    let data = folder.path();
    for part in &names {
        service::folder::set_admin(data, part, admin_listener.1).map_err(refuse)?;
    }

    let keys = data.join("keys");
    if has(Part::Edge) || has(Part::Courier) {
        Keys::make_where_new(data).map_err(refuse)?;
    }
    let versions = data.join("catalog");
    let mut followed = if has(Part::Edge) {
        Some(apply(settings, data, &versions)?)
    } else {
        None
    };

    let (shutdown, clock, metrics, health) = (
        Shutdown::new(),
        Clock::system(),
        Metrics::new(),
        Health::new(),
    );
    // Admin is there to the end: who drains is still watched.
    let over = Shutdown::new();
    let reloader = Arc::new(OnceLock::new());
    let reload = match again {
        Some(again) => edge::at_hang_up(again.file, again.load, Arc::clone(&reloader)),
        None => Box::new(|| tracing::info!("this process reads its settings at its start only")),
    };
    let drain_wait_s = match has(Part::Edge) {
        true => settings.edge.drain_wait_s,
        false => 0,
    };
    Signals {
        shutdown: shutdown.clone(),
        health: health.clone(),
        drain_wait: Duration::from_secs(drain_wait_s),
        reload,
    }
    .hear()
    .map_err(refuse)?;
    let mut line = Line::default();

    // From the end of the line to its beginning, so that nothing waits for who reads it.
    let folds = [Part::Clicks, Part::Conversions, Part::Fraud];
    let mut commands = admin::no_commands();
    let stream = if has(Part::Courier) || folds.iter().any(|part| has(*part)) {
        Some(topics::open(settings).map_err(refuse)?)
    } else {
        None
    };
    if let Some(Stream::Kafka(kafka)) = &stream {
        kafka.set_gate(published::Follower::UNREAD);
        if !has(Part::Edge) {
            told_at_once(kafka)?;
        }
        kafka_metrics::register(kafka, &settings.stream.prefix, metrics.registry())
            .map_err(refuse)?;
    }
    let mut store_of_folds = None;
    if let Some(stream) = &stream
        && folds.iter().any(|part| has(*part))
    {
        let store = Store::open(&data.join("store.sqlite")).map_err(refuse)?;
        let [candidate @ .., _, _, _, _, _, _, _, _] = StreamId::random().0;
        let identity = store.keep_identity(candidate).map_err(refuse)?;
        let around = consumers::Around {
            stream: stream.clone(),
            prefix: settings.stream.prefix.clone(),
            partitions: settings.stream.partitions,
            member: format!("store-{:016x}", u64::from_be_bytes(identity)),
            metrics: consumers::Metrics::register(metrics.registry()).map_err(refuse)?,
            health: health.clone(),
            clock: clock.clone(),
            records_max: settings.stream.batch_records_max,
            letters: data.join("dead-letters"),
            gaps: Gaps::default(),
        };
        if let Ok(Some(here)) = commands::last_good(&versions) {
            // Others stand still and say so; this process has nothing else to do.
            keep_lock(&store, here.lock()).map_err(refuse)?;
        }
        store_of_folds = Some(store.clone());
        commands = commands_of(&around, &store, &shutdown);
        for part in folds.into_iter().filter(|part| has(*part)) {
            line.start_fold(part, &around, &store, &versions)?;
        }
    }
    if let Some((listener, _)) = &edge_listener {
        let keys = Keys::read(&keys).map_err(refuse)?;
        let parts = edge::Parts {
            listener: listener.try_clone().map_err(refuse)?,
            journals: data.join("journal"),
            is_beside_predecessor: false,
            catalog: versions.clone(),
            seed: keys.seed(),
            keys: keys.tokens,
            serve_own_address: true,
            files_max,
            clock: clock.clone(),
            metrics: metrics.clone(),
            health: health.clone(),
            shutdown: shutdown.clone(),
        };
        let edge = Edge::start(settings.edge.clone(), parts).map_err(refuse)?;
        let _ = reloader.set(edge.reloader());
        line.edge = Some(edge);
    }
    let mut offer = handover::Offer::default();
    if has(Part::Edge) {
        let listeners = [
            ("edge", edge_listener.as_ref()),
            ("admin", Some(&admin_listener)),
            ("reports", reports_listener.as_ref()),
        ];
        let handed: std::io::Result<Vec<_>> = listeners
            .into_iter()
            .filter_map(|(name, listener)| Some((name, &listener?.0)))
            .map(|(name, listener)| Ok((name, listener.try_clone()?.into())))
            .collect();
        let succeeded = {
            let (health, shutdown) = (health.clone(), shutdown.clone());
            move || {
                health.drain();
                shutdown.request();
            }
        };
        let offered = handed.and_then(|handed| handover::offer(data, HANDOVER, handed, succeeded));
        offer = offered.unwrap_or_else(|error| {
            tracing::warn!(%error, "no successor can take over from this process");
            handover::Offer::default()
        });
    }
    if let Some(Stream::Kafka(kafka)) = &stream {
        let failing = IntGauge::new(
            "sluice_catalog_replica_failing",
            "1 while the published catalog cannot be taken over; the log says why.",
        );
        let failing = failing.map_err(refuse)?;
        let registered = metrics.registry().register(Box::new(failing.clone()));
        registered.map_err(refuse)?;
        let follower = published::Follower {
            kafka: kafka.clone(),
            data: data.to_owned(),
            settings: settings.clone(),
            process: names[0],
            failing,
            health: health.clone(),
            keep: Box::new(move |lock| match &store_of_folds {
                Some(store) => keep_lock(store, lock),
                None => Ok(()),
            }),
        };
        let shutdown = shutdown.clone();
        // Nobody joins it: it writes whole files only.
        std::thread::Builder::new()
            .name("published-catalog".into())
            .spawn(move || follower.run(&shutdown))
            .map_err(refuse)?;
    }
    // The workers hold it now: who drains lets it go with them.
    let edge_address = edge_listener.map(|(_, address)| address);
    if let Some(stream) = stream
        && has(Part::Courier)
    {
        let around = couriers::Around {
            stream,
            settings: settings.courier.clone(),
            prefix: settings.stream.prefix.clone(),
            partitions: settings.stream.partitions,
            visitor_key: Keys::read(&keys).map_err(refuse)?.visitor,
            catalog: data.join("catalog"),
            clock,
            metrics: couriers::Metrics::register(metrics.registry()).map_err(refuse)?,
            health: health.clone(),
            stop: line.courier_stop.clone(),
        };
        let couriers = couriers::start(around, couriers::Folders::of(data));
        line.couriers = Some(couriers.map_err(refuse)?);
    }
    if !has(Part::Edge) {
        health.set_ready(process, Ok(()));
    }

    let version = env!("CARGO_PKG_VERSION");
    let mut said = match &followed {
        Some(followed) => format!(
            "sluice {version} is up: catalog version {}, data in {}\n",
            followed.version,
            data.display()
        ),
        None => format!(
            "sluice {process} {version} is up, data in {}\n",
            data.display()
        ),
    };
    let reports_address = reports_listener.as_ref().map(|(_, address)| *address);
    let scheme = settings.edge.scheme();
    for (what, scheme, address) in [
        ("edge", scheme, edge_address),
        ("reports", "http", reports_address),
        ("admin", "http", Some(admin_listener.1)),
    ] {
        if let Some(address) = address {
            said += &format!("  {what:8} {scheme}://{address}\n");
        }
    }
    said.push('\n');
    if let (Some(followed), Some(edge), Some(reports)) = (&followed, edge_address, reports_address)
        && followed.is_demo
    {
        said += &demo::lines(settings, &format!("{scheme}://{edge}"), reports);
    }
    logs::say(said);

    let followed = followed
        .take()
        .map(|followed| (followed.source, followed.start));
    let refused = |what| -> Result<IntGauge, Refusal> {
        let opts = Opts::new(edge::CATALOG_REFUSED, edge::CATALOG_REFUSED_HELP);
        let gauge = IntGauge::with_opts(opts.const_label("what", what)).map_err(refuse)?;
        let registered = metrics.registry().register(Box::new(gauge.clone()));
        registered.map_err(refuse)?;
        Ok(gauge)
    };
    // An edge tells of the snapshots itself.
    if !has(Part::Edge) {
        let (versions, refused, shutdown) =
            (versions.clone(), refused("snapshot")?, shutdown.clone());
        // Nobody joins it: it only reads.
        std::thread::Builder::new()
            .name("catalog-watch".into())
            .spawn(move || follow::watch(&versions, &refused, &shutdown))
            .map_err(refuse)?;
    }
    let followed = followed
        .map(|(source, start)| Ok::<_, Refusal>((source, start, refused("file")?)))
        .transpose()?;
    let failures = std::thread::scope(|scope| {
        if let Some((source, start, refused)) = followed {
            let (versions, metrics, shutdown) = (&versions, &metrics, &shutdown);
            scope.spawn(move || source.follow(versions, start, &refused, shutdown));
            scope.spawn(move || live_line::show(metrics, shutdown));
        }
        let ending = scope.spawn(|| {
            while !shutdown.wait_timeout(Duration::MAX) {}
            offer.withdraw();
            let failures = line.end();
            over.request();
            failures
        });
        let serve = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(refuse)?;
            runtime.block_on(async {
                let from_std =
                    |listener| tokio::net::TcpListener::from_std(listener).map_err(refuse);
                let admin_listener = from_std(admin_listener.0)?;
                let reports = async {
                    let Some((listener, _)) = reports_listener else {
                        return Ok(());
                    };
                    let data = data.to_owned();
                    let source = move || commands::open(&data);
                    let clock = Clock::system();
                    reports::serve(from_std(listener)?, source, clock, shutdown.clone()).await;
                    Ok::<_, Refusal>(())
                };
                let (_, reports) = tokio::join!(
                    admin::serve(
                        admin_listener,
                        metrics.clone(),
                        health.clone(),
                        commands,
                        over.clone()
                    ),
                    reports,
                );
                reports
            })
        };
        let served = serve();
        if served.is_err() {
            shutdown.request();
        }
        let failures = ending.join();
        served.map(|()| failures.unwrap_or_else(|_| vec!["the end panicked".to_owned()]))
    })?;
    if failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    tracing::error!(
        failures = failures.join("; "),
        "ended early, what was recorded is kept"
    );
    Ok(ExitCode::FAILURE)
}

/// A part started by itself tells its operator now what only an operator can put right; a cluster that is away it waits for.
fn told_at_once(kafka: &Kafka) -> Result<(), Refusal> {
    match kafka.check() {
        Err(error) if error.is_topics_differ() => Err(refuse(error)),
        _ => Ok(()),
    }
}

/// Keeps the identity of the catalog in the store, or says that the store has another.
fn keep_lock(store: &Store, lock: u64) -> Result<(), String> {
    match store.keep_catalog_lock(lock) {
        Ok(kept) if kept == lock => Ok(()),
        Ok(kept) => Err(format!(
            "the store has numbers of the catalog.lock {kept:016x}…, the catalog here those of {lock:016x}…: put the catalog back that belongs to the store, or name another data folder"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// Puts the catalog's file in force.
fn apply(settings: &Settings, data: &Path, versions: &Path) -> Result<Followed, Refusal> {
    let (path, is_demo) = match &settings.catalog {
        Some(path) => (path.clone(), false),
        None if versions.exists() && !demo::exists(data) => {
            return Err(refuse(format!(
                "{} holds another catalog than the demo: name its file with --catalog",
                data.display()
            )));
        }
        None => (demo::write(data).map_err(refuse)?, true),
    };
    let source = follow::Source::new(path, settings.links.clone());
    source.settle();
    let look = source.look();
    let applied = live_line::with_bar(|progress| source.apply(versions, Removes::Few, progress));
    let (version, refused) = match applied {
        Ok(applied) => (applied.catalog.version, None),
        Err(problems) => {
            let Ok(Some(last_good)) = commands::last_good(versions) else {
                return Err(commands::mistakes(&problems));
            };
            follow::log(&problems);
            (last_good.version, Some(problems.to_string()))
        }
    };
    Ok(Followed {
        source,
        start: follow::Start { look, refused },
        version,
        is_demo,
    })
}

type Thread = JoinHandle<Result<(), String>>;

/// What runs, in the order of the way an event takes; each has a stop of its own, because it ends when what comes before it
/// has ended.
#[derive(Default)]
struct Line {
    edge: Option<Edge>,
    courier_stop: Shutdown,
    couriers: Option<Thread>,
    folds: Vec<(Part, Shutdown, Vec<Thread>)>,
}

impl Line {
    fn start_fold(
        &mut self,
        part: Part,
        around: &consumers::Around,
        store: &Store,
        versions: &Path,
    ) -> Result<(), Refusal> {
        let catalogs = || {
            catalog::Folder::open(versions)
                .map(Versions::new)
                .map_err(refuse)
        };
        let stop = Shutdown::new();
        let threads = match part {
            Part::Clicks => vec![
                fold(
                    around,
                    store,
                    "clicks",
                    Clicks::new(catalogs()?),
                    Topic::Clicks,
                    &stop,
                )?,
                fold(
                    around,
                    store,
                    "clicks-signals",
                    Clicks::new(catalogs()?),
                    Topic::FraudSignals,
                    &stop,
                )?,
            ],
            Part::Conversions => {
                let handler = Conversions::new(catalogs()?);
                vec![fold(
                    around,
                    store,
                    "conversions",
                    handler,
                    Topic::Postbacks,
                    &stop,
                )?]
            }
            Part::Fraud => vec![fold(around, store, "fraud", Fraud, Topic::Clicks, &stop)?],
            Part::Edge | Part::Courier | Part::Reports => Vec::new(),
        };
        self.folds.push((part, stop, threads));
        Ok(())
    }

    /// Ends everything; what did not end in good order.
    fn end(mut self) -> Vec<String> {
        let mut failures = Vec::new();
        if let Some(edge) = self.edge {
            failures.extend(edge.join().err().map(|error| error.to_string()));
        }
        self.courier_stop.request();
        failures.extend(self.couriers.and_then(|thread| ended("couriers", thread)));
        // Labels before the clicks they are for, orders after the clicks they wait for.
        self.folds
            .sort_by_key(|(part, ..)| Part::ALL.iter().position(|known| known == part));
        for (part, stop, threads) in self.folds {
            stop.request();
            failures.extend(
                threads
                    .into_iter()
                    .filter_map(|thread| ended(part.name(), thread)),
            );
        }
        failures
    }
}

/// What this process does when it is asked.
fn commands_of(around: &consumers::Around, store: &Store, shutdown: &Shutdown) -> Commands {
    let parked = parked::commands(store.clone(), shutdown.clone());
    let (gaps, stream) = (around.gaps.clone(), around.stream.clone());
    Arc::new(move |path, query| {
        let answer = gaps.answer(&stream, path, query);
        answer.or_else(|| parked(path, query))
    })
}

fn fold<H: Handler + Send + 'static>(
    around: &consumers::Around,
    store: &Store,
    name: &'static str,
    handler: H,
    topic: Topic,
    stop: &Shutdown,
) -> Result<Thread, Refusal> {
    let stored = Stored::new(
        store.clone(),
        handler,
        topic,
        (&around.prefix, around.partitions),
        StreamId::random(),
        &around.letters,
    );
    let stored = stored
        .map_err(refuse)?
        .observed(around.metrics.parking(name));
    consumers::start(around, name, topic, stored, stop.clone()).map_err(refuse)
}

fn ended(what: &str, thread: Thread) -> Option<String> {
    thread
        .join()
        .unwrap_or_else(|_| Err(format!("{what} panicked")))
        .err()
}
