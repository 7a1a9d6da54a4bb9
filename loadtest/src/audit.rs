//! `loadtest audit`: proves that a click that was answered is counted, once.
//!
//! A whole system runs on a real Kafka, one process a part: broker, edge, courier, fraud, clicks, conversions. Clicks and
//! sales arrive at a steady rate while one process after another is killed, paused or restarted at random (seeded). Once the
//! faults are over and everything is folded, every answered click must be in the click index once, under the key of its
//! token, and in the topic at least once under the same identity; every answered sale must be one conversion; and the topics'
//! numbers must be without holes.
//!
//! The evidence stays in the folder where the audit fails.

mod cluster;
mod faults;
pub(crate) mod outage;
mod verdict;

mod books;
mod stored;
mod streamed;

mod clock;
pub(crate) mod mounts;
mod proxy;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::{Running, http, wait};

use cluster::Cluster;

use crate::place::{self, Place};

/// How long the rest may take once the faults are over.
const QUIET_MAX: Duration = Duration::from_secs(180);

/// A run that takes longer than a day is no run.
const LOAD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Clicks a second; a sale for every twentieth.
const RATE: u64 = 400;
const POSTBACK_EVERY: u64 = 20;

/// Of each sub id: as large a click as is usual, so that full disks are met within seconds.
const SUB_CHARS: usize = 200;

/// The id of the click that follows everything.
const LAST: &str = "last";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many faults
    #[arg(long, default_value_t = 20)]
    faults: u32,
    /// Which faults, and when; a run tells its own, so that it can be tried again
    #[arg(long)]
    seed: Option<u64>,
    /// Where to keep everything; a temporary folder where none is named
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Where the binaries under test lie; beside this one where it is not named
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Set by the audit itself, where it may mount
    #[arg(long, hide = true)]
    own_mounts: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if !arguments.own_mounts {
        let why = mounts::enter();
        println!("not run here: full disks ({why})");
    }
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|error| format!("no randomness: {error}"))?,
    };
    println!("seed {seed}");
    let own = std::env::current_exe()?;
    let bin = place::binaries(arguments.bin.as_deref())?;
    let jars = place::jars()?;
    let place = Place::new(arguments.folder.as_deref())?;
    let outcome = audit(arguments, seed, &place.folder, &bin, &own, &jars);
    place.leave(outcome)
}

fn audit(
    arguments: &Arguments,
    seed: u64,
    folder: &Path,
    bin: &Path,
    own: &Path,
    jars: &Path,
) -> Result<(), Box<dyn Error>> {
    let cluster = &mut Cluster::start(
        folder,
        bin,
        jars,
        cluster::With {
            disks: arguments.own_mounts,
            clock: true,
        },
    )?;
    if cluster.clock.is_none() {
        println!("not run here: a stepped clock (there is no libfaketime: install it)");
    }
    let possible = faults::Possible {
        disks: arguments.own_mounts,
        clock: cluster.clock.is_some(),
    };
    let ledger = folder.join("ledger");
    let mut random = fastrand::Rng::with_seed(seed);
    let plan = faults::plan(&mut random, arguments.faults, possible);
    // The load goes on until the faults are over.
    let until = folder.join("faults-are-over");
    let clicks = LOAD_MAX.as_secs() * RATE;

    let mut generate = Command::new(own);
    generate
        .args(["generate", "--host", cluster::HOST, "--click-param", "npk"])
        .args(["--edge", &cluster.edge.to_string()])
        .args(["--offer", "boots", "--affiliate", "trailblog"])
        .args(["--goal", "signup", "--retry", "--connections", "8"])
        .args(["--clicks", &clicks.to_string(), "--rate", &RATE.to_string()])
        .args(["--postback-every", &POSTBACK_EVERY.to_string()])
        .args(["--sub-chars", &SUB_CHARS.to_string()])
        .arg("--secret-file")
        .arg(cluster.data().join("demo/northpeak.secret"))
        .arg("--until")
        .arg(&until)
        .arg("--ledger")
        .arg(&ledger);
    let mut generator = Running::spawn(generate, &folder.join("generator"))?;

    let started = Instant::now();
    for (number, fault) in (1..).zip(&plan) {
        fault.happen(cluster)?;
        println!(
            "{:7.1} s  fault {number}: {fault}",
            started.elapsed().as_secs_f64()
        );
        if let Some(status) = generator.ended()
            && !status.success()
        {
            return Err(format!("the generator gave up: {}", generator.stderr()).into());
        }
    }
    cluster.all_up()?;
    std::fs::write(&until, "")?;
    let status = generator.wait(QUIET_MAX);
    if !status.is_some_and(|status| status.success()) {
        return Err(format!("the generator gave up: {}", generator.stderr()).into());
    }
    println!("{}", generator.stdout().trim_end());
    let filled = plan.iter().any(faults::Fault::fills_journals);
    finish(cluster, &ledger, arguments.faults, filled)
}

/// Waits until everything is folded once the faults are over, ends the system and says what was found. Only where a
/// journal's disk was full may a click have gone unrecorded.
fn finish(
    cluster: &mut Cluster,
    ledger: &Path,
    faults: u32,
    journals_filled: bool,
) -> Result<(), Box<dyn Error>> {
    // A fresh click gets through.
    let agent = "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0 last";
    let headers = [("Host", cluster::HOST), ("User-Agent", agent)];
    let last = http::get(
        cluster.edge,
        &format!("/c?offer=boots&aff=trailblog&ext={LAST}"),
        &headers,
    )?;
    if last.status != 302 {
        return Err(format!("the last click got {}", last.status).into());
    }
    let found = wait::holds_within(QUIET_MAX, || {
        cluster.keep_alive();
        cluster.check_books();
        verdict::is_quiet(cluster)
    });
    let judged = verdict::print(cluster, ledger, faults, journals_filled);
    if !found {
        // What the end made of it is no excuse: who stood still until then would have stood still for ever.
        return Err(format!("not everything was folded within {QUIET_MAX:?}").into());
    }
    judged
}
