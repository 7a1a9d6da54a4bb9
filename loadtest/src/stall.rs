//! `loadtest stall`: an edge under a steady load whose journals' disk stands still, once because the device below it takes no
//! writes and once because the file system is frozen, as snapshots do. Nobody who is redirected may notice.
//!
//! The journals lie on an ext4 in a file on another ext4 in a file, both in a mount namespace of their own: freezing the outer
//! one is a device that does not answer, freezing the inner one is `fsfreeze`. A probe that writes to the disk meanwhile shows
//! that it stands still.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use testkit::{Running, System, bin, wait};

use crate::audit::mounts;
use crate::drive::{Outcome, quantile_ms};
use crate::load::{Load, Plan};
use crate::place::{self, Place};
use crate::{plot, scrape};

/// Room for minutes of clicks.
const DISK_BYTES: u64 = 2 << 30;
/// The inner disk and what its file system needs.
const DEVICE_BYTES: u64 = 3 << 30;
/// The load before anything is measured.
const WARM_UP: Duration = Duration::from_secs(5);
/// Of the plot.
const WINDOW: Duration = Duration::from_secs(1);
/// Far above a start, a drain and what a disk has to catch up.
const BOUND: Duration = Duration::from_secs(120);
/// Of a ring's bytes: at least so much was in it when it was found full, though records differ in length.
const FULL_SHARE: f64 = 0.9;
const QUANTILES: [(usize, &str); 3] = [(500, "p50"), (990, "p99"), (999, "p99.9")];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Clicks a second
    #[arg(long, default_value_t = 400)]
    rate: u64,
    /// Seconds measured before each
    #[arg(long, default_value_t = 60)]
    before_s: u64,
    /// Seconds in which the device takes no writes
    #[arg(long, default_value_t = 60)]
    stall_s: u64,
    /// Seconds in which the file system is frozen
    #[arg(long, default_value_t = 10)]
    freeze_s: u64,
    /// edge.ring_bytes, of the one worker
    #[arg(long, default_value_t = 64 << 20)]
    ring_bytes: u64,
    /// edge.ring_folder; in the machine's memory where none is named
    #[arg(long)]
    ring_folder: Option<PathBuf>,
    /// The longest answer that is no failure, in milliseconds
    #[arg(long, default_value_t = 50.0)]
    longest_ms: f64,
    /// How many times the p99.9 of the time before it may be
    #[arg(long, default_value_t = 2.0)]
    times: f64,
    /// Where to draw the latencies over time (SVG)
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Where to keep everything; a temporary folder where none is named
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Set by the command itself, once it has mounts of its own
    #[arg(long, hide = true)]
    own_mounts: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if !rustix::process::geteuid().is_root() {
        return Err("not run here: mounting and freezing a file system needs root".into());
    }
    if !arguments.own_mounts {
        return Err(format!("not run here: {}", mounts::enter()).into());
    }
    let place = Place::new(arguments.folder.as_deref())?;
    let outcome = show(arguments, &place.folder);
    place.leave(outcome)
}

/// A stretch of the run.
struct Phase {
    name: &'static str,
    from: Duration,
    to: Duration,
}

