//! A request's head, checked: what bare hyper lets through is refused here.

use std::borrow::Cow;

use domain::event::Label;
use domain::placeholder::holds_placeholder;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use routing::{Params, Value};

use crate::parameters::{self, Parameter};

/// Longest request target in bytes; browsers' own limits lie far above, trackers' far below.
pub(crate) const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Longest value of a parameter that is kept.
const VALUE_BYTES_MAX: usize = 255;

/// Longest user agent that is looked at and kept, in bytes; real ones stay below 300.
pub(crate) const USER_AGENT_BYTES_MAX: usize = 512;

/// A request without its body, borrowed: moving one costs more than reading it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'r> {
    pub(crate) method: &'r Method,
    pub(crate) uri: &'r Uri,
    pub(crate) headers: &'r HeaderMap,
}

impl<'r, B> From<&'r Request<B>> for Head<'r> {
    fn from(request: &'r Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
        }
    }
}

impl<'r> From<&'r Parts> for Head<'r> {
    fn from(parts: &'r Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            headers: &parts.headers,
        }
    }
}

/// What the header fields say, each looked at once: finding a field by name costs a hash for every one that is asked for.
#[derive(Debug)]
pub(crate) struct Fields<'r> {
    /// The first Host, and whether there are more.
    host: Option<&'r HeaderValue>,
    hosts: usize,
    /// Cut to the bound; empty where there is none.
    pub(crate) user_agent: &'r [u8],
    referrer: Option<&'r HeaderValue>,
    /// A browser that only looks ahead: `Sec-Purpose: prefetch…` (Fetch standard), or its ancestors `Purpose` and `X-Moz`.
    pub(crate) speculative: bool,
    /// The browser is going somewhere, not loading an image or script. Silence counts as going.
    pub(crate) navigation: bool,
    /// Global Privacy Control: `Sec-GPC: 1`.
    pub(crate) gpc: bool,
    pub(crate) cookie: bool,
}

impl<'r> Fields<'r> {
    pub(crate) fn read(headers: &'r HeaderMap) -> Self {
        let mut fields = Self {
            host: None,
            hosts: 0,
            user_agent: &[],
            referrer: None,
            speculative: false,
            navigation: true,
            gpc: false,
            cookie: false,
        };
        let (mut agent, mut mode) = (None, None);
        for (name, value) in headers {
            match name.as_str() {
                "host" => {
                    fields.host.get_or_insert(value);
                    fields.hosts += 1;
                }
                "user-agent" => _ = agent.get_or_insert(value),
                "referer" => _ = fields.referrer.get_or_insert(value),
                "cookie" => fields.cookie = true,
                "sec-purpose" | "purpose" | "x-moz" => {
                    fields.speculative |= is_prefetch(value.as_bytes());
                }
                "sec-fetch-mode" => _ = mode.get_or_insert(value),
                "sec-gpc" => fields.gpc |= value == "1",
                _ => {}
            }
        }
        if let Some(agent) = agent {
            let agent = agent.as_bytes();
            fields.user_agent = &agent[..agent.len().min(USER_AGENT_BYTES_MAX)];
        }
        fields.navigation = mode.is_none_or(|mode| mode == "navigate");
        fields
    }

    /// The host as it came, where there is exactly one: what a domain's name may be compared with.
    pub(crate) fn plain_host(&self) -> Option<&'r [u8]> {
        let host = self.host.filter(|_| self.hosts == 1)?;
        Some(host.as_bytes())
    }

    /// The host of the page the visitor comes from, ASCII in lower case; empty where none is told.
    pub(crate) fn referrer_host(&self) -> Cow<'r, [u8]> {
        let referrer = self.referrer.map_or(&[][..], HeaderValue::as_bytes);
        let rest = referrer
            .strip_prefix(b"https://")
            .or_else(|| referrer.strip_prefix(b"http://"))
            .or_else(|| {
                let at = referrer.windows(3).position(|window| window == b"://")?;
                Some(&referrer[at + 3..])
            })
            .unwrap_or_default();
        let (mut start, mut end, mut capital) = (0, rest.len(), false);
        for (at, byte) in rest.iter().enumerate() {
            match ADDRESS[usize::from(*byte)] {
                Part::Host => {}
                Part::Capital => capital = true,
                Part::User => start = at + 1,
                Part::Foreign => return Cow::Borrowed(b""),
                Part::End => {
                    end = at;
                    break;
                }
            }
        }
        let host = &rest[start..end.min(start + HOST_BYTES_MAX)];
        match capital {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        }
    }
}

