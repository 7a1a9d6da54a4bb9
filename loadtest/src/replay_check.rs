//! `loadtest replay-check`: compares a report with what the ledger of a replay says was answered, pair by pair of affiliate
//! and offer.
//!
//! Every answered click counts once. A click that was sent and not answered, because the server was killed, may count once
//! or not at all; nothing else is forgiven.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use testkit::http;

use crate::clicks_file::{self, Click, affiliate_name, offer_name};
use crate::ledger::{self, Answers};
use crate::replay::row_of;

/// Differences that are printed one by one; the rest is counted.
const DIFFERENCES_SHOWN: usize = 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file of clicks that was replayed
    #[arg(long)]
    csv: PathBuf,
    /// The ledger of the replay
    #[arg(long)]
    ledger: PathBuf,
    /// The report by affiliate and offer, as JSON
    #[arg(long, required_unless_present = "report_url")]
    report: Option<PathBuf>,
    /// Where to get that report: http://ADDRESS:PORT/api/v1/report?by=affiliate,offer&format=json&from=…&to=…
    #[arg(long, conflicts_with = "report")]
    report_url: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let clicks = clicks_file::read(&arguments.csv, None)?;
    let answers = ledger::read(&arguments.ledger)?;
    let report = match (&arguments.report, &arguments.report_url) {
        (Some(path), _) => {
            fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?
        }
        (None, Some(url)) => fetch(url)?,
        (None, None) => return Err("name the report with --report or --report-url".into()),
    };

    let expected = expected(&clicks, &answers)?;
    let reported = reported(&serde_json::from_slice(&report)?)?;
    let comparison = compare(&expected, &reported);
    comparison.print(&expected, &reported);
    if comparison.differences.is_empty() {
        return Ok(());
    }
    Err(format!("{} pairs differ", comparison.differences.len()).into())
}

fn fetch(url: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let rest = url
        .strip_prefix("http://")
        .ok_or("--report-url begins with http://")?;
    let (addr, target) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let addr: SocketAddr = addr
        .parse()
        .map_err(|_| format!("--report-url: {addr} is not ADDRESS:PORT"))?;
    let response = http::get(addr, target, &[]).map_err(|error| format!("{url}: {error}"))?;
    if response.status != 200 {
        let text = response.text();
        return Err(format!("{url}: status {}: {}", response.status, text.trim()).into());
    }
    Ok(response.body)
}

/// Affiliate and offer, by name.
type Pair = (String, String);

/// What must be in the report for a pair, and what may be there on top.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Owed {
    clicks: u64,
    clicks_in_doubt: u64,
    orders: u64,
    orders_in_doubt: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Reported {
    gross: u64,
    conversions: u64,
}

fn expected(clicks: &[Click], answers: &Answers) -> Result<BTreeMap<Pair, Owed>, String> {
    let mut pairs: BTreeMap<Pair, Owed> = BTreeMap::new();
    let mut owed_by = |ext: &str, count: fn(&mut Owed)| {
        let click = row_of(ext)
            .and_then(|row| row.checked_sub(1))
            .and_then(|index| clicks.get(index))
            .ok_or_else(|| format!("the ledger's {ext} is no row of the file of clicks"))?;
        let pair = (affiliate_name(click.channel), offer_name(click.app));
        count(pairs.entry(pair).or_default());
        Ok::<(), String>(())
    };
    for (ext, status) in &answers.clicks {
        if *status == 302 {
            owed_by(ext, |owed| owed.clicks += 1)?;
        }
    }
    for ext in &answers.clicks_unanswered {
        owed_by(ext, |owed| owed.clicks_in_doubt += 1)?;
    }
    for (order, status) in &answers.postbacks {
        if *status == 200 {
            owed_by(order, |owed| owed.orders += 1)?;
        }
    }
    for order in &answers.postbacks_unanswered {
        owed_by(order, |owed| owed.orders_in_doubt += 1)?;
    }
    Ok(pairs)
}

/// The report's rows, bare or under `rows`. Rows of one pair (one a currency, say) are added up.
fn reported(report: &Value) -> Result<BTreeMap<Pair, Reported>, String> {
    let rows = report
        .as_array()
        .or_else(|| report.get("rows").and_then(Value::as_array))
        .ok_or("the report is neither a list of rows nor has one under \"rows\"")?;
    let mut pairs: BTreeMap<Pair, Reported> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        let name = |field: &str| {
            row.get(field)
                .and_then(Value::as_str)
                .map(ToOwned::to_owned)
                .ok_or_else(|| format!("row {} of the report has no name in {field}", index + 1))
        };
        let number = |field: &str| {
            row.get(field)
                .and_then(Value::as_u64)
                .ok_or_else(|| format!("row {} of the report has no number in {field}", index + 1))
        };
        let pair = pairs
            .entry((name("affiliate")?, name("offer")?))
            .or_default();
        pair.gross += number("gross")?;
        pair.conversions += number("conversions")?;
    }
    Ok(pairs)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Comparison {
    pairs: usize,
    exact: usize,
    /// Pairs that hold some of what was in doubt, and nothing more.
    in_doubt: usize,
    differences: Vec<String>,
}

