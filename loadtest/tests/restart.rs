//! A restart as a person runs it, with few requests and on a debug build: nobody is refused, and everybody is counted.

use std::process::Command;

use testkit::bin;

#[test]
fn a_restart_under_load_refuses_nobody() {
    for of in ["edge", "up"] {
        let output = Command::new(bin("loadtest"))
            .args(["restart", "--of", of, "--rate", "100"])
            .args(["--seconds", "8", "--restarts", "1", "--wait-max-s", "60"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{of}: {text}{complaints}");
        assert!(text.contains("refused             0\n"), "{of}: {text}");
    }
}
