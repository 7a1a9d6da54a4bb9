//! What tasks that run many steps share: what a step gets, the steps that set up what others need, and the summary at the end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::{packages, workspace};

/// What the steps share.
pub(crate) struct Setup {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    skips: PathBuf,
}

impl Setup {
    /// Where the broker's jars lie.
    pub(crate) fn kafka(&self) -> PathBuf {
        self.target.join("kafka")
    }

    /// Where Python's packages lie.
    pub(crate) fn python(&self) -> PathBuf {
        self.target.join("python")
    }

    /// A program that finds what is set up and lists the tests that it skips.
    pub(crate) fn run(&self, command: &mut Command) -> Result<(), String> {
        let status = command
            .current_dir(&self.root)
            .env("SLUICE_SKIPS", &self.skips)
            .env(testkit::kafka::JARS_VARIABLE, self.kafka())
            .env(testkit::python::VARIABLE, self.python())
            .env("SLUICE_BIN_DIR", self.target.join("debug"))
            .status()
            .map_err(|error| format!("{command:?} does not start: {error}"))?;
        if status.success() {
            return Ok(());
        }
        let words: Vec<_> = [command.get_program()]
            .into_iter()
            .chain(command.get_args())
            .map(|word| word.to_string_lossy())
            .collect();
        Err(words.join(" "))
    }

    /// cargo with a line of arguments.
    pub(crate) fn cargo(&self, line: &str) -> Result<(), String> {
        self.run(
            Command::new(workspace::cargo())
                .args(line.split(' '))
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
        .map_err(|_| format!("cargo {line}"))
    }
}

/// One step: what it is called, and what it does.
pub(crate) type Step = (&'static str, fn(&Setup) -> Result<(), String>);

/// The first step of every task: without a compiler nothing below can run.
pub(crate) const PACKAGES: Step = ("system packages", |_| packages::ensure());

pub(crate) const BINARIES: Step = ("binaries for the whole-system tests", |setup| {
    setup.cargo("build -p sluice -p edge -p loadtest -p benches --bins")
});

pub(crate) const KAFKA: Step = ("Apache Kafka", |setup| {
    testkit::kafka::fetch(&setup.kafka())
});

/// Whether a test that cannot run here is a failure in CI (the variable `CI` is set).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skips {
    FailCi,
    Pass,
}

/// Runs all of them, also after one that failed, each announced with its time, and sums up.
pub(crate) fn run(steps: &[Step], skips: Skips) -> Result<(), String> {
    let root = workspace::root();
    let target = workspace::metadata(&root)?
        .target_directory
        .into_std_path_buf();
    let setup = Setup {
        skips: target.join("skips.txt"),
        root,
        target,
    };
    match fs::remove_file(&setup.skips) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(format!("{}: {error}", setup.skips.display()));
        }
        _ => {}
    }

    let started = Instant::now();
    let mut failed = Vec::new();
    for (index, (name, step)) in steps.iter().enumerate() {
        println!("[{}/{}] {name}", index + 1, steps.len());
        let step_started = Instant::now();
        let result = step(&setup);
        let seconds = step_started.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("    ok in {seconds:.1} s"),
            Err(error) => {
                println!("    FAILED in {seconds:.1} s: {error}");
                failed.push(*name);
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
    if !skipped.is_empty() && skips == Skips::FailCi && std::env::var_os("CI").is_some() {
        failed.push("skipped tests, which CI does not allow");
    }
    let seconds = started.elapsed().as_secs();
    if failed.is_empty() {
        println!("all steps passed in {seconds} s");
        return Ok(());
    }
    Err(format!("failed in {seconds} s: {}", failed.join(", ")))
}

fn skipped(path: &Path) -> Result<Vec<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(ToOwned::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}
