//! `cargo xtask test`: sets up what the tests need and runs all of them, but for what takes minutes: `cargo xtask gate`. A
//! skipped test is listed with its reason; in CI it is a failure, for everything that a test needs is set up here.

use crate::steps::{BINARIES, KAFKA, PACKAGES, Setup, Skips, Step};
use crate::{budget, gate, packages, steps, tidy};

/// In this order: what a developer breaks most often and learns of fastest comes first.
const STEPS: &[Step] = &[
    PACKAGES,
    ("format", |setup| setup.cargo("fmt --all --check")),
    ("self-checks", |setup| tidy::check(&setup.root)),
    ("licences, bans and sources", deny),
    ("clippy", |setup| {
        setup.cargo("clippy --workspace --all-targets -- -D warnings")
    }),
    BINARIES,
    KAFKA,
    ("Python", |setup| {
        let requirements = setup.root.join("docs/reader/requirements.txt");
        testkit::python::make(&setup.python(), &requirements)
    }),
    ("tests", |setup| {
        setup.cargo(&format!("test --workspace -- --skip {}", gate::STALLED))
    }),
    ("a redirect's budget", |setup| {
        budget::check(&setup.root, &setup.target)
    }),
    ("documentation", |setup| {
        setup.cargo("doc --workspace --no-deps --quiet")
    }),
    ("benchmarks compile", |setup| {
        setup.cargo("bench -p benches --no-run")
    }),
];

pub(crate) fn run() -> Result<(), String> {
    steps::run(STEPS, Skips::FailCi)
}

/// `cargo-deny` is a program of its own; without it the check is left to whoever has it.
fn deny(setup: &Setup) -> Result<(), String> {
    if !packages::on_path("cargo-deny") {
        println!("    note: cargo-deny is not installed: cargo install cargo-deny");
        return Ok(());
    }
    setup.cargo("deny check bans licenses sources")
}
