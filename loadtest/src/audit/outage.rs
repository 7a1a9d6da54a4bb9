//! `loadtest outage`: a broker that is away for longer than librdkafka keeps a message, under a steady load, and what
//! visitors notice of it.
//!
//! A click has a time at which it is due, and its latency counts from then, also when the one before it was answered late.
//! Latencies are cut into windows; the spread of the windows before the outage says how much they differ by themselves.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use testkit::wait;

use super::availability::Window;
use super::cluster::{Cluster, MACHINES, Part, With};
use super::load::Ledger;
use super::{finish, start_load};
use crate::drive::{Sample, quantile_ms};
use crate::place::{self, Place};
use crate::spread::Spread;
use crate::{plot, scrape};

/// Nothing that would slow the processes down.
const PLAIN: With = With {
    disks: false,
    clock: false,
};

const WINDOW: Duration = Duration::from_secs(10);

/// The load before anything is measured: a broker's first minute is slower than its second.
const WARM_UP: Duration = Duration::from_secs(30);

/// What is told apart after the broker is back.
const FIRST_MINUTE: Duration = Duration::from_secs(60);

/// A delivery lag below this is no lag: there is always something under way.
const LAG_SECONDS_MAX: f64 = 1.0;

/// How long the courier may take for what an outage left.
const DRAIN_MAX: Duration = Duration::from_secs(600);

/// Which visits come: the same in every run.
const SEED: u64 = 1;

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Thousandths, and what they are called.
const QUANTILES: [(usize, &str); 3] = [(500, "p50"), (990, "p99"), (999, "p99.9")];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Minutes without a broker; librdkafka's own message timeout is five
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Minutes measured before it, and at least after it
    #[arg(long, default_value_t = 3.0)]
    around_minutes: f64,
    /// Clicks a second
    #[arg(long, default_value_t = 400)]
    rate: u64,
    /// A sale for every so many clicks
    #[arg(long, default_value_t = 20)]
    postback_every: u64,
    /// Where to draw the latencies over time (SVG)
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Where to keep everything; a temporary folder where none is named
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Where the binaries under test lie; beside this one where it is not named
    #[arg(long)]
    bin: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let bin = place::binaries(arguments.bin.as_deref())?;
    let jars = place::jars()?;
    let place = Place::new(arguments.folder.as_deref())?;
    let outcome = show(arguments, &place.folder, &bin, &jars);
    place.leave(outcome)
}

