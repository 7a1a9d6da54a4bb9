//! Readers in another language, `docs/reader/reader.py` and `incremental.py`, have nothing but the topics and the schema, and
//! agree with the report: also when records come twice, too early, or as tombstones, and when one is killed on its way.

use std::collections::BTreeMap;

use domain::event::{Class, Click, Decision, Kind, Postback, Trust};
use domain::{Affiliate, Micros, Offer};
use prost::Message;
use stream::{Record, StreamId};
use testkit::http::{self, Response};
use testkit::{System, system, wait};

use crate::on_kafka::{self, CLICKS, POSTBACKS, Reader, columns, connect, records, send};
use crate::{BOUND, CHROME, token};

const CATALOG: &str = r#"
[network]
currency = "USD"
[domain."go.northpeak.example"]
[advertiser.northpeak]
postback = { secret = "file:northpeak.secret" }
[offer.boots]
advertiser = "northpeak"
to = "https://shop.northpeak.example/boots"
click_param = "npk"
goal.signup = { revenue = "4.00 USD", payout = "3.00 USD" }
goal.sale = { revenue = "12 %", payout = "8 %" }
[offer.tents]
advertiser = "northpeak"
to = "https://shop.northpeak.example/tents"
click_param = "npk"
goal.sale = { revenue = "10 %", payout = "7.25 %" }
[affiliate.trailblog]
offers = ["boots", "tents"]
[affiliate.gearhub]
offers = ["tents"]
[link.fall-boots]
affiliate = "trailblog"
offer = "boots"
"#;
const SECRET: &str = "only for this test";

/// What is told of an (affiliate, offer): clicks, invalid, conversions, payout by currency.
type Told = BTreeMap<(String, String), (u64, u64, u64, BTreeMap<String, Micros>)>;

/// What a table tells, with names by `affiliate` and `offer`.
fn told(csv: &str, affiliate: impl Fn(&str) -> String, offer: impl Fn(&str) -> String) -> Told {
    let names = [
        "affiliate",
        "offer",
        "clicks",
        "invalid",
        "conversions",
        "currency",
        "payout",
    ];
    // Counts stand on the first line of several.
    let count = |text: &str| {
        if text.is_empty() {
            0
        } else {
            text.parse().expect("a count")
        }
    };
    let mut told = Told::new();
    for [who, what, clicks, invalid, conversions, currency, payout] in columns(csv, names) {
        let line = told.entry((affiliate(&who), offer(&what))).or_default();
        line.0 += count(&clicks);
        line.1 += count(&invalid);
        line.2 += count(&conversions);
        let payout = Micros::parse(&payout).expect(&payout);
        // Where there is no money the report names the network's currency, and the reader none.
        if payout != Micros(0) {
            line.3.insert(currency, payout);
        }
    }
    // The reader counts a click without a person among the others, the report in a column of its own.
    if csv
        .lines()
        .next()
        .is_some_and(|head| head.contains(",anonymous,"))
    {
        for [who, what, anonymous] in columns(csv, ["affiliate", "offer", "anonymous"]) {
            let line = told.entry((affiliate(&who), offer(&what))).or_default();
            line.0 += count(&anonymous);
        }
    }
    told
}

