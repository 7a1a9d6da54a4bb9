//! `sluice`: every process of the system as a subcommand. Wires, decides nothing.

mod backup;
mod check;
mod commands;
mod consumers;
mod couriers;
mod demo;
mod follow;
mod gaps;
mod grow;
mod kafka_metrics;
mod lists;
mod live_line;
mod order;
mod parked;
mod published;
mod replay;
mod settings;
mod topics;
mod up;
mod waiting;
mod wall_clock;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use service::Refusal;
use up::Part;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Click and redirect tracking for affiliate and performance marketing.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The whole system in one process: embedded stream, SQLite, no other service needed.
    Up(up::Arguments),
    /// Ship the journals of this machine to Kafka.
    Courier(up::Common),
    /// Fold clicks into rollups, postbacks into conversions, and look for labels over time.
    Consume(up::Consume),
    /// List or fold events that could not be folded when they came.
    #[command(subcommand)]
    Parked(parked::Command),
    /// Numbers that are missing in a topic.
    #[command(subcommand)]
    Gaps(gaps::Command),
    /// Serve reports.
    Reports(up::Common),
    /// Make, check or grow the topics on Kafka.
    #[command(subcommand)]
    Topics(topics::Command),
    /// Say what a start would meet, and who must own what, without starting.
    Check(check::Check),
    /// Work with a catalog.
    #[command(subcommand)]
    Catalog(commands::Catalog),
    /// Make the keys of an installation.
    #[command(subcommand)]
    Keys(commands::Keys),
    /// Look into a worker's journal.
    #[command(subcommand)]
    Journal(commands::Journal),
    /// List and release what could not be sent.
    #[command(subcommand)]
    DeadLetters(commands::DeadLetters),
    /// Copy what this installation needs to go on elsewhere into a folder, while it runs.
    Backup(backup::Backup),
    /// Put a backup back on an empty folder.
    Restore(backup::Restore),
    /// List clicks, the newest first, as long as they are kept.
    Clicks(lists::Flags<lists::Clicks>),
    /// List conversions, the newest first, with status, reason, money and the click they are credited to.
    Conversions(lists::Flags<lists::Conversions>),
    /// Print a report: clicks, conversions and money.
    Report(commands::Report),
    /// What became of an order, and a correction of it by hand.
    #[command(subcommand)]
    Order(order::Command),
    /// Print the store's content in a canonical form, for comparing two stores.
    DumpStore(commands::DumpStore),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Up(arguments) => up::up(&arguments),
        Command::Courier(common) => up::one("courier", &[Part::Courier], &common),
        Command::Consume(arguments) => up::consume(&arguments),
        Command::Parked(command) => answered(parked::run(&command)),
        Command::Gaps(command) => answered(gaps::run(&command)),
        Command::Reports(common) => up::one("reports", &[Part::Reports], &common),
        Command::Check(arguments) => answered(check::check(&arguments)),
        Command::Topics(command) => answered(topics::run(&command)),
        Command::Catalog(command) => answered(commands::catalog(&command)),
        Command::Keys(command) => answered(commands::keys(&command)),
        Command::Journal(command) => answered(commands::journal(&command)),
        Command::DeadLetters(command) => answered(commands::dead_letters(&command)),
        Command::Backup(arguments) => answered(backup::backup(&arguments)),
        Command::Restore(arguments) => answered(backup::restore(&arguments)),
        Command::Clicks(flags) => answered(lists::clicks(&flags)),
        Command::Conversions(flags) => answered(lists::conversions(&flags)),
        Command::Report(arguments) => answered(commands::report(&arguments)),
        Command::Order(command) => answered(order::run(&command)),
        Command::DumpStore(arguments) => answered(commands::dump_store(&arguments)),
    };
    let code = done.unwrap_or_else(|refusal| {
        service::logs::flush();
        commands::complain(&refusal);
        ExitCode::from(refusal.code())
    });
    service::logs::flush();
    code
}

fn answered(done: Result<(), Refusal>) -> Result<ExitCode, Refusal> {
    done.map(|()| ExitCode::SUCCESS)
}
