//! The ledger: what the server has answered, written down before the next request is sent. What stands here must be in the
//! report once; what stands in `<ledger>.unanswered` was sent and may be there once or not at all.
//!
//! Lines: `<ext>⇥<token>⇥<status>` for a click (`-` where there is no token), `postback⇥<order>⇥<status>` for a postback.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A ledger that is being written; connections share it.
#[derive(Debug)]
pub(crate) struct Ledger {
    answered: Mutex<File>,
    unanswered: Mutex<File>,
}

impl Ledger {
    /// A new ledger; one that exists is evidence of another run and never written over.
    pub(crate) fn create(path: &Path) -> Result<Ledger, String> {
        let create = |path: &Path| {
            OpenOptions::new()
                .append(true)
                .create_new(true)
                .open(path)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => format!(
                        "{} is the ledger of another run: name a new one with --ledger",
                        path.display()
                    ),
                    _ => format!("{}: {error}", path.display()),
                })
        };
        Ok(Ledger {
            answered: Mutex::new(create(path)?),
            unanswered: Mutex::new(create(&unanswered_path(path))?),
        })
    }

    /// A click was answered.
    pub(crate) fn click(&self, ext: &str, token: Option<&str>, status: u16) -> io::Result<()> {
        let token = token.unwrap_or("-");
        append(&self.answered, &format!("{ext}\t{token}\t{status}\n"))
    }

    /// A postback was answered.
    pub(crate) fn postback(&self, order: &str, status: u16) -> io::Result<()> {
        append(&self.answered, &format!("postback\t{order}\t{status}\n"))
    }

    /// A click was sent and the connection broke before its answer.
    pub(crate) fn click_unanswered(&self, ext: &str) -> io::Result<()> {
        append(&self.unanswered, &format!("{ext}\n"))
    }

    /// A postback was sent and the connection broke before its answer.
    pub(crate) fn postback_unanswered(&self, order: &str) -> io::Result<()> {
        append(&self.unanswered, &format!("postback\t{order}\n"))
    }
}

/// One write a line, unbuffered: the line is in the file when this returns, also when the generator is killed then.
fn append(file: &Mutex<File>, line: &str) -> io::Result<()> {
    file.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .write_all(line.as_bytes())
}

fn unanswered_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".unanswered");
    PathBuf::from(name)
}

/// A ledger that was read back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// The status of every answered click by its ext.
    pub(crate) clicks: BTreeMap<String, u16>,
    /// The last status of every answered postback by its order.
    pub(crate) postbacks: BTreeMap<String, u16>,
    /// Postbacks that were asked to come again (503), each time.
    pub(crate) postbacks_again: u64,
    /// Clicks that were sent and not answered.
    pub(crate) clicks_unanswered: Vec<String>,
    /// Postbacks that were sent and never answered, not even when sent again.
    pub(crate) postbacks_unanswered: Vec<String>,
}

/// Reads a ledger and its list of unanswered requests.
pub(crate) fn read(path: &Path) -> Result<Answers, Box<dyn Error>> {
    let text = |path: &Path| {
        fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    parse(&text(path)?, &text(&unanswered_path(path))?)
        .map_err(|error| format!("{}: {error}", path.display()).into())
}

/// The tokens of the clicks that were redirected, by their ext.
pub(crate) fn tokens(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let tokens = text.lines().filter_map(|line| {
        let mut fields = line.split('\t');
        let (ext, token) = (fields.next()?, fields.next()?);
        (ext != "postback" && token != "-").then(|| (ext.to_owned(), token.to_owned()))
    });
    Ok(tokens.collect())
}

fn parse(answered: &str, unanswered: &str) -> Result<Answers, String> {
    let mut answers = Answers::default();
    for (index, line) in answered.lines().enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [first, second, status] = fields[..] else {
            return Err(format!("line {}: not three fields", index + 1));
        };
        let status: u16 = status
            .parse()
            .map_err(|_| format!("line {}: the status is not a number", index + 1))?;
        if first == "postback" {
            answers.postbacks_again += u64::from(status == 503);
            answers.postbacks.insert(second.to_owned(), status);
        } else if answers.clicks.insert(first.to_owned(), status).is_some() {
            return Err(format!("line {}: {first} was answered twice", index + 1));
        }
    }
    for line in unanswered.lines() {
        match line.split_once('\t') {
            Some((_, order)) if answers.postbacks.contains_key(order) => {}
            Some((_, order)) => answers.postbacks_unanswered.push(order.to_owned()),
            None => answers.clicks_unanswered.push(line.to_owned()),
        }
    }
    answers.postbacks_unanswered.dedup();
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = Ledger::create(&path).unwrap();
        ledger.click("r1", Some("token"), 302).unwrap();
        ledger.click_unanswered("r2").unwrap();
        ledger.click("r2.2", None, 404).unwrap();
        ledger.postback_unanswered("r1").unwrap();
        ledger.postback("r1", 503).unwrap();
        ledger.postback("r1", 200).unwrap();
        ledger.postback_unanswered("r9").unwrap();

        let answers = read(&path).unwrap();
        assert_eq!(
            answers.clicks,
            BTreeMap::from([("r1".into(), 302), ("r2.2".into(), 404)])
        );
        assert_eq!(answers.postbacks, BTreeMap::from([("r1".into(), 200)]));
        assert_eq!(answers.postbacks_again, 1);
        assert_eq!(answers.clicks_unanswered, ["r2"]);
        assert_eq!(answers.postbacks_unanswered, ["r9"]);

        assert!(Ledger::create(&path).unwrap_err().contains("another run"));
    }

    #[test]
    fn a_broken_ledger_is_named_by_its_line() {
        for (text, expected) in [
            ("r1\tt\n", "line 1: not three fields"),
            ("r1\tt\tx\n", "line 1: the status is not a number"),
            ("r1\tt\t302\nr1\tt\t302\n", "line 2: r1 was answered twice"),
        ] {
            assert_eq!(parse(text, "").unwrap_err(), expected);
        }
    }
}
