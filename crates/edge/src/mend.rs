//! Links that are not there exactly: the address as it was meant, where what came can be no address of ours.
//!
//! People type a slash at the end, mail programs and messengers take the full stop or bracket behind a link for a part of it,
//! tools join `&sub1=…` to an address without a `?`. This is asked for only where the exact address leads nowhere, so it
//! costs known links nothing and never hides one.

use std::borrow::Cow;

use hyper::Uri;
use percent_encoding::percent_decode_str;
use routing::Params;

/// An address as it may have been meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mended {
    /// The slug; `None` for `/c`.
    pub(crate) slug: Option<String>,
    /// What is to be read as the query.
    pub(crate) query: String,
}

/// What a path or a `link=` that leads nowhere may have meant, the likelier one first; at most two.
pub(crate) fn candidates(uri: &Uri, params: &Params<'_>) -> Vec<Mended> {
    let query = query(uri);
    if uri.path() == "/c" {
        return click_candidates(query, params);
    }
    let (slug, rest) = cut(uri.path());
    let query = joined(&[&rest, query]);
    let mended = shorter(slug).into_iter().map(|slug| Mended {
        slug: (!slug.eq_ignore_ascii_case("c")).then_some(slug),
        query: query.clone(),
    });
    mended.collect()
}

/// Without the second `?` that [`crate::parameters`] takes off: it is to be joined to other parameters.
fn query(uri: &Uri) -> &str {
    uri.query().unwrap_or_default().trim_start_matches('?')
}

fn click_candidates(query: &str, params: &Params<'_>) -> Vec<Mended> {
    let mut names = String::new();
    for (key, value) in [("offer", &params.offer), ("aff", &params.aff)] {
        if let Some(name) = value.as_deref().and_then(name) {
            names = joined(&[&names, &format!("{key}={name}")]);
        }
    }
    let links = match params.link.as_deref().filter(|link| !link.is_empty()) {
        // Of a repeated parameter the first counts.
        Some(link) => {
            let (slug, rest) = cut(link);
            let slugs = shorter(slug).into_iter();
            slugs
                .map(|slug| joined(&[&format!("link={slug}"), &rest]))
                .collect()
        }
        None => vec![String::new()],
    };
    let mended = links.iter().map(|link| Mended {
        slug: None,
        query: joined(&[&names, link, query]),
    });
    mended.collect()
}

/// The address of `/c` or `/postback` where the path means it and is written in another way: `/c/`, `/C`, `/%63`,
/// `/postback/`, `/c&offer=…`. No slug begins with them, in any case, so nothing has to be looked up.
pub(crate) fn reserved(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !may_be_reserved(path.as_bytes()) {
        return None;
    }
    let (slug, rest) = cut(path);
    let path = ["c", "postback"]
        .into_iter()
        .find(|reserved| slug.eq_ignore_ascii_case(reserved))?;
    let query = joined(&[&rest, query(uri)]);
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("/{path}?{query}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// A look at the first letters, which tells most slugs.
fn may_be_reserved(path: &[u8]) -> bool {
    let ends = |rest: &[u8]| {
        !rest
            .first()
            .is_some_and(|byte| is_slug_byte(*byte) && *byte != b'/')
    };
    match path {
        [b'/', b'c' | b'C', rest @ ..] => ends(rest),
        [b'/', b'p' | b'P', rest @ ..] => rest
            .split_at_checked(b"ostback".len())
            .is_some_and(|(word, rest)| word.eq_ignore_ascii_case(b"ostback") && ends(rest)),
        [b'/', first, ..] => !is_slug_byte(*first) || *first == b'/',
        _ => false,
    }
}

/// As the catalog has it.
fn is_slug_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/')
}

/// The slug that a path begins with, without empty segments, and what follows the first character that no slug holds: if
/// anything, parameters behind a wrong joint (`&`, `%3F`, `;`).
fn cut(path: &str) -> (String, Cow<'_, str>) {
    let mut slug = String::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let escape = rest.get(1..3).filter(|_| first == '%');
        let (byte, length) = match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => (Some(byte), 3),
            None => (
                u8::try_from(first).ok().filter(u8::is_ascii),
                first.len_utf8(),
            ),
        };
        rest = &rest[length..];
        match byte.filter(|byte| is_slug_byte(*byte)) {
            Some(byte) => slug.push(byte.into()),
            // Quotes and blanks before the slug.
            None if slug.bytes().all(|byte| byte == b'/') => {}
            None => return (segments(&slug), parameters(rest)),
        }
    }
    (segments(&slug), "".into())
}

/// Without empty ones.
fn segments(slug: &str) -> String {
    let segments: Vec<&str> = slug
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    segments.join("/")
}

/// Somebody encoded the whole query where its `=` is encoded too.
fn parameters(rest: &str) -> Cow<'_, str> {
    let is_encoded = !rest.contains('=') && (rest.contains("%3D") || rest.contains("%3d"));
    match is_encoded {
        true => percent_decode_str(rest).decode_utf8_lossy(),
        false => rest.into(),
    }
}