fn show(arguments: &Arguments, folder: &Path) -> Result<(), Box<dyn Error>> {
    let data = folder.join("data");
    // An installation with the demo's catalog and keys; all that its journals had is shipped.
    System::start(&data, &[]).stop();
    let journals = data.join("journal");
    fs::remove_dir_all(&journals)?;
    let device = Disk::mount(
        &folder.join("device.ext4"),
        DEVICE_BYTES,
        &folder.join("device"),
    )?;
    let disk = Disk::mount(&folder.join("device/disk.ext4"), DISK_BYTES, &journals)?;
    fs::remove_dir(journals.join("lost+found"))?;

    let settings = folder.join("sluice.toml");
    let ring_bytes = arguments.ring_bytes;
    let mut text = format!("[edge]\nworkers = 1\nring_bytes = {ring_bytes}\n");
    if let Some(ring_folder) = &arguments.ring_folder {
        text += &format!("ring_folder = {:?}\n", ring_folder.display().to_string());
    }
    fs::write(&settings, text)?;
    let address = testkit::lasting_address();
    let mut command = Command::new(bin("sluice-edge"));
    command.args(["--edge", &address.to_string(), "--admin", "127.0.0.1:0"]);
    command
        .arg("--settings")
        .arg(&settings)
        .arg("--data")
        .arg(&data);
    let mut edge = place::start(command, &folder.join("edge"), BOUND, |edge| {
        edge.stdout().contains("is up: edge")
    })?;
    let stdout = edge.stdout();
    let admin = stdout.split("admin http://").nth(1);
    let admin = admin.and_then(|rest| rest.split(',').next()?.parse().ok());
    let admin = admin.ok_or("the edge does not say where its metrics are")?;
    let recorded = || -> Result<f64, Box<dyn Error>> {
        let counted = scrape::values(admin, "sluice_edge_answered_total{outcome=\"recorded\"}")?;
        Ok(counted.into_iter().sum())
    };

    let load = Load::start(&Plan {
        edge: address,
        data: data.clone(),
        ledger: folder.join("ledger"),
        rate: arguments.rate,
        // The first alone: a sale waits for the disk, as it should.
        postback_every: u64::MAX,
        sub_chars: 0,
        connections: 32,
        retry: true,
    })?;
    println!(
        "{} clicks a second, a ring of {ring_bytes} bytes",
        arguments.rate
    );
    wait::pass(WARM_UP);
    let mut phases = Vec::new();
    let mut held_back = 0.0_f64;
    for (before, name, still, seconds) in [
        ("before it", "stalled device", &device, arguments.stall_s),
        ("before it", "frozen", &disk, arguments.freeze_s),
    ] {
        let from = load.elapsed();
        wait::pass(Duration::from_secs(arguments.before_s));
        let to = load.elapsed();
        phases.push(Phase {
            name: before,
            from,
            to,
        });

        let before = recorded()?;
        let frozen = still.freeze()?;
        let probe = probe(&journals);
        let from = load.elapsed();
        wait::pass(Duration::from_secs(seconds));
        let to = load.elapsed();
        held_back = held_back.max(recorded()? - before);
        frozen.thaw()?;
        phases.push(Phase { name, from, to });
        let stood = probe.join().map_err(|_| "the probe panicked")??;
        println!(
            "{name}: a write to the disk took {:.1} s",
            stood.as_secs_f64()
        );
        if stood < to - from - Duration::from_secs(1) {
            return Err("the disk did not stand still".into());
        }
        wait::until("the disk catches up", BOUND, || {
            scrape::values(admin, "sluice_journal_unsynced_seconds")
                .is_ok_and(|ages| ages.iter().all(|age| *age < 1.0))
        });
    }
    let end = load.elapsed();
    let outcome = load.end()?;
    if let Some(error) = outcome.broken {
        return Err(format!("the load gave up: {error}").into());
    }
    if let Some(path) = &arguments.plot {
        draw(path, &outcome, &phases, end)?;
    }
    let written = stop(&mut edge, &journals, outcome.redirected + outcome.accepted)?;
    drop((disk, device));

    let mut wrong = tell(&phases, &outcome, arguments);
    println!(
        "clicks {} recorded {} unrecorded {} otherwise {}",
        outcome.samples.len(),
        outcome.redirected,
        outcome.unrecorded,
        outcome.refused
    );
    let bytes_a_record = written.0 as f64 / written.1 as f64;
    let held_back = held_back * bytes_a_record;
    println!("the ring held back {held_back:.0} of {ring_bytes} bytes");
    if outcome.unrecorded > 0 && held_back < FULL_SHARE * ring_bytes as f64 {
        wrong.push("clicks went unrecorded though the ring was not full".to_owned());
    }
    if outcome.refused > 0 {
        wrong.push("clicks were answered otherwise than with a redirect".to_owned());
    }
    if wrong.is_empty() {
        println!("nobody noticed");
        return Ok(());
    }
    Err(wrong.join("; ").into())
}

/// Milliseconds of each phase, and what is wrong with them.
fn tell(phases: &[Phase], outcome: &Outcome, arguments: &Arguments) -> Vec<String> {
    let mut wrong = Vec::new();
    println!("milliseconds from when a click was due to its answer");
    println!(
        "{:16}{:>8}{:>10}{:>10}{:>10}{:>10}",
        "", "clicks", "p50", "p99", "p99.9", "longest"
    );
    let mut usual = f64::INFINITY;
    for Phase { name, from, to } in phases {
        let took = took_us(outcome, *from, *to);
        let [p50, p99, p999] = QUANTILES.map(|(thousandths, _)| quantile_ms(&took, thousandths));
        let longest = quantile_ms(&took, 1000);
        let clicks = took.len();
        println!("{name:16}{clicks:>8}{p50:>10.3}{p99:>10.3}{p999:>10.3}{longest:>10.3}");
        if *name == "before it" {
            usual = p999;
            continue;
        }
        if p999 > arguments.times * usual {
            wrong.push(format!(
                "{name}: p99.9 is {p999:.3} ms, {:.1} times what it was before",
                p999 / usual
            ));
        }
        if longest > arguments.longest_ms {
            wrong.push(format!("{name}: somebody waited {longest:.3} ms"));
        }
    }
    wrong
}

