//! Bad catalogs and what is said about them.

use std::{fs, path::Path};

use catalog::{DEMO, Problems, SecretRef, check};

const SECRET: &str = "0123456789abcdef";

/// Checks a text in a folder of its own; messages without the folder.
fn said(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("northpeak.secret"), SECRET).expect("writable");
    fs::write(folder.path().join("short.secret"), "short").expect("writable");
    fs::write(folder.path().join("empty.secret"), "\n").expect("writable");
    fs::write(folder.path().join("long.secret"), "x".repeat(4097)).expect("writable");
    let path = folder.path().join("catalog.toml");
    fs::write(&path, text).expect("writable");
    match check(&path) {
        Ok(_) => Vec::new(),
        Err(problems) => lines(&problems, folder.path()),
    }
}

fn lines(problems: &Problems, folder: &Path) -> Vec<String> {
    let text = problems.to_string();
    let folder = format!("{}/", folder.display());
    text.lines().map(|line| line.replace(&folder, "")).collect()
}

#[test]
fn the_demo_has_none() {
    assert_eq!(said(DEMO), Vec::<String>::new());
}

/// The demo with one line changed, and what is said about it.
#[test]
fn one_mistake_at_a_time() {
    for (good, bad, expected) in [
        (
            r#"window      = "30d""#,
            r#"windw = "30d""#,
            r#"catalog.toml:17: offer.boots.windw: unknown field, did you mean "window"?"#,
        ),
        (
            r#"window      = "30d""#,
            r#"window = "401d""#,
            "catalog.toml:17: offer.boots.window: a window is at most 400d: browsers keep a cookie no longer",
        ),
        (
            r#"window      = "30d""#,
            r#"window = "a month""#,
            r#"catalog.toml:17: offer.boots.window: expected a time such as "30d", "12h", "15m" or "90s", found "a month""#,
        ),
        (
            r#"window      = "30d""#,
            r#"window = "0s""#,
            "catalog.toml:17: offer.boots.window: a window is longer than nothing",
        ),
        (
            r#"window      = "30d""#,
            "window = 30",
            "catalog.toml:17: offer.boots.window: expected a text in quotes, found a number",
        ),
        (
            r#"window      = "30d""#,
            r#"hold = "45d""#,
            "catalog.toml:17: offer.boots.hold: not supported yet",
        ),
        (
            r#"window      = "30d""#,
            r#"credit = "first""#,
            r#"catalog.toml:17: offer.boots.credit: "first" is not supported yet: only "last" is"#,
        ),
        (
            r#"window      = "30d""#,
            r#"credit = "lats""#,
            r#"catalog.toml:17: offer.boots.credit: expected "last", found "lats", did you mean "last"?"#,
        ),
        (
            r#"click_param = "npk""#,
            r#"click_param = "GCLID""#,
            r#"catalog.toml:16: offer.boots.click_param: browsers strip "GCLID" from addresses: choose a name of the shop's own"#,
        ),
        (
            r#"click_param = "npk""#,
            r#"click_param = "n&k""#,
            r#"catalog.toml:16: offer.boots.click_param: a parameter has 1 to 40 letters, digits, "_", "-" or ".""#,
        ),
        (
            r#"click_param = "npk""#,
            r#"click_param = "s""#,
            r#"catalog.toml:15: offer.boots.to: already has a parameter "s", where the click token goes: write s={token}"#,
        ),
        (
            "{affiliate}",
            "{afiliate}",
            r#"catalog.toml:15: offer.boots.to: unknown macro {afiliate}, did you mean "{affiliate}"?"#,
        ),
        (
            "https://shop.northpeak.example/boots",
            "https://{offer}.northpeak.example/boots",
            "catalog.toml:15: offer.boots.to: a macro may stand in path, query and fragment, never in scheme or host",
        ),
        (
            "https://shop.northpeak.example/boots",
            "https://me:pw@shop.northpeak.example/boots",
            "catalog.toml:15: offer.boots.to: an address has no user name or password",
        ),
        (
            "https://shop.northpeak.example/boots",
            "javascript:alert(1)",
            "catalog.toml:15: offer.boots.to: expected an address that starts with https:// or http://",
        ),
        (
            r#"revenue = "4.00 USD""#,
            r#"revenue = "4.00 USB""#,
            "catalog.toml:20: offer.boots.goal.signup.revenue: expected an ISO 4217 currency such as USD",
        ),
        (
            r#"revenue = "4.00 USD""#,
            r#"revenue = "a lot""#,
            r#"catalog.toml:20: offer.boots.goal.signup.revenue: expected an amount and a currency ("4.00 USD") or a percentage ("12 %")"#,
        ),
        (
            r#"payout = "7 %""#,
            r#"tiers = []"#,
            "catalog.toml:29: offer.tents.goal.sale.payout: is missing\ncatalog.toml:29: offer.tents.goal.sale.tiers: not supported yet",
        ),
        (
            r#"timezone = "UTC""#,
            r#"timezone = "Europe/Berln""#,
            r#"catalog.toml:4: network.timezone: no time zone "Europe/Berln", did you mean "Europe/Berlin"?"#,
        ),
        (
            r#"timezone = "UTC""#,
            r#"unique = "week""#,
            r#"catalog.toml:4: network.unique: "week" is not supported yet: only "day" is"#,
        ),
        (
            r#"currency = "USD""#,
            r#"currency = "usd""#,
            r#"catalog.toml:5: network.currency: "usd" is no currency: expected an ISO 4217 code such as USD"#,
        ),
        (
            r#"currency = "USD""#,
            "",
            "catalog.toml:3: network.currency: is missing",
        ),
        (
            r#"[domain."go.northpeak.example"]"#,
            r#"[domain."Go.northpeak.example"]"#,
            r#"catalog.toml:7: domain."Go.northpeak.example": browsers send this host as "go.northpeak.example": write it so"#,
        ),
        (
            r#"[domain."go.northpeak.example"]"#,
            r#"[domain."go.northpeak.example."]"#,
            r#"catalog.toml:7: domain."go.northpeak.example.": browsers send this host as "go.northpeak.example": write it so"#,
        ),
        (
            r#"[domain."go.northpeak.example"]"#,
            r#"[domain."https://go.northpeak.example:8443/fall"]"#,
            r#"catalog.toml:7: domain."https://go.northpeak.example:8443/fall": browsers send this host as "go.northpeak.example": write it so"#,
        ),
        (
            r#"[domain."go.northpeak.example"]"#,
            r#"[domain."go.müller.example"]"#,
            r#"catalog.toml:7: domain."go.müller.example": browsers send this host as "go.xn--mller-kva.example": write it so"#,
        ),
        (
            r#"[domain."go.northpeak.example"]"#,
            r#"[domain."go north"]"#,
            r#"catalog.toml:7: domain."go north": not a host name"#,
        ),
        (
            "boots?aff={affiliate}&s={sub1}",
            "boots?aff={affiliate}&amp;s={sub1}",
            r#"catalog.toml:15: offer.boots.to: "&amp;" is how HTML writes "&": write "&""#,
        ),
        (
            "https://shop.northpeak.example/tents",
            "https://Go.northpeak.example/fall-boots",
            r#"catalog.toml:28: offer.tents.to: leads back to "go.northpeak.example", a domain of this catalog: its visitors would go round in circles"#,
        ),
        (
            r#"[domain."go.northpeak.example"]"#,
            "[domain.\"go.northpeak.example\"]\nfallback = \"https://go.northpeak.example/fall\"",
            r#"catalog.toml:8: domain."go.northpeak.example".fallback: leads back to "go.northpeak.example", a domain of this catalog: its visitors would go round in circles"#,
        ),
        (
            r#"[domain."go.northpeak.example"]"#,
            "[creative.x]\n[domain.\"go.northpeak.example\"]",
            "catalog.toml:7: creative: not supported yet",
        ),
        (
            r#"[domain."go.northpeak.example"]"#,
            "[domian.x]\n[domain.\"go.northpeak.example\"]",
            r#"catalog.toml:7: domian: unknown field, did you mean "domain"?"#,
        ),
        (
            r#"[domain."go.northpeak.example"]"#,
            "[domain.\"go.northpeak.example\"]\nfallback = \"https://northpeak.example/{sub1}\"",
            r#"catalog.toml:8: domain."go.northpeak.example".fallback: macros are not filled in here"#,
        ),
        (
            r#"[domain."go.northpeak.example"]"#,
            "[domain.\"a.example\"]\n[domain.\"go.northpeak.example\"]",
            "catalog.toml:36: link.fall-boots.domain: is missing",
        ),
        (
            r#"secret = "file:northpeak.secret" }"#,
            r#"secret = "hunter2hunter2" }"#,
            r#"catalog.toml:11: advertiser.northpeak.postback.secret: expected "file:NAME" or "env:NAME": secrets are named here, never written here"#,
        ),
        (
            r#"secret = "file:northpeak.secret" }"#,
            r#"secret = "file:gone.secret" }"#,
            "catalog.toml:11: advertiser.northpeak.postback.secret: cannot read the secret in file gone.secret: there is no such file or folder: check its path",
        ),
        (
            r#"secret = "file:northpeak.secret" }"#,
            r#"secret = "file:empty.secret" }"#,
            "catalog.toml:11: advertiser.northpeak.postback.secret: cannot read the secret in file empty.secret: empty",
        ),
        (
            r#"secret = "file:northpeak.secret" }"#,
            r#"secret = "file:short.secret" }"#,
            "catalog.toml:11: advertiser.northpeak.postback.secret: cannot read the secret in file short.secret: shorter than 8 bytes",
        ),
        (
            r#"secret = "file:northpeak.secret" }"#,
            r#"secret = "file:long.secret" }"#,
            "catalog.toml:11: advertiser.northpeak.postback.secret: cannot read the secret in file long.secret: longer than 4096 bytes",
        ),
        (
            r#"secret = "file:northpeak.secret" }"#,
            r#"secret = "env:SLUICE_TEST_NOT_SET" }"#,
            "catalog.toml:11: advertiser.northpeak.postback.secret: cannot read the secret in variable SLUICE_TEST_NOT_SET: not set",
        ),
        (
            r#"secret = "file:northpeak.secret" }"#,
            "secret = [] }",
            "catalog.toml:11: advertiser.northpeak.postback.secret: expected one secret, or 2 while one replaces the other",
        ),
        (
            r#"secret = "file:northpeak.secret" }"#,
            r#"secret = "file:northpeak.secret", from = [] }"#,
            "catalog.toml:11: advertiser.northpeak.postback.from: not supported yet",
        ),
        (
            r#"offers = ["boots", "tents"]"#,
            r#"offers = ["boots", "tnts"]"#,
            "catalog.toml:33: affiliate.trailblog.offers: no offer \"tnts\", did you mean \"tents\"?",
        ),
        (
            r#"offers = ["boots", "tents"]"#,
            r#"offers = ["tents"]"#,
            r#"catalog.toml:37: link.fall-boots.offer: affiliate "trailblog" is not approved for "boots": add it to affiliate.trailblog.offers"#,
        ),
        (
            r#"affiliate = "trailblog""#,
            r#"affiliate = "trailblgo""#,
            r#"catalog.toml:36: link.fall-boots.affiliate: no affiliate "trailblgo", did you mean "trailblog"?"#,
        ),
        (
            r#"sub1      = "newsletter""#,
            r#"creative = "banner""#,
            "catalog.toml:38: link.fall-boots.creative: not supported yet",
        ),
        (
            r#"sub1      = "newsletter""#,
            r#"sub11 = "x""#,
            "catalog.toml:38: link.fall-boots.sub11: unknown field, did you mean \"sub1\"?",
        ),
        (
            r#"sub1      = "newsletter""#,
            r#"sub1 = "a\u0000b""#,
            "catalog.toml:38: link.fall-boots.sub1: has a control character",
        ),
        (
            r#"sub1      = "newsletter""#,
            r#"was = "fall-boots""#,
            r#"catalog.toml:38: link.fall-boots.was: "fall-boots" still exists: an entry cannot be what it was"#,
        ),
        (
            "[link.fall-boots]",
            "[link.postback]",
            r#"catalog.toml:35: link.postback: "/postback" is reserved"#,
        ),
        (
            "[link.fall-boots]",
            r#"[link."_/x"]"#,
            r#"catalog.toml:35: link."_/x": "/_" is reserved"#,
        ),
        (
            "[link.fall-boots]",
            r#"[link."a//b"]"#,
            r#"catalog.toml:35: link."a//b": a slug has no empty, "." or ".." segment"#,
        ),
        (
            "[link.fall-boots]",
            r#"[link."fäll"]"#,
            r#"catalog.toml:35: link."fäll": a slug is made of a-z, A-Z, 0-9, ".", "_", "-" and "/""#,
        ),
        (
            r#"click_param = "npk""#,
            r#"to = "https://other.example/""#,
            r#"catalog.toml:16: duplicate key "to""#,
        ),
    ] {
        assert!(DEMO.contains(good), "the demo has {good}");
        let found = said(&DEMO.replacen(good, bad, 1)).join("\n");
        assert_eq!(found, expected, "{bad}");
    }
}