/// The slug, and without the punctuation of a sentence at its end.
fn shorter(slug: String) -> Vec<String> {
    let short = slug.trim_end_matches(['.', '_', '-', '/']).to_owned();
    let mut slugs = Vec::new();
    for slug in [slug, short] {
        if !slug.is_empty() && !slugs.contains(&slug) {
            slugs.push(slug);
        }
    }
    slugs
}

/// An offer's or affiliate's name without the punctuation and blanks around it. What holds more than these beside a name is
/// none: another affiliate would get the click.
fn name(value: &str) -> Option<String> {
    let name = value
        .trim_matches(|c: char| !c.is_alphanumeric())
        .to_ascii_lowercase();
    let is_name = !name.is_empty() && name.bytes().all(|byte| is_slug_byte(byte) && byte != b'/');
    (is_name && name != value).then_some(name)
}

fn joined(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts
        .iter()
        .copied()
        .filter(|part| !part.is_empty())
        .collect();
    parts.join("&")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uri(target: &str) -> Uri {
        target.parse().expect("a target")
    }

    #[test]
    fn a_slash_a_wrong_joint_or_the_end_of_a_sentence_does_not_lose_the_link() {
        for (target, query) in [
            ("/fall-boots/", ""),
            ("//fall-boots", ""),
            ("/fall-boots//", ""),
            ("/fall-boots/?sub1=a", "sub1=a"),
            ("/fall-boots&sub1=soup", "sub1=soup"),
            ("/fall-boots&amp;sub1=soup?sub2=b", "amp;sub1=soup&sub2=b"),
            ("/fall-boots%3Fsub1=soup", "sub1=soup"),
            ("/fall-boots%3Fsub1%3Dsoup%26sub2%3Db", "sub1=soup&sub2=b"),
            ("/fall-boots%26sub1=a%26b", "sub1=a%26b"),
            ("/fall-boots;sub1=a", "sub1=a"),
            ("/fall-boots,", ""),
            ("/fall-boots)", ""),
            ("/fall-boots%5D", ""),
            ("/fall-boots%3E", ""),
            ("/fall-boots%22", ""),
            ("/fall-boots'", ""),
            ("/fall-boots%20", ""),
            ("/fall-boots%0A", ""),
            ("/fall-boots%E2%80%99", "%80%99"),
            ("/fall-boots%E2%80%8B", "%80%8B"),
            ("/fall-boots%E2%80%A6", "%80%A6"),
            ("/fall-boots%C2%BB", "%BB"),
            ("/%22fall-boots%22", ""),
            ("/%20fall-boots", ""),
            ("/fall%2Dboots/", ""),
        ] {
            let found = candidates(&uri(target), &Params::default());
            let expected = Mended {
                slug: Some("fall-boots".to_owned()),
                query: query.to_owned(),
            };
            assert_eq!(found.first(), Some(&expected), "{target}");
        }
        for target in [
            "/fall-boots.",
            "/fall-boots...",
            "/fall-boots._",
            "/fall-boots./",
        ] {
            let found = candidates(&uri(target), &Params::default());
            assert_eq!(
                found.last().and_then(|last| last.slug.as_deref()),
                Some("fall-boots"),
                "{target}"
            );
        }
        let nothing = candidates(&uri("/%22%20"), &Params::default());
        assert_eq!(nothing, []);
    }

    #[test]
    fn reserved_paths_are_found_however_they_are_written() {
        for (target, expected) in [
            ("/c/?offer=a", Some("/c?offer=a")),
            ("/C?OFFER=A", Some("/c?OFFER=A")),
            ("/%63?offer=a", Some("/c?offer=a")),
            ("//c?offer=a", Some("/c?offer=a")),
            ("/c/??offer=a", Some("/c?offer=a")),
            ("/c&x=1??offer=a", Some("/c?x=1&offer=a")),
            ("/c&offer=a&aff=b", Some("/c?offer=a&aff=b")),
            ("/c%3Foffer=a&aff=b", Some("/c?offer=a&aff=b")),
            ("/postback/?token=a", Some("/postback?token=a")),
            ("/Postback&token=a", Some("/postback?token=a")),
            ("http://go.example/c/?a=1", Some("http://go.example/c?a=1")),
            ("/cat", None),
            ("/c-1", None),
            ("/c/cat", None),
            ("/postbacks", None),
            ("/pos", None),
            ("/fall-boots", None),
            ("/", None),
        ] {
            let found = reserved(&uri(target)).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn names_lose_what_stands_around_them_and_nothing_else() {
        for (value, expected) in [
            ("trailblog)", Some("trailblog")),
            (" trailblog\u{200b}", Some("trailblog")),
            ("Trailblog.", Some("trailblog")),
            ("trailblog", None),
            ("trail blog", None),
            ("trailblog/x", None),
            ("\u{201d}", None),
        ] {
            assert_eq!(name(value).as_deref(), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_mended_to_slugs_or_nothing(path in "/[ -~é…]{0,40}") {
            if let Ok(uri) = path.parse::<Uri>() {
                reserved(&uri);
                for Mended { slug, .. } in candidates(&uri, &Params::default()) {
                    let slug = slug.unwrap_or_else(|| "c".to_owned());
                    prop_assert!(slug.bytes().all(is_slug_byte), "{}", slug);
                    prop_assert!(slug.split('/').all(|segment| !segment.is_empty()), "{}", slug);
                }
            }
        }
    }
}
