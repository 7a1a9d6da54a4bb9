//! What happens to a process around its requests: its log, its descriptors, signals, a drain and a successor.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use testkit::http::{self, Connection};
use testkit::{System, bin, wait};

use crate::edge_alone::{edge, up};
use crate::{BOUND, CHROME, metric};

const HOST: (&str, &str) = ("Host", "go.northpeak.example");

/// A data folder with the demo's keys and catalog.
fn installation(folder: &Path) -> std::path::PathBuf {
    let data = folder.join("data");
    System::start(&data, &[]).stop();
    data
}

fn redirects(address: SocketAddr) -> bool {
    let click = http::get(address, "/fall-boots", &[HOST, ("User-Agent", CHROME)]);
    click.is_ok_and(|click| click.status == 302)
}

/// An address that is free now.
fn free() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// An edge whose output goes somewhere else than to a file, ended when it is dropped.
struct Bare(std::process::Child);

impl Bare {
    fn start(data: &Path, address: SocketAddr, stdout: Stdio, stderr: Stdio) -> Bare {
        let mut command = Command::new(bin("sluice-edge"));
        command.env("SLUICE_LOG", "debug").stdin(Stdio::null());
        command.env(testkit::RING_FOLDER_VARIABLE, testkit::ring_folder());
        command.args(["--admin", "127.0.0.1:0", "--edge", &address.to_string()]);
        command
            .arg("--data")
            .arg(data)
            .stdout(stdout)
            .stderr(stderr);
        let mut bare = Bare(command.spawn().unwrap());
        wait::until("the edge is up", BOUND, || {
            let ended = bare.0.try_wait().unwrap();
            assert!(ended.is_none(), "the edge ended: {ended:?}");
            redirects(address)
        });
        bare
    }

