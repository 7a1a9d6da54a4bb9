//! Disks whose syncs fail or take long: a small library, loaded into every part, asks a file of the part's own (`disk.c`). The
//! data itself is written, as a disk does that says too late that it could not.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cluster::Part;

const SOURCE: &str = include_str!("disk.c");

/// The library, and the parts' files.
pub(super) struct Syncs {
    folder: PathBuf,
}

impl Syncs {
    /// Builds the library. `None` without a compiler.
    pub(super) fn make(folder: &Path) -> io::Result<Option<Self>> {
        let syncs = Self {
            folder: folder.join("syncs"),
        };
        fs::create_dir_all(&syncs.folder)?;
        let source = syncs.folder.join("disk.c");
        fs::write(&source, SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-o"]);
        let built = compiler.arg(syncs.library()).arg(source).output();
        match built {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                return Err(io::Error::other(String::from_utf8_lossy(&output.stderr)));
            }
            Err(_) => return Ok(None),
        }
        for part in Part::ALL {
            fs::write(syncs.file(part), [0; 8])?;
        }
        Ok(Some(syncs))
    }

    fn library(&self) -> PathBuf {
        self.folder.join("disk.so")
    }

    fn file(&self, part: Part) -> PathBuf {
        self.folder.join(part.name())
    }

    /// So many of a part's next syncs fail, and each takes so long.
    pub(super) fn set(&self, part: Part, failures: u32, slow_ms: u32) -> io::Result<()> {
        let file = File::options().write(true).open(self.file(part))?;
        let bytes = [failures.to_ne_bytes(), slow_ms.to_ne_bytes()].concat();
        file.write_all_at(&bytes, 0)
    }

    /// How many failures nobody has met yet.
    pub(super) fn failures(&self, part: Part) -> io::Result<u32> {
        let mut bytes = [0; 4];
        File::open(self.file(part))?.read_exact_at(&mut bytes, 0)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    /// Makes a process see its disk.
    pub(super) fn give(&self, part: Part, command: &mut Command) {
        let mut libraries = self.library().into_os_string();
        let others = command
            .get_envs()
            .find_map(|(name, value)| value.filter(|_| name == "LD_PRELOAD"));
        if let Some(others) = others {
            libraries.push(":");
            libraries.push(others);
        }
        command
            .env("LD_PRELOAD", libraries)
            .env("SLUICE_AUDIT_DISK", self.file(part));
    }
}
