//! Where a show finds its binaries and keeps its evidence.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use testkit::{Running, wait};

/// The folder that was named, or a temporary one that stays only when the show fails.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    temporary: Option<TempDir>,
}

impl Place {
    pub(crate) fn new(named: Option<&Path>) -> Result<Place, Box<dyn Error>> {
        if let Some(folder) = named {
            std::fs::create_dir_all(folder)
                .map_err(|error| format!("{}: {error}", folder.display()))?;
            return Ok(Place {
                folder: folder.canonicalize()?,
                temporary: None,
            });
        }
        let temporary = tempfile::tempdir()?;
        Ok(Place {
            folder: temporary.path().to_path_buf(),
            temporary: Some(temporary),
        })
    }

    /// Keeps the evidence of a failure.
    pub(crate) fn leave<T>(self, outcome: Result<T, Box<dyn Error>>) -> Result<T, Box<dyn Error>> {
        if let (Err(_), Some(temporary)) = (&outcome, self.temporary) {
            println!("evidence kept in {}", temporary.keep().display());
        }
        outcome
    }
}

/// The folder of the binaries under test: the one that was named, or this program's own.
pub(crate) fn binaries(named: Option<&Path>) -> Result<PathBuf, Box<dyn Error>> {
    if let Some(folder) = named {
        return Ok(folder.to_path_buf());
    }
    let own = std::env::current_exe()?;
    Ok(own
        .parent()
        .ok_or("this program lies nowhere")?
        .to_path_buf())
}

/// Starts a process and waits until it is up.
pub(crate) fn start(
    command: Command,
    output: &Path,
    bound: Duration,
    is_up: impl Fn(&Running) -> bool,
) -> Result<Running, Box<dyn Error>> {
    wait_up(Running::spawn(command, output)?, bound, is_up)
}

/// Waits until a started process is up.
pub(crate) fn wait_up(
    mut running: Running,
    bound: Duration,
    is_up: impl Fn(&Running) -> bool,
) -> Result<Running, Box<dyn Error>> {
    let up = wait::holds_within(bound, || running.ended().is_some() || is_up(&running));
    if !up || running.ended().is_some() {
        return Err(format!("it did not come up: {}", running.stderr()).into());
    }
    Ok(running)
}

/// The folder of Apache Kafka's jars.
pub(crate) fn jars() -> Result<PathBuf, String> {
    testkit::kafka::jars()
        .ok_or_else(|| "Apache Kafka is not there: run cargo xtask kafka --fetch".to_owned())
}