    fn stop(mut self) {
        signal(self.0.id(), Signal::TERM);
        wait::until("the edge ends", BOUND, || {
            self.0.try_wait().unwrap().is_some()
        });
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn a_log_that_cannot_be_written_stops_no_redirect() {
    let folder = tempfile::tempdir().unwrap();
    let data = installation(folder.path());
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    // The pipe's reader is gone before anything is written.
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    for make in [&full as &dyn Fn() -> Stdio, &closed] {
        let address = free();
        let bare = Bare::start(&data, address, make(), make());
        for _ in 0..100 {
            assert!(redirects(address));
        }
        bare.stop();
    }
}

#[test]
fn a_log_whose_reader_stands_still_stops_no_redirect() {
    let folder = tempfile::tempdir().unwrap();
    let data = installation(folder.path());
    let address = free();
    let (_reader, writer) = std::io::pipe().unwrap();
    let bare = Bare::start(&data, address, Stdio::null(), writer.into());
    // Each leaves a line at the debug level: a pipe of 64 KiB is full after some hundred.
    for _ in 0..1500 {
        let refused = http::raw(address, b"rubbish\r\n\r\n").unwrap();
        assert_eq!(refused.status, 400);
    }
    for _ in 0..100 {
        assert!(redirects(address));
    }
    bare.stop();
}

#[test]
fn sighup_reloads_and_does_not_kill() {
    let folder = tempfile::tempdir().unwrap();
    let data = installation(folder.path());
    let file = folder.path().join("sluice.toml");
    fs::write(
        &file,
        "links = 'links.csv'\n[edge]\nworkers = 1\n[courier]\nretain_acked_s = 1\n",
    )
    .unwrap();
    let mut command = edge(&data);
    command.arg("--settings").arg(&file);
    let (mut running, address, _) = up(command, &folder.path().join("edge"));
    let log = |running: &testkit::Running, line: &str, count: usize| {
        wait::until(line, BOUND, || {
            running.stderr().matches(line).count() == count
        });
    };
    fs::write(&file, "[edge]\nworkers = 2\nhead_timeout_s = 0\n").unwrap();
    signal(running.pid(), Signal::HUP);
    log(&running, "edge.head_timeout_s is 0: choose 1 to 600", 1);

    fs::write(&file, "[edge]\nworkers = 2\nhead_timeout_s = 1\n").unwrap();
    signal(running.pid(), Signal::HUP);
    let reloaded = "settings and certificates reloaded in_force=";
    let waits = "at_next_start=\"courier.retain_acked_s, edge.workers, links\"";
    log(
        &running,
        &format!("{reloaded}\"edge.head_timeout_s\" {waits}"),
        1,
    );
    signal(running.pid(), Signal::HUP);
    log(&running, &format!("{reloaded}\"nothing\" {waits}"), 1);
    // The new bound is in force: a silent connection is closed after a second or two, not after 15.
    let begun = Instant::now();
    let mut silent = TcpStream::connect(address).unwrap();
    silent.set_read_timeout(Some(BOUND)).unwrap();
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    assert!(
        begun.elapsed() < Duration::from_secs(12),
        "{:?}",
        begun.elapsed()
    );
    assert!(redirects(address));
    assert!(running.terminate(BOUND).unwrap().success());
}

#[test]
fn every_process_outlives_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start(&folder.path().join("data"), &[]);
    signal(system.running.pid(), Signal::HUP);
    wait::until("it says so", BOUND, || {
        system
            .running
            .stderr()
            .contains("settings and certificates reloaded")
    });
    system.get("/fall-boots", &[]);
    system.stop();
}

#[test]
fn a_drain_is_seen_before_anything_closes() {
    let folder = tempfile::tempdir().unwrap();
    let data = installation(folder.path());
    let file = folder.path().join("sluice.toml");
    fs::write(&file, "[edge]\nworkers = 1\ndrain_wait_s = 3\n").unwrap();
    let mut command = edge(&data);
    command.arg("--settings").arg(&file);
    let (mut running, address, admin) = up(command, &folder.path().join("edge"));
    // A balancer asks by address, and some by HTTP/1.0 without any Host.
    let health = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /_/health HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    wait::until("it is ready", BOUND, || {
        health().starts_with("HTTP/1.0 200")
    });
    let any_host = http::get(address, "/_/health", &[("Host", "10.0.3.17:8080")]).unwrap();
    assert_eq!((any_host.status, any_host.text().trim()), (200, "ok"));

    let mut kept = Connection::open(address).unwrap();
    let click = |kept: &mut Connection| {
        kept.request("GET", "/fall-boots", &[HOST, ("User-Agent", CHROME)], b"")
            .unwrap()
    };
    assert!(!click(&mut kept).closes());
    // A client that never ends its request.
    let mut slow = TcpStream::connect(address).unwrap();
    slow.write_all(b"GET /fall-boots HTTP/1.1\r\n").unwrap();

    let begun = Instant::now();
    signal(running.pid(), Signal::TERM);
    wait::until("it says draining", BOUND, || {
        health().starts_with("HTTP/1.0 503")
    });
    assert!(health().trim_end().ends_with("draining"), "{}", health());
    let ready = http::get(admin, "/readyz", &[]).unwrap();
    assert_eq!((ready.status, ready.text().trim()), (503, "draining"));
    // Nothing is closed yet, and visitors are still served.
    assert!(redirects(address));
    assert!(!click(&mut kept).closes());
    wait::until("the kept connection is told to close", BOUND, || {
        click(&mut kept).closes()
    });
    // Admin is there to the end: the slow client keeps the process a little longer than its listener.
    let mut is_watched = false;
    wait::until("admin ends", BOUND, || {
        let is_accepted = TcpStream::connect(address).is_ok();
        let is_alive = http::get(admin, "/livez", &[]).is_ok_and(|livez| livez.status == 200);
        is_watched |= !is_accepted && is_alive;
        !is_alive
    });
    assert!(is_watched);
    assert!(running.wait(BOUND).unwrap().success());
    // Three seconds of waiting, and a slow client holds up the rest for two at most.
    assert!(
        begun.elapsed() < Duration::from_secs(12),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn silent_connections_at_the_bound_keep_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sluice.toml");
    fs::write(
        &file,
        "[edge]\nworkers = 1\nconnections_max = 8\nhead_timeout_s = 600\n",
    )
    .unwrap();
    let system = System::start(
        &folder.path().join("data"),
        &["--settings", file.to_str().unwrap()],
    );
    let silent: Vec<_> = (0..8)
        .map(|_| TcpStream::connect(system.edge).unwrap())
        .collect();
    for _ in 0..20 {
        assert_eq!(
            system.get("/fall-boots", &[("User-Agent", CHROME)]).status,
            302
        );
    }
    assert_eq!(metric(&system, "sluice_edge_connections_max"), Some(8.0));
    assert!(metric(&system, "sluice_edge_connections_evicted_total").unwrap() >= 1.0);
    drop(silent);
    system.stop();
}

#[test]
fn descriptors_that_ran_out_kept_visitors_out_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let data = installation(folder.path());
    let file = folder.path().join("sluice.toml");
    fs::write(&file, "[edge]\nworkers = 1\nhead_timeout_s = 600\n").unwrap();
    let mut command = edge(&data);
    command.arg("--settings").arg(&file);
    let (mut running, address, admin) = up(command, &folder.path().join("edge"));
    assert!(redirects(address));
    let idle = || {
        let metrics = http::get(admin, "/metrics", &[]).unwrap().text();
        let line = "sluice_edge_connections{state=\"idle\"} ";
        let mut lines = metrics.lines();
        lines.find_map(|found| found.strip_prefix(line)?.parse::<u32>().ok())
    };
    let silent: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    wait::until("they are accepted", BOUND, || idle() == Some(20));

    let pid = Pid::from_raw(i32::try_from(running.pid()).unwrap()).unwrap();
    let open = fs::read_dir(format!("/proc/{}/fd", running.pid()))
        .unwrap()
        .count() as u64;
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = |current| prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum });
    // Not one more than it has: who is silent longest gives way to a visitor.
    limit(Some(open)).unwrap();
    for _ in 0..5 {
        assert!(redirects(address));
    }
    wait::until("it says so", BOUND, || {
        running.stderr().contains("cannot accept")
    });
    // Nor does it find a descriptor to look after its catalog with, which is none the worse for it.
    limit(maximum).unwrap();
    for _ in 0..100 {
        assert!(redirects(address));
    }
    let refused = "sluice_catalog_refused{what=\"snapshot\"} 0\n";
    wait::until("the catalog is read again", BOUND, || {
        let metrics = http::get(admin, "/metrics", &[]).unwrap().text();
        metrics.contains(refused)
    });
    let metrics = http::get(admin, "/metrics", &[]).unwrap().text();
    assert!(
        metrics.contains("sluice_journal_poisoned{journal=\"0\"} 0\n"),
        "{metrics}"
    );
    assert!(running.stderr().matches("cannot accept").count() < 10);
    drop(silent);
    assert!(running.terminate(BOUND).unwrap().success());
}