#[test]
fn every_mistake_at_once() {
    let found = said(
        r#"
[network]
timezone = "Mars/Base"
currency = "DOLLAR"

[domain."go.example"]
same_site = "x.example"

[advertiser.northpeak]
spkeas = "native"

[offer.boots]
advertiser = "nortpeak"
to = "ftp://shop.example/"
credit = "linear"
goal.sale = { revenue = "12", payout = 8 }

[affiliate.trailblog]
offers = ["boots", "tents", 7]

[link.fall-boots]
affiliate = "trailblog"
"#,
    );
    assert_eq!(
        found,
        [
            r#"catalog.toml:3: network.timezone: no time zone "Mars/Base""#,
            r#"catalog.toml:4: network.currency: "DOLLAR" is no currency: expected an ISO 4217 code such as USD"#,
            r#"catalog.toml:7: domain."go.example".same_site: not supported yet"#,
            r#"catalog.toml:10: advertiser.northpeak.spkeas: unknown field, did you mean "speaks"?"#,
            r#"catalog.toml:13: offer.boots.advertiser: no advertiser "nortpeak", did you mean "northpeak"?"#,
            r#"catalog.toml:14: offer.boots.to: expected an address that starts with https:// or http://"#,
            r#"catalog.toml:15: offer.boots.credit: "linear" is not supported yet: only "last" is"#,
            r#"catalog.toml:16: offer.boots.goal.sale.payout: expected a text in quotes, found a number"#,
            r#"catalog.toml:16: offer.boots.goal.sale.revenue: expected an amount and a currency ("4.00 USD") or a percentage ("12 %")"#,
            r#"catalog.toml:19: affiliate.trailblog.offers: expected a text in quotes, found a number"#,
            r#"catalog.toml:19: affiliate.trailblog.offers: no offer "tents""#,
            r#"catalog.toml:21: link.fall-boots.offer: is missing"#,
        ]
    );
}

