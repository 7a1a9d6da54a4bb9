//! A second machine redirects for the same installation: with the first one's keys, secrets and published catalog its sales are
//! credited to the right affiliate at the right rate. A machine that numbered the catalog for itself stands still and says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{Running, System, bin, http, system, wait};

use crate::on_kafka::{self, columns};
use crate::{BOUND, CHROME, edge_alone, token};

const SECRET: &str = "only for this test";
const HOST: &str = "go.northpeak.example";

/// The affiliates in an order of one's own: without a common lock they get other numbers.
fn catalog(payout: u8, affiliates: [&str; 2]) -> String {
    let [first, second] = affiliates;
    format!(
        r#"
[network]
currency = "USD"
[domain."{HOST}"]
[advertiser.northpeak]
postback = {{ secret = "file:northpeak.secret" }}
[offer.boots]
advertiser = "northpeak"
to = "https://shop.northpeak.example/boots"
click_param = "npk"
goal.sale = {{ revenue = "40 %", payout = "{payout} %" }}
[affiliate.{first}]
offers = ["boots"]
[affiliate.{second}]
offers = ["boots"]
"#
    )
}

struct Machines {
    root: PathBuf,
    kafka: String,
}

impl Machines {
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn write_catalog(&self, etc: &str, text: &str) -> PathBuf {
        let path = self.path(etc).join("catalog.toml");
        fs::create_dir_all(self.path(etc)).unwrap();
        fs::write(self.path(etc).join("northpeak.secret"), SECRET).unwrap();
        // As editors that are careful do: the file that is followed is whole at any moment.
        let young = self.path(etc).join("young");
        fs::write(&young, text).unwrap();
        fs::rename(&young, &path).unwrap();
        path
    }

    /// A click and its sale of 100.00 at an edge of this data folder.
    fn sell(&self, data: &str, affiliate: &str, order: &str) {
        let output = self.path(&format!("{order}-edge"));
        let (mut edge, address, _) = edge_alone::up(edge_alone::edge(&self.path(data)), &output);
        let bearer = format!("Bearer {SECRET}");
        let (host, agent) = (("Host", HOST), ("User-Agent", CHROME));
        let target = format!("/c?offer=boots&aff={affiliate}");
        let click = http::get(address, &target, &[host, agent]).unwrap();
        assert_eq!(click.status, 302);
        let token = token(&click, "npk");
        let target = format!("/postback?token={token}&order={order}&amount=100.00");
        let sale = http::get(address, &target, &[host, ("Authorization", &bearer)]).unwrap();
        assert_eq!(sale.status, 200, "{}", sale.text());
        assert!(edge.terminate(BOUND).unwrap().success());
    }

    fn courier(&self, data: &str) -> Running {
        let mut courier = Command::new(bin("sluice"));
        courier.arg("courier").arg("--data").arg(self.path(data));
        courier.args(["--kafka", &self.kafka, "--admin", "127.0.0.1:0"]);
        Running::spawn(courier, &self.path(&format!("{data}-courier"))).unwrap()
    }

    fn version(&self, data: &str) -> Option<u32> {
        let current = self.path(data).join("catalog/current");
        fs::read_to_string(current).ok()?.trim().parse().ok()
    }
}

/// Who has how many clicks and sales, of what amount and payout.
fn told(report: &str) -> Vec<[String; 5]> {
    let names = ["affiliate", "clicks", "conversions", "amount", "payout"];
    columns(report, names)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_second_machine_paid_the_wrong_affiliate_by_another_catalog() {
    let test = "a_second_machine_paid_the_wrong_affiliate_by_another_catalog";
    let root = tempfile::tempdir().unwrap();
    let Some(broker) = on_kafka::broker(test, root.path()) else {
        return;
    };
    let machines = Machines {
        root: root.path().to_owned(),
        kafka: broker.address(),
    };
    let kafka = ["--kafka", machines.kafka.as_str()];

    // The first machine: 8 %, then 20 %.
    let order = ["trailblog", "rival"];
    let path = machines.write_catalog("first-etc", &catalog(8, order));
    let data = machines.path("first");
    let arguments = ["--catalog", path.to_str().unwrap(), kafka[0], kafka[1]];
    let first = System::start(&data, &arguments);
    machines.write_catalog("first-etc", &catalog(20, order));
    wait::until("the second version is in force", BOUND, || {
        machines.version("first") == Some(2)
    });

    let publish = ["catalog", "publish", kafka[0], kafka[1]];
    system::command(&data, &publish);

    // The second has its keys and a secret; the courier brings the versions.
    copy(&data.join("keys"), &machines.path("second").join("keys"));
    let secrets = machines.path("second").join("secrets");
    fs::create_dir_all(&secrets).unwrap();
    fs::write(secrets.join("northpeak.secret"), SECRET).unwrap();
    let courier = machines.courier("second");
    let brought = wait::holds_within(BOUND, || machines.version("second") == Some(2));
    assert!(brought, "{}", courier.stderr());
    machines.sell("second", "rival", "A-1");
    let mut report = String::new();
    let credited = wait::holds_within(BOUND, || {
        report = first.report("affiliate");
        told(&report) == [["rival", "1", "1", "100.00", "20.00"]]
    });
    assert!(credited, "{report}\n{}", courier.stderr());

    // The third has the keys, and numbered a catalog of its own, in which rival is what trailblog is on the first.
    copy(&data.join("keys"), &machines.path("third").join("keys"));
    let path = machines.write_catalog("third-etc", &catalog(8, ["rival", "trailblog"]));
    let apply = ["catalog", "apply", path.to_str().unwrap()];
    system::command(&machines.path("third"), &apply);
    machines.sell("third", "rival", "A-2");
    let courier = machines.courier("third");
    let says_so = wait::holds_within(BOUND, || {
        courier.stderr().contains("two catalogs number apart")
    });
    assert!(says_so, "{}", courier.stderr());
    // It shipped nothing, so that the others go on: a record of its numbers would hold up whoever reads the topic.
    machines.sell("second", "rival", "A-3");
    let mut report = String::new();
    let goes_on = wait::holds_within(BOUND, || {
        report = first.report("affiliate");
        told(&report) == [["rival", "2", "2", "200.00", "40.00"]]
    });
    assert!(goes_on, "{report}\n{}", first.running.stderr());
    first.kill9();
}
