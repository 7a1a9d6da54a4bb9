//! The report itself: sums of the store under names, merged where several numbers make one group (days, advertisers).

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use catalog::Catalog;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rust_decimal::{Decimal, RoundingStrategy};
use store::{Counts, Dimension, Money, Query, Row, View};

use crate::error::Kind;
use crate::{By, Error, ReportQuery, Result, names};

/// Groups by name, and the sum of all.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the groups stand for.
    pub by: Vec<By>,
    /// Ordered by the groups' names, days and hours by time.
    pub groups: Vec<Group>,
    /// Over all groups; one entry of money a currency.
    pub total: Group,
}

/// The sums of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// A name for each column of `by`.
    pub names: Vec<String>,
    /// What has no currency.
    pub counts: Counts,
    /// What has: never empty, ordered by currency, never summed across.
    pub money: Vec<Money>,
}

/// Most groups of a report: more than anybody reads, and some tens of megabytes.
pub const GROUPS_MAX: usize = 100_000;

/// How long the store is asked: a read that goes on keeps the consumers from cutting back their log.
pub const READ_MAX: Duration = Duration::from_secs(30);

/// Asks the store.
///
/// # Errors
///
/// When the store cannot be read, or the question asks for too much ([`Error::is_too_large`]).
pub fn run(view: &View, catalog: &Catalog, query: &ReportQuery) -> Result<Report> {
    run_within(view, catalog, query, GROUPS_MAX, READ_MAX)
}

fn run_within(
    view: &View,
    catalog: &Catalog,
    query: &ReportQuery,
    groups_max: usize,
    read_max: Duration,
) -> Result<Report> {
    let label = |by: By, number: u64| {
        // Rows hold what was a 32-bit number when it was written.
        let small = u32::try_from(number).unwrap_or(u32::MAX);
        match by {
            By::Affiliate => Label::named(number, names::affiliate(catalog, small)),
            By::Offer => Label::named(number, names::offer(catalog, small)),
            By::Advertiser => {
                let advertiser = names::advertiser_of(catalog, small);
                Label::named(
                    u64::from(advertiser),
                    names::advertiser(catalog, advertiser),
                )
            }
            By::Link => Label::named(number, names::link(catalog, number)),
            By::Reason => Label::named(number, names::reason(small)),
            By::Day => Label::day(number, &query.span.zone),
            By::Hour => Label::hour(number, &query.span.zone),
        }
    };
    let too_large = |why: String| {
        Err(Error::new(Kind::TooLarge {
            why,
            instead: query.smaller(),
        }))
    };
    let mut sums = Sums::default();
    let asked = Query {
        from_ms: query.span.from_ms,
        to_ms: query.span.to_ms,
        by: query.by.iter().map(|by| dimension(*by)).collect(),
        only: query
            .only
            .iter()
            .map(|(by, numbers)| (dimension(*by), numbers.clone()))
            .collect(),
    };
    let read = within(view, read_max, || {
        view.each_row(&asked, &mut |row| {
            sums.add(&row, &query.by, &label);
            sums.groups.len() <= groups_max
        })
    });
    match read {
        Err(error) if error.is_interrupted() => {
            return too_large(format!("the report takes longer than {read_max:?}"));
        }
        done => done?,
    }
    if sums.groups.len() > groups_max {
        return too_large(format!("the report has more than {groups_max} groups"));
    }
    Ok(assemble(sums, &query.by, catalog.network.currency.code()))
}

fn dimension(by: By) -> Dimension {
    match by {
        By::Affiliate => Dimension::Affiliate,
        By::Offer | By::Advertiser => Dimension::Offer,
        By::Link => Dimension::Link,
        By::Reason => Dimension::Reason,
        By::Day | By::Hour => Dimension::Bucket,
    }
}

