//! `sluice up` under test: on ports of its own choosing, driven as visitors, advertisers and operators drive it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::http::{self, Response};
use crate::{Running, bin, wait};

/// Far above a start or a drain on a machine that also compiles.
const BOUND: Duration = Duration::from_secs(60);

/// A running `sluice up`.
#[derive(Debug)]
pub struct System {
    /// The process.
    pub running: Running,
    /// Where visitors arrive.
    pub edge: SocketAddr,
    /// Where reports are served.
    pub reports: SocketAddr,
    /// Where metrics and health are served.
    pub admin: SocketAddr,
    data: PathBuf,
}

impl System {
    /// Starts it on a data folder, with free ports and these arguments, and waits until it is up. Its output lies beside
    /// the data folder.
    ///
    /// # Panics
    ///
    /// When it does not come up; the message holds what it wrote.
    pub fn start(data: &Path, arguments: &[&str]) -> System {
        System::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), data, arguments)
    }

    /// As [`System::start`], with the edge on a given address, for a restart under a client that goes on.
    ///
    /// # Panics
    ///
    /// As [`System::start`].
    pub fn start_at(edge: SocketAddr, data: &Path, arguments: &[&str]) -> System {
        let edge = edge.to_string();
        let arguments = [arguments, &["--edge", &edge]].concat();
        System::start_by(Command::new(bin("sluice")), data, &arguments)
    }

    /// As [`System::start`], by a command that may have an environment of its own.
    ///
    /// # Panics
    ///
    /// As [`System::start`].
    pub fn start_by(mut command: Command, data: &Path, arguments: &[&str]) -> System {
        command.arg("up").arg("--data").arg(data);
        command.args(["--admin", "127.0.0.1:0", "--reports", "127.0.0.1:0"]);
        if !arguments.contains(&"--edge") {
            command.args(["--edge", "127.0.0.1:0"]);
        }
        command.args(arguments);
        let mut running = Running::spawn(command, &data.with_extension("output"))
            .expect("a built binary can be started");
        wait::until("sluice is up", BOUND, || {
            assert!(
                running.ended().is_none(),
                "sluice did not come up: {}",
                running.stderr()
            );
            running.stdout().contains("  admin ")
        });
        let stdout = running.stdout();
        let address = |what: &str| {
            let line = stdout
                .lines()
                .find(|line| line.trim_start().starts_with(what));
            line.and_then(|line| line.rsplit_once("://")?.1.parse().ok())
                .unwrap_or_else(|| panic!("no address of {what} in: {stdout}"))
        };
        System {
            edge: address("edge"),
            reports: address("reports"),
            admin: address("admin"),
            data: data.to_path_buf(),
            running,
        }
    }

    /// One GET of the edge.
    ///
    /// # Panics
    ///
    /// When it is not answered.
    pub fn get(&self, target: &str, headers: &[(&str, &str)]) -> Response {
        http::get(self.edge, target, headers).expect("the edge answers")
    }

    /// A report as CSV.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn report(&self, by: &str) -> String {
        let target = format!("/api/v1/report?by={by}&format=csv");
        let response = http::get(self.reports, &target, &[]).expect("reports answer");
        assert_eq!(response.status, 200, "{}", response.text());
        response.text()
    }

    /// Asks it to end and waits: it drains, so that everything answered is in the store, and exits with 0.
    ///
    /// # Panics
    ///
    /// When it does not end with 0; the message holds what it wrote.
    pub fn stop(mut self) {
        let status = self.running.terminate(BOUND);
        assert!(
            status.is_some_and(|status| status.success()),
            "sluice ended with {status:?}: {}",
            self.running.stderr()
        );
    }

    /// Kills it without warning.
    pub fn kill9(mut self) {
        self.running.kill9();
    }

    /// The answer of another command of `sluice` on the same data folder.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn command(&self, arguments: &[&str]) -> String {
        command(&self.data, arguments)
    }
}

/// The answer of a command of `sluice` on a data folder.
///
/// # Panics
///
/// When it fails; the message holds what it wrote.
pub fn command(data: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(bin("sluice"));
    command.args(arguments).arg("--data").arg(data);
    let output = command.output().expect("a built binary can be started");
    assert!(
        output.status.success(),
        "sluice {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