#[test]
fn a_successor_takes_the_socket_and_nobody_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = installation(folder.path());
    let (mut old, address, admin) = up(edge(&data), &folder.path().join("old"));
    let mut kept = Connection::open(address).unwrap();
    let click = |kept: &mut Connection| {
        kept.request("GET", "/fall-boots", &[HOST, ("User-Agent", CHROME)], b"")
            .unwrap()
    };
    click(&mut kept);
    // Without being told to, nobody takes over.
    let second = edge(&data).output().unwrap();
    assert_eq!(second.status.code(), Some(2));

    let stop = std::sync::atomic::AtomicBool::new(false);
    let (answered, mut new) = std::thread::scope(|scope| {
        let clicks = scope.spawn(|| {
            let mut answered = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert!(redirects(address), "refused after {answered} clicks");
                answered += 1;
            }
            answered
        });
        let mut command = Command::new(bin("sluice-edge"));
        command.args(["--take-over", "--edge", &address.to_string()]);
        command
            .args(["--admin", &admin.to_string(), "--data"])
            .arg(&data);
        let (new, at, its_admin) = up(command, &folder.path().join("new"));
        assert_eq!((at, its_admin), (address, admin));
        // The old one goes on for a kept connection, and tells it to come anew.
        wait::until("it drains", BOUND, || click(&mut kept).closes());
        assert!(old.wait(BOUND).unwrap().success(), "{}", old.stderr());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (clicks.join().unwrap(), new)
    });
    assert!(redirects(address));
    assert!(data.join("journal/2").exists() || data.join("journal/1").exists());
    assert_eq!(http::get(admin, "/readyz", &[]).unwrap().status, 200);
    // A third one follows the second as the second did the first.
    let mut command = Command::new(bin("sluice-edge"));
    command.args(["--take-over", "--edge", &address.to_string()]);
    command
        .args(["--admin", &admin.to_string(), "--data"])
        .arg(&data);
    let (mut third, ..) = up(command, &folder.path().join("third"));
    assert!(new.wait(BOUND).unwrap().success(), "{}", new.stderr());
    assert!(redirects(address));
    assert!(third.terminate(BOUND).unwrap().success());

    // All of it is counted, from the journals of all three.
    let system = System::start(&data, &[]);
    system.stop();
    let report = testkit::system::command(&data, &["report", "--format", "csv", "--by", ""]);
    let gross = report.lines().nth(1).unwrap().split(',').next().unwrap();
    let gross: u64 = gross.parse().unwrap();
    assert!(gross >= answered + 3, "{gross} {answered}");
}

