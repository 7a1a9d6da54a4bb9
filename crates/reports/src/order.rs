//! What became of an order, and of each word about it: under names, as text and as JSON.

use std::fmt::Write;

use catalog::Catalog;
use domain::event::{Candidate, Conversion, Line, Match, Postback, Reason, Rule, Status, Trust};
use domain::{ClickKey, Micros};
use jiff::Timestamp;
use prost::Message;
use serde_json::{Value, json};
use store::{LoggedPostback, OrderKey, Sender, View};

use crate::error::Kind;
use crate::query::unknown;
use crate::{Error, Result, names};

/// How many words are shown of an order, by who said them. Of those that nobody vouched for enough to see that something comes.
const SHOWN_MAX: [(Sender, u32); 3] = [
    (Sender::Advertiser, store::TRUSTED_MAX),
    (Sender::Operator, u32::MAX),
    (Sender::Stranger, 16),
];

/// Which order is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderQuery {
    /// By its advertiser's name and its id as the advertiser sends it; one without an id by `token:…`, as lists show it.
    Order {
        /// The advertiser's name.
        advertiser: String,
        /// The order.
        order: String,
    },
    /// By the `id` in the answer to a postback about it.
    Postback(String),
}

/// An order with everything that is known of it.
#[derive(Debug)]
pub struct OrderReport {
    advertiser: u32,
    order: String,
    goals: Vec<Conversion>,
    words: Vec<Word>,
}

/// A word about an order, and what became of it.
#[derive(Debug)]
struct Word {
    at: ClickKey,
    postback: Postback,
    /// One event for each goal that it was about; none for a word that is not believed.
    events: Vec<Conversion>,
}

/// Looks an order up; `None` when nobody ever said anything of it.
///
/// # Errors
///
/// When the store cannot be read, or the question cannot be understood.
pub fn order(view: &View, catalog: &Catalog, query: &OrderQuery) -> Result<Option<OrderReport>> {
    let Some(key) = find(view, catalog, query)? else {
        return Ok(None);
    };
    let goals = conversions(view, &key)?;
    let mut words = Vec::new();
    for (sender, shown_max) in SHOWN_MAX {
        for logged in view.postbacks(&key, sender, shown_max)? {
            words.push(word(&logged)?);
        }
    }
    words.sort_by_key(|word| word.at);
    if goals.is_empty() && words.is_empty() {
        return Ok(None);
    }
    Ok(Some(OrderReport {
        advertiser: key.advertiser,
        order: key.order,
        goals,
        words,
    }))
}

/// What the store keeps an order under; `None` when nobody ever said anything of it.
///
/// # Errors
///
/// When the store cannot be read, or the catalog has no such advertiser.
pub fn order_key(
    view: &View,
    catalog: &Catalog,
    advertiser: &str,
    order: &str,
) -> Result<Option<OrderKey>> {
    // Also one that is gone: its orders are not.
    let mut advertisers = catalog.names.advertisers.iter();
    let number = advertisers.find(|(_, name)| *name == advertiser);
    let (number, _) = number.ok_or_else(|| {
        let known = catalog.names.advertisers.values().map(|name| &**name);
        unknown("advertiser", advertiser, "is not in the catalog", known)
    })?;
    let order = order.trim();
    // As lists show it, or as the advertiser sends it.
    for order in [order.to_owned(), domain::order::key(order, &[], "")] {
        let key = OrderKey {
            advertiser: number.get(),
            order,
        };
        for (sender, _) in SHOWN_MAX {
            if !view.postbacks(&key, sender, 1)?.is_empty() {
                return Ok(Some(key));
            }
        }
    }
    Ok(None)
}

/// The goals of an order that a sale was reported for.
///
/// # Errors
///
/// When the store cannot be read.
pub fn goals(view: &View, key: &OrderKey) -> Result<Vec<String>> {
    let goals = conversions(view, key)?.into_iter();
    Ok(goals.map(|conversion| conversion.goal).collect())
}

fn conversions(view: &View, key: &OrderKey) -> Result<Vec<Conversion>> {
    view.conversions_of(&key.order)?
        .into_iter()
        .filter(|(found, _)| found.advertiser == key.advertiser)
        .map(|(_, bytes)| decode(&bytes))
        .collect()
}

