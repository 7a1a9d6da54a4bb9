//! Reports over a real store, under the names of a catalog, as functions and over HTTP.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use catalog::{Catalog, GoalName, LinkName, Links, Names, Network, OfferName};
use domain::event::{self, Candidate, Conversion, Line, Postback, Reason, Rule, Status, Trust};
use domain::{Advertiser, Affiliate, ClickKey, Currency, Goal, Link, Offer};
use prost::Message;
use reports::{OrderQuery, Parameters, ReportQuery, order, run};
use service::{Clock, Shutdown};
use store::{Change, Cube, OrderKey, RollupKey, Source, Store, View};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// 2026-11-20T12:00:00Z
const NOON_MS: u64 = 1_795_176_000_000;

/// Noon of the day after.
const NOW: jiff::Timestamp = jiff::Timestamp::constant(1_795_262_400, 0);

fn names() -> Catalog {
    let (offer, affiliate) = (
        Offer::new(1).expect("a number"),
        Affiliate::new(1).expect("a number"),
    );
    let advertiser = Advertiser::new(1).expect("a number");
    Catalog {
        version: 1,
        hash: 1,
        lock_id: "1".into(),
        network: Network {
            timezone: "Europe/Berlin".into(),
            currency: Currency::parse("EUR").expect("a code"),
        },
        domains: BTreeMap::new(),
        advertisers: BTreeMap::new(),
        offers: BTreeMap::new(),
        affiliates: BTreeMap::new(),
        links: Links::new(
            &BTreeMap::from([(
                Link::new(5).expect("a number"),
                LinkName {
                    slug: "summer/boots".into(),
                    offer,
                    affiliate,
                },
            )]),
            &BTreeMap::new(),
        )
        .expect("few"),
        names: Names {
            domains: BTreeMap::new(),
            advertisers: BTreeMap::from([(advertiser, "northpeak".into())]),
            offers: BTreeMap::from([(
                offer,
                OfferName {
                    name: "boots".into(),
                    advertiser,
                },
            )]),
            goals: BTreeMap::from([(
                Goal::new(1).expect("a number"),
                GoalName {
                    offer,
                    name: "sale".into(),
                },
            )]),
            affiliates: BTreeMap::from([(affiliate, "trailblog".into())]),
        },
    }
}

fn click(sequence: u32) -> event::ClickKey {
    event::ClickKey {
        time_ms: NOON_MS,
        stream: 0xab,
        sequence,
    }
}

