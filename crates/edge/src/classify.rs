//! Who asks: a browser, a tool, a declared bot, or a browser that only looks ahead.

use std::rc::Rc;

use aho_corasick::AhoCorasick;
use domain::event::Class;
use hyper::Method;

use crate::request::Fields;

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

/// How many user agents are remembered. A few hundred make up most traffic; who sends other ones all the time only makes
/// the lists be searched, which is what they would cost anyway.
const REMEMBERED: usize = 1024;

/// What a user agent says of who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agent {
    Bot,
    Tool,
    Browser,
}

/// The lists, ready to match, and what was found for the user agents seen last.
pub(crate) struct Classifier {
    bots: AhoCorasick,
    tools: AhoCorasick,
    /// By the hash of the user agent; a newer one takes an older one's place.
    seen: Vec<Option<Seen>>,
}

#[derive(Clone)]
struct Seen {
    /// As it is kept: what is not UTF-8 replaced. One that has such bytes is never found again.
    text: Rc<str>,
    agent: Agent,
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
            seen: vec![None; REMEMBERED],
        }
    }

    /// The class of a request, and its user agent as it is kept. Speculation is told first: a prefetch is no click, whoever
    /// makes it.
    pub(crate) fn classify(&mut self, method: &Method, fields: &Fields<'_>) -> (Class, Rc<str>) {
        let seen = self.seen(fields.user_agent);
        let class = match seen.agent {
            _ if fields.speculative => Class::Speculative,
            Agent::Bot => Class::Bot,
            _ if *method == Method::HEAD => Class::Head,
            Agent::Tool => Class::NonBrowser,
            Agent::Browser => Class::Browser,
        };
        (class, Rc::clone(&seen.text))
    }

    fn seen(&mut self, sent: &[u8]) -> &Seen {
        let at = xxhash_rust::xxh3::xxh3_64(sent) as usize % REMEMBERED;
        if self.seen[at]
            .as_ref()
            .is_none_or(|seen| seen.text.as_bytes() != sent)
        {
            self.seen[at] = Some(Seen {
                text: String::from_utf8_lossy(sent).into(),
                agent: self.search(sent),
            });
        }
        self.seen[at].as_ref().expect("just put there")
    }

    fn search(&self, agent: &[u8]) -> Agent {
        if self.is_bot(agent) {
            Agent::Bot
        } else if agent.is_empty() || self.tools.is_match(agent) {
            Agent::Tool
        } else {
            Agent::Browser
        }
    }

    fn is_bot(&self, agent: &[u8]) -> bool {
        self.bots.find_iter(agent).any(|found| {
            let before = &agent[..found.end()];
            let phone = before.len().checked_sub(PHONE.len());
            !phone.is_some_and(|at| before[at..].eq_ignore_ascii_case(PHONE))
        })
    }
}

/// A brand of telephones whose name ends like a crawler's.
const PHONE: &[u8] = b"cubot";

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn classes() {
        let mut classifier = Classifier::new();
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
            // The second time it is remembered.
            for _ in 0..2 {
                assert_eq!(
                    classifier.classify(&method, &Fields::read(&headers)).0,
                    expected,
                    "{name}: {value}"
                );
            }
        }
    }

    #[test]
    fn what_is_remembered_is_of_the_same_agent() {
        let slot = |agent: &[u8]| xxhash_rust::xxh3::xxh3_64(agent) as usize % REMEMBERED;
        let browser = b"Mozilla/5.0 (X11) Chrome/140.0".to_vec();
        let mut others = (0..).map(|n| format!("curl/8.{n}").into_bytes());
        let tool = others.find(|other| slot(other) == slot(&browser));
        let broken = b"Mozilla/5.0 (\xff) Chrome/140.0".to_vec();
        let sent = [browser, tool.expect("there is no end of them"), broken];

        let mut classifier = Classifier::new();
        for (agent, expected) in sent.iter().cycle().take(9).zip(
            [Class::Browser, Class::NonBrowser, Class::Browser]
                .into_iter()
                .cycle(),
        ) {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_bytes(agent).expect("a header");
            headers.insert("user-agent", value);
            let (class, kept) = classifier.classify(&Method::GET, &Fields::read(&headers));
            assert_eq!(class, expected);
            assert_eq!(*kept, *String::from_utf8_lossy(agent));
        }
    }
}
