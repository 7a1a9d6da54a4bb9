//! A catalog that cannot be used costs no redirect, no count and no start while there is a good version: every process goes on
//! with that one and says so until the catalog is mended.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use testkit::{Running, System, bin, http, wait};

use crate::edge_alone::{edge, up};
use crate::{BOUND, CHROME, on_kafka};

const BROWSER: (&str, &str) = ("User-Agent", CHROME);

#[track_caller]
fn until_refused(admin: SocketAddr, what: &str, value: u8) {
    let line = format!("sluice_catalog_refused{{what=\"{what}\"}} {value}\n");
    let is_told =
        || http::get(admin, "/metrics", &[]).is_ok_and(|told| told.text().contains(&line));
    wait::until(&line, BOUND, is_told);
}

#[test]
fn a_broken_file_was_the_end_of_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (
        folder.path().join("data"),
        folder.path().join("catalog.toml"),
    );
    fs::write(folder.path().join("northpeak.secret"), "only for this test").unwrap();
    let arguments = ["--catalog", file.to_str().unwrap()];
    let broken = catalog::DEMO.replace("12 %", "twelve");

    // Without any good version there is nothing to go on with.
    fs::write(&file, &broken).unwrap();
    let mut first = Command::new(bin("sluice"));
    first.args(["up", "--edge", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    first
        .args(["--reports", "127.0.0.1:0", "--data"])
        .arg(&data);
    let first = first.args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&first.stderr);
    assert_eq!(first.status.code(), Some(2), "{said}");
    assert!(
        said.contains("catalog.toml:23: offer.boots.goal.sale.revenue: "),
        "{said}"
    );

    fs::write(&file, catalog::DEMO).unwrap();
    let system = System::start(&data, &arguments);
    until_refused(system.admin, "file", 0);
    fs::write(&file, &broken).unwrap();
    until_refused(system.admin, "file", 1);
    assert_eq!(system.get("/fall-boots", &[BROWSER]).status, 302);
    system.stop();

    let system = System::start(&data, &arguments);
    until_refused(system.admin, "file", 1);
    assert_eq!(system.get("/fall-boots", &[BROWSER]).status, 302);
    assert!(
        system
            .running
            .stderr()
            .contains("offer.boots.goal.sale.revenue")
    );
    wait::until("both clicks are counted", BOUND, || {
        system.report("offer").contains("\nboots,2,")
    });
    fs::write(&file, catalog::DEMO.replace("12 %", "13 %")).unwrap();
    until_refused(system.admin, "file", 0);
    system.stop();
}

/// A second version that is damaged, as a disk may do it, or a version that is gone.
fn damage(versions: &Path) {
    let mut bytes = fs::read(versions.join("1.snapshot")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(versions.join("2.snapshot"), bytes).unwrap();
    put_in_force(versions, 2);
}

fn put_in_force(versions: &Path, version: u32) {
    let young = versions.join("young");
    fs::write(&young, format!("{version}\n")).unwrap();
    fs::rename(young, versions.join("current")).unwrap();
}

#[test]
fn a_broken_version_was_the_end_of_the_next_start_of_an_edge() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    System::start(&data, &[]).stop();
    let versions = data.join("catalog");
    let redirects = |address| {
        let headers = [("Host", "go.northpeak.example"), BROWSER];
        http::get(address, "/fall-boots", &headers).unwrap().status == 302
    };
    let (mut running, address, admin) = up(edge(&data), &folder.path().join("first"));
    until_refused(admin, "snapshot", 0);
    damage(&versions);
    until_refused(admin, "snapshot", 1);
    assert!(redirects(address));
    // Whoever puts the version before in force again has mended it, too.
    put_in_force(&versions, 1);
    until_refused(admin, "snapshot", 0);
    assert!(running.terminate(BOUND).unwrap().success());

    put_in_force(&versions, 7);
    let (mut running, address, admin) = up(edge(&data), &folder.path().join("second"));
    until_refused(admin, "snapshot", 1);
    assert!(redirects(address));
    put_in_force(&versions, 1);
    until_refused(admin, "snapshot", 0);
    assert!(redirects(address));
    assert!(running.terminate(BOUND).unwrap().success());

    put_in_force(&versions, 7);
    fs::remove_file(versions.join("1.snapshot")).unwrap();
    fs::remove_file(versions.join("2.snapshot")).unwrap();
    let refused = edge(&data).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("7.snapshot"), "{said}");
}

