//! The disk of an edge's journals stands still: nobody who is redirected waits for it.

use std::process::Command;

use testkit::{bin, skip};

/// Stalls and freezes the disk under load, and returns what the generator said. The bounds are those of a machine whose cores
/// are busy: a redirect that waits for the disk takes as long as the disk stands still. None where that is not allowed here.
fn stall(name: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(bin("loadtest"));
    command.args(["stall", "--before-s", "2"]);
    // With a ring on the frozen disk the first click waits until the thaw.
    command.args(["--freeze-s", "5"]);
    command.args(["--times", "10000", "--longest-ms", "3000"]);
    let output = command.args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    if why.contains("not run here") {
        skip(name, why.trim());
        return None;
    }
    assert!(output.status.success(), "{said}{why}");
    Some(said)
}

#[test]
fn a_disk_that_stood_still_stopped_every_redirect() {
    let name = "a_disk_that_stood_still_stopped_every_redirect";
    if let Some(said) = stall(name, &["--stall-s", "10"]) {
        assert!(said.contains(" unrecorded 0 "), "{said}");
    }
}

#[test]
fn clicks_go_unrecorded_when_the_ring_is_full_and_not_before() {
    let name = "clicks_go_unrecorded_when_the_ring_is_full_and_not_before";
    // Some 250 bytes a click: it is full after ten seconds.
    let small = ["--ring-bytes", "1048576", "--stall-s", "25"];
    if let Some(said) = stall(name, &small) {
        assert!(!said.contains(" unrecorded 0 "), "{said}");
    }
}