fn show(
    arguments: &Arguments,
    folder: &Path,
    bin: &Path,
    jars: &Path,
) -> Result<(), Box<dyn Error>> {
    let away = Duration::try_from_secs_f64(arguments.minutes * 60.0)?;
    let around = Duration::try_from_secs_f64(arguments.around_minutes * 60.0)?;
    let mut cluster = Cluster::start(folder, bin, jars, PLAIN)?;
    let (rate, sale_every) = (arguments.rate, arguments.postback_every);
    let load = start_load(&cluster, folder, SEED, rate, sale_every)?;
    println!(
        "{} clicks a second, a sale for every {}th; broker away for {away:.0?}",
        arguments.rate, arguments.postback_every
    );

    pass(&mut cluster, WARM_UP);
    let before = load.elapsed();
    pass(&mut cluster, around);

    cluster.broker.kill9();
    let cut = load.elapsed();
    let bytes_at_cut = journal_bytes(&cluster)?;
    pass(&mut cluster, away);
    let bytes_at_return = journal_bytes(&cluster)?;
    let delivered_at_return = delivered(&mut cluster)?;
    let back = load.elapsed();
    cluster.broker.restart();

    let up = Instant::now();
    let drain = drain(&mut cluster)?;
    let drained_after = up.elapsed();
    let first_minute = back + FIRST_MINUTE;
    let end = (back + around)
        .max(first_minute + WINDOW)
        .max(load.elapsed());
    let rest = end.saturating_sub(load.elapsed());
    pass(&mut cluster, rest);
    let over = load.elapsed();
    let ledger = load.end()?;
    let samples = samples(&ledger);

    let phases = [
        Phase::of("before", &samples, before, cut),
        Phase::of("broker away", &samples, cut, back),
        Phase::of("first minute after", &samples, back, first_minute),
        Phase::of("later", &samples, first_minute, end),
    ];
    println!("clicks answered {}", samples.len());
    println!(
        "\nmilliseconds from when a click was due to its answer, in windows of {WINDOW:?}: median (lowest to highest)"
    );
    print_table(&phases);
    let clicks_away = phases[1].samples;
    let grown = bytes_at_return.saturating_sub(bytes_at_cut);
    println!(
        "\njournal   grew {grown} bytes without a broker, {:.0} a click (sales included)",
        grown as f64 / clicks_away.max(1) as f64
    );
    let caught_up = drain.delivered - delivered_at_return;
    println!(
        "drain     {caught_up:.0} records in {:.1} s after the broker was up: {:.0} a second, at most {:.0} in one second",
        drained_after.as_secs_f64(),
        caught_up / drained_after.as_secs_f64(),
        drain.most_a_second
    );
    if let Some(path) = &arguments.plot {
        let marks = [("broker killed", cut), ("broker started", back)];
        let text = plot::svg(
            &QUANTILES,
            &windows(&samples, before, end),
            before,
            WINDOW,
            &marks,
        );
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("plot      {}", path.display());
    }

    println!();
    let mut worse = false;
    for (at, (_, name)) in QUANTILES.iter().enumerate() {
        let (usual, without) = (phases[0].spread(at), phases[1].spread(at));
        let holds = without.median <= usual.highest;
        worse |= !holds;
        println!(
            "{name:6} without a broker {:.3} ms, highest window before {:.3} ms: {}",
            without.median,
            usual.highest,
            if holds { "not worse" } else { "WORSE" }
        );
    }
    let windows = [Window {
        kind: "the broker away",
        begins: Duration::ZERO,
        ends: over,
        dark_max: Duration::ZERO,
    }];
    finish(&mut cluster, &ledger, &windows, 1, false)?;
    if worse {
        return Err("redirects were slower without a broker than before, beyond the spread".into());
    }
    Ok(())
}

/// Lets time pass under load, with everything kept up.
fn pass(cluster: &mut Cluster, time: Duration) {
    let until = Instant::now() + time;
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return;
        }
        wait::pass(rest.min(LOOK_EVERY));
        cluster.keep_up();
    }
}

/// When each answered visit was due, and how long after that it was answered.
fn samples(ledger: &Ledger) -> Vec<Sample> {
    let answered = ledger.sent.iter().filter_map(|sent| {
        let (_, at) = sent.answered?;
        let whole = |number: u128| u32::try_from(number).unwrap_or(u32::MAX);
        Some(Sample {
            due_ms: whole(sent.due.as_millis()),
            took_us: whole(at.saturating_sub(sent.due).as_micros()),
        })
    });
    answered.collect()
}

struct Drain {
    /// Records the stream has acknowledged in all.
    delivered: f64,
    most_a_second: f64,
}

/// Waits until the courier has caught up.
fn drain(cluster: &mut Cluster) -> Result<Drain, Box<dyn Error>> {
    let started = Instant::now();
    let mut most_a_second = 0.0_f64;
    let mut last = (Instant::now(), delivered(cluster)?);
    while started.elapsed() < DRAIN_MAX {
        wait::pass(LOOK_EVERY);
        cluster.keep_up();
        let Some(lag) = courier(cluster, "sluice_courier_delivery_lag_seconds")? else {
            continue;
        };
        let now = delivered(cluster)?;
        let seconds = last.0.elapsed().as_secs_f64();
        if seconds >= 1.0 {
            most_a_second = most_a_second.max((now - last.1) / seconds);
            last = (Instant::now(), now);
        }
        if lag.into_iter().fold(0.0, f64::max) < LAG_SECONDS_MAX {
            let seconds = last.0.elapsed().as_secs_f64().max(LOOK_EVERY.as_secs_f64());
            return Ok(Drain {
                delivered: now,
                most_a_second: most_a_second.max((now - last.1) / seconds),
            });
        }
    }
    Err(format!("the courier did not catch up within {DRAIN_MAX:?}").into())
}