#[test]
fn visitors_wait_while_the_whole_system_is_succeeded() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut old = System::start(&data, &[]);
    let (address, admin, reports) = (old.edge, old.admin, old.reports);
    let click = || {
        let begun = Instant::now();
        let click = http::get(address, "/fall-boots", &[("User-Agent", CHROME)]);
        assert_eq!(click.expect("nobody is refused").status, 302);
        begun.elapsed()
    };
    click();
    let mut command = Command::new(bin("sluice"));
    command.args(["up", "--take-over", "--edge", &address.to_string()]);
    command.args([
        "--admin",
        &admin.to_string(),
        "--reports",
        &reports.to_string(),
    ]);
    command.arg("--data").arg(&data);
    let mut new = testkit::Running::spawn(command, &folder.path().join("new")).unwrap();
    let mut longest = Duration::ZERO;
    let mut clicks = 1;
    wait::until("the successor is up", BOUND, || {
        longest = longest.max(click());
        clicks += 1;
        new.stdout().contains("  admin ")
    });
    assert!(
        old.running.wait(BOUND).unwrap().success(),
        "{}",
        old.running.stderr()
    );
    click();
    clicks += 1;
    // The figure is measured by `loadtest restart`; here two cores may be busy with other tests.
    assert!(longest < Duration::from_secs(30), "{longest:?}");
    assert!(new.terminate(BOUND).unwrap().success(), "{}", new.stderr());
    let report = testkit::system::command(&data, &["report", "--format", "csv", "--by", ""]);
    assert!(
        report.contains(&format!("\n{clicks},")),
        "{clicks} {report}"
    );
}

#[test]
fn a_socket_of_the_service_manager_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let data = installation(folder.path());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A shell passes the socket as systemd does: as descriptor 3, with the process' own id.
    let start = || {
        let listener = listener.try_clone().unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!(
            "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec {} --admin 127.0.0.1:0 --data {}",
            bin("sluice-edge").display(),
            data.display()
        ));
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
        command
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log")).unwrap());
        Bare(command.spawn().unwrap())
    };
    let first = start();
    wait::until("it answers", BOUND, || redirects(address));
    first.stop();
    // Nobody accepts now, and nobody is refused.
    let mut waiting = TcpStream::connect(address).unwrap();
    let second = start();
    write!(
        waiting,
        "GET /fall-boots HTTP/1.1\r\nHost: go.northpeak.example\r\n\r\n"
    )
    .unwrap();
    waiting.set_read_timeout(Some(BOUND)).unwrap();
    let mut answer = [0; 12];
    waiting.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 302");
    second.stop();
}

#[test]
fn connections_that_do_not_fit_the_limit_of_open_files_are_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = installation(folder.path());
    let start = |limit: u32, settings: &str| {
        let file = folder.path().join("sluice.toml");
        fs::write(&file, settings).unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!(
            "ulimit -n {limit}; exec {} --edge 127.0.0.1:0 --admin 127.0.0.1:0 --data {} --settings {}",
            bin("sluice-edge").display(),
            data.display(),
            file.display()
        ));
        command
    };
    let refused = start(1024, "[edge]\nworkers = 2\nconnections_max = 1000\n")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("need a limit of 2288 open files"),
        "{stderr}"
    );
    // Where nobody said how many, as many as fit.
    let (mut running, address, admin) = up(
        start(1024, "[edge]\nworkers = 2\n"),
        &folder.path().join("edge"),
    );
    assert!(redirects(address));
    let metrics = http::get(admin, "/metrics", &[]).unwrap().text();
    assert!(metrics.contains("sluice_edge_connections_max 736\n"));
    assert!(running.terminate(BOUND).unwrap().success());
}

#[test]
fn a_key_that_everybody_may_read_and_an_empty_certificate_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = installation(folder.path());
    let made = rcgen::generate_simple_self_signed(vec!["go.northpeak.example".into()]).unwrap();
    let (certificate, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let write_key = |mode: u32| {
        let _ = fs::remove_file(&key);
        let mut file = OpenOptions::new();
        let mut file = file.write(true).create(true).mode(mode).open(&key).unwrap();
        file.write_all(made.signing_key.serialize_pem().as_bytes())
            .unwrap();
    };
    let file = folder.path().join("sluice.toml");
    let text = format!(
        "[edge.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    fs::write(&file, text).unwrap();
    let refused = |said: &str| {
        let mut command = edge(&data);
        let output = command.arg("--settings").arg(&file).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    };
    fs::write(&certificate, made.cert.pem()).unwrap();
    write_key(0o644);
    refused("everybody on this machine may read or change this key: chmod 640 or 600");
    fs::write(&certificate, "").unwrap();
    write_key(0o640);
    refused("cert.pem: no certificate in it");
}
