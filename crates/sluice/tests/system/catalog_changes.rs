//! The catalog and the secrets it names change under a running system.

use std::fs;
use std::path::Path;

use testkit::{System, wait};

use crate::{BOUND, CHROME, ONE_CLICK_AND_ITS_SIGNUP, token, until_report};

const BROWSER: (&str, &str) = ("User-Agent", CHROME);

/// The demo catalog and its secret in a folder, and a system on it.
fn start(folder: &Path) -> System {
    fs::write(folder.join("northpeak.secret"), "the first secret\n").unwrap();
    let catalog = folder.join("catalog.toml");
    fs::write(&catalog, catalog::DEMO).unwrap();
    let catalog = catalog.to_str().unwrap();
    System::start(&folder.join("data"), &["--catalog", catalog])
}

#[track_caller]
fn until_status(system: &System, target: &str, status: u16) {
    wait::until(&format!("{target} gets {status}"), BOUND, || {
        system.get(target, &[BROWSER]).status == status
    });
}

#[test]
fn a_good_change_is_picked_up_a_bad_one_is_not_and_old_tokens_mean_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = folder.path().join("catalog.toml");
    let system = start(folder.path());
    let old = token(&system.get("/fall-boots", &[BROWSER]), "npk");

    let renamed = catalog::DEMO
        .replace("[offer.boots]", "[offer.shoes]\nwas = \"boots\"")
        .replace("[offer.boots.goal.", "[offer.shoes.goal.")
        .replace("\"boots\"", "\"shoes\"")
        .replace("was = \"shoes\"", "was = \"boots\"")
        .replace(
            "[link.fall-boots]",
            "[link.autumn-shoes]\nwas = \"fall-boots\"",
        );
    fs::write(&catalog, format!("{renamed}\n[offer.nonsense]\n")).unwrap();
    wait::until("the bad catalog is refused", BOUND, || {
        system.running.stderr().contains("catalog refused")
    });
    assert_eq!(system.get("/fall-boots", &[BROWSER]).status, 302);
    assert_eq!(system.get("/autumn-shoes", &[BROWSER]).status, 404);

    fs::write(&catalog, renamed).unwrap();
    until_status(&system, "/autumn-shoes", 302);
    assert_eq!(system.get("/fall-boots", &[BROWSER]).status, 404);
    let sale = format!("/postback?token={old}&order=1&goal=signup&secret=the%20first%20secret");
    let answer = system.get(&sale, &[]);
    assert_eq!(answer.status, 200, "{}", answer.text());

    wait::until(
        "all three clicks are the offer's under its new name",
        BOUND,
        || {
            let report = system.report("offer");
            report.lines().count() == 2
                && report.contains("\nshoes,3,")
                && report.contains(",4.00,3.00,")
        },
    );
    system.stop();
}

#[test]
fn what_a_refused_catalog_lacked_may_come_later() {
    let folder = tempfile::tempdir().unwrap();
    let system = start(folder.path());
    let more = "\n[advertiser.other]\npostback = { secret = \"file:other.secret\" }\n\
                [offer.socks]\nadvertiser = \"other\"\nto = \"https://socks.example/\"\n\
                goal.sale = { revenue = \"1.00 USD\", payout = \"0.50 USD\" }\n";
    let text = format!("{}{more}", catalog::DEMO).replace(
        "offers = [\"boots\", \"tents\"]",
        "offers = [\"boots\", \"tents\", \"socks\"]",
    );
    fs::write(folder.path().join("catalog.toml"), text).unwrap();
    wait::until("the secret is missed", BOUND, || {
        system.running.stderr().contains("other.secret")
    });
    assert_eq!(
        system
            .get("/c?offer=socks&aff=trailblog", &[BROWSER])
            .status,
        404
    );
    fs::write(folder.path().join("other.secret"), "here it is now").unwrap();
    until_status(&system, "/c?offer=socks&aff=trailblog", 302);
    system.stop();
}

#[test]
fn a_replaced_secret_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let system = start(folder.path());
    let token = token(&system.get("/fall-boots", &[BROWSER]), "npk");
    let sale = |secret: &str| {
        let target = format!("/postback?token={token}&order=1&goal=signup&secret={secret}");
        system.get(&target, &[]).status
    };
    assert_eq!(sale("the%20first%20secret"), 200);
    assert_eq!(sale("the%20next%20one"), 403);
    fs::write(folder.path().join("northpeak.secret"), "the next one").unwrap();
    wait::until("the next secret is believed", BOUND, || {
        sale("the%20next%20one") == 200
    });
    assert_eq!(sale("the%20first%20secret"), 403);
    until_report(&system, "", ONE_CLICK_AND_ITS_SIGNUP);
    system.stop();
}
