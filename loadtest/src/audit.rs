//! `loadtest audit`: proves that a click that was answered is counted, once, where it belongs, and that visitors were answered.
//!
//! A whole system runs on a real Kafka, one process a part, on two machines. Visits of many visitors and sales arrive at a
//! steady rate, whether or not anybody answers, while one process after another is killed, paused or restarted at random
//! (seeded). Once the faults are over and everything is folded:
//!
//! - what the generator sent and what it was answered makes a plain model (`model.rs`), and every cell of the rollups and every
//!   label must be as the model has it;
//! - every answered click is in the index once, under the key of its token, as it was sent, and in the topic at least once under
//!   the same identity; every click's time is the machine's of that moment;
//! - every accepted sale is one conversion, and the topics' numbers are without holes;
//! - the ledgers' equations hold, and agree with a walk of the journals' files that shares no code with them (`walk.rs`);
//! - no edge was dark for longer than what happened explains (`availability.rs`), and no part had to be started again that
//!   nothing had ended.
//!
//! The evidence stays in the folder where the audit fails.

mod cluster;
mod faults;
pub(crate) mod outage;
mod verdict;

mod last;
mod load;
mod visits;

mod availability;
mod books;
mod model;
mod stored;
mod streamed;
mod walk;

mod clock;
pub(crate) mod mounts;
mod proxy;
mod syncs;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::wait;

use availability::Window;
use cluster::Cluster;
use load::{Ledger, Load};

use crate::place::{self, Place};

/// How long the rest may take once the faults are over.
const QUIET_MAX: Duration = Duration::from_secs(180);

/// One sale for so many clicks.
const SALE_EVERY: u64 = 20;

/// How long an edge may be dark while nothing happens.
const DARK_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many faults
    #[arg(long, default_value_t = 20)]
    faults: u32,
    /// Which faults, and when; a run tells its own, so that it can be tried again
    #[arg(long)]
    seed: Option<u64>,
    /// Visits a second, over both machines
    #[arg(long, default_value_t = 400)]
    rate: u64,
    /// For how many seconds the load goes on when the faults are over; how busy the processors are is told for them
    #[arg(long, default_value_t = 2)]
    afterwards_s: u64,
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
        testkit::skip("audit: full disks", &why);
    }
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|error| format!("no randomness: {error}"))?,
    };
    println!("seed {seed}");
    let bin = place::binaries(arguments.bin.as_deref())?;
    let jars = place::jars()?;
    let place = Place::new(arguments.folder.as_deref())?;
    let outcome = audit(arguments, seed, &place.folder, &bin, &jars);
    place.leave(outcome)
}

fn audit(
    arguments: &Arguments,
    seed: u64,
    folder: &Path,
    bin: &Path,
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
        testkit::skip(
            "audit: a stepped clock",
            "there is no libfaketime: install it",
        );
    }
    if cluster.syncs.is_none() {
        testkit::skip(
            "audit: syncs that fail",
            "there is no C compiler: install cc",
        );
    }
    let possible = faults::Possible {
        disks: arguments.own_mounts,
        clock: cluster.clock.is_some(),
        syncs: cluster.syncs.is_some(),
    };
    let mut random = fastrand::Rng::with_seed(seed);
    let plan = faults::plan(&mut random, arguments.faults, possible);

    let load = start_load(cluster, folder, seed, arguments.rate, SALE_EVERY)?;
    let mut windows = vec![Window {
        kind: "nothing",
        begins: Duration::ZERO,
        ends: Duration::ZERO,
        dark_max: DARK_MAX,
    }];
    let mut excused = false;
    for (number, fault) in (1..).zip(&plan) {
        // What ends because of a fault may be found to have ended during the next one.
        cluster.excuse = fault.excuses() || excused;
        excused = fault.excuses();
        begin(&mut windows, load.elapsed(), fault.kind(), fault.dark_max());
        let done = fault.happen(cluster);
        println!(
            "{:7.1} s  fault {number}: {fault}",
            load.elapsed().as_secs_f64()
        );
        done?;
    }
    cluster.all_up()?;
    begin(&mut windows, load.elapsed(), "afterwards", DARK_MAX);
    let before = processors()?;
    wait::pass(Duration::from_secs(arguments.afterwards_s));
    let after = processors()?;
    end(&mut windows, load.elapsed());
    let [busy, all] = [0, 1].map(|at| after[at] - before[at]);
    println!("processors {} % busy afterwards", busy * 100 / all.max(1));
    let ledger = load.end()?;
    let filled = plan.iter().any(faults::Fault::fills_journals);
    finish(cluster, &ledger, &windows, arguments.faults, filled)
}

/// Ticks of all processors since the machine's start: busy ones, and all (proc_stat(5)).
fn processors() -> Result<[u64; 2], Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let ticks = stat.lines().next().unwrap_or_default().split(' ');
    let ticks: Vec<u64> = ticks.filter_map(|ticks| ticks.parse().ok()).collect();
    // User, nice, system, idle, waiting for a disk, interrupts …; guests are in the first two.
    let all: u64 = ticks.iter().take(8).sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok([all - idle, all])
}

fn start_load(
    cluster: &Cluster,
    folder: &Path,
    seed: u64,
    rate: u64,
    sale_every: u64,
) -> Result<Load, String> {
    Load::start(load::Plan {
        edges: cluster.edges.to_vec(),
        rate,
        sale_every,
        seed,
        secrets: &cluster.catalog(),
        evidence: &folder.join("answers"),
    })
}

/// Ends the window before and begins another.
fn begin(windows: &mut Vec<Window>, at: Duration, kind: &'static str, dark_max: Duration) {
    end(windows, at);
    windows.push(Window {
        kind,
        begins: at,
        ends: at,
        dark_max,
    });
}

fn end(windows: &mut [Window], at: Duration) {
    if let Some(before) = windows.last_mut() {
        before.ends = at;
    }
}

/// Waits until everything is folded once the faults are over, ends the system and says what was found. Only where a
/// journal's disk was full may a click have gone unrecorded.
fn finish(
    cluster: &mut Cluster,
    ledger: &Ledger,
    windows: &[Window],
    faults: u32,
    journals_filled: bool,
) -> Result<(), Box<dyn Error>> {
    last::send(cluster)?;
    cluster.excuse = false;
    let found = wait::holds_within(QUIET_MAX, || {
        cluster.keep_alive();
        cluster.check_books();
        wait::pass(Duration::from_secs(1));
        cluster.books.settled() && last::is_counted(cluster)
    });
    let judged = verdict::print(cluster, ledger, windows, faults, journals_filled);
    if !found {
        // What the end makes of it is no excuse: who stood still until then would have stood still for ever.
        return Err(format!("not everything was folded within {QUIET_MAX:?}").into());
    }
    judged
}
