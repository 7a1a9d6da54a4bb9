//! A number that is missing for good, in a running system: listed, given up by a person, and what waited behind it is counted.

use domain::event::{Click, ClickKey};
use prost::Message;
use stream::{Record, StreamId};
use testkit::{System, wait};

use crate::on_kafka::{self, CLICKS};
use crate::{BOUND, CHROME};

#[test]
fn clicks_behind_a_number_that_nobody_owes_any_more_waited_for_ever() {
    let test = "clicks_behind_a_number_that_nobody_owes_any_more_waited_for_ever";
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = on_kafka::broker(test, folder.path()) else {
        return;
    };
    let system = System::start(&folder.path().join("data"), &["--kafka", &broker.address()]);
    system.get("/fall-boots", &[("User-Agent", CHROME)]);
    let counts = |clicks: u64| {
        let start = format!("\nboots,{clicks},{clicks},");
        system.report("offer").contains(&start)
    };
    wait::until("the first click is counted", BOUND, || counts(1));
    let kafka = on_kafka::connect(&broker);
    let is_click = |record: &Record| record.kind == domain::event::Kind::Click as u16;
    let records = on_kafka::records(&kafka, CLICKS, |records| records.iter().any(is_click));
    let base = records.iter().find(|record| is_click(record)).unwrap();

    // A machine that burnt: its second and third click came, the first never will.
    let burnt = StreamId::random();
    let click = |n: u64| {
        let mut click = Click::decode(&*base.value).unwrap();
        click.key = Some(ClickKey {
            time_ms: base.time_ms + n,
            stream: burnt.prefix(),
            sequence: u32::try_from(n).unwrap(),
        });
        click.visitor = n;
        Record {
            origin: burnt,
            n,
            time_ms: base.time_ms + n,
            value: click.encode_to_vec(),
            ..base.clone()
        }
    };
    on_kafka::send(&kafka, CLICKS, &[click(2), click(3)]);
    let list = || system.command(&["gaps", "list"]);
    let (burnt, lane) = (burnt.to_string(), base.lane.to_string());
    let expected = format!("topic {CLICKS} stream {burnt} lane {lane} numbers 1 to 1");
    wait::until("both readers of the topic wait", BOUND, || {
        list().matches(&expected).count() == 2
    });
    assert!(counts(1));

    let give_up = ["gaps", "give-up", "--topic", CLICKS, "--lane", &lane];
    let give_up = [&give_up[..], &["--stream", &burnt]].concat();
    let said = system.command(&give_up);
    assert!(said.ends_with("numbers 1 to 1 are given up\n"), "{said}");
    wait::until("what waited is counted", BOUND, || counts(3));
    wait::until("nothing is missing", BOUND, || {
        list() == "no numbers are missing\n"
    });
    system.stop();
}
