//! Decisions as a table, locations as a table, and locations under hostile parameters.

use std::{fs, sync::Arc};

use bytes::BytesMut;
use domain::{Target, event::Reason};
use proptest::prelude::*;
use routing::{Decision, Params, Path, Table, Value, decide, render};

const CATALOG: &str = r#"
[network]
currency = "USD"
[domain."go.example"]
fallback = "https://example/"
[domain."b.example"]
[advertiser.northpeak]
[offer.boots]
advertiser = "northpeak"
to = "https://shop.example/boots?aff={affiliate}&s={sub1}&r={sub2_raw}#top"
window = "2d"
[offer.tents]
advertiser = "northpeak"
to = "https://shop.example:8443/{page}/{sub1_raw}"
window = "400d"
[offer.axes]
advertiser = "northpeak"
to = "https://shop.example/{token}?{ext}={coupon}&l={link}&o={offer}&c={creative}&f={source}"
[affiliate.trailblog]
offers = ["boots", "tents", "axes"]
[affiliate.other]
offers = ["tents"]
[link.Fall]
domain = "go.example"
affiliate = "trailblog"
offer = "boots"
sub1 = "newsletter"
[link."a/b"]
domain = "b.example"
affiliate = "trailblog"
offer = "axes"
"#;

fn table() -> Table {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("catalog.toml");
    fs::write(&path, CATALOG).expect("writable");
    Table::new(Arc::new(catalog::check(&path).expect("good").catalog))
}

/// Parameters as a query of plain pairs.
fn params(query: &str) -> Params<'_> {
    let mut params = Params::default();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let value = Some(Value::from(value));
        match name {
            "offer" => params.offer = value,
            "aff" => params.aff = value,
            "link" => params.link = value,
            "page" => params.page = value,
            "creative" => params.creative = value,
            "source" => params.source = value,
            "ext" => params.ext = value,
            "coupon" => params.coupon = value,
            "group" => params.group = true,
            "url" => params.url = true,
            sub => {
                let number: usize = sub
                    .strip_prefix("sub")
                    .and_then(|n| n.parse().ok())
                    .expect("a sub id");
                params.sub[number - 1] = value;
            }
        }
    }
    params
}

fn path(slug: &str) -> Path<'_> {
    if slug == "c" {
        Path::Click
    } else {
        Path::Slug(slug)
    }
}

#[test]
fn decisions() {
    let table = table();
    for (host, slug, query, expected) in [
        ("go.example", "Fall", "", "boots trailblog Fall newsletter"),
        (
            "go.example",
            "Fall",
            "sub1=mine",
            "boots trailblog Fall mine",
        ),
        (
            "go.example",
            "Fall",
            "sub1=",
            "boots trailblog Fall newsletter",
        ),
        (
            "go.example",
            "Fall",
            "offer=tents&aff=other",
            "boots trailblog Fall newsletter",
        ),
        (
            "go.example",
            "c",
            "link=Fall",
            "boots trailblog Fall newsletter",
        ),
        (
            "go.example",
            "c",
            "offer=boots&aff=trailblog",
            "boots trailblog - ",
        ),
        ("b.example", "a/b", "", "axes trailblog a/b "),
        ("go.example", "fall", "", "UnknownLink - - -"),
        ("b.example", "Fall", "", "UnknownLink - - -"),
        ("go.example", "", "", "UnknownLink - - -"),
        ("go.example", "Fall/", "", "UnknownLink - - -"),
        (
            "go.example",
            "nothing",
            "offer=boots&aff=trailblog",
            "UnknownLink - - -",
        ),
        ("go.example", "c", "link=a/b", "UnknownLink - - -"),
        ("go.example", "c", "", "UnknownOffer - - -"),
        (
            "go.example",
            "c",
            "aff=trailblog",
            "UnknownOffer - trailblog -",
        ),
        (
            "go.example",
            "c",
            "offer=Boots&aff=trailblog",
            "boots trailblog - ",
        ),
        (
            "go.example",
            "c",
            "offer=boots",
            "UnknownAffiliate boots - -",
        ),
        (
            "go.example",
            "c",
            "offer=boots&aff=nobody",
            "UnknownAffiliate boots - -",
        ),
        (
            "go.example",
            "c",
            "offer=boots&aff=other",
            "NotApproved boots other -",
        ),
        ("go.example", "c", "group=x&aff=other", "NotBuilt - other -"),
        (
            "go.example",
            "Fall",
            "url=https://evil.example/",
            "NotBuilt boots trailblog Fall",
        ),
    ] {
        let domain = table.domain(host.as_bytes()).expect("in the catalog");
        let params = params(query);
        let catalog = table.catalog();
        let name = |name: Option<&str>| name.unwrap_or("-").to_owned();
        let found = match decide(&table, domain, path(slug), &params) {
            Decision::Redirect(route) => {
                match route.target {
                    Target::Link(link) => assert_eq!(Some(link), route.link),
                    Target::Offer(offer, affiliate) => {
                        assert_eq!(
                            (offer, affiliate, None),
                            (route.offer, route.affiliate, route.link)
                        );
                    }
                }
                assert_eq!(catalog.advertiser_name(route.advertiser), "northpeak");
                let link = name(route.link.map(|link| catalog.link_name(link)));
                format!(
                    "{} {} {link} {}",
                    route.offer_entry.name, route.affiliate_entry.name, route.subs[0]
                )
            }
            Decision::Refuse {
                reason,
                offer,
                affiliate,
                link,
            } => format!(
                "{reason:?} {} {} {}",
                name(offer.map(|n| catalog.offer_name(n))),
                name(affiliate.map(|n| catalog.affiliate_name(n))),
                name(link.map(|n| catalog.link_name(n))),
            ),
        };
        assert_eq!(found, expected, "{host}/{slug}?{query}");
    }
    assert_eq!(Reason::NotBuilt.name(), "not_built");
}

