//! Whether everything that is said of what was sent is true, and agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use domain::event::{Click, Conversion, Status};
use domain::{ClickKey, Keyring, Target, Token, Topic};
use prost::Message;

use super::availability::{self, Window};
use super::cluster::{Cluster, MACHINES, Machine, text};
use super::last;
use super::load::{Ledger, PATIENCE, Said, Sent};
use super::model::{self, Counted, Expected, Numbers, Paid};
use super::stored::Stored;
use super::streamed::Streamed;
use super::visits::{self, Kind, Visit, Visits};
use super::walk::{self, Walked};
use crate::index;

/// Most mistakes of each kind that are printed.
const PRINTED_MAX: usize = 20;

/// How long a stream may go on by a clock that was set back.
const CLOCK_KEPT_MAX: Duration = Duration::from_secs(5);

/// How long before such a step a worker may have looked at its clock last: each looks once a second.
const LAST_LOOK_MAX: Duration = Duration::from_millis(1_500);

/// Between two processes that read one clock in turn.
const CLOCK_SLACK_MS: u64 = 20;

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
    /// Everything, in words, by what it is about; what is lost or double too.
    wrong: BTreeMap<&'static str, Vec<String>>,
}

/// Ends the system, compares, and prints what was found; the last line says it all.
pub(super) fn print(
    cluster: &mut Cluster,
    ledger: &Ledger,
    windows: &[Window],
    faults: u32,
    journals_filled: bool,
) -> Result<(), Box<dyn Error>> {
    let mut found = Found::default();
    let is_answered = |sent: &Sent| {
        let status = ledger.visits.visit(sent.number).kind.status();
        sent.answered
            .is_some_and(|(found, at)| found == status && at <= sent.due + PATIENCE)
    };
    fs::write(
        cluster.catalog().join("../availability.csv"),
        availability::seconds(&ledger.sent, is_answered),
    )?;
    let (table, dark) = availability::judge(windows, &ledger.sent, is_answered);
    print!("{table}");
    found.all("availability", dark);

    cluster.end()?;
    let names = Names::read(&cluster.catalog().join("catalog.lock"))?;
    let stored = Stored::read(cluster, |click| difference(&ledger.visits, &names, click))?;
    let streamed = Streamed::read(cluster)?;
    let visits = found.visits(cluster, ledger, &names, &streamed)?;

    found.clicks_are_stored(&visits, &stored);
    found.clicks_are_streamed(&visits, &stored, &streamed);
    let paid = found.sales_are_conversions(ledger, &names, &visits, &stored, &streamed);
    found.outboxes_agree(&stored, &streamed, cluster.store_rolled_back);
    found.times_are_true(cluster, ledger, &visits, &streamed);
    let counted: Vec<Counted> = visits.values().filter_map(Seen::counted).collect();
    let mut expected = Expected::of(&counted, &paid);
    // The last wave is not of the generator; that it was counted was waited for.
    let last = stored
        .cells
        .iter()
        .filter(|(cell, _)| cell.affiliate == names.last);
    let last = last.map(|(cell, sums)| (cell.clone(), *sums));
    expected.cells.extend(last);
    let last = streamed.clicks.get("").into_iter().flatten();
    let last: BTreeSet<ClickKey> = last.map(|(_, (key, _))| *key).collect();
    let flags = stored
        .flags
        .iter()
        .filter(|(click, _)| last.contains(click));
    expected.flags.extend(flags);
    found.all("cells", model::differences(&expected.cells, &stored.cells));
    found.labels_are_true(&expected, &stored);
    found.report_agrees(cluster, &expected)?;
    found.ledger_holds(cluster, ledger, &visits, &streamed, journals_filled)?;
    found.all(
        "parts that had to be started again",
        cluster.revived.clone(),
    );
    found.all("topics", streamed.wrong);

    for (about, texts) in &found.wrong {
        for text in texts.iter().take(PRINTED_MAX) {
            println!("wrong, {about}: {text}");
        }
        if texts.len() > PRINTED_MAX {
            println!("wrong, {about}: {} more", texts.len() - PRINTED_MAX);
        }
    }
    let tokens = visits.values().filter(|seen| seen.token.is_some()).count();
    println!(
        "cells {}, labels {}",
        stored.cells.len(),
        stored.flags.len()
    );
    println!(
        "sales {}, conversions paid {}",
        ledger.said.len(),
        paid.len()
    );
    println!(
        "faults {faults} clicks {tokens} lost {} double {} wrong {}",
        found.lost,
        found.double,
        found.wrong.values().map(Vec::len).sum::<usize>()
    );
    if found.wrong.is_empty() {
        return Ok(());
    }
    Err("the promise is broken".into())
}

