//! `loadtest courier`: what a courier costs, against a bare producer loop that sends the same bytes.
//!
//! A real edge records clicks; its journal is copied twice: as it is, and without the visitors' addresses, which leaves the
//! courier nothing to enrich. Couriers ship them to a real broker; then, in turn, the courier ships one again and the bare
//! loop (`crates/stream/examples/bare_producer.rs`) sends what the courier had made of it, with the same settings.
//!
//! The courier is measured from outside and whole: start, connecting and reading the journal are its own cost. The bare
//! loop is measured from its first message to its last acknowledgement.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use domain::event::EdgeRecord;
use indicatif::ProgressBar;
use journal::{Log, Options, Position, Reader, StreamId};
use prost::Message;
use testkit::kafka::Broker;
use testkit::{Running, wait};

use crate::drive::{self, Run};
use crate::ledger::Ledger;
use crate::load::{HOST, TARGET};
use crate::place::{self, Place};
use crate::spread::Spread;
use crate::{generate, scrape};

/// A start or an end on a machine that also compiles.
const BOUND: Duration = Duration::from_secs(60);

/// How long one run may take.
const RUN_MAX: Duration = Duration::from_secs(300);

/// Often enough to time seconds, seldom enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(50);

const PARTITIONS: u16 = 4;

/// Bytes read from the journal at once.
const READ_BYTES_MAX: usize = 1 << 20;

/// At most so much of a bare loop's processor time a message, without enrichment.
const RATIO_MAX: f64 = 1.5;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many clicks
    #[arg(long, default_value_t = 300_000)]
    clicks: u64,
    /// How often each is measured
    #[arg(long, default_value_t = 5)]
    rounds: u32,
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
    let bare = bin.join("examples/bare_producer");
    if !bare.is_file() {
        return Err(format!(
            "{} is not built: run cargo build --release -p stream --example bare_producer",
            bare.display()
        )
        .into());
    }
    let place = Place::new(arguments.folder.as_deref())?;
    let outcome = show(arguments, &place.folder, &bin, &bare, &jars);
    place.leave(outcome)
}

fn show(
    arguments: &Arguments,
    folder: &Path,
    bin: &Path,
    bare: &Path,
    jars: &Path,
) -> Result<(), Box<dyn Error>> {
    let data = folder.join("edge");
    record(&data, bin, arguments.clicks)?;
    let broker = Broker::start(jars, &folder.join("kafka"), &[]);
    let mut variants = Vec::new();
    for enriched in [false, true] {
        let variant = Variant::make(folder, &data, enriched, bin, &broker.address())?;
        // Fills the topic that the bare loop reads, and warms the broker up.
        variant.ship(bin, &broker.address(), arguments.clicks)?;
        variants.push(variant);
    }
    for round in 1..=arguments.rounds {
        for variant in &mut variants {
            let courier = variant.ship(bin, &broker.address(), arguments.clicks)?;
            let loop_alone = variant.send_bare(bare, &broker.address(), arguments.clicks)?;
            println!(
                "round {round}, enrichment {:3}: courier {courier}, bare loop {loop_alone}",
                variant.name()
            );
            variant.courier.push(courier);
            variant.bare.push(loop_alone);
        }
    }

    println!(
        "\n{} messages a run, {} runs: median (lowest to highest)",
        arguments.clicks, arguments.rounds
    );
    let mut missed = None;
    for variant in &variants {
        let (courier, bare) = (Figures::of(&variant.courier), Figures::of(&variant.bare));
        let ratio = courier.micros.median / bare.micros.median;
        println!("enrichment {}", variant.name());
        for (name, figures) in [("courier", &courier), ("bare loop", &bare)] {
            println!(
                "  {name:10} {} µs of processor a message, {} messages a second",
                figures.micros.text(2),
                figures.rate.text(0)
            );
        }
        println!("  processor a message: {ratio:.2} of the bare loop's");
        if !variant.enriched && ratio > RATIO_MAX {
            missed = Some(ratio);
        }
    }
    match missed {
        Some(ratio) => Err(format!("{ratio:.2} is more than {RATIO_MAX}").into()),
        None => Ok(()),
    }
}