#[test]
fn what_the_table_says() {
    let table = table();
    let go = table.domain(b"go.example").expect("there");
    assert_eq!(table.first_domain(), Some(go));
    assert_eq!(table.domain(b"GO.example"), None);
    assert_eq!(table.fallback(go), Some("https://example/"));
    assert_eq!(
        table.fallback(table.domain(b"b.example").expect("there")),
        None
    );
    assert_eq!(table.cookie_max_age_s(), 400 * 86_400);
}

#[test]
fn a_shop_gets_the_bytes_that_were_no_utf8_again() {
    let table = table();
    let with = |at: usize, bytes: &[u8]| {
        let mut params = params("offer=boots&aff=trailblog");
        params.sub[at] = Some(Value::of_bytes(bytes));
        location(&table, "c", &params, None)
    };
    assert_eq!(
        with(0, b"\xee\xea\xf0\xe1 & \xe9"),
        "https://shop.example/boots?aff=trailblog&s=%EE%EA%F0%E1%20%26%20%E9&r=#top"
    );
    assert_eq!(
        with(1, b"a/\xe9?b=\"#"),
        "https://shop.example/boots?aff=trailblog&s=&r=a/%E9?b=%22%23#top"
    );
}

/// The location of a click.
fn location(table: &Table, slug: &str, params: &Params<'_>, token: Option<&str>) -> String {
    let host = if slug == "a/b" {
        "b.example"
    } else {
        "go.example"
    };
    let domain = table.domain(host.as_bytes()).expect("there");
    match decide(table, domain, path(slug), params) {
        Decision::Redirect(route) => {
            let mut out = BytesMut::from("Location: ");
            render(&route, params, token.map(str::as_bytes), &mut out);
            String::from_utf8(out.split_off("Location: ".len()).to_vec()).expect("encoded")
        }
        refused @ Decision::Refuse { .. } => format!("{refused:?}"),
    }
}

