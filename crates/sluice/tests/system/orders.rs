//! What becomes of an order: corrections, reversals, retries, updates from back offices, adjustments by hand.

use serde_json::Value;
use testkit::{Running, System, http, system, wait};

use crate::{BOUND, CHROME, demo_secret, edge_alone, on_kafka, token};

/// A system with the demo catalog, and its advertiser's secret.
pub(crate) struct Shop {
    pub(crate) system: System,
    secret: String,
    folder: tempfile::TempDir,
}

impl Shop {
    pub(crate) fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let system = System::start(&data, &[]);
        let secret = demo_secret(&data);
        Self {
            system,
            secret,
            folder,
        }
    }

    /// With a second affiliate beside the demo's.
    fn open_with_gearhub() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = folder.path().join("catalog.toml");
        let gearhub = "\n[affiliate.gearhub]\noffers = [\"boots\", \"tents\"]\n";
        std::fs::write(&catalog, format!("{}{gearhub}", catalog::DEMO)).unwrap();
        let secret = "northpeaks-own-secret".to_owned();
        std::fs::write(folder.path().join("northpeak.secret"), &secret).unwrap();
        let arguments = ["--catalog", catalog.to_str().unwrap()];
        let system = System::start(&folder.path().join("data"), &arguments);
        Self {
            system,
            secret,
            folder,
        }
    }

    /// A click on boots, by its token.
    pub(crate) fn click(&self, visitor: u32) -> String {
        let agent = format!("{CHROME} {visitor}");
        let answer = self.system.get("/fall-boots", &[("User-Agent", &agent)]);
        token(&answer, "npk")
    }

    /// Sends a postback with the secret; its status and answer.
    pub(crate) fn say(&self, body: &str) -> (u16, Value) {
        let bearer = format!("Bearer {}", self.secret);
        self.post(
            &[("Authorization", &bearer)],
            "application/x-www-form-urlencoded",
            body.as_bytes(),
        )
    }

    fn post(&self, headers: &[(&str, &str)], kind: &str, body: &[u8]) -> (u16, Value) {
        let mut headers = headers.to_vec();
        headers.push(("Content-Type", kind));
        let answer = http::request(self.system.edge, "POST", "/postback", &headers, body).unwrap();
        let text = answer.text();
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (answer.status, value)
    }

    /// What the API says of an order, or of the order of an answer's id.
    pub(crate) fn order(&self, path: &str) -> Option<Value> {
        let target = format!("/api/v1/orders/{path}");
        let answer = http::get(self.system.reports, &target, &[]).unwrap();
        (answer.status == 200).then(|| serde_json::from_str(&answer.text()).unwrap())
    }

    /// Waits until the answer's word is folded; what became of its order.
    pub(crate) fn outcome(&self, answer: &Value) -> Value {
        let id = answer["id"].as_str().unwrap();
        let mut found = Value::Null;
        wait::until("the word is folded", BOUND, || {
            found = self.order(id).unwrap_or_default();
            let history = found["history"].as_array();
            history.is_some_and(|words| words.iter().any(|word| word["id"] == id))
        });
        found
    }

    fn until_report(&self, by: &str, line: &str) {
        wait::until("the report says so", BOUND, || {
            self.system.report(by).contains(line)
        });
    }

    /// Says it and waits; `status amount payout` of the order's only goal.
    fn after(&self, body: &str) -> String {
        let (status, answer) = self.say(body);
        assert_eq!(status, 200, "{body}: {answer}");
        standing(&self.outcome(&answer))
    }
}

fn standing(order: &Value) -> String {
    let goals = order["goals"].as_array().unwrap();
    let goals = goals.iter().map(|goal| {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let payout = &goal["counts"][0]["payout"];
        format!(
            "{} {} {}",
            text(&goal["status"]),
            text(&goal["amount"]),
            text(payout)
        )
    });
    goals.collect::<Vec<_>>().join("; ")
}

