//! The location: the offer's destination with its macros filled in.

use bytes::{BufMut, BytesMut};
use catalog::{MacroName, Part};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};

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
pub fn render(route: &Route<'_>, params: &Params<'_>, token: Option<&[u8]>, out: &mut BytesMut) {
    let start = out.len();
    // Only the destination's own text can say that the query waits for its next pair: a raw value may end with anything.
    let mut open = false;
    for part in &route.offer_entry.destination.parts {
        let joint_open = std::mem::replace(&mut open, false);
        match part {
            Part::Text(text) => {
                out.extend_from_slice(text.as_bytes());
                open = matches!(text.as_bytes().last(), Some(b'?' | b'&'));
            }
            Part::Macro { name, raw } => {
                let value = value(route, params, token, *name);
                let written = &out[start..];
                if *raw {
                    extend(out, value, RAW);
                } else if matches!(value, b"." | b"..")
                    && !written.iter().any(|b| matches!(b, b'?' | b'#'))
                {
                    // No encoding keeps a path's dots from being resolved.
                    out.extend(value.iter().map(|_| b'_'));
                } else {
                    extend(out, value, VALUE);
                }
            }
            Part::Param(name) => {
                if let Some(token) = token {
                    let joint: &[u8] =
                        match (joint_open, memchr::memchr(b'?', &out[start..]).is_some()) {
                            (true, _) => b"",
                            (false, true) => b"&",
                            (false, false) => b"?",
                        };
                    out.extend_from_slice(joint);
                    out.extend_from_slice(name.as_bytes());
                    out.put_u8(b'=');
                    // Its characters are unreserved.
                    out.extend_from_slice(token);
                }
            }
        }
    }
}

fn extend(out: &mut BytesMut, value: &[u8], set: &'static AsciiSet) {
    // Names, tokens and most sub ids have nothing to encode.
    if value.iter().all(|b| UNRESERVED[usize::from(*b)]) {
        out.extend_from_slice(value);
    } else {
        out.extend(percent_encode(value, set).flat_map(str::bytes));
    }
}

/// The characters that no set encodes (RFC 3986 §2.3), by their number.
const UNRESERVED: [bool; 256] = {
    let mut unreserved = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        unreserved[byte] = b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    unreserved
};

fn value<'v>(
    route: &Route<'v>,
    params: &'v Params<'_>,
    token: Option<&'v [u8]>,
    name: MacroName,
) -> &'v [u8] {
    let parameter = match name {
        MacroName::Affiliate => return route.affiliate_entry.name.as_bytes(),
        MacroName::Offer => return route.offer_entry.name.as_bytes(),
        MacroName::Link => return route.link_entry.map_or(b"", |link| link.slug().as_bytes()),
        MacroName::Sub(at) => {
            let sub = route.subs.get(usize::from(at));
            return sub.map_or(b"", |sub| sub.as_bytes());
        }
        MacroName::Token => return token.unwrap_or(b""),
        MacroName::Source => &params.source,
        MacroName::Creative => &params.creative,
        MacroName::Page => &params.page,
        MacroName::Ext => &params.ext,
        MacroName::Coupon => &params.coupon,
    };
    parameter.as_deref().unwrap_or("").as_bytes()
}
