//! Wall clocks that step while the system runs, one a machine: libfaketime, loaded into every part, reads the step from a
//! file. Only the wall clock is false, durations stay true.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::cluster::{MACHINES, Machine};

/// Where Debian's package `libfaketime` puts it, under a folder named after the architecture.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// How far the clock steps.
pub(super) const STEP_S: i64 = 2 * 60 * 60;

/// A clock that was so many seconds off from a moment on, until the machine's next step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) at: Instant,
    pub(super) machine: Machine,
    pub(super) seconds: i64,
}

pub(super) struct WallClock {
    library: PathBuf,
    folder: PathBuf,
    /// In the order of time.
    pub(super) steps: Vec<Step>,
}

impl WallClock {
    /// Clocks that tell the true time at first; `None` without the library.
    pub(super) fn make(folder: &Path) -> io::Result<Option<Self>> {
        let Some(library) = library() else {
            return Ok(None);
        };
        let mut clock = Self {
            library,
            folder: folder.to_path_buf(),
            steps: Vec::new(),
        };
        for machine in MACHINES {
            clock.step_to(machine, 0)?;
        }
        Ok(Some(clock))
    }

    fn file(&self, machine: Machine) -> PathBuf {
        self.folder.join(format!("clock-{machine}"))
    }

    /// So many seconds off the true time.
    pub(super) fn step_to(&mut self, machine: Machine, seconds: i64) -> io::Result<()> {
        // Renamed, so that nobody reads half a number.
        let file = self.file(machine);
        let new = file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        self.steps.push(Step {
            at: Instant::now(),
            machine,
            seconds,
        });
        fs::rename(new, file)
    }

    /// Makes a process of a machine see its clock.
    pub(super) fn give(&self, machine: Machine, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.file(machine))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }
}

fn library() -> Option<PathBuf> {
    let folders = fs::read_dir(LIBRARIES).ok()?;
    folders
        .flatten()
        .map(|folder| folder.path().join(LIBRARY))
        .find(|library| library.is_file())
}
