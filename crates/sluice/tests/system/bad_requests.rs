//! Hostile and broken requests: each gets its status, nothing is lost, and the process goes on.

use std::io::{Read, Write};
use std::net::TcpStream;

use testkit::{System, http, wait};

use crate::on_kafka::columns;
use crate::{BOUND, CHROME, ONE_CLICK_AND_ITS_SIGNUP, demo_secret, token, until_report};

#[test]
fn every_broken_request_has_its_status() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start(&folder.path().join("data"), &[]);
    let edge = system.edge;
    let long_target = format!("/fall-boots?sub1={}", "x".repeat(9000));
    let many_headers = format!("X-Padding: {}\r\n", "y".repeat(1000)).repeat(64);
    for (head, status) in [
        (format!("GET /fall-boots HTTP/1.1\r\nHost: {edge}\r\n"), 302),
        ("GET /fall-boots HTTP/1.1\r\n".to_owned(), 400),
        (
            format!("GET /fall-boots HTTP/1.1\r\nHost: {edge}\r\nHost: {edge}\r\n"),
            400,
        ),
        ("GET /fall-boots HTTP/1.1\r\nHost: a b\r\n".to_owned(), 400),
        (
            "GET /fall-boots HTTP/1.1\r\nHost: user@go.northpeak.example\r\n".to_owned(),
            400,
        ),
        (
            "GET /fall-boots HTTP/1.1\r\nHost: go.northpeak.example.\r\n".to_owned(),
            302,
        ),
        (
            "GET /fall-boots HTTP/1.1\r\nHost: GO.NORTHPEAK.EXAMPLE:443\r\n".to_owned(),
            302,
        ),
        (
            "GET http://go.northpeak.example/fall-boots HTTP/1.1\r\nHost: other.example\r\n"
                .to_owned(),
            302,
        ),
        (
            format!("DELETE /fall-boots HTTP/1.1\r\nHost: {edge}\r\n"),
            405,
        ),
        (
            format!("POST /fall-boots HTTP/1.1\r\nHost: {edge}\r\nContent-Length: 0\r\n"),
            405,
        ),
        (
            format!("BREW /fall-boots HTTP/1.1\r\nHost: {edge}\r\n"),
            405,
        ),
        (format!("OPTIONS * HTTP/1.1\r\nHost: {edge}\r\n"), 405),
        (
            format!("GET {long_target} HTTP/1.1\r\nHost: {edge}\r\n"),
            414,
        ),
        (
            format!("GET /fall-boots HTTP/1.1\r\nHost: {edge}\r\n{many_headers}"),
            431,
        ),
        (format!("GET /a%00b HTTP/1.1\r\nHost: {edge}\r\n"), 400),
        (
            format!("GET /a%0d%0aSet-Cookie:x=y HTTP/1.1\r\nHost: {edge}\r\n"),
            400,
        ),
        (format!("GET /%ff%fe HTTP/1.1\r\nHost: {edge}\r\n"), 400),
        (format!("GET /caf\u{e9} HTTP/1.1\r\nHost: {edge}\r\n"), 404),
        ("GET\r\n".to_owned(), 400),
        ("\u{1}\u{2}\u{3}\r\n".to_owned(), 400),
        (format!("GET /fall-boots HTTP/9.9\r\nHost: {edge}\r\n"), 400),
        (
            format!("GET /c?offer=nothing&aff=trailblog HTTP/1.1\r\nHost: {edge}\r\n"),
            404,
        ),
        (
            format!("GET /c?offer=boots&aff=nobody HTTP/1.1\r\nHost: {edge}\r\n"),
            404,
        ),
        (format!("GET /c HTTP/1.1\r\nHost: {edge}\r\n"), 404),
        (
            format!("GET /.well-known/x HTTP/1.1\r\nHost: {edge}\r\n"),
            404,
        ),
        (format!("GET /robots.txt HTTP/1.1\r\nHost: {edge}\r\n"), 200),
    ] {
        let request = format!("{head}Connection: close\r\n\r\n");
        let answer = http::raw(edge, request.as_bytes());
        let answer = answer.unwrap_or_else(|error| panic!("{head}: {error}"));
        assert_eq!(
            answer.status,
            status,
            "{}: {answer:?}",
            &head[..head.len().min(200)]
        );
        if status != 302 {
            assert_eq!(answer.header("location"), None, "{head}");
        }
    }
    let allowed = http::request(edge, "PUT", "/fall-boots", &[], b"").unwrap();
    assert_eq!(allowed.header("allow"), Some("GET, HEAD"));
    system.stop();
}