/// What a byte is in the address of a page, after its scheme.
#[derive(Clone, Copy)]
enum Part {
    Host,
    Capital,
    /// What was before it is no host but a user.
    User,
    /// It ends the host.
    End,
    /// Not the address of a page.
    Foreign,
}

const ADDRESS: [Part; 256] = {
    let mut parts = [Part::Foreign; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        parts[byte as usize] = match byte {
            b'/' | b'?' | b'#' => Part::End,
            b'@' => Part::User,
            b'A'..=b'Z' => Part::Capital,
            _ => Part::Host,
        };
        byte += 1;
    }
    parts
};

fn is_prefetch(value: &[u8]) -> bool {
    const WORD: &[u8] = b"prefetch";
    value
        .windows(WORD.len())
        .any(|window| window.eq_ignore_ascii_case(WORD))
}

fn lower_case(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

/// Longest name of a host (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Why a head is refused, in words for the answer.
pub(crate) type Refusal = (StatusCode, &'static str);

/// The request's host in lower case.
pub(crate) struct Host<'r> {
    with_port: Cow<'r, str>,
    name_bytes: usize,
}

impl Host<'_> {
    /// Without port and trailing dot.
    pub(crate) fn name(&self) -> &str {
        &self.with_port[..self.name_bytes]
    }

    /// With the port, where there is one.
    pub(crate) fn with_port(&self) -> &str {
        &self.with_port
    }
}

/// Exactly one well-formed Host (RFC 9112 §3.2); a target in absolute form overrides it.
pub(crate) fn host<'r>(uri: &'r Uri, fields: &Fields<'r>) -> Result<Host<'r>, Refusal> {
    const BAD: Refusal = (
        StatusCode::BAD_REQUEST,
        "exactly one well-formed Host header is needed",
    );
    let only = fields.host.filter(|_| fields.hosts == 1).ok_or(BAD)?;
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => only.to_str().map_err(|_| BAD)?,
    };
    if authority.len() > 260 {
        return Err(BAD);
    }
    // In brackets an address of IPv6 (RFC 3986 §3.2.2), else a name; then a port or none.
    let name_bytes = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']').ok_or(BAD)?;
            let address = rest[..end].parse::<std::net::Ipv6Addr>();
            address.map_err(|_| BAD)?;
            end + 2
        }
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (name, port) = authority.split_at(name_bytes);
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let is_name = name.starts_with('[') || !name.is_empty() && name.bytes().all(legal);
    let is_port = |port: &str| {
        port.is_empty() || port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
    };
    if !is_name || !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return Err(BAD);
    }
    Ok(Host {
        name_bytes: name.strip_suffix('.').unwrap_or(name).len(),
        with_port: lower_case(authority),
    })
}

/// The methods a path takes.
pub(crate) fn method(head: Head<'_>) -> Result<(), &'static str> {
    // A postback changes what is owed, so that HEAD, which promises to change nothing, is none.
    let other = match head.uri.path() {
        "/postback" => Method::POST,
        _ => Method::HEAD,
    };
    if *head.method == Method::GET || *head.method == other {
        Ok(())
    } else {
        Err("this method is not served here")
    }
}

/// The answer to an address that is longer than the bound.
pub(crate) const TOO_LONG: Refusal = (
    StatusCode::URI_TOO_LONG,
    "the address is longer than 8192 bytes",
);

/// Whether the address is longer than the bound.
pub(crate) fn is_too_long(head: Head<'_>) -> bool {
    let target = head.uri.path_and_query();
    target.is_some_and(|target| target.as_str().len() > TARGET_BYTES_MAX)
}

/// A path, as all but `*` and an authority have one.
pub(crate) fn target(head: Head<'_>) -> Result<(), Refusal> {
    if head.uri.path().starts_with('/') {
        Ok(())
    } else {
        Err((StatusCode::BAD_REQUEST, "expected a path"))
    }
}

/// The slug a path means; `None` when it holds control or non-UTF-8 bytes.
pub(crate) fn slug(path: &str) -> Option<Cow<'_, str>> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.bytes().all(|b| b.is_ascii_graphic() && b != b'%') {
        return Some(Cow::Borrowed(path));
    }
    let slug = percent_decode_str(path).decode_utf8().ok()?;
    (!slug.chars().any(char::is_control)).then_some(slug)
}

