//! `cargo xtask test`: sets up what the tests need and runs all of them, each step announced with its time. A skipped test
//! is listed with its reason; in CI (the variable `CI` is set) it is a failure.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::{budget, packages, tidy, workspace};

/// What the steps share.
struct Setup {
    root: PathBuf,
    target: PathBuf,
    skips: PathBuf,
}

impl Setup {
    /// Where the broker's jars lie.
    fn kafka(&self) -> PathBuf {
        self.target.join("kafka")
    }

    /// Where Python's packages lie.
    fn python(&self) -> PathBuf {
        self.target.join("python")
    }
}

/// One step: what it is called, and what it does.
type Step = (&'static str, fn(&Setup) -> Result<(), String>);

/// In this order: what a developer breaks most often and learns of fastest comes first.
const STEPS: &[Step] = &[
    ("system packages", |_| packages::ensure()),
    ("format", |setup| cargo(setup, &["fmt", "--all", "--check"])),
    ("self-checks", |setup| tidy::check(&setup.root)),
    ("licences, bans and sources", deny),
    ("clippy", |setup| {
        let line = "clippy --workspace --all-targets -- -D warnings";
        cargo(setup, &words(line))
    }),
    ("binaries for the whole-system tests", |setup| {
        cargo(
            setup,
            &words("build -p sluice -p edge -p loadtest -p benches --bins"),
        )
    }),
    ("Apache Kafka", |setup| {
        testkit::kafka::fetch(&setup.kafka())
    }),
    ("Python", |setup| {
        let requirements = setup.root.join("docs/reader/requirements.txt");
        testkit::python::make(&setup.python(), &requirements)
    }),
    ("tests", |setup| cargo(setup, &["test", "--workspace"])),
    ("every order of the ring's steps", loom),
    ("a short audit", audit),
    ("a redirect's budget", |setup| {
        budget::check(&setup.root, &setup.target)
    }),
    ("documentation", |setup| {
        cargo(setup, &words("doc --workspace --no-deps --quiet"))
    }),
    ("benchmarks compile", |setup| {
        cargo(setup, &words("bench -p benches --no-run"))
    }),
];

pub(crate) fn run() -> Result<(), String> {
    let root = workspace::root();
    let target = workspace::metadata(&root)?
        .target_directory
        .into_std_path_buf();
    let skips = target.join("skips.txt");
    match fs::remove_file(&skips) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(format!("{}: {error}", skips.display()));
        }
        _ => {}
    }
    let setup = Setup {
        root,
        target,
        skips,
    };

    let started = Instant::now();
    let mut failed = Vec::new();
    for (index, (name, step)) in STEPS.iter().enumerate() {
        println!("[{}/{}] {name}", index + 1, STEPS.len());
        let step_started = Instant::now();
        let result = step(&setup);
        let seconds = step_started.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("    ok in {seconds:.1} s"),
            Err(error) => {
                println!("    FAILED in {seconds:.1} s: {error}");
                failed.push(*name);
                // Without a compiler nothing below can run.
                if index == 0 {
                    break;
                }
            }
        }
    }

    let skipped = skipped(&setup.skips)?;
    println!("tests skipped: {}", skipped.len());
    for line in &skipped {
        println!("    {line}");
    }
    if !skipped.is_empty() && std::env::var_os("CI").is_some() {
        failed.push("skipped tests, which CI does not allow");
    }
    let seconds = started.elapsed().as_secs();
    if failed.is_empty() {
        println!("all steps passed in {seconds} s");
        return Ok(());
    }
    Err(format!("failed in {seconds} s: {}", failed.join(", ")))
}

/// The models of what two threads may see of a ring. Everything then has loom's atomics, so that it is built apart.
fn loom(setup: &Setup) -> Result<(), String> {
    let status = Command::new(workspace::cargo())
        .args(words("test -p journal --lib --release ring::map"))
        .current_dir(&setup.root)
        .env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", setup.target.join("loom"))
        .status()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err("a model of the ring".to_owned())
}

/// One fault of every kind; the same ones each time, so that a failure is tried again as it was.
fn audit(setup: &Setup) -> Result<(), String> {
    let status = Command::new(setup.target.join("debug/loadtest"))
        .args(["audit", "--faults", "22", "--seed", "1"])
        .env(testkit::kafka::JARS_VARIABLE, setup.kafka())
        .status()
        .map_err(|error| format!("loadtest does not start: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err("loadtest audit".to_owned())
}

/// `cargo-deny` is a program of its own; without it the check is left to whoever has it.
fn deny(setup: &Setup) -> Result<(), String> {
    if !packages::on_path("cargo-deny") {
        println!("    note: cargo-deny is not installed: cargo install cargo-deny");
        return Ok(());
    }
    cargo(setup, &words("deny check bans licenses sources"))
}

fn cargo(setup: &Setup, arguments: &[&str]) -> Result<(), String> {
    let status = Command::new(workspace::cargo())
        .args(arguments)
        .current_dir(&setup.root)
        .env("SLUICE_SKIPS", &setup.skips)
        .env(testkit::kafka::JARS_VARIABLE, setup.kafka())
        .env(testkit::python::VARIABLE, setup.python())
        .env("SLUICE_BIN_DIR", setup.target.join("debug"))
        .env("RUSTDOCFLAGS", "-D warnings")
        .status()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("cargo {}", arguments.join(" ")))
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn skipped(path: &Path) -> Result<Vec<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(ToOwned::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}
