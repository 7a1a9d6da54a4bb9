//! `loadtest swap`: a new version of the catalog comes into force under load, and nobody waits for it.
//!
//! What is measured is the edge's part: the versions are built before, and made the one in force while requests are due at a
//! constant rate on links that are clicked by Zipf's law.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use testkit::wait;

use crate::compare::links::Folder;
use crate::compare::rows::visits_to;
use crate::compare::servers::Yard;
use crate::measure::generator::{Generator, Plan, WINDOW};
use crate::measure::process;
use crate::place::{self, Place};
use crate::{case, plot, scrape};

/// Swaps in a run.
const SWAPS: u32 = 2;

/// An edge looks for a new version five times a second; reading all of ten million links takes seconds beside a load.
const IN_FORCE_MAX: Duration = Duration::from_secs(60);

/// A request in a swap that takes so much longer than the slowest of all others is slow because of it.
const SLOW: Duration = Duration::from_millis(10);

/// What belongs to a swap after the edge says that it is in force: the old version is let go.
const AFTER: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A folder with many links: what `loadtest links` wrote, and in `data` what `sluice catalog build` made of it
    #[arg(long)]
    links_data: PathBuf,
    /// Requests a second
    #[arg(long, default_value_t = 20_000.0)]
    rate: f64,
    /// Seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// The case: how the edge is set, and which links are clicked
    #[arg(long, default_value = "loadtest/cases/ten-million-links-zipf")]
    case: PathBuf,
    /// Where to keep the plot
    #[arg(long)]
    into: Option<PathBuf>,
    /// Where the binaries under test lie; beside this one where it is not named
    #[arg(long)]
    bin: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let place = Place::new(None)?;
    let outcome = show(arguments, &place.folder);
    place.leave(outcome)
}

fn show(arguments: &Arguments, folder: &Path) -> Result<(), Box<dyn Error>> {
    let bin = place::binaries(arguments.bin.as_deref())?;
    let case = case::Case::read(&arguments.case)?;
    let cases = arguments.case.canonicalize()?;
    let cases = cases.parent().ok_or("a case lies in a folder of cases")?;
    let mut yard = Yard::new(folder, cases, &bin, None)?;
    yard.samples(&[])?;
    let links = Folder::read(&arguments.links_data)?;
    let versions = versions(&bin, &arguments.links_data, &links)?;
    let [first, later @ ..] = &versions[..] else {
        return Err("no version".into());
    };
    links.make_current(*first)?;

    let server = yard.edge_on(&case, &links)?;
    let admin = scrape::address(&server.running.stdout().replace(", ", "\n"), "admin");
    let admin = admin.ok_or("the edge tells no address of its metrics")?;
    let plan = Plan {
        to: server.to,
        tls: None,
        connections: case.connections,
        new_connections: false,
        rate: Some(arguments.rate),
    };
    let mut generator = Generator::new(plan, visits_to(&case, &links))?;
    generator.run(case.warm_up(None))?.whole()?;
    let lasts = Duration::from_secs(arguments.seconds);
    let core = yard.cores[1];
    let started = Instant::now();
    let (outcome, swaps) = thread::scope(|scope| {
        let swapping = scope.spawn(|| -> Result<Vec<(Duration, Duration)>, String> {
            process::pin(&[core]).map_err(|error| error.to_string())?;
            let mut swaps = Vec::new();
            for (nth, version) in (1_u32..).zip(later) {
                let due = lasts * nth / (SWAPS + 1);
                wait::pass(due.saturating_sub(started.elapsed()));
                let begins = started.elapsed();
                links.make_current(*version)?;
                let in_force = wait::holds_within(IN_FORCE_MAX, || {
                    let seen = scrape::values(admin, "sluice_catalog_version");
                    seen.is_ok_and(|values| values == [f64::from(*version)])
                });
                if !in_force {
                    return Err(format!("version {version} did not come into force"));
                }
                swaps.push((begins, started.elapsed()));
            }
            Ok(swaps)
        });
        let outcome = generator.run(lasts);
        (outcome, swapping.join().expect("a swap does not panic"))
    });
    let (outcome, swaps) = (outcome?.whole()?, swaps?);

    println!(
        "{} links, {:.0} requests a second by Zipf's law for {} s, versions {versions:?}; latency p50 {:.0} µs, p99.9 {:.0} µs",
        links.slugs.len(),
        arguments.rate,
        arguments.seconds,
        outcome.quantile_us(0.5),
        outcome.quantile_us(0.999),
    );
    for (begins, ends) in &swaps {
        println!(
            "  swap at {:.1} s: in force after {:.2} s",
            begins.as_secs_f64(),
            (*ends - *begins).as_secs_f64()
        );
    }
    let (inside, outside) = slowest(&outcome.slowest_ns, &swaps);
    println!(
        "slowest request: {inside:.2} ms while a version was swapped, {outside:.2} ms at other times"
    );
    if let Some(into) = &arguments.into {
        fs::create_dir_all(into)?;
        let svg = plot::percentiles(&[("sluice, two swaps", &outcome.latencies)]);
        fs::write(into.join("swap.svg"), svg)?;
        let mut file = File::create(into.join("slowest-ms.txt"))?;
        for ns in &outcome.slowest_ns {
            writeln!(file, "{:.3}", *ns as f64 / 1e6)?;
        }
    }
    if swaps.iter().any(|(_, ends)| *ends + AFTER > lasts) {
        return Err(
            "a version came into force when the load was over: give it more --seconds".into(),
        );
    }
    if inside > outside + SLOW.as_secs_f64() * 1000.0 {
        return Err("requests were slow while a version was swapped".into());
    }
    Ok(())
}

