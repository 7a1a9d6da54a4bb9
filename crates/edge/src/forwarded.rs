//! The visitor's address as a forwarder names it: `X-Forwarded-For`, or else `Forwarded` (RFC 7239).
//!
//! A list grows to the right, and only what a trusted forwarder wrote is believed: the visitor is the rightmost address that
//! is not a trusted forwarder's own. An entry there that names no address (`unknown`, `_hidden`, rubbish) ends the search:
//! what stands to its left may be the visitor's invention. Where no address can be read there is no person, never the
//! forwarder in the visitor's place: all visitors would be one.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::{FORWARDED, HeaderMap};
use ipnet::IpNet;
use prometheus::{IntCounter, Registry};

/// How many entries are looked at, from the right: a chain of forwarders has two or three.
const ENTRIES_MAX: usize = 16;
const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The visitor's address: the peer, or the one that a trusted peer names; `None` where it names none that can be read.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return Some(peer);
    }
    // Several lines of a header are one list (RFC 9110 §5.3), and empty entries are none (§5.6.1).
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let mut nodes = lines
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|node| !node.is_empty())
        .peekable();
    if nodes.peek().is_some() {
        return visitor(nodes, trusted);
    }
    // Quotes may hold commas, so that these lists are read from the left.
    let lines = headers.get_all(FORWARDED).iter();
    let elements: Vec<&[u8]> = lines
        .flat_map(|line| split(line.as_bytes(), b','))
        .filter(|element| !element.is_empty())
        .collect();
    visitor(elements.into_iter().rev().map(node_for), trusted)
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// The first address that is not a forwarder's own; where all are, the last: there the request began.
fn visitor<'h>(nodes: impl Iterator<Item = &'h [u8]>, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut last = None;
    for node in nodes.take(ENTRIES_MAX) {
        let address = address(node)?;
        last = Some(address);
        if !is_trusted(address, trusted) {
            break;
        }
    }
    last
}

/// Clicks whose forwarder named no address: counted, and told of in the log now and then. One for all workers.
#[derive(Clone)]
pub(crate) struct UnreadAddresses {
    count: IntCounter,
    logged_ms: Arc<AtomicU64>,
}

/// The time between two log lines: the first says what to mend, the next ones that it is still so.
const LOG_EVERY_MS: u64 = 3_600_000;

impl UnreadAddresses {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let count = IntCounter::new(
            "sluice_edge_addresses_unread_total",
            "Clicks through a trusted forwarder that named no address that can be read: they count without a person.",
        )?;
        registry.register(Box::new(count.clone()))?;
        Ok(Self {
            count,
            logged_ms: Arc::default(),
        })
    }

    pub(crate) fn add(&self, now_ms: u64) {
        self.count.inc();
        if self.log_is_due(now_ms) {
            tracing::warn!(
                "a trusted forwarder names no visitor's address that can be read in X-Forwarded-For or Forwarded: \
                 these clicks count without a person"
            );
        }
    }

    fn log_is_due(&self, now_ms: u64) -> bool {
        let logged = self.logged_ms.load(Ordering::Relaxed);
        let is_due = logged == 0 || now_ms >= logged + LOG_EVERY_MS;
        is_due
            && self
                .logged_ms
                .compare_exchange(logged, now_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// The node of a `Forwarded` element's `for`; empty where it has none: this forwarder does not tell.
fn node_for(element: &[u8]) -> &[u8] {
    let pairs = split(element, b';');
    let nodes = pairs.filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
        name.eq_ignore_ascii_case(b"for").then_some(value)
    });
    nodes.last().unwrap_or_default()
}

/// The trimmed parts between separators that stand outside of quotes.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    text.split(move |byte| {
        is_quoted ^= *byte == b'"';
        *byte == separator && !is_quoted
    })
    .map(<[u8]>::trim_ascii)
}

/// The address of a node: `203.0.113.7`, `203.0.113.7:4711`, `2001:db8::7`, `[2001:db8::7]:4711`, each with or without quotes
/// or a zone. A port is dropped: it is the connection's, not the visitor's.
fn address(node: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(node).ok()?;
    let text = text.trim_matches(|c: char| matches!(c, '"' | ' ' | '\t'));
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (
                host,
                after.strip_prefix(':').or((after.is_empty()).then_some("")),
            )
        }
        // Some write a port behind an address of eight groups without brackets. A shorter one cannot be told from an address.
        None if text.bytes().filter(|byte| *byte == b':').count() == 8 && !text.contains("::") => {
            text.rsplit_once(':')
                .map(|(host, port)| (host, Some(port)))?
        }
        None => match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (text, Some("")),
        },
    };
    if !is_port(port?) {
        return None;
    }
    let address = match host.split_once('%') {
        Some((address, _zone)) => address.parse::<Ipv6Addr>().ok()?.into(),
        None => host.parse::<IpAddr>().ok()?,
    };
    let address = address.to_canonical();
    (!address.is_unspecified()).then_some(address)
}

