//! What links cost by how many there are: opening their snapshot, and finding one, mapped as the edge has it.
//!
//! Run with `cargo bench -p benches --bench lookup`. Compare runs of one machine only.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, Folder, Link, LinksBuilder};
use criterion::{Criterion, criterion_group, criterion_main};
use domain::{Affiliate, Domain, Offer};
use routing::Table;
use rustix::time::{ClockId, clock_gettime};

/// Different slugs asked for: with the most links, what they touch is far more than a cache holds.
const ASKED: usize = 1 << 20;
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyzACDEFGHJ";
/// Slugs are made of 40 bits.
const SLUG_MASK: u64 = (1 << 40) - 1;

fn links(criterion: &mut Criterion) {
    for count in [10_000, 1_000_000, 10_000_000] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let catalog = snapshot(folder.path(), count);
        criterion.bench_function(&format!("open {count} links and make a table"), |bench| {
            bench.iter(|| {
                let mut folder = Folder::open(folder.path()).expect("a folder");
                let start = folder.start().expect("good").expect("published");
                Table::new(start.catalog)
            });
        });
        criterion.bench_function(&format!("check all of {count} links"), |bench| {
            bench.iter(|| catalog.verify().expect("good"));
        });
        let domain = *catalog.domains.keys().next().expect("the demo has one");
        let mut random = fastrand::Rng::with_seed(7);
        let uniform = asked(|| random.u64(..count));
        let mut random = fastrand::Rng::with_seed(7);
        // The most wanted is wanted twice as often as the second, three times as often as the third. Which is which has
        // nothing to do with their order.
        let zipfian = asked(|| {
            let rank = (random.f64() * ((count + 1) as f64).ln()).exp() as u64 - 1;
            (rank * 7_919) % count
        });
        let mut random = fastrand::Rng::with_seed(7);
        let absent = asked(|| count + random.u64(..count));
        for (how, asked) in [
            ("uniform", uniform),
            ("Zipfian", zipfian),
            ("absent", absent),
        ] {
            let mut at = 0;
            criterion.bench_function(&format!("look up one of {count} links, {how}"), |bench| {
                bench.iter_custom(|times| {
                    let start = thread_time();
                    for _ in 0..times {
                        at = (at + 1) % ASKED;
                        let slug = std::str::from_utf8(&asked[at]).expect("letters");
                        let found = catalog.links.find(domain, black_box(slug));
                        assert_eq!(found.is_some(), how != "absent");
                    }
                    thread_time() - start
                });
            });
        }
    }
}

/// What this thread has used of a processor: others may want it too.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("after zero")
}

fn asked(mut index: impl FnMut() -> u64) -> Vec<[u8; 8]> {
    (0..ASKED).map(|_| slug(index())).collect()
}

/// Eight letters, others for every index.
fn slug(index: u64) -> [u8; 8] {
    let mut bits = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) & SLUG_MASK;
    bits ^= bits >> 20;
    std::array::from_fn(|at| LETTERS[(bits >> (at * 5)) as usize % LETTERS.len()])
}

/// The demo with so many links, published and opened.
fn snapshot(folder: &std::path::Path, count: u64) -> Arc<Catalog> {
    let catalog = catalog::write_demo(folder, "0123456789abcdef").expect("writable");
    let mut catalog = catalog::check(&catalog).expect("the demo is good").catalog;
    let mut links = LinksBuilder::default();
    let mut link = Link {
        slug: String::new(),
        domain: Domain::new(1).expect("in range"),
        affiliate: Affiliate::new(1).expect("in range"),
        offer: Offer::new(1).expect("in range"),
        subs: Default::default(),
    };
    for index in 0..count {
        link.slug.clear();
        link.slug.extend(slug(index).map(char::from));
        links.live(&link);
    }
    catalog.links = links.finish().expect("few enough");
    catalog.version = 1;
    let bytes = catalog.encode().expect("few enough");
    std::fs::write(folder.join("1.snapshot"), bytes).expect("writable");
    std::fs::write(folder.join("current"), "1\n").expect("writable");
    let folder = Folder::open(folder).expect("a folder");
    folder.current().expect("good").expect("published above")
}

criterion_group!(benches, links);
criterion_main!(benches);
