//! Whether every answered click is counted once, and everything that is said of it agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use domain::event::Conversion;
use domain::{Keyring, Target, Token};
use prost::Message;
use testkit::wait;

use super::cluster::Cluster;
use super::stored::{Stored, StoredClick};
use super::streamed::Streamed;
use super::{LAST, SUB_CHARS};
use crate::ledger::{self, Answers};
use crate::{generate, index};

/// Most mistakes that are printed.
const PRINTED_MAX: usize = 20;

/// Whether the last click is in the report and nothing waits in any outbox. Asked again and again until it is so.
pub(super) fn is_quiet(cluster: &mut Cluster) -> bool {
    wait::pass(Duration::from_secs(1));
    cluster.books.settled()
        && Stored::read(cluster).is_ok_and(|stored| stored.clicks.contains_key(LAST))
}

/// Whether the last event of an order says what the store holds. Words that were about another goal of it raise its number.
fn is_state(latest: &[u8], stored: &[u8]) -> bool {
    let state = |bytes| {
        let conversion = Conversion::decode(bytes).ok()?;
        Some(Conversion {
            change: 0,
            ..conversion.into_state()
        })
    };
    state(latest).is_some_and(|latest| Some(latest) == state(stored))
}

/// What went wrong.
#[derive(Default)]
struct Found {
    lost: u64,
    double: u64,
    /// Everything, in words; what is lost or double too.
    wrong: Vec<String>,
}

/// Ends the system, compares, and prints what was found; the last line says it all.
pub(super) fn print(
    cluster: &mut Cluster,
    ledger: &Path,
    faults: u32,
    journals_filled: bool,
) -> Result<(), Box<dyn Error>> {
    cluster.end()?;
    let answers = ledger::read(ledger)?;
    let tokens = opened(cluster, ledger)?;
    let stored = Stored::read(cluster)?;
    let streamed = Streamed::read(cluster)?;

    let mut found = Found::default();
    found.clicks_are_stored(&answers, &tokens, &stored);
    found.clicks_are_streamed(&tokens, &stored, &streamed);
    found.sales_are_conversions(&answers, &stored, &streamed);
    found.outboxes_agree(&stored, &streamed);
    found.report_agrees(cluster, &stored)?;
    found.ledger_holds(cluster, &answers, &tokens, &streamed)?;
    if !journals_filled && answers.clicks.len() > tokens.len() {
        let unrecorded = answers.clicks.len() - tokens.len();
        found.wrong(format!(
            "{unrecorded} clicks got no token though no journal's disk was full"
        ));
    }
    found.wrong.extend(streamed.wrong);

    for text in found.wrong.iter().take(PRINTED_MAX) {
        println!("wrong: {text}");
    }
    println!("sales and conversions {}", stored.orders.len());
    println!("flags {}", stored.flags.len());
    println!(
        "faults {faults} clicks {} lost {} double {} wrong {}",
        tokens.len(),
        found.lost,
        found.double,
        found.wrong.len()
    );
    if found.wrong.is_empty() {
        return Ok(());
    }
    Err("the promise is broken".into())
}

/// The tokens of the answered clicks.
fn opened(cluster: &Cluster, ledger: &Path) -> Result<BTreeMap<String, Token>, Box<dyn Error>> {
    let keys = std::fs::read_to_string(cluster.data().join("keys/tokens.key"))?;
    let keyring = Keyring::parse(&keys)?;
    let mut tokens = BTreeMap::new();
    for (ext, token) in ledger::tokens(ledger)? {
        let token = keyring
            .open(token.as_bytes())
            .map_err(|refused| format!("{ext}: its token does not open: {refused:?}"))?;
        tokens.insert(ext, token);
    }
    Ok(tokens)
}

impl Found {
    fn wrong(&mut self, text: String) {
        self.wrong.push(text);
    }

