//! Links against a plain map, and against damage.

use std::collections::BTreeMap;

use domain::{Affiliate, Domain, Offer};
use proptest::prelude::*;

use super::*;
use crate::SUBS;

fn domain(n: u32) -> Domain {
    Domain::new(n).expect("in range")
}

/// A link of a number: distinct in everything.
fn link(n: u32, slug: &str, subs: &[(usize, String)]) -> Link {
    let mut link = Link {
        slug: slug.to_owned(),
        domain: domain(n % 3 + 1),
        affiliate: Affiliate::new(Affiliate::MAX - n).expect("in range"),
        offer: Offer::new(Offer::MAX - n).expect("in range"),
        subs: Default::default(),
    };
    for (at, sub) in subs {
        link.subs[*at].clone_from(sub);
    }
    link
}

/// What each number is in the model: `false` is gone.
type Model = BTreeMap<u32, (Link, bool)>;

fn built(model: &Model) -> Links {
    let name = |link: &Link| LinkName {
        slug: link.slug.clone(),
        offer: link.offer,
        affiliate: link.affiliate,
    };
    let number = |n: &u32| domain::Link::new((*n).into()).expect("in range");
    let names = model.iter().map(|(n, (link, _))| (number(n), name(link)));
    let live = model.iter().filter(|(_, (_, live))| *live);
    let live = live.map(|(n, (link, _))| (number(n), link.clone()));
    Links::new(&names.collect(), &live.collect()).expect("few")
}

fn check(links: &Links, model: &Model) {
    for (n, (link, live)) in model {
        let number = domain::Link::new((*n).into()).expect("in range");
        let entry = links.get(number).expect("handed out");
        assert_eq!(entry.slug(), link.slug);
        assert_eq!((entry.offer, entry.affiliate), (link.offer, link.affiliate));
        assert_eq!(entry.domain, live.then_some(link.domain));
        if *live {
            let subs: [&str; SUBS] = std::array::from_fn(|at| entry.sub(at));
            assert_eq!(subs, link.subs.each_ref().map(String::as_str));
            assert_eq!(links.find(link.domain, &link.slug), Some((number, entry)));
            assert_eq!(links.find(domain(9), &link.slug), None, "another domain");
        } else {
            assert_eq!(links.look_up(&link.slug), None, "gone");
        }
        assert_eq!(links.look_up(&format!("{}!", link.slug)), None);
    }
    assert_eq!(links.iter().count(), model.len());
    assert_eq!(
        links.len(),
        model.values().filter(|(_, live)| *live).count()
    );
    assert!(links.verify());
}

fn a_thousand() -> Model {
    (1..=1000)
        .map(|n| (n, (link(n, &format!("s{n}"), &[]), n % 7 != 0)))
        .collect()
}

#[test]
fn a_thousand_links_share_256_fingerprints() {
    let model = a_thousand();
    let links = built(&model);
    check(&links, &model);
    for n in 0..100_000 {
        assert_eq!(links.look_up(&format!("t{n}")), None);
    }
    assert_eq!(links.get(domain::Link::new(1001).expect("in range")), None);
    let greatest = domain::Link::new(domain::Link::MAX).expect("in range");
    assert_eq!(links.get(greatest), None);
}

#[test]
fn no_links() {
    let links = built(&Model::new());
    check(&links, &Model::new());
    assert_eq!(links, Links::default());
    assert_eq!(links.look_up(""), None);
}

#[test]
fn a_link_of_eight_characters_takes_at_most_24_bytes() {
    let model: Model = (1..=10_000)
        .map(|n| (n, (link(n, &format!("{n:08}"), &[]), true)))
        .collect();
    let links = built(&model);
    let Entries {
        directory, heap, ..
    } = &links.entries;
    let bytes = directory.len() + links.buckets.len() + heap.len();
    assert!(bytes <= 24 * 10_000, "{bytes}");
}

#[test]
fn a_lock_that_lost_millions_of_numbers_fills_no_memory() {
    let name = LinkName {
        slug: "a".into(),
        offer: Offer::new(1).expect("in range"),
        affiliate: Affiliate::new(1).expect("in range"),
    };
    let far = domain::Link::new(1 << 40).expect("in range");
    assert_eq!(
        Links::new(&BTreeMap::from([(far, name)]), &BTreeMap::new()),
        None
    );
}

/// Asks everything of links that may be damaged.
fn ask_everything(links: &Links, model: &Model) {
    for (n, (link, _)) in model {
        let number = domain::Link::new((*n).into()).expect("in range");
        if let Some(entry) = links.get(number) {
            (0..SUBS).for_each(|at| _ = entry.sub(at));
        }
        if let Some((_, entry)) = links.find(link.domain, &link.slug) {
            // Damage elsewhere may show another link, never one of another slug or domain.
            assert_eq!(
                (entry.slug(), entry.domain),
                (&*link.slug, Some(link.domain))
            );
        }
    }
    _ = links.iter().count();
}

#[test]
fn damaged_bytes_never_panic_and_never_lead_to_another_slug() {
    let subs = [(0, "newsletter".to_owned()), (9, "x".to_owned())];
    let model: Model = (1..=40)
        .map(|n| (n, (link(n, &format!("slug/{n}"), &subs), n % 5 != 0)))
        .collect();
    let good = built(&model);
    type Part = fn(&mut Links) -> &mut Bytes;
    let parts: [Part; 3] = [
        |links| &mut links.entries.directory,
        |links| &mut links.entries.heap,
        |links| &mut links.buckets,
    ];
    for part in parts {
        let bytes = part(&mut good.clone()).to_vec();
        for at in 0..bytes.len() {
            for mask in [1, 0x80, 0xff] {
                let mut bent = bytes.clone();
                bent[at] ^= mask;
                let mut links = good.clone();
                *part(&mut links) = bent.into();
                ask_everything(&links, &model);
                assert!(links != good);
            }
            let mut links = good.clone();
            *part(&mut links) = bytes[..at].to_vec().into();
            ask_everything(&links, &model);
        }
    }
    let mut links = good.clone();
    links.buckets = vec![0xff; links.buckets.len()].into();
    ask_everything(&links, &model);
}

proptest! {
    #[test]
    fn links_answer_as_a_map_does(
        entries in prop::collection::btree_map(
            1_u32..3000,
            ("[a-zA-Z0-9/._-]{1,100}", prop::collection::vec((0..SUBS, ".{0,60}"), 0..4), any::<bool>()),
            0..200,
        )
    ) {
        let mut slugs = std::collections::BTreeSet::new();
        let model: Model = entries
            .into_iter()
            // A slug exists once; gone ones may have been anything.
            .filter(|(_, (slug, ..))| slugs.insert(slug.clone()))
            .map(|(n, (slug, subs, live))| (n, (link(n, &slug, &subs), live)))
            .collect();
        check(&built(&model), &model);
    }
}
