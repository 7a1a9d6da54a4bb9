//! The location: the offer's destination with its macros filled in.

use std::fmt::Write;

use catalog::{MacroName, Part};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{Params, Route};

/// Everything but the unreserved characters of RFC 3986: a value stays within its place.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A raw value may bring path, query and escapes of its own, never what ends a header or an attribute, hides what
/// follows in a fragment, or is read as another character by some parser. Non-ASCII is always encoded.
const RAW: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'\'')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}')
    .add(b'#');

/// Appends the location of a route to `out`; `token` is `None` where none may be issued.
pub fn render(route: &Route<'_>, params: &Params<'_>, token: Option<&str>, out: &mut String) {
    let start = out.len();
    // Only the destination's own text can say that the query waits for its next pair: a raw value may end with anything.
    let mut open = false;
    for part in &route.offer_entry.destination.parts {
        let joint_open = std::mem::replace(&mut open, false);
        match part {
            Part::Text(text) => {
                out.push_str(text);
                open = text.ends_with(['?', '&']);
            }
            Part::Macro { name, raw } => {
                let value = value(route, params, token, *name);
                let written = &out[start..];
                if *raw {
                    extend(out, value, RAW);
                } else if matches!(value, "." | "..") && !written.contains(['?', '#']) {
                    // No encoding keeps a path's dots from being resolved.
                    out.extend(value.chars().map(|_| '_'));
                } else {
                    extend(out, value, VALUE);
                }
            }
            Part::Param(name) => {
                if let Some(token) = token {
                    out.push_str(match (joint_open, out[start..].contains('?')) {
                        (true, _) => "",
                        (false, true) => "&",
                        (false, false) => "?",
                    });
                    out.push_str(name);
                    out.push('=');
                    extend(out, token, VALUE);
                }
            }
        }
    }
}

fn extend(out: &mut String, value: &str, set: &'static AsciiSet) {
    write!(out, "{}", utf8_percent_encode(value, set)).expect("writing to a string does not fail");
}

fn value<'v>(
    route: &Route<'v>,
    params: &'v Params<'_>,
    token: Option<&'v str>,
    name: MacroName,
) -> &'v str {
    let parameter = match name {
        MacroName::Affiliate => return &route.affiliate_entry.name,
        MacroName::Offer => return &route.offer_entry.name,
        MacroName::Link => return route.link_entry.map_or("", |link| &link.slug),
        MacroName::Sub(at) => return route.subs.get(usize::from(at)).copied().unwrap_or(""),
        MacroName::Token => return token.unwrap_or(""),
        MacroName::Source => &params.source,
        MacroName::Creative => &params.creative,
        MacroName::Page => &params.page,
        MacroName::Ext => &params.ext,
        MacroName::Coupon => &params.coupon,
    };
    parameter.as_deref().unwrap_or("")
}
