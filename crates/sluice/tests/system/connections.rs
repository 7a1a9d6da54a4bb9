//! What connections cost while nobody uses them, and that they go on afterwards; and the edge's own TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use testkit::http::Connection;
use testkit::{System, http, wait};

use crate::{BOUND, CHROME, metric};

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

#[test]
fn an_idle_connection_gives_back_its_buffers_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let settings = folder.path().join("sluice.toml");
    std::fs::write(&settings, "[edge]\nworkers = 1\n").unwrap();
    let system = System::start(&data, &["--settings", settings.to_str().unwrap()]);
    let headers = [("User-Agent", CHROME)];

    let mut connection = Connection::open(system.edge).unwrap();
    wait::until("it is idle before its first request", BOUND, || {
        connections(&system, "idle") == 1.0
    });
    for _ in 0..2 {
        let click = connection.request("GET", "/fall-boots", &headers, b"");
        assert_eq!(click.unwrap().status, 302);
        assert_eq!(connections(&system, "active"), 1.0);
        wait::until("it is idle", BOUND, || {
            connections(&system, "idle") == 1.0 && connections(&system, "active") == 0.0
        });
    }
    // A head that comes in two parts with a pause between them.
    let mut slow = TcpStream::connect(system.edge).unwrap();
    slow.set_read_timeout(Some(BOUND)).unwrap();
    let request = format!(
        "GET /fall-boots HTTP/1.1\r\nHost: {}\r\nUser-Agent: {CHROME}\r\n",
        system.edge
    );
    slow.write_all(format!("{request}\r\n{request}").as_bytes())
        .unwrap();
    let mut answer = [0; 4096];
    let length = slow.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 302"));
    // Its buffers were given back more than once when it has been looked at so often as to make the other one idle.
    let click = connection.request("GET", "/fall-boots", &headers, b"");
    assert_eq!(click.unwrap().status, 302);
    wait::until("the other one is idle", BOUND, || {
        connections(&system, "idle") >= 1.0 && connections(&system, "active") <= 1.0
    });
    slow.write_all(b"\r\n").unwrap();
    let length = slow.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 302"));

    until_clicks(&system, 5);
    system.stop();
}

#[test]
fn over_tls_it_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["go.northpeak.example".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (certificate, key) = (
        folder.path().join("chain.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let settings = folder.path().join("sluice.toml");
    let text = format!("[edge.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    std::fs::write(&settings, text).unwrap();
    let arguments = ["--settings", settings.to_str().unwrap()];
    let system = System::start(&folder.path().join("data"), &arguments);

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = "go.northpeak.example".try_into().unwrap();
    let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let tcp = TcpStream::connect(system.edge).unwrap();
    tcp.set_read_timeout(Some(BOUND)).unwrap();
    let mut stream = rustls::StreamOwned::new(client, tcp);
    let request = format!(
        "GET /fall-boots HTTP/1.1\r\nHost: go.northpeak.example\r\nUser-Agent: {CHROME}\r\n\r\n"
    );
    for _ in 0..2 {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).unwrap();
        let answer = std::str::from_utf8(&answer[..length]).unwrap();
        assert!(answer.starts_with("HTTP/1.1 302"), "{answer}");
        assert!(answer.contains("set-cookie: __Host-sl="), "{answer}");
        wait::until("it is idle", BOUND, || connections(&system, "idle") == 1.0);
    }
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(
        stream.conn.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    // A client that speaks plain HTTP gets no answer.
    assert!(http::get(system.edge, "/fall-boots", &[]).is_err());

    until_clicks(&system, 2);
    system.stop();
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
