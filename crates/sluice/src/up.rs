//! `sluice up`: edge, courier, consumers, reports and admin in one process.
#![allow(clippy::print_stdout, reason = "what a command prints is its answer")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clicks::Clicks;
use consumer::{Stored, Versions};
use conversions::Conversions;
use courier::Courier;
use domain::Topic;
use edge::{Edge, Keys};
use fraud::Fraud;
use journal::StreamId;
use service::{Clock, DataFolder, Health, Metrics, Refusal, Shutdown, admin, listen, settings};
use store::Store;
use stream::Embedded;

use crate::consumers::{self, Around};
use crate::settings::Settings;
use crate::{commands, demo, follow, live_line};

/// Flags; each wins over the settings file.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A settings file (TOML).
    #[arg(long)]
    settings: Option<PathBuf>,
    /// The data folder.
    #[arg(long)]
    data: Option<PathBuf>,
    /// The catalog's file. Without one a small demo catalog is written and used.
    #[arg(long)]
    catalog: Option<PathBuf>,
    /// Where visitors arrive.
    #[arg(long)]
    edge: Option<SocketAddr>,
    /// Where metrics and health are served; loopback only.
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// Where reports are served; loopback only.
    #[arg(long)]
    reports: Option<SocketAddr>,
}

fn refuse(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(error.to_string())
}

fn settings(arguments: &Arguments) -> Result<Settings, Refusal> {
    let mut settings: Settings = settings::load(arguments.settings.as_deref()).map_err(refuse)?;
    settings.data = arguments.data.clone().unwrap_or(settings.data);
    settings.catalog = arguments.catalog.clone().or(settings.catalog);
    settings.edge.listen = arguments.edge.unwrap_or(settings.edge.listen);
    settings.admin.listen = arguments.admin.unwrap_or(settings.admin.listen);
    settings.reports.listen = arguments.reports.unwrap_or(settings.reports.listen);
    Ok(settings)
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Refusal> {
    service::logs::init();
    let settings = settings(arguments)?;
    listen::loopback_only(settings.admin.listen, "admin").map_err(refuse)?;
    listen::loopback_only(settings.reports.listen, "reports").map_err(refuse)?;
    let folder = DataFolder::open(&settings.data).map_err(refuse)?;
    let data = folder.path();
    let edge_listener = listen::bind(settings.edge.listen, "edge").map_err(refuse)?;
    let admin_listener = listen::bind(settings.admin.listen, "admin").map_err(refuse)?;
    let reports_listener = listen::bind(settings.reports.listen, "reports").map_err(refuse)?;
    let addresses = [&edge_listener, &admin_listener, &reports_listener]
        .map(|listener| listener.local_addr().map_err(refuse));
    let [edge_address, admin_address, reports_address] = addresses;
    let (edge_address, admin_address, reports_address) =
        (edge_address?, admin_address?, reports_address?);

    let keys = Keys::open(&data.join("keys")).map_err(refuse)?;
    let (catalog_path, is_demo) = match &settings.catalog {
        Some(path) => (path.clone(), false),
        None => (demo::write(data).map_err(refuse)?, true),
    };
    let versions = data.join("catalog");
    let catalog = catalog::apply(&catalog_path, &versions)
        .map_err(|problems| commands::mistakes(&catalog_path, &problems))?;

    let (shutdown, clock, metrics, health) = (
        Shutdown::new(),
        Clock::system(),
        Metrics::new(),
        Health::new(),
    );
    service::shutdown::on_signals(shutdown.clone()).map_err(refuse)?;
    let name = |topic: Topic| format!("{}.{}", settings.stream.prefix, topic.name());
    let names = Topic::ALL.map(name);
    let topics: Vec<(&str, u16)> = names
        .iter()
        .map(|name| (name.as_str(), settings.stream.partitions))
        .collect();
    let stream = Embedded::open(&data.join("stream"), &topics, StreamId::random).map_err(refuse)?;
    let store = Store::open(&data.join("store.sqlite")).map_err(refuse)?;

    // From the end of the line to its beginning, so that nothing waits for who reads it.
    let around = Around {
        stream: stream.clone(),
        events: consumers::events(metrics.registry()).map_err(refuse)?,
        health: health.clone(),
        process: shutdown.clone(),
        records_max: settings.stream.batch_records_max,
    };
    let catalogs = || {
        catalog::Folder::open(&versions)
            .map(Versions::new)
            .map_err(refuse)
    };
    let (courier_stop, fraud_stop, fold_stop) = (Shutdown::new(), Shutdown::new(), Shutdown::new());
    let prefix = settings.stream.prefix.as_str();
    let mut folds = Vec::new();
    for (thread, topic) in [
        ("clicks", Topic::Clicks),
        ("clicks-signals", Topic::FraudSignals),
    ] {
        let stored = Stored::new(
            store.clone(),
            Clicks::new(catalogs()?),
            topic,
            prefix,
            StreamId::random(),
        )
        .map_err(refuse)?;
        folds.push(
            consumers::start(&around, thread, &name(topic), stored, fold_stop.clone())
                .map_err(refuse)?,
        );
    }
    let handler = Conversions::new(catalogs()?, settings.stream.partitions);
    let stored = Stored::new(
        store.clone(),
        handler,
        Topic::Postbacks,
        prefix,
        StreamId::random(),
    )
    .map_err(refuse)?;
    folds.push(
        consumers::start(
            &around,
            "conversions",
            &name(Topic::Postbacks),
            stored,
            fold_stop.clone(),
        )
        .map_err(refuse)?,
    );
    let stored = Stored::new(
        store.clone(),
        Fraud,
        Topic::Clicks,
        prefix,
        StreamId::random(),
    )
    .map_err(refuse)?;
    let fraud = consumers::start(
        &around,
        "fraud",
        &name(Topic::Clicks),
        stored,
        fraud_stop.clone(),
    )
    .map_err(refuse)?;

    let edge = Edge::start(
        settings.edge.clone(),
        edge::Parts {
            listener: edge_listener,
            journals: data.join("journal"),
            catalog: versions.clone(),
            keys: keys.tokens.clone(),
            seed: keys.seed(),
            serve_own_address: true,
            clock: clock.clone(),
            metrics: metrics.clone(),
            health: health.clone(),
            shutdown: shutdown.clone(),
        },
    )
    .map_err(refuse)?;

    let couriers = Couriers {
        stream: &stream,
        settings: &settings,
        visitor: keys.visitor,
        clock: &clock,
        metrics: &metrics,
        process: &shutdown,
        stop: &courier_stop,
    };
    let couriers = couriers.start(&data.join("journal"), &data.join("cursors"))?;

    println!(
        "sluice {} is up: catalog version {}, data in {}",
        env!("CARGO_PKG_VERSION"),
        catalog.version,
        data.display()
    );
    println!(
        "  edge     http://{edge_address}\n  reports  http://{reports_address}\n  admin    http://{admin_address}\n"
    );
    if is_demo {
        demo::print(&settings, edge_address, reports_address);
    }

    std::thread::scope(|scope| {
        scope.spawn(|| follow::follow(&catalog_path, &versions, &shutdown));
        scope.spawn(|| live_line::show(&metrics, &shutdown));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(refuse)?;
        runtime.block_on(async {
            let admin_listener =
                tokio::net::TcpListener::from_std(admin_listener).map_err(refuse)?;
            let reports_listener =
                tokio::net::TcpListener::from_std(reports_listener).map_err(refuse)?;
            let source = {
                let data = data.to_owned();
                move || commands::open(&data)
            };
            tokio::join!(
                admin::serve(
                    admin_listener,
                    metrics.clone(),
                    health.clone(),
                    shutdown.clone()
                ),
                reports::serve(reports_listener, source, shutdown.clone()),
            );
            Ok::<_, Refusal>(())
        })
    })?;

    // Downstream: each stops when what comes before it has ended.
    let mut failures: Vec<String> = edge
        .join()
        .err()
        .map(|error| error.to_string())
        .into_iter()
        .collect();
    courier_stop.request();
    failures.extend(
        couriers
            .into_iter()
            .filter_map(|thread| ended("courier", thread)),
    );
    fraud_stop.request();
    failures.extend(ended("fraud", fraud));
    fold_stop.request();
    failures.extend(
        folds
            .into_iter()
            .filter_map(|thread| ended("consumer", thread)),
    );
    if failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    tracing::error!(
        failures = failures.join("; "),
        "ended early, what was recorded is kept"
    );
    Ok(ExitCode::FAILURE)
}

type Thread = std::thread::JoinHandle<Result<(), String>>;

fn ended(what: &str, thread: Thread) -> Option<String> {
    thread
        .join()
        .unwrap_or_else(|_| Err(format!("{what} panicked")))
        .err()
}

struct Couriers<'a> {
    stream: &'a Embedded,
    settings: &'a Settings,
    visitor: [u8; 32],
    clock: &'a Clock,
    metrics: &'a Metrics,
    process: &'a Shutdown,
    stop: &'a Shutdown,
}

