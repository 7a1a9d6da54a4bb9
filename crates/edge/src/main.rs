//! `sluice-edge`: the redirector alone, for machines that only redirect.
//!
//! It starts from its last catalog snapshot and its keys with everything else down. What it records waits in its data
//! folder's journals for a courier.
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Parser;
use edge::{Edge, Keys, Parts};
use serde::Deserialize;
use service::{
    Clock, DataFolder, Health, Metrics, Refusal, Shutdown, Signals, admin, descriptors, handover,
    listen, logs,
};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The click redirector of Sluice, alone. Flags win over the settings file.
#[derive(Clone, Parser)]
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
    /// Take the place of the sluice-edge that runs on this data folder: it hands over its sockets, answers its open
    /// connections and ends; nobody is refused. Not for a service manager that starts it again when it ends.
    #[arg(long)]
    take_over: bool,
}

/// What a running process of this kind is asked for by its successor.
const HANDOVER: &str = "edge";

/// The top level of the settings file that this process knows.
const OWN: [&str; 3] = ["data", "edge", "admin"];

/// The settings file, which may be that of all processes: what is the others' is theirs to check.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Journals, keys and catalog versions; `sluice-data` where none is named.
    data: Option<PathBuf>,
    edge: edge::Settings,
    admin: Admin,
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

impl Arguments {
    /// The settings, with the flags that win over them.
    fn load(&self) -> Result<Settings, Refusal> {
        let mut settings: Settings = service::settings::load_own(self.settings.as_deref(), &OWN)?;
        settings.data = self.data.clone().or(settings.data);
        settings.edge.listen = self.edge.unwrap_or(settings.edge.listen);
        settings.admin.listen = self.admin.unwrap_or(settings.admin.listen);
        Ok(settings)
    }
}

fn main() -> ExitCode {
    logs::init();
    let code = run(&Arguments::parse()).unwrap_or_else(|refusal| {
        logs::flush();
        // Whoever closed standard error has the exit code.
        let _ = writeln!(std::io::stderr(), "sluice-edge: {refusal}");
        ExitCode::from(refusal.code())
    });
    logs::flush();
    code
}

fn refuse(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(error.to_string())
}