/// What a tracking URL says of the visitor's consent.
#[derive(Debug, Default)]
pub(crate) struct Said<'q> {
    pub(crate) cons: Option<Cow<'q, str>>,
    /// `1` where a TCF signal stands for the visitor.
    pub(crate) gdpr: Option<Cow<'q, str>>,
}

/// The query of a tracking URL.
#[derive(Debug, Default)]
pub(crate) struct Query<'q> {
    pub(crate) params: Params<'q>,
    /// What is to be said of the parameters.
    pub(crate) labels: Vec<Label>,
    pub(crate) said: Said<'q>,
}

impl<'q> Query<'q> {
    #[inline(always)]
    pub(crate) fn of(uri: &'q Uri) -> Self {
        let mut query = Self::default();
        // A link's own address mostly has none.
        if let Some(text) = uri.query() {
            query.read(text);
        }
        query
    }

    /// The query of an address that was mended.
    pub(crate) fn mended(text: &'q str) -> Self {
        let mut query = Self::default();
        query.read(text);
        query.labels.push(Label::MendedLink);
        query
    }

    fn read(&mut self, text: &'q str) {
        let Self {
            params,
            labels,
            said,
        } = self;
        for Parameter { name, value } in parameters::read(text.as_bytes()) {
            let slot = match &*name {
                "offer" => &mut params.offer,
                "aff" => &mut params.aff,
                "link" => &mut params.link,
                "page" => &mut params.page,
                "creative" => &mut params.creative,
                "source" => &mut params.source,
                "ext" => &mut params.ext,
                "coupon" => &mut params.coupon,
                "cost" => &mut params.cost,
                "sub1" => &mut params.sub[0],
                "sub2" => &mut params.sub[1],
                "sub3" => &mut params.sub[2],
                "sub4" => &mut params.sub[3],
                "sub5" => &mut params.sub[4],
                "sub6" => &mut params.sub[5],
                "sub7" => &mut params.sub[6],
                "sub8" => &mut params.sub[7],
                "sub9" => &mut params.sub[8],
                "sub10" => &mut params.sub[9],
                "cons" => {
                    said.cons.get_or_insert(value.text);
                    continue;
                }
                "gdpr" => {
                    said.gdpr.get_or_insert(value.text);
                    continue;
                }
                "group" => {
                    params.group |= !value.is_empty();
                    continue;
                }
                "url" => {
                    params.url |= !value.is_empty();
                    continue;
                }
                _ => continue,
            };
            // The first of a repeated parameter wins.
            if slot.is_none() {
                *slot = Some(clean(value, labels));
            }
        }
    }
}

fn label(labels: &mut Vec<Label>, label: Label) {
    if !labels.contains(&label) {
        labels.push(label);
    }
}

/// Takes out control characters, cuts to the bound and looks for what nobody filled in, saying so.
fn clean<'a>(value: Value<'a>, labels: &mut Vec<Label>) -> Value<'a> {
    if value.is_encoded {
        return clean_encoded(&value, labels);
    }
    let mut text = value.text;
    if text.chars().any(char::is_control) {
        text = text
            .chars()
            .filter(|c| !c.is_control())
            .collect::<String>()
            .into();
        if parameters::trim(&text).len() < text.len() {
            text = parameters::trim(&text).to_owned().into();
        }
        label(labels, Label::Cleaned);
    }
    if text.len() > VALUE_BYTES_MAX {
        text = cut(&text, VALUE_BYTES_MAX).to_owned().into();
        label(labels, Label::Cut);
    }
    if holds_placeholder(&text) {
        label(labels, Label::UnreplacedMacro);
    }
    Value {
        text,
        is_encoded: false,
    }
}

