//! What is asked for, as a person writes it: groups, a time, and what lines are to be of.

use catalog::Catalog;
use domain::event::{Class, Consent, Decision, Reason, Status};
use domain::time::BUCKET_MS;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::conversions::MATCHED;
use crate::error::Kind;
use crate::list::word;
use crate::{Error, Format, Result, names};

/// What lines of a report can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Who promoted.
    Affiliate,
    /// What was promoted.
    Offer,
    /// Who owes for it.
    Advertiser,
    /// The slug.
    Link,
    /// Why a click is invalid; `none` for what is valid.
    Reason,
    /// A day in the network's time zone.
    Day,
    /// An hour in the network's time zone.
    Hour,
}

/// More groups than there are kinds of them help nobody.
const BY_MAX: usize = By::ALL.len();

/// Parts of the design that come later; asked for today they are refused by name.
const LATER: [&str; 22] = [
    "country", "region", "city", "device", "os", "browser", "language", "source", "creative",
    "page", "group", "goal", "sub1", "sub2", "sub3", "sub4", "sub5", "sub6", "sub7", "sub8",
    "sub9", "sub10",
];

impl By {
    /// All of them, in the order help texts name them.
    pub const ALL: [Self; 7] = [
        Self::Affiliate,
        Self::Offer,
        Self::Advertiser,
        Self::Link,
        Self::Reason,
        Self::Day,
        Self::Hour,
    ];

    /// The word in `by` and the column's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Affiliate => "affiliate",
            Self::Offer => "offer",
            Self::Advertiser => "advertiser",
            Self::Link => "link",
            Self::Reason => "reason",
            Self::Day => "day",
            Self::Hour => "hour",
        }
    }

    /// Those that a report can be limited to.
    pub const FILTERS: [Self; 5] = [
        Self::Affiliate,
        Self::Offer,
        Self::Advertiser,
        Self::Link,
        Self::Reason,
    ];

    /// The numbers of a name, as reports show it: `(none)` is 0 and `#7` a number without a name.
    fn numbers(self, name: &str, catalog: &Catalog) -> Result<Vec<u64>> {
        let known = &catalog.names;
        let mut numbers: Vec<u64> = match self {
            _ if name == names::NONE => vec![0],
            _ if name.starts_with('#') => name[1..].parse().into_iter().collect(),
            Self::Affiliate => {
                let all = known.affiliates.iter();
                all.filter(|(_, of)| *of == name)
                    .map(|(number, _)| number.get().into())
                    .collect()
            }
            Self::Offer => {
                let all = known.offers.iter();
                all.filter(|(_, of)| of.name == name)
                    .map(|(number, _)| number.get().into())
                    .collect()
            }
            Self::Advertiser => {
                let all = known.advertisers.iter();
                all.filter(|(_, of)| *of == name)
                    .map(|(number, _)| number.get().into())
                    .collect()
            }
            Self::Link => {
                let all = catalog.links.iter();
                all.filter(|(_, link)| link.slug() == name)
                    .map(|(number, _)| number.get())
                    .collect()
            }
            Self::Reason => names::reason_code(name)
                .into_iter()
                .map(u64::from)
                .collect(),
            Self::Day | Self::Hour => Vec::new(),
        };
        if numbers.is_empty() {
            let parameter = self.name();
            let names = &known;
            return Err(match self {
                Self::Affiliate => unknown(
                    parameter,
                    name,
                    NOT_THERE,
                    names.affiliates.values().map(|of| &**of),
                ),
                Self::Offer => unknown(
                    parameter,
                    name,
                    NOT_THERE,
                    names.offers.values().map(|of| &*of.name),
                ),
                Self::Advertiser => unknown(
                    parameter,
                    name,
                    NOT_THERE,
                    names.advertisers.values().map(|of| &**of),
                ),
                Self::Link => {
                    let links = catalog.links.iter().map(|(_, link)| link.slug());
                    unknown(parameter, name, NOT_THERE, links)
                }
                Self::Reason | Self::Day | Self::Hour => {
                    let reasons =
                        numbered(|number| Reason::try_from(number).ok().map(Reason::name));
                    unknown(
                        parameter,
                        name,
                        NOT_KNOWN,
                        reasons.iter().map(String::as_str),
                    )
                }
            });
        }
        // Rollups hold offers: an advertiser's are these.
        if self == Self::Advertiser {
            let offers = known.offers.iter();
            numbers = offers
                .filter(|(_, of)| numbers.contains(&of.advertiser.get().into()))
                .map(|(number, _)| number.get().into())
                .collect();
        }
        Ok(numbers)
    }

    fn parse(word: &str) -> Result<Self> {
        if let Some(by) = Self::ALL.into_iter().find(|by| by.name() == word) {
            return Ok(by);
        }
        let problem = if LATER.contains(&word) {
            "is not supported yet"
        } else {
            "is not known"
        };
        let valid = Self::ALL.map(Self::name).join(", ");
        Err(Error::parameter(
            "by",
            format!("{word:?} {problem}: use some of {valid}"),
        ))
    }
}

