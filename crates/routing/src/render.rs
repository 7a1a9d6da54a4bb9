//! The location: the offer's destination with its macros filled in.

use bytes::{BufMut, BytesMut};
use catalog::{MacroName, Part};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};

use crate::value::VALUE;
use crate::{Params, Route, Value};

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
                let (value, is_encoded) = value(route, params, token, *name);
                let written = &out[start..];
                if is_encoded {
                    extend_encoded(out, value, *raw);
                } else if *raw {
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

/// A value whose text is the percent-encoded form of its bytes.
#[cold]
fn extend_encoded(out: &mut BytesMut, value: &[u8], raw: bool) {
    if raw {
        let bytes: Vec<u8> = percent_decode(value).collect();
        extend(out, &bytes, RAW);
    } else {
        out.extend_from_slice(value);
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

/// The bytes of a macro's value, and whether they are in percent-encoded form already.
fn value<'v>(
    route: &Route<'v>,
    params: &'v Params<'_>,
    token: Option<&'v [u8]>,
    name: MacroName,
) -> (&'v [u8], bool) {
    let known = match name {
        MacroName::Affiliate => route.affiliate_entry.name.as_bytes(),
        MacroName::Offer => route.offer_entry.name.as_bytes(),
        MacroName::Link => route
            .link_entry
            .map_or(&b""[..], |link| link.slug().as_bytes()),
        MacroName::Token => token.unwrap_or_default(),
        MacroName::Sub(at) => {
            let at = usize::from(at);
            let own = params.sub.get(at).and_then(Option::as_ref);
            // The visitor's own one, where it is not empty; see `decide`.
            if own.is_some_and(|own| own.is_encoded) {
                return encoded(own);
            }
            route.subs.get(at).map_or(&b""[..], |sub| sub.as_bytes())
        }
        MacroName::Source => return encoded(params.source.as_ref()),
        MacroName::Creative => return encoded(params.creative.as_ref()),
        MacroName::Page => return encoded(params.page.as_ref()),
        MacroName::Ext => return encoded(params.ext.as_ref()),
        MacroName::Coupon => return encoded(params.coupon.as_ref()),
    };
    (known, false)
}

fn encoded<'v>(value: Option<&'v Value<'_>>) -> (&'v [u8], bool) {
    value.map_or((&[], false), |value| {
        (value.text.as_bytes(), value.is_encoded)
    })
}
