//! What the processes write for their operators holds nothing that opens a door or names a visitor.

use std::fs;
use std::process::Command;

use testkit::{System, bin, http, wait};

use crate::{BOUND, CHROME, demo_secret, token};

#[test]
fn no_log_line_holds_a_secret_a_token_or_an_address() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let settings = folder.path().join("sluice.toml");
    fs::write(&settings, "[edge]\ntrusted_forwarders = ['127.0.0.1/32']\n").unwrap();
    let mut command = Command::new(bin("sluice"));
    command.env("SLUICE_LOG", "debug");
    let file = settings.to_str().unwrap();
    let system = System::start_by(command, &data, &["--settings", file]);

    let secret = demo_secret(&data);
    let wrong = "wrong-secret-4711";
    let addresses = ["203.0.113.77", "2001:db8:77::7", "198.51.100.399"];
    let mut tokens = Vec::new();
    for address in addresses {
        let headers = [("User-Agent", CHROME), ("X-Forwarded-For", address)];
        let click = system.get("/fall-boots", &headers);
        assert_eq!(click.status, 302);
        tokens.push(token(&click, "npk"));
    }
    let mut forged = tokens[0].clone();
    let last = if forged.ends_with('A') { 'B' } else { 'A' };
    forged.replace_range(..1, &last.to_string());
    tokens.push(forged);
    let cookie = format!("__Host-sl={}; sl={}", tokens[0], tokens[3]);
    let visited = [("X-Forwarded-For", addresses[0]), ("Cookie", &cookie)];
    for target in ["/fall-boots", "/nowhere", "/c?offer=nothing&aff=trailblog"] {
        system.get(target, &visited);
    }
    for token in &tokens {
        for secret in [secret.as_str(), wrong] {
            let sale = format!("/postback?token={token}&order=1&goal=sale&amount=80.00");
            system.get(&format!("{sale}&secret={secret}"), &visited);
            let bearer = format!("Bearer {secret}");
            system.get(&sale, &[("Authorization", &bearer)]);
        }
    }
    // Heads and bodies that break off or are none.
    let cut = format!("secret={secret}&token={}", tokens[0]);
    for raw in [
        format!("GET /postback?{cut} HTTP/9.9\r\n\r\n"),
        format!(
            "GET /postback?{cut}\r\nX-Forwarded-For: {}\r\n",
            addresses[0]
        ),
        format!("{cut}\r\n\r\n"),
        format!(
            "POST /postback HTTP/1.1\r\nHost: {}\r\nContent-Length: 900\r\n\r\n{cut}",
            system.edge
        ),
        format!(
            "GET /postback?{cut}&pad={} HTTP/1.1\r\nHost: {}\r\n\r\n",
            "x".repeat(9000),
            system.edge
        ),
    ] {
        // Some get no answer; what is written about them is what counts.
        let _ = http::raw(system.edge, raw.as_bytes());
    }
    // A person writes the secret itself where its file is to be named.
    let catalog = data.join("demo/catalog.toml");
    let good = fs::read_to_string(&catalog).unwrap();
    fs::write(&catalog, good.replace("file:northpeak.secret", &secret)).unwrap();
    wait::until("the catalog is refused", BOUND, || {
        system.running.stderr().contains("catalog refused")
    });
    fs::write(&catalog, good).unwrap();
    wait::until("the sale is counted", BOUND, || {
        system.report("").contains(",USD,80.00,")
    });

    let written = [system.running.stdout(), system.running.stderr()].concat();
    assert!(written.contains("DEBUG"), "{written}");
    system.stop();
    let all = [secret.as_str(), wrong].into_iter().chain(addresses);
    for needle in all.chain(tokens.iter().map(String::as_str)) {
        let line = written.lines().find(|line| line.contains(needle));
        assert_eq!(line, None, "{needle}");
    }
}
