//! A process under test: started with its output in files, ended by a signal or killed, and never left behind.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// The folder of the binaries under test, set by `cargo xtask test`.
const BIN_DIR_VARIABLE: &str = "SLUICE_BIN_DIR";

/// A built binary of this workspace: `sluice`, `sluice-edge` or `loadtest`.
///
/// # Panics
///
/// When it is not built; the message says how to build it.
pub fn bin(name: &str) -> PathBuf {
    let folder = match std::env::var_os(BIN_DIR_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => {
            // A test binary lies in target/<profile>/deps, the others one up.
            let test = std::env::current_exe().expect("a running test has a path");
            let folder = test.parent().expect("a file lies in a folder");
            match folder.file_name().and_then(|name| name.to_str()) {
                Some("deps" | "examples") => folder.parent().expect("deps lies in a profile"),
                _ => folder,
            }
            .to_path_buf()
        }
    };
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is not built: run cargo build -p sluice -p edge -p loadtest --bins, or cargo xtask test",
        path.display()
    );
    path
}

/// The variable that names the folder for rings where no setting does.
pub const RING_FOLDER_VARIABLE: &str = "SLUICE_RING_FOLDER";

/// Where rings of processes under test lie in the machine's memory.
const RINGS: &str = "/dev/shm/sluice-tests-";

/// The folder for the rings of this test's processes. A killed one leaves its ring for its successor, and a test that has
/// none leaves it behind: who comes next removes what tests that are over left.
///
/// # Panics
///
/// When the machine has no memory file system.
pub fn ring_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let (memory, name) = RINGS.rsplit_once('/').expect("a path");
        let entries = fs::read_dir(memory).expect("the machine has a memory file system");
        for entry in entries.flatten() {
            let left = entry.file_name();
            let of = left.to_str().and_then(|left| left.strip_prefix(name));
            if of.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let folder = PathBuf::from(format!("{RINGS}{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let mut private = DirBuilder::new();
        private
            .mode(0o700)
            .create(&folder)
            .expect("a name of its own");
        folder
    })
}

/// A child process. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Starts `command` with a folder for rings, unless it names one itself, no input and its output in `stdout.txt` and `stderr.txt` under `folder`, which is made where
    /// it is missing. A restart in the same folder starts the files anew.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written or the program not started.
    pub fn spawn(mut command: Command, folder: &Path) -> io::Result<Running> {
        fs::create_dir_all(folder)?;
        let has_rings = |(name, _): (&std::ffi::OsStr, _)| name == RING_FOLDER_VARIABLE;
        if !command.get_envs().any(has_rings) {
            command.env(RING_FOLDER_VARIABLE, ring_folder());
        }
        let stdout = folder.join("stdout.txt");
        let stderr = folder.join("stderr.txt");
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()?;
        Ok(Running {
            child,
            stdout,
            stderr,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Its exit status, if it has ended.
    ///
    /// # Panics
    ///
    /// When the system does not say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("a child's state can be asked for")
    }

    /// Waits for its end, at most for `bound`.
    pub fn wait(&mut self, bound: Duration) -> Option<ExitStatus> {
        let mut status = None;
        wait::holds_within(bound, || {
            status = self.ended();
            status.is_some()
        });
        status
    }

    /// Kills it without warning and waits until it is gone.
    ///
    /// # Panics
    ///
    /// When the system does not say that it is gone.
    pub fn kill9(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        self.child.wait().expect("a killed child can be waited for");
    }

    /// Asks it to end (SIGTERM) and waits for that, at most for `bound`; `None` when it did not end.
    pub fn terminate(&mut self, bound: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait(bound)
    }

    /// As Ctrl-C does (SIGINT); `None` when it did not end within `bound`.
    pub fn interrupt(&mut self, bound: Duration) -> Option<ExitStatus> {
        self.signal(Signal::INT);
        self.wait(bound)
    }

    /// Lets it stand still (SIGSTOP), as a machine that swaps or a paused container does.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        // Only while it has not been waited for is the id still this process's.
        if self.ended().is_some() {
            return;
        }
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a child's id is a process id"), signal)
            .expect("a child can be signalled");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(path: &Path) -> String {
    fs::read(path).map_or_else(
        |error| format!("({} cannot be read: {error})", path.display()),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(20);

    #[test]
    fn output_is_kept_and_a_signal_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exec sleep 600"]);
        let mut running = Running::spawn(command, folder.path()).unwrap();
        wait::until("both lines are written", BOUND, || {
            running.stdout() == "out\n" && running.stderr() == "err\n"
        });
        assert!(running.ended().is_none());
        let status = running.terminate(BOUND).unwrap();
        assert!(!status.success());
        running.kill9();
    }
}