fn find(view: &View, catalog: &Catalog, query: &OrderQuery) -> Result<Option<OrderKey>> {
    match query {
        OrderQuery::Order { advertiser, order } => order_key(view, catalog, advertiser, order),
        OrderQuery::Postback(id) => {
            let at = ClickKey::parse(id)
                .ok_or_else(|| Error::parameter("id", "is not the id of an answer"))?;
            Ok(view.postback(at)?.map(|logged| logged.order))
        }
    }
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M> {
    M::decode(bytes).map_err(|source| Error::new(Kind::Event(source)))
}

fn word(logged: &LoggedPostback) -> Result<Word> {
    let mut rest = logged.outcome.as_slice();
    let mut events = Vec::new();
    while !rest.is_empty() {
        let event = Conversion::decode_length_delimited(&mut rest)
            .map_err(|source| Error::new(Kind::Event(source)))?;
        events.push(event);
    }
    Ok(Word {
        at: logged.at,
        postback: decode(&logged.bytes)?,
        events,
    })
}

impl OrderReport {
    /// For people.
    pub fn text(&self, catalog: &Catalog) -> String {
        let mut text = format!(
            "order {} of {}\n",
            plain(&self.order),
            names::advertiser(catalog, self.advertiser)
        );
        if self.goals.is_empty() {
            text.push_str("  no sale of it is known: what only changes an order waits for one\n");
        }
        for conversion in &self.goals {
            goal(&mut text, catalog, conversion);
        }
        text.push_str("  history\n");
        for word in &self.words {
            word.print(&mut text, catalog, &self.goals);
        }
        text
    }

    /// For programs.
    pub fn json(&self, catalog: &Catalog) -> Value {
        let goals = self.goals.iter().map(|conversion| {
            let candidates = conversion.candidates.iter();
            json!({
                "goal": conversion.goal,
                "status": status(conversion.status()),
                "reason": reason(conversion.reason),
                "change": conversion.change,
                "time": time(conversion.time_ms),
                "changed": time(conversion.changed_ms),
                "offer": names::offer(catalog, conversion.offer),
                "affiliate": names::affiliate(catalog, conversion.affiliate),
                "link": (conversion.link != 0).then(|| names::link(catalog, conversion.link)),
                "click": conversion.click.as_ref().map(|key| ClickKey::from(key).to_string()),
                "facts": facts(conversion),
                "matched": matched(conversion),
                "amount": money(conversion.amount_micros, &conversion.currency),
                "revenue": money(conversion.revenue_micros, &conversion.revenue_currency),
                "payout": money(conversion.payout_micros, &conversion.payout_currency),
                "rates_of_catalog_version": conversion.catalog_version,
                "counts": lines(catalog, &conversion.after),
                "candidates": candidates
                    .map(|candidate| {
                        json!({
                            "click": candidate.click.as_ref().map(|key| ClickKey::from(key).to_string()),
                            "offer": names::offer(catalog, candidate.offer),
                            "affiliate": names::affiliate(catalog, candidate.affiliate),
                            "credited": candidate.credited,
                            "rule": rule(candidate, conversion),
                        })
                    })
                    .collect::<Vec<_>>(),
            })
        });
        let history = self
            .words
            .iter()
            .map(|word| word.json(catalog, &self.goals));
        json!({
            "advertiser": names::advertiser(catalog, self.advertiser),
            "order": self.order,
            "goals": goals.collect::<Vec<_>>(),
            "history": history.collect::<Vec<_>>(),
        })
    }
}

fn goal(text: &mut String, catalog: &Catalog, conversion: &Conversion) {
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "  goal {}, change {}",
        plain(&conversion.goal),
        conversion.change
    );
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{}", format!("    {name:<11}{value}").trim_end());
    };
    let why = match reason(conversion.reason) {
        Some(reason) => format!(" ({reason})"),
        None => String::new(),
    };
    line("status", &format!("{}{why}", status(conversion.status())));
    line("time", &time(conversion.time_ms));
    line("changed", &time(conversion.changed_ms));
    line("offer", &names::offer(catalog, conversion.offer));
    line(
        "affiliate",
        &match conversion.r#match() {
            Match::Operator => format!(
                "{} (set by hand)",
                names::affiliate(catalog, conversion.affiliate)
            ),
            _ => names::affiliate(catalog, conversion.affiliate),
        },
    );
    if conversion.link != 0 {
        line("link", &names::link(catalog, conversion.link));
    }
    line(
        "click",
        &conversion
            .click
            .as_ref()
            .map_or("none".to_owned(), |key| click(key.into())),
    );
    line(
        "facts",
        match facts(conversion) {
            "none" => "none: no click is credited",
            "pending" => "pending: credited by its token, the click itself has not arrived",
            complete => complete,
        },
    );
    let amounts = [
        ("amount", conversion.amount_micros, &conversion.currency),
        (
            "revenue",
            conversion.revenue_micros,
            &conversion.revenue_currency,
        ),
        (
            "payout",
            conversion.payout_micros,
            &conversion.payout_currency,
        ),
    ];
    for (name, micros, currency) in amounts {
        let value = money(micros, currency).unwrap_or_else(|| "none".to_owned());
        line(name, &value);
    }
    line(
        "rates",
        &format!(
            "of catalog version {}, in force when the first word of the order came",
            conversion.catalog_version
        ),
    );
    line(
        "paid",
        if conversion.after.is_empty() {
            "no: it does not count in reports"
        } else {
            "yes: it counts in reports"
        },
    );
    line(
        "candidates",
        if conversion.candidates.is_empty() {
            "none"
        } else {
            ""
        },
    );
    for candidate in &conversion.candidates {
        let mut of = format!(
            "{} by {}",
            names::offer(catalog, candidate.offer),
            names::affiliate(catalog, candidate.affiliate)
        );
        if candidate.link != 0 {
            let _ = write!(of, " through {}", names::link(catalog, candidate.link));
        }
        let _ = writeln!(
            text,
            "      {} {}\n        {of}: {}",
            if candidate.credited { "+" } else { "-" },
            candidate
                .click
                .as_ref()
                .map_or("no click".to_owned(), |key| click(key.into())),
            rule(candidate, conversion)
        );
    }
}

