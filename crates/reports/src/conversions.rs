//! The list of conversions, the newest first: what each goal of each order has become, also of orders without an id.

use catalog::Catalog;
use domain::ClickKey;
use domain::event::{Conversion, Match, Reason};
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use prost::Message;
use store::{ConversionPlace, KeptConversion, OrderKey, View};

use crate::error::Kind;
use crate::list::{Cell, Pages, Selection, moment, word};
use crate::query::{Grain, Parameters, Span, check_filters};
use crate::{Error, Format, Result, names};

/// Conversions of one short read.
const PAGE_ROWS: u32 = 500;

/// The columns; each but the time is a filter too.
pub const CONVERSION_COLUMNS: [&str; 35] = [
    "time",
    "changed",
    "order",
    "goal",
    "advertiser",
    "status",
    "reason",
    "paid",
    "offer",
    "affiliate",
    "link",
    "click",
    "click_time",
    "matched",
    "amount",
    "currency",
    "revenue",
    "revenue_currency",
    "payout",
    "payout_currency",
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
    "ext",
    "source",
    "creative",
    "page",
    "coupon",
];

/// How an order found its click. Without a comma, which separates what a filter is given.
pub(crate) const MATCHED: [&str; 3] = ["token", "token (its click has not arrived)", "by hand"];

/// The conversions that are asked for. An order without an id is called `token:…`.
///
/// # Errors
///
/// [`Error::parameter_name`] names a wrong parameter.
pub fn conversions<'a>(
    view: &'a View,
    catalog: &'a Catalog,
    parameters: &Parameters,
    now: Timestamp,
    format: Format,
) -> Result<Selection<'a>> {
    check_filters(parameters, &CONVERSION_COLUMNS, catalog)?;
    let span = Span::parse(parameters, catalog, now, Grain::Millisecond)?;
    let mut before = ConversionPlace {
        time_ms: span.to_ms.unwrap_or(u64::MAX),
        key: OrderKey {
            advertiser: 0,
            order: String::new(),
        },
        goal: String::new(),
    };
    if let Some(after) = parameters.get("after") {
        let place = parse_place(after).ok_or_else(|| {
            Error::parameter("after", "is not what a page before said to go on behind")
        })?;
        if place.time_ms < before.time_ms {
            before = place;
        }
    }
    let pages = ConversionPages {
        view,
        catalog,
        before: Some(before),
        from_ms: span.from_ms.unwrap_or(0),
    };
    Selection::new(Box::new(pages), parameters, format)
}

fn place_text(place: &ConversionPlace) -> String {
    let text = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    format!(
        "{}-{}-{}-{}",
        place.time_ms,
        place.key.advertiser,
        text(&place.key.order),
        text(&place.goal)
    )
}

fn parse_place(text: &str) -> Option<ConversionPlace> {
    let parts: Vec<&str> = text.split('-').collect();
    let [time_ms, advertiser, order, goal] = parts[..] else {
        return None;
    };
    let text = |part: &str| {
        let decoded = percent_decode_str(part).decode_utf8();
        decoded.ok().map(std::borrow::Cow::into_owned)
    };
    Some(ConversionPlace {
        time_ms: time_ms.parse().ok()?,
        key: OrderKey {
            advertiser: advertiser.parse().ok()?,
            order: text(order)?,
        },
        goal: text(goal)?,
    })
}

struct ConversionPages<'a> {
    view: &'a View,
    catalog: &'a Catalog,
    /// `None` at the end.
    before: Option<ConversionPlace>,
    from_ms: u64,
}

impl Pages for ConversionPages<'_> {
    fn columns(&self) -> &'static [&'static str] {
        &CONVERSION_COLUMNS
    }

    fn next_rows(&mut self) -> Result<Vec<(String, Vec<Cell>)>> {
        let Some(before) = &self.before else {
            return Ok(Vec::new());
        };
        let found = self
            .view
            .conversions_before(before, self.from_ms, PAGE_ROWS)?;
        self.before = found.last().map(|kept| kept.place.clone());
        let row = |kept: KeptConversion| {
            let conversion = Conversion::decode(kept.bytes.as_slice())
                .map_err(|source| Error::new(Kind::Event(source)))?;
            let cursor = place_text(&kept.place);
            Ok((cursor, cells(self.catalog, kept, conversion)))
        };
        found.into_iter().map(row).collect()
    }
}

fn cells(catalog: &Catalog, kept: KeptConversion, conversion: Conversion) -> Vec<Cell> {
    let click = conversion.click.as_ref().map(ClickKey::from);
    let reason = match conversion.reason() {
        Reason::None => Cell::Empty,
        reason => Cell::text(reason.name()),
    };
    let matched = match conversion.r#match() {
        Match::Unspecified => Cell::Empty,
        Match::Token if conversion.facts_pending => Cell::text(MATCHED[1]),
        Match::Token => Cell::text(MATCHED[0]),
        Match::Operator => Cell::text(MATCHED[2]),
    };
    let status = word(conversion.status().as_str_name(), "STATUS_");
    let money = |micros: i64, currency: &str| match (micros, currency) {
        (0, "") => Cell::Empty,
        (micros, _) => Cell::Money(micros),
    };
    let mut cells = vec![
        Cell::text(moment(conversion.time_ms)),
        Cell::text(moment(conversion.changed_ms)),
        Cell::text(kept.place.key.order),
        Cell::text(conversion.goal),
        Cell::text(names::advertiser(catalog, conversion.advertiser)),
        Cell::text(status),
        reason,
        Cell::Flag(!conversion.after.is_empty()),
        Cell::text(names::offer(catalog, conversion.offer)),
        Cell::text(names::affiliate(catalog, conversion.affiliate)),
        Cell::text(names::link(catalog, conversion.link)),
        click.map_or(Cell::Empty, |click| Cell::text(click.to_string())),
        click.map_or(Cell::Empty, |click| Cell::text(moment(click.time_ms))),
        matched,
        money(conversion.amount_micros, &conversion.currency),
        Cell::text(conversion.currency),
        money(conversion.revenue_micros, &conversion.revenue_currency),
        Cell::text(conversion.revenue_currency),
        money(conversion.payout_micros, &conversion.payout_currency),
        Cell::text(conversion.payout_currency),
    ];
    cells.extend(kept.texts.into_iter().map(Cell::text));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_back() {
        for (order, goal) in [("A-1", "sale"), ("", ""), ("x%/ü-", "two-step")] {
            let place = ConversionPlace {
                time_ms: 1_795_176_000_000,
                key: OrderKey {
                    advertiser: 7,
                    order: order.to_owned(),
                },
                goal: goal.to_owned(),
            };
            assert_eq!(parse_place(&place_text(&place)), Some(place));
        }
        for wrong in ["", "1-2-3", "1-2-3-4-5", "x-2-3-4", "1-2-%ff-4"] {
            assert_eq!(parse_place(wrong), None, "{wrong}");
        }
    }
}
