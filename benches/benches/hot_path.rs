//! What one click costs in its parts: seal and open a token, decide and render, append to the journal's ring.
//!
//! Run with `cargo bench -p benches`. Compare runs of one machine only.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use domain::{ClickKey, Keyring, Link, Shard, Target, Token, time::EPOCH_MS};
use journal::{Options, StreamId};
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
}

fn decide(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let catalog = catalog::write_demo(folder.path(), "0123456789abcdef").expect("writable");
    let catalog = catalog::check(&catalog).expect("the demo is good").catalog;
    let table = Table::new(catalog.into());
    let domain = table.first_domain().expect("the demo has one");
    let params = Params::default();
    let mut location = Vec::with_capacity(512);
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
    let options = Options::new(StreamId::random());
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

criterion_group!(hot_path, token, decide, append);
criterion_main!(hot_path);
