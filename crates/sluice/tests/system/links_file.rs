//! A catalog whose links stand in a file of their own, and a snapshot that is damaged: an edge alone, under requests.

use std::fs;

use testkit::{System, http, system, wait};

use crate::edge_alone::{edge, up};
use crate::{BOUND, CHROME};

#[test]
fn links_of_a_file_go_live_under_a_running_edge_and_keep_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    System::start(&data, &[]).stop();
    let (mut running, address, _) = up(edge(&data), &folder.path().join("edge"));
    let get = |target: &str| {
        let headers = [("Host", "go.northpeak.example"), ("User-Agent", CHROME)];
        http::get(address, target, &headers).unwrap()
    };
    assert_eq!(get("/fall-boots").status, 302);

    let catalog = data.join("demo/catalog.toml");
    let (without_links, _) = catalog::DEMO.split_once("[link.").unwrap();
    fs::write(&catalog, without_links).unwrap();
    let links = folder.path().join("links.csv");
    let head = "slug,affiliate,offer,sub1\nspring-tents,trailblog,tents,\n";
    let build = |lines: &str| {
        fs::write(&links, format!("{head}{lines}")).unwrap();
        let (catalog, links) = (catalog.to_str().unwrap(), links.to_str().unwrap());
        system::command(
            &data,
            &["catalog", "build", "--catalog", catalog, "--links", links],
        )
    };
    let said = build("fall-boots,trailblog,boots,newsletter\n");
    assert!(said.contains("in force as version 2"), "{said}");
    assert!(said.contains(" 2 links"), "{said}");
    wait::until("the new link is live", BOUND, || {
        get("/spring-tents").status == 302
    });
    let location = get("/fall-boots").header("location").unwrap().to_owned();
    assert!(location.contains("s=newsletter"), "{location}");

    build("");
    wait::until("the link is gone", BOUND, || {
        get("/fall-boots").status == 404
    });
    running.terminate(BOUND);

    // The catalog alone would drop them: it is refused, and the last good version serves.
    let system = System::start(&data, &[]);
    let told = system.running.stderr();
    assert!(told.contains("sluice catalog build"), "{told}");
    system.stop();

    // With both named, everything in one process follows both.
    let (catalog, path) = (catalog.to_str().unwrap(), links.to_str().unwrap());
    let system = System::start(&data, &["--catalog", catalog, "--links", path]);
    let get = |target: &str| {
        let headers = [("Host", "go.northpeak.example"), ("User-Agent", CHROME)];
        system.get(target, &headers).status
    };
    assert_eq!(get("/spring-tents"), 302);
    assert_eq!(get("/fall-boots"), 404);
    fs::write(&links, format!("{head}fall-boots,trailblog,boots,again\n")).unwrap();
    wait::until("the link is back", BOUND, || get("/fall-boots") == 302);
    system.stop();
}

#[test]
fn a_damaged_snapshot_gives_way_to_the_version_before_until_a_good_one_comes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    System::start(&data, &[]).stop();
    let catalog = data.join("demo/catalog.toml");
    let apply = |affiliate: &str| {
        let text = format!("{}\n[affiliate.{affiliate}]\n", catalog::DEMO);
        fs::write(&catalog, text).unwrap();
        system::command(&data, &["catalog", "apply", catalog.to_str().unwrap()]);
    };
    apply("more");
    // Written beside and renamed, as a snapshot is.
    let put = |version: u32, bytes: &[u8]| {
        let new = data.join("catalog/new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, data.join(format!("catalog/{version}.snapshot"))).unwrap();
    };
    let good = [1, 2].map(|version| {
        let path = data.join(format!("catalog/{version}.snapshot"));
        fs::read(path).unwrap()
    });
    let damaged = good.clone().map(|mut bytes| {
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    });
    put(2, &damaged[1]);

    let damage_is_found = |name: &str| {
        let (running, _, admin) = up(edge(&data), &folder.path().join(name));
        wait::until("the damage is found", BOUND, || {
            let metrics = http::get(admin, "/metrics", &[]).unwrap().text();
            metrics.contains("sluice_catalog_damaged 1")
        });
        (running, admin)
    };
    let ready = |admin| http::get(admin, "/readyz", &[]).unwrap();
    let in_force = |admin, version: u32| {
        let line = format!("sluice_catalog_version {version}\n");
        wait::until("it is in force", BOUND, || {
            let metrics = http::get(admin, "/metrics", &[]).unwrap().text();
            metrics.contains(&line)
        });
    };
    // Where no version is whole, it goes on with what there is.
    put(1, &damaged[0]);
    let (mut running, admin) = damage_is_found("alone");
    in_force(admin, 2);
    wait::until("it is told", BOUND, || {
        running.stderr().contains("no earlier one is whole")
    });
    let said = ready(admin).text();
    assert!(
        said.contains("version 2: catalog snapshot is damaged"),
        "{said}"
    );
    assert!(running.terminate(BOUND).unwrap().success());

    put(1, &good[0]);
    let (mut running, admin) = damage_is_found("edge");
    in_force(admin, 1);
    // A whole one decides: no reason to leave a balancer.
    assert_eq!(ready(admin).status, 200);
    put(2, &good[1]);
    apply("another");
    in_force(admin, 3);
    let metrics = http::get(admin, "/metrics", &[]).unwrap().text();
    assert!(metrics.contains("sluice_catalog_damaged 0"));
    assert_eq!(ready(admin).status, 200);
    assert!(running.terminate(BOUND).unwrap().success());
}