#[test]
fn a_second_reversal_is_never_answered_reversed_and_still_paid() {
    let shop = Shop::open();
    let token = shop.click(1);
    let sale = |amount: &str| format!("token={token}&order=R1&goal=sale&amount={amount}");
    let reversed = "adv=northpeak&order=R1&status=reversed";
    for (body, expected) in [
        (sale("500"), "approved 500.00 USD 40.00 USD"),
        (reversed.to_owned(), "reversed 500.00 USD -"),
        // A late retry, however it is spelled.
        (sale("500.00"), "reversed 500.00 USD -"),
        (sale("0500.0"), "reversed 500.00 USD -"),
        (sale("501"), "approved 501.00 USD 40.08 USD"),
        (reversed.to_owned(), "reversed 501.00 USD -"),
        // With a number everything may be corrected.
        (sale("500") + "&seq=1", "approved 500.00 USD 40.00 USD"),
    ] {
        assert_eq!(shop.after(&body), expected, "{body}");
    }
    let report = shop.system.report("affiliate");
    assert!(report.contains(",40.00,"), "{report}");
    shop.system.stop();
}

#[test]
fn a_part_refund_answered_approved_left_the_order_at_its_old_amount() {
    let shop = Shop::open();
    let token = shop.click(1);
    let sale = |amount: &str| format!("token={token}&order=R2&goal=sale&amount={amount}");
    assert_eq!(shop.after(&sale("80.00")), "approved 80.00 USD 6.40 USD");
    assert_eq!(shop.after(&sale("30.00")), "approved 30.00 USD 2.40 USD");
    assert_eq!(shop.after(&sale("80")), "approved 30.00 USD 2.40 USD");
    shop.system.stop();
}

#[test]
fn a_reversal_by_order_id_alone_was_thrown_away() {
    let shop = Shop::open();
    let token = shop.click(1);
    shop.after(&format!("token={token}&order=R4&goal=sale&amount=80"));
    shop.after(&format!("token={token}&order=R4&goal=signup"));
    let (status, answer) = shop.say("adv=northpeak&order=R4&status=reversed");
    assert_eq!((status, &answer["reason"]), (200, &Value::Null));
    let order = shop.outcome(&answer);
    assert_eq!(standing(&order), "reversed 80.00 USD -; reversed - -");
    // Approving both again by no goal's name is nobody's.
    let (_, answer) = shop.say("adv=northpeak&order=R4&status=reinstated");
    let order = shop.outcome(&answer);
    assert_eq!(standing(&order), "reversed 80.00 USD -; reversed - -");
    let outcome = &order["history"].as_array().unwrap().last().unwrap()["outcome"];
    assert_eq!(outcome[0]["reason"], "goal_ambiguous", "{order:#}");
    // Without the secret it is nobody's word.
    let body = b"adv=northpeak&order=R4&goal=sale&status=reinstated";
    let (status, answer) = shop.post(&[], "text/plain", body);
    assert_eq!(
        (status, answer["reason"].as_str()),
        (202, Some("unauthenticated"))
    );
    shop.system.stop();
}

#[test]
fn three_sales_with_an_unfilled_order_id_became_one() {
    let shop = Shop::open();
    for (n, order) in [
        "%7Border_id%7D",
        "%5B%5Border%5D%5D",
        "%24%7BORDER%7D",
        "%25%25ORDER%25%25",
        "__ORDER__",
        "undefined",
        "null",
    ]
    .into_iter()
    .enumerate()
    {
        let token = shop.click(n as u32);
        let (status, answer) =
            shop.say(&format!("token={token}&order={order}&goal=sale&amount=50"));
        assert_eq!(
            (status, answer["reason"].as_str()),
            (422, Some("placeholder")),
            "{order}: {answer}"
        );
    }
    shop.system.stop();
}

#[test]
fn blanks_around_an_order_id_made_three_orders() {
    let shop = Shop::open();
    let token = shop.click(1);
    for order in ["1001", "%201001", "1001+", "%091001%0A"] {
        let body = format!("token={token}&order={order}&goal=+sale&amount=+50.00&status=Approved+");
        assert_eq!(shop.after(&body), "approved 50.00 USD 4.00 USD", "{order}");
    }
    let report = shop.system.report("");
    assert!(report.contains(",1,100.00,USD,50.00,"), "{report}");
    shop.system.stop();
}

