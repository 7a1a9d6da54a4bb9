//! Drives a running Sluice from outside: real clicks, made-up clicks, and the audit that nothing was lost.
//!
//! It knows Sluice by its HTTP and its catalog file alone, as a visitor, an advertiser and an affiliate do; only the courier
//! that a comparison drains a journal with is Sluice's own.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's answer goes to standard output, why it failed to standard error"
)]

mod audit;
mod catalog;
mod compare;
mod courier;
mod generate;
mod links;
mod power_cut;
mod replay;
mod replay_check;
mod restart;
mod stall;

mod case;
mod clicks_file;
mod drive;
mod index;
mod ledger;
mod load;
mod measure;
mod place;
mod plot;
mod scrape;
mod spread;
mod visitor;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// As the processes it stands in for when it drains a journal.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(name = "loadtest", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the catalog that matches a file of real clicks
    Catalog(catalog::Arguments),
    /// Write a catalog and a file of many made-up links
    Links(links::Arguments),
    /// Send a file of real clicks, and a postback for each that was attributed
    Replay(replay::Arguments),
    /// Send made-up clicks at a rate
    Generate(generate::Arguments),
    /// Compare a report with what the ledger of a replay says was answered
    ReplayCheck(replay_check::Arguments),
    /// Kill, pause and restart every process of a whole system on Kafka under load, then look for every answered click
    Audit(audit::Arguments),
    /// Stop the broker for minutes under load, and measure what visitors notice of it
    Outage(audit::outage::Arguments),
    /// Measure what a courier costs against a bare producer loop that sends the same bytes
    Courier(courier::Arguments),
    /// Compare Sluice with nginx and a bare hyper, and print which bars are met
    Compare(compare::Arguments),
    /// Measure what one thing done otherwise costs: each row of a file, with the change and without
    Ablation(compare::ablation::Arguments),
    /// Run one case against Sluice alone
    Case(compare::CaseArguments),
    /// Let new versions of a catalog with many links come into force under load
    Swap(compare::swap::Arguments),
    /// Restart the edge or the whole system under load, and look at every request
    Restart(restart::Arguments),
    /// Stall and freeze the disk of an edge's journals under load, and measure what visitors notice of it (root, Linux)
    Stall(stall::Arguments),
    /// Cut the power of the disk under a whole system, again and again (root, Linux)
    PowerCut(power_cut::Arguments),
}

fn main() -> ExitCode {
    let done: Result<(), Box<dyn Error>> = match Arguments::parse().command {
        Command::Compare(arguments) => match compare::run(&arguments) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Ablation(arguments) => compare::ablation::run(&arguments),
        Command::Case(arguments) => compare::run_case(&arguments),
        Command::Swap(arguments) => compare::swap::run(&arguments),
        Command::Catalog(arguments) => catalog::run(&arguments),
        Command::Links(arguments) => links::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::ReplayCheck(arguments) => replay_check::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Outage(arguments) => audit::outage::run(&arguments),
        Command::Courier(arguments) => courier::run(&arguments),
        Command::Restart(arguments) => restart::run(&arguments),
        Command::Stall(arguments) => stall::run(&arguments),
        Command::PowerCut(arguments) => power_cut::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}