#[test]
fn text_that_is_no_toml() {
    let found = said("[network]\ncurrency = \"USD\n[offer.boots]\nwindw = \"1d\"\n");
    assert!(found.len() >= 2, "{found:?}");
    assert!(found[0].starts_with("catalog.toml:2: "), "{found:?}");
    assert!(
        found.contains(
            &"catalog.toml:4: offer.boots.windw: unknown field, did you mean \"window\"?"
                .to_owned()
        ),
        "{found:?}"
    );
}

#[test]
fn files_that_are_no_catalog() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let said = |path: &Path| lines(&check(path).expect_err("no catalog"), folder.path());
    let path = folder.path().join("catalog.toml");
    assert_eq!(
        said(&path),
        ["catalog.toml: cannot be read: there is no such file or folder: check its path"]
    );
    fs::write(&path, b"# one\n\xff\n").expect("writable");
    assert_eq!(
        said(&path),
        ["catalog.toml:2: not UTF-8 text: save it as UTF-8"]
    );
    let inner = folder.path().join("catalog");
    fs::create_dir(&inner).expect("writable");
    assert_eq!(
        said(&inner),
        ["catalog: a folder of files is not supported yet: name one file"]
    );
}

#[test]
fn files_that_look_right_in_a_windows_editor() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let utf_16 = |text: &str| -> Vec<u8> {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        [0xff, 0xfe].into_iter().chain(units).collect()
    };
    let marked = |text: &str| [b"\xef\xbb\xbf", text.as_bytes()].concat();
    let demo = DEMO.replace("\n", "\r\n");
    for (catalog, secret, expected) in [
        (marked(&demo), marked("0123456789abcdef\r\n"), ""),
        (
            utf_16(&demo),
            marked("0123456789abcdef"),
            "catalog.toml: is UTF-16, as Windows programs write it: save it as UTF-8",
        ),
        (
            marked(&demo),
            utf_16("0123456789abcdef\r\n"),
            "is UTF-16, as Windows programs write it: save it as UTF-8",
        ),
        (
            marked(&demo),
            b"0123456789\nabcdef\n".to_vec(),
            "has more than one line, or a byte that no header can carry",
        ),
        (
            marked(&demo),
            b"0123456789abcdef \n".to_vec(),
            "begins or ends with a blank, which no header carries",
        ),
    ] {
        fs::write(path("catalog.toml"), catalog).expect("writable");
        fs::write(path("northpeak.secret"), secret).expect("writable");
        match (check(&path("catalog.toml")), expected) {
            (Ok(checked), "") => {
                let advertiser = checked.catalog.advertisers.values().next();
                assert_eq!(
                    advertiser.expect("one").secrets,
                    [SecretRef::File("northpeak.secret".into())]
                );
            }
            (Ok(_), expected) => panic!("not refused: {expected}"),
            (Err(problems), expected) => {
                let said = lines(&problems, folder.path());
                assert_eq!(said.len(), 1, "{said:?}");
                assert!(
                    !expected.is_empty() && said[0].ends_with(expected),
                    "{said:?}"
                );
            }
        }
    }
    fs::write(path("northpeak.secret"), marked("0123456789abcdef\r\n")).expect("writable");
    let secret = SecretRef::File(path("northpeak.secret"));
    assert_eq!(secret.read().expect("good"), b"0123456789abcdef");
}

