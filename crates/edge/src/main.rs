//! `sluice-edge`: the redirector alone, for machines that only redirect.
//!
//! It starts from its last catalog snapshot and its keys with everything else down. What it records waits in its data
//! folder's journals for a courier.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the one line that says that it is up, or why it is not"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use edge::{Edge, Keys, Parts};
use serde::Deserialize;
use serde::de::IgnoredAny;
use service::{Clock, DataFolder, Health, Metrics, Refusal, Shutdown, admin, listen};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The click redirector of Sluice, alone. Flags win over the settings file.
#[derive(Parser)]
#[command(name = "sluice-edge", version, max_term_width = 100)]
struct Arguments {
    /// A settings file (TOML).
    #[arg(long)]
    settings: Option<PathBuf>,
    /// The data folder: journals, keys and catalog versions.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where visitors arrive.
    #[arg(long)]
    edge: Option<SocketAddr>,
    /// Where metrics and health are served; loopback only.
    #[arg(long)]
    admin: Option<SocketAddr>,
}

/// The settings file, which may be that of all processes: what is the others' is theirs to check.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Journals, keys and catalog versions; `sluice-data` where none is named.
    data: Option<PathBuf>,
    edge: edge::Settings,
    admin: Admin,
    #[serde(rename = "catalog")]
    _catalog: IgnoredAny,
    #[serde(rename = "reports")]
    _reports: IgnoredAny,
    #[serde(rename = "stream")]
    _stream: IgnoredAny,
    #[serde(rename = "kafka")]
    _kafka: IgnoredAny,
    #[serde(rename = "courier")]
    _courier: IgnoredAny,
}

/// The listener for metrics and health.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Admin {
    listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
        }
    }
}

fn main() -> ExitCode {
    service::logs::init();
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(refusal) => {
            eprintln!("sluice-edge: {refusal}");
            ExitCode::from(refusal.code())
        }
    }
}

fn refuse(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(error.to_string())
}

fn run(arguments: &Arguments) -> Result<ExitCode, Refusal> {
    let mut settings: Settings = service::settings::load(arguments.settings.as_deref())?;
    settings.edge.listen = arguments.edge.unwrap_or(settings.edge.listen);
    settings.admin.listen = arguments.admin.unwrap_or(settings.admin.listen);
    let data = arguments.data.clone().or(settings.data);

    listen::loopback_only(settings.admin.listen, "admin")?;
    let data = DataFolder::open(data.unwrap_or_else(|| "sluice-data".into()), &["edge"])?;
    let listener = listen::bind(settings.edge.listen, "edge")?;
    let admin_listener = listen::bind(settings.admin.listen, "admin")?;
    let address = listener.local_addr().map_err(refuse)?;
    let admin_address = admin_listener.local_addr().map_err(refuse)?;
    let keys = Keys::read(&data.path().join("keys")).map_err(refuse)?;

    let scheme = settings.edge.scheme();
    let (shutdown, metrics, health) = (Shutdown::new(), Metrics::new(), Health::new());
    service::shutdown::on_signals(shutdown.clone()).map_err(refuse)?;
    let edge = Edge::start(
        settings.edge,
        Parts {
            listener,
            journals: data.path().join("journal"),
            catalog: data.path().join("catalog"),
            seed: keys.seed(),
            keys: keys.tokens,
            serve_own_address: false,
            clock: Clock::system(),
            metrics: metrics.clone(),
            health: health.clone(),
            shutdown: shutdown.clone(),
        },
    )
    .map_err(refuse)?;
    println!(
        "sluice-edge {} is up: edge {scheme}://{address}, admin http://{admin_address}, data in {}",
        env!("CARGO_PKG_VERSION"),
        data.path().display()
    );

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(refuse)?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(admin_listener).map_err(refuse)?;
        // A copy stays: which thread frees the counters at the end is not left to chance, and counts of its work agree.
        admin::serve(listener, metrics.clone(), health, shutdown).await;
        Ok::<_, Refusal>(())
    })?;
    match edge.join() {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!(%error, "the edge did not end in good order, what it recorded is kept");
            Ok(ExitCode::FAILURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_all_processes_is_understood() {
        let text = include_str!("../../../deploy/sluice.toml");
        let file = std::path::Path::new("deploy/sluice.toml");
        let settings: Settings = service::settings::parse(text, file).unwrap();
        assert_eq!(settings.edge.trusted_forwarders.len(), 1);
        settings.edge.check().unwrap();
    }
}
