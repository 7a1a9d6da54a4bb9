//! Where a click goes: an address with macros, parsed once when the catalog is checked.
//!
//! Parsers of addresses differ, so the text is parsed by `url` with a placeholder for each macro, and what is kept is
//! the serialized form cut at the placeholders: a redirect is plain concatenation and meets no parser.

use serde::{Deserialize, Serialize};
use url::Url;

use text::nearest;

use crate::SUBS;

/// Longest destination: browsers and shops cut what is much longer.
pub const DESTINATION_BYTES_MAX: usize = 2048;

/// An http or https address with macros in its path, query or fragment.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq, Debug)]
pub struct Destination {
    /// In order; together they are the address.
    pub parts: Vec<Part>,
}

/// A piece of a destination.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq, Debug)]
pub enum Part {
    /// Emitted as it is.
    Text(String),
    /// Replaced by a value of the click.
    Macro {
        /// Which value.
        name: MacroName,
        /// Not percent-encoded, but for what could end or split the header.
        raw: bool,
    },
    /// The click's token as a parameter of its own, `?name=TOKEN` or `&name=TOKEN`; left out whole when there is no token.
    Param(String),
}

/// A value of the click.
#[derive(Clone, Copy, Serialize, Deserialize, PartialEq, Eq, Debug)]
pub enum MacroName {
    /// The affiliate's name.
    Affiliate,
    /// The offer's name.
    Offer,
    /// The link's slug.
    Link,
    /// The parameter of that name.
    Source,
    /// The parameter of that name.
    Creative,
    /// The parameter of that name.
    Page,
    /// The parameter of that name.
    Ext,
    /// The parameter of that name.
    Coupon,
    /// A sub id, counted from 0: `{sub1}` is 0.
    Sub(u8),
    /// The click's token.
    Token,
}

const NAMES: [(&str, MacroName); 9 + SUBS] = [
    ("affiliate", MacroName::Affiliate),
    ("offer", MacroName::Offer),
    ("link", MacroName::Link),
    ("source", MacroName::Source),
    ("creative", MacroName::Creative),
    ("page", MacroName::Page),
    ("ext", MacroName::Ext),
    ("coupon", MacroName::Coupon),
    ("token", MacroName::Token),
    ("sub1", MacroName::Sub(0)),
    ("sub2", MacroName::Sub(1)),
    ("sub3", MacroName::Sub(2)),
    ("sub4", MacroName::Sub(3)),
    ("sub5", MacroName::Sub(4)),
    ("sub6", MacroName::Sub(5)),
    ("sub7", MacroName::Sub(6)),
    ("sub8", MacroName::Sub(7)),
    ("sub9", MacroName::Sub(8)),
    ("sub10", MacroName::Sub(9)),
];

/// A mistake in an address: what is wrong, and the macro that was probably meant.
pub(crate) type Mistake = (String, Option<String>);

impl Destination {
    /// Reads an address; `click_param` gets the token unless the address says `{token}` itself.
    pub(crate) fn parse(text: &str, click_param: &str) -> Result<Self, Vec<Mistake>> {
        let (mut parts, url) = address(text)?;
        let names_token = parts.iter().any(|part| {
            matches!(
                part,
                Part::Macro {
                    name: MacroName::Token,
                    ..
                }
            )
        });
        if !names_token {
            if url.query_pairs().any(|(name, _)| name == click_param) {
                return Err(vec![(
                    format!(
                        "already has a parameter \"{click_param}\", where the click token goes: write {click_param}={{token}}"
                    ),
                    None,
                )]);
            }
            append_param(&mut parts, click_param);
        }
        Ok(Self { parts })
    }

    /// The address up to its first macro; scheme and host always lie in it.
    pub fn head(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }
}

/// Reads an address that may have no macros.
pub(crate) fn plain_address(text: &str) -> Result<String, Vec<Mistake>> {
    let (parts, url) = address(text)?;
    match &parts[..] {
        [Part::Text(_)] => Ok(url.into()),
        _ => Err(vec![("macros are not filled in here".to_owned(), None)]),
    }
}

