//! A request's head, checked: what bare hyper lets through is refused here.

use std::borrow::Cow;
use std::net::IpAddr;

use domain::event::Label;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Uri};
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
    pub(crate) fn plain_host(&self) -> Option<&'r str> {
        let host = self.host.filter(|_| self.hosts == 1)?;
        std::str::from_utf8(host.as_bytes()).ok()
    }

    /// The host of the page the visitor comes from, lower case; empty where none is told.
    pub(crate) fn referrer_host(&self) -> Cow<'r, str> {
        let referrer = self.referrer.map_or(&[][..], HeaderValue::as_bytes);
        let rest = referrer
            .strip_prefix(b"https://")
            .or_else(|| referrer.strip_prefix(b"http://"))
            .or_else(|| {
                let at = referrer.windows(3).position(|window| window == b"://")?;
                Some(&referrer[at + 3..])
            })
            .unwrap_or_default();
        let (mut start, mut end) = (0, rest.len());
        for (at, byte) in rest.iter().enumerate() {
            match byte {
                b'/' | b'?' | b'#' => {
                    end = at;
                    break;
                }
                b'@' => start = at + 1,
                b'!'..=b'~' => {}
                // Not the address of a page.
                _ => return Cow::Borrowed(""),
            }
        }
        let host = std::str::from_utf8(&rest[start..end]).expect("ASCII");
        lower_case(cut(host, HOST_BYTES_MAX))
    }
}

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

    /// As it came.
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
pub(crate) fn method(parts: &Parts) -> Result<(), &'static str> {
    // A postback changes what is owed, so that HEAD, which promises to change nothing, is none.
    let other = match parts.uri.path() {
        "/postback" => Method::POST,
        _ => Method::HEAD,
    };
    if parts.method == Method::GET || parts.method == other {
        Ok(())
    } else {
        Err("this method is not served here")
    }
}

/// Within the bound, and a path.
pub(crate) fn target(parts: &Parts) -> Result<(), Refusal> {
    let length = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if length > TARGET_BYTES_MAX {
        Err((
            StatusCode::URI_TOO_LONG,
            "the address is longer than 8192 bytes",
        ))
    } else if !parts.uri.path().starts_with('/') {
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

/// The parameters of a tracking URL, what is to be said of them, and what they say of consent.
pub(crate) fn parameters(query: &str) -> (Params<'_>, Vec<Label>, Said<'_>) {
    let mut params = Params::default();
    let mut labels = Vec::new();
    let mut said = Said::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()).take(PARAMETERS_MAX) {
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
                label(&mut labels, Label::UnreplacedMacro);
            }
            *slot = Some(clean(value, &mut labels));
        }
    }
    (params, labels, said)
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
                Fields::read(&headers).referrer_host(),
                expected,
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
        let (params, labels, _) = parameters(&query);
        assert_eq!(params.offer.as_deref(), Some("a"));
        assert_eq!(params.sub[0].as_deref(), Some("Set-Cookie:x"));
        assert_eq!(params.ext.as_ref().map(|ext| ext.len()), Some(254));
        assert_eq!(labels, [Label::Cleaned, Label::UnreplacedMacro, Label::Cut]);
        let query = format!("gdpr=1&gdpr_consent={}&sub1=a&sub1=%00", "x".repeat(900));
        let (_, labels, said) = parameters(&query);
        assert_eq!(labels, [], "nothing that is kept was changed");
        assert_eq!(said.gdpr.as_deref(), Some("1"));
    }
}