fn run(arguments: &Arguments) -> Result<ExitCode, Refusal> {
    let settings = arguments.load()?;
    let path = settings.data.unwrap_or_else(|| "sluice-data".into());
    listen::loopback_only(settings.admin.listen, "admin")?;
    let files_max = descriptors::raise();

    let mut predecessor = match arguments.take_over {
        true => handover::ask(&path, HANDOVER).map_err(|error| {
            refuse(format!("the running sluice-edge does not hand over: {error}: stop it, then start without --take-over"))
        })?,
        false => None,
    };
    let mut handed = |name| predecessor.as_mut().and_then(|running| running.take(name));
    let (edge_at, admin_at) = (settings.edge.listen, settings.admin.listen);
    let bound = listen::inherit_or_bind(edge_at, "edge", handed("edge"), true).and_then(|edge| {
        let admin = listen::inherit_or_bind(admin_at, "admin", handed("admin"), false)?;
        Ok((edge, admin))
    });
    // A start that is refused leaves nothing in a folder that was empty. One that is in use says more than an address.
    let bound = match bound {
        Err(refusal) if !service::folder::is_made(&path) => return Err(refusal.into()),
        bound => bound,
    };
    let data = match handed("lock") {
        Some(lock) => DataFolder::succeed(path, lock)?,
        None => DataFolder::open(path, &["edge"])?,
    };
    let (listener, admin_listener) = bound?;
    let address = listener.local_addr().map_err(refuse)?;
    let admin_address = admin_listener.local_addr().map_err(refuse)?;
    Keys::make_where_new(data.path()).map_err(refuse)?;
    let keys = Keys::read(&data.path().join("keys")).map_err(refuse)?;

    let scheme = settings.edge.scheme();
    let (shutdown, metrics, health) = (Shutdown::new(), Metrics::new(), Health::new());
    // Admin is there to the end: who drains is still watched.
    let over = Shutdown::new();
    let reloader = Arc::new(OnceLock::new());
    let load = {
        let arguments = arguments.clone();
        move || arguments.load().map(|settings| settings.edge)
    };
    Signals {
        shutdown: shutdown.clone(),
        health: health.clone(),
        drain_wait: Duration::from_secs(settings.edge.drain_wait_s),
        reload: edge::at_hang_up(arguments.settings.clone(), load, Arc::clone(&reloader)),
    }
    .hear()
    .map_err(refuse)?;
    let for_successor = [
        ("edge", listener.try_clone().map(Into::into)),
        ("admin", admin_listener.try_clone().map(Into::into)),
        ("lock", data.lock()),
    ];
    let edge = Edge::start(
        settings.edge,
        Parts {
            listener,
            journals: data.path().join("journal"),
            is_beside_predecessor: predecessor.is_some(),
            catalog: data.path().join("catalog"),
            seed: keys.seed(),
            keys: keys.tokens,
            serve_own_address: false,
            files_max,
            clock: Clock::system(),
            metrics: metrics.clone(),
            health: health.clone(),
            shutdown: shutdown.clone(),
        },
    )
    .map_err(refuse)?;
    let _ = reloader.set(edge.reloader());
    if let Some(predecessor) = predecessor
        && let Err(error) = predecessor.release()
    {
        tracing::warn!(%error, "the process before ended on its own");
    }
    let for_successor: std::io::Result<Vec<_>> = for_successor
        .into_iter()
        .map(|(name, descriptor)| Ok((name, descriptor?)))
        .collect();
    let succeeded = {
        let (health, shutdown, over) = (health.clone(), shutdown.clone(), over.clone());
        move || {
            health.drain();
            shutdown.succeed();
            over.request();
        }
    };
    let offered =
        for_successor.and_then(|handed| handover::offer(data.path(), HANDOVER, handed, succeeded));
    let offer = offered.unwrap_or_else(|error| {
        tracing::warn!(%error, "no successor can take over from this process");
        handover::Offer::default()
    });
    logs::say(format!(
        "sluice-edge {} is up: edge {scheme}://{address}, admin http://{admin_address}, data in {}\n",
        env!("CARGO_PKG_VERSION"),
        data.path().display()
    ));

    let ending = {
        let over = over.clone();
        let end = move || {
            while !shutdown.wait_timeout(Duration::MAX) {}
            offer.withdraw();
            let ended = edge.join();
            over.request();
            ended
        };
        let thread = std::thread::Builder::new().name("ending".into());
        thread.spawn(end).map_err(refuse)?
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(refuse)?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(admin_listener).map_err(refuse)?;
        // A copy stays: which thread frees the counters at the end is not left to chance, and counts of its work agree.
        let commands = admin::no_commands();
        admin::serve(listener, metrics.clone(), health, commands, over).await;
        Ok::<_, Refusal>(())
    })?;
    match ending.join() {
        Ok(Ok(())) => Ok(ExitCode::SUCCESS),
        Ok(Err(error)) => {
            tracing::error!(%error, "the edge did not end in good order, what it recorded is kept");
            Ok(ExitCode::FAILURE)
        }
        Err(_) => Ok(ExitCode::FAILURE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_all_processes_is_understood() {
        let text = include_str!("../../../deploy/sluice.toml");
        let file = std::path::Path::new("deploy/sluice.toml");
        let settings: Settings = service::settings::parse_own(text, file, &OWN).unwrap();
        assert_eq!(settings.edge.trusted_forwarders.len(), 1);
        settings.edge.check().unwrap();
    }

    #[test]
    fn every_section_of_the_file_of_all_processes_is_one_it_knows_or_leaves_alone() {
        let text: String = service::settings::SECTIONS
            .iter()
            .filter(|section| !OWN.contains(section))
            .map(|section| format!("[{section}]\nanything = 1\n"))
            .collect();
        let file = std::path::Path::new("sluice.toml");
        service::settings::parse_own::<Settings>(&text, file, &OWN).unwrap();
    }
}
