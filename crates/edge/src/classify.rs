//! Who asks: a browser, a tool, a declared bot, or a browser that only looks ahead.

use std::borrow::Cow;
use std::rc::Rc;

use aho_corasick::AhoCorasick;
use domain::event::Class;
use hyper::Method;
use percent_encoding::{CONTROLS, percent_encode};

use crate::request::{Fields, USER_AGENT_BYTES_MAX};

/// Words by which crawlers, monitors and preview fetchers declare themselves, and where they stand. Measured against two public
/// lists by a test below, which also says what is missed: most of it names nothing but a product.
const BOTS: &[Word] = &[
    // An address of whoever runs it: browsers of people have none.
    Word::anywhere("http://"),
    Word::anywhere("https://"),
    Word::at_end("bot"),
    Word::at_end("bots"),
    Word::anywhere("crawl"),
    Word::anywhere("spider"),
    Word::at_end("slurp"),
    Word::at_end("scraper"),
    Word::at_end("fetcher"),
    Word::at_end("checker"),
    Word::at_end("validator"),
    Word::at_end("archiver"),
    Word::at_end("indexer"),
    Word::at_end("analyzer"),
    Word::whole("scanner"),
    Word::whole("scrapy"),
    Word::anywhere("headless"),
    Word::anywhere("phantomjs"),
    Word::anywhere("httrack"),
    // Previews of links in messengers, social networks and mail.
    Word::anywhere("preview"),
    Word::anywhere("externalhit"),
    Word::anywhere("externalfetcher"),
    Word::anywhere("whatsapp/"),
    Word::anywhere("embedly"),
    Word::anywhere("iframely"),
    Word::anywhere("vkshare"),
    Word::anywhere("flipboardproxy"),
    Word::anywhere("facebookcatalog"),
    Word::anywhere("unfurl"),
    Word::anywhere("oembed"),
    Word::whole("onebox"),
    Word::anywhere("googleimageproxy"),
    Word::anywhere("favicon"),
    // Monitors, health checks of balancers, tests of speed and of security.
    Word::anywhere("monitor"),
    Word::anywhere("uptime"),
    Word::anywhere("uptimia"),
    Word::anywhere("pingdom"),
    Word::anywhere("site24x7"),
    Word::anywhere("statuscake"),
    Word::anywhere("updown.io"),
    Word::whole("nagios"),
    Word::whole("zabbix"),
    Word::at_end("synthetic"),
    Word::at_end("synthetics"),
    Word::anywhere("healthcheck"),
    Word::anywhere("health-check"),
    Word::anywhere("googlehc"),
    Word::at_end("probe"),
    Word::whole("blackbox exporter"),
    Word::anywhere("cloudflare-"),
    Word::whole("cloudfront"),
    Word::anywhere("lighthouse"),
    Word::anywhere("gtmetrix"),
    Word::anywhere("dareboost"),
    Word::anywhere("ptst/"),
    Word::anywhere("netcraft"),
    Word::anywhere("siteimprove"),
    Word::whole("zgrab"),
    Word::whole("masscan"),
    Word::whole("nmap"),
    Word::whole("nikto"),
    Word::whole("openvas"),
    Word::anywhere("acunetix"),
    // Others that search engines, feed readers and checkers of links send.
    Word::anywhere("mediapartners"),
    Word::anywhere("googleother"),
    Word::anywhere("inspectiontool"),
    Word::anywhere("google-read-aloud"),
    Word::anywhere("google-site-verification"),
    Word::anywhere("google-adwords"),
    Word::anywhere("google-safety"),
    Word::anywhere("feedburner"),
    Word::anywhere("feedly"),
    Word::anywhere("w3c_"),
    Word::anywhere("w3c-"),
    Word::anywhere("checklink"),
    Word::anywhere("linkcheck"),
    Word::anywhere("sitemap"),
    Word::whole("ips-agent"),
    Word::whole("metadataretriever"),
];

/// A word of a list. What stands beside it tells `Googlebot/2.1` from `fuboTV`, `Caboto` and `Botswana`.
struct Word {
    text: &'static str,
    /// No letter or digit stands before it.
    begins: bool,
    /// No letter follows it; a digit may be a version.
    ends: bool,
}

impl Word {
    const fn anywhere(text: &'static str) -> Self {
        Self {
            text,
            begins: false,
            ends: false,
        }
    }

    const fn at_end(text: &'static str) -> Self {
        Self {
            text,
            begins: false,
            ends: true,
        }
    }

    const fn whole(text: &'static str) -> Self {
        Self {
            text,
            begins: true,
            ends: true,
        }
    }
}

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
    /// As it is kept. One that is not kept as it came is never found again.
    text: Rc<str>,
    agent: Agent,
}