/// Visitors, bots, prefetches, sales and a reversal; how many clicks of any kind, postbacks and paid orders.
fn traffic(system: &System) -> (usize, usize, usize) {
    let (mut gross, mut said) = (0, 0);
    let mut click = |target: &str, agent: &str| -> Response {
        gross += 1;
        system.get(target, &[("User-Agent", agent)])
    };
    let mut boots = Vec::new();
    let mut tents = Vec::new();
    for visitor in 0..12 {
        let agent = format!("{CHROME} {visitor}");
        boots.push(token(&click("/fall-boots", &agent), "npk"));
        tents.push(token(&click("/c?offer=tents&aff=trailblog", &agent), "npk"));
    }
    let other = token(&click("/c?offer=tents&aff=gearhub", CHROME), "npk");
    // At once again: invalid when it is found, which is later than the click.
    for _ in 0..3 {
        click("/c?offer=tents&aff=gearhub", CHROME);
    }
    for _ in 0..4 {
        click("/fall-boots", "Mozilla/5.0 (compatible; Googlebot/2.1)");
    }
    click("/fall-boots?cons=none", CHROME);
    click("/c?offer=boots&aff=nobody", CHROME);
    click("/c?offer=boots&aff=gearhub", CHROME);
    let agent = ("User-Agent", CHROME);
    http::request(system.edge, "HEAD", "/fall-boots", &[agent], b"").unwrap();
    gross += 1;
    // No clicks.
    for _ in 0..3 {
        let prefetch = system.get("/fall-boots", &[agent, ("Sec-Purpose", "prefetch")]);
        assert_eq!(prefetch.status, 503);
    }
    assert_eq!(system.get("/nowhere", &[agent]).status, 404);

    let bearer = format!("Bearer {SECRET}");
    let vouched = [("Authorization", bearer.as_str())];
    let mut say = |query: String, headers: &[(&str, &str)], status: u16| {
        said += 1;
        let answer = system.get(&format!("/postback?{query}"), headers);
        assert_eq!(answer.status, status, "{query}: {}", answer.text());
    };
    let (first, second) = (&boots[0], &tents[1]);
    for _ in 0..3 {
        say(
            format!("token={first}&order=A-1&goal=sale&amount=80.01"),
            &vouched,
            200,
        );
    }
    say(
        format!("token={}&order=A-2&goal=signup", boots[1]),
        &vouched,
        200,
    );
    say(
        format!("token={second}&order=A-3&amount=33.33"),
        &vouched,
        200,
    );
    say(
        format!("token={}&order=A-4&amount=100&currency=EUR", tents[2]),
        &vouched,
        200,
    );
    say(
        format!("token={other}&order=A-5&amount=12.34"),
        &vouched,
        200,
    );
    // None of these pays: no amount, nobody who vouches, an error, a reversal.
    say(format!("token={second}&order=B-1"), &vouched, 200);
    say(format!("token={second}&order=B-2&amount=5"), &[], 202);
    say(
        format!("token={second}&order=B-3&goal=nothing"),
        &vouched,
        422,
    );
    say(format!("token={second}&order=B-4&amount=50"), &vouched, 200);
    say(
        format!("token={second}&order=B-4&status=reversed"),
        &vouched,
        200,
    );
    // What is vouched for takes the order to another affiliate.
    say(format!("token={other}&order=A-6&amount=70"), &[], 202);
    say(format!("token={second}&order=A-6&amount=70"), &vouched, 200);
    (gross, said, 6)
}

/// Under a stream of our own, in the order in which they are sent: 1, then 3 and 4 too early, what is missing, a tombstone for
/// two.
fn out_of_order(base: &Record, origin: StreamId, value: impl Fn(u64) -> Vec<u8>) -> Vec<Record> {
    let at = |n: u64| Record {
        origin,
        n,
        time_ms: base.time_ms + n,
        value: value(n),
        ..base.clone()
    };
    let tombstone = Record::tombstone_of(origin, base.lane, 5..=6, base.time_ms + 5);
    vec![
        at(1),
        at(3),
        at(4),
        at(2),
        at(2),
        at(3),
        at(4),
        tombstone,
        at(7),
    ]
}

/// As many as topics have where nothing is set.
const PARTITIONS: u16 = 4;

/// How many of [`out_of_order`] are new, repeats, early.
const OUT_OF_ORDER: (usize, usize, usize) = (5, 1, 2);