/// Fills the journal of a real edge with one worker.
fn record(data: &Path, bin: &Path, clicks: u64) -> Result<(), Box<dyn Error>> {
    // Keys and the demo catalog come from a first start of everything.
    let mut first = Command::new(bin.join("sluice"));
    first.args(["up", "--edge", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    first.args(["--reports", "127.0.0.1:0", "--data"]).arg(data);
    let mut first = up(first, &data.with_extension("first"))?;
    first
        .terminate(BOUND)
        .ok_or("the first start does not end")?;
    std::fs::remove_dir_all(data.join("journal"))?;

    let settings = data.with_extension("toml");
    std::fs::write(
        &settings,
        "[edge]\nworkers = 1\ntrusted_forwarders = [\"127.0.0.0/8\"]\n",
    )?;
    let mut edge = Command::new(bin.join("sluice-edge"));
    let address = testkit::lasting_address();
    edge.args(["--edge", &address.to_string(), "--admin", "127.0.0.1:0"]);
    edge.arg("--settings")
        .arg(&settings)
        .arg("--data")
        .arg(data);
    let mut edge = up(edge, &data.with_extension("output"))?;
    click(address, &data.with_extension("ledger"), clicks)?;
    let status = edge.terminate(BOUND);
    if !status.is_some_and(|status| status.success()) {
        return Err(format!("the edge ended with {status:?}: {}", edge.stderr()).into());
    }
    Ok(())
}

fn click(edge: SocketAddr, ledger: &Path, clicks: u64) -> Result<(), Box<dyn Error>> {
    let ledger = Ledger::create(ledger)?;
    let run = Run {
        edge,
        host: HOST,
        connections: 8,
        rate: 0,
        retry: false,
        click_param: "npk",
        goal: "signup",
        secret: None,
        ledger: &ledger,
        until: None,
    };
    let targets = [TARGET.to_owned()];
    let visits = |index| generate::visit(0, index, &targets, None, 0);
    let outcome = drive::drive(
        &run,
        Instant::now(),
        clicks,
        &visits,
        &ProgressBar::hidden(),
    );
    if outcome.redirected < clicks {
        let why = outcome.broken;
        return Err(format!(
            "only {} clicks were redirected: {why:?}",
            outcome.redirected
        )
        .into());
    }
    Ok(())
}

fn up(command: Command, output: &Path) -> Result<Running, Box<dyn Error>> {
    place::start(command, output, BOUND, |running| {
        running.stdout().contains("admin ")
    })
}

/// One journal, its topic, and what was measured.
struct Variant {
    enriched: bool,
    data: PathBuf,
    settings: PathBuf,
    courier: Vec<Cost>,
    bare: Vec<Cost>,
}

impl Variant {
    fn make(
        folder: &Path,
        edge: &Path,
        enriched: bool,
        bin: &Path,
        brokers: &str,
    ) -> Result<Variant, Box<dyn Error>> {
        let variant = Variant {
            enriched,
            data: folder.join(if enriched { "enriched" } else { "plain" }),
            settings: folder.join(if enriched {
                "enriched.toml"
            } else {
                "plain.toml"
            }),
            courier: Vec::new(),
            bare: Vec::new(),
        };
        for name in ["keys", "journal/0"] {
            std::fs::create_dir_all(variant.data.join(name))?;
        }
        for key in std::fs::read_dir(edge.join("keys"))? {
            let key = key?;
            std::fs::copy(key.path(), variant.data.join("keys").join(key.file_name()))?;
        }
        copy_journal(
            &edge.join("journal/0"),
            &variant.data.join("journal/0"),
            enriched,
        )?;
        let text = format!(
            "[stream]\nprefix = \"{}\"\npartitions = {PARTITIONS}\n",
            variant.prefix()
        );
        std::fs::write(&variant.settings, text)?;
        let made = Command::new(bin.join("sluice"))
            .args(["topics", "create", "--replication", "1", "--kafka", brokers])
            .arg("--settings")
            .arg(&variant.settings)
            .output()?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into());
        }
        Ok(variant)
    }

    fn name(&self) -> &'static str {
        if self.enriched { "on" } else { "off" }
    }

    fn prefix(&self) -> &'static str {
        if self.enriched { "enriched" } else { "plain" }
    }

    /// Lets a courier ship the whole journal, from its beginning.
    fn ship(&self, bin: &Path, brokers: &str, clicks: u64) -> Result<Cost, Box<dyn Error>> {
        let cursors = self.data.join("cursors");
        if cursors.exists() {
            std::fs::remove_dir_all(&cursors)?;
        }
        let mut command = Command::new(bin.join("sluice"));
        command.args(["courier", "--admin", "127.0.0.1:0", "--kafka", brokers]);
        command.arg("--settings").arg(&self.settings);
        command.arg("--data").arg(&self.data);
        let mut courier = up(command, &self.data.with_extension("output"))?;
        // Its courier thread has only just been started.
        let started = Instant::now();
        let admin = scrape::address(&courier.stdout(), "admin").ok_or("it tells no address")?;
        let mut shipped = 0.0;
        while shipped < clicks as f64 {
            wait::pass(LOOK_EVERY);
            shipped = scrape::values(admin, "sluice_journal_delivered_total")?
                .iter()
                .sum();
            if started.elapsed() > RUN_MAX || courier.ended().is_some() {
                return Err(format!(
                    "{shipped} of {clicks} shipped after {RUN_MAX:?}: {}",
                    courier.stderr()
                )
                .into());
            }
        }
        let cost = Cost {
            seconds: started.elapsed().as_secs_f64(),
            cpu_seconds: cpu_seconds(courier.pid())?,
            messages: clicks,
        };
        courier.terminate(BOUND).ok_or("the courier does not end")?;
        Ok(cost)
    }

    fn send_bare(&self, bare: &Path, brokers: &str, clicks: u64) -> Result<Cost, Box<dyn Error>> {
        let topic = format!("{}.{}", self.prefix(), domain::Topic::Clicks.name());
        let output = Command::new(bare)
            .args([
                brokers,
                &topic,
                &PARTITIONS.to_string(),
                &clicks.to_string(),
            ])
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers = text
            .trim()
            .split_once(' ')
            .ok_or("the bare loop tells no figures")?;
        Ok(Cost {
            seconds: numbers.0.parse()?,
            cpu_seconds: numbers.1.parse()?,
            messages: clicks,
        })
    }
}