fn delivered(cluster: &mut Cluster) -> Result<f64, Box<dyn Error>> {
    let values = courier(cluster, "sluice_journal_delivered_total")?;
    Ok(values.ok_or("the courier is down")?.iter().sum())
}

/// A family of both couriers; `None` while one is being started again.
fn courier(cluster: &mut Cluster, family: &str) -> Result<Option<Vec<f64>>, Box<dyn Error>> {
    let mut all = Vec::new();
    for machine in MACHINES {
        let stdout = cluster
            .of(Part::Courier(machine))
            .map(|running| running.stdout());
        let Some(admin) = stdout.and_then(|stdout| scrape::address(&stdout, "admin")) else {
            return Ok(None);
        };
        all.extend(scrape::values(admin, family)?);
    }
    Ok(Some(all))
}

/// What the log files of every worker hold.
fn journal_bytes(cluster: &Cluster) -> Result<u64, Box<dyn Error>> {
    let mut bytes = 0;
    for machine in MACHINES {
        for folder in std::fs::read_dir(cluster.data(machine).join("journal"))? {
            bytes += journal::folder_bytes(&folder?.path())?;
        }
    }
    Ok(bytes)
}

/// The quantiles of each window of one phase.
struct Phase {
    name: &'static str,
    samples: usize,
    windows: Vec<[f64; QUANTILES.len()]>,
}

impl Phase {
    fn of(name: &'static str, samples: &[Sample], from: Duration, to: Duration) -> Phase {
        let due = from.as_millis()..to.as_millis();
        Phase {
            name,
            samples: samples
                .iter()
                .filter(|sample| due.contains(&u128::from(sample.due_ms)))
                .count(),
            windows: windows(samples, from, to),
        }
    }

    fn spread(&self, at: usize) -> Spread {
        Spread::of(self.windows.iter().map(|window| window[at]))
    }
}

/// The quantiles of every whole window between two times.
fn windows(samples: &[Sample], from: Duration, to: Duration) -> Vec<[f64; QUANTILES.len()]> {
    let count = (to.saturating_sub(from).as_millis() / WINDOW.as_millis()) as usize;
    let mut windows: Vec<Vec<u32>> = vec![Vec::new(); count];
    for sample in samples {
        let since = u128::from(sample.due_ms).checked_sub(from.as_millis());
        let at = since.map(|since| (since / WINDOW.as_millis()) as usize);
        if let Some(window) = at.and_then(|at| windows.get_mut(at)) {
            window.push(sample.took_us);
        }
    }
    let quantiles = windows.into_iter().map(|mut window| {
        window.sort_unstable();
        QUANTILES.map(|(thousandths, _)| quantile_ms(&window, thousandths))
    });
    quantiles.collect()
}

fn print_table(phases: &[Phase]) {
    print!("{:20}{:>8}", "", "windows");
    for (_, name) in QUANTILES {
        print!("  {name:28}");
    }
    println!();
    for phase in phases {
        print!("{:20}{:>8}", phase.name, phase.windows.len());
        for at in 0..QUANTILES.len() {
            print!("  {:28}", phase.spread(at).text(3));
        }
        println!();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(due_ms: u32, took_us: u32) -> Sample {
        Sample { due_ms, took_us }
    }

    #[test]
    fn a_click_belongs_to_the_window_it_was_due_in_and_half_a_window_to_none() {
        let samples = [
            sample(999, 9_000_000),
            sample(1_000, 2_000),
            sample(10_999, 3_000),
            sample(11_000, 5_000),
            sample(21_500, 7_000),
        ];
        let found = windows(&samples, Duration::from_secs(1), Duration::from_secs(29));
        assert_eq!(found, [[2.0, 3.0, 3.0], [5.0, 5.0, 5.0]]);
    }
}