/// Digits, or an obfuscated one (RFC 7239 §6): `_` and what the forwarder likes.
fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.len() <= 5 || port.starts_with('_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "127.0.0.1";

    fn read(peer: &str, lines: &[(&'static str, &str)]) -> Option<String> {
        let trusted: Vec<IpNet> = ["127.0.0.0/8", "10.0.0.0/8", "fd00::/8"]
            .iter()
            .map(|net| net.parse().expect("a network"))
            .collect();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().expect("a header"));
        }
        let found = client(peer.parse().expect("an address"), &headers, &trusted);
        found.map(|address| address.to_string())
    }

    #[test]
    fn a_port_in_a_forwarded_address_does_not_make_everybody_one_person() {
        for (value, expected) in [
            ("203.0.113.7", Some("203.0.113.7")),
            ("203.0.113.11:40011", Some("203.0.113.11")),
            ("203.0.113.11:40021, 127.0.0.2", Some("203.0.113.11")),
            ("203.0.113.11:40021, 10.0.0.2:80", Some("203.0.113.11")),
            ("203.0.113.11:", Some("203.0.113.11")),
            ("203.0.113.11:_hidden", Some("203.0.113.11")),
            ("\"203.0.113.71\"", Some("203.0.113.71")),
            ("\"203.0.113.71:80\"", Some("203.0.113.71")),
            ("198.51.100.1, 203.0.113.7, 10.1.1.1", Some("203.0.113.7")),
            ("198.51.100.1,203.0.113.7,", Some("203.0.113.7")),
            (", 203.0.113.7 ,, 10.1.1.1 , ,", Some("203.0.113.7")),
            ("  203.0.113.7\t", Some("203.0.113.7")),
            ("2001:db8::7", Some("2001:db8::7")),
            ("[2001:db8::7]", Some("2001:db8::7")),
            ("[2001:db8::7]:4711", Some("2001:db8::7")),
            ("\"[2001:db8::7]:4711\"", Some("2001:db8::7")),
            ("2001:db8:1:2:3:4:5:6:4711", Some("2001:db8:1:2:3:4:5:6")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("[fe80::1%25eth0]:80", Some("fe80::1")),
            ("::ffff:203.0.113.7", Some("203.0.113.7")),
            ("[::ffff:203.0.113.7]:80", Some("203.0.113.7")),
            // All of them are forwarders: the farthest is where the request began.
            ("10.0.0.9, 10.1.1.1", Some("10.0.0.9")),
            // Nobody: what stands to the left of it nobody vouches for.
            ("203.0.113.41, unknown", None),
            ("203.0.113.41, unknown, 10.0.0.1", None),
            ("unknown", None),
            ("_hidden", None),
            ("203.0.113.7, nonsense", None),
            ("203.0.113.7:port", None),
            ("203.0.113.7:123456", None),
            ("203.0.113.256", None),
            ("203.0.113", None),
            ("[2001:db8::7", None),
            ("[2001:db8::7]80", None),
            ("203.0.113.7%eth0", None),
            ("0.0.0.0", None),
            ("::", None),
            ("", None),
            (",", None),
        ] {
            let found = read(PEER, &[(X_FORWARDED_FOR, value)]);
            assert_eq!(found.as_deref(), expected, "{value}");
        }
        // A name to the left of the visitor is not looked at.
        let invented = read(PEER, &[(X_FORWARDED_FOR, "unknown, 203.0.113.7")]);
        assert_eq!(invented.as_deref(), Some("203.0.113.7"));
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_has_it() {
        for (value, expected) in [
            (
                "for=192.0.2.60;proto=http;by=203.0.113.43",
                Some("192.0.2.60"),
            ),
            (
                "For=\"[2001:db8:cafe::17]:4711\"",
                Some("2001:db8:cafe::17"),
            ),
            ("for=192.0.2.43, for=198.51.100.17", Some("198.51.100.17")),
            (
                "for=192.0.2.43, for=\"10.0.0.7:80\";by=\"10.0.0.8\"",
                Some("192.0.2.43"),
            ),
            ("proto=https; FOR = 192.0.2.1 ", Some("192.0.2.1")),
            (
                "by=\"a,b;for=203.0.113.9\";for=192.0.2.1",
                Some("192.0.2.1"),
            ),
            (" , for=192.0.2.1,", Some("192.0.2.1")),
            ("for=unknown", None),
            ("for=_gazonk", None),
            ("for=\"_SEVKISEK\"", None),
            ("for=192.0.2.43, for=unknown", None),
            ("for=192.0.2.43, proto=https", None),
            ("for=\"192.0.2.43", Some("192.0.2.43")),
            ("proto=https", None),
        ] {
            let found = read(PEER, &[("forwarded", value)]);
            assert_eq!(found.as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn lists_over_several_lines_are_one_list_and_only_a_forwarder_is_asked() {
        let lines = [
            (X_FORWARDED_FOR, "198.51.100.1, 203.0.113.7"),
            (X_FORWARDED_FOR, "10.0.0.3"),
        ];
        assert_eq!(read(PEER, &lines).as_deref(), Some("203.0.113.7"));
        assert_eq!(
            read("::ffff:127.0.0.1", &lines).as_deref(),
            Some("203.0.113.7")
        );
        assert_eq!(read("192.0.2.1", &lines).as_deref(), Some("192.0.2.1"));
        let both = [
            ("forwarded", "for=192.0.2.9"),
            (X_FORWARDED_FOR, "203.0.113.7"),
        ];
        assert_eq!(read(PEER, &both).as_deref(), Some("203.0.113.7"));
        let blank = [("forwarded", "for=192.0.2.9"), (X_FORWARDED_FOR, " , ")];
        assert_eq!(read(PEER, &blank).as_deref(), Some("192.0.2.9"));
        assert_eq!(read(PEER, &[]), None, "the forwarder names nobody");
        let chain = vec!["10.0.0.1"; ENTRIES_MAX + 5].join(",");
        assert_eq!(
            read(PEER, &[(X_FORWARDED_FOR, &chain)]).as_deref(),
            Some("10.0.0.1")
        );
    }

    #[test]
    fn the_log_is_told_once_and_then_at_most_once_an_hour() {
        let unread = UnreadAddresses::new(&Registry::new()).expect("a registry of its own");
        let day = (0..24 * 60).map(|minute| 1_800_000_000_000 + minute * 60_000);
        let lines = day.filter(|now_ms| unread.log_is_due(*now_ms)).count();
        assert_eq!(lines, 24);
    }

    fn node() -> impl Strategy<Value = (String, IpAddr)> {
        let written = (any::<IpAddr>(), 0..3u8, any::<bool>(), any::<u16>());
        written.prop_map(|(address, form, is_quoted, port)| {
            let text = match (address, form) {
                (IpAddr::V4(v4), 0) => v4.to_string(),
                (IpAddr::V4(v4), _) => format!("{v4}:{port}"),
                (IpAddr::V6(v6), 0) => v6.to_string(),
                (IpAddr::V6(v6), 1) => format!("[{v6}]"),
                (IpAddr::V6(v6), _) => format!("[{v6}]:{port}"),
            };
            let text = if is_quoted {
                format!("\"{text}\"")
            } else {
                text
            };
            (text, address.to_canonical())
        })
    }

    proptest! {
        #[test]
        fn whatever_form_an_address_is_written_in_it_is_that_address((text, written) in node()) {
            let expected = (!written.is_unspecified()).then_some(written);
            prop_assert_eq!(address(text.as_bytes()), expected, "{}", text);
        }

        #[test]
        fn both_headers_name_the_same_visitor((text, _) in node(), blanks in "[ \t]{0,3}", empty in "[, ]{0,4}") {
            let list = format!("{blanks}{text}{blanks},{empty}");
            let quoted = format!("{empty}for=\"{}\"{blanks};proto=https", text.trim_matches('"'));
            let found = read(PEER, &[(X_FORWARDED_FOR, &list)]);
            prop_assert_eq!(found, read(PEER, &[("forwarded", &quoted)]));
        }

        #[test]
        fn hostile_lists_name_somebody_or_nobody(list in "[0-9a-f.:,;=\"\\[\\]%_ xfor]{0,120}") {
            read(PEER, &[(X_FORWARDED_FOR, &list), ("forwarded", &list)]);
            read(PEER, &[("forwarded", &list)]);
        }

        #[test]
        fn what_a_visitor_invents_is_never_believed(invented in "[0-9a-f.:; =_x\\[\\]]{0,40}", visitor in any::<[u8; 4]>()) {
            prop_assume!(!matches!(visitor[0], 0 | 10 | 127));
            let visitor = IpAddr::from(visitor);
            let list = format!("{invented}, {visitor}");
            prop_assert_eq!(read(PEER, &[(X_FORWARDED_FOR, &list)]), Some(visitor.to_string()));
        }
    }
}
