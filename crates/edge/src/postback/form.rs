//! What a postback's sender wrote: the query and the body, a form or JSON, as names and values.

use std::collections::BTreeMap;

use domain::placeholder;
use hyper::header::{self, HeaderMap};
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::parameters::{self, PARAMETERS_MAX};

/// Windows programs put it before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyKind {
    Form,
    Json,
}

impl BodyKind {
    /// `None` for one that is not read. Simple senders name no type, or a form's for JSON: what is no form is found out
    /// from the body.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else {
            return Some(Self::Form);
        };
        let text = value.to_str().ok()?;
        let name = text.split(';').next().unwrap_or_default().trim();
        match name.to_ascii_lowercase().as_str() {
            "" | "application/x-www-form-urlencoded" | "text/plain" => Some(Self::Form),
            "application/json" | "text/json" => Some(Self::Json),
            name if name.starts_with("application/") && name.ends_with("+json") => Some(Self::Json),
            _ => None,
        }
    }
}

/// A value as it is understood: without the blanks around it, which identify nothing.
#[derive(Clone, Debug, Default, PartialEq)]
struct Value {
    text: String,
    /// Whether it is not UTF-8 and stands there percent-encoded.
    is_encoded: bool,
}

/// The parameters of a postback. Of a repeated one the first counts, and the query's come first.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Form {
    values: BTreeMap<String, Value>,
    /// Whether all of it was there and could be read.
    is_whole: bool,
}

impl Form {
    /// Reads query and body; without the body that was announced, what the query says.
    pub(crate) fn read(query: &str, body: Option<(BodyKind, &[u8])>) -> Self {
        let mut form = Self {
            values: BTreeMap::new(),
            is_whole: body.is_some(),
        };
        form.add_form(query.as_bytes());
        let Some((kind, body)) = body else {
            return form;
        };
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let body = body.trim_ascii();
        if kind == BodyKind::Form && !body.starts_with(b"{") {
            form.add_form(body);
        } else if !body.is_empty() {
            form.is_whole = form.add_json(body).is_some();
        }
        form
    }

    fn add_form(&mut self, text: &[u8]) {
        for parameter in parameters::read(text) {
            let is_encoded = parameter.value.is_encoded;
            self.add(&parameter.name, &parameter.value.text, is_encoded);
        }
    }

    /// Adds the members of a flat object, numbers as they are written. `None` for anything else, which is not read.
    fn add_json(&mut self, body: &[u8]) -> Option<()> {
        let Members(members) = serde_json::from_slice(body).ok()?;
        for (name, value) in members {
            let raw = value.get();
            let name = name.trim().to_ascii_lowercase();
            match raw.as_bytes().first()? {
                b'{' | b'[' => return None,
                b'"' => {
                    let text: String = serde_json::from_str(raw).ok()?;
                    self.add(&name, &text, false);
                }
                b'n' => {}
                _ => self.add(&name, raw, false),
            }
        }
        Some(())
    }

    fn add(&mut self, name: &str, text: &str, is_encoded: bool) {
        if self.values.len() < PARAMETERS_MAX && !self.values.contains_key(name) {
            let text = text.trim().to_owned();
            self.values
                .insert(name.to_owned(), Value { text, is_encoded });
        }
    }

    /// The value of a parameter; empty where there is none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", |value| &value.text)
    }

    /// Whether everything that was sent was read, and no value could end a line of a log or of a file.
    pub(crate) fn is_sound(&self) -> bool {
        let is_hostile = |text: &str| text.contains(['\r', '\n', '\0']);
        self.is_whole
            && !self
                .values
                .iter()
                .any(|(name, value)| is_hostile(name) || is_hostile(&value.text))
    }

    /// Whether a value is not UTF-8.
    pub(crate) fn is_encoded(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| value.is_encoded)
    }

    /// Whether a value is there and can name nothing: a placeholder that nobody filled in, or a program's word for a missing
    /// value.
    pub(crate) fn is_placeholder(&self, name: &str) -> bool {
        let text = self.text(name);
        !text.is_empty() && placeholder::identifies_nothing(text)
    }

    /// Names that mean nothing here. Only what looks like a name is told: what was meant to be a value may be a secret.
    pub(crate) fn ignored<'f>(&'f self, known: &'f [&str]) -> impl Iterator<Item = &'f str> {
        const NAME_BYTES_MAX: usize = 24;
        let names = self.values.keys().map(String::as_str);
        names.filter(move |name| {
            !known.contains(name)
                && name.len() <= NAME_BYTES_MAX
                && name.starts_with(|c: char| c.is_ascii_lowercase())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b))
                && name.bytes().filter(u8::is_ascii_digit).count() <= 2
        })
    }
}