const NOT_THERE: &str = "is not in the catalog";
const NOT_KNOWN: &str = "is not known";

/// So many names are listed where a word is none of them.
const LISTED_MAX: usize = 12;

/// Refuses a word that is none of the known ones: it names the nearest one, and all where they are few.
pub(crate) fn unknown<'a>(
    parameter: &'static str,
    word: &str,
    problem: &str,
    known: impl Iterator<Item = &'a str>,
) -> Error {
    // Looking further helps nobody: it is only to be told what is near.
    const LOOKED_MAX: usize = 5000;
    let known: Vec<&str> = known.take(LOOKED_MAX).collect();
    let mut message = format!("{word:?} {problem}");
    let near = text::nearest(word, known.iter().copied());
    if let Some(near) = &near {
        message += &format!(", did you mean {near:?}?");
    }
    // Names of a network are many, and told one at a time.
    if problem == NOT_KNOWN && (1..=LISTED_MAX).contains(&known.len()) {
        let use_one = if near.is_some() { " Use" } else { ": use" };
        message += &format!("{use_one} one of {}", known.join(", "));
    }
    Error::parameter(parameter, message)
}

/// The names of an enumeration's values.
fn numbered(name: impl Fn(i32) -> Option<String>) -> Vec<String> {
    /// Above every number of the schema's enumerations that a column shows.
    const NUMBERS: i32 = 1000;
    (0..NUMBERS).filter_map(name).collect()
}

/// The words a column's cells can say, where these are known before the store is read.
fn known_words(column: &str, catalog: &Catalog) -> Option<(&'static str, Vec<String>)> {
    let mut words: Vec<String> = match column {
        "goal" => catalog
            .names
            .goals
            .values()
            .map(|goal| goal.name.to_string())
            .collect(),
        "domain" => catalog
            .names
            .domains
            .values()
            .map(ToString::to_string)
            .collect(),
        "status" => numbered(|number| {
            let status = Status::try_from(number).ok()?;
            // Where it leads to stands in the column.
            let is_standing = !matches!(status, Status::Unspecified | Status::Reinstated);
            is_standing.then(|| word(status.as_str_name(), "STATUS_"))
        }),
        "class" => {
            numbered(|number| Some(word(Class::try_from(number).ok()?.as_str_name(), "CLASS_")))
        }
        "decision" => numbered(|number| {
            Some(word(
                Decision::try_from(number).ok()?.as_str_name(),
                "DECISION_",
            ))
        }),
        "consent" => numbered(|number| {
            Some(word(
                Consent::try_from(number).ok()?.as_str_name(),
                "CONSENT_",
            ))
        }),
        "matched" => MATCHED.map(str::to_owned).to_vec(),
        "paid" | "token" => vec!["yes".to_owned(), "no".to_owned()],
        _ => return None,
    };
    words.retain(|word| word != "unspecified");
    // A goal's name is one of several offers'.
    words.sort();
    words.dedup();
    let problem = match column {
        "goal" | "domain" => NOT_THERE,
        _ => NOT_KNOWN,
    };
    Some((problem, words))
}

