//! What a load generator wrote down of the answers, compared with what the store holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use domain::event::Click;
use domain::{ClickKey, Keyring};
use prost::Message;
use testkit::system;

/// How much was answered.
pub(crate) struct Answered {
    pub(crate) clicks: usize,
    pub(crate) orders: usize,
}

/// Answers so far.
pub(crate) fn answered(ledger: &Path) -> usize {
    fs::read_to_string(ledger)
        .unwrap_or_default()
        .lines()
        .count()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// The keys in the click index under each request's own id.
pub(crate) fn counted(data: &Path) -> BTreeMap<String, Vec<ClickKey>> {
    let mut counted: BTreeMap<String, Vec<ClickKey>> = BTreeMap::new();
    for line in system::command(data, &["dump-store"]).lines() {
        // clicks_20261120 x'<key>' x'<facts>'
        let blobs: Vec<&str> = line.split('\'').collect();
        if line.starts_with("clicks_") {
            let key = bytes(blobs[1]).try_into().expect("a key has 16 bytes");
            let click = Click::decode(&*bytes(blobs[3])).expect("a click");
            let keys = counted.entry(click.ext).or_default();
            keys.push(ClickKey::from_bytes(key));
        }
    }
    counted
}

/// Checks that a store holds every answered click once, every answered sale once, and nothing that was never sent.
#[track_caller]
pub(crate) fn check(data: &Path, ledger: &Path) -> Answered {
    let counted = counted(data);
    let keys = fs::read_to_string(data.join("keys/tokens.key")).unwrap();
    let keyring = Keyring::parse(&keys).unwrap();
    let (mut clicks, mut orders) = (0, 0);
    for line in fs::read_to_string(ledger).unwrap().lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["postback", order, status] => {
                assert_eq!(status, "200", "{order}");
                orders += 1;
            }
            [ext, token, status] => {
                assert_eq!(status, "302", "{ext}");
                let token = keyring.open(token.as_bytes()).expect("our own token");
                // Once, and under the key that its token carries: that is how a sale finds it.
                assert_eq!(counted.get(ext), Some(&vec![token.click]), "{ext}");
                clicks += 1;
            }
            _ => panic!("not a ledger's line: {line}"),
        }
    }
    let mut path = ledger.as_os_str().to_owned();
    path.push(".unanswered");
    let unanswered = fs::read_to_string(path).unwrap();
    let mut in_doubt = 0;
    for ext in unanswered.lines().filter(|line| !line.contains('\t')) {
        assert!(counted.get(ext).is_none_or(|keys| keys.len() == 1), "{ext}");
        in_doubt += usize::from(counted.contains_key(ext));
    }
    let total: usize = counted.values().map(Vec::len).sum();
    assert_eq!(total, clicks + in_doubt, "and nothing else");

    let report = system::command(data, &["report", "--format", "csv", "--by", ""]);
    let row: Vec<&str> = report.lines().nth(1).expect("a row").split(',').collect();
    assert_eq!(row[0], total.to_string(), "gross: {report}");
    assert_eq!(row[6], orders.to_string(), "conversions: {report}");
    Answered { clicks, orders }
}