impl Classifier {
    pub(crate) fn new() -> Self {
        let build = |words: Vec<&str>| {
            AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .build(words)
                .expect("a short list of plain words builds")
        };
        Self {
            bots: build(BOTS.iter().map(|word| word.text).collect()),
            tools: build(TOOLS.to_vec()),
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
                text: kept(sent).into(),
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
        self.bots.find_overlapping_iter(agent).any(|found| {
            let word = &BOTS[found.pattern().as_usize()];
            let (before, after) = (&agent[..found.start()], &agent[found.end()..]);
            let begins = !before.last().is_some_and(u8::is_ascii_alphanumeric);
            let ends = !after.first().is_some_and(u8::is_ascii_alphabetic);
            let is_phone = word.text == "bot" && ends_with(before, b"cu");
            (begins || !word.begins) && (ends || !word.ends) && !is_phone
        })
    }
}

/// Whether the text ends so, in any case. `Cubot` is a brand of telephones.
fn ends_with(text: &[u8], end: &[u8]) -> bool {
    let at = text.len().checked_sub(end.len());
    at.is_some_and(|at| text[at..].eq_ignore_ascii_case(end))
}

/// A user agent as it is kept, within the bound; one that is not UTF-8 in percent-encoded form, so that two stay two.
fn kept(sent: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(sent) {
        Ok(text) => text.into(),
        // The bound may have cut a letter.
        Err(error) if error.error_len().is_none() && sent.len() == USER_AGENT_BYTES_MAX => {
            String::from_utf8_lossy(&sent[..error.valid_up_to()])
        }
        Err(_) => {
            let mut text = percent_encode(sent, CONTROLS).to_string();
            if text.len() > USER_AGENT_BYTES_MAX {
                let end = USER_AGENT_BYTES_MAX;
                let escape = text[end - 2..end].find('%');
                text.truncate(escape.map_or(end, |at| end - 2 + at));
            }
            text.into()
        }
    }
}

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
            let encoded = String::from_utf8_lossy(agent).replace('\u{fffd}', "%FF");
            assert_eq!(*kept, *encoded);
        }
    }

    /// The lines of a public list; those that begin with `#` say where it is from.
    fn list(text: &'static str) -> impl Iterator<Item = &'static str> {
        text.lines().filter(|line| !line.starts_with('#'))
    }

    #[test]
    fn crawlers_that_say_so_are_declared_bots() {
        let classifier = Classifier::new();
        let (mut bots, mut tools, mut missed) = (0, 0, Vec::new());
        for agent in list(include_str!("../testdata/crawlers.txt")) {
            match classifier.search(agent.as_bytes()) {
                Agent::Bot => bots += 1,
                Agent::Tool => tools += 1,
                Agent::Browser => missed.push(agent),
            }
        }
        assert_eq!(bots + tools + missed.len(), 2118, "the list is whole");
        assert!(
            bots >= 1_720,
            "{bots} bots, {tools} tools, missed: {missed:#?}"
        );
        assert!(missed.len() <= 330, "{} missed: {missed:#?}", missed.len());
    }

    #[test]
    fn people_are_not_taken_for_crawlers() {
        let classifier = Classifier::new();
        let sample = list(include_str!("../testdata/people.txt"));
        let known = [
            "fuboTV/4.75.0 (Linux;Android 9)",
            "Mozilla/5.0 (Linux; Android 11; turbotabbee) AppleWebKit/537.36 Chrome/90.0 Safari/537.36",
            "Mozilla/5.0 (Windows NT 6.1; Banca Caboto s.p.a.) Gecko/20100101 Firefox/3.6",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 [FBAN/FBIOS;FBCR/Orange Botswana;FBID/phone]",
            "BOTIM/3.2.0 (iPhone; iOS 17.4; Scale/3.00)",
            "Mozilla/5.0 (Linux; Android 8.0.0; CUBOT_P20) AppleWebKit/537.36 Chrome/70.0 Mobile Safari/537.36",
            "Mozilla/5.0 (Linux; Android 6.0; CUBOT MAX) AppleWebKit/537.36 Chrome/72.0 Mobile Safari/537.36",
            "CamScanner/6.1 (Android 12)",
            "MozacFetch/128.0",
            "Mozilla/5.0 (Linux; Android 13; wv) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36 checkout/1.2",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0 Safari/537.36 Telegram-Android/10.14",
        ];
        let mut count = 0;
        for agent in sample.chain(known) {
            count += 1;
            assert!(!classifier.is_bot(agent.as_bytes()), "{agent}");
        }
        assert_eq!(count, 952 + known.len(), "the list is whole");
    }

    #[test]
    fn what_monitors_balancers_and_previews_send_is_a_declared_bot() {
        let classifier = Classifier::new();
        for agent in [
            "ELB-HealthChecker/2.0",
            "GoogleHC/1.0",
            "kube-probe/1.27",
            "Mozilla/5.0 (compatible; vkShare; +http://vk.com/dev/Share)",
            "Meta-ExternalHit/1.1",
            "meta-externalfetcher/1.1",
            "Site24x7",
            "DatadogSynthetics",
            "Cloudflare-Healthchecks/1.0",
            "GoogleOther",
            "Mozilla/5.0 (compatible; Google-InspectionTool/1.0)",
            "W3C_Validator/1.3",
            "SomethingBot2.1",
        ] {
            assert!(classifier.is_bot(agent.as_bytes()), "{agent}");
        }
    }

    #[test]
    fn a_user_agent_that_is_kept_stays_within_its_bound() {
        for (sent, text) in [
            (vec![0xff; 512], "%FF".repeat(170)),
            (
                [vec![b'a'; 511], "é".into()].concat()[..512].to_vec(),
                "a".repeat(511),
            ),
            (b"caf\xe9/1.0 ".to_vec(), "caf%E9/1.0 ".to_owned()),
            ("café/1.0".into(), "café/1.0".to_owned()),
        ] {
            assert_eq!(kept(&sent), text);
        }
    }
}