#[test]
fn json_is_read_and_what_is_not_read_says_so() {
    let shop = Shop::open();
    let token = shop.click(1);
    let bearer = format!("bearer  {} ", shop.secret);
    let headers = [("Authorization", bearer.as_str())];
    let body = format!(r#"{{"token":"{token}","order":1001,"goal":"sale","amount":80.00}}"#);
    let (status, answer) = shop.post(&headers, "application/json", body.as_bytes());
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["asked"]["amount"], "80.00");
    assert_eq!(
        standing(&shop.outcome(&answer)),
        "approved 80.00 USD 6.40 USD"
    );

    // A secret in a body that is not read is not echoed.
    let body = format!(r#"{{"secret":"{}", "order":{{}}}}"#, shop.secret);
    let (status, answer) = shop.post(&[], "application/json", body.as_bytes());
    assert_eq!(status, 400);
    assert!(!answer.to_string().contains(&shop.secret), "{answer}");
    let (status, answer) = shop.post(&headers, "multipart/form-data; boundary=x", b"--x--");
    assert_eq!(status, 415);
    assert!(answer.as_str().unwrap().contains("send a form"), "{answer}");
    shop.system.stop();
}

#[test]
fn money_nobody_can_be_paid_was_approved() {
    let shop = Shop::open();
    let token = shop.click(1);
    for (money, reason) in [
        ("amount=5&currency=XXX", "currency_not_payable"),
        ("amount=5&currency=XTS", "currency_not_payable"),
        ("amount=5&currency=XAU", "currency_not_payable"),
        ("amount=5&currency=ZZZ", "unknown_currency"),
        ("amount=5.5&currency=JPY", "amount_too_fine"),
        ("amount=999999999", "amount_absurd"),
        ("amount=5&order=%E9", "not_utf8"),
        ("amount=5&seq=first", "seq_malformed"),
    ] {
        let (status, answer) = shop.say(&format!("token={token}&goal=sale&{money}"));
        assert_eq!(
            (status, answer["reason"].as_str()),
            (422, Some(reason)),
            "{money}: {answer}"
        );
    }
    shop.system.stop();
}

#[test]
fn names_of_advertisers_are_told_to_nobody_without_a_secret() {
    let shop = Shop::open();
    let token = shop.click(1);
    for secret in ["", "&secret=guessed"] {
        let of = |adv: &str| {
            let body = format!("token={token}&adv={adv}&order=1&goal=sale&amount=5{secret}");
            let (status, mut answer) = shop.post(&[], "text/plain", body.as_bytes());
            answer["id"] = Value::Null;
            (status, answer)
        };
        assert_eq!(of("northpeak"), of("nobody"));
    }
    shop.system.stop();
}

#[test]
fn an_order_is_adjusted_by_hand_while_the_system_runs() {
    let shop = Shop::open();
    let data = shop.folder.path().join("data");
    let token = shop.click(1);
    shop.after(&format!("token={token}&order=A%2F7&goal=sale&amount=80"));
    let adjust = |arguments: &[&str]| {
        let command = ["order", "adjust", "northpeak", "A/7", "--by", "jo"];
        shop.system.command(&[&command[..], arguments].concat())
    };
    let text = adjust(&["--amount", "60", "--reason", "the shop's mistake"]);
    assert!(
        text.contains("approved, payout 6.40 USD -> approved, payout 4.80 USD"),
        "{text}"
    );
    assert!(text.contains("jo (the shop's mistake)"), "{text}");
    let text = adjust(&["--status", "reversed", "--reason", "fraud"]);
    assert!(text.contains("-> reversed"), "{text}");
    // A retry of the advertiser changes nothing of it, another amount does.
    let sale = |amount| format!("token={token}&order=A%2F7&goal=sale&amount={amount}");
    assert_eq!(shop.after(&sale(80)), "reversed 60.00 USD -");
    assert_eq!(shop.after(&sale(50)), "approved 50.00 USD 4.00 USD");
    let order = shop.order("northpeak/A%2F7").unwrap();
    assert_eq!(order["history"].as_array().unwrap().len(), 5, "{order:#}");
    assert_eq!(order["history"][1]["trust"], "operator");

    // What would lead nowhere is refused before it is recorded.
    for (arguments, expected) in [
        (
            &["northpeak", "A/8", "--amount", "1"][..],
            "nobody reported an order A/8",
        ),
        (&["nobody", "A/7", "--amount", "1"], "is not in the catalog"),
        (&["northpeak", "A/7"], "say what to change"),
        (
            &["northpeak", "A/7", "--goal", "lead", "--amount", "1"],
            "no offer of northpeak has a goal lead",
        ),
        (
            &["northpeak", "A/7", "--affiliate", "nobody"],
            "is not in the catalog",
        ),
    ] {
        let mut command = std::process::Command::new(testkit::bin("sluice"));
        command.args(["order", "adjust"]).args(arguments);
        command
            .args(["--by", "jo", "--reason", "why", "--data"])
            .arg(&data);
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains(expected),
            "{arguments:?}: {error}"
        );
    }
    shop.system.stop();
}