#[test]
fn what_is_refused_before_it_has_a_path_was_in_no_metric() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start(&folder.path().join("data"), &[]);
    let edge = system.edge;
    let count = |status: u16| {
        let metrics = http::get(system.admin, "/metrics", &[]).unwrap().text();
        let label = format!("status=\"{status}\"");
        let mut lines = metrics.lines();
        let of_status = lines.by_ref().filter(|line| {
            line.starts_with("sluice_edge_requests_total{") && line.contains(&label)
        });
        let values = of_status.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        values.sum::<u64>()
    };
    let cookies = format!("Cookie: c={}\r\n", "y".repeat(80_000));
    let fields = (0..101)
        .map(|n| format!("X-{n}: y\r\n"))
        .collect::<String>();
    let host = format!("Host: {edge}\r\n");
    let long = format!("/fall-boots?sub1={}", "x".repeat(9000));
    for (head, status) in [
        (format!("GET /fall-boots HTTP/1.1\r\n{host}{cookies}"), 431),
        (format!("GET /fall-boots HTTP/1.1\r\n{host}{fields}"), 431),
        ("rubbish\r\n".to_owned(), 400),
        ("GET /fall-boots HTTP/1.1\r\n".to_owned(), 400),
        (format!("GET {long} HTTP/1.1\r\n{host}"), 414),
    ] {
        let before = count(status);
        let request = format!("{head}Connection: close\r\n\r\n");
        let answer = http::raw(edge, request.as_bytes()).unwrap();
        assert_eq!(answer.status, status, "{head:.80}");
        wait::until("it is counted", BOUND, || count(status) == before + 1);
    }
    // The cookies of a shop's own site fit.
    let cookies = format!("Cookie: c={}\r\n", "y".repeat(20_000));
    let request = format!("GET /fall-boots HTTP/1.1\r\n{host}{cookies}Connection: close\r\n\r\n");
    assert_eq!(http::raw(edge, request.as_bytes()).unwrap().status, 302);
    // The known link whose address was too long left an event.
    let clicks = || system.command(&["clicks", "--format", "csv", "--reason", "target_too_long"]);
    wait::until("the click is listed", BOUND, || {
        let rows = columns(&clicks(), ["offer", "link", "decision"]);
        rows == [["boots", "fall-boots", "refuse"]]
    });
    system.stop();
}

#[test]
fn a_bad_host_was_answered_by_the_wrong_status() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start(&folder.path().join("data"), &[]);
    for (method, host, status) in [
        ("GET", Some("[::1"), 400),
        ("GET", Some("a:b:80"), 400),
        ("GET", Some("go.northpeak.example:99999"), 400),
        ("GET", Some("go.northpeak.example:443"), 302),
        ("GET", Some("[::1]:80"), 421),
        ("GET", None, 400),
        // A Host is missing whatever the method is.
        ("DELETE", None, 400),
        ("DELETE", Some("go.northpeak.example"), 405),
    ] {
        let host = host.map_or(String::new(), |host| format!("Host: {host}\r\n"));
        let request = format!("{method} /fall-boots HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        let answer = http::raw(system.edge, request.as_bytes()).unwrap();
        assert_eq!(answer.status, status, "{request}");
    }
    system.stop();
}

#[test]
fn nobody_could_tell_a_mended_link_or_a_visitor_without_an_address_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sluice.toml");
    std::fs::write(&file, "[edge]\ntrusted_forwarders = [\"127.0.0.1/32\"]\n").unwrap();
    let arguments = ["--settings", file.to_str().unwrap()];
    let system = System::start(&folder.path().join("data"), &arguments);
    let known = ("X-Forwarded-For", "198.51.100.7");
    for (target, forwarded) in [
        ("/fall-boots?ext=plain", known),
        ("/fall-boots/?ext=mended", known),
        ("/fall-boots?ext=nobody", ("X-Forwarded-For", "unknown")),
        (
            "/C/?offer=boots&aff=trailblog&ext=both",
            ("X-Forwarded-For", "unknown"),
        ),
    ] {
        let answer = system.get(target, &[("User-Agent", CHROME), forwarded]);
        assert_eq!(answer.status, 302, "{target}");
    }
    let expected = [
        ["both", "mended_link no_address", ""],
        ["mended", "mended_link", "198.51.100.0/24"],
        ["nobody", "no_address", ""],
        ["plain", "", "198.51.100.0/24"],
    ];
    let mut rows = Vec::new();
    let found = wait::holds_within(BOUND, || {
        let csv = system.command(&["clicks", "--format", "csv"]);
        rows = columns(&csv, ["ext", "labels", "network"]);
        // Clicks of one millisecond have no order.
        rows.sort();
        rows == expected
    });
    assert!(found, "{rows:?}");
    // Two of them are nobody: they count, and no one of them is a repeat.
    until_report(
        &system,
        "",
        "gross,clicks,unique,duplicate,anonymous,invalid,conversions,cvr,currency,amount,revenue,payout,profit,epc\n4,1,1,0,2,1,0,0.00,USD,0.00,0.00,0.00,0.00,0.0000\n",
    );
    system.stop();
}

