//! Rings in the machine's memory, and workers that have no journal.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use journal::Full;
use rustix::process::{Pid, Signal, kill_process};
use testkit::http::{self, Response};
use testkit::{System, bin, system, wait};

use crate::edge_alone::{edge, up};
use crate::{BOUND, CHROME};

const HOST: (&str, &str) = ("Host", "go.northpeak.example");

fn click(address: std::net::SocketAddr, number: usize) -> Response {
    let agent = format!("{CHROME} {number}");
    http::get(address, "/fall-boots", &[HOST, ("User-Agent", &agent)]).unwrap()
}

/// What a command of `sluice` says of a journal, and whether it is content.
fn journal(command: &str, folder: &Path) -> (String, bool) {
    let mut sluice = Command::new(bin("sluice"));
    let output = sluice.args(["journal", command]).arg(folder).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (said, output.status.success())
}

#[test]
fn whoever_comes_after_a_dead_edge_finds_its_ring() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    System::start(&data, &[]).stop();
    let rings = testkit::ring_folder().join("named");
    let file = folder.path().join("sluice.toml");
    // Nothing but the first look of the journal thread comes into the log.
    let settings = format!(
        "[edge]\nworkers = 1\nsync_ms = 10000\nring_bytes = 1048576\nring_folder = {:?}\n",
        rings.display().to_string()
    );
    fs::write(&file, settings).unwrap();
    let mut command = edge(&data);
    command.arg("--settings").arg(&file);
    let (mut running, address, _) = up(command, &folder.path().join("edge"));
    for number in 0..50 {
        assert!(click(address, number).header("set-cookie").is_some());
    }
    running.kill9();

    let dead = data.join("journal/0");
    let (said, _) = journal("inspect", &dead);
    let ring = fs::read_link(dead.join("ring")).unwrap();
    assert!(ring.starts_with(&rings), "{}", ring.display());
    assert!(
        said.contains(&format!("  in {}\n", ring.display())),
        "{said}"
    );
    assert!(!said.contains(" 0 bytes not in the log"), "{said}");
    let (said, is_good) = journal("verify", &dead);
    assert!(is_good, "{said}");
    // A copy of the folder is another folder: it takes nothing away.
    let copy = folder.path().join("copy");
    let copied = Command::new("cp").arg("-a").arg(&dead).arg(&copy).status();
    assert!(copied.unwrap().success());
    assert!(!journal("inspect", &copy).0.contains("ring "));
    assert_eq!(journal::seal(&copy).unwrap().unwrap().records, 0);

    // A backup beside nothing that runs has what was answered before it.
    let backup = folder.path().join("backup");
    let backup = backup.to_str().unwrap();
    system::command(&data, &["backup", backup]);
    assert!(!ring.exists());
    let restored = folder.path().join("restored");
    system::command(&restored, &["restore", backup]);
    for data in [&data, &restored] {
        let system = System::start(data, &[]);
        system.stop();
        let report = system::command(data, &["report", "--format", "csv", "--by", ""]);
        let row = report.lines().nth(1).unwrap();
        assert!(row.starts_with("50,50,"), "{report}");
    }
}

#[test]
fn an_edge_whose_journal_could_not_be_opened_did_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    System::start(&data, &[]).stop();
    let (journals, away) = (data.join("journal"), folder.path().join("journal"));
    fs::rename(&journals, &away).unwrap();
    fs::write(&journals, "no folder").unwrap();

    let file = folder.path().join("sluice.toml");
    let settings = |when_full| format!("[edge]\nworkers = 1\nwhen_full = \"{when_full}\"\n");
    fs::write(&file, settings("redirect")).unwrap();
    let mut command = edge(&data);
    command.arg("--settings").arg(&file);
    let (mut running, address, admin) = up(command, &folder.path().join("edge"));
    let get = |path: &str| http::get(admin, path, &[]).unwrap();
    let metric = |name: &str| {
        let metrics = get("/metrics").text();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().trim().parse::<u64>().unwrap()
    };
    // Visitors come first, without a token; a sale would be lost, so that its sender comes again.
    let redirect = click(address, 0);
    assert_eq!(redirect.status, 302);
    assert_eq!(redirect.header("set-cookie"), None);
    let location = redirect.header("location").unwrap();
    assert!(!location.contains("npk="), "{location}");
    let postback = http::get(address, "/postback?order=1", &[HOST]).unwrap();
    assert_eq!(postback.status, 503);
    let ready = get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(
        ready.text().contains("cannot be opened"),
        "{}",
        ready.text()
    );
    assert_eq!(metric("sluice_edge_workers_without_journal"), 1);

    fs::write(&file, settings("refuse")).unwrap();
    let pid = Pid::from_raw(i32::try_from(running.pid()).unwrap());
    kill_process(pid.unwrap(), Signal::HUP).unwrap();
    let mut sent = 2;
    wait::until("clicks are refused", BOUND, || {
        sent += 1;
        click(address, sent).status == 503
    });
    let unrecorded = metric("sluice_edge_answered_total{outcome=\"unrecorded\"}");
    assert_eq!(unrecorded, sent as u64);

    // It goes on by itself.
    fs::remove_file(&journals).unwrap();
    fs::rename(&away, &journals).unwrap();
    wait::until("it is ready", BOUND, || get("/readyz").status == 200);
    assert_eq!(metric("sluice_edge_workers_without_journal"), 0);
    assert!(click(address, 0).header("set-cookie").is_some());
    assert!(running.terminate(BOUND).unwrap().success());
    let counted = journal::ledger(&journals.join("0")).unwrap().unwrap();
    assert_eq!(counted.unrecorded[Full::Unopened as usize], unrecorded);
}

#[test]
fn check_says_what_is_wrong_with_the_folder_for_rings() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    System::start(&data, &[]).stop();
    let rings = folder.path().join("rings");
    let check = || {
        let mut command = Command::new(bin("sluice"));
        command.arg("check").arg("--data").arg(&data);
        command.env(testkit::RING_FOLDER_VARIABLE, &rings);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (said, output.status.success())
    };
    let (said, is_good) = check();
    assert!(is_good, "{said}");
    assert!(
        said.contains(&format!("rings: in {}", rings.display())),
        "{said}"
    );
    fs::create_dir(&rings).unwrap();
    fs::set_permissions(&rings, fs::Permissions::from_mode(0o755)).unwrap();
    let (said, is_good) = check();
    assert!(!is_good && said.contains("mode 755"), "{said}");
}