impl Word {
    fn print(&self, text: &mut String, catalog: &Catalog, goals: &[Conversion]) {
        let postback = &self.postback;
        let mut asked = self.asked();
        for (name, value) in [
            ("goal", &postback.goal_text),
            ("token", &postback.token_text),
        ] {
            if !value.is_empty() {
                let _ = write!(asked, " {name}={}", plain(value));
            }
        }
        if let Some(seq) = postback.seq {
            let _ = write!(asked, " seq={seq}");
        }
        if let Some(time_us) = postback.said_us {
            let _ = write!(asked, " time={}", time_of_us(time_us));
        }
        if postback.credit_affiliate != 0 {
            let affiliate = names::affiliate(catalog, postback.credit_affiliate);
            let _ = write!(asked, " affiliate={affiliate}");
        }
        let _ = writeln!(
            text,
            "    {} {} {}: {asked}",
            time(self.at.time_ms),
            self.at,
            self.speaker()
        );
        for outcome in self.outcomes(goals) {
            let _ = writeln!(text, "      {outcome}");
        }
    }

    /// Status and amount, as far as it says them.
    fn asked(&self) -> String {
        match (self.postback.status(), self.amount()) {
            // A dash before an amount reads as a minus.
            (Status::Unspecified, Some(amount)) => amount,
            (Status::Unspecified, None) => "no status".to_owned(),
            (said, Some(amount)) => format!("{} {amount}", status(said)),
            (said, None) => status(said).to_owned(),
        }
    }

    fn speaker(&self) -> String {
        match self.postback.trust() {
            Trust::Server => "advertiser".to_owned(),
            Trust::Browser => "browser".to_owned(),
            Trust::None => "somebody without the secret".to_owned(),
            Trust::Operator => format!(
                "{} ({})",
                plain(&self.postback.adjusted_by),
                plain(&self.postback.note)
            ),
        }
    }

    fn amount(&self) -> Option<String> {
        let postback = &self.postback;
        if postback.has_amount {
            return money(postback.amount_micros, &postback.currency);
        }
        (!postback.amount_text.is_empty()).then(|| plain(&postback.amount_text))
    }

