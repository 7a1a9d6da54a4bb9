//! `loadtest compare`: nginx, a bare hyper and Sluice in turn, and the table of bars.
//!
//! Each row starts its servers, which stay running on one core, and loads one after the other from another core: slices of
//! seconds, in turn and back again, so that what drifts drifts for all. Each round gives a ratio; what counts is the median of
//! the ratios, with a bootstrap interval. Sluice's link `plain` has no rule, `full` has two sub ids and a cookie of two
//! tokens; rules and countries do not exist yet.

pub(crate) mod ablation;
mod bars;
mod drain;
mod record;
mod rows;

mod links;
mod servers;

pub(crate) mod swap;

use std::cell::Cell;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;

use crate::case::{self, Case};
use crate::compare::bars::{Bar, Measured, Results};
use crate::compare::record::Record;
use crate::compare::servers::{Kind, Sample, Yard};
use crate::measure::estimate::Estimate;
use crate::place::{self, Place};

/// More pairs than this are no comparison any more.
const PAIRS_MAX: usize = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these rows
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Row>,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    options: Options,
}

/// What some rows need.
#[derive(Debug, Default, clap::Args)]
struct Inputs {
    /// Only against these
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "nginx,bare-hyper"
    )]
    against: Vec<Kind>,
    /// A folder with many links: what `loadtest links` wrote, and in `data` what `sluice catalog build` made of it
    #[arg(long)]
    links_data: Option<PathBuf>,
    /// The same with few links, to see what more of them cost
    #[arg(long)]
    links_few: Option<PathBuf>,
    /// What `cargo xtask bench` measured (JSON)
    #[arg(long)]
    bench: Option<PathBuf>,
}

/// How servers are started and measured.
#[derive(Debug, clap::Args)]
struct Options {
    /// How often each is measured, in turn
    #[arg(long, default_value_t = 15)]
    pairs: usize,
    /// Seconds of a slice, instead of what each case says
    #[arg(long)]
    seconds: Option<f64>,
    /// Where to keep every slice, the table and the plots
    #[arg(long)]
    into: Option<PathBuf>,
    /// Where servers keep data, journals and logs meanwhile: on a disk. The system's temporary folder where none is named
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The folder of the cases
    #[arg(long, default_value = "loadtest/cases")]
    cases: PathBuf,
    /// Where the binaries under test lie; beside this one where it is not named
    #[arg(long)]
    bin: Option<PathBuf>,
    /// nginx, where it is not on the path
    #[arg(long)]
    nginx: Option<PathBuf>,
}

/// What is measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// Processor time of the process per redirect, keep-alive
    KeepAlive,
    /// Processor time of the whole machine, with a courier that drains to nothing
    Machine,
    /// A new connection for each redirect
    NewConnection,
    /// A new TLS connection for each redirect
    Tls,
    /// Latency at half of the peak rate
    Tail,
    /// Size of the snapshot of many links
    Snapshot,
    /// Start with many links
    Start,
    /// Many links against few
    Growth,
    /// Memory of idle connections
    Memory,
    /// What `--bench` says
    Bench,
    /// One core against two; no bar
    Scale,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let Inputs {
        links_data,
        links_few,
        bench,
        ..
    } = &arguments.inputs;
    // What a quarter of an hour would end with.
    for path in [links_data, links_few, bench].into_iter().flatten() {
        fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let place = Place::new(arguments.options.folder.as_deref())?;
    let outcome = show(arguments, &place.folder);
    place.leave(outcome)
}