fn compare(expected: &BTreeMap<Pair, Owed>, reported: &BTreeMap<Pair, Reported>) -> Comparison {
    let mut comparison = Comparison::default();
    let mut pairs: Vec<&Pair> = expected.keys().chain(reported.keys()).collect();
    pairs.sort();
    pairs.dedup();
    for pair in pairs {
        let owed = expected.get(pair).copied().unwrap_or_default();
        let told = reported.get(pair).copied().unwrap_or_default();
        let clicks = owed.clicks..=owed.clicks + owed.clicks_in_doubt;
        let orders = owed.orders..=owed.orders + owed.orders_in_doubt;
        comparison.pairs += 1;
        if told.gross == owed.clicks && told.conversions == owed.orders {
            comparison.exact += 1;
        } else if clicks.contains(&told.gross) && orders.contains(&told.conversions) {
            comparison.in_doubt += 1;
        } else {
            comparison.differences.push(format!(
                "{} {}: gross {} (answered {}, in doubt {}), conversions {} (answered {}, in doubt {})",
                pair.0,
                pair.1,
                told.gross,
                owed.clicks,
                owed.clicks_in_doubt,
                told.conversions,
                owed.orders,
                owed.orders_in_doubt
            ));
        }
    }
    comparison
}

impl Comparison {
    fn print(&self, expected: &BTreeMap<Pair, Owed>, reported: &BTreeMap<Pair, Reported>) {
        for difference in self.differences.iter().take(DIFFERENCES_SHOWN) {
            println!("differs: {difference}");
        }
        let owed = |field: fn(&Owed) -> u64| expected.values().map(field).sum::<u64>();
        let told = |field: fn(&Reported) -> u64| reported.values().map(field).sum::<u64>();
        println!("pairs compared       {}", self.pairs);
        println!("  equal              {}", self.exact);
        println!("  within doubt       {}", self.in_doubt);
        println!("  different          {}", self.differences.len());
        println!("clicks answered      {}", owed(|owed| owed.clicks));
        println!("clicks in doubt      {}", owed(|owed| owed.clicks_in_doubt));
        println!("gross reported       {}", told(|told| told.gross));
        println!("orders answered      {}", owed(|owed| owed.orders));
        println!("orders in doubt      {}", owed(|owed| owed.orders_in_doubt));
        println!("conversions reported {}", told(|told| told.conversions));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn click(app: u32, channel: u32) -> Click {
        Click {
            ip: 1,
            app,
            device: 1,
            os: 1,
            channel,
            attributed: true,
        }
    }

    /// Rows 1 and 2 are channel 7 on app 1, row 3 is channel 8 on app 1; row 2's first try was never answered.
    fn ledger() -> (Vec<Click>, Answers) {
        let answers = Answers {
            postbacks_again: 0,
            clicks: [("r1", 302), ("r2.2", 302), ("r3", 302)]
                .map(|(ext, status)| (ext.to_owned(), status))
                .into(),
            postbacks: [("r1".to_owned(), 200)].into(),
            clicks_unanswered: vec!["r2".to_owned()],
            postbacks_unanswered: Vec::new(),
        };
        (vec![click(1, 7), click(1, 7), click(1, 8)], answers)
    }

    #[track_caller]
    fn check(report: &Value, exact: usize, in_doubt: usize, different: usize) {
        let (clicks, answers) = ledger();
        let comparison = compare(
            &expected(&clicks, &answers).unwrap(),
            &reported(report).unwrap(),
        );
        assert_eq!(
            (
                comparison.exact,
                comparison.in_doubt,
                comparison.differences.len()
            ),
            (exact, in_doubt, different),
            "{comparison:?}"
        );
    }

    fn row(affiliate: &str, gross: u64, conversions: u64) -> Value {
        json!({"affiliate": affiliate, "offer": "app-1", "gross": gross, "conversions": conversions})
    }

    #[test]
    fn answered_clicks_count_once_and_doubtful_ones_at_most_once() {
        check(
            &json!([row("channel-7", 2, 1), row("channel-8", 1, 0)]),
            2,
            0,
            0,
        );
        check(
            &json!({"rows": [row("channel-7", 3, 1), row("channel-8", 1, 0)]}),
            1,
            1,
            0,
        );
        check(
            &json!([row("channel-7", 4, 1), row("channel-8", 1, 0)]),
            1,
            0,
            1,
        );
        check(
            &json!([row("channel-7", 1, 1), row("channel-8", 1, 0)]),
            1,
            0,
            1,
        );
        check(
            &json!([row("channel-7", 2, 2), row("channel-8", 1, 0)]),
            1,
            0,
            1,
        );
        check(&json!([row("channel-7", 2, 1)]), 1, 0, 1);
        check(
            &json!([
                row("channel-7", 2, 1),
                row("channel-8", 1, 0),
                row("other", 1, 0)
            ]),
            2,
            0,
            1,
        );
    }

    #[test]
    fn a_foreign_ledger_or_report_is_named() {
        let (clicks, _) = ledger();
        let answers = Answers {
            clicks: [("g1-1".to_owned(), 302)].into(),
            ..Answers::default()
        };
        assert!(expected(&clicks, &answers).unwrap_err().contains("g1-1"));
        assert!(reported(&json!({})).is_err());
        assert!(reported(&json!([{"affiliate": "a"}])).is_err());
    }
}
