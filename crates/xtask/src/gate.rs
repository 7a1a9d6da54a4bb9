//! `cargo xtask gate`: what takes minutes and is promised all the same. A machine may not let a test mount or freeze a disk,
//! and no package changes that: such a test says so, the summary counts it, and the gate passes.

mod fuzz;

use std::process::Command;

use crate::steps::{self, BINARIES, KAFKA, PACKAGES, Setup, Skips, Step};
use crate::workspace;

/// The tests of a disk that stands still; `cargo xtask test` leaves them out.
pub(crate) const STALLED: &str = "stalled::";

const STEPS: &[Step] = &[
    PACKAGES,
    BINARIES,
    KAFKA,
    ("every order of the ring's steps", loom),
    ("ten seconds of every fuzz target", fuzz::run),
    ("a stalled disk", |setup| {
        setup.cargo(&format!("test --workspace --test system {STALLED}"))
    }),
    ("a short audit", audit),
];

pub(crate) fn run() -> Result<(), String> {
    steps::run(STEPS, Skips::Pass)
}

/// The models of what two threads may see of a ring. Everything then has loom's atomics, so that it is built apart.
fn loom(setup: &Setup) -> Result<(), String> {
    let mut cargo = Command::new(workspace::cargo());
    cargo
        .args("test -p journal --lib --release ring::map".split(' '))
        .env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", setup.target.join("loom"));
    setup.run(&mut cargo)
}

/// One fault of every kind; the same ones each time, so that a failure is tried again as it was.
fn audit(setup: &Setup) -> Result<(), String> {
    let mut loadtest = Command::new(setup.target.join("debug/loadtest"));
    setup.run(loadtest.args(["audit", "--faults", "29", "--seed", "1"]))
}