    fn outcomes(&self, goals: &[Conversion]) -> Vec<String> {
        if let Some(reason) = reason(self.postback.reason) {
            return vec![format!("not believed: {reason}")];
        }
        if self.events.is_empty() {
            return vec!["not believed: nobody vouched for it".to_owned()];
        }
        let events = self.events.iter().map(|event| {
            let goal = match event.goal.as_str() {
                "" => String::new(),
                goal => format!("{}: ", plain(goal)),
            };
            if waited(event, goals) {
                let lacked = reason(event.outcome).unwrap_or_default();
                return format!("{goal}waited ({lacked}); it counts since that came");
            }
            if event.repeat {
                let why = reason(event.outcome).unwrap_or_else(|| "repeat".to_owned());
                return format!("{goal}changed nothing ({why})");
            }
            let was = match event.was() {
                Status::Unspecified => "new".to_owned(),
                was => format!("{}{}", status(was), counted(&event.before)),
            };
            format!(
                "{goal}{was} -> {}{}",
                status(event.status()),
                counted(&event.after)
            )
        });
        events.collect()
    }

    fn json(&self, catalog: &Catalog, goals: &[Conversion]) -> Value {
        let postback = &self.postback;
        let outcomes = self.events.iter().map(|event| {
            json!({
                "goal": (!event.goal.is_empty()).then_some(&event.goal),
                "was": (event.was() != Status::Unspecified).then(|| status(event.was())),
                "is": (event.status() != Status::Unspecified).then(|| status(event.status())),
                "repeat": event.repeat,
                "waited": waited(event, goals),
                "reason": reason(event.outcome),
                "change": event.change,
                "before": lines(catalog, &event.before),
                "after": lines(catalog, &event.after),
            })
        });
        json!({
            "id": self.at.to_string(),
            "time": time(self.at.time_ms),
            "trust": match postback.trust() {
                Trust::None => "none",
                Trust::Browser => "browser",
                Trust::Server => "server",
                Trust::Operator => "operator",
            },
            "asked": {
                "status": (postback.status() != Status::Unspecified).then(|| status(postback.status())),
                "amount": self.amount(),
                "goal": (!postback.goal_text.is_empty()).then_some(&postback.goal_text),
                "affiliate": (postback.credit_affiliate != 0)
                    .then(|| names::affiliate(catalog, postback.credit_affiliate)),
                "seq": postback.seq,
                "time": postback.said_us.map(time_of_us),
            },
            "by": (!postback.adjusted_by.is_empty()).then_some(&postback.adjusted_by),
            "note": (!postback.note.is_empty()).then_some(&postback.note),
            "reason": reason(postback.reason),
            "outcome": outcomes.collect::<Vec<_>>(),
        })
    }
}

/// Whether a word lacked something when it came that another word has brought since.
fn waited(event: &Conversion, goals: &[Conversion]) -> bool {
    let lacked = [Reason::TokenMissing, Reason::AmountMissing];
    event.repeat
        && lacked.iter().any(|lacked| *lacked as i32 == event.outcome)
        && goals.iter().any(|goal| {
            (event.goal.is_empty() || goal.goal == event.goal) && goal.reason != event.outcome
        })
}

/// `, 6.40 USD to be paid`, so that a change of money is seen where the status stays.
fn counted(lines: &[Line]) -> String {
    let payouts = lines.iter().filter_map(|line| {
        let payout = money(line.payout_micros, &line.payout_currency)?;
        Some(format!(", payout {payout}"))
    });
    payouts.collect()
}

fn lines(catalog: &Catalog, lines: &[Line]) -> Vec<Value> {
    let lines = lines.iter().map(|line| {
        json!({
            "affiliate": names::affiliate(catalog, line.affiliate),
            "offer": names::offer(catalog, line.offer),
            "link": (line.link != 0).then(|| names::link(catalog, line.link)),
            "share": f64::from(line.share_millionths) / 1e6,
            "amount": money(line.amount_micros, &line.currency),
            "revenue": money(line.revenue_micros, &line.revenue_currency),
            "payout": money(line.payout_micros, &line.payout_currency),
        })
    });
    lines.collect()
}

fn facts(conversion: &Conversion) -> &'static str {
    match (&conversion.click, conversion.facts_pending) {
        (None, _) => "none",
        (Some(_), true) => "pending",
        (Some(_), false) => "complete",
    }
}