    /// Every answered click is in the index once, as it was sent and under what its token says; nothing else is.
    fn clicks_are_stored(
        &mut self,
        answers: &Answers,
        tokens: &BTreeMap<String, Token>,
        stored: &Stored,
    ) {
        for (ext, token) in tokens {
            match stored.clicks.get(ext).map(Vec::as_slice) {
                None | Some([]) => {
                    self.lost += 1;
                    self.wrong(format!("{ext} was answered and is not in the index"));
                }
                Some([click]) => {
                    if let Some(difference) = difference(ext, token, click) {
                        self.wrong(format!("{ext}: {difference}"));
                    }
                }
                Some([_, _, ..]) => {}
            }
        }
        let doubtful: BTreeSet<&str> = answers
            .clicks_unanswered
            .iter()
            .map(String::as_str)
            .collect();
        let mut in_doubt = 0_u64;
        for (ext, clicks) in &stored.clicks {
            if clicks.len() > 1 {
                self.double += 1;
                self.wrong(format!("{ext} is in the index more than once"));
            }
            if doubtful.contains(ext.as_str()) {
                in_doubt += 1;
            } else if answers.clicks.contains_key(ext) && !tokens.contains_key(ext) {
                self.wrong(format!(
                    "{ext} was answered without a token and is in the index"
                ));
            } else if !tokens.contains_key(ext) && ext != LAST {
                self.wrong(format!("{ext} is in the index and was never sent"));
            }
        }
        println!(
            "clicks in doubt and counted {in_doubt} of {}, answered without a token {}",
            doubtful.len(),
            answers.clicks.len() - tokens.len()
        );
    }

    /// Every answered click is in the topic, under one identity and as the index has it; nothing else is.
    fn clicks_are_streamed(
        &mut self,
        tokens: &BTreeMap<String, Token>,
        stored: &Stored,
        streamed: &Streamed,
    ) {
        for ext in tokens.keys() {
            if !streamed.clicks.contains_key(ext) {
                self.wrong(format!("{ext} was answered and is not in the topic"));
            }
        }
        for (ext, events) in &streamed.clicks {
            if events.len() > 1 {
                self.wrong(format!(
                    "{ext} has {} identities in the topic",
                    events.len()
                ));
            }
            match stored.clicks.get(ext).map(Vec::as_slice) {
                None | Some([]) => self.wrong(format!("{ext} is in the topic, not in the index")),
                Some([click, ..]) => {
                    if events.values().any(|event| *event != click.digest) {
                        self.wrong(format!("{ext} is another in the topic than in the index"));
                    }
                }
            }
        }
    }

    /// Every approved sale is one conversion; nothing else is.
    fn sales_are_conversions(&mut self, answers: &Answers, stored: &Stored, streamed: &Streamed) {
        let mut conversions: BTreeMap<&str, u32> = BTreeMap::new();
        for ((_, order, _), event) in &stored.orders {
            if Conversion::decode(&**event).is_ok_and(|conversion| !conversion.after.is_empty()) {
                *conversions.entry(order).or_default() += 1;
            }
        }
        for (order, status) in &answers.postbacks {
            match conversions.get(order.as_str()) {
                Some(1) => {}
                Some(_) => self.wrong(format!("sale {order} is more than one conversion")),
                None => self.wrong(format!("sale {order} got {status} and is no conversion")),
            }
            if !streamed.postbacks.contains(order) {
                self.wrong(format!("sale {order} got {status} and is not in the topic"));
            }
        }
        for order in conversions.keys() {
            let known = answers.postbacks.contains_key(*order)
                || answers
                    .postbacks_unanswered
                    .iter()
                    .any(|sent| sent == order);
            if !known {
                self.wrong(format!("conversion {order} was never sent"));
            }
        }
    }

