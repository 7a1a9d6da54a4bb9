//! What the first page of the README promises, step by step.

use testkit::http::{self, Response};
use testkit::{System, system};

use crate::{BOUND, CHROME, demo_secret, token, until_report};

const CHROME_MOBILE: &str = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36";

/// What must and what must not be in an answer's head.
#[track_caller]
fn check(response: &Response, status: u16, has: &[(&str, &str)], has_not: &[&str]) {
    assert_eq!(response.status, status, "{response:?}");
    for (name, value) in has {
        assert_eq!(response.header(name), Some(*value), "{name}: {response:?}");
    }
    for name in has_not {
        assert_eq!(response.header(name), None, "{name}: {response:?}");
    }
}

#[test]
fn a_click_and_its_sale_become_a_row_of_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let system = System::start(&data, &[]);
    let browser = ("User-Agent", CHROME);

    let click = system.get("/fall-boots", &[browser]);
    check(
        &click,
        302,
        &[
            ("cache-control", "no-store"),
            ("x-robots-tag", "noindex, nofollow"),
        ],
        &[],
    );
    let first = token(&click, "npk");
    assert_eq!(first.len(), 49);
    assert_eq!(
        click.header("location").unwrap(),
        format!("https://shop.northpeak.example/boots?aff=trailblog&s=newsletter&npk={first}")
    );
    let cookie = click.header("set-cookie").unwrap();
    assert_eq!(
        cookie,
        format!("sl={first}; HttpOnly; SameSite=Lax; Path=/; Max-Age=2592000")
    );

    let again = system.get(
        "/c?offer=boots&aff=trailblog&sub1=a%20b&sub1=second&ext=x1",
        &[
            (
                "User-Agent",
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            ),
            ("Cookie", &format!("other=1; sl={first}")),
        ],
    );
    let second = token(&again, "npk");
    assert_eq!(
        again.header("location").unwrap(),
        format!("https://shop.northpeak.example/boots?aff=trailblog&s=a%20b&npk={second}")
    );
    assert!(
        again
            .header("set-cookie")
            .unwrap()
            .starts_with(&format!("sl={first}.{second};"))
    );

    for purpose in [("Sec-Purpose", "prefetch;prerender"), ("X-Moz", "prefetch")] {
        check(
            &system.get("/fall-boots", &[browser, purpose]),
            503,
            &[("cache-control", "no-store"), ("retry-after", "86400")],
            &["location", "set-cookie"],
        );
    }
    let head = http::request(system.edge, "HEAD", "/fall-boots", &[browser], b"").unwrap();
    check(&head, 302, &[], &["set-cookie"]);
    let bot = [("User-Agent", "Mozilla/5.0 (compatible; Googlebot/2.1)")];
    check(&system.get("/fall-boots", &bot), 302, &[], &["set-cookie"]);
    check(
        &system.get(
            "/fall-boots",
            &[("User-Agent", CHROME_MOBILE), ("Sec-GPC", "1")],
        ),
        302,
        &[],
        &["set-cookie"],
    );
    let without_person = system.get("/fall-boots?cons=none", &[browser]);
    check(
        &without_person,
        302,
        &[(
            "location",
            "https://shop.northpeak.example/boots?aff=trailblog&s=newsletter",
        )],
        &["set-cookie"],
    );
    check(&system.get("/nowhere", &[browser]), 404, &[], &["location"]);
    check(
        &system.get("/fall-boots", &[("Host", "elsewhere.example")]),
        421,
        &[],
        &["location", "set-cookie"],
    );

    let secret = demo_secret(&data);
    let sale = format!("/postback?token={second}&order=A-1&goal=sale&amount=80.00&secret={secret}");
    for (target, status, asked) in [
        (
            format!("/postback?token={second}&order=A-1&goal=sale&amount=9999"),
            202,
            r#""asked":{"status":"approved","amount":"9999.00","order":"A-1","goal":"sale"},"reason":"unauthenticated"}"#,
        ),
        (
            sale.clone(),
            200,
            r#""asked":{"status":"approved","amount":"80.00","currency":"USD","order":"A-1","goal":"sale"}}"#,
        ),
        // The same again is the same order.
        (
            sale,
            200,
            r#""asked":{"status":"approved","amount":"80.00","currency":"USD","order":"A-1","goal":"sale"}}"#,
        ),
    ] {
        let answer = system.get(&target, &[]);
        let text = answer.text();
        assert_eq!(answer.status, status, "{text}");
        // What is refused read like success: "recorded" came first.
        let begins = match status {
            200 => r#"{"recorded":true,"id":""#,
            _ => r#"{"accepted":false,"recorded":true,"id":""#,
        };
        let (recorded, rest) = text.trim().split_at(begins.len());
        assert_eq!(recorded, begins);
        let (id, rest) = rest.split_at(32);
        assert!(id.bytes().all(|b| b.is_ascii_hexdigit()), "{text}");
        assert_eq!(rest, format!("\",{asked}"), "{text}");
    }

    // Four browsers, the last without a person; HEAD and the bot are invalid; prefetches are no clicks.
    let expected = "affiliate,offer,gross,clicks,unique,duplicate,anonymous,invalid,conversions,cvr,currency,amount,revenue,payout,profit,epc\n";
    assert!(system.report("affiliate,offer").starts_with(expected));
    let all = "gross,clicks,unique,duplicate,anonymous,invalid,conversions,cvr,currency,amount,revenue,payout,profit,epc\n\
         6,3,3,0,1,2,1,33.33,USD,80.00,9.60,6.40,3.20,2.1333\n";
    until_report(&system, "", all);

    let explained = system.command(&["order", "show", "northpeak", "A-1"]);
    assert!(
        explained.contains("the click of the order's token") && explained.contains("earlier click"),
        "{explained}"
    );
    system.stop();

    // A second start goes on where the first stopped.
    let mut system = System::start(&data, &[]);
    assert_eq!(system.report(""), all);
    let ended = system.running.interrupt(BOUND);
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    assert!(system::command(&data, &["report"]).contains("trailblog"));
}