/// A visit with everything that is known of it.
struct Seen<'a> {
    sent: &'a Sent,
    visit: Visit,
    numbers: Numbers,
    token: Option<Token>,
    /// What it is known by, where it was recorded: by its token, else by the topic.
    key: Option<ClickKey>,
}

impl Seen<'_> {
    fn counted(&self) -> Option<Counted> {
        Some(Counted {
            key: self.key?,
            kind: self.visit.kind,
            visitor: self.visit.visitor,
            numbers: self.numbers,
        })
    }

    /// Whether it belongs in the index of clicks.
    fn is_click(&self) -> bool {
        !matches!(self.visit.kind, Kind::Prefetch | Kind::Unknown)
    }
}

/// By what clicks carry.
type Visited<'a> = BTreeMap<String, Seen<'a>>;

/// The number behind each name, as catalog.lock has it.
struct Names {
    offers: BTreeMap<String, u32>,
    affiliates: BTreeMap<String, u32>,
    links: BTreeMap<String, u64>,
    outsider: u32,
    last: u32,
}

impl Names {
    fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        let lock: toml::Table = fs::read_to_string(path)?.parse()?;
        let table = |name: &str| -> BTreeMap<String, u64> {
            let entries = lock.get(name).and_then(toml::Value::as_table);
            let entries = entries.into_iter().flatten();
            let number = |value: &toml::Value| u64::try_from(value.as_integer()?).ok();
            entries
                // The slug stands behind the numbers of its affiliate and offer.
                .filter_map(|(name, value)| {
                    Some((name.rsplit('.').next()?.to_owned(), number(value)?))
                })
                .collect()
        };
        let small = |name| -> BTreeMap<String, u32> {
            let names = table(name).into_iter();
            names
                .filter_map(|(name, number)| Some((name, u32::try_from(number).ok()?)))
                .collect()
        };
        let affiliates = small("affiliate");
        let of = |name| {
            affiliates
                .get(name)
                .copied()
                .ok_or("an affiliate has no number")
        };
        Ok(Self {
            outsider: of(visits::OUTSIDER)?,
            last: of(visits::LAST)?,
            offers: small("offer"),
            links: table("link"),
            affiliates,
        })
    }

    fn of(&self, visit: &Visit) -> Numbers {
        let named = visit.named;
        if visit.kind == Kind::Unknown {
            return Numbers::default();
        }
        let affiliate = match visit.kind {
            Kind::Outsider => self.outsider,
            _ => self.affiliates[&visits::affiliate_name(named.affiliate)],
        };
        Numbers {
            offer: self.offers[&visits::offer_name(named.offer)],
            affiliate,
            link: named
                .link
                .map_or(0, |link| self.links[&visits::link_name(link)]),
        }
    }
}

/// How a click of the index differs from what was sent.
fn difference(visits: &Visits, names: &Names, click: &Click) -> Option<String> {
    let number = visits.number(&click.ext)?;
    let visit = visits.visit(number);
    let numbers = names.of(&visit);
    let found = (
        (click.offer, click.affiliate, click.link),
        &*click.user_agent,
        &*click.network,
        [
            &click.sub1,
            &click.sub2,
            &click.sub3,
            &click.sub4,
            &click.sub5,
        ]
        .map(|sub| &**sub),
    );
    let sub = |at: usize| visit.subs.get(at).map_or("", |sub| &**sub);
    let sent = (
        (numbers.offer, numbers.affiliate, numbers.link),
        &*visit.user_agent,
        &*visit.network,
        [0, 1, 2, 3, 4].map(sub),
    );
    (found != sent).then(|| format!("it is stored as {found:?}, and was sent as {sent:?}"))
}