/// Refuses a filter whose word no row can say: a misspelt one would make an empty list.
pub(crate) fn check_filters(
    parameters: &Parameters,
    columns: &[&'static str],
    catalog: &Catalog,
) -> Result<()> {
    for column in columns.iter().copied() {
        let wanted = words(parameters.get(column).unwrap_or_default());
        let filter = By::FILTERS.into_iter().find(|by| by.name() == column);
        for wanted in wanted {
            if let Some(filter) = filter {
                filter.numbers(wanted, catalog)?;
            } else if let Some((problem, known)) = known_words(column, catalog)
                && !known.iter().any(|known| known == wanted)
                && !wanted.starts_with('#')
            {
                return Err(unknown(
                    column,
                    wanted,
                    problem,
                    known.iter().map(String::as_str),
                ));
            }
        }
    }
    Ok(())
}

/// What somebody asks for, by name.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    values: Vec<(&'static str, String)>,
}

impl Parameters {
    /// Reads the query of an address. What is not among `known` is refused, so that a misspelt `form=` does not silently
    /// report all of time. A parameter without a value says as much as none.
    ///
    /// # Errors
    ///
    /// [`Error::parameter_name`] names the wrong one.
    pub fn parse(query: &str, known: &[&'static str]) -> Result<Self> {
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(name) = known.iter().copied().find(|known| *known == name) else {
                let message = format!("is not known: use some of {}", known.join(", "));
                return Err(Error::parameter(name.into_owned(), message));
            };
            if parameters.get(name).is_some() {
                return Err(Error::parameter(name, "is given twice"));
            }
            parameters.values.push((name, value.into_owned()));
        }
        parameters.values.retain(|(_, value)| !value.is_empty());
        Ok(parameters)
    }

    /// As a flag of a command sets it.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Option<&str>) -> Self {
        let value = value.filter(|value| !value.is_empty());
        self.values
            .extend(value.map(|value| (name, value.to_owned())));
        self
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.values.iter();
        values
            .find(|(set, _)| *set == name)
            .map(|(_, value)| value.as_str())
    }

    /// The format, or another one where none is named.
    ///
    /// # Errors
    ///
    /// It is not known.
    pub fn format(&self, default: Format) -> Result<Format> {
        self.get("format").map_or(Ok(default), Format::parse)
    }
}

/// Words for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Period {
    Today,
    Yesterday,
    Last7Days,
    ThisMonth,
    LastMonth,
}

const PERIODS: [(&str, Period); 5] = [
    ("today", Period::Today),
    ("yesterday", Period::Yesterday),
    ("last-7-days", Period::Last7Days),
    ("this-month", Period::ThisMonth),
    ("last-month", Period::LastMonth),
];

impl Period {
    fn parse(word: &str) -> Option<Self> {
        let mut known = PERIODS.iter();
        known.find(|(name, _)| *name == word).map(|(_, is)| *is)
    }

    /// Its first and its last day.
    fn days(self, today: Date) -> (Date, Date) {
        let before = |days: i64| today.saturating_sub(days.days());
        let last_month = today.first_of_month().saturating_sub(1.day());
        match self {
            Self::Today => (today, today),
            Self::Yesterday => (before(1), before(1)),
            Self::Last7Days => (before(6), today),
            Self::ThisMonth => (today.first_of_month(), today.last_of_month()),
            Self::LastMonth => (last_month.first_of_month(), last_month),
        }
    }
}

/// A stretch of time.
#[derive(Clone, Debug)]
pub struct Span {
    /// From this moment on, Unix milliseconds.
    pub from_ms: Option<u64>,
    /// Until right before this moment, Unix milliseconds.
    pub to_ms: Option<u64>,
    /// The network's time zone.
    pub zone: TimeZone,
}

/// How exact the moments of a span are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grain {
    /// Rollups are kept by quarter hours.
    Quarter,
    Millisecond,
}