/// The newest versions of the folder; what is missing is built first, of a catalog with one affiliate more each time.
fn versions(bin: &Path, folder: &Path, links: &Folder) -> Result<Vec<u32>, Box<dyn Error>> {
    let wanted = SWAPS as usize + 1;
    for nth in links.versions()?.len()..wanted {
        let text = fs::read_to_string(folder.join("catalog.toml"))?;
        let catalog = folder.join("catalog.swap.toml");
        fs::write(&catalog, format!("{text}\n[affiliate.swapped-{nth}]\n"))?;
        println!("building version {} of the catalog", nth + 1);
        let mut build = Command::new(bin.join("sluice"));
        build.args(["catalog", "build", "--catalog"]).arg(&catalog);
        build.arg("--links").arg(folder.join("links.csv"));
        build.arg("--data").arg(&links.data);
        if !build.status()?.success() {
            return Err("sluice catalog build failed".into());
        }
    }
    let all = links.versions()?;
    Ok(all[all.len().saturating_sub(wanted)..].to_vec())
}

/// The slowest request in milliseconds in the windows of the swaps, and that in all others.
fn slowest(windows_ns: &[u64], swaps: &[(Duration, Duration)]) -> (f64, f64) {
    let (mut inside, mut outside) = (0, 0);
    for (nth, ns) in (0_u32..).zip(windows_ns) {
        let (from, to) = (WINDOW * nth, WINDOW * (nth + 1));
        let in_swap = swaps
            .iter()
            .any(|(begins, ends)| from <= *ends + AFTER && *begins <= to);
        let slowest = if in_swap { &mut inside } else { &mut outside };
        *slowest = (*slowest).max(*ns);
    }
    (inside as f64 / 1e6, outside as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_slow_near_a_swap_is_told_apart() {
        let mut windows = vec![1_000_000; 40];
        windows[9] = 2_000_000;
        windows[12] = 7_000_000;
        windows[30] = 3_000_000;
        let swap = [(Duration::from_millis(1010), Duration::from_millis(1100))];
        assert_eq!(slowest(&windows, &swap), (7.0, 3.0));
        assert_eq!(slowest(&windows, &[]), (0.0, 7.0));
    }
}