fn matched(conversion: &Conversion) -> Option<&'static str> {
    match conversion.r#match() {
        Match::Unspecified => None,
        Match::Token => Some("token"),
        Match::Operator => Some("by hand"),
    }
}

fn rule(candidate: &Candidate, conversion: &Conversion) -> String {
    let words = |code: i32| names::reason(u32::try_from(code).unwrap_or(0)).replace('_', " ");
    match candidate.rule() {
        Rule::Unspecified => String::new(),
        Rule::Credited if candidate.label != 0 => format!(
            "kept: the click of the order's token, within the offer's window (labelled {})",
            words(candidate.label)
        ),
        Rule::Credited => {
            "kept: the click of the order's token, within the offer's window".to_owned()
        }
        Rule::Refused => format!("removed: {}", words(conversion.reason)),
        Rule::OtherAdvertiser => "removed: another advertiser's click".to_owned(),
        Rule::EarlierClick => {
            "removed: an earlier click, the offer credits the one of the token".to_owned()
        }
    }
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Unspecified => "-",
        Status::Pending => "pending",
        Status::Approved => "approved",
        Status::Rejected => "rejected",
        Status::Reversed => "reversed",
        Status::Reinstated => "reinstated",
    }
}

fn reason(code: i32) -> Option<String> {
    let code = u32::try_from(code).unwrap_or(u32::MAX);
    (code != Reason::None as u32).then(|| names::reason(code))
}

fn money(micros: i64, currency: &str) -> Option<String> {
    (!currency.is_empty()).then(|| format!("{} {}", Micros(micros), plain(currency)))
}

fn click(key: ClickKey) -> String {
    format!("{} ({key})", time(key.time_ms))
}

fn time(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| format!("{ms} ms"), |time| format!("{time:.3}"))
}

fn time_of_us(us: i64) -> String {
    Timestamp::from_microsecond(us).map_or_else(|_| format!("{us} us"), |time| time.to_string())
}

/// What came from outside must not steer the terminal.
fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_without_a_status_read_as_a_minus() {
        let amount = Postback {
            has_amount: true,
            amount_micros: 30_000_000,
            currency: "USD".into(),
            ..Postback::default()
        };
        let approved = Postback {
            status: Status::Approved.into(),
            ..amount.clone()
        };
        for (postback, expected) in [
            (amount, "30.00 USD"),
            (approved, "approved 30.00 USD"),
            (Postback::default(), "no status"),
        ] {
            let word = Word {
                at: ClickKey::from_bytes([0; 16]),
                postback,
                events: Vec::new(),
            };
            assert_eq!(word.asked(), expected);
        }
    }

    #[test]
    fn a_word_that_counted_later_was_told_as_one_that_changed_nothing() {
        let lacked = |goal: &str, reason: Reason| Conversion {
            goal: goal.into(),
            repeat: true,
            outcome: reason.into(),
            ..Conversion::default()
        };
        let counts = Conversion {
            goal: "sale".into(),
            ..Conversion::default()
        };
        let still = Conversion {
            reason: Reason::TokenMissing.into(),
            ..counts.clone()
        };
        let waited = "waited (token_missing); it counts since that came";
        let nothing = "changed nothing (token_missing)";
        for (event, goals, expected) in [
            (lacked("", Reason::TokenMissing), vec![], nothing.to_owned()),
            (
                lacked("", Reason::TokenMissing),
                vec![counts.clone()],
                waited.to_owned(),
            ),
            (
                lacked("sale", Reason::TokenMissing),
                vec![counts.clone()],
                format!("sale: {waited}"),
            ),
            (
                lacked("sale", Reason::TokenMissing),
                vec![still],
                format!("sale: {nothing}"),
            ),
            (
                lacked("signup", Reason::TokenMissing),
                vec![counts.clone()],
                format!("signup: {nothing}"),
            ),
            (
                lacked("sale", Reason::GoalAmbiguous),
                vec![counts],
                "sale: changed nothing (goal_ambiguous)".to_owned(),
            ),
        ] {
            let word = Word {
                at: ClickKey::from_bytes([0; 16]),
                postback: Postback::default(),
                events: vec![event],
            };
            assert_eq!(word.outcomes(&goals), [expected]);
        }
    }
}
