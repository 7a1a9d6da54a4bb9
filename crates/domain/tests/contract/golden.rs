//! Golden bytes: every message with every field set, as each state of the schema wrote it.
//!
//! `golden/Click.1` is what the first state wrote, in hexadecimal. A field that is added makes a `Click.2`; the older file
//! stays, so that what was written then is read for ever.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use domain::event::edge_record::Event;
use domain::event::{
    Candidate, CatalogEntry, CatalogKind, CatalogVersion, Class, Click, ClickKey, Consent,
    ConsentSource, Conversion, Decision, EdgeRecord, FraudSignal, Label, Line, Match, Postback,
    Reason, Rule, Status, StreamEnd, Trust, Unmatched,
};
use prost::Message;

use crate::{WRITE, writes};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/golden")
}

/// The committed bytes of a message, oldest first.
fn committed(name: &str) -> BTreeMap<u32, Vec<u8>> {
    let files = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let ours = files.filter(|path| path.file_stem().is_some_and(|stem| stem == name));
    ours.map(|path| {
        let number = path.extension().unwrap().to_str().unwrap().parse().unwrap();
        let hex = fs::read_to_string(&path).unwrap();
        let bytes = (0..hex.trim().len()).step_by(2);
        let bytes = bytes.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        (number, bytes.collect())
    })
    .collect()
}

/// The newest bytes are this message, and older ones still say all that they said.
#[track_caller]
fn check<M: Message + Default + PartialEq + Debug>(name: &str, full: &M) {
    let mut committed = committed(name);
    let bytes = full.encode_to_vec();
    let newest = committed.last_key_value();
    if newest.is_none_or(|(_, newest)| *newest != bytes) {
        let number = newest.map_or(1, |(number, _)| number + 1);
        assert!(
            writes(),
            "{name} has no golden bytes of its newest fields: make golden/{name}.{number} with {WRITE}"
        );
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(folder().join(format!("{name}.{number}")), hex + "\n").unwrap();
        committed.insert(number, bytes);
    }
    for (number, bytes) in &committed {
        let read = M::decode(&**bytes).unwrap_or_else(|error| panic!("{name}.{number}: {error}"));
        // A field that was removed or retyped would not come back.
        assert_eq!(read.encode_to_vec(), *bytes, "{name}.{number}");
    }
    let (_, newest) = committed.last_key_value().expect("made above");
    assert_eq!(M::decode(&**newest).unwrap(), *full, "{name}");
}

// Every field is named and none is left at its default, so that a field that is added does not compile before it is here.

fn key() -> ClickKey {
    ClickKey {
        time_ms: 1_795_000_000_123,
        stream: 0xdead_beef,
        sequence: 42,
    }
}

fn click() -> Click {
    let text = |name: &str| format!("a {name}");
    Click {
        key: Some(key()),
        shard: 0xabc,
        catalog_version: 3,
        class: Class::Bot.into(),
        decision: Decision::Redirect.into(),
        reason: Reason::DeclaredBot.into(),
        domain: 4,
        link: (1 << 42) - 1,
        offer: 5,
        affiliate: 6,
        advertiser: 7,
        labels: vec![Label::Cut.into(), Label::BadCookie.into()],
        consent: Consent::Token.into(),
        consent_source: ConsentSource::Gpc.into(),
        token_issued: true,
        cookie_set: true,
        history: vec![vec![1; 20], vec![2; 20]],
        visitor: u64::MAX,
        network: "203.0.113.0/24".into(),
        user_agent: text("user agent"),
        referrer_host: text("referrer"),
        source: text("source"),
        creative: text("creative"),
        page: text("page"),
        ext: text("click id"),
        coupon: text("coupon"),
        cost: "0.0035".into(),
        slug: "höhe".into(),
        sub1: text("sub1"),
        sub2: text("sub2"),
        sub3: text("sub3"),
        sub4: text("sub4"),
        sub5: text("sub5"),
        sub6: text("sub6"),
        sub7: text("sub7"),
        sub8: text("sub8"),
        sub9: text("sub9"),
        sub10: text("sub10"),
        catalog_hash: u64::MAX,
    }
}

fn unmatched() -> Unmatched {
    Unmatched {
        key: Some(key()),
        shard: 1,
        minute_ms: 1_795_000_020_000,
        domain: 4,
        reason: Reason::UnknownLink.into(),
        class: Class::Browser.into(),
        count: u64::MAX,
        catalog_hash: 0x0102_0304_0506_0708,
    }
}

fn postback() -> Postback {
    Postback {
        key: Some(key()),
        shard: 2,
        catalog_version: 3,
        trust: Trust::Server.into(),
        reason: Reason::AmountMalformed.into(),
        token: vec![3; 20],
        token_text: "not a token".into(),
        advertiser: 7,
        offer: 5,
        affiliate: 6,
        link: 8,
        goal: 9,
        goal_text: "sale".into(),
        order: "A-1".into(),
        amount_text: "-80.00".into(),
        amount_micros: -80_000_000,
        has_amount: true,
        currency: "USD".into(),
        status: Status::Reversed.into(),
        network: "2001:db8:1::/48".into(),
        catalog_hash: 0x0102_0304_0506_0708,
        goal_name: "sale".into(),
        seq: Some(-4),
        said_us: Some(1_795_000_000_000_000),
        adjusted_by: "jo".into(),
        note: "as agreed".into(),
        credit_affiliate: 6,
    }
}

