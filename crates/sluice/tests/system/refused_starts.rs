//! What keeps a process from starting: exit code 2, and a last line that says what to do.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use testkit::{System, bin};

/// Starts `sluice up` with these arguments and checks that it refuses.
#[track_caller]
fn refused(arguments: &[&str], said: &str) {
    let output = Command::new(bin("sluice"))
        .args(["up", "--edge", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(["--reports", "127.0.0.1:0"])
        .args(arguments)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("sluice: ") && last.contains(said),
        "{arguments:?}: {stderr}"
    );
    assert_eq!(output.stdout, b"", "{arguments:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

#[test]
fn what_has_to_be_changed_first_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);

    let data = at("file");
    fs::write(&data, "").unwrap();
    refused(&["--data", text(&data)], "cannot be written");
    let data = at("newer");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("VERSION"), "2\n").unwrap();
    refused(&["--data", text(&data)], "use a newer Sluice");
    assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "it is left alone");

    let data = at("listeners");
    for listener in ["admin", "reports"] {
        let output = Command::new(bin("sluice"))
            .args([
                "up",
                "--data",
                text(&data),
                &format!("--{listener}"),
                "0.0.0.0:0",
            ])
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("use 127.0.0.1:0"), "{stderr}");
    }

    let settings = at("sluice.toml");
    fs::write(
        &settings,
        "[edge]\nlissten = \"127.0.0.1:1\"\nworkers = \"many\"\n",
    )
    .unwrap();
    let output = Command::new(bin("sluice"))
        .args(["up", "--settings", text(&settings)])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    for line in [
        "sluice.toml:2: edge.lissten: unknown setting, did you mean \"listen\"?",
        "sluice.toml:3: edge.workers: invalid type",
    ] {
        assert!(stderr.contains(line), "{stderr}");
    }

    let catalog = at("catalog.toml");
    let data = at("catalogs");
    fs::write(
        &catalog,
        catalog::DEMO
            .replace(
                "advertiser = \"northpeak\"\nto ",
                "advertiser = \"nortpeak\"\nto ",
            )
            .replace("revenue = \"12 %\"", "revenue = \"twelve\""),
    )
    .unwrap();
    let arguments = ["--data", text(&data), "--catalog", text(&catalog)];
    refused(&arguments, "mistakes, listed above");
    fs::write(&catalog, catalog::DEMO).unwrap();
    refused(&arguments, "northpeak.secret");
    fs::write(at("northpeak.secret"), "long enough now\n").unwrap();
    let system = System::start(&data, &["--catalog", text(&catalog)]);

    refused(
        &["--data", text(&data)],
        &format!("in use by process {}", system.running.pid()),
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let other = at("other");
    let output = Command::new(bin("sluice"))
        .args(["up", "--data", text(&other), "--edge", &address])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("already in use: stop the other process or choose another with --edge"),
        "{stderr}"
    );
    // A start on a port in use left a half-made data folder.
    assert!(!other.exists());
    system.stop();
}
