//! The parameters of a query or a form: the one place where clicks and postbacks read names and values.
//!
//! Names are what people type and tools copy, so they are read without regard to case, and `amp;` before one (an address
//! that was copied out of a page's source) is taken off. Blanks around a value identify nothing and are taken off, too:
//! `sub1=mail` and `sub1=mail%20` are one sub id. Else values are never changed in silence: one that is not UTF-8 keeps its
//! bytes in percent-encoded form and says so.

use std::borrow::Cow;

use domain::placeholder;
use routing::Value;

/// How many parameters are read; a tracking URL has 10 to 30.
pub(crate) const PARAMETERS_MAX: usize = 100;

/// A name in lower case, and the value it was given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parameter<'q> {
    pub(crate) name: Cow<'q, str>,
    pub(crate) value: Value<'q>,
}

/// The parameters of a query or a form in their order, repeated ones included, at most [`PARAMETERS_MAX`].
pub(crate) fn read(text: &[u8]) -> impl Iterator<Item = Parameter<'_>> {
    // `/c??offer=…`: somebody joined a query to an address that ended with `?` already.
    let start = text.iter().take_while(|byte| **byte == b'?').count();
    text[start..]
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .take(PARAMETERS_MAX)
        .map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = match at {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &[][..]),
            };
            Parameter {
                name: read_name(name),
                value: read_value(value),
            }
        })
}

fn read_name(raw: &[u8]) -> Cow<'_, str> {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_';
    let value = read_value(raw);
    if raw.iter().all(plain) {
        return value.text;
    }
    let lower = value.text.trim().to_ascii_lowercase();
    let mut name = &*lower;
    while let Some(rest) = name.strip_prefix("amp;") {
        name = rest;
    }
    Cow::Owned(name.to_owned())
}

fn read_value(raw: &[u8]) -> Value<'_> {
    match decode(raw) {
        Cow::Borrowed(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::from(trim(text)),
            Err(_) => Value::of_bytes(trim_spaces(bytes)),
        },
        Cow::Owned(bytes) => match String::from_utf8(bytes) {
            Ok(text) => match trim(&text) {
                trimmed if trimmed.len() == text.len() => Value::from(text),
                trimmed => Value::from(trimmed.to_owned()),
            },
            Err(error) => Value::of_bytes(trim_spaces(error.as_bytes())),
        },
    }
}

/// The text without the blanks around it, also those without a width that come with copied text. Control characters stay:
/// whoever takes them out says so.
pub(crate) fn trim(text: &str) -> &str {
    let may_be_blank = |byte: Option<&u8>| byte.is_some_and(|byte| *byte == b' ' || *byte >= 0x80);
    let bytes = text.as_bytes();
    if !may_be_blank(bytes.first()) && !may_be_blank(bytes.last()) {
        return text;
    }
    text.trim_matches(|c: char| {
        c.is_whitespace() && !c.is_control() || matches!(c, '\u{200b}' | '\u{feff}')
    })
}

/// As [`trim`], for bytes that are not UTF-8.
pub(crate) fn trim_spaces(mut bytes: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = bytes {
        bytes = rest;
    }
    bytes
}