impl Couriers<'_> {
    /// One courier a journal folder, also of workers that no longer exist.
    fn start(
        &self,
        journals: &std::path::Path,
        cursors: &std::path::Path,
    ) -> Result<Vec<Thread>, Refusal> {
        std::fs::create_dir_all(cursors)
            .map_err(|error| refuse(format!("{}: {error}", cursors.display())))?;
        let counters = courier::Metrics::register(self.metrics.registry()).map_err(refuse)?;
        let mut threads = Vec::new();
        for entry in std::fs::read_dir(journals)
            .map_err(|error| refuse(format!("{}: {error}", journals.display())))?
        {
            let folder = entry.map_err(refuse)?.path();
            let name = folder
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            // A worker that is gone left its last records in its ring; where one lives, its lock is held.
            journal::seal(&folder).map_err(refuse)?;
            let options = courier::Options {
                journal: name
                    .parse()
                    .map_err(|_| refuse(format!("{}: not a journal folder", folder.display())))?,
                topic_prefix: self.settings.stream.prefix.clone(),
                retain_acked: Duration::from_secs(self.settings.courier.retain_acked_s),
                ..courier::Options::default()
            };
            let enrich = courier::Enrich {
                visitor_key: self.visitor,
                truncate: self.settings.courier.truncated_address,
            };
            let cursor = cursors.join(format!("{name}.cursor"));
            let mut courier =
                Courier::open(&folder, &cursor, enrich, options, &counters).map_err(refuse)?;
            let (stream, stop, process, clock) = (
                self.stream.clone(),
                self.stop.clone(),
                self.process.clone(),
                self.clock.clone(),
            );
            let run = move || {
                let done = courier.run(
                    &mut || Ok(stream.sender()),
                    &clock,
                    &|| stop.requested(),
                    &mut |_| {},
                );
                done.map_err(|error| {
                    tracing::error!(%error, "courier stopped: nothing is lost, it goes on where it stopped");
                    process.request();
                    format!("courier: {error}")
                })
            };
            let thread = std::thread::Builder::new()
                .name(format!("courier-{name}"))
                .spawn(run);
            threads.push(thread.map_err(refuse)?);
        }
        Ok(threads)
    }
}
