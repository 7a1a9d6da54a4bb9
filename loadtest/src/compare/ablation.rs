//! `loadtest ablation`: what one thing done otherwise costs, each row a server against itself with that one change.
//!
//! The rows stand in a file. A server is `bare-hyper` with its flags, `nginx` with words for its `listen`, or `sluice-edge` with
//! settings of `[edge]`, each the binary beside this one, or at a path from there: another build.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::compare::rows::pairs;
use crate::compare::{Comparison, Inputs, Options, servers};
use crate::measure::estimate::Estimate;
use crate::place::Place;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file of rows
    #[arg(long, default_value = "benches/ablation.toml")]
    rows: PathBuf,
    /// Only the rows whose name holds this
    #[arg(long)]
    only: Option<String>,
    #[command(flatten)]
    options: Options,
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    row: Vec<Row>,
}

/// One row.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// What is done otherwise.
    change: String,
    /// The case's name.
    case: String,
    /// What is changed.
    base: Command,
    /// With the change.
    with: Command,
    /// How `with` is built, where that is not how everything is.
    #[serde(default)]
    built: String,
}

/// A server's command line.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "String")]
pub(crate) struct Command {
    pub(crate) binary: String,
    pub(crate) arguments: Vec<String>,
}

impl From<String> for Command {
    fn from(line: String) -> Self {
        let mut words = line.split_whitespace().map(str::to_owned);
        Self {
            binary: words.next().unwrap_or_default(),
            arguments: words.collect(),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let place = Place::new(arguments.options.folder.as_deref())?;
    let outcome = show(arguments, &place.folder);
    place.leave(outcome)
}

fn show(arguments: &Arguments, folder: &Path) -> Result<(), Box<dyn Error>> {
    let file = &arguments.rows;
    let rows: Rows = fs::read_to_string(file)
        .map_err(|error| error.to_string())
        .and_then(|text| toml::from_str(&text).map_err(|error| error.to_string()))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let only = arguments.only.as_deref().unwrap_or_default();
    let rows: Vec<Row> = rows
        .row
        .into_iter()
        .filter(|row| row.change.contains(only))
        .collect();
    let inputs = Inputs::default();
    let mut comparison = Comparison::new(&arguments.options, &inputs, folder)?;
    let mut table = String::from(
        "| change | case | processor time a redirect | without | with |\n|---|---|---|---|---|\n",
    );
    let mut failed = Vec::new();
    for row in &rows {
        match comparison.ablation(row) {
            Ok([base, with, ratio]) => {
                let line = format!(
                    "| {} | {} | × {} | {} µs | {} µs |",
                    row.change,
                    row.case,
                    ratio.text(3),
                    base.text(2),
                    with.text(2)
                );
                println!("{line}");
                table += &format!("{line}\n");
            }
            Err(error) if row.built.is_empty() => failed.push(format!("{}: {error}", row.change)),
            Err(error) => failed.push(format!("{}: {error} (built by: {})", row.change, row.built)),
        }
        comparison.record.table(&table)?;
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(failed.join("\n").into())
    }
}

impl Comparison<'_> {
    /// Processor time without the change and with it, and their ratio pair by pair.
    fn ablation(&mut self, row: &Row) -> Result<[Estimate; 3], Box<dyn Error>> {
        let (case, sample) = self.case(&row.case)?;
        let load = self.load(&case, servers::visits(&case, sample.cookie.as_deref())?)?;
        let mut running = Vec::new();
        for command in [&row.base, &row.with] {
            running.push(self.yard.start_changed(command, &case, &sample)?);
        }
        running[0].name = "base".to_owned();
        running[1].name.clone_from(&row.change);
        let micros = self.micros("ablation", &mut running, &load)?;
        let (base, with) = (&micros[0], &micros[1]);
        Ok([Estimate::of(base), Estimate::of(with), pairs(with, base)])
    }
}