/// The bytes that a form's encoding stands for; a `%` that begins no escape stands for itself.
fn decode(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(raw);
    }
    let digit = |at: usize| Some((*raw.get(at)? as char).to_digit(16)? as u8);
    let mut bytes = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(byte) = raw.get(at) {
        let (byte, length) = match byte {
            b'+' => (b' ', 1),
            b'%' => match placeholder::percent_placeholder_bytes(&raw[at..]) {
                Some(length) => {
                    bytes.extend_from_slice(&raw[at..at + length]);
                    at += length;
                    continue;
                }
                None => match (digit(at + 1), digit(at + 2)) {
                    (Some(high), Some(low)) => (high << 4 | low, 3),
                    _ => (b'%', 1),
                },
            },
            other => (*other, 1),
        };
        bytes.push(byte);
        at += length;
    }
    Cow::Owned(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &[u8]) -> Vec<(String, String, bool)> {
        let parameters = read(text).map(|Parameter { name, value }| {
            (name.into_owned(), value.text.into_owned(), value.is_encoded)
        });
        parameters.collect()
    }

    #[test]
    fn names_and_values_are_read_as_people_mean_them() {
        for (text, expected) in [
            (
                "offer=boots&aff=trailblog",
                &[("offer", "boots"), ("aff", "trailblog")][..],
            ),
            (
                "offer=boots&amp;aff=trailblog",
                &[("offer", "boots"), ("aff", "trailblog")],
            ),
            (
                "a=1&amp;amp;b=2&AMP;c=3",
                &[("a", "1"), ("b", "2"), ("c", "3")],
            ),
            ("OFFER=Boots&Aff=T", &[("offer", "Boots"), ("aff", "T")]),
            ("?offer=a", &[("offer", "a")]),
            ("???offer=a?b", &[("offer", "a?b")]),
            ("&&a=1&&b&", &[("a", "1"), ("b", "")]),
            (
                "%73ub1=x&+sub2+=y&%20Sub3=z",
                &[("sub1", "x"), ("sub2", "y"), ("sub3", "z")],
            ),
            ("sub01=x&sub%2B1=y", &[("sub01", "x"), ("sub+1", "y")]),
            ("a=b=c&=d", &[("a", "b=c"), ("", "d")]),
            ("a=1+2%203%2B4", &[("a", "1 2 3+4")]),
            ("a=%C3%A9&b=é", &[("a", "é"), ("b", "é")]),
            (
                "a=50%&b=%zz&c=%4",
                &[("a", "50%"), ("b", "%zz"), ("c", "%4")],
            ),
            (
                "a=%%CACHEBUSTER%%&b=x+%%CA%%+y",
                &[("a", "%%CACHEBUSTER%%"), ("b", "x %%CA%% y")],
            ),
            ("a=%25%25CLICK%25%25", &[("a", "%%CLICK%%")]),
            // Blanks made two rows of one sub id.
            (
                "sub1=mail&sub2=+mail%20&sub3=%C2%A0mail%E3%80%80&ext=%EF%BB%BFmail%E2%80%8B",
                &[
                    ("sub1", "mail"),
                    ("sub2", "mail"),
                    ("sub3", "mail"),
                    ("ext", "mail"),
                ],
            ),
            (
                "goal=+two+words+&sub1=+%20%C2%A0&sub2=%C3%A9",
                &[("goal", "two words"), ("sub1", ""), ("sub2", "\u{e9}")],
            ),
        ] {
            let read: Vec<_> = pairs(text.as_bytes());
            let read: Vec<_> = read
                .iter()
                .map(|(name, value, encoded)| {
                    assert!(!encoded, "{text}");
                    (&**name, &**value)
                })
                .collect();
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_kept_percent_encoded_and_never_merged() {
        for (text, expected) in [
            (&b"a=%EE%EA%F0%E1"[..], "%EE%EA%F0%E1"),
            (b"a=%E9t%E9", "%E9t%E9"),
            (b"a=%e8t%e8", "%E8t%E8"),
            (b"a=\xe9+%26", "%E9%20%26"),
            (b"a=+%E9+", "%E9"),
        ] {
            let expected = ("a".to_owned(), expected.to_owned(), true);
            assert_eq!(pairs(text), [expected], "{}", text.escape_ascii());
        }
    }

    #[test]
    fn no_more_are_read_than_the_bound() {
        let text = "&a=1".repeat(PARAMETERS_MAX + 50);
        assert_eq!(read(text.as_bytes()).count(), PARAMETERS_MAX);
    }

    proptest! {
        /// Where nothing is amiss the result is that of the URL Standard.
        #[test]
        fn well_formed_text_is_read_as_by_the_standard(
            given in proptest::collection::vec(("[a-z_0-9]{1,8}", "[^%]{0,20}"), 0..20)
        ) {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.extend_pairs(&given);
            let text = form.finish();
            let read: Vec<_> = pairs(text.as_bytes()).into_iter().map(|(name, value, _)| (name, value)).collect();
            let given = given.into_iter().map(|(name, value)| (name, trim(&value).to_owned()));
            let given: Vec<_> = given.collect();
            prop_assert_eq!(read, given);
        }

        /// Two values are the same text only where their bytes are the same, or one was typed in percent-encoded form.
        #[test]
        fn any_bytes_come_through(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            for Parameter { value, .. } in read(&raw) {
                if value.is_encoded {
                    let bytes: Vec<u8> = percent_encoding::percent_decode_str(&value).collect();
                    prop_assert!(std::str::from_utf8(&bytes).is_err());
                    prop_assert_eq!(Value::of_bytes(&bytes), value);
                }
            }
        }
    }
}