impl Span {
    /// Reads `from` and `to`, each a date, an RFC 3339 moment or a word such as `yesterday`; or `time`, a word for both.
    ///
    /// A date is a day in the network's time zone: `from` its beginning, `to` its end, so that `2026-11-01` to
    /// `2026-11-30` is all of November; a word begins and ends as its days do. A moment is exact: `from` belongs to the span,
    /// `to` does not.
    pub(crate) fn parse(
        parameters: &Parameters,
        catalog: &Catalog,
        now: Timestamp,
        grain: Grain,
    ) -> Result<Self> {
        let zone = catalog
            .network
            .zone()
            .map_err(|_| Error::new(Kind::Timezone(catalog.network.timezone.clone())))?;
        Self::parse_in(parameters, zone, now, grain)
    }

    fn parse_in(
        parameters: &Parameters,
        zone: TimeZone,
        now: Timestamp,
        grain: Grain,
    ) -> Result<Self> {
        let mut ends = [parameters.get("from"), parameters.get("to")];
        if let Some(word) = parameters.get("time") {
            if ends != [None, None] {
                return Err(Error::parameter("time", "is given beside from or to"));
            }
            if Period::parse(word).is_none() {
                let known = PERIODS.map(|(name, _)| name).join(", ");
                let message = format!("{word:?} is not known: use one of {known}");
                return Err(Error::parameter("time", message));
            }
            ends = [Some(word), Some(word)];
        }
        let read = |name, text: Option<&str>| {
            text.map(|text| moment(name, text, &zone, now, grain))
                .transpose()
        };
        let (from_ms, to_ms) = (read("from", ends[0])?, read("to", ends[1])?);
        if let (Some(from_ms), Some(to_ms)) = (from_ms, to_ms)
            && from_ms >= to_ms
        {
            return Err(Error::parameter("to", "is not after from"));
        }
        Ok(Self {
            from_ms,
            to_ms,
            zone,
        })
    }
}

/// A checked question.
#[derive(Clone, Debug)]
pub struct ReportQuery {
    /// The groups, in the order of the columns; none for one line over everything.
    pub by: Vec<By>,
    /// The time.
    pub span: Span,
    /// Only lines of these numbers.
    pub(crate) only: Vec<(By, Vec<u64>)>,
}

impl ReportQuery {
    /// What [`Self::parse`] reads.
    pub const PARAMETERS: [&'static str; 10] = [
        "by",
        "from",
        "to",
        "time",
        "format",
        "affiliate",
        "offer",
        "advertiser",
        "link",
        "reason",
    ];

    /// Reads `by`, a comma list of [`By`] names, the time, and filters: comma lists of names for each of [`By::FILTERS`].
    ///
    /// Rollups are kept by quarter hours, so that a moment must be the beginning of one.
    ///
    /// # Errors
    ///
    /// [`Error::parameter_name`] names the wrong one.
    pub fn parse(parameters: &Parameters, catalog: &Catalog, now: Timestamp) -> Result<Self> {
        let mut by = Vec::new();
        for word in words(parameters.get("by").unwrap_or_default()) {
            let group = By::parse(word)?;
            if by.contains(&group) {
                return Err(Error::parameter("by", format!("{word:?} is named twice")));
            }
            by.push(group);
        }
        debug_assert!(by.len() <= BY_MAX, "each is named once");
        let mut only = Vec::new();
        for filter in By::FILTERS {
            let Some(named) = parameters.get(filter.name()) else {
                continue;
            };
            let mut numbers = Vec::new();
            for name in words(named) {
                numbers.extend(filter.numbers(name, catalog)?);
            }
            only.push((filter, numbers));
        }
        Ok(Self {
            by,
            span: Span::parse(parameters, catalog, now, Grain::Quarter)?,
            only,
        })
    }
}

impl ReportQuery {
    /// The next smaller question: without the last group, or of half of the time.
    pub(crate) fn smaller(&self) -> String {
        if self.by.len() > 1 {
            let fewer: Vec<&str> = self.by[..self.by.len() - 1]
                .iter()
                .map(|by| by.name())
                .collect();
            return format!(
                "fewer groups (by={}), less time or fewer names",
                fewer.join(",")
            );
        }
        let Span { from_ms, to_ms, .. } = &self.span;
        let (Some(from_ms), Some(to_ms)) = (from_ms, to_ms) else {
            return "a time (time=last-7-days) or fewer names".to_owned();
        };
        let middle_ms = (from_ms + (to_ms - from_ms) / 2) / BUCKET_MS * BUCKET_MS;
        let text = |ms: u64| {
            i64::try_from(ms)
                .ok()
                .and_then(|ms| Timestamp::from_millisecond(ms).ok())
                .unwrap_or(Timestamp::MAX)
        };
        let (from, middle) = (text(*from_ms), text(middle_ms));
        format!("less time (from={from}&to={middle}) or fewer names")
    }
}