/// Reads for so long at most; then the store's error is an interrupt.
fn within<T>(
    view: &View,
    max: Duration,
    read: impl FnOnce() -> store::Result<T>,
) -> store::Result<T> {
    let interrupter = view.interrupter();
    std::thread::scope(|scope| {
        let (done, waiting) = mpsc::channel::<()>();
        scope.spawn(move || {
            // The other end is dropped when the read is over.
            while waiting.recv_timeout(max) == Err(RecvTimeoutError::Timeout) {
                interrupter.interrupt();
            }
        });
        let answer = read();
        drop(done);
        answer
    })
}

/// What a group is called, and where it stands: by time, then by name; two entries of one name stay two.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Label {
    time: i64,
    text: String,
    number: u64,
}

impl Label {
    fn named(number: u64, text: String) -> Self {
        Self {
            time: 0,
            text,
            number,
        }
    }

    fn day(bucket_ms: u64, zone: &TimeZone) -> Self {
        let date = timestamp(bucket_ms).to_zoned_datetime(zone.clone()).date();
        Self::named(0, date.to_string())
    }

    /// With its offset, so that the hour that comes twice in autumn is two lines.
    fn hour(bucket_ms: u64, zone: &TimeZone) -> Self {
        let moment = timestamp(bucket_ms).to_zoned_datetime(zone.clone());
        let time = moment.timestamp().as_second()
            - i64::from(moment.minute()) * 60
            - i64::from(moment.second());
        Self {
            time,
            text: moment.strftime("%Y-%m-%dT%H:00%:z").to_string(),
            number: 0,
        }
    }
}

fn timestamp(ms: u64) -> Timestamp {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX)
}

/// Sums by the names of their groups.
#[derive(Default)]
struct Sums {
    known: HashMap<(usize, u64), Label>,
    groups: BTreeMap<Vec<Label>, (Counts, BTreeMap<String, Money>)>,
    total: (Counts, BTreeMap<String, Money>),
}

impl Sums {
    fn add(&mut self, row: &Row, by: &[By], label: &impl Fn(By, u64) -> Label) {
        let mut labels = Vec::with_capacity(by.len());
        for (column, (by, number)) in by.iter().zip(&row.group).enumerate() {
            let label = self
                .known
                .entry((column, *number))
                .or_insert_with(|| label(*by, *number));
            labels.push(label.clone());
        }
        let group = self.groups.entry(labels).or_default();
        for (counts, money) in [
            (&mut group.0, &mut group.1),
            (&mut self.total.0, &mut self.total.1),
        ] {
            counts.add(&row.counts);
            for more in &row.money {
                add(money, more);
            }
        }
    }
}

fn assemble(sums: Sums, by: &[By], network_currency: &str) -> Report {
    let Sums {
        groups: sums,
        total,
        ..
    } = sums;
    // A group without sales shows zeros in the report's one currency, or where it has several in the network's.
    let mut currencies = total.1.keys();
    let zero = match (currencies.next(), currencies.next()) {
        (Some(only), None) => only.clone(),
        _ => network_currency.to_owned(),
    };
    let group = |labels: Vec<Label>, counts: Counts, money: BTreeMap<String, Money>| {
        let mut money: Vec<Money> = money.into_values().collect();
        if money.is_empty() {
            money.push(Money {
                currency: zero.clone(),
                ..Money::default()
            });
        }
        Group {
            names: labels.into_iter().map(|label| label.text).collect(),
            counts,
            money,
        }
    };
    let mut groups = Vec::new();
    for (labels, (counts, money)) in sums {
        // Prefetches and unmatched requests are no clicks: a group of nothing else would be a line of zeros.
        let Counts {
            clicks,
            unique,
            duplicate,
            anonymous,
            invalid,
            conversions,
            ..
        } = counts;
        let shown = [clicks, unique, duplicate, anonymous, invalid, conversions]
            .iter()
            .any(|count| *count != 0);
        if shown || !money.is_empty() {
            groups.push(group(labels, counts, money));
        }
    }
    let total = group(Vec::new(), total.0, total.1);
    Report {
        by: by.to_vec(),
        groups,
        total,
    }
}

