//! The bars: what is compared, how much it may be, and the table that says which are met.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::compare::Row;
use crate::measure::estimate::Estimate;

/// One bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bar {
    KeepAliveNginx,
    KeepAliveBare,
    MachineNginx,
    Instructions,
    ConnectionBare,
    ConnectionNginx,
    TlsNginx,
    TlsBare,
    Allocations,
    AppendMean,
    AppendTail,
    TailBare,
    SnapshotBytes,
    StartSeconds,
    GrowthUniform,
    GrowthZipf,
    IdleMemory,
}

/// A line of the table.
struct Line {
    bar: Bar,
    row: Row,
    what: &'static str,
    unit: &'static str,
    at_most: f64,
    aim: f64,
    digits: usize,
}

const fn line(
    bar: Bar,
    row: Row,
    what: &'static str,
    (at_most, aim): (f64, f64),
    (unit, digits): (&'static str, usize),
) -> Line {
    Line {
        bar,
        row,
        what,
        unit,
        at_most,
        aim,
        digits,
    }
}

const RATIO: (&str, usize) = ("", 3);

/// The table, in its order.
const LINES: [Line; 17] = [
    line(
        Bar::KeepAliveNginx,
        Row::KeepAlive,
        "CPU per redirect, keep-alive, against nginx",
        (0.92, 0.82),
        RATIO,
    ),
    line(
        Bar::KeepAliveBare,
        Row::KeepAlive,
        "the same against bare hyper",
        (1.20, 1.08),
        RATIO,
    ),
    line(
        Bar::MachineNginx,
        Row::Machine,
        "CPU of the whole machine per redirect, against nginx with a buffered log",
        (1.15, 1.0),
        RATIO,
    ),
    line(
        Bar::Instructions,
        Row::Bench,
        "user-space instructions per redirect, against bare hyper",
        (1.30, 1.12),
        RATIO,
    ),
    line(
        Bar::ConnectionBare,
        Row::NewConnection,
        "CPU per redirect on a new connection, against bare hyper",
        (1.06, 1.02),
        RATIO,
    ),
    line(
        Bar::ConnectionNginx,
        Row::NewConnection,
        "the same against nginx",
        (1.15, 1.05),
        RATIO,
    ),
    line(
        Bar::TlsNginx,
        Row::Tls,
        "CPU per redirect on a new TLS 1.3 connection, against nginx",
        (0.65, 0.58),
        RATIO,
    ),
    line(
        Bar::TlsBare,
        Row::Tls,
        "the same against hyper on rustls",
        (1.06, 1.03),
        RATIO,
    ),
    line(
        Bar::Allocations,
        Row::Bench,
        "heap allocations per keep-alive redirect, less bare hyper's",
        (2.0, 0.0),
        ("", 2),
    ),
    line(
        Bar::AppendMean,
        Row::Bench,
        "append to the journal, mean",
        (0.3, 0.15),
        ("µs", 3),
    ),
    line(
        Bar::AppendTail,
        Row::Bench,
        "append to the journal, p99.9",
        (20.0, 2.0),
        ("µs", 2),
    ),
    line(
        Bar::TailBare,
        Row::Tail,
        "p99.9 at half of the peak rate, against bare hyper",
        (1.5, 1.1),
        RATIO,
    ),
    line(
        Bar::SnapshotBytes,
        Row::Snapshot,
        "snapshot bytes per link, slug included",
        (32.0, 24.0),
        ("B", 2),
    ),
    line(
        Bar::StartSeconds,
        Row::Start,
        "start to first redirect, many links mapped, warm cache",
        (1.0, 0.2),
        ("s", 3),
    ),
    line(
        Bar::GrowthUniform,
        Row::Growth,
        "look-up growth from few to many links, uniform",
        (25.0, 10.0),
        ("%", 1),
    ),
    line(
        Bar::GrowthZipf,
        Row::Growth,
        "the same, Zipfian",
        (10.0, 3.0),
        ("%", 1),
    ),
    line(
        Bar::IdleMemory,
        Row::Memory,
        "user-space memory per idle keep-alive connection",
        (12.0, 2.0),
        ("KiB", 2),
    ),
];

/// What was measured of a bar. The bar is for `plain`; `full` is shown beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) plain: Estimate,
    pub(crate) full: Option<Estimate>,
}

