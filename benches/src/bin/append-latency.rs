//! What an append to the journal takes, at a steady rate and with the log synced beside it: mean and percentiles, as JSON.
//!
//! The calling thread spins from one append to the next, as a worker at full load comes from one request to the next. The
//! clock is read before and after; what reading it takes is measured first and taken off.

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use journal::{Options, StreamId, Syncer};

/// A click's record with a few sub ids is about this long.
const RECORD_BYTES: usize = 300;
/// So often the clock is read for nothing, to know what reading it takes.
const CLOCK_READS: u32 = 100_000;

/// Appends records at a rate while the log is synced, and prints what an append took.
#[derive(Parser)]
struct Arguments {
    /// A folder on the disk that the journal would lie on; it is made, and left behind.
    #[arg(long)]
    folder: PathBuf,
    /// Appends a second.
    #[arg(long, default_value_t = 50_000)]
    rate: u32,
    /// Milliseconds between syncs.
    #[arg(long, default_value_t = 20)]
    sync_ms: u64,
    /// Seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let options = Options::new(StreamId::random());
    std::fs::create_dir_all(&arguments.folder)?;
    let (mut writer, flusher, _) = journal::open(&arguments.folder, options)?;
    let interval = Duration::from_millis(arguments.sync_ms);
    let syncer = Syncer::new(interval);
    syncer.add(flusher, |_| {})?;

    let begun = Instant::now();
    for _ in 0..CLOCK_READS {
        std::hint::black_box(Instant::now());
    }
    let clock_ns = (begun.elapsed() / CLOCK_READS).as_nanos();
    let clock_ns = u64::try_from(clock_ns)?;

    let record = [0x5a; RECORD_BYTES];
    let mut taken_ns = Histogram::<u64>::new(3)?;
    let between = Duration::from_secs(1) / arguments.rate;
    let begun = Instant::now();
    for number in 0..arguments.rate * arguments.seconds {
        let due = between * number;
        while begun.elapsed() < due {
            std::hint::spin_loop();
        }
        let before = Instant::now();
        writer.append(&record)?;
        let taken = u64::try_from(before.elapsed().as_nanos())?;
        taken_ns.record(taken.saturating_sub(clock_ns).max(1))?;
    }
    drop(writer);
    syncer.stop()?;
    println!(
        "{{\"appends\": {}, \"mean_ns\": {:.1}, \"p50_ns\": {}, \"p99_ns\": {}, \"p999_ns\": {}, \"max_ns\": {}, \"clock_ns\": {clock_ns}}}",
        taken_ns.len(),
        taken_ns.mean(),
        taken_ns.value_at_quantile(0.5),
        taken_ns.value_at_quantile(0.99),
        taken_ns.value_at_quantile(0.999),
        taken_ns.max(),
    );
    Ok(())
}
