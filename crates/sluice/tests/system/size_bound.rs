//! A journal that nobody ships: at its bound clicks are redirected or refused, uncounted and told, until it is shipped.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use journal::{Full, Ledger};
use testkit::http::Response;
use testkit::{System, bin, http, system, wait};

use crate::edge_alone::{edge, up};
use crate::{BOUND, CHROME};

const BYTES_MAX: u64 = 4 << 20;

fn settings(when_full: &str) -> String {
    format!(
        "[edge]\nworkers = 1\nring_bytes = 1048576\njournal_bytes_max = {BYTES_MAX}\nwhen_full = \"{when_full}\"\n"
    )
}

fn ledger(journal: &Path) -> Ledger {
    journal::ledger(journal).unwrap().unwrap()
}

/// Checks the ledger of the one journal in a scrape; how many records wait.
fn balanced(admin: SocketAddr) -> u64 {
    let metrics = http::get(admin, "/metrics", &[]).unwrap().text();
    let sum = |what: &str| -> u64 {
        let name = format!("sluice_journal_{what}{{");
        let lines = metrics.lines().filter(|line| line.starts_with(&name));
        let values = lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap());
        values.sum()
    };
    let appended = sum("appended_total");
    assert_eq!(
        sum("answered_total"),
        appended + sum("unrecorded_total"),
        "{metrics}"
    );
    let waiting = sum("waiting");
    let settled = sum("delivered_total") + sum("dead_total") + sum("lost_total");
    assert_eq!(appended, settled + waiting, "{metrics}");
    assert!(appended > 0, "{metrics}");
    waiting
}

/// A click with more to say than most.
fn click(edge: SocketAddr, host: &str) -> Response {
    let long = "x".repeat(250);
    let subs: Vec<String> = (1..=10).map(|sub| format!("sub{sub}={long}")).collect();
    let target = format!("/fall-boots?{}", subs.join("&"));
    http::get(edge, &target, &[("Host", host), ("User-Agent", CHROME)]).unwrap()
}

#[test]
fn a_journal_at_its_bound_takes_no_clicks_until_it_is_shipped() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let journal = data.join("journal/0");
    let output = folder.path().join("edge");
    let file = folder.path().join("sluice.toml");
    let file_name = file.to_str().unwrap();
    fs::write(&file, settings("redirect")).unwrap();
    let arguments = ["--settings", file_name];
    System::start(&data, &arguments).stop();

    let host = "go.northpeak.example";
    let mut command = edge(&data);
    command.args(arguments);
    let (mut running, address, admin) = up(command, &output);
    let (mut recorded, mut unrecorded) = (0, 0);
    // A disk that is busy with other things may let the ring fill for a moment: that is not what is waited for.
    while ledger(&journal).unrecorded[Full::Bound as usize] == 0 {
        let click = click(address, host);
        assert_eq!(click.status, 302);
        let location = click.header("location").unwrap();
        let token = click.header("set-cookie").is_some();
        assert_eq!(token, location.contains("npk="), "{location}");
        *if token {
            &mut recorded
        } else {
            &mut unrecorded
        } += 1;
    }
    let ready = || http::get(admin, "/readyz", &[]).unwrap();
    // Visitors come first, so that a balancer keeps the edge.
    assert_eq!(ready().status, 200);
    let mut metrics = String::new();
    wait::until("the last record is synced", BOUND, || {
        metrics = http::get(admin, "/metrics", &[]).unwrap().text();
        metrics.contains("sluice_journal_unsynced_seconds{journal=\"0\"} 0\n")
    });
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
        value.trim().parse::<f64>().unwrap()
    };
    let bytes_max = value("sluice_journal_bytes_max{journal=\"0\"}");
    assert_eq!(bytes_max, BYTES_MAX as f64);
    assert!(value("sluice_journal_bytes{journal=\"0\"}") >= bytes_max);
    assert_eq!(value("sluice_journal_poisoned{journal=\"0\"}"), 0.0);
    // A postback would be a sale: its sender has to come again.
    let postback = http::get(address, "/postback?order=1", &[("Host", host)]).unwrap();
    assert_eq!(postback.status, 503);
    unrecorded += 1;
    assert!(running.terminate(BOUND).unwrap().success());

    fs::write(&file, settings("refuse")).unwrap();
    let mut command = edge(&data);
    command.args(arguments);
    let (mut running, address, admin) = up(command, &output);
    assert_eq!(click(address, host).status, 503);
    let ready = || http::get(admin, "/readyz", &[]).unwrap();
    wait::until("it says so", BOUND, || ready().status == 503);
    assert!(ready().text().contains("size bound"), "{}", ready().text());
    unrecorded += 1;
    assert!(running.terminate(BOUND).unwrap().success());

    let counted = ledger(&journal);
    assert_eq!(counted.recorded, recorded);
    assert_eq!(counted.answered(), recorded + unrecorded);

    // A courier ships, and deletes although the files are not old yet: room is short.
    let up = System::start(&data, &arguments);
    let host = up.edge.to_string();
    let mut answered = click(up.edge, &host);
    wait::until("a click is recorded", BOUND, || {
        if answered.status == 503 {
            unrecorded += 1;
            answered = click(up.edge, &host);
        }
        answered.status == 302
    });
    assert!(answered.header("set-cookie").is_some());
    wait::until("all of it is shipped", BOUND, || balanced(up.admin) == 0);
    up.stop();
    let report = system::command(&data, &["report", "--format", "csv", "--by", ""]);
    let row = report.lines().nth(1).expect("a row");
    let gross = format!("{},", recorded + 1);
    assert!(row.starts_with(&gross), "{gross} {report}");
    let counted = ledger(&journal);
    // The click, and the end of the worker's stream.
    assert_eq!(counted.recorded, recorded + 2);
    assert_eq!(counted.answered(), recorded + 2 + unrecorded);
    let verified = Command::new(bin("sluice"))
        .args(["journal", "verify"])
        .arg(&journal)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stdout);
    let written = format!("{} ever written as its scoreboard says", recorded + 2);
    assert!(said.contains(&written), "{said} {verified:?}");
}