#[test]
fn a_reader_in_another_language_agrees_with_the_report() {
    let test = "a_reader_in_another_language_agrees_with_the_report";
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("catalog.toml"), CATALOG).unwrap();
    std::fs::write(path("northpeak.secret"), SECRET).unwrap();
    let Some(broker) = on_kafka::broker(test, folder.path()) else {
        return;
    };
    let Some(reader) = Reader::new(test, &path("generated"), &broker) else {
        return;
    };
    let address = broker.address();

    let (data, catalog) = (path("data"), path("catalog.toml"));
    let catalog = catalog.to_str().unwrap();
    let system = System::start(&data, &["--catalog", catalog, "--kafka", &address]);
    let (gross, said, conversions) = traffic(&system);
    let until_counted = |gross: usize, conversions: usize| {
        let mut last = String::new();
        let found = wait::holds_within(BOUND, || {
            last = system.report("");
            let expected = [gross.to_string(), conversions.to_string()];
            columns(&last, ["gross", "conversions"]).first() == Some(&expected)
        });
        assert!(
            found,
            "expected {gross} clicks and {conversions} orders:\n{last}"
        );
    };
    until_counted(gross, conversions);
    reader.go_on_and_kill();
    let part = reader.go_on();
    assert!(part.status.success(), "{part:?}");

    let kafka = connect(&broker);
    let decoded = |record: &Record| {
        (record.kind == Kind::Click as u16).then(|| Click::decode(&*record.value).unwrap())
    };
    let clicks = records(&kafka, CLICKS, |records| {
        let clicks = records.iter().filter_map(decoded);
        // A prefetch and a request that names nothing are recorded too.
        clicks.count() == gross + 4
    });
    let is_sent_on = |click: &Click| {
        click.decision() == Decision::Redirect
            && click.class() == Class::Browser
            && click.visitor != 0
            // The catalog's first of both: trailblog's on boots, which is what is counted below.
            && (click.affiliate, click.offer) == (1, 1)
    };
    let (base, click) = clicks
        .iter()
        .find_map(|record| Some((record, decoded(record).filter(is_sent_on)?)))
        .expect("a visitor");
    let ours = StreamId::random();
    let stream = u32::from_be_bytes(ours.0[..4].try_into().unwrap());
    let key = |time_ms: u64, n: u64| domain::event::ClickKey {
        time_ms: time_ms + n,
        stream,
        sequence: u32::try_from(n).unwrap(),
    };
    let mut more = out_of_order(base, ours, |n| {
        let mut click = click.clone();
        click.key = Some(key(base.time_ms, n));
        // Every second one is the visitor of the click it is made from, right after it: no valid click.
        click.visitor = if n.is_multiple_of(2) {
            click.visitor
        } else {
            n
        };
        click.encode_to_vec()
    });
    // And a click in each of the other partitions, before the ends of all: each names the lanes of its own.
    let others = [1, 2, 3].map(|further| base.lane ^ further);
    for lane in others {
        let mut click = click.clone();
        let n = 100 + u64::from(lane);
        (click.key, click.visitor) = (Some(key(base.time_ms, n)), n);
        more.push(Record {
            origin: ours,
            lane,
            n: 1,
            value: click.encode_to_vec(),
            ..base.clone()
        });
    }
    let mut last: Vec<(u8, u64)> = others.map(|lane| (lane, 1)).into();
    last.push((base.lane, 7));
    last.sort_unstable();
    more.extend(Record::ends(ours, &last, PARTITIONS));
    send(&kafka, CLICKS, &[&clicks[..], &more].concat());

    let order = |record: &Record| Postback::decode(&*record.value).unwrap();
    let is_first = |said: &Postback| said.order == "A-1" && said.trust() == Trust::Server;
    let postbacks = records(&kafka, POSTBACKS, |records| records.len() == said);
    let (base, postback) = postbacks
        .iter()
        .find_map(|record| Some((record, Some(order(record)).filter(is_first)?)))
        .expect("the first order");
    let more_said = out_of_order(base, ours, |n| {
        let mut postback = postback.clone();
        postback.key = Some(key(base.time_ms, n));
        postback.order = format!("C-{n}");
        postback.encode_to_vec()
    });
    send(&kafka, POSTBACKS, &[&postbacks[..], &more_said].concat());
    let (new, repeats, early) = OUT_OF_ORDER;
    let new_clicks = new + others.len();
    until_counted(gross + new_clicks, conversions + new);
    system.stop();

    let report = system::command(
        &data,
        &["report", "--by", "affiliate,offer", "--format", "csv"],
    );
    reader.go_on_and_kill();
    let (rest, nothing) = (reader.go_on(), reader.go_on());
    assert!(rest.status.success(), "{rest:?}");
    let output = reader.read();
    let (table, met) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{met}");
    // Whoever begins when all is over meets ends of one partition before the records of another.
    let anew = reader.begin_anew();
    assert!(anew.status.success(), "{anew:?}");
    assert_eq!(String::from_utf8(anew.stdout).unwrap(), table);
    assert_ne!(part.stdout, rest.stdout);
    assert_eq!(String::from_utf8(rest.stdout).unwrap(), table);
    assert_eq!(String::from_utf8(nothing.stdout).unwrap(), table);
    let counts = String::from_utf8(nothing.stderr).unwrap();
    let read = columns(&counts, ["taken", "repeats", "early", "ends"]);
    let none = ["0"; 4].map(str::to_owned);
    assert!(
        read.iter().all(|counts| *counts == none),
        "what was read is read again:\n{counts}"
    );
    let catalog = catalog::Folder::open(data.join("catalog"))
        .unwrap()
        .current()
        .unwrap()
        .unwrap();
    let affiliate = |number: &str| match Affiliate::new(number.parse().unwrap()) {
        Some(number) => catalog.affiliate_name(number).to_owned(),
        None => "(none)".to_owned(),
    };
    let offer = |number: &str| {
        let number = Offer::new(number.parse().unwrap()).expect("every click has an offer");
        catalog.offer_name(number).to_owned()
    };
    let reported = told(&report, str::to_owned, str::to_owned);
    assert_eq!(
        told(&table, affiliate, offer),
        reported,
        "\n{table}\n{met}\n{report}"
    );
    // The comparison is of something: every pair, labels, two currencies.
    let boots = &reported[&("trailblog".to_owned(), "boots".to_owned())];
    // Four bots, a look, and the second and fourth of ours.
    assert_eq!((boots.0, boots.1), (12 + 1 + 6, 4 + 1 + 2), "{report}");
    let tents = &reported[&("trailblog".to_owned(), "tents".to_owned())];
    assert_eq!(tents.3.keys().collect::<Vec<_>>(), ["EUR", "USD"]);
    assert_eq!(reported.len(), 5, "{report}");

    let names = [
        "topic",
        "taken",
        "repeats",
        "early",
        "tombstones",
        "conflicts",
        "holes",
    ];
    let (met, ends) = (columns(&met, names), columns(&met, ["ends"]));
    for (at, sent, new, topic) in [
        (0, clicks.len(), new_clicks, "clicks"),
        (2, postbacks.len(), new, "postbacks"),
    ] {
        let expected = [sent + new, sent + repeats, early, 2, 0, 0].map(|count| count.to_string());
        assert_eq!(met[at][0], topic);
        assert_eq!(met[at][1..], expected, "{topic}");
    }
    // The worker has ended in good order: what it says last takes a number too.
    assert_ne!(ends[0], ["0"], "of clicks");

    // A hole that nobody fills, and a number that two claim: told, and nothing of them counted.
    let hole = Record {
        origin: StreamId([9; 16]),
        n: 2,
        ..base.clone()
    };
    let conflict = Record {
        n: 1,
        time_ms: base.time_ms + 1000,
        ..more_said[0].clone()
    };
    send(&kafka, POSTBACKS, &[hole.clone(), conflict]);
    let owed = format!(
        "postbacks: lane {} of {}: 1 to 2 are owed\n",
        base.lane,
        "09".repeat(16)
    );
    for (output, counted) in [
        (reader.read(), ",2,1,1\nconversions,"),
        (reader.go_on(), "postbacks,0,0,1,0,0,1,1\nconversions,"),
    ] {
        let met = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{met}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), table);
        assert!(met.starts_with(&owed), "{met}");
        assert!(met.contains(counted), "{met}");
    }
    // What came too early is read again, also where nobody sends it again.
    send(&kafka, POSTBACKS, &[Record { n: 1, ..hole }]);
    for is_owed in [true, false] {
        let met = String::from_utf8(reader.go_on().stderr).unwrap();
        assert_eq!(met.contains("are owed"), is_owed, "{met}");
    }
}