#[test]
fn an_order_that_changes_its_affiliate_was_paid_to_both() {
    let shop = Shop::open_with_gearhub();
    let token = shop.click(1);
    shop.after(&format!("token={token}&order=B1&goal=sale&amount=80"));
    shop.until_report("affiliate", "\ntrailblog,1,1,1,0,0,0,1,");
    shop.system.command(&[
        "order",
        "adjust",
        "northpeak",
        "B1",
        "--affiliate",
        "gearhub",
        "--by",
        "jo",
        "--reason",
        "agreed by mail",
    ]);
    let order = shop.order("northpeak/B1").unwrap();
    assert_eq!(order["goals"][0]["affiliate"], "gearhub", "{order:#}");
    // One event has both sides.
    let event = &order["history"][1]["outcome"][0];
    assert_eq!(event["before"][0]["affiliate"], "trailblog", "{order:#}");
    assert_eq!(event["after"][0]["affiliate"], "gearhub", "{order:#}");
    shop.until_report("affiliate", "\ntrailblog,1,1,1,0,0,0,0,");
    shop.until_report("affiliate", "\ngearhub,0,0,0,0,0,0,1,");
    shop.system.stop();
}

#[test]
fn one_order_reported_with_the_tokens_of_two_offers_was_paid_twice() {
    let shop = Shop::open();
    let boots = shop.click(1);
    let agent = [("User-Agent", CHROME)];
    let tents = token(
        &shop.system.get("/c?offer=tents&aff=trailblog", &agent),
        "sl",
    );
    for token in [&boots, &tents, &boots] {
        let body = format!("token={token}&order=R8&goal=sale&amount=100");
        assert_eq!(shop.after(&body), "approved 100.00 USD 8.00 USD");
    }
    let report = shop.system.report("");
    assert!(report.contains(",1,50.00,USD,100.00,"), "{report}");
    shop.system.stop();
}

#[test]
fn a_sale_was_lost_to_the_token_that_a_look_by_head_had_got() {
    let shop = Shop::open();
    let agent = [("User-Agent", CHROME)];
    let head = http::request(shop.system.edge, "HEAD", "/fall-boots", &agent, b"").unwrap();
    // The shop's address as it is, which nobody can mistake for a visitor's.
    let location = "https://shop.northpeak.example/boots?aff=trailblog&s=newsletter";
    assert_eq!(
        (head.status, head.header("location")),
        (302, Some(location))
    );
    assert_eq!(head.header("set-cookie"), None);
    // The visitor who comes after the preview is one like any other.
    let token = shop.click(1);
    let sale = format!("token={token}&order=H1&goal=sale&amount=80");
    assert_eq!(shop.after(&sale), "approved 80.00 USD 6.40 USD");
    shop.until_report("", "\n2,1,1,0,0,1,1,");
    shop.system.stop();
}