impl From<Estimate> for Measured {
    fn from(plain: Estimate) -> Self {
        Self { plain, full: None }
    }
}

/// What came of each bar that was asked for; the text says why one was not measured.
pub(crate) type Results = BTreeMap<Bar, Result<Measured, String>>;

/// The bars of a row.
pub(crate) fn of(row: Row) -> impl Iterator<Item = Bar> {
    LINES
        .iter()
        .filter(move |line| line.row == row)
        .map(|line| line.bar)
}

/// The table of the bars in the results, and how many of them are met.
pub(crate) fn table(results: &Results) -> (String, usize) {
    let mut rows = vec![["what", "bar", "aim", "plain", "full", ""].map(str::to_owned)];
    let mut met = 0;
    for line in &LINES {
        let Some(result) = results.get(&line.bar) else {
            continue;
        };
        let unit = if line.unit.is_empty() {
            String::new()
        } else {
            format!(" {}", line.unit)
        };
        let text = |estimate: &Estimate| format!("{}{unit}", estimate.text(line.digits));
        let (plain, full, verdict) = match result {
            Ok(measured) => {
                let plain = measured.plain.median;
                // What is no number meets nothing.
                let is_met = plain <= line.at_most;
                met += usize::from(is_met);
                let verdict = match is_met {
                    _ if plain <= line.aim => "met, and the aim",
                    true => "met",
                    false => "not met",
                };
                let full = measured.full.as_ref().map(text);
                (
                    text(&measured.plain),
                    full.unwrap_or_default(),
                    verdict.to_owned(),
                )
            }
            Err(why) => (
                "not measured".to_owned(),
                String::new(),
                format!("not met: {why}"),
            ),
        };
        rows.push([
            line.what.to_owned(),
            format!("≤ {}{unit}", line.at_most),
            format!("≤ {}{unit}", line.aim),
            plain,
            full,
            verdict,
        ]);
    }
    (aligned(&rows), met)
}

/// Columns side by side; the last is as long as it is.
fn aligned(rows: &[[String; 6]]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max();
    let widths: Vec<usize> = (0..6).map(|at| width(at).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:<width$}  ").expect("a string takes everything");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(bar: Bar, result: Result<Measured, String>) -> (String, usize) {
        let (text, met) = table(&Results::from([(bar, result)]));
        (text.lines().nth(1).unwrap().to_owned(), met)
    }

    fn estimate(median: f64) -> Estimate {
        Estimate {
            median,
            low: median - 0.01,
            high: median + 0.01,
        }
    }

    #[test]
    fn the_middle_decides_and_only_that_of_plain() {
        for (median, expected, met) in [
            (0.82, "met, and the aim", 1),
            (0.915, "  met", 1),
            (0.925, "not met", 0),
            (f64::NAN, "not met", 0),
        ] {
            let measured = Measured {
                plain: estimate(median),
                full: Some(estimate(2.0)),
            };
            let (line, count) = verdict(Bar::KeepAliveNginx, Ok(measured));
            assert!(line.ends_with(expected), "{line}");
            assert!(line.contains("2.000 [1.990, 2.010]"), "{line}");
            assert_eq!(count, met, "{line}");
        }
    }

    #[test]
    fn what_is_not_measured_is_not_met() {
        let (line, met) = verdict(Bar::StartSeconds, Err("no --links-data".to_owned()));
        assert!(line.contains("not measured"), "{line}");
        assert!(line.ends_with("not met: no --links-data"), "{line}");
        assert_eq!(met, 0);
    }

    #[test]
    fn every_bar_stands_in_the_table_once() {
        let bars: std::collections::BTreeSet<Bar> = LINES.iter().map(|line| line.bar).collect();
        assert_eq!(bars.len(), LINES.len());
        assert!(LINES.iter().all(|line| line.aim <= line.at_most));
    }
}