#[test]
fn control_bytes_in_a_parameter_reach_neither_header_nor_destination() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start(&folder.path().join("data"), &[]);
    let target = "/fall-boots?sub1=%0d%0aSet-Cookie:%20evil%3d1%00&sub2=%0a&ext=%00";
    let answer = system.get(target, &[("User-Agent", CHROME)]);
    assert_eq!(answer.status, 302);
    let cookies = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie");
    assert_eq!(cookies.count(), 1);
    let location = answer.header("location").unwrap();
    assert!(
        location.starts_with(
            "https://shop.northpeak.example/boots?aff=trailblog&s=Set-Cookie%3A%20evil%3D1&npk="
        ),
        "{location}"
    );
    system.stop();
}

#[test]
fn a_postback_is_believed_only_from_the_advertiser_that_owns_the_offer() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let catalog = folder.path().join("catalog.toml");
    let other = "\n[advertiser.other]\npostback = { secret = \"file:other.secret\" }\n\
                 [offer.socks]\nadvertiser = \"other\"\nto = \"https://socks.example/\"\n\
                 goal.sale = { revenue = \"1.00 USD\", payout = \"0.50 USD\" }\n";
    std::fs::write(&catalog, format!("{}{other}", catalog::DEMO)).unwrap();
    std::fs::write(
        folder.path().join("northpeak.secret"),
        "northpeak's own secret\n",
    )
    .unwrap();
    std::fs::write(
        folder.path().join("other.secret"),
        "the other one's secret\n",
    )
    .unwrap();
    let system = System::start(&data, &["--catalog", catalog.to_str().unwrap()]);
    let token = token(&system.get("/fall-boots", &[("User-Agent", CHROME)]), "npk");
    let mut forged = token.clone();
    forged.replace_range(20..21, if &token[20..21] == "A" { "B" } else { "A" });
    let own = "secret=northpeak%27s%20own%20secret";
    let foreign = "secret=the%20other%20one%27s%20secret";
    let lower = token.to_ascii_lowercase();

    for (query, status, reason) in [
        (
            format!("token={forged}&order=1&goal=sale&amount=1&{own}"),
            400,
            "token_forged",
        ),
        (
            format!("token={lower}&order=1&goal=sale&amount=1&{own}"),
            400,
            "token_lowercased",
        ),
        (
            format!("token=abc&order=1&goal=sale&amount=1&{own}"),
            400,
            "token_malformed",
        ),
        (
            format!("order=1&goal=sale&amount=1&{own}"),
            400,
            "token_missing",
        ),
        (
            format!("goal=sale&amount=1&adv=northpeak&{own}"),
            400,
            "order_missing",
        ),
        (
            format!("token={token}&order=1&goal=sale&amount=1"),
            202,
            "unauthenticated",
        ),
        (
            format!("token={token}&order=1&goal=sale&amount=1&secret=wrong"),
            403,
            "unauthenticated",
        ),
        (
            format!("token={token}&order=1&goal=sale&amount=1&{foreign}"),
            403,
            "token_foreign",
        ),
        (
            format!("token={token}&order=1&goal=sale&amount=1&adv=other&{foreign}"),
            403,
            "token_foreign",
        ),
        (
            format!("token={token}&order=1&goal=nothing&amount=1&{own}"),
            422,
            "unknown_goal",
        ),
        (
            format!("token={token}&order=1&amount=1&{own}"),
            422,
            "goal_missing",
        ),
        (
            format!("token={token}&order=1&goal=sale&amount=1e9&{own}"),
            422,
            "amount_malformed",
        ),
        (
            format!("token={token}&order=1&goal=sale&amount=-5&{own}"),
            422,
            "amount_malformed",
        ),
        (
            format!("token={token}&order=1&goal=sale&amount=1&status=done&{own}"),
            422,
            "unknown_status",
        ),
        (
            format!("token={token}&order=1%0d%0aX:y&goal=sale&amount=1&{own}"),
            400,
            "malformed",
        ),
        (
            format!(
                "token={token}&order={}&goal=sale&amount=1&{own}",
                "9".repeat(129)
            ),
            400,
            "malformed",
        ),
    ] {
        let answer = system.get(&format!("/postback?{query}"), &[]);
        assert_eq!(answer.status, status, "{query}: {}", answer.text());
        let said = format!("\"reason\":\"{reason}\"");
        assert!(answer.text().contains(&said), "{query}: {}", answer.text());
        assert!(!answer.text().contains("secret="), "{}", answer.text());
    }
    // By POST and with the secret in a header it is the same.
    let body = format!("token={token}&order=2&goal=signup");
    let headers = [
        ("Authorization", "Bearer northpeak's own secret"),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    let answer = http::request(system.edge, "POST", "/postback", &headers, body.as_bytes());
    assert_eq!(answer.unwrap().status, 200);
    let big = vec![b'x'; 17 * 1024];
    let answer = http::request(system.edge, "POST", "/postback", &headers, &big);
    assert_eq!(answer.unwrap().status, 413);

    until_report(&system, "", ONE_CLICK_AND_ITS_SIGNUP);
    system.stop();
}