#[test]
fn strangers_leave_no_trace_in_what_is_kept_for_ever() {
    let shop = Shop::open();
    let token = shop.click(1);
    for n in 0..50 {
        let body = format!("token={token}&order=S{n}&goal=sale&amount=5");
        let (status, _) = shop.post(&[], "text/plain", body.as_bytes());
        assert_eq!(status, 202);
    }
    assert_eq!(
        shop.after(&format!("token={token}&order=T&goal=sale&amount=80")),
        "approved 80.00 USD 6.40 USD"
    );
    wait::until("the strangers' words are folded", BOUND, || {
        (0..50).all(|n| shop.order(&format!("northpeak/S{n}")).is_some())
    });
    let dump = shop.system.command(&["dump-store"]);
    let of = |table: &str| dump.lines().filter(|line| line.starts_with(table)).count();
    assert_eq!((of("orders "), of("conversions ")), (1, 1), "{dump}");
    shop.system.stop();
}

#[test]
fn an_order_adjusted_on_the_machine_of_an_edge_changed_nothing() {
    let test = "an_order_adjusted_on_the_machine_of_an_edge_changed_nothing";
    let root = tempfile::tempdir().unwrap();
    let Some(broker) = on_kafka::broker(test, root.path()) else {
        return;
    };
    // The edge and its courier on one machine, the consumers with their store on another.
    let (here, there) = (root.path().join("here"), root.path().join("there"));
    System::start(&here, &[]).stop();
    std::fs::remove_file(here.join("store.sqlite")).unwrap();
    let address = broker.address();
    system::command(&here, &["catalog", "publish", "--kafka", &address]);
    let part = |name: &str, data: &std::path::Path| {
        let mut command = std::process::Command::new(testkit::bin("sluice"));
        command.args([
            name,
            "--kafka",
            &address,
            "--admin",
            "127.0.0.1:0",
            "--data",
        ]);
        command.arg(data);
        Running::spawn(command, &root.path().join(name)).unwrap()
    };
    let (mut edge, visitors, _) =
        edge_alone::up(edge_alone::edge(&here), &root.path().join("edge"));
    let mut parts = [part("courier", &here), part("consume", &there)];
    let show = || {
        let mut command = std::process::Command::new(testkit::bin("sluice"));
        command.args([
            "order",
            "show",
            "northpeak",
            "K1",
            "--format",
            "json",
            "--data",
        ]);
        let output = command.arg(&there).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
    };
    let until = |expected: &str| {
        let mut order = Value::Null;
        let found = wait::holds_within(BOUND, || {
            order = show();
            order["goals"].is_array() && standing(&order) == expected
        });
        assert!(found, "{expected}: {order:#}");
        order
    };

    let host = ("Host", "go.northpeak.example");
    let click = http::get(visitors, "/fall-boots", &[host, ("User-Agent", CHROME)]).unwrap();
    let bearer = format!("Bearer {}", demo_secret(&here));
    let token = token(&click, "npk");
    let sale = format!("/postback?token={token}&order=K1&goal=sale&amount=80");
    let answer = http::get(visitors, &sale, &[host, ("Authorization", &bearer)]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    until("approved 80.00 USD 6.40 USD");

    let said = system::command(
        &here,
        &[
            "order",
            "adjust",
            "northpeak",
            "K1",
            "--goal",
            "sale",
            "--amount",
            "60",
            "--by",
            "jo",
            "--reason",
            "the shop's mistake",
        ],
    );
    assert!(
        said.contains("it is not folded yet: a courier ships it"),
        "{said}"
    );
    let id = said
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("recorded: "))
        .unwrap();
    let order = until("approved 60.00 USD 4.80 USD");
    let word = &order["history"][1];
    let told = ["id", "trust", "by", "note"].map(|name| word[name].as_str().unwrap_or("-"));
    assert_eq!(
        told,
        [id, "operator", "jo", "the shop's mistake"],
        "{order:#}"
    );
    assert!(
        word["time"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z')),
        "{order:#}"
    );
    let report = system::command(&there, &["report", "--format", "csv", "--by", "affiliate"]);
    assert!(report.contains(",USD,60.00,7.20,4.80,"), "{report}");
    // The courier has drained the folder that the command wrote, and says so by its cursor.
    assert!(here.join("cursors/10000.postbacks.cursor").exists());
    assert!(edge.terminate(BOUND).unwrap().success());
    for part in &mut parts {
        assert!(
            part.terminate(BOUND).unwrap().success(),
            "{}",
            part.stderr()
        );
    }
}
