//! A comparison as a person runs it, with slices of a fraction of a second: the figures mean nothing, that there are all of
//! them does.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testkit::bin;

#[test]
fn a_short_comparison_with_bare_hyper_fills_its_rows_and_keeps_every_slice() {
    let loadtest = bin("loadtest");
    if !loadtest.with_file_name("bare-hyper").is_file() {
        let test = "a_short_comparison_with_bare_hyper_fills_its_rows_and_keeps_every_slice";
        testkit::skip(
            test,
            "bare-hyper is not built: run cargo build -p benches --bins",
        );
        return;
    }
    let into = tempfile::tempdir().unwrap();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let output = Command::new(loadtest)
        .args(["compare", "--pairs", "2", "--seconds", "0.2"])
        .args(["--rows", "keep-alive,new-connection,tail,bench"])
        .args(["--against", "bare-hyper", "--cases"])
        .arg(cases)
        .arg("--into")
        .arg(into.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    let row = |what: &str| {
        let line = text.lines().find(|line| line.starts_with(what));
        line.unwrap_or_else(|| panic!("no {what:?} in {text}{complaints}"))
    };
    // A debug build meets no bar for certain; each of these was measured all the same.
    for what in [
        "the same against bare hyper",
        "CPU per redirect on a new connection, against bare hyper",
        "p99.9 at half of the peak rate, against bare hyper",
    ] {
        let line = row(what);
        assert!(
            line.contains('[') && !line.contains("not measured"),
            "{text}{complaints}"
        );
    }
    assert!(row("CPU per redirect, keep-alive, against nginx").contains("not asked for"));
    assert!(row("append to the journal, mean").contains("no --bench given"));
    let last = text.lines().last().unwrap();
    assert!(last.ends_with(" of 9 bars met"), "{text}");
    assert_eq!(
        output.status.code(),
        Some(1),
        "bars that are not measured are not met"
    );

    let slices = fs::read_to_string(into.path().join("slices.jsonl")).unwrap();
    let lines: Vec<Value> = slices
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines[0]["machine"]["kernel"].is_string());
    let slices: Vec<_> = lines
        .iter()
        .filter(|line| line["row"].is_string())
        .collect();
    // Two servers, two rounds, two links, three rows.
    assert_eq!(slices.len(), 2 * 2 * 2 * 3);
    for slice in slices {
        assert!(slice["redirects"].as_u64() > Some(0), "{slice}");
        assert!(slice["cpu_ns"].as_u64() > Some(0), "{slice}");
    }
    assert!(into.path().join("constant-rate.svg").is_file());
    let table = fs::read_to_string(into.path().join("table.txt")).unwrap();
    assert!(table.trim_end().ends_with(last));
}