#[test]
fn a_half_sent_request_is_let_go_and_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("sluice.toml");
    std::fs::write(&settings, "[edge]\nworkers = 1\nhead_timeout_s = 1\n").unwrap();
    let system = System::start(
        &folder.path().join("data"),
        &["--settings", settings.to_str().unwrap()],
    );
    let mut silent = TcpStream::connect(system.edge).unwrap();
    let mut half = TcpStream::connect(system.edge).unwrap();
    half.write_all(b"GET /fall-boots HTTP/1.1\r\nHos").unwrap();
    assert_eq!(system.get("/fall-boots", &[]).status, 302);
    for connection in [&mut silent, &mut half] {
        connection.set_read_timeout(Some(BOUND)).unwrap();
        let mut rest = Vec::new();
        // A reset says the same as an end.
        let _ = connection.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 302"), "{rest:?}");
    }
    assert_eq!(system.get("/fall-boots", &[]).status, 302);
    assert_eq!(demo_secret(&folder.path().join("data")).len(), 64);
    system.stop();
}

#[test]
fn an_address_that_is_not_quite_right_leads_where_it_was_meant_to() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start(&folder.path().join("data"), &[]);
    let get = |target: &str| {
        let headers = [
            ("Host", "go.northpeak.example"),
            ("User-Agent", CHROME),
            ("Cookie", "__Host-sl=x"),
        ];
        http::get(system.edge, target, &headers).unwrap()
    };
    for (target, sub) in [
        ("/fall-boots/", "newsletter"),
        ("//fall-boots", "newsletter"),
        ("/fall-boots.", "newsletter"),
        ("/fall-boots)", "newsletter"),
        ("/fall-boots%0A", "newsletter"),
        ("/fall-boots%E2%80%9D", "newsletter"),
        ("/fall-boots&sub1=soup", "soup"),
        ("/fall-boots%3Fsub1=soup", "soup"),
        ("/fall-boots??sub1=soup", "soup"),
        ("/c/?offer=boots&aff=trailblog&sub1=x", "x"),
        ("/c??offer=boots&aff=trailblog)&sub1=x", "x"),
        ("/c?offer=boots&amp;aff=trailblog&amp;sub1=x", "x"),
        ("/C?OFFER=BOOTS&AFF=TRAILBLOG&SUB1=x", "x"),
        ("/%63?link=fall-boots/", "newsletter"),
        ("/fall-boots?sub1=%EE%EA%F0%E1", "%EE%EA%F0%E1"),
    ] {
        let answer = get(target);
        assert_eq!(answer.status, 302, "{target}");
        let location = answer.header("location").unwrap_or_default();
        let start = format!("https://shop.northpeak.example/boots?aff=trailblog&s={sub}&");
        assert!(location.starts_with(&start), "{target}: {location}");
    }
    for target in ["/Fall-boots", "/nope/", "/c/fall-boots"] {
        assert_eq!(get(target).status, 404, "{target}");
    }
    for (target, cookie) in [
        ("/fall-boots?gdpr=${GDPR}", None),
        (
            "/fall-boots?cons=none",
            Some("__Host-sl=; Secure; HttpOnly; SameSite=Lax; Path=/; Max-Age=0"),
        ),
    ] {
        assert_eq!(get(target).header("set-cookie"), cookie, "{target}");
    }
}