impl Found {
    fn wrong(&mut self, about: &'static str, text: String) {
        self.wrong.entry(about).or_default().push(text);
    }

    fn all(&mut self, about: &'static str, texts: Vec<String>) {
        if !texts.is_empty() {
            self.wrong.entry(about).or_default().extend(texts);
        }
    }

    /// Puts together what is known of each visit.
    fn visits<'a>(
        &mut self,
        cluster: &Cluster,
        ledger: &'a Ledger,
        names: &Names,
        streamed: &Streamed,
    ) -> Result<Visited<'a>, Box<dyn Error>> {
        let keys = fs::read_to_string(cluster.data(0).join("keys/tokens.key"))?;
        let keyring = Keyring::parse(&keys)?;
        let mut visited = Visited::new();
        for sent in &ledger.sent {
            let visit = ledger.visits.visit(sent.number);
            let (ext, kind) = (visit.ext.clone(), visit.kind);
            if let Some((status, _)) = sent.answered
                && status != kind.status()
            {
                self.wrong("answers", format!("{ext} ({kind:?}) got {status}"));
            }
            if sent.token.is_some() && !kind.has_token() {
                self.wrong("answers", format!("{ext} ({kind:?}) got a token"));
            }
            let token = sent
                .token
                .as_ref()
                .map(|token| keyring.open(token.as_bytes()));
            let token = match token {
                Some(Err(refused)) => {
                    self.wrong(
                        "answers",
                        format!("{ext}: its token does not open: {refused:?}"),
                    );
                    None
                }
                Some(Ok(token)) => Some(token),
                None => None,
            };
            let numbers = names.of(&visit);
            let named = token.map(|token| match token.target {
                Target::Offer(offer, affiliate) => (offer.get(), affiliate.get(), 0),
                Target::Link(link) => (numbers.offer, numbers.affiliate, link.get()),
            });
            let sent_to = (numbers.offer, numbers.affiliate, numbers.link);
            if named.is_some_and(|named| named != sent_to) {
                self.wrong(
                    "answers",
                    format!("{ext} is of {sent_to:?}, its token of {named:?}"),
                );
            }
            let in_topic = streamed
                .clicks
                .get(&ext)
                .and_then(|events| events.values().next());
            let key = token
                .map(|token| token.click)
                .or(in_topic.map(|(key, _)| *key));
            let seen = Seen {
                sent,
                visit,
                numbers,
                token,
                key,
            };
            visited.insert(ext, seen);
        }
        Ok(visited)
    }

    /// Every recorded click is in the index once, as it was sent and under its key; nothing else is.
    fn clicks_are_stored(&mut self, visits: &Visited<'_>, stored: &Stored) {
        for (ext, seen) in visits {
            let Some(key) = seen.key.filter(|_| seen.is_click()) else {
                continue;
            };
            match stored.clicks.get(ext).map(Vec::as_slice) {
                None | Some([]) => {
                    self.lost += 1;
                    self.wrong(
                        "index",
                        format!("{ext} was recorded and is not in the index"),
                    );
                }
                Some([click]) => {
                    if click.key != key {
                        let text = format!("{ext} has the key {}, its token says {key}", click.key);
                        self.wrong("index", text);
                    }
                    if let Some(difference) = &click.difference {
                        self.wrong("index", format!("{ext}: {difference}"));
                    }
                }
                Some([_, _, ..]) => {
                    self.double += 1;
                    self.wrong("index", format!("{ext} is in the index more than once"));
                }
            }
        }
        for ext in stored.clicks.keys().filter(|ext| !ext.is_empty()) {
            let seen = visits.get(ext);
            if !seen.is_some_and(|seen| seen.is_click() && seen.key.is_some()) {
                self.wrong(
                    "index",
                    format!("{ext} is in the index and was not sent as a click"),
                );
            }
        }
    }

    /// Every answered visit is in the topic, under one identity, its key and as the index has it; nothing else is.
    fn clicks_are_streamed(&mut self, visits: &Visited<'_>, stored: &Stored, streamed: &Streamed) {
        for (ext, seen) in visits.iter().filter(|(_, seen)| seen.token.is_some()) {
            match streamed
                .clicks
                .get(ext)
                .and_then(|events| events.values().next())
            {
                None => {
                    self.lost += 1;
                    self.wrong(
                        "topic",
                        format!("{ext} has a token and is not in the topic"),
                    );
                }
                Some((key, _)) if Some(*key) != seen.key => {
                    self.wrong(
                        "topic",
                        format!("{ext} has the key {key}, its token {:?}", seen.key),
                    );
                }
                Some(_) => {}
            }
        }
        for (ext, events) in streamed.clicks.iter().filter(|(ext, _)| !ext.is_empty()) {
            if events.len() > 1 {
                let text = format!("{ext} has {} identities in the topic", events.len());
                self.wrong("topic", text);
            }
            let Some(seen) = visits.get(ext) else {
                self.wrong("topic", format!("{ext} is in the topic and was never sent"));
                continue;
            };
            let clicks = stored.clicks.get(ext).map_or(&[][..], Vec::as_slice);
            let differs = |click: &super::stored::StoredClick| {
                events.values().any(|(_, digest)| *digest != click.digest)
            };
            if seen.is_click() && clicks.iter().any(differs) {
                self.wrong(
                    "topic",
                    format!("{ext} is another in the topic than in the index"),
                );
            }
        }
    }

    /// Every accepted word is in the topic, every order that stands approved is one conversion; nothing else is. What is paid.
    fn sales_are_conversions(
        &mut self,
        ledger: &Ledger,
        names: &Names,
        visits: &Visited<'_>,
        stored: &Stored,
        streamed: &Streamed,
    ) -> Vec<Paid> {
        let mut conversions: BTreeMap<&str, u32> = BTreeMap::new();
        for ((_, order, _), event) in &stored.orders {
            if Conversion::decode(&**event).is_ok_and(|conversion| !conversion.after.is_empty()) {
                *conversions.entry(order).or_default() += 1;
            }
        }
        let status_of = |said: &Said| match said.status {
            "reversed" => Status::Reversed as i32,
            _ => Status::Approved as i32,
        };
        for said in &ledger.said {
            let order = ledger.visits.visit(said.number).ext;
            let words = streamed
                .postbacks
                .get(&order)
                .map_or(&[][..], Vec::as_slice);
            let heard = words.iter().any(|word| word.status == status_of(said));
            if said.accepted && !heard {
                self.lost += 1;
                let text = format!("{order} {} got 200 and is not in the topic", said.status);
                self.wrong("sales", text);
            }
            if !said.accepted {
                let text = format!(
                    "{order} {} was not taken for a minute and a half",
                    said.status
                );
                self.wrong("sales", text);
            }
        }
        let mut paid = Vec::new();
        for (order, words) in &streamed.postbacks {
            if order.starts_with(last::ORDER) {
                continue;
            }
            let seen = visits.get(order);
            let Some((seen, sale)) = seen.and_then(|seen| Some((seen, seen.visit.sale?))) else {
                self.wrong(
                    "sales",
                    format!("{order} is in the topic and was never sent"),
                );
                continue;
            };
            let reversed = words
                .iter()
                .any(|word| word.status == Status::Reversed as i32);
            let must = u32::from(!reversed);
            let is = conversions.get(&**order).copied().unwrap_or_default();
            if is != must {
                self.wrong(
                    "sales",
                    format!("{order} is {is} conversions, must be {must}"),
                );
            }
            let first = words.iter().map(|word| word.key).min();
            if let Some(first) = first.filter(|_| !reversed) {
                paid.push(Paid {
                    time_ms: first.time_ms,
                    numbers: names.of(&seen.visit),
                    worth: sale.worth(seen.visit.named.offer),
                });
            }
        }
        for order in conversions.keys() {
            if !streamed.postbacks.contains_key(*order) {
                self.wrong("sales", format!("conversion {order} was never posted back"));
            }
        }
        paid
    }

    /// What the topics say last of an order and of a click's flags is what the store has.
    fn outboxes_agree(&mut self, stored: &Stored, streamed: &Streamed, rolled_back: bool) {
        for (order, event) in &stored.orders {
            match streamed.conversions.get(order) {
                None => self.wrong("outbox", format!("order {order:?} is not in the topic")),
                Some((_, latest)) if !is_state(latest, event) => {
                    let text = format!("order {order:?} is another in the topic than stored");
                    self.wrong("outbox", text);
                }
                Some(_) => {}
            }
        }
        for order in streamed.conversions.keys() {
            if !stored.orders.contains_key(order) {
                let text = format!("order {order:?} is in the topic, not in the store");
                self.wrong("outbox", text);
            }
        }
        for (click, reason) in &stored.flags {
            if !streamed.signals.contains_key(&(*click, *reason)) {
                let text = format!("flag {reason} of {click} is not in the topic");
                self.wrong("outbox", text);
            }
        }
        for ((click, reason), identities) in &streamed.signals {
            if !stored.flags.contains(&(*click, *reason)) {
                let text = format!("flag {reason} of {click} is in the topic, not in the store");
                self.wrong("outbox", text);
            }
            if identities.len() > 1 && !rolled_back {
                let text = format!(
                    "flag {reason} of {click} was said {} times",
                    identities.len()
                );
                self.wrong("outbox", text);
            }
        }
    }

    /// Every record has the time of the machine that took it.
    fn times_are_true(
        &mut self,
        cluster: &Cluster,
        ledger: &Ledger,
        visits: &Visited<'_>,
        streamed: &Streamed,
    ) {
        let clocks = Clocks::of(cluster, ledger);
        for (ext, seen) in visits {
            let Some(key) = seen.key else { continue };
            let sent = seen.sent;
            let until = sent.answered.map_or(sent.sent + PATIENCE, |(_, at)| at);
            if !clocks.says(sent.edge, key.time_ms, sent.sent, until) {
                let [from, to] = [sent.sent, until].map(|at| ledger.at_ms(at));
                let text = format!(
                    "{ext} is of {}, was sent at {from} and answered by {to}",
                    key.time_ms
                );
                self.wrong("times", text);
            }
        }
        for said in &ledger.said {
            let order = ledger.visits.visit(said.number).ext;
            for word in streamed.postbacks.get(&order).into_iter().flatten() {
                // Of the first word or of the one that takes it back, by whichever edge.
                let of_order = ledger
                    .said
                    .iter()
                    .filter(|other| other.number == said.number);
                let mut times = of_order.map(|said| (said.first_sent, said.last_ended));
                let is_true = times.any(|(from, until)| {
                    MACHINES
                        .iter()
                        .any(|machine| clocks.says(*machine, word.key.time_ms, from, until))
                });
                if !is_true {
                    let text = format!("a word of {order} is of {}", word.key.time_ms);
                    self.wrong("times", text);
                }
            }
        }
    }

    fn labels_are_true(&mut self, expected: &Expected, stored: &Stored) {
        for (click, reason) in expected.flags.difference(&stored.flags) {
            self.wrong(
                "labels",
                format!("{click} must be flagged {reason} and is not"),
            );
        }
        for (click, reason) in stored.flags.difference(&expected.flags) {
            self.wrong(
                "labels",
                format!("{click} is flagged {reason} and must not be"),
            );
        }
    }

    /// The report adds the cells up.
    fn report_agrees(
        &mut self,
        cluster: &Cluster,
        expected: &Expected,
    ) -> Result<(), Box<dyn Error>> {
        let data = cluster.data(0);
        let by = ["report", "--by", "", "--format", "csv", "--data"];
        let report = cluster.sluice(&[&by[..], &[text(&data)?]].concat())?;
        let reported = index::reported(&report)?;
        let sum = |names: &[&str]| -> i128 {
            let of = |sums: &model::Sums| -> i128 {
                let named = model::SUMS.iter().zip(sums);
                let named = named.filter(|(name, _)| names.contains(name));
                named.map(|(_, sum)| sum).sum()
            };
            expected.cells.values().map(of).sum()
        };
        let must = (
            sum(&["clicks", "anonymous", "invalid"]),
            sum(&["conversions"]),
        );
        if (reported.0 as i128, reported.1 as i128) != must {
            let text = format!("gross clicks and conversions are {reported:?}, must be {must:?}");
            self.wrong("report", text);
        }
        Ok(())
    }

    /// The books held in every scrape, and at the end they agree with the answers, the topics and a walk of the journals.
    fn ledger_holds(
        &mut self,
        cluster: &Cluster,
        ledger: &Ledger,
        visits: &Visited<'_>,
        streamed: &Streamed,
        journals_filled: bool,
    ) -> Result<(), Box<dyn Error>> {
        let books = &cluster.books;
        self.all("ledger", books.wrong.clone());
        let [_, appended, unrecorded, _, dead, lost, waiting] = books.sums();
        println!(
            "ledger in {} scrapes: appended {appended} unrecorded {unrecorded} dead {dead} lost {lost} waiting {waiting}",
            books.scrapes
        );
        if appended == 0 || dead + lost + waiting > 0 {
            self.wrong(
                "ledger",
                "it says that not everything is delivered".to_owned(),
            );
        }
        // Answered, and nowhere: what needs a token got none.
        let nowhere = |seen: &&Seen<'_>| seen.sent.answered.is_some() && seen.key.is_none();
        let certain = visits.values().filter(nowhere).count() as u64;
        let unanswered = ledger.sent.iter().filter(|sent| sent.answered.is_none());
        let again: u64 = ledger.said.iter().map(|said| said.in_doubt).sum();
        let in_doubt = unanswered.count() as u64 + again;
        println!("visits answered and not recorded {certain}, requests in doubt {in_doubt}");
        if !(certain..=certain + in_doubt).contains(&unrecorded) {
            let text = format!(
                "{certain} visits were answered and not recorded, {in_doubt} requests are in doubt, {unrecorded} are unrecorded"
            );
            self.wrong("ledger", text);
        }
        if certain > 0 && !journals_filled {
            let text =
                format!("{certain} visits were not recorded though no journal's disk was full");
            self.wrong("ledger", text);
        }
        self.walk(cluster, streamed)
    }

    /// What the files hold is what the books say of each journal, and what the topics have.
    fn walk(&mut self, cluster: &Cluster, streamed: &Streamed) -> Result<(), Box<dyn Error>> {
        let mut held: BTreeMap<Topic, BTreeSet<_>> = BTreeMap::new();
        let mut ended = BTreeSet::new();
        for machine in MACHINES {
            let data = cluster.data(machine);
            for journal in fs::read_dir(data.join("journal"))? {
                let journal = journal?;
                let name = journal.file_name().to_string_lossy().into_owned();
                // What else lies on a volume is no journal.
                if name.parse::<u16>().is_err() {
                    continue;
                }
                let walked = Walked::read(&journal.path())?;
                let place = format!("machine {machine}, journal {name}");
                let books = cluster.books.journals.get(&(machine, name.clone()));
                let appended = books.map(|sums| sums[1]);
                if appended != Some(walked.records()) {
                    let text = format!(
                        "{place}: its files hold {} records, the ledger says {appended:?}",
                        walked.records()
                    );
                    self.wrong("walk", text);
                }
                let cursors = ["clicks", "postbacks"]
                    .map(|topic| data.join("cursors").join(format!("{name}.{topic}.cursor")));
                let delivered = cursors.map(|path| Some(walk::delivered(&fs::read(path).ok()?)));
                let sum: Option<u64> = delivered.into_iter().map(Option::flatten).sum();
                if sum != Some(walked.records()) {
                    let text = format!(
                        "{place}: its files hold {} records, its cursors say that {sum:?} are delivered",
                        walked.records()
                    );
                    self.wrong("walk", text);
                }
                ended.extend(walked.ended().map(stream::StreamId));
                self.all("walk", walked.wrong);
                for file in walked.quarantined {
                    self.wrong("walk", format!("{place}: {file} is there"));
                }
                for (topic, identities) in walked.identities {
                    held.entry(topic).or_default().extend(identities);
                }
                let folder = journal.path();
                if let Err(said) = cluster.sluice(&["journal", "verify", text(&folder)?]) {
                    self.wrong("walk", format!("journal verify: {said}"));
                }
            }
            for letters in fs::read_dir(data.join("dead-letters"))? {
                let letters = letters?;
                let name = letters.file_name();
                // What else lies on a volume is no folder of letters.
                if name.to_string_lossy().contains('.') {
                    let text = format!("machine {machine} has dead letters: {name:?}");
                    self.wrong("walk", text);
                }
            }
        }
        for topic in [Topic::Clicks, Topic::Postbacks] {
            let [held, sent] =
                [&held, &streamed.identities].map(|of| of.get(&topic).cloned().unwrap_or_default());
            for identity in held.difference(&sent) {
                let text = format!(
                    "{identity:?} of {} is in a journal, not in the topic",
                    topic.name()
                );
                self.wrong("walk", text);
            }
            for identity in sent.difference(&held) {
                let text = format!(
                    "{identity:?} of {} is in the topic, in no journal",
                    topic.name()
                );
                self.wrong("walk", text);
            }
        }
        if ended != streamed.ended {
            let text = format!(
                "{} streams ended in journals, {} in topics",
                ended.len(),
                streamed.ended.len()
            );
            self.wrong("walk", text);
        }
        Ok(())
    }
}