/// Sorted.
fn took_us(outcome: &Outcome, from: Duration, to: Duration) -> Vec<u32> {
    let due = from.as_millis()..to.as_millis();
    let samples = outcome.samples.iter();
    let samples = samples.filter(|sample| due.contains(&u128::from(sample.due_ms)));
    let mut took: Vec<u32> = samples.map(|sample| sample.took_us).collect();
    took.sort_unstable();
    took
}

fn draw(path: &Path, outcome: &Outcome, phases: &[Phase], end: Duration) -> Result<(), String> {
    let start = phases.first().map_or(Duration::ZERO, |phase| phase.from);
    let count = (end - start).as_secs();
    let windows: Vec<[f64; 3]> = (0..u32::try_from(count).unwrap_or(u32::MAX))
        .map(|nth| {
            let from = start + WINDOW * nth;
            let took = took_us(outcome, from, from + WINDOW);
            QUANTILES.map(|(thousandths, _)| quantile_ms(&took, thousandths))
        })
        .collect();
    let mut marks = Vec::new();
    for phase in phases.iter().filter(|phase| phase.name != "before it") {
        marks.extend([(phase.name, phase.from), ("goes on", phase.to)]);
    }
    let text = plot::svg(&QUANTILES, &windows, start, WINDOW, &marks);
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Ends the edge; every click that got a token is in the log. Bytes and records of the log.
fn stop(edge: &mut Running, journals: &Path, answered: u64) -> Result<(u64, u64), Box<dyn Error>> {
    let status = edge.terminate(BOUND).ok_or("the edge does not end")?;
    if !status.success() {
        return Err(format!("the edge ended with {status}: {}", edge.stderr()).into());
    }
    let (mut bytes, mut records) = (0, 0);
    for journal in fs::read_dir(journals)? {
        let journal = journal?.path();
        let found = journal::inspect(&journal)?;
        if !found.agrees() || found.ring.is_some() {
            return Err(
                format!("{}: what was recorded is not in its log", journal.display()).into(),
            );
        }
        bytes += found.files.iter().map(|file| file.bytes).sum::<u64>();
        records += found.files.iter().map(|file| file.records).sum::<u64>();
    }
    // And the end of the worker's stream.
    if records != answered + 1 {
        return Err(format!(
            "{answered} clicks and sales are recorded and {records} records are there"
        )
        .into());
    }
    Ok((bytes, records))
}

/// How long the disk takes for a small file.
fn probe(journals: &Path) -> JoinHandle<std::io::Result<Duration>> {
    let path = journals.with_file_name("journal").join("probe");
    thread::spawn(move || {
        let begun = Instant::now();
        let mut file = File::create(&path)?;
        file.write_all(b"probe")?;
        file.sync_all()?;
        let took = begun.elapsed();
        fs::remove_file(&path)?;
        Ok(took)
    })
}

/// An ext4 in a file; dropping unmounts it.
struct Disk(PathBuf);

impl Disk {
    fn mount(image: &Path, bytes: u64, at: &Path) -> Result<Disk, Box<dyn Error>> {
        fs::create_dir_all(at)?;
        File::create_new(image)?.set_len(bytes)?;
        tool(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(image))?;
        tool(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(image)
                .arg(at),
        )?;
        Ok(Disk(at.to_owned()))
    }

    fn freeze(&self) -> Result<Frozen, String> {
        tool(Command::new("fsfreeze").arg("-f").arg(&self.0))?;
        Ok(Frozen(self.0.clone()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What cannot be unmounted goes with the namespace.
        let _ = tool(Command::new("umount").arg(&self.0));
    }
}

/// A frozen file system; dropping thaws it, because nobody could unmount it otherwise.
struct Frozen(PathBuf);

impl Frozen {
    fn thaw(self) -> Result<(), String> {
        tool(Command::new("fsfreeze").arg("-u").arg(&self.0))?;
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = tool(Command::new("fsfreeze").arg("-u").arg(&self.0));
    }
}

/// A program of the system that must succeed: `mounts::enter` has tried whether it may.
fn tool(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?} does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}", said.trim()))
}
