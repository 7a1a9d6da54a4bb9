//! Events that cannot be folded, in running processes: their partition goes on, each is listed with its reason, and it is folded
//! once what it lacks is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use catalog::Removes;
use domain::event::{Class, Click, ClickKey, Kind};
use prost::Message;
use stream::{Record, StreamId};
use testkit::{System, bin, http, wait};

use crate::edge_alone::{edge, up};
use crate::on_kafka::{self, CLICKS, UNKNOWN_KIND, columns};
use crate::{BOUND, CHROME, metric};

/// Sends a message of somebody else: it has no headers.
const FOREIGN: &str = "
import sys
from confluent_kafka import Producer
producer = Producer({'bootstrap.servers': sys.argv[1]})
producer.produce(sys.argv[2], b'hello', b'somebody', partition=int(sys.argv[3]))
assert producer.flush(30) == 0
";

const BROWSER: (&str, &str) = ("User-Agent", CHROME);

/// What is parked of the clicks' consumer: state and id by reason.
fn parked(data: &Path) -> BTreeMap<String, (String, String)> {
    let csv = testkit::system::command(data, &["parked", "list", "--format", "csv"]);
    let rows = columns(&csv, ["consumer", "reason", "state", "id"]).into_iter();
    let of_clicks = rows.filter(|[consumer, ..]| consumer == "clicks");
    let by_reason = of_clicks.map(|[_, reason, state, id]| (reason, (state, id)));
    by_reason.collect()
}

/// The demo with more affiliates.
fn catalog_with(affiliates: &[&str]) -> String {
    let more = affiliates
        .iter()
        .map(|name| format!("\n[affiliate.{name}]\n"));
    format!("{}{}", catalog::DEMO, more.collect::<String>())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The clicks that a report counts of boots, waited for.
#[track_caller]
fn until_clicks(system: &System, clicks: usize) {
    let start = format!("\nboots,{clicks},{clicks},");
    wait::until(&format!("{clicks} clicks are counted"), BOUND, || {
        system.report("offer").contains(&start)
    });
}

#[test]
fn a_version_that_came_late_cost_the_clicks_that_name_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    System::start(&data, &[]).stop();
    let (mut running, address, _) = up(edge(&data), &folder.path().join("edge"));
    let headers = [("Host", "go.northpeak.example"), BROWSER];
    assert_eq!(
        http::get(address, "/fall-boots", &headers).unwrap().status,
        302
    );
    assert!(running.terminate(BOUND).unwrap().success());
    // The version it names is away when it is folded, as on a machine that it was not brought to yet.
    let file = data.join("demo/catalog.toml");
    fs::write(&file, catalog_with(&["ridgewalk"])).unwrap();
    testkit::system::command(&data, &["catalog", "apply", file.to_str().unwrap()]);
    let snapshot = data.join("catalog/1.snapshot");
    let away = folder.path().join("away");
    fs::rename(&snapshot, &away).unwrap();

    let system = System::start(&data, &[]);
    let agent = format!("{CHROME} 2");
    system.get("/fall-boots", &[("User-Agent", &agent)]);
    until_clicks(&system, 1);
    wait::until("the other one waits", BOUND, || {
        parked(&data)
            .get("catalog_version")
            .is_some_and(|(state, _)| state == "waits")
    });
    fs::rename(&away, &snapshot).unwrap();
    until_clicks(&system, 2);
    assert_eq!(parked(&data), BTreeMap::new());
    let said = system.command(&["parked", "fold", "--all"]);
    assert_eq!(said.trim(), "nothing is parked");
    system.stop();
}

/// An installation with a catalog's file of its own.
struct Installation {
    root: PathBuf,
    data: PathBuf,
}

impl Installation {
    fn file(&self) -> PathBuf {
        self.root.join("etc/catalog.toml")
    }

    fn change(&self, affiliates: &[&str]) {
        fs::write(self.file(), catalog_with(affiliates)).unwrap();
    }

    /// What the next version would be with these affiliates: its folder of versions, number and hash.
    fn next(&self, name: &str, affiliates: &[&str]) -> (PathBuf, u32, u64) {
        let (etc, versions) = (self.root.join(name), self.root.join(name).join("catalog"));
        copy(&self.root.join("etc"), &etc);
        copy(&self.data.join("catalog"), &versions);
        let file = etc.join("catalog.toml");
        fs::write(&file, catalog_with(affiliates)).unwrap();
        let applied = catalog::apply(&file, &versions, "unused", Removes::Few).unwrap();
        (versions, applied.catalog.version, applied.catalog.hash)
    }

    fn is_in_force(&self, version: u32) -> bool {
        let current = fs::read_to_string(self.data.join("catalog/current")).unwrap();
        current.trim() == version.to_string()
    }
}

