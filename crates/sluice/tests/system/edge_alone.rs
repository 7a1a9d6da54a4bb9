//! `sluice-edge` by itself: what it needs, and that what it records is counted by whoever drains its journals.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use testkit::{Running, System, bin, http, system, wait};

use crate::{BOUND, CHROME};

pub(crate) fn edge(data: &Path) -> Command {
    let mut command = Command::new(bin("sluice-edge"));
    command.args(["--edge", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
    command.arg(data);
    command
}

/// Starts it and waits until it is up: the process, where visitors arrive, and where metrics and health are.
pub(crate) fn up(command: Command, output: &Path) -> (Running, SocketAddr, SocketAddr) {
    let mut running = Running::spawn(command, output).unwrap();
    let mut addresses = Vec::new();
    wait::until("the edge is up", BOUND, || {
        assert!(running.ended().is_none(), "{}", running.stderr());
        let stdout = running.stdout();
        addresses = stdout
            .split("http://")
            .skip(1)
            .filter_map(|rest| rest.split([',', '\n']).next()?.parse().ok())
            .collect();
        addresses.len() == 2 && stdout.ends_with('\n')
    });
    (running, addresses[0], addresses[1])
}

#[track_caller]
fn refused(data: &Path, said: &str) {
    let output = edge(data).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.lines().last().unwrap().contains(said), "{stderr}");
}

#[test]
fn it_redirects_with_everything_else_down_and_its_clicks_are_counted_later() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // On a new installation it makes the keys, and only lacks a catalog.
    refused(&data, "no catalog has been applied yet");
    assert!(data.join("keys/tokens.key").exists());
    // Beside data that was made with others it makes none.
    std::fs::create_dir_all(data.join("journal/0")).unwrap();
    std::fs::rename(data.join("keys"), folder.path().join("keys")).unwrap();
    refused(&data, "tokens.key: missing");
    std::fs::remove_dir_all(&data).unwrap();

    // An installation is made elsewhere; this one is it.
    System::start(&data, &[]).stop();
    let (mut running, address, admin) = up(edge(&data), &folder.path().join("edge"));
    let host = ("Host", "go.northpeak.example");
    for number in 0..50 {
        let agent = format!("{CHROME} {number}");
        let click = http::get(address, "/fall-boots", &[host, ("User-Agent", &agent)]).unwrap();
        assert_eq!(click.status, 302);
        let cookie = click.header("set-cookie").unwrap();
        assert!(
            cookie.starts_with("__Host-sl=")
                && cookie.contains("; Secure; HttpOnly; SameSite=Lax; Path=/;"),
            "{cookie}"
        );
    }
    assert_eq!(http::get(address, "/fall-boots", &[]).unwrap().status, 421);
    assert_eq!(http::get(admin, "/livez", &[]).unwrap().status, 200);
    assert_eq!(http::get(admin, "/readyz", &[]).unwrap().status, 200);
    let metrics = http::get(admin, "/metrics", &[]).unwrap().text();
    assert!(
        metrics.contains("sluice_edge_answered_total{outcome=\"recorded\"} 51"),
        "{metrics}"
    );
    running.kill9();

    let system = System::start(&data, &[]);
    system.stop();
    let report = system::command(&data, &["report", "--format", "csv", "--by", "offer"]);
    assert!(report.contains("\nboots,50,50,50,0,0,0,"), "{report}");

    let (mut running, ..) = up(edge(&data), &folder.path().join("edge"));
    assert!(running.terminate(BOUND).unwrap().success());
}
