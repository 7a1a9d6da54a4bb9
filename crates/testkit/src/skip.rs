//! A test that cannot run here says so; `cargo xtask test` and `cargo xtask gate` list it. In CI the first one then fails.

use std::fs::OpenOptions;
use std::io::Write;

/// The file that both gather skips in.
const SKIPS_VARIABLE: &str = "SLUICE_SKIPS";

/// Tells that `test` does not run and why; the test then returns.
///
/// # Panics
///
/// When the list of skips cannot be written: a skip must not be lost.
#[expect(
    clippy::print_stderr,
    reason = "the test's own output, seen with --nocapture"
)]
pub fn skip(test: &str, reason: &str) {
    // One line a test, so that they can be counted.
    let reason = reason.lines().collect::<Vec<_>>().join(" ");
    eprintln!("skipped {test}: {reason}");
    let Some(path) = std::env::var_os(SKIPS_VARIABLE) else {
        return;
    };
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(format!("{test}: {reason}\n").as_bytes()))
        .expect("the list of skips can be written");
}