#[test]
fn a_catalog_on_a_mount_that_hangs_was_seen_by_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    System::start(&data, &[]).stop();
    let (mut running, address, admin) = up(edge(&data), &folder.path().join("edge"));
    let get = |path: &str| http::get(admin, path, &[]).unwrap();
    let age_s = || {
        let metrics = get("/metrics").text();
        let mut lines = metrics.lines();
        let age = lines.find_map(|line| line.strip_prefix("sluice_catalog_age_seconds "));
        age.expect("it is there").parse::<f64>().unwrap()
    };
    assert!(age_s() < 5.0);
    // Who opens a pipe that nobody writes to waits, as on a mount whose server is gone.
    let (hung, current) = (folder.path().join("hung"), data.join("catalog/current"));
    assert!(
        Command::new("mkfifo")
            .arg(&hung)
            .status()
            .unwrap()
            .success()
    );
    let linked = data.join("catalog/linked");
    fs::hard_link(&hung, &linked).unwrap();
    fs::rename(&linked, &current).unwrap();
    wait::until("the catalog is old", BOUND, || age_s() > 5.0);
    let headers = [("Host", "go.northpeak.example"), BROWSER];
    assert_eq!(
        http::get(address, "/fall-boots", &headers).unwrap().status,
        302
    );
    wait::until("it is told", BOUND, || {
        let livez = get("/livez");
        livez.status == 503 && livez.text().contains("edge-catalog: no beat")
    });
    put_in_force(&data.join("catalog"), 1);
    fs::write(&hung, "1\n").unwrap();
    wait::until("it is followed again", BOUND, || {
        get("/livez").status == 200 && age_s() < 5.0
    });
    assert!(running.terminate(BOUND).unwrap().success());
}

#[test]
fn couriers_and_consumers_said_nothing_of_a_catalog_they_could_not_read() {
    let test = "couriers_and_consumers_said_nothing_of_a_catalog_they_could_not_read";
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = on_kafka::broker(test, folder.path()) else {
        return;
    };
    let data = folder.path().join("data");
    System::start(&data, &[]).stop();
    let start = |name: &str| {
        let mut command = Command::new(bin("sluice"));
        command.args([
            name,
            "--admin",
            "127.0.0.1:0",
            "--kafka",
            &broker.address(),
            "--data",
        ]);
        command.arg(&data);
        let mut running = Running::spawn(command, &folder.path().join(name)).unwrap();
        let admin = on_kafka::admin(&mut running);
        (running, admin)
    };
    let versions = data.join("catalog");
    damage(&versions);
    let (mut edge, address, _) = up(edge(&data), &folder.path().join("edge"));
    let mut processes = ["courier", "consume", "reports"].map(start);
    for (_, admin) in &processes {
        until_refused(*admin, "snapshot", 1);
    }
    // They go on: a click is shipped and counted.
    let headers = [("Host", "go.northpeak.example"), BROWSER];
    assert_eq!(
        http::get(address, "/fall-boots", &headers).unwrap().status,
        302
    );
    let report =
        || testkit::system::command(&data, &["report", "--format", "csv", "--by", "offer"]);
    wait::until("it is counted", BOUND, || report().contains("\nboots,1,1,"));
    put_in_force(&versions, 1);
    for (_, admin) in &processes {
        until_refused(*admin, "snapshot", 0);
    }
    assert!(edge.terminate(BOUND).unwrap().success());
    for (running, _) in &mut processes {
        assert!(
            running.terminate(BOUND).unwrap().success(),
            "{}",
            running.stderr()
        );
    }
}
