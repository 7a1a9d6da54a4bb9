//! Real clicks through the whole system: the report equals the file's own sums.

use std::path::PathBuf;
use std::process::Command;

use testkit::{System, bin, skip, system};

fn recorded_clicks() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../../../shared/data/talkingdata-clicks-60k.csv.gz")
}

/// Runs `loadtest` and returns what it printed.
#[track_caller]
fn loadtest(arguments: &[&str]) -> String {
    let output = Command::new(bin("loadtest"))
        .args(arguments)
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "loadtest {arguments:?}: {stdout}{stderr}"
    );
    stdout.into_owned()
}

#[test]
fn recorded_clicks_are_counted_pair_by_pair() {
    let csv = recorded_clicks();
    if !csv.exists() {
        skip(
            "recorded_clicks_are_counted_pair_by_pair",
            "the sample of recorded clicks is not beside the repository",
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (csv, catalog, ledger) = (csv.to_str().unwrap(), text("catalog"), text("ledger"));
    loadtest(&["catalog", "--csv", csv, "--out", &catalog]);
    let settings = text("sluice.toml");
    std::fs::write(
        &settings,
        "[edge]\ntrusted_forwarders = [\"127.0.0.0/8\"]\n",
    )
    .unwrap();

    let data = folder.path().join("data");
    let system = System::start(
        &data,
        &[
            "--settings",
            &settings,
            "--catalog",
            &format!("{catalog}/catalog.toml"),
        ],
    );
    let edge = system.edge.to_string();
    loadtest(&[
        "replay",
        "--csv",
        csv,
        "--edge",
        &edge,
        "--catalog",
        &catalog,
        "--ledger",
        &ledger,
    ]);
    system.stop();

    let report = text("report.json");
    let json = system::command(
        &data,
        &["report", "--by", "affiliate,offer", "--format", "json"],
    );
    std::fs::write(&report, json).unwrap();
    let checked = loadtest(&[
        "replay-check",
        "--csv",
        csv,
        "--ledger",
        &ledger,
        "--report",
        &report,
    ]);
    for line in [
        "clicks answered      60000",
        "clicks in doubt      0",
        "gross reported       60000",
        "conversions reported 132",
        "  different          0",
    ] {
        assert!(
            checked.lines().any(|found| found == line),
            "{line}: {checked}"
        );
    }
}