/// The same records, with the visitors' addresses or without.
fn copy_journal(from: &Path, to: &Path, addresses: bool) -> Result<(), Box<dyn Error>> {
    let mut reader = Reader::open(from, Position::default())?;
    let (mut log, _) = Log::open(to, Options::new(StreamId::random()))?;
    let mut entries = Vec::new();
    while reader.read(&mut entries, READ_BYTES_MAX)? > 0 {
        for entry in entries.drain(..) {
            let mut record = EdgeRecord::decode(&*entry.payload)?;
            if !addresses {
                record.address.clear();
            }
            log.append(&record.encode_to_vec())?;
        }
    }
    log.sync()?;
    Ok(())
}

/// What one run took.
struct Cost {
    seconds: f64,
    cpu_seconds: f64,
    messages: u64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} µs, {:.0} a second", self.micros(), self.rate())
    }
}

impl Cost {
    fn micros(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.messages as f64
    }

    fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }
}

/// The runs of one program.
struct Figures {
    micros: Spread,
    rate: Spread,
}

impl Figures {
    fn of(costs: &[Cost]) -> Figures {
        Figures {
            micros: Spread::of(costs.iter().map(Cost::micros)),
            rate: Spread::of(costs.iter().map(Cost::rate)),
        }
    }
}

/// Processor time of a process, user and system, with all of its threads.
fn cpu_seconds(pid: u32) -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in brackets, which may hold spaces; user and system time are 14 and 15.
    let (_, fields) = text.rsplit_once(')').ok_or("not a process's state")?;
    let ticks = fields.split(' ').skip(12).take(2).map(str::parse::<u32>);
    let ticks = ticks.sum::<Result<u32, _>>()?;
    // The unit of every Linux: hundredths.
    Ok(f64::from(ticks) / 100.0)
}
