//! The repo's tasks, one file each. CI runs `cargo xtask test`, then `cargo xtask gate`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task tells the person who runs it what it does"
)]

mod bench;
mod budget;
mod gate;
mod kafka;
mod test;
mod tidy;

mod counts;
mod packages;
mod steps;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Set up what the tests need, then run every test and check there is
    Test,
    /// Run what takes minutes: models of the ring's steps, fuzz targets, a stalled disk, a short audit
    Gate,
    /// Check that the repo keeps its own rules
    Tidy,
    /// Count what a redirect costs in instructions and system calls, and compare it with the budget
    Budget(budget::Arguments),
    /// Measure the parts of a redirect and its cost as a whole, and keep the run
    Bench(bench::Arguments),
    /// Run a Kafka broker for a developer, until Ctrl-C
    Kafka(kafka::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Test => test::run(),
        Task::Gate => gate::run(),
        Task::Tidy => tidy::run(),
        Task::Budget(arguments) => budget::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Kafka(arguments) => kafka::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
