//! A request's head, checked: what bare hyper lets through is refused here.

use std::borrow::Cow;
use std::net::IpAddr;

use domain::event::Label;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode, Uri};
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use routing::Params;

/// Longest request target in bytes; browsers' own limits lie far above, trackers' far below.
pub(crate) const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Longest value of a parameter that is kept.
const VALUE_BYTES_MAX: usize = 255;
/// How many parameters of a query are read.
pub(crate) const PARAMETERS_MAX: usize = 100;
/// How many addresses of a forwarded header are looked at, from the right.
const HOPS_MAX: usize = 16;

/// Longest user agent that is looked at and kept, in bytes; real ones stay below 300.
const USER_AGENT_BYTES_MAX: usize = 512;

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
    let legal =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']');
    if authority.is_empty() || authority.len() > 260 || !authority.bytes().all(legal) {
        return Err(BAD);
    }
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => {
            if name.is_empty() || port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) {
                return Err(BAD);
            }
            name
        }
        _ => authority,
    };
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

/// Within the bound, and a path.
pub(crate) fn target(head: Head<'_>) -> Result<(), Refusal> {
    let length = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if length > TARGET_BYTES_MAX {
        Err((
            StatusCode::URI_TOO_LONG,
            "the address is longer than 8192 bytes",
        ))
    } else if !head.uri.path().starts_with('/') {
        Err((StatusCode::BAD_REQUEST, "expected a path"))
    } else {
        Ok(())
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

/// The visitor's address: the peer, or behind trusted forwarders the rightmost address that is not one of them.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut client = peer;
    if !is_trusted(&peer) {
        return peer;
    }
    let values = headers.get_all("x-forwarded-for").iter().rev();
    let hops = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.rsplit(','));
    for hop in hops.take(HOPS_MAX) {
        let Ok(address) = hop.trim().parse::<IpAddr>() else {
            break;
        };
        client = address.to_canonical();
        if !is_trusted(&client) {
            break;
        }
    }
    client
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

    fn read(&mut self, text: &'q str) {
        let Self {
            params,
            labels,
            said,
        } = self;
        for (name, value) in form_urlencoded::parse(text.as_bytes()).take(PARAMETERS_MAX) {
            let mut is_sub = false;
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
                "cons" => &mut said.cons,
                "gdpr" => &mut said.gdpr,
                "group" => {
                    params.group |= !value.is_empty();
                    continue;
                }
                "url" => {
                    params.url |= !value.is_empty();
                    continue;
                }
                name => match name
                    .strip_prefix("sub")
                    .and_then(|n| n.parse::<usize>().ok())
                {
                    Some(n @ 1..=10) => {
                        is_sub = true;
                        &mut params.sub[n - 1]
                    }
                    _ => continue,
                },
            };
            // The first of a repeated parameter wins.
            if slot.is_none() {
                if is_sub && is_unreplaced(&value) {
                    label(labels, Label::UnreplacedMacro);
                }
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

/// Takes out control characters and cuts to the bound, saying so.
fn clean<'a>(value: Cow<'a, str>, labels: &mut Vec<Label>) -> Cow<'a, str> {
    let mut value = value;
    if value.chars().any(char::is_control) {
        value = value
            .chars()
            .filter(|c| !c.is_control())
            .collect::<String>()
            .into();
        label(labels, Label::Cleaned);
    }
    if value.len() > VALUE_BYTES_MAX {
        value = cut(&value, VALUE_BYTES_MAX).to_owned().into();
        label(labels, Label::Cut);
    }
    value
}

/// The longest beginning of at most so many bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// `{sub1}`, `[[s]]` or `${CID}`: a traffic source forgot to fill it in.
fn is_unreplaced(value: &str) -> bool {
    [("{", "}"), ("[[", "]]"), ("${", "}")]
        .iter()
        .any(|(open, close)| value.starts_with(open) && value.ends_with(close))
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
    fn clients() {
        let trusted: Vec<IpNet> = vec![
            "127.0.0.0/8".parse().expect("a network"),
            "10.0.0.0/8".parse().expect("a network"),
        ];
        for (peer, forwarded, expected) in [
            ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
            (
                "127.0.0.1",
                "198.51.100.1, 203.0.113.7, 10.1.1.1",
                "203.0.113.7",
            ),
            ("127.0.0.1", "203.0.113.7, nonsense", "127.0.0.1"),
            ("127.0.0.1", "", "127.0.0.1"),
            ("192.0.2.1", "203.0.113.7", "192.0.2.1"),
            ("::ffff:127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", forwarded.parse().expect("a header"));
            let found = client(peer.parse().expect("an address"), &headers, &trusted);
            assert_eq!(found.to_string(), expected, "{peer} {forwarded}");
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
}