fn show(arguments: &Arguments, folder: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments {
        inputs, options, ..
    } = arguments;
    let mut comparison = Comparison::new(options, inputs, folder)?;
    let mut failed = false;
    let mut results = Results::new();
    let rows = if arguments.rows.is_empty() {
        Row::value_variants()
    } else {
        &arguments.rows
    };
    for row in rows {
        let found = comparison.row(*row);
        for bar in bars::of(*row) {
            let result = match &found {
                Ok(found) => match found.iter().find(|(known, _)| *known == bar) {
                    Some((_, measured)) => Ok(*measured),
                    None => Err("not asked for".to_owned()),
                },
                Err(why) => Err(why.to_string()),
            };
            if let Ok(Measured { plain, full }) = &result {
                let full = full.as_ref().map(Estimate::json);
                let line = json!({"bar": format!("{bar:?}"), "plain": plain.json(), "full": full});
                comparison.record.line(&line)?;
            }
            results.insert(bar, result);
        }
        if let Err(why) = found
            && bars::of(*row).next().is_none()
        {
            println!("{why}");
            failed = true;
        }
    }
    let (table, met) = bars::table(&results);
    print!("\n{table}");
    println!(
        "\nRatios are medians of {} pairs [95 % bootstrap interval]; the bars are for plain. full: two sub ids and a cookie \
         of two tokens; rules and countries do not exist yet.",
        options.pairs
    );
    let verdict = format!("{met} of {} bars met", results.len());
    comparison.record.table(&format!("{table}\n{verdict}\n"))?;
    println!("{verdict}");
    Ok(if met == results.len() && !failed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the rows share.
struct Comparison<'a> {
    options: &'a Options,
    inputs: &'a Inputs,
    yard: Yard,
    /// With what Sluice answers to those with a link of the common catalog.
    cases: Vec<(Case, Option<Sample>)>,
    record: Record,
    /// Slices so far, each of which draws links of its own.
    slices: Cell<u64>,
}

impl<'a> Comparison<'a> {
    fn new(
        options: &'a Options,
        inputs: &'a Inputs,
        folder: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        if !(1..=PAIRS_MAX).contains(&options.pairs) {
            return Err(format!("--pairs is 1 to {PAIRS_MAX}").into());
        }
        let bin = place::binaries(options.bin.as_deref())?;
        let mut yard = Yard::new(folder, &options.cases, &bin, options.nginx.as_deref())?;
        let cases = case::all(&options.cases)?;
        let samples = yard.samples(&cases)?;
        let record = Record::create(options.into.as_deref(), &bin, &yard)?;
        Ok(Self {
            options,
            inputs,
            yard,
            cases: cases.into_iter().zip(samples).collect(),
            record,
            slices: Cell::new(0),
        })
    }

    fn row(&mut self, row: Row) -> Result<Vec<(Bar, Measured)>, Box<dyn Error>> {
        match row {
            Row::KeepAlive => self.cpu(
                &["keep-alive-plain", "keep-alive-full"],
                &[
                    (Kind::Nginx, Bar::KeepAliveNginx),
                    (Kind::BareHyper, Bar::KeepAliveBare),
                ],
            ),
            Row::Machine => self.machine(&["keep-alive-plain", "keep-alive-full"]),
            Row::NewConnection => self.cpu(
                &["new-connection", "new-connection-full"],
                &[
                    (Kind::Nginx, Bar::ConnectionNginx),
                    (Kind::BareHyper, Bar::ConnectionBare),
                ],
            ),
            Row::Tls => self.cpu(
                &["tls", "tls-full"],
                &[
                    (Kind::Nginx, Bar::TlsNginx),
                    (Kind::BareHyper, Bar::TlsBare),
                ],
            ),
            Row::Tail => self.tail(&["constant-rate", "constant-rate-full"]),
            Row::Snapshot => self.snapshot(),
            Row::Start => self.start("ten-million-links"),
            Row::Growth => self.growth(&[
                ("ten-million-links", Bar::GrowthUniform),
                ("ten-million-links-zipf", Bar::GrowthZipf),
            ]),
            Row::Memory => self.memory("idle"),
            Row::Bench => self.bench(),
            Row::Scale => self.scale("keep-alive-plain"),
        }
    }

    /// A case of the common catalog.
    fn case(&self, name: &str) -> Result<(Case, Sample), String> {
        let found = self.cases.iter().find(|(case, _)| case.name == name);
        match found {
            Some((case, Some(sample))) => Ok((case.clone(), sample.clone())),
            Some((_, None)) => Err(format!("case {name} names no slug")),
            None => Err(format!(
                "no case {name} in {}",
                self.options.cases.display()
            )),
        }
    }

    /// A case with links of its own.
    fn links_case(&self, name: &str) -> Result<Case, String> {
        let found = self.cases.iter().find(|(case, _)| case.name == name);
        let missing = || format!("no case {name} in {}", self.options.cases.display());
        Ok(found.ok_or_else(missing)?.0.clone())
    }

    /// The folder that a flag names.
    fn links(&self, flag: &str, folder: Option<&PathBuf>) -> Result<links::Folder, String> {
        links::Folder::read(folder.ok_or_else(|| format!("no {flag} given"))?)
    }
}

/// A run of one case against Sluice alone.
#[derive(Debug, clap::Args)]
pub(crate) struct CaseArguments {
    /// The case's folder
    folder: PathBuf,
    /// Seconds, instead of what the case says
    #[arg(long)]
    seconds: Option<f64>,
    /// A folder with many links, for a case that clicks them
    #[arg(long)]
    links_data: Option<PathBuf>,
    /// Where to keep the figures and the plot
    #[arg(long)]
    into: Option<PathBuf>,
    /// Where the binaries under test lie; beside this one where it is not named
    #[arg(long)]
    bin: Option<PathBuf>,
}

pub(crate) fn run_case(arguments: &CaseArguments) -> Result<(), Box<dyn Error>> {
    let place = Place::new(None)?;
    let outcome = show_case(arguments, &place.folder);
    place.leave(outcome)
}

fn show_case(arguments: &CaseArguments, folder: &Path) -> Result<(), Box<dyn Error>> {
    let case = Case::read(&arguments.folder)?;
    let cases = arguments.folder.canonicalize()?;
    let cases = cases.parent().ok_or("a case lies in a folder of cases")?;
    let readme = fs::read_to_string(arguments.folder.join("README.md"))?;
    println!("{}", readme.trim_end());
    let options = Options {
        pairs: 1,
        seconds: arguments.seconds,
        into: arguments.into.clone(),
        folder: None,
        cases: cases.to_path_buf(),
        bin: arguments.bin.clone(),
        nginx: None,
    };
    let inputs = Inputs {
        links_data: arguments.links_data.clone(),
        ..Inputs::default()
    };
    Comparison::new(&options, &inputs, folder)?.alone(&case)
}
