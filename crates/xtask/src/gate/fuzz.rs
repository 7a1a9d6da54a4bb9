//! Builds every fuzz target of the repo and runs each for ten seconds.
//!
//! cargo-fuzz needs a nightly compiler for AddressSanitizer. Coverage alone, which guides the fuzzer, a stable one has too; the
//! few lines of unsafe code are not what is fuzzed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::MetadataCommand;

use crate::steps::Setup;
use crate::workspace;

/// cargo-fuzz's own, but for the sanitizer.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1";

/// An input that takes this long is a hang, an input that takes so much memory a leak: the targets take 65 MB and run thousands
/// of inputs a second.
const LIMITS: [&str; 3] = ["-max_total_time=10", "-timeout=20", "-rss_limit_mb=512"];

/// How much of what a failed fuzzer said is shown: a panic and its stack. Values that are not equal may be long.
const LINES_MAX: usize = 60;
const LINE_CHARS_MAX: usize = 300;

pub(super) fn run(setup: &Setup) -> Result<(), String> {
    let mut failed = Vec::new();
    let mut count = 0;
    for package in workspace::metadata(&setup.root)?.workspace_packages() {
        let folder = package.manifest_path.with_file_name("fuzz");
        if !folder.join("Cargo.toml").exists() {
            continue;
        }
        let cargo = Cargo {
            target: setup.target.join("fuzz"),
            folder: folder.into_std_path_buf(),
        };
        let name = &package.name;
        // The versions that are shipped; only the fuzzer's own are added.
        let lock = cargo.folder.join("Cargo.lock");
        fs::copy(setup.root.join("Cargo.lock"), &lock)
            .map_err(|error| format!("{}: {error}", lock.display()))?;
        let is_built = cargo.command("build").status();
        if !is_built.is_ok_and(|status| status.success()) {
            failed.push(format!("{name}: the fuzz targets are not built"));
            continue;
        }
        for target in cargo.targets()? {
            count += 1;
            match cargo.fuzz(&target) {
                Ok(inputs) => println!("    {name} {target}: {inputs} inputs"),
                Err(error) => failed.push(format!("{name} {target}: {error}")),
            }
        }
    }
    if count == 0 && failed.is_empty() {
        return Err("no crate has a fuzz/Cargo.toml".to_owned());
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(failed.join("\n"))
}

/// cargo for the fuzz targets of one crate.
struct Cargo {
    /// Of all crates, so that what they share is built once.
    target: PathBuf,
    /// Where the manifest is.
    folder: PathBuf,
}

impl Cargo {
    fn command(&self, verb: &str) -> Command {
        let mut cargo = Command::new(workspace::cargo());
        // With a target named, build scripts and macros are built without the flags.
        cargo
            .args([verb, "--quiet", "--release", "--target", "host-tuple"])
            .current_dir(&self.folder)
            .env("RUSTFLAGS", FLAGS)
            .env("CARGO_TARGET_DIR", &self.target);
        cargo
    }

    /// As the manifest names them.
    fn targets(&self) -> Result<Vec<String>, String> {
        let metadata = MetadataCommand::new()
            .manifest_path(self.folder.join("Cargo.toml"))
            .no_deps()
            .exec()
            .map_err(|error| format!("{}: {error}", self.folder.display()))?;
        let targets = metadata.packages.into_iter().flat_map(|fuzz| fuzz.targets);
        Ok(targets
            .filter(cargo_metadata::Target::is_bin)
            .map(|target| target.name)
            .collect())
    }

    /// How many inputs passed; or what one did that did not.
    fn fuzz(&self, target: &str) -> Result<String, String> {
        // What the fuzzer keeps goes to the first folder; the corpus it only reads.
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        let log = scratch.path().join("log");
        let kept = scratch.path().join("corpus");
        let made = fs::create_dir(&kept).and_then(|()| File::create(&log));
        let about = |error| format!("{}: {error}", scratch.path().display());

        let input = self.target.join(format!("{target}.input"));
        let _ = fs::remove_file(&input);
        let mut artifact = OsString::from("-exact_artifact_path=");
        artifact.push(&input);
        let status = self
            .command("run")
            .args(["--bin", target, "--"])
            .args(LIMITS)
            .args(["-verbosity=0", "-print_final_stats=1"])
            .arg(artifact)
            .arg(&kept)
            .arg(self.folder.join("corpus").join(target))
            .stderr(made.map_err(about)?)
            .status()
            .map_err(|error| format!("cargo does not start: {error}"))?;
        let said = fs::read(&log).map_err(about)?;
        let said = String::from_utf8_lossy(&said);
        let inputs = said
            .lines()
            .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        match inputs {
            Some(inputs) if status.success() => Ok(inputs.trim().to_owned()),
            _ => Err(failure(&said, &input)),
        }
    }
}

/// What the fuzzer said, and the input, so that somebody who has only this text can try it again.
fn failure(said: &str, input: &Path) -> String {
    let lines: Vec<&str> = said.lines().collect();
    let mut text = String::new();
    for line in &lines[lines.len().saturating_sub(LINES_MAX)..] {
        text.extend(line.chars().take(LINE_CHARS_MAX));
        text.push('\n');
    }
    let Ok(bytes) = fs::read(input) else {
        return format!("{text}no input was found that fails");
    };
    text += &format!("this input fails, {}:\n", input.display());
    for byte in bytes {
        text += &format!("{byte:02x}");
    }
    text + "\nrebuild it with xxd -r -p, and add it to the corpus once it passes"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_brings_its_input() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("frame.input");
        let said = format!("panicked at {}\n", "0, ".repeat(1000));
        assert!(failure(&said, &input).ends_with("\nno input was found that fails"));
        fs::write(&input, [0, 255, 10]).unwrap();
        let text = failure(&said, &input);
        assert!(text.starts_with("panicked at 0, 0"), "{text}");
        assert!(text.contains("\n00ff0a\n"), "{text}");
        assert!(text.len() < 1000, "{text}");
    }
}
