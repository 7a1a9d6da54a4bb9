//! Who asks: a browser, a tool, a declared bot, or a browser that only looks ahead.

use aho_corasick::AhoCorasick;
use domain::event::Class;
use hyper::{HeaderMap, Method, header};

/// Longest user agent that is looked at and kept, in bytes; real ones stay below 300.
pub(crate) const USER_AGENT_BYTES_MAX: usize = 512;

/// Words by which crawlers and preview fetchers declare themselves.
const BOTS: &[&str] = &[
    "bot",
    "crawler",
    "spider",
    "slurp",
    "facebookexternalhit",
    "whatsapp/",
    "embedly",
    "preview",
    "lighthouse",
    "headlesschrome",
    "pingdom",
    "uptime",
    "monitor",
    "mediapartners",
    "bingpreview",
    "archiver",
    "validator",
];

/// Words of tools and libraries that are no browser and say so.
const TOOLS: &[&str] = &[
    "curl/",
    "wget/",
    "python",
    "go-http-client",
    "okhttp",
    "java/",
    "libwww",
    "axios/",
    "node-fetch",
    "httpclient",
    "ruby",
    "perl",
    "php",
    "postman",
    "insomnia",
];

/// The lists, ready to match.
pub(crate) struct Classifier {
    bots: AhoCorasick,
    tools: AhoCorasick,
}

impl Classifier {
    pub(crate) fn new() -> Self {
        let build = |words: &[&str]| {
            AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .build(words)
                .expect("a short list of plain words builds")
        };
        Self {
            bots: build(BOTS),
            tools: build(TOOLS),
        }
    }

    fn is_bot(&self, agent: &[u8]) -> bool {
        self.bots.find_iter(agent).any(|found| {
            let before = &agent[..found.end()];
            let phone = before.len().checked_sub(PHONE.len());
            !phone.is_some_and(|at| before[at..].eq_ignore_ascii_case(PHONE))
        })
    }

    /// The class of a request. Speculation is told first: a prefetch is no click, whoever makes it.
    pub(crate) fn classify(&self, method: &Method, headers: &HeaderMap) -> Class {
        if is_speculative(headers) {
            return Class::Speculative;
        }
        let agent = user_agent(headers);
        if self.is_bot(agent) {
            Class::Bot
        } else if method == Method::HEAD {
            Class::Head
        } else if agent.is_empty() || self.tools.is_match(agent) {
            Class::NonBrowser
        } else {
            Class::Browser
        }
    }
}

/// A brand of telephones whose name ends like a crawler's.
const PHONE: &[u8] = b"cubot";

/// The user agent's bytes, cut to the bound.
pub(crate) fn user_agent(headers: &HeaderMap) -> &[u8] {
    let agent = headers
        .get(header::USER_AGENT)
        .map_or(&[][..], |value| value.as_bytes());
    &agent[..agent.len().min(USER_AGENT_BYTES_MAX)]
}

/// `Sec-Purpose: prefetch…` (Fetch standard), or its ancestors `Purpose` and `X-Moz`.
fn is_speculative(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-moz"].iter().any(|name| {
        headers.get_all(*name).iter().any(|value| {
            value
                .as_bytes()
                .to_ascii_lowercase()
                .windows(8)
                .any(|w| w == b"prefetch")
        })
    })
}

/// Whether the browser says it is going somewhere, not loading an image or script. Silence counts as going.
pub(crate) fn is_navigation(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-mode")
        .is_none_or(|mode| mode == "navigate")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        let classifier = Classifier::new();
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36";
        for (method, name, value, expected) in [
            (Method::GET, "user-agent", chrome, Class::Browser),
            (Method::HEAD, "user-agent", chrome, Class::Head),
            (Method::GET, "user-agent", "curl/8.5.0", Class::NonBrowser),
            (
                Method::GET,
                "user-agent",
                "Mozilla/5.0 (compatible; Googlebot/2.1)",
                Class::Bot,
            ),
            (
                Method::GET,
                "user-agent",
                "Mozilla/5.0 (Linux; Android 10; CUBOT_X30) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36",
                Class::Browser,
            ),
            (Method::GET, "user-agent", "cubot and bingbot", Class::Bot),
            (Method::GET, "user-agent", "", Class::NonBrowser),
            (
                Method::GET,
                "sec-purpose",
                "prefetch;prerender",
                Class::Speculative,
            ),
            (Method::GET, "purpose", "Prefetch", Class::Speculative),
            (Method::GET, "x-moz", "prefetch", Class::Speculative),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header"));
            assert_eq!(
                classifier.classify(&method, &headers),
                expected,
                "{name}: {value}"
            );
        }
    }
}
