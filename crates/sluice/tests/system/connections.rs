//! What connections cost while nobody uses them, and that they go on afterwards; and the edge's own TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::net::SendFlags;
use rustls::pki_types::CertificateDer;
use testkit::{System, http, wait};

use crate::{BOUND, CHROME, demo_secret, metric, token};

/// How many connections the edge has in a state.
fn connections(system: &System, state: &str) -> f64 {
    let name = format!("sluice_edge_connections{{state=\"{state}\"}}");
    metric(system, &name).expect("it is there")
}

/// Waits until so many clicks are counted.
fn until_clicks(system: &System, clicks: usize) {
    wait::until("the clicks are counted", BOUND, || {
        system.report("").contains(&format!("\n{clicks},"))
    });
}

/// Starts with one worker and these settings of the edge.
fn start(folder: &Path, settings: &str) -> System {
    let file = folder.join("sluice.toml");
    std::fs::write(&file, format!("[edge]\nworkers = 1\n{settings}")).unwrap();
    System::start(
        &folder.join("data"),
        &["--settings", file.to_str().unwrap()],
    )
}

fn connect(system: &System) -> TcpStream {
    let stream = TcpStream::connect(system.edge).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream
}

/// A request without the empty line that ends its head.
fn begun(system: &System, target: &str) -> String {
    let host = system.edge;
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {CHROME}\r\n")
}

/// The next answer of few bytes.
fn answer(mut stream: impl Read) -> String {
    let mut bytes = [0; 4096];
    let length = stream.read(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

fn assert_redirect_and_stays(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 302"), "{answer}");
    assert!(!answer.contains("connection: close"), "{answer}");
}

#[test]
fn an_idle_connection_gives_back_its_buffers_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let system = start(folder.path(), "");
    let until_idle = |count: f64| {
        wait::until("so many are idle", BOUND, || {
            connections(&system, "idle") == count
        });
    };

    let mut connection = connect(&system);
    let request = begun(&system, "/fall-boots") + "\r\n";
    until_idle(1.0);
    for _ in 0..2 {
        connection.write_all(request.as_bytes()).unwrap();
        assert_redirect_and_stays(&answer(&connection));
        until_idle(1.0);
    }
    // Heads that come in two parts, the first of a connection and a later one, with so long between the parts that what is
    // silent meanwhile becomes idle.
    let mut slow = connect(&system);
    let first = begun(&system, "/fall-boots");
    slow.write_all(first.as_bytes()).unwrap();
    wait::until("its first part is read", BOUND, || {
        connections(&system, "active") == 1.0
    });
    for last in [false, true] {
        connection.write_all(request.as_bytes()).unwrap();
        assert_redirect_and_stays(&answer(&connection));
        until_idle(1.0);
        assert_eq!(connections(&system, "active"), 1.0, "the slow one");
        let rest = if last {
            "\r\n".to_owned()
        } else {
            format!("\r\n{first}")
        };
        slow.write_all(rest.as_bytes()).unwrap();
        assert_redirect_and_stays(&answer(&slow));
    }
    until_idle(2.0);

    until_clicks(&system, 6);
    system.stop();
}

/// A request and the end of what is sent, in one segment: simple senders of postbacks do so.
#[test]
fn who_has_sent_all_still_gets_an_answer_and_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let system = start(folder.path(), "");
    let secret = demo_secret(&folder.path().join("data"));
    let click = system.get("/fall-boots", &[("User-Agent", CHROME)]);
    let sale = format!(
        "/postback?token={}&order=A-1&goal=sale&amount=80.00&secret={secret}",
        token(&click, "npk")
    );
    for (target, status) in [("/fall-boots", "302"), (sale.as_str(), "200")] {
        let mut stream = connect(&system);
        // The edge has read all there is of this connection before the last request comes.
        let request = begun(&system, "/fall-boots") + "\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        assert_redirect_and_stays(&answer(&stream));
        let request = begun(&system, target) + "\r\n";
        let sent = rustix::net::send(&stream, request.as_bytes(), SendFlags::MORE).unwrap();
        assert_eq!(sent, request.len());
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.starts_with(&format!("HTTP/1.1 {status}")), "{rest}");
    }
    until_clicks(&system, 4);
    wait::until("the sale is counted", BOUND, || {
        system.report("").contains("80.00")
    });
    system.stop();
}

#[test]
fn more_connections_than_may_be_wait_for_one_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let system = start(folder.path(), "connections_max = 1\n");
    let request = begun(&system, "/fall-boots") + "\r\n";
    let mut first = connect(&system);
    first.write_all(request.as_bytes()).unwrap();
    assert_redirect_and_stays(&answer(&first));
    let mut second = connect(&system);
    second.write_all(request.as_bytes()).unwrap();
    first.write_all(request.as_bytes()).unwrap();
    assert_redirect_and_stays(&answer(&first));
    second.set_nonblocking(true).unwrap();
    let early = second.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(early, Err(ErrorKind::WouldBlock));
    second.set_nonblocking(false).unwrap();
    drop(first);
    assert_redirect_and_stays(&answer(&second));
    system.stop();
}

