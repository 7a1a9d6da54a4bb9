//! Why a conversion is what it is: the kept explanation of an order, under names.

use std::fmt::Write;

use catalog::Catalog;
use domain::Micros;
use domain::event::{ClickKey, Conversion, Status};
use jiff::Timestamp;
use prost::Message;
use store::View;

use crate::error::Kind;
use crate::{Error, Result, names};

/// What is known of an order, for each advertiser and goal that has one of this name; `None` when nobody has.
///
/// # Errors
///
/// When the store cannot be read.
pub fn explain(view: &View, catalog: &Catalog, order: &str) -> Result<Option<String>> {
    let found = view.orders_by_order(order)?;
    let mut texts = Vec::new();
    for (_, bytes) in &found {
        let conversion = Conversion::decode(bytes.as_slice())
            .map_err(|source| Error::new(Kind::Event(source)))?;
        texts.push(text(catalog, &conversion));
    }
    Ok((!texts.is_empty()).then(|| texts.join("\n")))
}

fn text(catalog: &Catalog, conversion: &Conversion) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<11}{value}");
    };
    line("status", &status(conversion));
    line("time", &time(conversion.time_ms));
    line("offer", &names::offer(catalog, conversion.offer));
    line(
        "affiliate",
        &names::affiliate(catalog, conversion.affiliate),
    );
    if conversion.link != 0 {
        line("link", &names::link(catalog, conversion.link));
    }
    line(
        "click",
        &conversion.click.as_ref().map_or("none".to_owned(), click),
    );
    line(
        "facts",
        match (&conversion.click, conversion.facts_pending) {
            (None, _) => "none: no click is credited",
            (Some(_), true) => "pending: credited by its token, the click itself has not arrived",
            (Some(_), false) => "complete",
        },
    );
    line(
        "amount",
        &money(conversion.amount_micros, &conversion.currency),
    );
    line(
        "revenue",
        &money(conversion.revenue_micros, &conversion.revenue_currency),
    );
    line(
        "payout",
        &money(conversion.payout_micros, &conversion.payout_currency),
    );
    line(
        "paid",
        if conversion.paid {
            "yes: it counts in reports"
        } else {
            "no: it does not count in reports"
        },
    );
    if !conversion.explanation.is_empty() {
        line("because", &plain(&conversion.explanation));
    }
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
            "    {} {}\n      {of}: {}",
            if candidate.credited { "+" } else { "-" },
            candidate
                .click
                .as_ref()
                .map_or("no click".to_owned(), click),
            plain(&candidate.rule)
        );
    }
    format!(
        "order {} of {}, goal {}, revision {}\n{}",
        plain(&conversion.order),
        names::advertiser(catalog, conversion.advertiser),
        names::goal(catalog, conversion.goal),
        conversion.revision,
        text.lines()
            .map(str::trim_end)
            .fold(String::new(), |text, line| text + line + "\n")
    )
}

fn status(conversion: &Conversion) -> String {
    let status = match conversion.status() {
        Status::Unspecified => "unknown",
        Status::Pending => "pending",
        Status::Approved => "approved",
        Status::Rejected => "rejected",
        Status::Reversed => "reversed",
    };
    match u32::try_from(conversion.reason) {
        Ok(0) => status.to_owned(),
        code => format!("{status} ({})", names::reason(code.unwrap_or(u32::MAX))),
    }
}

fn money(micros: i64, currency: &str) -> String {
    if currency.is_empty() && micros == 0 {
        return "none".to_owned();
    }
    format!("{} {}", Micros(micros), plain(currency))
}

fn click(key: &ClickKey) -> String {
    format!(
        "{} ({:08x}-{})",
        time(key.time_ms),
        key.stream,
        key.sequence
    )
}

fn time(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| format!("{ms} ms"), |time| format!("{time:.3}"))
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
