//! The list of clicks, the newest first, as long as their facts are kept.

use catalog::Catalog;
use domain::ClickKey;
use domain::event::{Click, Reason};
use jiff::Timestamp;
use prost::Message;
use store::{KeptClick, View};

use crate::list::{Cell, Pages, Selection, moment, word};
use crate::query::{Grain, Parameters, Span, check_filters};
use crate::{Error, Format, Result, names};

/// Clicks of one short read.
const PAGE_ROWS: u32 = 500;

/// The columns; each but the time is a filter too.
pub const CLICK_COLUMNS: [&str; 32] = [
    "time",
    "id",
    "offer",
    "affiliate",
    "advertiser",
    "link",
    "domain",
    "class",
    "decision",
    "reason",
    "labels",
    "consent",
    "source",
    "creative",
    "page",
    "ext",
    "coupon",
    "cost",
    "sub1",
    "sub2",
    "sub3",
    "sub4",
    "sub5",
    "sub6",
    "sub7",
    "sub8",
    "sub9",
    "sub10",
    "network",
    "referrer",
    "user_agent",
    "token",
];

/// The clicks that are asked for.
///
/// # Errors
///
/// [`Error::parameter_name`] names a wrong parameter.
pub fn clicks<'a>(
    view: &'a View,
    catalog: &'a Catalog,
    parameters: &Parameters,
    now: Timestamp,
    format: Format,
) -> Result<Selection<'a>> {
    check_filters(parameters, &CLICK_COLUMNS, catalog)?;
    let span = Span::parse(parameters, catalog, now, Grain::Millisecond)?;
    let end = |time_ms| ClickKey {
        time_ms,
        stream: 0,
        sequence: 0,
    };
    let mut before = span.to_ms.map_or(ClickKey::from_bytes([0xff; 16]), end);
    if let Some(after) = parameters.get("after") {
        let id = ClickKey::parse(after)
            .ok_or_else(|| Error::parameter("after", "is not the id of a click"))?;
        before = before.min(id);
    }
    let pages = ClickPages {
        view,
        catalog,
        before: Some(before),
        from_ms: span.from_ms.unwrap_or(0),
    };
    Selection::new(Box::new(pages), parameters, format)
}

struct ClickPages<'a> {
    view: &'a View,
    catalog: &'a Catalog,
    /// `None` at the end.
    before: Option<ClickKey>,
    from_ms: u64,
}

impl Pages for ClickPages<'_> {
    fn columns(&self) -> &'static [&'static str] {
        &CLICK_COLUMNS
    }

    fn next_rows(&mut self) -> Result<Vec<(String, Vec<Cell>)>> {
        let Some(before) = self.before else {
            return Ok(Vec::new());
        };
        let found = self.view.clicks_before(before, self.from_ms, PAGE_ROWS)?;
        self.before = found.last().map(|click| click.key);
        let row = |kept: &KeptClick| {
            let key = kept.key;
            let click = Click::decode(kept.facts.as_slice()).map_err(|source| {
                let text = format!("click {key} does not decode: {source}");
                Error::from(store::Error::other(text))
            })?;
            Ok((
                key.to_string(),
                cells(self.catalog, key, click, &kept.labels),
            ))
        };
        found.iter().map(row).collect()
    }
}

fn cells(catalog: &Catalog, key: ClickKey, click: Click, found_later: &[u32]) -> Vec<Cell> {
    let reason = match click.reason() {
        // As in reports: of several, the lowest code.
        Reason::None => found_later.iter().min().copied().unwrap_or(0),
        reason => reason as u32,
    };
    let labels: Vec<String> = click
        .labels()
        .map(|label| word(label.as_str_name(), "LABEL_"))
        .collect();
    let numbered = |number: u64, name: String| {
        if number == 0 {
            Cell::Empty
        } else {
            Cell::text(name)
        }
    };
    // As in reports. A click that went to no shop names its offer alone.
    let advertiser = match click.advertiser {
        0 => names::advertiser_of(catalog, click.offer),
        named => named,
    };
    vec![
        Cell::text(moment(key.time_ms)),
        Cell::text(key.to_string()),
        Cell::text(names::offer(catalog, click.offer)),
        Cell::text(names::affiliate(catalog, click.affiliate)),
        Cell::text(names::advertiser(catalog, advertiser)),
        Cell::text(names::link(catalog, click.link)),
        numbered(click.domain.into(), names::domain(catalog, click.domain)),
        Cell::text(word(click.class().as_str_name(), "CLASS_")),
        Cell::text(word(click.decision().as_str_name(), "DECISION_")),
        Cell::text(names::reason(reason)),
        Cell::text(labels.join(" ")),
        Cell::text(word(click.consent().as_str_name(), "CONSENT_")),
        Cell::text(click.source),
        Cell::text(click.creative),
        Cell::text(click.page),
        Cell::text(click.ext),
        Cell::text(click.coupon),
        Cell::text(click.cost),
        Cell::text(click.sub1),
        Cell::text(click.sub2),
        Cell::text(click.sub3),
        Cell::text(click.sub4),
        Cell::text(click.sub5),
        Cell::text(click.sub6),
        Cell::text(click.sub7),
        Cell::text(click.sub8),
        Cell::text(click.sub9),
        Cell::text(click.sub10),
        Cell::text(click.network),
        Cell::text(click.referrer_host),
        Cell::text(click.user_agent),
        Cell::Flag(click.token_issued),
    ]
}
