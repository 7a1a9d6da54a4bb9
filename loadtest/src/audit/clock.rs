//! A wall clock that steps while the system runs: libfaketime, loaded into every part, reads the step from a file. Only the
//! wall clock is false, durations stay true.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian's package `libfaketime` puts it, under a folder named after the architecture.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// How far the clock steps.
pub(super) const STEP_S: i64 = 2 * 60 * 60;

pub(super) struct WallClock {
    library: PathBuf,
    step: PathBuf,
}

impl WallClock {
    /// A clock that tells the true time at first; `None` without the library.
    pub(super) fn make(folder: &Path) -> io::Result<Option<Self>> {
        let Some(library) = library() else {
            return Ok(None);
        };
        let clock = Self {
            library,
            step: folder.join("clock"),
        };
        clock.step_to(0)?;
        Ok(Some(clock))
    }

    /// So many seconds off the true time.
    pub(super) fn step_to(&self, seconds: i64) -> io::Result<()> {
        // Renamed, so that nobody reads half a number.
        let new = self.step.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        fs::rename(new, &self.step)
    }

    /// Makes a process see it.
    pub(super) fn give(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.step)
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
