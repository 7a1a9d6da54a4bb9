//! What is asked for: groups and a time, as a person writes them.

use catalog::Catalog;
use domain::time::BUCKET_MS;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::error::Kind;
use crate::{Error, Result};

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

/// A checked question.
#[derive(Clone, Debug)]
pub struct ReportQuery {
    /// The groups, in the order of the columns; none for one line over everything.
    pub by: Vec<By>,
    /// From this moment on, Unix milliseconds.
    pub from_ms: Option<u64>,
    /// Until right before this moment, Unix milliseconds.
    pub to_ms: Option<u64>,
    /// The network's time zone.
    pub zone: TimeZone,
}

impl ReportQuery {
    /// Reads `by`, a comma list of [`By`] names, and the two ends of the time, each a date or an RFC 3339 moment.
    ///
    /// A date is a day in the network's time zone: `from` its beginning, `to` its end, so that `2026-11-01` to
    /// `2026-11-30` is all of November. A moment is exact: `from` belongs to the report, `to` does not. Rollups are kept by
    /// quarter hours, so that a moment must be the beginning of one.
    ///
    /// # Errors
    ///
    /// [`Error::parameter_name`] names the wrong one.
    pub fn parse(
        by: &str,
        from: Option<&str>,
        to: Option<&str>,
        catalog: &Catalog,
    ) -> Result<Self> {
        let zone = catalog
            .network
            .zone()
            .map_err(|_| Error::new(Kind::Timezone(catalog.network.timezone.clone())))?;
        Self::parse_in(by, from, to, zone)
    }

    pub(crate) fn parse_in(
        by: &str,
        from: Option<&str>,
        to: Option<&str>,
        zone: TimeZone,
    ) -> Result<Self> {
        let mut groups = Vec::new();
        for word in by.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let group = By::parse(word)?;
            if groups.contains(&group) {
                return Err(Error::parameter("by", format!("{word:?} is named twice")));
            }
            groups.push(group);
        }
        debug_assert!(groups.len() <= BY_MAX, "each is named once");
        let from_ms = from
            .map(|text| moment("from", text, &zone, false))
            .transpose()?;
        let to_ms = to.map(|text| moment("to", text, &zone, true)).transpose()?;
        if let (Some(from_ms), Some(to_ms)) = (from_ms, to_ms)
            && from_ms >= to_ms
        {
            return Err(Error::parameter("to", "is not after from"));
        }
        Ok(Self {
            by: groups,
            from_ms,
            to_ms,
            zone,
        })
    }
}

fn moment(name: &'static str, text: &str, zone: &TimeZone, end_of_day: bool) -> Result<u64> {
    let wrong = |message: &str| Error::parameter(name, format!("{text:?} {message}"));
    const EXPECTED: &str =
        "is neither a date such as 2026-11-20 nor a moment such as 2026-11-20T13:00:00Z";
    let text = text.trim();
    let timestamp = if text.len() <= "2026-11-20".len() {
        let mut date: Date = text.parse().map_err(|_| wrong(EXPECTED))?;
        if end_of_day {
            date = date.checked_add(1.day()).map_err(|_| wrong(EXPECTED))?;
        }
        let midnight = date
            .to_zoned_datetime(zone.clone())
            .map_err(|_| wrong(EXPECTED))?;
        midnight.timestamp()
    } else {
        text.parse::<Timestamp>().map_err(|_| wrong(EXPECTED))?
    };
    let ms = u64::try_from(timestamp.as_millisecond()).map_err(|_| wrong("is before 1970"))?;
    if ms % BUCKET_MS != 0 || timestamp.subsec_nanosecond() != 0 {
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
            let query = ReportQuery::parse_in("", Some(from), Some(to), berlin()).unwrap();
            let text = |ms: Option<u64>| {
                let ms = i64::try_from(ms.unwrap()).unwrap();
                Timestamp::from_millisecond(ms).unwrap().to_string()
            };
            assert_eq!(text(query.from_ms), expected_from);
            assert_eq!(text(query.to_ms), expected_to);
        }
    }

    #[test]
    fn groups_keep_their_order() {
        let query = ReportQuery::parse_in("offer, affiliate,day", None, None, berlin()).unwrap();
        assert_eq!(query.by, [By::Offer, By::Affiliate, By::Day]);
        assert_eq!((query.from_ms, query.to_ms), (None, None));
    }

    #[test]
    fn mistakes_name_the_parameter() {
        for (by, from, to, expected) in [
            (
                "country",
                None,
                None,
                r#"by: "country" is not supported yet: use some of affiliate, offer, advertiser, link, reason, day, hour"#,
            ),
            (
                "colour",
                None,
                None,
                r#"by: "colour" is not known: use some of affiliate, offer, advertiser, link, reason, day, hour"#,
            ),
            ("day,day", None, None, r#"by: "day" is named twice"#),
            (
                "",
                Some("yesterday"),
                None,
                r#"from: "yesterday" is neither a date such as 2026-11-20 nor a moment such as 2026-11-20T13:00:00Z"#,
            ),
            (
                "",
                None,
                Some("2026-13-01"),
                r#"to: "2026-13-01" is neither a date such as 2026-11-20 nor a moment such as 2026-11-20T13:00:00Z"#,
            ),
            (
                "",
                Some("2026-11-20T13:01:00Z"),
                None,
                r#"from: "2026-11-20T13:01:00Z" is not the beginning of a quarter hour: use minutes 00, 15, 30 or 45 and no seconds"#,
            ),
            (
                "",
                Some("1969-12-30"),
                None,
                r#"from: "1969-12-30" is before 1970"#,
            ),
            (
                "",
                Some("2026-11-21"),
                Some("2026-11-20"),
                "to: is not after from",
            ),
        ] {
            let error = ReportQuery::parse_in(by, from, to, berlin()).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.parameter_name(), expected.split(':').next());
        }
    }
}
