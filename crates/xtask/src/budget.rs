//! `cargo xtask budget`: what a redirect costs, held to what is written down in `benches/budget.toml`.
//!
//! Counts are compared after they are divided by those of bare hyper in the same run: another processor, C library or
//! compiler moves both.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::counts::{self, Counts, Measured};
use crate::workspace;

/// How much more than the budget is let pass.
const TOLERANCE: f64 = 0.03;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write down what is found as the new budget
    #[arg(long)]
    write: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let root = workspace::root();
    let target = workspace::metadata(&root)?
        .target_directory
        .into_std_path_buf();
    build(&root, &["build", "-p", "sluice", "--bins"])?;
    if !arguments.write {
        return check(&root, &target);
    }
    let (found, _) = measure(&root, &target)?;
    print!("{}", table(&found));
    let path = root.join("benches/budget.toml");
    fs::write(&path, text(&found)?).map_err(|error| format!("{}: {error}", path.display()))
}

/// Builds, counts and compares.
pub(crate) fn check(root: &Path, target: &Path) -> Result<(), String> {
    let path = root.join("benches/budget.toml");
    let budget: Measured = fs::read_to_string(&path)
        .map_err(|error| error.to_string())
        .and_then(|text| toml::from_str(&text).map_err(|error| error.to_string()))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let (found, _) = measure(root, target)?;
    print!("{}", table(&found));
    let over = exceeded(&budget, &found);
    if over.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}: make it cheaper, or say in the commit why it is worth it and run cargo xtask budget --write",
        over.join(", ")
    ))
}

/// Builds what is counted, and counts; with the steps of a plain redirect.
pub(crate) fn measure(root: &Path, target: &Path) -> Result<(Measured, String), String> {
    let line = [
        "build",
        "--release",
        "-p",
        "edge",
        "-p",
        "benches",
        "--bins",
    ];
    build(root, &line)?;
    counts::measure(&target.join("release"))
}

fn build(root: &Path, line: &[&str]) -> Result<(), String> {
    let status = Command::new(workspace::cargo())
        .args(line)
        .current_dir(root)
        .status()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("cargo {}", line.join(" ")))
    }
}

/// The counts as a table.
pub(crate) fn table(found: &Measured) -> String {
    let mut table =
        String::from("    a redirect           instructions  of bare  allocations  system calls\n");
    for (name, counts) in rows(found) {
        let of_bare = counts.instructions / found.bare.instructions;
        let Counts {
            instructions,
            allocations,
            system_calls,
        } = counts;
        let _ = writeln!(
            table,
            "    {name:<20} {instructions:>12.0} {of_bare:>8.3} {allocations:>12.2} {system_calls:>13.2}"
        );
    }
    table
}

fn rows(found: &Measured) -> [(&'static str, Counts); 3] {
    [
        ("bare", found.bare),
        ("plain", found.plain),
        ("full", found.full),
    ]
}

/// The counts as they are written down.
pub(crate) fn text(found: &Measured) -> Result<String, String> {
    let mut found = *found;
    for counts in [&mut found.bare, &mut found.plain, &mut found.full] {
        for value in [
            &mut counts.instructions,
            &mut counts.allocations,
            &mut counts.system_calls,
        ] {
            *value = (*value * 100.0).round() / 100.0;
        }
    }
    let values = toml::to_string(&found).map_err(|error| error.to_string())?;
    Ok(format!(
        "# What a redirect over a kept connection may cost; cargo xtask budget --write writes it. plain: a link without\n\
         # parameters, a visitor without a cookie. full: two sub ids, a cookie of two tokens. bare: hyper alone, which the\n\
         # others are divided by before they are compared.\n\n{values}"
    ))
}

fn exceeded(budget: &Measured, found: &Measured) -> Vec<String> {
    let mut over = Vec::new();
    for ((name, now), (_, then)) in rows(found).into_iter().zip(rows(budget)).skip(1) {
        for (what, now, bare, then, bare_then) in [
            (
                "instructions",
                now.instructions,
                found.bare.instructions,
                then.instructions,
                budget.bare.instructions,
            ),
            (
                "allocations",
                now.allocations,
                found.bare.allocations,
                then.allocations,
                budget.bare.allocations,
            ),
            (
                "system calls",
                now.system_calls,
                found.bare.system_calls,
                then.system_calls,
                budget.bare.system_calls,
            ),
        ] {
            let allowed = then / bare_then * bare;
            // What is no number does not fit.
            let fits = now <= allowed * (1.0 + TOLERANCE);
            if !fits {
                over.push(format!(
                    "{name}: {now:.2} {what} a redirect, {allowed:.2} are in the budget"
                ));
            }
        }
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(instructions: f64, system_calls: f64) -> Counts {
        Counts {
            instructions,
            allocations: 1.0,
            system_calls,
        }
    }

    #[test]
    fn more_than_three_percent_is_told() {
        let written = Measured {
            plain: counts(1000.0, 3.0),
            full: counts(2000.0, 3.0),
            bare: counts(800.0, 3.0),
        };
        let budget = toml::from_str(&text(&written).unwrap()).unwrap();
        assert!(exceeded(&budget, &written).is_empty());
        // Everything is dearer there, hyper too.
        let elsewhere = Measured {
            plain: counts(1120.0, 3.0),
            full: counts(2250.0, 3.0),
            bare: counts(900.0, 3.0),
        };
        assert!(exceeded(&budget, &elsewhere).is_empty());
        let dearer = Measured {
            plain: counts(1031.0, 3.0),
            full: Counts {
                allocations: 1.1,
                ..counts(2050.0, 3.2)
            },
            ..written
        };
        assert_eq!(
            exceeded(&budget, &dearer),
            [
                "plain: 1031.00 instructions a redirect, 1000.00 are in the budget",
                "full: 1.10 allocations a redirect, 1.00 are in the budget",
                "full: 3.20 system calls a redirect, 3.00 are in the budget"
            ]
        );
    }
}