#[test]
fn locations() {
    let table = table();
    let tents = "offer=tents&aff=trailblog";
    for (slug, query, token, expected) in [
        (
            "Fall",
            "",
            Some("T"),
            "https://shop.example/boots?aff=trailblog&s=newsletter&r=&sl=T#top",
        ),
        (
            "Fall",
            "",
            None,
            "https://shop.example/boots?aff=trailblog&s=newsletter&r=#top",
        ),
        (
            "Fall",
            "sub1=a b/ü?#%",
            Some("T"),
            "https://shop.example/boots?aff=trailblog&s=a%20b%2F%C3%BC%3F%23%25&r=&sl=T#top",
        ),
        (
            "Fall",
            "sub2=/a?b;c%20d#e\\f\"g'h<i>\r\nX: y\0ü",
            None,
            "https://shop.example/boots?aff=trailblog&s=newsletter&r=/a?b;c%20d%23e%5Cf%22g%27h%3Ci%3E%0D%0AX:%20y%00%C3%BC#top",
        ),
        (
            "a/b",
            "ext=x=y&coupon=TEN",
            Some("T"),
            "https://shop.example/T?x%3Dy=TEN&l=a%2Fb&o=axes&c=&f=",
        ),
        (
            "a/b",
            "creative=c&source=s",
            None,
            "https://shop.example/?=&l=a%2Fb&o=axes&c=c&f=s",
        ),
        // A raw value that opens the query: the token still is a parameter of its own.
        (
            "c",
            "page=p&sub1=x?y",
            Some("T"),
            "https://shop.example:8443/p/x?y&sl=T",
        ),
        (
            "c",
            "page=p&sub1=x",
            Some("T"),
            "https://shop.example:8443/p/x?sl=T",
        ),
        // Dots in a path would be resolved, encoded or not.
        (
            "c",
            "page=..&sub1=x",
            None,
            "https://shop.example:8443/__/x",
        ),
    ] {
        let query = if slug == "c" {
            format!("{tents}&{query}")
        } else {
            query.to_owned()
        };
        assert_eq!(
            location(&table, slug, &params(&query), token),
            expected,
            "{slug}?{query}"
        );
    }
}

fn hostile() -> impl Strategy<Value = Option<String>> {
    let picked = proptest::collection::vec(
        proptest::sample::select(vec![
            "\r",
            "\n",
            "\0",
            "@",
            ":",
            "//",
            "/",
            "\\",
            "..",
            "?",
            "#",
            "%",
            "%2e",
            "%0d%0a",
            "http://evil.example",
            "\u{7f}",
            "\u{85}",
            "\u{2028}",
            "é",
            "\"",
            "<",
            " ",
            "\t",
            "a",
            "{sub1}",
        ]),
        0..8,
    );
    proptest::option::of(prop_oneof![
        any::<String>(),
        picked.prop_map(|pieces| pieces.concat())
    ])
}

proptest! {
    #[test]
    fn hostile_parameters_stay_in_their_place(
        values in proptest::collection::vec(hostile(), 16),
        is_utf8 in proptest::collection::vec(any::<bool>(), 16),
        offer in proptest::sample::select(vec!["boots", "tents", "axes"]),
        token in proptest::option::of(Just("BN_LPPx")),
    ) {
        let table = table();
        let value = |at: usize| {
            let text = values[at].as_deref()?;
            Some(match is_utf8[at] {
                true => Value::from(text),
                false => Value::of_bytes(&[text.as_bytes(), b"\xff"].concat()),
            })
        };
        let params = Params {
            offer: Some(offer.into()),
            aff: Some("trailblog".into()),
            page: value(0),
            creative: value(1),
            source: value(2),
            ext: value(3),
            coupon: value(4),
            cost: value(5),
            sub: std::array::from_fn(|at| value(6 + at)),
            ..Params::default()
        };
        let location = location(&table, "c", &params, token);
        prop_assert!(location.bytes().all(|byte| (0x21..0x7f).contains(&byte)), "{location}");
        prop_assert!(!location.contains(['\\', '"', '<', '>', '\'']), "{location}");
        let head = if offer == "tents" { "https://shop.example:8443/" } else { "https://shop.example/" };
        prop_assert!(location.starts_with(head), "{location}");
        let url = url::Url::parse(&location);
        prop_assert!(url.is_ok(), "{location}");
        let url = url.expect("checked");
        prop_assert_eq!(url.scheme(), "https");
        prop_assert_eq!(url.host_str(), Some("shop.example"));
        prop_assert_eq!(url.port(), (offer == "tents").then_some(8443));
        prop_assert!(url.username().is_empty() && url.password().is_none());
        if let (Some(token), "boots" | "tents") = (token, offer) {
            prop_assert!(url.query_pairs().any(|(name, value)| name == "sl" && value == token), "{location}");
        }
    }

    #[test]
    fn hostile_names_are_only_unknown(slug in any::<String>(), offer in hostile(), aff in hostile(), link in hostile()) {
        let table = table();
        let domain = table.first_domain().expect("there");
        let params = Params {
            offer: offer.map(Value::from),
            aff: aff.map(Value::from),
            link: link.map(Value::from),
            ..Params::default()
        };
        for path in [Path::Slug(&slug), Path::Click] {
            let refused = matches!(decide(&table, domain, path, &params), Decision::Refuse { .. });
            prop_assert!(refused);
        }
    }
}