fn add(sums: &mut BTreeMap<String, Money>, more: &Money) {
    let sum = sums.entry(more.currency.clone()).or_insert_with(|| Money {
        currency: more.currency.clone(),
        ..Money::default()
    });
    sum.amount += more.amount;
    sum.revenue += more.revenue;
    sum.payout += more.payout;
}

impl Group {
    /// All clicks: of a person, anonymous and invalid.
    pub fn gross(&self) -> i64 {
        self.counts.clicks + self.counts.anonymous + self.counts.invalid
    }

    /// Conversions in percent of valid clicks, two decimals; `None` without clicks.
    pub fn cvr(&self) -> Option<Decimal> {
        let percent = Decimal::from(self.counts.conversions) * Decimal::ONE_HUNDRED;
        ratio(percent, self.counts.clicks, 2)
    }

    /// Payout in this currency for one valid click, four decimals; `None` without clicks.
    pub fn epc(&self, money: &Money) -> Option<Decimal> {
        let payout = Decimal::from_i128_with_scale(money.payout, 6);
        ratio(payout, self.counts.clicks, 4)
    }
}

fn ratio(value: Decimal, clicks: i64, decimals: u32) -> Option<Decimal> {
    if clicks <= 0 {
        return None;
    }
    let mut ratio = (value / Decimal::from(clicks))
        .round_dp_with_strategy(decimals, RoundingStrategy::MidpointNearestEven);
    ratio.rescale(decimals);
    Some(ratio)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Parameters;

    fn assembled(rows: &[Row], by: &[By], label: impl Fn(By, u64) -> Label) -> Report {
        let mut sums = Sums::default();
        for row in rows {
            sums.add(row, by, &label);
        }
        assemble(sums, by, "EUR")
    }

    fn row(group: &[u64], clicks: i64, conversions: i64, money: &[(&str, i64)]) -> Row {
        Row {
            group: group.to_vec(),
            counts: Counts {
                clicks,
                unique: clicks,
                conversions,
                ..Counts::default()
            },
            money: money
                .iter()
                .map(|(currency, units)| Money {
                    currency: (*currency).to_owned(),
                    amount: i128::from(units * 10_000_000),
                    revenue: i128::from(units * 2_000_000),
                    payout: i128::from(units * 1_000_000),
                })
                .collect(),
        }
    }

    /// Two affiliates with sales in two currencies, one without clicks, one without sales.
    pub(crate) fn example() -> Report {
        let mut invalid = row(&[1, 2], 6, 0, &[]);
        invalid.counts.invalid = 2;
        invalid.counts.anonymous = 1;
        let mut prefetched = row(&[0, 0], 0, 0, &[]);
        prefetched.counts.speculative = 9;
        let rows = vec![
            prefetched,
            row(&[1, 1], 300, 7, &[("EUR", 4), ("USD", 3)]),
            invalid,
            row(&[2, 1], 0, 1, &[("USD", -1)]),
        ];
        assembled(&rows, &[By::Affiliate, By::Offer], |by, number| {
            let text = match (by, number) {
                (By::Affiliate, 1) => "zoe",
                (By::Affiliate, 2) => "=adam",
                (By::Offer, 1) => "boots, \"warm\"",
                (By::Offer, 2) => "axes",
                _ => "(none)",
            };
            Label::named(number, text.to_owned())
        })
    }

    #[test]
    fn groups_are_ordered_by_name_and_currencies_stay_apart() {
        let report = example();
        let names: Vec<_> = report
            .groups
            .iter()
            .map(|group| group.names.join("/"))
            .collect();
        assert_eq!(
            names,
            ["=adam/boots, \"warm\"", "zoe/axes", "zoe/boots, \"warm\""]
        );
        assert_eq!(report.total.gross(), 309);
        let totals: Vec<_> = report
            .total
            .money
            .iter()
            .map(|m| (m.currency.as_str(), m.payout))
            .collect();
        assert_eq!(totals, [("EUR", 4_000_000), ("USD", 2_000_000)]);
        assert_eq!(report.groups[0].cvr(), None);
        assert_eq!(report.groups[2].cvr().unwrap().to_string(), "2.33");
        assert_eq!(
            report.groups[2]
                .epc(&report.groups[2].money[0])
                .unwrap()
                .to_string(),
            "0.0133"
        );
        assert_eq!(report.groups[1].money[0].currency, "EUR");
    }

    #[test]
    fn a_report_that_takes_too_long_says_what_to_ask_instead() {
        let folder = tempfile::tempdir().unwrap();
        let file = catalog::write_demo(&folder.path().join("demo"), "0123456789abcdef").unwrap();
        let versions = folder.path().join("catalog");
        let applied = catalog::apply(&file, &versions, "id", catalog::Removes::Few).unwrap();
        let path = folder.path().join("store.sqlite");
        let store = store::Store::open(&path).unwrap();
        let written = store.batch(|batch| {
            (0..20_000).try_for_each(|link| {
                let row = store::RollupKey {
                    cube: store::Cube::Traffic,
                    bucket_ms: 0,
                    offer: 1,
                    affiliate: 1,
                    link,
                    reason: 0,
                    currency: String::new(),
                    source: store::Source {
                        consumer: 1,
                        partition: 0,
                    },
                };
                let change = store::Change {
                    clicks: 1,
                    ..store::Change::default()
                };
                batch.add_rollup(&row, &change)
            })
        });
        written.unwrap();
        let view = View::open(&path).unwrap();
        let parameters = Parameters::default().with("by", Some("link"));
        let query =
            ReportQuery::parse(&parameters, &applied.catalog, Timestamp::UNIX_EPOCH).unwrap();
        let ask = |max| run_within(&view, &applied.catalog, &query, GROUPS_MAX, max);
        assert_eq!(ask(READ_MAX).unwrap().groups.len(), 20_000);
        let error = ask(Duration::ZERO).unwrap_err();
        assert!(error.is_too_large());
        assert_eq!(
            error.to_string(),
            "the report takes longer than 0ns: ask for a time (time=last-7-days) or fewer names"
        );
        // The bound is over with its report.
        assert_eq!(ask(READ_MAX).unwrap().groups.len(), 20_000);
    }

    #[test]
    fn days_and_hours_are_the_networks() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let at = |text: &str| {
            u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
        };
        let texts = |make: fn(u64, &TimeZone) -> Label, times: [&str; 4]| {
            let rows = times.map(|time| row(&[at(time)], 1, 0, &[])).to_vec();
            let report = assembled(&rows, &[By::Day], |_, ms| make(ms, &zone));
            report
                .groups
                .into_iter()
                .map(|group| format!("{} {}", group.names[0], group.counts.clicks))
                .collect::<Vec<_>>()
        };
        let times = [
            "2026-10-24T21:45:00Z",
            "2026-10-25T00:15:00Z",
            "2026-10-25T01:15:00Z",
            "2026-10-25T01:30:00Z",
        ];
        assert_eq!(texts(Label::day, times), ["2026-10-24 1", "2026-10-25 3"]);
        assert_eq!(
            texts(Label::hour, times),
            [
                "2026-10-24T23:00+02:00 1",
                "2026-10-25T02:00+02:00 1",
                "2026-10-25T02:00+01:00 2"
            ]
        );
    }

    #[test]
    fn a_total_may_leave_64_bits() {
        let rows = vec![
            row(&[1], 1, 1, &[("USD", 900_000_000_000)]),
            row(&[2], 1, 1, &[("USD", 900_000_000_000)]),
        ];
        let report = assembled(&rows, &[By::Offer], |_, n| Label::named(n, n.to_string()));
        let amount = report.total.money[0].amount;
        assert_eq!(domain::money::text(amount), "18000000000000.00");
    }
}
