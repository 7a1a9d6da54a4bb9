//! `sluice up`: edge, courier, consumers, reports and admin in one process.
#![allow(clippy::print_stdout, reason = "what a command prints is its answer")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clicks::Clicks;
use consumer::{Stored, Versions};
use conversions::Conversions;
use domain::Topic;
use edge::{Edge, Keys};
use fraud::Fraud;
use journal::StreamId;
use service::{Clock, DataFolder, Health, Metrics, Refusal, Shutdown, admin, listen, settings};
use store::Store;
use stream::Embedded;

use crate::consumers::{self, Around};
use crate::settings::Settings;
use crate::{commands, couriers, demo, follow, live_line};

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

    let keys = data.join("keys");
    if !data.join("journal").exists() {
        Keys::make(&keys).map_err(refuse)?;
    }
    let keys = Keys::read(&keys).map_err(refuse)?;
    let (catalog_path, is_demo) = match &settings.catalog {
        Some(path) => (path.clone(), false),
        None => (demo::write(data).map_err(refuse)?, true),
    };
    let versions = data.join("catalog");
    let catalog_seen = follow::look(&catalog_path);
    let catalog = catalog::apply(&catalog_path, &versions, &StreamId::random().to_string())
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
        metrics: consumers::Metrics::register(metrics.registry()).map_err(refuse)?,
        health: health.clone(),
        clock: clock.clone(),
        records_max: settings.stream.batch_records_max,
    };
    let catalogs = || {
        catalog::Folder::open(&versions)
            .map(Versions::new)
            .map_err(refuse)
    };
    let (courier_stop, fraud_stop) = (Shutdown::new(), Shutdown::new());
    let (clicks_stop, conversions_stop) = (Shutdown::new(), Shutdown::new());
    let prefix = settings.stream.prefix.as_str();
    let mut clicks = Vec::new();
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
        clicks.push(
            consumers::start(&around, thread, &name(topic), stored, clicks_stop.clone())
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
    let conversions = consumers::start(
        &around,
        "conversions",
        &name(Topic::Postbacks),
        stored,
        conversions_stop.clone(),
    )
    .map_err(refuse)?;
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

    let couriers = couriers::start(
        &couriers::Around {
            stream: stream.clone(),
            settings: settings.courier.clone(),
            prefix: prefix.to_owned(),
            visitor_key: keys.visitor,
            clock: clock.clone(),
            metrics: couriers::Metrics::register(metrics.registry()).map_err(refuse)?,
            health: health.clone(),
            stop: courier_stop.clone(),
        },
        &data.join("journal"),
        &data.join("cursors"),
    )
    .map_err(refuse)?;

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
        scope.spawn(|| follow::follow(&catalog_path, &versions, catalog_seen, &shutdown));
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
    clicks_stop.request();
    failures.extend(
        clicks
            .into_iter()
            .filter_map(|thread| ended("clicks", thread)),
    );
    // Last: orders wait for clicks.
    conversions_stop.request();
    failures.extend(ended("conversions", conversions));
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
