//! Python for tests that read what Sluice writes from another language: an environment of its own, with pinned packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names the environment's folder; `cargo xtask test` makes it.
pub const VARIABLE: &str = "SLUICE_PYTHON";

/// The packages that are in the environment, as they were asked for; written last.
const DONE: &str = "requirements.txt";

/// Makes the environment with what `requirements` names; does nothing where it is there already.
///
/// # Errors
///
/// When Python or its package installer fails; the text says what to do.
pub fn make(folder: &Path, requirements: &Path) -> Result<(), String> {
    let because = |path: &Path, error| format!("{}: {error}", path.display());
    let wanted = fs::read(requirements).map_err(|error| because(requirements, error))?;
    let done = folder.join(DONE);
    if fs::read(&done).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(folder);
    run(venv, "install python3-venv")?;
    let mut pip = Command::new(python_in(folder));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
    ]);
    pip.arg(requirements);
    run(pip, "see above")?;
    fs::write(&done, wanted).map_err(|error| because(&done, error))
}

/// The environment's Python, where there is one.
pub fn python() -> Option<PathBuf> {
    let folder = match std::env::var_os(VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => {
            // A test binary lies in target/<profile>/deps.
            let test = std::env::current_exe().ok()?;
            test.parent()?.parent()?.parent()?.join("python")
        }
    };
    folder.join(DONE).exists().then(|| python_in(&folder))
}

fn python_in(folder: &Path) -> PathBuf {
    folder.join("bin/python")
}

fn run(mut command: Command, otherwise: &str) -> Result<(), String> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("{command:?} does not start: {error}: {otherwise}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{command:?} failed: {otherwise}"))
}