/// What each machine's clock said, and when.
struct Clocks {
    /// Machine, from and until (since the start of the load), milliseconds off.
    spans: Vec<(Machine, Duration, Duration, i64)>,
    started_ms: u64,
}

impl Clocks {
    fn of(cluster: &Cluster, ledger: &Ledger) -> Self {
        let mut spans: Vec<(Machine, Duration, Duration, i64)> = Vec::new();
        for machine in MACHINES {
            spans.push((machine, Duration::ZERO, Duration::MAX, 0));
        }
        for step in cluster.clock.iter().flat_map(|clock| &clock.steps) {
            let at = step.at.saturating_duration_since(ledger.started);
            let mut before = spans.iter_mut().rev();
            if let Some(before) = before.find(|span| span.0 == step.machine) {
                before.2 = at;
            }
            spans.push((step.machine, at, Duration::MAX, step.seconds * 1000));
        }
        Self {
            spans,
            started_ms: ledger.started_ms,
        }
    }

    /// Whether a machine's clock may have told this time between two moments.
    fn says(&self, machine: Machine, time_ms: u64, from: Duration, until: Duration) -> bool {
        let spans = self.spans.iter().filter(|(of, ..)| *of == machine);
        let mut kept = spans.filter(|(_, begins, ends, _)| {
            *begins <= until && ends.saturating_add(CLOCK_KEPT_MAX) >= from
        });
        kept.any(|(_, begins, ends, off)| {
            let at = |moment: Duration| {
                let since = u64::try_from(moment.as_millis()).unwrap_or(u64::MAX);
                (self.started_ms + since).saturating_add_signed(*off)
            };
            // When the clock is set back, a stream's time stands still where its worker looked last.
            let last_look = ends.saturating_sub(LAST_LOOK_MAX);
            let first = at(from.max(*begins).min(last_look.max(*begins)));
            let last = at(until.min(*ends));
            (first - CLOCK_SLACK_MS..=last + CLOCK_SLACK_MS).contains(&time_ms)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_true_by_the_clock_of_then_and_not_by_another() {
        let seconds = Duration::from_secs;
        let clocks = Clocks {
            spans: vec![
                (0, seconds(0), seconds(10), 0),
                (0, seconds(10), seconds(20), 7_200_000),
                (0, seconds(20), Duration::MAX, 0),
            ],
            started_ms: 1_790_000_000_000,
        };
        for (time_s, from_s, until_s, expected) in [
            (5, 5, 6, true),
            (4, 5, 6, false),
            (7, 5, 6, false),
            (7_215, 15, 15, true),
            (15, 15, 15, false),
            // The stream stands still for a moment.
            (7_220, 21, 22, true),
            (7_222, 21, 22, false),
            (22, 21, 22, true),
            (7_220, 30, 31, false),
        ] {
            let time_ms = clocks.started_ms + time_s * 1000;
            let found = clocks.says(0, time_ms, seconds(from_s), seconds(until_s));
            assert_eq!(found, expected, "{time_s} {from_s}");
        }
        assert!(!clocks.says(1, clocks.started_ms, seconds(0), seconds(1)));
    }
}
