//! A parameter's value.

use std::borrow::Cow;
use std::ops::Deref;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// Everything but the unreserved characters of RFC 3986: a value stays within its place.
pub(crate) const VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A value as text, and what its text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// Decoded, or percent-encoded where the bytes are not UTF-8.
    pub text: Cow<'a, str>,
    /// The bytes are not UTF-8 (old shops and search engines send windows-1251 or Latin-1): the text is their percent-encoded
    /// form, and a destination gets these bytes again.
    pub is_encoded: bool,
}

impl Value<'_> {
    /// The value of bytes that are not UTF-8.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self {
            text: percent_encode(bytes, VALUE).to_string().into(),
            is_encoded: true,
        }
    }
}

impl Deref for Value<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self {
            text: Cow::Borrowed(text),
            is_encoded: false,
        }
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self {
            text: Cow::Owned(text),
            is_encoded: false,
        }
    }
}