#[test]
fn what_is_allowed_and_seldom_meant_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("catalog.toml");
    fs::write(folder.path().join("northpeak.secret"), SECRET).expect("writable");
    for (good, odd, expected) in [
        ("", "", ""),
        (
            "boots?aff={affiliate}&s={sub1}",
            "boots?aff={affiliate}?s={sub1}",
            "catalog.toml:15: offer.boots.to: has a second \"?\": what follows it belongs to the value before it. Write \"&\" between parameters, and %3F in a value",
        ),
        (
            "payout  = \"3.00 USD\"",
            "payout  = \"4.01 USD\"",
            "catalog.toml:19: offer.boots.goal.signup: the payout is more than the revenue: each conversion costs money",
        ),
        (
            "payout = \"7 %\"",
            "payout = \"11 %\"",
            "catalog.toml:29: offer.tents.goal.sale: the payout is more than the revenue: each conversion costs money",
        ),
    ] {
        assert!(DEMO.contains(good), "{good}");
        fs::write(&path, DEMO.replace(good, odd)).expect("writable");
        let checked = check(&path).expect("good");
        let said: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
        let said = said
            .join("\n")
            .replace(&format!("{}/", folder.path().display()), "");
        assert_eq!(said, expected);
    }
}

/// The shape of everything to come: what is not served yet is named with its line, never ignored.
#[test]
fn the_whole_shape_is_known() {
    let text = include_str!("shape.toml");
    let found = said(text);
    assert!(!found.is_empty());
    for line in found {
        assert!(line.contains("not supported yet"), "{line}");
    }
}