/// The parts of a comma list.
pub(crate) fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

fn moment(
    name: &'static str,
    text: &str,
    zone: &TimeZone,
    now: Timestamp,
    grain: Grain,
) -> Result<u64> {
    let text = text.trim();
    let wrong = |message: &str| Error::parameter(name, format!("{text:?} {message}"));
    const EXPECTED: &str = "is neither a date such as 2026-11-20, nor a moment such as 2026-11-20T13:00:00Z, nor one of";
    let unreadable = || {
        let known = PERIODS.map(|(name, _)| name).join(", ");
        wrong(&format!("{EXPECTED} {known}"))
    };
    let is_end = name == "to";
    let days = match Period::parse(text) {
        Some(period) => Some(period.days(now.to_zoned_datetime(zone.clone()).date())),
        None if text.len() <= "2026-11-20".len() => {
            let date: Date = text.parse().map_err(|_| unreadable())?;
            Some((date, date))
        }
        None => None,
    };
    let timestamp = match days {
        Some((first, last)) => {
            let date = if is_end {
                last.checked_add(1.day()).map_err(|_| unreadable())?
            } else {
                first
            };
            let midnight = date
                .to_zoned_datetime(zone.clone())
                .map_err(|_| unreadable())?;
            midnight.timestamp()
        }
        None => text.parse::<Timestamp>().map_err(|_| unreadable())?,
    };
    let ms = u64::try_from(timestamp.as_millisecond()).map_err(|_| wrong("is before 1970"))?;
    let is_quarter = ms % BUCKET_MS == 0 && timestamp.subsec_nanosecond() == 0;
    if grain == Grain::Quarter && !is_quarter {
        return Err(wrong(
            "is not the beginning of a quarter hour: use minutes 00, 15, 30 or 45 and no seconds",
        ));
    }
    Ok(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    /// A Saturday shortly after midnight in Berlin, the last day of a month in UTC still.
    const NOW: &str = "2026-10-31T23:30:00Z";

    fn span(from: Option<&str>, to: Option<&str>, time: Option<&str>) -> Result<Span> {
        let parameters = Parameters::default()
            .with("from", from)
            .with("to", to)
            .with("time", time);
        Span::parse_in(&parameters, berlin(), NOW.parse().unwrap(), Grain::Quarter)
    }

    #[test]
    fn words_are_days_of_the_network() {
        for (time, from, to) in [
            ("today", "2026-10-31T23:00:00Z", "2026-11-01T23:00:00Z"),
            ("yesterday", "2026-10-30T23:00:00Z", "2026-10-31T23:00:00Z"),
            // The clocks went back on 25 October.
            (
                "last-7-days",
                "2026-10-25T23:00:00Z",
                "2026-11-01T23:00:00Z",
            ),
            ("this-month", "2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z"),
            ("last-month", "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z"),
        ] {
            let both = span(None, None, Some(time)).unwrap();
            let ends = span(Some(time), Some(time), None).unwrap();
            let text = |ms: Option<u64>| {
                let ms = i64::try_from(ms.unwrap()).unwrap();
                Timestamp::from_millisecond(ms).unwrap().to_string()
            };
            assert_eq!(
                (text(both.from_ms), text(both.to_ms)),
                (from.into(), to.into()),
                "{time}"
            );
            assert_eq!(
                (both.from_ms, both.to_ms),
                (ends.from_ms, ends.to_ms),
                "{time}"
            );
        }
        assert_eq!(
            span(None, None, Some("tomorrow")).unwrap_err().to_string(),
            r#"time: "tomorrow" is not known: use one of today, yesterday, last-7-days, this-month, last-month"#
        );
        assert_eq!(
            span(Some("today"), None, Some("today"))
                .unwrap_err()
                .to_string(),
            "time: is given beside from or to"
        );
    }

    #[test]
    fn a_smaller_question_is_named() {
        let zone = berlin();
        let query = |by: &[By], from_ms, to_ms| ReportQuery {
            by: by.to_vec(),
            span: Span {
                from_ms,
                to_ms,
                zone: zone.clone(),
            },
            only: Vec::new(),
        };
        let day = 86_400_000;
        for (query, expected) in [
            (
                query(&[By::Affiliate, By::Day], None, None),
                "fewer groups (by=affiliate), less time or fewer names",
            ),
            (
                query(&[By::Link], None, None),
                "a time (time=last-7-days) or fewer names",
            ),
            (
                query(&[], Some(0), Some(day)),
                "less time (from=1970-01-01T00:00:00Z&to=1970-01-01T12:00:00Z) or fewer names",
            ),
        ] {
            assert_eq!(query.smaller(), expected);
        }
    }

    #[test]
    fn parameters_are_known_and_given_once() {
        for (query, expected) in [
            ("form=csv", "form: is not known: use some of by, format"),
            ("by=day&by=", "by: is given twice"),
        ] {
            let error = Parameters::parse(query, &["by", "format"]).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let parameters = Parameters::parse("by=&format=csv", &["by", "format"]).unwrap();
        assert_eq!(
            (parameters.get("by"), parameters.get("format")),
            (None, Some("csv"))
        );
    }

    #[test]
    fn times_are_days_of_the_network_or_exact_moments() {
        for (from, to, expected_from, expected_to) in [
            (
                "2026-11-20",
                "2026-11-20",
                "2026-11-19T23:00:00Z",
                "2026-11-20T23:00:00Z",
            ),
            // The clocks go back: a day of 25 hours.
            (
                "2026-10-25",
                "2026-10-25",
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
            ),
            (
                "2026-11-20T01:15:00+01:00",
                "2026-11-20T00:30:00Z",
                "2026-11-20T00:15:00Z",
                "2026-11-20T00:30:00Z",
            ),
        ] {
            let query = span(Some(from), Some(to), None).unwrap();
            let text = |ms: Option<u64>| {
                let ms = i64::try_from(ms.unwrap()).unwrap();
                Timestamp::from_millisecond(ms).unwrap().to_string()
            };
            assert_eq!(text(query.from_ms), expected_from);
            assert_eq!(text(query.to_ms), expected_to);
        }
    }

    #[test]
    fn mistakes_name_the_parameter() {
        const WORDS: &str = "today, yesterday, last-7-days, this-month, last-month";
        for (from, to, expected) in [
            (
                Some("soon"),
                None,
                format!(r#"from: "soon" is neither a date such as 2026-11-20, nor a moment such as 2026-11-20T13:00:00Z, nor one of {WORDS}"#),
            ),
            (
                None,
                Some("2026-13-01"),
                format!(r#"to: "2026-13-01" is neither a date such as 2026-11-20, nor a moment such as 2026-11-20T13:00:00Z, nor one of {WORDS}"#),
            ),
            (
                Some("2026-11-20T13:01:00Z"),
                None,
                r#"from: "2026-11-20T13:01:00Z" is not the beginning of a quarter hour: use minutes 00, 15, 30 or 45 and no seconds"#.to_owned(),
            ),
            (
                Some("1969-12-30"),
                None,
                r#"from: "1969-12-30" is before 1970"#.to_owned(),
            ),
            (
                Some("2026-11-21"),
                Some("2026-11-20"),
                "to: is not after from".to_owned(),
            ),
        ] {
            let error = span(from, to, None).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.parameter_name(), expected.split(':').next());
        }
        for (word, expected) in [
            (
                "country",
                r#"by: "country" is not supported yet: use some of affiliate, offer, advertiser, link, reason, day, hour"#,
            ),
            (
                "colour",
                r#"by: "colour" is not known: use some of affiliate, offer, advertiser, link, reason, day, hour"#,
            ),
        ] {
            assert_eq!(By::parse(word).unwrap_err().to_string(), expected);
        }
    }
}