#[test]
fn one_event_that_could_not_be_folded_stopped_its_partition() {
    let test = "one_event_that_could_not_be_folded_stopped_its_partition";
    let folder = tempfile::tempdir().unwrap();
    let Some(python) = on_kafka::python(test) else {
        return;
    };
    let Some(broker) = on_kafka::broker(test, folder.path()) else {
        return;
    };
    let it = Installation {
        root: folder.path().to_owned(),
        data: folder.path().join("data"),
    };
    fs::create_dir(folder.path().join("etc")).unwrap();
    fs::write(
        folder.path().join("etc/northpeak.secret"),
        "only for this test",
    )
    .unwrap();
    it.change(&[]);
    let (file, address) = (it.file(), broker.address());
    let arguments = ["--catalog", file.to_str().unwrap(), "--kafka", &address];
    let system = System::start(&it.data, &arguments);
    system.get("/fall-boots", &[BROWSER]);
    until_clicks(&system, 1);

    // Another machine numbered a second version for itself; here the second and the third are others.
    let (others, two, others_hash) = it.next("others", &["ridgewalk"]);
    it.change(&["gearhub"]);
    wait::until("the second version is in force", BOUND, || {
        it.is_in_force(2)
    });
    let (_, three, third_hash) = it.next("third", &["gearhub", "snowline"]);
    assert_eq!((two, three), (2, 3));

    let kafka = on_kafka::connect(&broker);
    let is_click = |record: &&Record| {
        record.kind == Kind::Click as u16
            && Click::decode(&*record.value).unwrap().class() == Class::Browser
    };
    let records = on_kafka::records(&kafka, CLICKS, |records| {
        records.iter().any(|record| is_click(&record))
    });
    let base = records.iter().find(is_click).unwrap();
    let ours = StreamId::random();
    let click = |n: u64, of: Option<(u32, u64)>| {
        let mut click = Click::decode(&*base.value).unwrap();
        click.key = Some(ClickKey {
            time_ms: base.time_ms + n,
            stream: u32::from_be_bytes(ours.0[..4].try_into().unwrap()),
            sequence: u32::try_from(n).unwrap(),
        });
        click.visitor = n;
        if let Some((version, hash)) = of {
            (click.catalog_version, click.catalog_hash) = (version, hash);
        }
        Record {
            origin: ours,
            n,
            time_ms: base.time_ms + n,
            value: click.encode_to_vec(),
            ..base.clone()
        }
    };
    let mut undecodable = click(1, None);
    undecodable.value = vec![0xff; 9];
    let mut unknown = click(2, None);
    unknown.kind = UNKNOWN_KIND;
    let of_another = click(3, Some((two, others_hash)));
    let of_nobody = click(4, Some((three, third_hash)));
    on_kafka::send(
        &kafka,
        CLICKS,
        &[undecodable, unknown, of_another, of_nobody],
    );
    let partition = u16::from(base.lane) % on_kafka::PARTITIONS;
    let sent = Command::new(&python)
        .args(["-c", FOREIGN, &address, CLICKS, &partition.to_string()])
        .output()
        .unwrap();
    assert!(sent.status.success(), "{sent:?}");
    on_kafka::send(&kafka, CLICKS, &[click(5, None)]);

    // The partition goes on, and each keeps its reason.
    until_clicks(&system, 2);
    let reasons = parked(&it.data);
    let states: Vec<(&str, &str)> = reasons
        .iter()
        .map(|(reason, (state, _))| (reason.as_str(), state.as_str()))
        .collect();
    let expected = [
        ("catalog_hash", "set aside"),
        ("catalog_version", "waits"),
        ("foreign", "set aside"),
        ("undecodable", "set aside"),
        ("unknown_type", "set aside"),
    ];
    assert_eq!(states, expected);
    for (reason, state) in expected {
        let total = format!("sluice_parked_total{{consumer=\"clicks\",reason=\"{reason}\"}}");
        let expected = if state == "waits" { 0.0 } else { 1.0 };
        assert_eq!(metric(&system, &total), Some(expected), "{reason}");
    }
    let until_aside = |count: f64| {
        wait::until("the metric says how many are set aside", BOUND, || {
            metric(&system, "sluice_parked{consumer=\"clicks\"}") == Some(count)
        });
    };
    until_aside(4.0);

    // The version comes by itself.
    it.change(&["gearhub", "snowline"]);
    wait::until("the third version is in force", BOUND, || it.is_in_force(3));
    until_clicks(&system, 3);
    assert!(!parked(&it.data).contains_key("catalog_version"));

    // Nothing that is asked for too early is lost: fraud has parked three of them too.
    let said = system.command(&["parked", "fold", "--all"]);
    assert!(
        said.starts_with("0 of 7 parked events folded, 7 still cannot be folded"),
        "{said}"
    );
    let right = it.data.join("catalog/young");
    fs::copy(others.join("2.snapshot"), &right).unwrap();
    fs::rename(&right, it.data.join("catalog/2.snapshot")).unwrap();
    let said = system.command(&["parked", "fold", "--all"]);
    assert!(
        said.starts_with("1 of 7 parked events folded, 6 still cannot be folded"),
        "{said}"
    );
    until_clicks(&system, 4);
    until_aside(3.0);

    let (_, id) = &reasons["undecodable"];
    let said = system.command(&["parked", "drop", "--id", id]);
    assert_eq!(said.trim(), format!("event {id} is forgotten"));
    until_aside(2.0);
    let again = Command::new(bin("sluice"))
        .args(["parked", "drop", "--id", id, "--data"])
        .arg(&it.data)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(2), "{said}");
    assert!(
        said.contains(&format!("nothing is parked under id {id}")),
        "{said}"
    );
    let left: Vec<String> = parked(&it.data).into_keys().collect();
    assert_eq!(left, ["foreign", "unknown_type"]);
    system.stop();
}