fn line(affiliate: u32) -> Line {
    Line {
        affiliate,
        offer: 5,
        link: 8,
        share_millionths: 1_000_000,
        time_ms: 1_795_000_100_000,
        currency: "USD".into(),
        amount_micros: 80_000_000,
        revenue_currency: "EUR".into(),
        revenue_micros: 9_600_000,
        payout_currency: "GBP".into(),
        payout_micros: -6_400_000,
    }
}

fn conversion() -> Conversion {
    Conversion {
        advertiser: 7,
        order: "A-1".into(),
        token: vec![3; 20],
        goal: "sale".into(),
        change: 5,
        status: Status::Approved.into(),
        reason: Reason::OutsideWindow.into(),
        before: vec![line(5)],
        after: vec![line(6)],
        offer: 5,
        affiliate: 6,
        link: 8,
        click: Some(key()),
        time_ms: 1_795_000_100_000,
        changed_ms: 1_795_000_200_000,
        facts_pending: true,
        r#match: Match::Token.into(),
        currency: "USD".into(),
        amount_micros: 80_000_000,
        revenue_currency: "EUR".into(),
        revenue_micros: 9_600_000,
        payout_currency: "GBP".into(),
        payout_micros: -6_400_000,
        candidates: vec![Candidate {
            click: Some(key()),
            offer: 5,
            affiliate: 6,
            link: 8,
            credited: true,
            rule: Rule::Credited.into(),
            label: Reason::RepeatClick.into(),
        }],
        catalog_version: 3,
        catalog_hash: 0x0102_0304_0506_0708,
        postback: Some(key()),
        was: Status::Pending.into(),
        repeat: true,
        outcome: Reason::Repeat.into(),
    }
}

fn signal() -> FraudSignal {
    FraudSignal {
        click: Some(key()),
        shard: 0xabc,
        reason: Reason::RepeatClick.into(),
        offer: 5,
        affiliate: 6,
        link: 8,
        visitor: 1,
        catalog_version: 3,
        catalog_hash: 0x0102_0304_0506_0708,
    }
}

fn catalog_entry() -> CatalogEntry {
    CatalogEntry {
        kind: CatalogKind::Link.into(),
        number: 8,
        since_version: 3,
        name: "fall-boots".into(),
        title: "Fall Boots".into(),
        gone: true,
        domain: 4,
        advertiser: 7,
        offer: 5,
        affiliate: 6,
        currency: "USD".into(),
        model: vec![1, 2, 3],
    }
}

fn catalog_version() -> CatalogVersion {
    CatalogVersion {
        version: 3,
        hash: 0x0102_0304_0506_0708,
        parent: 2,
        time_ms: 1_795_000_000_123,
        lock: "00112233445566778899aabbccddeeff".into(),
        timezone: "America/New_York".into(),
        currency: "USD".into(),
        keys: u64::MAX,
    }
}

fn record(event: Event) -> EdgeRecord {
    EdgeRecord {
        topic: 1,
        lane: 171,
        n: 3,
        address: vec![203, 0, 113, 9],
        event: Some(event),
        catalog_lock: 0x1122_3344_5566_7788,
    }
}

#[test]
fn what_was_written_is_read_for_ever() {
    check("Click", &click());
    check("Unmatched", &unmatched());
    check("Postback", &postback());
    check("Conversion", &conversion());
    check("FraudSignal", &signal());
    check("CatalogEntry", &catalog_entry());
    check("CatalogVersion", &catalog_version());
    check("EdgeRecord-click", &record(Event::Click(click())));
    check("EdgeRecord-postback", &record(Event::Postback(postback())));
    check(
        "EdgeRecord-unmatched",
        &record(Event::Unmatched(unmatched())),
    );
    check("EdgeRecord-end", &record(Event::End(StreamEnd {})));
}

/// Most readers of Kafka decode every value of a topic as one message.
#[test]
fn an_unmatched_read_as_a_click_was_a_click_of_another_domain() {
    let unmatched = unmatched();
    let click = Click::decode(&*unmatched.encode_to_vec()).unwrap();
    let expected = Click {
        key: unmatched.key,
        shard: unmatched.shard,
        class: unmatched.class,
        reason: unmatched.reason,
        domain: unmatched.domain,
        catalog_hash: unmatched.catalog_hash,
        // No link and no offer: it counts nowhere.
        ..Click::default()
    };
    assert_eq!(click, expected);
    assert_eq!(Click::decode(&[][..]).unwrap(), Click::default());
}