/// Ten valid clicks and a bot through the link, two clicks of an affiliate nobody knows, and a sale.
fn filled(folder: &Path) -> PathBuf {
    let path = folder.join("store.db");
    let store = Store::open(&path).expect("a new store");
    let key = |affiliate, link, reason: Reason, currency: &str| RollupKey {
        cube: Cube::Traffic,
        bucket_ms: NOON_MS,
        offer: 1,
        affiliate,
        link,
        reason: reason as u32,
        currency: currency.into(),
        source: Source {
            consumer: 1,
            partition: 0,
        },
    };
    let line = Line {
        affiliate: 1,
        offer: 1,
        link: 5,
        share_millionths: 1_000_000,
        payout_currency: "USD".into(),
        payout_micros: 6_400_000,
        ..Line::default()
    };
    let conversion = Conversion {
        advertiser: 1,
        order: "A-1".into(),
        goal: "sale".into(),
        change: 3,
        offer: 1,
        affiliate: 1,
        link: 5,
        click: Some(click(2)),
        time_ms: NOON_MS + 1_500,
        changed_ms: NOON_MS + 2_500,
        status: Status::Approved.into(),
        currency: "USD".into(),
        amount_micros: 80_000_000,
        revenue_currency: "USD".into(),
        revenue_micros: 9_600_000,
        payout_currency: "USD".into(),
        payout_micros: 6_400_000,
        catalog_version: 4,
        after: vec![line],
        candidates: vec![
            Candidate {
                click: Some(click(2)),
                offer: 1,
                affiliate: 1,
                link: 5,
                credited: true,
                rule: Rule::Credited.into(),
                label: Reason::RepeatClick.into(),
            },
            Candidate {
                click: Some(click(1)),
                offer: 1,
                affiliate: 9,
                rule: Rule::EarlierClick.into(),
                ..Candidate::default()
            },
        ],
        ..Conversion::default()
    };
    let postback = Postback {
        trust: Trust::Server.into(),
        status: Status::Approved.into(),
        order: "A-1".into(),
        goal_text: "sa\x1b[31mle".into(),
        has_amount: true,
        amount_micros: 80_000_000,
        currency: "USD".into(),
        seq: Some(7),
        ..Postback::default()
    };
    let stranger = Postback {
        status: Status::Reversed.into(),
        reason: Reason::Unauthenticated.into(),
        ..postback.clone()
    };
    let stranger = Postback {
        trust: Trust::None.into(),
        ..stranger
    };
    let event = Conversion {
        candidates: Vec::new(),
        ..conversion.clone()
    };
    store
        .batch(|batch| {
            batch.add_rollup(
                &key(1, 5, Reason::None, ""),
                &Change {
                    clicks: 10,
                    unique: 8,
                    duplicate: 2,
                    ..Change::default()
                },
            )?;
            batch.add_rollup(
                &key(1, 5, Reason::DeclaredBot, ""),
                &Change {
                    invalid: 1,
                    ..Change::default()
                },
            )?;
            batch.add_rollup(
                &key(9, 0, Reason::None, ""),
                &Change {
                    clicks: 2,
                    unique: 2,
                    ..Change::default()
                },
            )?;
            batch.add_rollup(
                &key(1, 5, Reason::None, "USD"),
                &Change {
                    conversions: 1,
                    amount: 80_000_000,
                    revenue: 9_600_000,
                    payout: 6_400_000,
                    ..Change::default()
                },
            )?;
            let key = OrderKey {
                advertiser: 1,
                order: "A-1".into(),
            };
            batch.put_conversion(&key, &conversion, None, &conversion.encode_to_vec())?;
            let (said, again) = (ClickKey::from(&click(21)), ClickKey::from(&click(22)));
            batch.put_postback(
                &key,
                said,
                store::Sender::Advertiser,
                0,
                &postback.encode_to_vec(),
            )?;
            batch.set_outcome(said, &event.encode_length_delimited_to_vec())?;
            batch.put_postback(
                &key,
                again,
                store::Sender::Stranger,
                0,
                &stranger.encode_to_vec(),
            )?;
            Ok(())
        })
        .expect("a batch");
    path
}

#[test]
fn numbers_become_names() {
    let folder = tempfile::tempdir().unwrap();
    let view = View::open(&filled(folder.path())).unwrap();
    let table = |by: &str, from: Option<&str>| {
        let parameters = Parameters::default()
            .with("by", Some(by))
            .with("from", from);
        let query = ReportQuery::parse(&parameters, &names(), NOW).unwrap();
        run(&view, &names(), &query).unwrap().table()
    };
    assert_eq!(
        table("link,reason", None),
        "\
link          reason        gross  clicks  unique  duplicate  anonymous  invalid  conversions    CVR  currency  amount  revenue  payout  profit     EPC
(none)        none              2       2       2          0          0        0            0   0.00  USD         0.00     0.00    0.00    0.00  0.0000
summer/boots  declared_bot      1       0       0          0          0        1            0         USD         0.00     0.00    0.00    0.00
summer/boots  none             10      10       8          2          0        0            1  10.00  USD        80.00     9.60    6.40    3.20  0.6400
total                          13      12      10          2          0        1            1   8.33  USD        80.00     9.60    6.40    3.20  0.5333
"
    );
    for (by, expected) in [
        ("day", "2026-11-20 "),
        ("hour", "2026-11-20T13:00+01:00 "),
        ("affiliate", "#9 "),
        ("advertiser", "northpeak "),
    ] {
        let table = table(by, None);
        let line = table.lines().nth(1).unwrap();
        assert!(line.starts_with(expected), "{by}: {line}");
    }
    assert_eq!(
        table("day", Some("2026-11-21")).lines().count(),
        2,
        "a header and a total of nothing"
    );
}

