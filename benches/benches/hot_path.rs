//! What one click costs in its parts: seal and open a token, decide and render, write and read its record, append it to the
//! journal's ring. Beside them what was not taken: the general AES-SIV, and records built of owned values.
//!
//! Run with `cargo bench -p benches`. Compare runs of one machine only.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::path::Path;

use aes_siv::{KeyInit, siv::Aes128Siv};
use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use domain::event::{
    BorrowedClick, Class, Click, Consent, ConsentSource, Decision as Decided, EdgeRecord, Reason,
    edge_record::Event,
};
use domain::token::OPENED_BYTES;
use domain::{ClickKey, Keyring, Link, Shard, Target, Token, Topic, time::EPOCH_MS};
use journal::{Options, StreamId};
use prost::Message;
use routing::{Decision, Params, Path as Asked, Table};

/// A click's record with a few sub ids is about this long.
const RECORD_BYTES: usize = 300;

fn token(criterion: &mut Criterion) {
    let keyring = Keyring::new(&[(1, [7; 32])]).expect("one key");
    let token = Token {
        click: ClickKey {
            time_ms: EPOCH_MS + 60_000_000_000,
            stream: 0xdead_beef,
            sequence: 42,
        },
        target: Target::Link(Link::new(7).expect("in range")),
        shard: Shard::new(0xabc).expect("12 bits"),
    };
    let text = keyring.seal(&token);
    criterion.bench_function("token seal", |bench| {
        bench.iter(|| keyring.seal(black_box(&token)));
    });
    criterion.bench_function("token open", |bench| {
        bench.iter(|| keyring.open(black_box(&text)));
    });
    let mut general = Aes128Siv::new(&[7; 32].into());
    criterion.bench_function("the general AES-SIV of a token's bytes", |bench| {
        bench.iter(|| {
            let mut message = black_box([42; OPENED_BYTES]);
            let tag =
                general.encrypt_inout_detached::<[&[u8]; 0], &[u8]>([], (&mut message[..]).into());
            (tag, message)
        });
    });
}

/// A click as most are: of a link without parameters.
fn click() -> BorrowedClick<'static> {
    BorrowedClick {
        key: ClickKey {
            time_ms: EPOCH_MS + 60_000_000_000,
            stream: 0xdead_beef,
            sequence: 42,
        },
        shard: Shard::new(0).expect("12 bits"),
        catalog_version: 3,
        catalog_hash: 0x0102_0304_0506_0708,
        class: Class::Browser,
        decision: Decided::Redirect,
        reason: Reason::None,
        domain: 1,
        link: 7,
        offer: 3,
        affiliate: 2,
        advertiser: 1,
        labels: &[],
        consent: Consent::All,
        consent_source: ConsentSource::Default,
        token_issued: true,
        cookie_set: true,
        history: &[],
        user_agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
        Chrome/140.0.0.0 Safari/537.36",
        referrer_host: b"trailblog.example",
        source: "",
        creative: "",
        page: "",
        ext: "",
        coupon: "",
        cost: "",
        slug: "",
        subs: ["newsletter", "", "", "", "", "", "", "", "", ""],
    }
}

fn codec(criterion: &mut Criterion) {
    const ADDRESS: [u8; 4] = [203, 0, 113, 9];
    const LOCK: u64 = 0x1122_3344_5566_7788;
    let mut buffer = vec![0; 64 << 10];
    let borrowed = click();
    let lane = borrowed.shard.lane();
    criterion.bench_function("record write", |bench| {
        bench.iter(|| {
            let click = black_box(&borrowed);
            let record = click.record(Topic::Clicks, lane, 42, LOCK, &ADDRESS, &mut buffer);
            record.len()
        });
    });
    let written = borrowed.record(Topic::Clicks, lane, 42, LOCK, &ADDRESS, &mut buffer);
    criterion.bench_function("record read", |bench| {
        bench.iter(|| EdgeRecord::decode(black_box(written)));
    });
    let Some(Event::Click(click)) = EdgeRecord::decode(written).expect("just written").event else {
        panic!("it is a click");
    };
    criterion.bench_function("event write", |bench| {
        bench.iter(|| black_box(&click).encode_to_vec());
    });
    criterion.bench_function("record built of owned values and written", |bench| {
        bench.iter(|| {
            let click = owned(black_box(&borrowed));
            let record = EdgeRecord {
                topic: Topic::Clicks as u32,
                lane: lane.0.into(),
                n: 42,
                address: ADDRESS.to_vec(),
                event: Some(Event::Click(click)),
                catalog_lock: LOCK,
            };
            record.encode_to_vec()
        });
    });
}

/// What is set of it.
fn owned(borrowed: &BorrowedClick<'_>) -> Click {
    Click {
        key: Some(borrowed.key.into()),
        shard: borrowed.shard.get().into(),
        catalog_version: borrowed.catalog_version,
        catalog_hash: borrowed.catalog_hash,
        class: borrowed.class.into(),
        decision: borrowed.decision.into(),
        reason: borrowed.reason.into(),
        domain: borrowed.domain,
        link: borrowed.link,
        offer: borrowed.offer,
        affiliate: borrowed.affiliate,
        advertiser: borrowed.advertiser,
        consent: borrowed.consent.into(),
        consent_source: borrowed.consent_source.into(),
        token_issued: borrowed.token_issued,
        cookie_set: borrowed.cookie_set,
        user_agent: borrowed.user_agent.to_owned(),
        referrer_host: String::from_utf8_lossy(borrowed.referrer_host).into(),
        sub1: borrowed.subs[0].to_owned(),
        ..Click::default()
    }
}

fn decide(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let catalog = catalog::write_demo(folder.path(), "0123456789abcdef").expect("writable");
    let catalog = catalog::check(&catalog).expect("the demo is good").catalog;
    let table = Table::new(catalog.into());
    let domain = table.first_domain().expect("the demo has one");
    let params = Params::default();
    let mut location = BytesMut::with_capacity(512);
    criterion.bench_function("decide and render", |bench| {
        bench.iter(|| {
            location.clear();
            let asked = Asked::Slug(black_box("fall-boots"));
            let Decision::Redirect(route) = routing::decide(&table, domain, asked, &params) else {
                panic!("the demo's link leads somewhere");
            };
            routing::render(
                &route,
                &params,
                Some(b"BHIUtNHDgUq88GOMSJDynyBm"),
                &mut location,
            );
            location.len()
        });
    });
}

fn append(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let memory = tempfile::tempdir_in(journal::RINGS_IN).expect("the machine's memory");
    let options = Options {
        ring_folder: Some(memory.path().join("rings")),
        ..Options::new(StreamId::random())
    };
    let (mut writer, mut flusher, _) =
        journal::open(Path::new(folder.path()), options).expect("a new journal");
    let record = [0x5a; RECORD_BYTES];
    criterion.bench_function("journal append", |bench| {
        bench.iter(|| {
            if writer.append(black_box(&record)).is_err() {
                // What the journal thread does beside the worker; its cost is spread over a ring's worth of appends.
                flusher.flush().expect("the disk takes it");
            }
        });
    });
}

criterion_group!(hot_path, token, decide, codec, append);
criterion_main!(hot_path);