    /// What the topics say last of an order and of a click's flags is what the store has.
    fn outboxes_agree(&mut self, stored: &Stored, streamed: &Streamed) {
        for (order, event) in &stored.orders {
            match streamed.conversions.get(order) {
                None => self.wrong(format!("order {order:?} is not in the topic")),
                Some((_, latest)) if !is_state(latest, event) => {
                    self.wrong(format!(
                        "order {order:?} is another in the topic than stored"
                    ));
                }
                Some(_) => {}
            }
        }
        for order in streamed.conversions.keys() {
            if !stored.orders.contains_key(order) {
                self.wrong(format!("order {order:?} is in the topic, not in the store"));
            }
        }
        for flag in &stored.flags {
            if !streamed.signals.contains_key(flag) {
                self.wrong(format!("flag {flag:?} is not in the topic"));
            }
        }
        for (flag, identities) in &streamed.signals {
            if !stored.flags.contains(flag) {
                self.wrong(format!("flag {flag:?} is in the topic, not in the store"));
            }
            if identities.len() > 1 {
                self.wrong(format!("flag {flag:?} was said {} times", identities.len()));
            }
        }
    }

    /// The books held in every scrape, and at the end they agree with the answers, the topics and the journals' files.
    fn ledger_holds(
        &mut self,
        cluster: &Cluster,
        answers: &Answers,
        tokens: &BTreeMap<String, Token>,
        streamed: &Streamed,
    ) -> Result<(), Box<dyn Error>> {
        let books = &cluster.books;
        self.wrong.extend_from_slice(&books.wrong);
        let [_, appended, unrecorded, _, dead, lost, waiting] = books.sums();
        println!(
            "ledger in {} scrapes: appended {appended} unrecorded {unrecorded} dead {dead} lost {lost} waiting {waiting}",
            books.scrapes
        );
        if appended == 0 || dead + lost + waiting > 0 {
            self.wrong("the ledger says that not everything is delivered".to_owned());
        }
        if appended != streamed.recorded {
            self.wrong(format!(
                "{appended} records were appended, the topics have {}",
                streamed.recorded
            ));
        }
        // What got no answer may have been recorded or not; a postback that was asked to come again, too.
        let certain = (answers.clicks.len() - tokens.len()) as u64;
        let in_doubt = answers.clicks_unanswered.len() as u64 + answers.postbacks_again;
        if !(certain..=certain + in_doubt).contains(&unrecorded) {
            self.wrong(format!(
                "{certain} clicks got no token, {in_doubt} requests are in doubt, {unrecorded} are unrecorded"
            ));
        }
        for journal in std::fs::read_dir(cluster.data().join("journal"))? {
            let journal = journal?.path();
            let journal = journal.to_str().ok_or("the folder's name is not text")?;
            if let Err(said) = cluster.sluice(&["journal", "verify", journal]) {
                self.wrong(format!("journal verify: {said}"));
            }
        }
        Ok(())
    }

    /// The rollups have every click and every conversion.
    fn report_agrees(&mut self, cluster: &Cluster, stored: &Stored) -> Result<(), Box<dyn Error>> {
        let data = cluster.data();
        let data = data.to_str().ok_or("the folder's name is not text")?;
        let report = cluster.sluice(&["report", "--by", "", "--format", "csv", "--data", data])?;
        let reported = index::reported(&report)?;
        let clicks: usize = stored.clicks.values().map(Vec::len).sum();
        let counted = (clicks, stored.orders.len());
        if reported != counted {
            self.wrong(format!(
                "clicks and conversions are {reported:?} in the report, {counted:?} in index and orders"
            ));
        }
        Ok(())
    }
}

/// How a click of the index differs from what was sent and from its token.
fn difference(ext: &str, token: &Token, click: &StoredClick) -> Option<String> {
    if click.key != token.click {
        return Some(format!(
            "its key is {:?}, its token says {:?}",
            click.key, token.click
        ));
    }
    let named = match token.target {
        Target::Offer(offer, affiliate) => (offer.get(), affiliate.get()),
        Target::Link(link) => return Some(format!("its token names link {link:?}")),
    };
    let counted = (click.offer, click.affiliate);
    if counted != named {
        return Some(format!("counted for {counted:?}, its token says {named:?}"));
    }
    // A click that was sent again has the sub ids of its first try.
    let first = ext.split('.').next().unwrap_or(ext);
    if click.subs != generate::subs(first, SUB_CHARS) {
        return Some(format!("its sub ids are {:?}", click.subs));
    }
    None
}
