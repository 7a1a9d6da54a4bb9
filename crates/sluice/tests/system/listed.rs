//! What people read of orders and reports, by command and over HTTP: the same rows in every form, every order, and a question that
//! is too large answered with a smaller one.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use serde_json::Value;
use store::{Change, Cube, RollupKey, Source, Store};
use testkit::{System, bin, system, wait};

use crate::BOUND;
use crate::orders::Shop;

/// A row by its columns.
type Row = BTreeMap<String, String>;

fn csv_rows(text: &str) -> Vec<Row> {
    let mut lines = text.lines().map(|line| line.split(','));
    let head: Vec<&str> = lines.next().expect("a head").collect();
    let row = |cells: std::str::Split<'_, char>| {
        let cells: Vec<&str> = cells.collect();
        assert_eq!(cells.len(), head.len(), "{text}");
        let pairs = head.iter().zip(cells);
        pairs
            .map(|(name, cell)| ((*name).to_owned(), cell.to_owned()))
            .collect()
    };
    lines.map(row).collect()
}

fn json_row(row: &Value) -> Row {
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::Bool(is_so) => if *is_so { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let row = row.as_object().expect("a row is an object");
    row.iter()
        .map(|(name, value)| (name.clone(), cell(value)))
        .collect()
}

fn ndjson_rows(text: &str) -> Vec<Row> {
    let rows = text
        .lines()
        .map(|line| json_row(&serde_json::from_str(line).unwrap()));
    rows.collect()
}

fn json_rows(text: &str) -> Vec<Row> {
    let list: Value = serde_json::from_str(text).unwrap();
    list["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(json_row)
        .collect()
}

/// Lists have no length before they are read: an answer by HTTP/1.0 ends with its connection.
fn get(system: &System, target: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(system.reports).unwrap();
    let host = system.reports;
    write!(stream, "GET {target} HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status").parse().unwrap();
    (status, body.to_owned())
}

/// The order of an answer, once its click is there too.
fn complete(shop: &Shop, answer: &Value) -> Value {
    let mut order = Value::Null;
    wait::until("its click is there", BOUND, || {
        order = shop.outcome(answer);
        order["goals"][0]["facts"] == "complete"
    });
    order
}

#[test]
fn orders_without_an_id_were_in_no_list() {
    let shop = Shop::open();
    let (first, second) = (shop.click(1), shop.click(2));
    let (_, sale) = shop.say(&format!("token={first}&order=A/1&goal=sale&amount=80"));
    complete(&shop, &sale);
    let (_, signup) = shop.say(&format!("token={second}&goal=signup"));
    let without_id = complete(&shop, &signup)["order"]
        .as_str()
        .unwrap()
        .to_owned();
    let api = |query: &str| {
        let (status, text) = get(&shop.system, &format!("/api/v1/conversions?{query}"));
        assert_eq!(status, 200, "{text}");
        text
    };
    let rows = csv_rows(&api("format=csv"));
    let told: Vec<[&str; 5]> = rows
        .iter()
        .map(|row| ["order", "goal", "status", "amount", "payout"].map(|name| row[name].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            [&without_id, "signup", "approved", "", "3.00"],
            ["A/1", "sale", "approved", "80.00", "6.40"],
        ]
    );
    // Every form and both ways say the same.
    assert_eq!(ndjson_rows(&api("format=ndjson")), rows);
    assert_eq!(json_rows(&api("format=json")), rows);
    for format in ["csv", "json", "ndjson", "table"] {
        let printed = shop.system.command(&["conversions", "--format", format]);
        assert_eq!(printed, api(&format!("format={format}")), "{format}");
    }
    let one = shop
        .system
        .command(&["conversions", "--order", &without_id, "--format", "csv"]);
    assert_eq!(csv_rows(&one), rows[..1]);
    assert_eq!(csv_rows(&api("order=A%2F1&format=csv")), rows[1..]);
    shop.system.stop();
}

#[test]
fn an_order_is_found_by_its_id_by_its_token_and_by_the_answer_to_a_postback() {
    let shop = Shop::open();
    let (first, second) = (shop.click(1), shop.click(2));
    let (_, sale) = shop.say(&format!("token={first}&order=A/1&goal=sale&amount=80"));
    let (_, signup) = shop.say(&format!("token={second}&goal=signup"));
    let by_token = complete(&shop, &signup)["order"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(by_token.starts_with("token:"), "{by_token}");
    for (answer, path, goal) in [
        (&sale, "northpeak/A%2F1", "sale"),
        (&sale, "northpeak/A/1", "sale"),
        (&signup, &format!("northpeak/{by_token}"), "signup"),
    ] {
        let by_answer = complete(&shop, answer);
        assert_eq!(by_answer["goals"][0]["goal"], goal, "{by_answer:#}");
        assert_eq!(shop.order(path), Some(by_answer), "{path}");
    }
    let id = sale["id"].as_str().unwrap();
    let shown = shop
        .system
        .command(&["order", "show", id, "--format", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&shown).ok(), shop.order(id));
    for (path, status) in [
        ("northpeak/A-2", 404),
        ("nobody/A-1", 400),
        ("northpeak/%ff", 400),
        ("0123", 400),
    ] {
        let (found, said) = get(&shop.system, &format!("/api/v1/orders/{path}"));
        assert_eq!(found, status, "{path}: {said}");
        assert!(said.starts_with("{\"error\":\""), "{path}: {said}");
    }
    shop.system.stop();
}

#[test]
fn a_report_of_more_groups_than_anybody_reads_says_what_to_ask_instead() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    System::start(&data, &[]).stop();
    let store = Store::open(&data.join("store.sqlite")).unwrap();
    let add = |batch: &mut store::Batch<'_>, link: u64| {
        let row = RollupKey {
            cube: Cube::Traffic,
            bucket_ms: 1_790_000_100_000,
            offer: 1,
            affiliate: 1,
            link,
            reason: 0,
            currency: String::new(),
            source: Source {
                consumer: 1,
                partition: 0,
            },
        };
        let change = Change {
            clicks: 1,
            unique: 1,
            ..Change::default()
        };
        batch.add_rollup(&row, &change)
    };
    let groups_max = reports::GROUPS_MAX as u64;
    store
        .batch(|batch| (1..=groups_max).try_for_each(|link| add(batch, link)))
        .unwrap();
    let system = System::start(&data, &[]);
    let report = |query: &str| get(&system, &format!("/api/v1/report?format=csv&{query}"));
    let (status, csv) = report("by=link");
    assert_eq!((status, csv.lines().count() as u64), (200, 1 + groups_max));

    store.batch(|batch| add(batch, groups_max + 1)).unwrap();
    for (by, instead) in [
        ("link", "a time (time=last-7-days) or fewer names"),
        (
            "link,offer",
            "fewer groups (by=link), less time or fewer names",
        ),
    ] {
        let expected = format!("the report has more than 100000 groups: ask for {instead}");
        let (status, said) = report(&format!("by={by}"));
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (status, said["error"].as_str()),
            (413, Some(expected.as_str()))
        );
        let mut command = Command::new(bin("sluice"));
        command.args(["report", "--by", by, "--data"]);
        let output = command.arg(&data).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&expected), "{said}");
    }
    // The smaller questions have answers.
    for query in [
        "by=offer",
        "by=link&link=%237",
        "by=link&from=2026-11-01&to=2026-11-02",
    ] {
        let (status, csv) = report(query);
        assert_eq!(status, 200, "{query}: {csv}");
    }
    system.stop();
    let by_offer = system::command(&data, &["report", "--by", "offer", "--format", "csv"]);
    assert!(by_offer.contains("\nboots,100001,100001,"), "{by_offer}");
}