/// The members of an object in their order, repeated ones included.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, kind: BodyKind, body: &[u8]) -> String {
        let form = Form::read(query, Some((kind, body)));
        let values: Vec<String> = form
            .values
            .iter()
            .map(|(name, value)| format!("{name}={}", value.text))
            .collect();
        match form.is_whole {
            true => values.join(" "),
            false => format!("{} (broken)", values.join(" ")),
        }
    }

    #[test]
    fn a_body_is_read_as_it_is_written() {
        use BodyKind::{Form, Json};
        for (query, kind, body, expected) in [
            (
                "",
                Form,
                &b"order=1001&amount=80.00"[..],
                "amount=80.00 order=1001",
            ),
            ("order=1", Form, b"order=2&goal=sale", "goal=sale order=1"),
            ("", Form, b"order=1&order=2", "order=1"),
            ("", Form, b"\xef\xbb\xbforder=1\r\n", "order=1"),
            (
                "",
                Form,
                b"order=%201001&goal=sale+",
                "goal=sale order=1001",
            ),
            (
                "",
                Form,
                b"token=t&amp;Order=s6&AMP;amount=5",
                "amount=5 order=s6 token=t",
            ),
            // Numbers as they are written: 80.10 is not 80.1, and 1e3 is no amount.
            (
                "",
                Json,
                br#"{"order": 1001, "amount": 80.10}"#,
                "amount=80.10 order=1001",
            ),
            (
                "",
                Json,
                br#"{"order": 900719925474099312345}"#,
                "order=900719925474099312345",
            ),
            (
                "",
                Json,
                br#"{"Order": " 7 ", "goal": null, "test": true}"#,
                "order=7 test=true",
            ),
            (
                "",
                Json,
                b"\xef\xbb\xbf {\"order\":\"h\\u00f6he\"}\n",
                "order=h\u{f6}he",
            ),
            ("", Json, br#"{"order":"1","order":"2"}"#, "order=1"),
            ("token=t", Json, b"", "token=t"),
            // JSON under the name of a form, as curl -d sends it.
            ("", Form, br#"{"order": "1"}"#, "order=1"),
            // What is no flat object.
            (
                "order=1",
                Json,
                br#"{"order": {"id": 2}}"#,
                "order=1 (broken)",
            ),
            ("order=1", Json, br#"[{"order": 2}]"#, "order=1 (broken)"),
            ("order=1", Json, b"order=2", "order=1 (broken)"),
            ("order=1", Json, b"{\"order\":\"\xff\"}", "order=1 (broken)"),
            ("order=1", Json, b"\xff\xfe{\0", "order=1 (broken)"),
        ] {
            let read = read(query, kind, body);
            assert_eq!(read, expected, "{query} {}", body.escape_ascii());
        }
    }

    #[test]
    fn types_that_are_not_read_are_told_apart() {
        for (kind, expected) in [
            (
                "application/x-www-form-urlencoded; charset=ISO-8859-1",
                Some(BodyKind::Form),
            ),
            ("text/plain", Some(BodyKind::Form)),
            ("Application/JSON; charset=utf-8", Some(BodyKind::Json)),
            ("application/vnd.shop.v1+json", Some(BodyKind::Json)),
            ("multipart/form-data; boundary=x", None),
            ("application/xml", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            assert_eq!(BodyKind::of(&headers), expected, "{kind}");
        }
        assert_eq!(BodyKind::of(&HeaderMap::new()), Some(BodyKind::Form));
    }

    #[test]
    fn a_value_in_the_place_of_a_name_is_not_echoed() {
        let form = Form::read(
            "0123456789abcdef&order=1&utm_source=x&sub1=y&a1b2c3d4=z",
            None,
        );
        let ignored: Vec<&str> = form.ignored(&["order"]).collect();
        assert_eq!(ignored, ["sub1", "utm_source"]);
    }
}