/// Splits an address at its macros; also the address with placeholders, as parsed.
fn address(text: &str) -> Result<(Vec<Part>, Url), Vec<Mistake>> {
    let mistake = |message: &str| Err(vec![(message.to_owned(), None)]);
    if text.len() > DESTINATION_BYTES_MAX {
        return mistake(&format!("longer than {DESTINATION_BYTES_MAX} bytes"));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return mistake(
            "an address has no spaces and no control characters: write them as %20 and the like",
        );
    }
    if let Some(entity) = ["&amp;", "&#38;", "&#x26;"]
        .into_iter()
        .find(|e| text.contains(e))
    {
        return mistake(&format!(
            "\"{entity}\" is how HTML writes \"&\": write \"&\""
        ));
    }
    if text.contains('\\') {
        return mistake("an address has no backslash");
    }
    let Some(rest) = after_scheme(text) else {
        return mistake("expected an address that starts with https:// or http://");
    };
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    if authority.contains(['{', '}']) {
        return mistake("a macro may stand in path, query and fragment, never in scheme or host");
    }
    if authority.contains('@') {
        return mistake("an address has no user name or password");
    }
    if authority.is_empty() {
        return mistake("an address has a host");
    }
    let pieces = split(text)?;

    // A placeholder that occurs nowhere in the text, and that no parser changes.
    let lower = text.to_ascii_lowercase();
    let mark = (0..)
        .map(|n| format!("mq{n}x"))
        .find(|mark| !lower.contains(mark.as_str()))
        .expect("a text of bounded length does not hold every number");
    let mut marked = String::new();
    let mut macros = Vec::new();
    for piece in pieces {
        match piece {
            Part::Text(text) => marked.push_str(&text),
            piece => {
                marked.push_str(&mark);
                macros.push(piece);
            }
        }
    }
    let url = match Url::parse(&marked) {
        Ok(url) => url,
        Err(error) => return mistake(&format!("not an address: {error}")),
    };
    if !matches!(url.scheme(), "http" | "https") {
        return mistake("expected an address that starts with https:// or http://");
    }
    if url.host_str().is_none_or(|host| host.contains(&mark)) {
        return mistake("a macro may stand in path, query and fragment, never in scheme or host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return mistake("an address has no user name or password");
    }
    let texts: Vec<&str> = url.as_str().split(mark.as_str()).collect();
    if texts.len() != macros.len() + 1 {
        return mistake("a macro is lost where \"..\" in the path is resolved");
    }
    let mut parts = Vec::new();
    let mut macros = macros.into_iter();
    for text in texts {
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
        parts.extend(macros.next());
    }
    Ok((parts, url))
}

fn after_scheme(text: &str) -> Option<&str> {
    ["https://", "http://"].into_iter().find_map(|scheme| {
        let (head, rest) = text.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Cuts a text at its macros, or says which are unknown.
fn split(text: &str) -> Result<Vec<Part>, Vec<Mistake>> {
    let mut parts = Vec::new();
    let mut mistakes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        parts.push(Part::Text(before.to_owned()));
        let Some((name, after)) = from
            .strip_prefix('{')
            .and_then(|inside| inside.split_once('}'))
        else {
            mistakes.push((
                "a brace without its other half: write %7B and %7D for plain ones".to_owned(),
                None,
            ));
            break;
        };
        match macro_of(name) {
            Some(part) => parts.push(part),
            None => mistakes.push(unknown(name)),
        }
        rest = after;
    }
    parts.push(Part::Text(rest.to_owned()));
    if mistakes.is_empty() {
        Ok(parts)
    } else {
        Err(mistakes)
    }
}

fn macro_of(text: &str) -> Option<Part> {
    let (name, raw) = match text.strip_suffix("_raw") {
        Some(name) => (name, true),
        None => (text, false),
    };
    let (_, name) = NAMES.into_iter().find(|(known, _)| *known == name)?;
    Some(Part::Macro { name, raw })
}

fn unknown(text: &str) -> Mistake {
    let (name, suffix) = match text.strip_suffix("_raw") {
        Some(name) => (name, "_raw"),
        None => (text, ""),
    };
    let near = nearest(name, NAMES.iter().map(|(known, _)| *known));
    (
        format!("unknown macro {{{text}}}"),
        near.map(|near| format!("{{{near}{suffix}}}")),
    )
}

/// The token goes to the end of the query, before the fragment.
fn append_param(parts: &mut Vec<Part>, name: &str) {
    let param = Part::Param(name.to_owned());
    for at in 0..parts.len() {
        let Part::Text(text) = &parts[at] else {
            continue;
        };
        let Some(hash) = text.find('#') else { continue };
        let fragment = Part::Text(text[hash..].to_owned());
        let before = text[..hash].to_owned();
        let mut middle = vec![param, fragment];
        if !before.is_empty() {
            middle.insert(0, Part::Text(before));
        }
        parts.splice(at..=at, middle);
        return;
    }
    parts.push(param);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match Destination::parse(text, "sl") {
            Ok(destination) => destination
                .parts
                .iter()
                .map(|part| match part {
                    Part::Text(text) => text.clone(),
                    Part::Macro { name, raw } => {
                        format!("[{name:?}{}]", if *raw { "!" } else { "" })
                    }
                    Part::Param(name) => format!("[+{name}]"),
                })
                .collect(),
            Err(mistakes) => format!("{mistakes:?}"),
        }
    }

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("https://Shop.Example", "https://shop.example/[+sl]"),
            (
                "https://shop.example/?a=1#top",
                "https://shop.example/?a=1[+sl]#top",
            ),
            (
                "https://shop.example/{sub1}/x?s={sub10_raw}",
                "https://shop.example/[Sub(0)]/x?s=[Sub(9)!][+sl]",
            ),
            (
                "https://shop.example/?c={token}",
                "https://shop.example/?c=[Token]",
            ),
            (
                "https://shop.example/{sub1}#a{sub2}",
                "https://shop.example/[Sub(0)][+sl]#a[Sub(1)]",
            ),
            (
                "https://shop.example/#{sub2}",
                "https://shop.example/[+sl]#[Sub(1)]",
            ),
            (
                "https://shop.example/mq0x{sub1}mq1x",
                "https://shop.example/mq0x[Sub(0)]mq1x[+sl]",
            ),
            (
                "http://shop.example:8080/ü",
                "http://shop.example:8080/%C3%BC[+sl]",
            ),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn refusals() {
        for (text, expected) in [
            ("ftp://shop.example/", "starts with https:// or http://"),
            ("//shop.example/", "starts with https:// or http://"),
            ("javascript:alert(1)", "starts with https:// or http://"),
            ("https:///shop.example", "has a host"),
            ("https://{sub1}.example/", "never in scheme or host"),
            ("https://shop.example{sub1_raw}", "never in scheme or host"),
            ("https://shop.example:{sub1}/", "never in scheme or host"),
            ("{sub1}://shop.example/", "starts with https:// or http://"),
            ("https://user:pw@shop.example/", "no user name"),
            ("https://@shop.example/", "no user name"),
            ("https://shop.example/\\x", "no backslash"),
            ("https://shop.example/\r\nX: y", "no control characters"),
            ("https://shop.example/{sub1}/../x", "is lost where"),
            ("https://shop.example/{sub1", "without its other half"),
            ("https://shop.example/}", "without its other half"),
            (
                "https://shop.example/{subb1}",
                "unknown macro {subb1}\", Some(\"{sub1}\")",
            ),
            ("https://shop.example/{sub11_raw}", "Some(\"{sub1_raw}\")"),
            ("https://shop.example/?sl=x", "already has a parameter"),
            ("https://sh op.example/", "no spaces"),
            ("https://[::1/", "not an address"),
        ] {
            assert!(shown(text).contains(expected), "{text}: {}", shown(text));
        }
    }
}