/// A certificate for the demo's domain, and the settings that name it.
fn certified(folder: &Path) -> (CertificateDer<'static>, String) {
    let names = ["go.northpeak.example".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (certificate, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let settings = format!("[edge.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    (made.cert.der().clone(), settings)
}

/// A visitor who believes this certificate alone.
fn client(certificate: CertificateDer<'static>) -> rustls::ClientConnection {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = "go.northpeak.example".try_into().unwrap();
    rustls::ClientConnection::new(Arc::new(config), name).unwrap()
}

#[test]
fn over_tls_it_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, settings) = certified(folder.path());
    let system = start(folder.path(), &settings);

    let mut client = client(certificate);
    let request = format!(
        "GET /fall-boots HTTP/1.1\r\nHost: go.northpeak.example\r\nUser-Agent: {CHROME}\r\n\r\n"
    );
    // The first request comes with the end of the handshake.
    client.writer().write_all(request.as_bytes()).unwrap();
    let mut stream = rustls::StreamOwned::new(client, connect(&system));
    for _ in 0..2 {
        let answer = answer(&mut stream);
        assert_redirect_and_stays(&answer);
        assert!(answer.contains("set-cookie: __Host-sl="), "{answer}");
        wait::until("it is idle", BOUND, || connections(&system, "idle") == 1.0);
        stream.write_all(request.as_bytes()).unwrap();
    }
    assert_redirect_and_stays(&answer(&mut stream));
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(
        stream.conn.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    // A client that speaks plain HTTP gets no answer.
    assert!(http::get(system.edge, "/fall-boots", &[]).is_err());

    until_clicks(&system, 3);
    system.stop();
}

#[test]
fn a_renewed_certificate_was_served_after_the_next_restart_only() {
    let folder = tempfile::tempdir().unwrap();
    let (old, settings) = certified(folder.path());
    let system = start(folder.path(), &settings);
    let request = begun(&system, "/fall-boots") + "\r\n";
    let open = |certificate: &CertificateDer<'static>| {
        rustls::StreamOwned::new(client(certificate.clone()), connect(&system))
    };
    let hang_up = |line: &str, times: usize| {
        let pid = i32::try_from(system.running.pid()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        wait::until(line, BOUND, || {
            system.running.stderr().matches(line).count() == times
        });
    };
    let mut kept = open(&old);
    kept.write_all(request.as_bytes()).unwrap();
    assert_redirect_and_stays(&answer(&mut kept));

    let (new, _) = certified(folder.path());
    hang_up("settings and certificates reloaded", 1);
    let mut other = open(&new);
    other.write_all(request.as_bytes()).unwrap();
    assert_redirect_and_stays(&answer(&mut other));
    assert!(open(&old).write_all(request.as_bytes()).is_err());
    // Who is connected notices nothing.
    kept.write_all(request.as_bytes()).unwrap();
    assert_redirect_and_stays(&answer(&mut kept));

    // Half of a renewal: the certificate of before goes on.
    let key = std::fs::read(folder.path().join("key.pem")).unwrap();
    certified(folder.path());
    std::fs::write(folder.path().join("key.pem"), key).unwrap();
    hang_up("is that of another certificate", 1);
    let mut other = open(&new);
    other.write_all(request.as_bytes()).unwrap();
    assert_redirect_and_stays(&answer(&mut other));
    kept.write_all(request.as_bytes()).unwrap();
    assert_redirect_and_stays(&answer(&mut kept));
    until_clicks(&system, 5);
    system.stop();
}

#[test]
fn a_silent_handshake_is_let_go_and_holds_up_no_stop() {
    let folder = tempfile::tempdir().unwrap();
    let (_, settings) = certified(folder.path());
    let system = start(folder.path(), &format!("head_timeout_s = 1\n{settings}"));
    let mut silent = connect(&system);
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0, "it is closed");
    let _silent = connect(&system);
    wait::until("it is there", BOUND, || connections(&system, "idle") == 1.0);
    system.stop();
    let said = folder.path().join("data.output/stderr.txt");
    let said = std::fs::read_to_string(said).unwrap();
    assert!(!said.contains("still open"), "{said}");
}

#[test]
fn a_certificate_that_is_none_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let settings = folder.path().join("sluice.toml");
    let missing = folder.path().join("chain.pem");
    let text = format!("[edge.tls]\ncertificate = {missing:?}\nkey = {missing:?}\n");
    std::fs::write(&settings, text).unwrap();
    let mut command = std::process::Command::new(testkit::bin("sluice"));
    command.args(["up", "--edge", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command
        .args(["--reports", "127.0.0.1:0", "--data"])
        .arg(&data);
    command.arg("--settings").arg(&settings);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("chain.pem"), "{said}");
}