/// As [`clean`], for the percent-encoded form of bytes that are not UTF-8. What some encodings have at 0x80 to 0x9F is text.
#[cold]
fn clean_encoded<'a>(value: &str, labels: &mut Vec<Label>) -> Value<'a> {
    label(labels, Label::NotUtf8);
    let mut bytes: Vec<u8> = percent_decode_str(value).collect();
    if bytes.iter().any(u8::is_ascii_control) {
        bytes.retain(|byte| !byte.is_ascii_control());
        label(labels, Label::Cleaned);
    }
    let mut kept = Value::of_bytes(parameters::trim_spaces(&bytes));
    if kept.len() > VALUE_BYTES_MAX {
        // An escape is kept whole or not at all.
        let mut end = VALUE_BYTES_MAX;
        if let Some(at) = kept[end - 2..end].rfind('%') {
            end = end - 2 + at;
        }
        kept.text = kept[..end].to_owned().into();
        label(labels, Label::Cut);
    }
    kept
}

/// The longest beginning of at most so many bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn parts(uri: &str, hosts: &[&str]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn uri(query: &str) -> Uri {
        format!("/c?{query}").parse().expect("a target")
    }

    fn read_host(uri: &str, hosts: &[&str]) -> Option<String> {
        let parts = parts(uri, hosts);
        let host = host(&parts.uri, &Fields::read(&parts.headers)).ok()?;
        Some(host.name().to_owned())
    }

    #[test]
    fn hosts() {
        for (uri, hosts, expected) in [
            ("/", &["Go.Example"][..], Some("go.example")),
            ("/", &["go.example:8080"], Some("go.example")),
            ("/", &["go.example."], Some("go.example")),
            ("/", &["[::1]:80"], Some("[::1]")),
            ("/", &["[::1]"], Some("[::1]")),
            ("/", &["go.example:"], Some("go.example")),
            ("/", &["[::1"], None),
            ("/", &["[::1]80"], None),
            ("/", &["[nonsense]"], None),
            ("/", &["::1"], None),
            ("/", &["a]"], None),
            ("/", &["a:b:80"], None),
            ("/", &["go.example:99999"], None),
            ("/", &["go.example:+80"], None),
            (
                "http://other.example/",
                &["go.example"],
                Some("other.example"),
            ),
            ("/", &[], None),
            ("/", &["a", "a"], None),
            ("/", &[""], None),
            ("/", &["a b"], None),
            ("/", &["user@a"], None),
            ("/", &["a:port"], None),
            ("/", &[":80"], None),
        ] {
            assert_eq!(
                read_host(uri, hosts).as_deref(),
                expected,
                "{uri} {hosts:?}"
            );
        }
    }

    #[test]
    fn referrers() {
        for (referrer, expected) in [
            ("https://Blog.Example/post?a=1", "blog.example"),
            ("https://blog.example", "blog.example"),
            ("https://blog.example#top", "blog.example"),
            ("https://user:secret@blog.example:81/", "blog.example:81"),
            ("android-app://com.example.news/", "com.example.news"),
            ("about:blank", ""),
            ("https://bl\u{f6}g.example/", ""),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("referer", referrer.parse().expect("a header"));
            headers.append(
                "referer",
                "https://second.example".parse().expect("a header"),
            );
            assert_eq!(
                *Fields::read(&headers).referrer_host(),
                *expected.as_bytes(),
                "{referrer}"
            );
        }
    }

    #[test]
    fn slugs() {
        for (path, expected) in [
            ("/fall-boots", Some("fall-boots")),
            ("/a/b", Some("a/b")),
            ("/a%2Fb", Some("a/b")),
            ("/%00", None),
            ("/%0d%0a", None),
            ("/%ff", None),
        ] {
            assert_eq!(slug(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn parameters_are_first_wins_cleaned_and_cut() {
        let query = format!(
            "offer=a&offer=b&sub1=%0d%0aSet-Cookie:x&sub2=%7Bsub2%7D&sub11=x&ext={}",
            "é".repeat(200)
        );
        let target = uri(&query);
        let Query { params, labels, .. } = Query::of(&target);
        assert_eq!(params.offer.as_deref(), Some("a"));
        assert_eq!(params.sub[0].as_deref(), Some("Set-Cookie:x"));
        assert_eq!(params.ext.as_ref().map(|ext| ext.len()), Some(254));
        assert_eq!(labels, [Label::Cleaned, Label::UnreplacedMacro, Label::Cut]);
        let query = format!("gdpr=1&gdpr_consent={}&sub1=a&sub1=%00", "x".repeat(900));
        let target = uri(&query);
        let Query { labels, said, .. } = Query::of(&target);
        assert_eq!(labels, [], "nothing that is kept was changed");
        assert_eq!(said.gdpr.as_deref(), Some("1"));
    }

    fn labels_of(query: &str) -> Vec<Label> {
        Query::of(&uri(query)).labels
    }

    #[test]
    fn a_placeholder_is_marked_in_whatever_parameter_and_notation_it_comes() {
        for query in [
            "ext={click_id}",
            "source={site}",
            "creative=[[cr]]",
            "page=${P}",
            "coupon={c}",
            "cost={cpc}",
            "sub1=__CAMPAIGN_ID__",
            "sub1=%%CLICK_ID%%",
            "sub10=$section_id$",
            "sub1=[CLICK_ID]",
            "sub1=camp_{adset}_1",
            "aff={affiliate}",
        ] {
            assert_eq!(labels_of(query), [Label::UnreplacedMacro], "{query}");
        }
        assert_eq!(labels_of("sub1=%7B%22a%22:1%7D&ref={x}"), []);
    }

    #[test]
    fn blanks_made_two_rows_of_one_sub_id() {
        for (query, labels) in [
            ("sub1=mail", &[][..]),
            ("sub1=mail+", &[]),
            ("sub1=%20mail%C2%A0", &[]),
            ("sub1=%09+mail+%0D%0A", &[Label::Cleaned]),
        ] {
            let target = uri(query);
            let query = Query::of(&target);
            assert_eq!(query.params.sub[0].as_deref(), Some("mail"));
            assert_eq!(query.labels, labels);
        }
        let target = uri("sub1=+%20%E2%80%8B&cons=+none+");
        let query = Query::of(&target);
        assert_eq!(query.params.sub[0].as_deref(), Some(""), "as good as none");
        assert_eq!(query.said.cons.as_deref(), Some("none"));
    }

    #[test]
    fn sub01_is_not_sub1() {
        let target = uri("sub01=x&sub%2B1=x&sub0001=x&sub1=y&sub11=x");
        let query = Query::of(&target);
        assert_eq!(query.params.sub[0].as_deref(), Some("y"));
    }

    #[test]
    fn a_sub_id_that_is_not_utf8_is_kept_and_marked() {
        for (query, kept, labels) in [
            ("sub1=%EE%EA%F0%E1", "%EE%EA%F0%E1", &[Label::NotUtf8][..]),
            ("sub1=%E9%0D%0A", "%E9", &[Label::NotUtf8, Label::Cleaned]),
            ("sub1=%e9t%e9", "%E9t%E9", &[Label::NotUtf8]),
        ] {
            let target = uri(query);
            let query = Query::of(&target);
            assert_eq!(query.params.sub[0].as_deref(), Some(kept));
            assert_eq!(query.labels, labels);
        }
        for plain in 0..6 {
            let target = uri(&format!("sub1={}{}", "a".repeat(plain), "%e9".repeat(100)));
            let query = Query::of(&target);
            let kept = query.params.sub[0].as_deref().expect("a value");
            let escapes = "%E9".repeat((VALUE_BYTES_MAX - plain) / 3);
            assert_eq!(kept, format!("{}{escapes}", "a".repeat(plain)));
            assert_eq!(query.labels, [Label::NotUtf8, Label::Cut]);
        }
    }
}