#[test]
fn an_order_tells_what_became_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let view = View::open(&filled(folder.path())).unwrap();
    let ask = |query: &OrderQuery| order(&view, &names(), query);
    let of = |advertiser: &str, order: &str| OrderQuery::Order {
        advertiser: advertiser.into(),
        order: order.into(),
    };
    assert!(ask(&of("northpeak", "A-2")).unwrap().is_none());
    let unknown = ask(&of("nobody", "A-1")).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "advertiser: \"nobody\" is not in the catalog"
    );
    let expected = "\
order A-1 of northpeak
  goal sale, change 3
    status     approved
    time       2026-11-20T12:00:01.500Z
    changed    2026-11-20T12:00:02.500Z
    offer      boots
    affiliate  trailblog
    link       summer/boots
    click      2026-11-20T12:00:00.000Z (000001aa0a0a0a00000000ab00000002)
    facts      complete
    amount     80.00 USD
    revenue    9.60 USD
    payout     6.40 USD
    rates      of catalog version 4, in force when the first word of the order came
    paid       yes: it counts in reports
    candidates
      + 2026-11-20T12:00:00.000Z (000001aa0a0a0a00000000ab00000002)
        boots by trailblog through summer/boots: kept: the click of the order's token, within the offer's window (labelled repeat click)
      - 2026-11-20T12:00:00.000Z (000001aa0a0a0a00000000ab00000001)
        boots by #9: removed: an earlier click, the offer credits the one of the token
  history
    2026-11-20T12:00:00.000Z 000001aa0a0a0a00000000ab00000015 advertiser: approved 80.00 USD goal=sa\\u{1b}[31mle seq=7
      sale: new -> approved, payout 6.40 USD
    2026-11-20T12:00:00.000Z 000001aa0a0a0a00000000ab00000016 somebody without the secret: reversed 80.00 USD goal=sa\\u{1b}[31mle seq=7
      not believed: unauthenticated
";
    let time = format!("{NOON_MS:016x}");
    let expected = expected.replace("000001aa0a0a0a00", &time);
    let id = format!("{time}000000ab00000016");
    for query in [
        of("northpeak", "A-1"),
        of("northpeak", " A-1 "),
        OrderQuery::Postback(id),
    ] {
        let found = ask(&query).unwrap().unwrap();
        assert_eq!(found.text(&names()), expected);
    }
}

/// Sends one request and returns the status line, the headers and the body.
async fn ask(address: std::net::SocketAddr, request: &str) -> (String, String) {
    let mut connection = TcpStream::connect(address).await.expect("a listener");
    let request = format!("{request}Connection: close\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .await
        .expect("a request goes out");
    let mut answer = String::new();
    connection
        .read_to_string(&mut answer)
        .await
        .expect("an answer in UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn the_api_answers_and_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let catalog = Arc::new(names());
    let source = move || {
        let view = View::open(&path).map_err(|error| error.to_string())?;
        Ok((view, Arc::clone(&catalog)))
    };
    let serving = tokio::spawn(reports::serve(
        listener,
        source,
        Clock::system(),
        shutdown.clone(),
    ));

    let host = format!("Host: {address}\r\n");
    let get = |query: &str| format!("GET /api/v1/report{query} HTTP/1.1\r\n{host}");
    let report = "?by=affiliate,offer&from=2026-11-20&to=2026-11-20&format=";
    for (request, status, kind, expected) in [
        (
            get(&format!("{report}json")),
            200,
            "application/json",
            r#""affiliate": "trailblog""#,
        ),
        (
            get(&format!("{report}csv")),
            200,
            "text/csv",
            "trailblog,boots,11,10,8,2,0,1,1,10.00,USD,80.00,",
        ),
        (
            get(&format!("{report}table")),
            200,
            "text/plain",
            "trailblog  boots     11",
        ),
        (get(""), 200, "application/json", r#""gross": 13"#),
        (
            format!("GET /api/v1/orders/northpeak/A%2D1 HTTP/1.1\r\n{host}"),
            200,
            "application/json",
            r#""was": null"#,
        ),
        (
            format!("GET /api/v1/orders/northpeak/A-2 HTTP/1.1\r\n{host}"),
            404,
            "application/json",
            "nobody reported such an order",
        ),
        (
            format!("GET /api/v1/orders/A-1 HTTP/1.1\r\n{host}"),
            400,
            "application/json",
            r#""parameter":"id""#,
        ),
        (
            get("?by=offer&affiliate=trailblog&format=csv"),
            200,
            "text/csv",
            "epc\nboots,11,10,8,2,0,1,1,10.00,USD,80.00,9.60,6.40,3.20,0.6400\n",
        ),
        (
            get("?advertiser=northpeak&reason=declared_bot&format=ndjson"),
            200,
            "application/x-ndjson",
            r#"{"gross":1,"clicks":0,"unique":0,"duplicate":0,"anonymous":0,"invalid":1,"#,
        ),
        (
            get("?affiliate=%239&link=(none)&format=csv"),
            200,
            "text/csv",
            "epc\n2,2,2,0,0,0,0,0.00,EUR,",
        ),
        (
            get("?link=summer/boots"),
            200,
            "application/json",
            r#""gross": 11"#,
        ),
        (
            get("?affiliate=trailblog,trailblgo"),
            400,
            "application/json",
            r#"{"error":"affiliate: \"trailblgo\" is not in the catalog, did you mean \"trailblog\"?","parameter":"affiliate"}"#,
        ),
        (
            format!("GET /api/v1/conversions?format=csv&affiliate=trailblog HTTP/1.1\r\n{host}"),
            200,
            "text/csv",
            ",northpeak,approved,,yes,boots,trailblog,",
        ),
        (
            format!("GET /api/v1/conversions?status=rejected HTTP/1.1\r\n{host}"),
            200,
            "application/json",
            "{\"rows\":[\n],\"next\":null}",
        ),
        (
            format!("GET /api/v1/clicks?offer=boots HTTP/1.1\r\n{host}"),
            200,
            "application/json",
            "\"next\":null}",
        ),
        (
            format!("GET /api/v1/clicks?after=x HTTP/1.1\r\n{host}"),
            400,
            "application/json",
            r#""parameter":"after""#,
        ),
        (
            get("?time=tomorrow"),
            400,
            "application/json",
            r#""parameter":"time""#,
        ),
        (
            format!("HEAD /api/v1/report?by=link HTTP/1.1\r\n{host}"),
            200,
            "application/json",
            "",
        ),
        (
            get("?by=country"),
            400,
            "application/json",
            r#""parameter":"by""#,
        ),
        (
            get("?from=x"),
            400,
            "application/json",
            r#""parameter":"from""#,
        ),
        (
            get("?format=xml"),
            400,
            "application/json",
            r#""parameter":"format""#,
        ),
        (
            get("?group=offer"),
            400,
            "application/json",
            r#""parameter":"group""#,
        ),
        (
            get("?by=offer&by=day"),
            400,
            "application/json",
            "by: is given twice",
        ),
        (
            format!("GET / HTTP/1.1\r\n{host}"),
            404,
            "application/json",
            "/api/v1/report",
        ),
        (
            format!("POST /api/v1/report HTTP/1.1\r\n{host}"),
            405,
            "application/json",
            "use GET",
        ),
        (
            "GET /api/v1/report HTTP/1.1\r\n".into(),
            400,
            "application/json",
            "one Host header",
        ),
        (
            "GET /api/v1/report HTTP/1.1\r\nHost: rebound.example\r\n".into(),
            421,
            "application/json",
            "ask by address",
        ),
    ] {
        let (head, body) = ask(address, &request).await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}{head}"
        );
        assert!(
            head.contains(&format!("content-type: {kind}")),
            "{request}{head}"
        );
        assert!(head.contains("cache-control: no-store"), "{request}{head}");
        assert!(body.contains(expected), "{request}{body}");
    }

    let (head, _) = ask(address, &get(&format!("?by={}", "x".repeat(64 * 1024)))).await;
    assert!(head.starts_with("HTTP/1.1 4"), "{head}");

    shutdown.request();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_not_there_yet_is_a_503() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let source = || Err("no catalog yet".to_owned());
    let serving = tokio::spawn(reports::serve(
        listener,
        source,
        Clock::system(),
        shutdown.clone(),
    ));
    let request = format!("GET /api/v1/report HTTP/1.1\r\nHost: {address}\r\n");
    let (head, body) = ask(address, &request).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, "{\"error\":\"no catalog yet\"}\n");
    shutdown.request();
    serving.await.unwrap();
}

#[test]
fn a_misspelt_filter_made_an_empty_list() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let view = View::open(&filled(folder.path())).expect("readable");
    let catalog = names();
    let refused = |list: &str, name: &'static str, word: &str| {
        let asked = Parameters::default().with(name, Some(word));
        let format = reports::Format::Json;
        let done = match list {
            "clicks" => reports::clicks(&view, &catalog, &asked, NOW, format).map(drop),
            "conversions" => reports::conversions(&view, &catalog, &asked, NOW, format).map(drop),
            _ => ReportQuery::parse(&asked, &catalog, NOW).map(drop),
        };
        done.err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    for (lists, name, word, said) in [
        (
            "conversions",
            "status",
            "aproved",
            r#"status: "aproved" is not known, did you mean "approved"? Use one of approved, pending, rejected, reversed"#,
        ),
        (
            "conversions",
            "status",
            "paid",
            r#"status: "paid" is not known: use one of approved, pending, rejected, reversed"#,
        ),
        (
            "conversions",
            "goal",
            "sales",
            r#"goal: "sales" is not in the catalog, did you mean "sale"?"#,
        ),
        (
            "conversions",
            "paid",
            "true",
            r#"paid: "true" is not known: use one of no, yes"#,
        ),
        (
            "conversions",
            "matched",
            "hand",
            r#"matched: "hand" is not known: use one of by hand, token, token (its click has not arrived)"#,
        ),
        (
            "clicks",
            "class",
            "browsr",
            r#"class: "browsr" is not known, did you mean "browser"?"#,
        ),
        (
            "clicks",
            "decision",
            "x",
            r#"decision: "x" is not known: use one of "#,
        ),
        (
            "clicks",
            "consent",
            "al",
            r#"consent: "al" is not known, did you mean "all"?"#,
        ),
        (
            "clicks conversions report",
            "affiliate",
            "trailblok",
            r#"affiliate: "trailblok" is not in the catalog, did you mean "trailblog"?"#,
        ),
        (
            "clicks conversions report",
            "offer",
            "bots",
            r#"offer: "bots" is not in the catalog, did you mean "boots"?"#,
        ),
        (
            "clicks conversions report",
            "advertiser",
            "nortpeak",
            r#"advertiser: "nortpeak" is not in the catalog, did you mean "northpeak"?"#,
        ),
        (
            "clicks conversions report",
            "link",
            "summer/boot",
            r#"link: "summer/boot" is not in the catalog, did you mean "summer/boots"?"#,
        ),
        (
            "clicks conversions report",
            "reason",
            "unauthentcated",
            r#"reason: "unauthentcated" is not known, did you mean "unauthenticated"?"#,
        ),
        // What is there, and what nobody can know beforehand.
        ("conversions", "status", "approved,reversed", ""),
        ("conversions", "matched", "by hand", ""),
        ("clicks conversions", "affiliate", "trailblog,(none),#7", ""),
        ("clicks conversions", "sub1", "whatever", ""),
        ("conversions", "order", "B-77", ""),
        ("clicks", "class", "browser,bot", ""),
    ] {
        for list in lists.split(' ') {
            let found = refused(list, name, word);
            let is_right = match said {
                "" => found.is_empty(),
                said => found.starts_with(said),
            };
            assert!(is_right, "{list} {name}={word}: {found}");
        }
    }
}
