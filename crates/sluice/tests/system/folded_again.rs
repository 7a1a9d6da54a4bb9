//! The same journals folded again, in other batches, and with every record twice, give the same store, byte for byte.

use std::fs;
use std::path::Path;

use testkit::{System, http, system};

use crate::{CHROME, demo_secret, token};

/// Clicks of some visitors on two offers, sales, a repeat, a reversal, a forgery, a prefetch, a bot, a lost link.
fn traffic(system: &System, data: &Path) {
    let secret = demo_secret(data);
    for number in 0..200 {
        let agent = format!("{CHROME} {}", number % 23);
        let offer = ["boots", "tents"][number % 2];
        let target = format!("/c?offer={offer}&aff=trailblog&sub1={number}");
        let mut headers = vec![("User-Agent", agent.as_str())];
        match number % 17 {
            3 => headers.push(("Sec-Purpose", "prefetch")),
            5 => headers[0].1 = "Mozilla/5.0 (compatible; bingbot/2.0)",
            _ => {}
        }
        let click = system.get(&target, &headers);
        if number % 17 == 3 {
            assert_eq!(click.status, 503);
            continue;
        }
        if number % 5 == 0 {
            let token = token(&click, ["npk", "sl"][number % 2]);
            let order = number / 10;
            for rest in [
                format!("order={order}&goal=sale&amount={number}.50"),
                format!("order={order}&goal=sale&amount=1&secret={secret}"),
                format!("order={order}&goal=sale&amount={number}.50&secret={secret}"),
                format!("order={order}&goal=sale&amount=x&secret={secret}"),
            ] {
                system.get(&format!("/postback?token={token}&{rest}"), &[]);
            }
            if number % 3 == 0 {
                let reversed = format!("order={order}&goal=sale&status=reversed&secret={secret}");
                system.get(&format!("/postback?token={token}&{reversed}"), &[]);
            }
        }
    }
    system.get("/lost", &[]);
    let wrong_host = [("Host", "elsewhere.example")];
    http::get(system.edge, "/", &wrong_host).unwrap();
}

fn dump(data: &Path) -> String {
    system::command(data, &["dump-store"])
}

#[track_caller]
fn assert_same(again: &str, first: &str) {
    for (line, (again, first)) in (1..).zip(again.lines().zip(first.lines())) {
        assert_eq!(again, first, "line {line}");
    }
    assert_eq!(again.lines().count(), first.lines().count());
}

#[test]
fn in_other_batches_and_with_every_record_twice() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let system = System::start(&data, &[]);
    traffic(&system, &data);
    system.stop();
    let first = dump(&data);
    assert!(first.lines().count() > 200, "{first}");

    // Everything after the journals is thrown away, and made again from them in transactions of seven records.
    let settings = folder.path().join("sluice.toml");
    fs::write(&settings, "[stream]\nbatch_records_max = 7\n").unwrap();
    let small = ["--settings", settings.to_str().unwrap()];
    forget(&data, &["stream", "cursors"]);
    let system = System::start(&data, &small);
    system.stop();
    assert_same(&dump(&data), &first);

    // The cursors alone are lost: the whole journals are sent again behind what the stream holds.
    for arguments in [&small[..], &[]] {
        forget(&data, &["cursors"]);
        let system = System::start(&data, arguments);
        system.stop();
        assert_same(&dump(&data), &first);
    }

    // Sent again by hand, into what is there.
    for journal in fs::read_dir(data.join("journal")).unwrap() {
        let journal = journal.unwrap().path();
        let said = system::command(&data, &["journal", "replay", journal.to_str().unwrap()]);
        assert!(said.ends_with("all sent\n"), "{said}");
    }
    let system = System::start(&data, &[]);
    system.stop();
    assert_same(&dump(&data), &first);
}

fn forget(data: &Path, folders: &[&str]) {
    for name in folders {
        fs::remove_dir_all(data.join(name)).unwrap();
    }
    for end in ["", "-wal", "-shm"] {
        let path = data.join(format!("store.sqlite{end}"));
        if path.exists() {
            fs::remove_file(path).unwrap();
        }
    }
}
