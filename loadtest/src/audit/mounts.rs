//! Small disks of their own under parts of the data folder, each an ext4 image in the audit's folder, to be filled.
//!
//! Only root may mount. The audit then runs in a mount namespace of its own: nobody else sees the mounts, and they are gone
//! with its last process, however it ends. The images stay, and are the evidence (`mount -o loop`).

use std::error::Error;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate};

/// Tells the audit that it runs in its own namespace already.
pub(crate) const FLAG: &str = "--own-mounts";

/// Takes the room.
const FILLER: &str = "filler";

/// A file system's smallest piece.
const BLOCK: [u8; 4096] = [0; 4096];

/// Where the disk lies that is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    /// Rings and logs.
    Journals,
    Cursors,
    DeadLetters,
    Store,
}

impl Disk {
    pub(super) const ALL: [Self; 4] = [
        Self::Journals,
        Self::Cursors,
        Self::DeadLetters,
        Self::Store,
    ];

    /// Room for hours of a run; an image takes no more of the real disk than what is written to it.
    fn bytes(self) -> u64 {
        match self {
            Self::Journals | Self::Store => 4 << 30,
            Self::Cursors | Self::DeadLetters => 8 << 20,
        }
    }

    /// What lies on it, in the data folder.
    fn name(self) -> &'static str {
        match self {
            Self::Journals => "journal",
            Self::Cursors => "cursors",
            Self::DeadLetters => "dead-letters",
            Self::Store => "store.sqlite",
        }
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Journals => "the journals' disk",
            Self::Cursors => "the cursors' disk",
            Self::DeadLetters => "the dead letters' disk",
            Self::Store => "the store's disk",
        })
    }
}

/// A disk in a file, mounted and frozen, all in the folder it runs in.
const TRIAL: &str = "mkdir disk; truncate -s 4M image; mkfs.ext4 -q image; mount -o loop image disk
    fsfreeze -f disk; fsfreeze -u disk";

/// Starts this program again in a mount namespace of its own; returns, with the reason, only where mounting there or freezing what
/// is mounted is not allowed.
pub(crate) fn enter() -> String {
    let unshare = ["--mount", "--propagation", "private"];
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => return error.to_string(),
    };
    let mut trial = Command::new("unshare");
    trial.args(unshare).args(["sh", "-ec", TRIAL]);
    match trial.current_dir(&folder).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            return format!("no disk can be mounted and frozen: {}", said.trim());
        }
        Err(error) => return format!("unshare does not start: {error}"),
    }
    // The program that takes over drops nothing.
    drop(folder);
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return error.to_string(),
    };
    let mut again = Command::new("unshare");
    again
        .args(unshare)
        .arg(own)
        .args(std::env::args_os().skip(1));
    again.arg(FLAG).exec().to_string()
}

/// The disks of a data folder. Dropping unmounts them.
pub(super) struct Disks {
    folder: PathBuf,
}

impl Disks {
    /// Moves parts of a data folder that nobody uses to disks of their own, and links them.
    pub(super) fn make(folder: PathBuf, data: &Path) -> Result<Self, Box<dyn Error>> {
        let disks = Self { folder };
        for disk in Disk::ALL {
            let place = disks.place(disk);
            let image = place.with_extension("ext4");
            fs::create_dir_all(&place)?;
            File::create_new(&image)?.set_len(disk.bytes())?;
            let mut format = Command::new("mkfs.ext4");
            // Few enough files that all of them can be taken.
            done(format.args(["-q", "-m", "0", "-N", "512"]).arg(&image))?;
            let mut mount = Command::new("mount");
            done(mount.args(["-o", "loop"]).arg(&image).arg(&place))?;

            let part = data.join(disk.name());
            // A folder becomes the volume's own, with all that lies in one; of a file SQLite puts its other files beside what
            // a link names.
            let (from, to) = match part.is_dir() {
                true => (part.join("."), place),
                false => (part.clone(), place.join(disk.name())),
            };
            let mut copy = Command::new("cp");
            done(copy.arg("-a").arg(from).arg(&to))?;
            let mut remove = Command::new("rm");
            done(remove.arg("-r").arg(&part))?;
            symlink(to, &part)?;
        }
        Ok(disks)
    }

    fn place(&self, disk: Disk) -> PathBuf {
        self.folder.join(disk.name())
    }

    fn filler(&self, disk: Disk) -> PathBuf {
        self.place(disk).join(FILLER)
    }

    /// Takes all the room there is on a disk, to the last block.
    pub(super) fn fill(&self, disk: Disk) -> io::Result<()> {
        let path = self.filler(disk);
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        let mut bytes = disk.bytes();
        let mut end = 0;
        while bytes >= BLOCK.len() as u64 {
            match fallocate(&file, FallocateFlags::empty(), end, bytes) {
                Ok(()) => end += bytes,
                Err(rustix::io::Errno::NOSPC) => bytes /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        match file.write_all(&BLOCK) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(error),
            // Where one went in, somebody gave it back in between: what is left is less than anything that is written.
            _ => Ok(()),
        }
    }

    /// Gives it back.
    pub(super) fn empty(&self, disk: Disk) -> io::Result<()> {
        fs::remove_file(self.filler(disk))
    }

    /// Takes every file that a disk can still have.
    pub(super) fn fill_inodes(&self, disk: Disk) -> io::Result<()> {
        let folder = self.filler(disk);
        fs::create_dir_all(&folder)?;
        for number in 0_u64.. {
            match File::create_new(folder.join(number.to_string())) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives them back.
    pub(super) fn empty_inodes(&self, disk: Disk) -> io::Result<()> {
        fs::remove_dir_all(self.filler(disk))
    }

    /// Whoever writes there stands still until the disk is thawed.
    pub(super) fn freeze(&self, disk: Disk, is_frozen: bool) -> Result<(), String> {
        let flag = if is_frozen { "-f" } else { "-u" };
        done(Command::new("fsfreeze").arg(flag).arg(self.place(disk)))
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for disk in Disk::ALL {
            // One that was not mounted yet is no loss; the namespace takes the rest.
            let _ = done(Command::new("umount").arg(self.place(disk)));
        }
    }
}

fn done(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?} does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}", said.trim()))
}
