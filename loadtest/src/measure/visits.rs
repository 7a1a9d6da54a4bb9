//! The requests of a measurement: what a browser sends that follows a link, the same to every server.

use std::sync::Arc;

use crate::measure::zipf::Zipf;

/// The redirect host of every case's catalog that does not bring links of its own.
pub(crate) const HOST: &str = "go.compare.example";

/// What Chrome sends with a click on a page of another site, in its order, after the Host.
const BROWSER: &str = "Connection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\", \"Google Chrome\";v=\"140\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: cross-site\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://trailblog.example/\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Accept-Language: en-US,en;q=0.9\r\n";

/// Letters of a slug in a file of many links: one length, so that one request fits all.
pub(crate) const SLUG_BYTES: usize = 8;

/// Links that are clicked.
#[derive(Clone, Debug)]
pub(crate) enum Links {
    /// This slug.
    One(String),
    /// Any of these.
    Many(Arc<Vec<[u8; SLUG_BYTES]>>),
}

/// Which of many links is clicked next.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// Each as often as another.
    Uniform,
    /// Few get most clicks.
    Zipf(Zipf),
}

/// Makes requests.
#[derive(Clone, Debug)]
pub(crate) struct Visits {
    request: Vec<u8>,
    links: Links,
    choice: Choice,
    /// Ranks that follow each other are links that do not.
    stride: usize,
    random: fastrand::Rng,
}

impl Visits {
    /// To links of a host; `query` begins with `?` where there is one, `cookie` is the header's value.
    pub(crate) fn new(
        host: &str,
        links: Links,
        choice: Choice,
        query: &str,
        cookie: Option<&str>,
        seed: u64,
    ) -> Self {
        let slug = match &links {
            Links::One(slug) => slug.clone(),
            Links::Many(_) => "-".repeat(SLUG_BYTES),
        };
        let cookie = cookie.map_or_else(String::new, |value| format!("Cookie: {value}\r\n"));
        let request =
            format!("GET /{slug}{query} HTTP/1.1\r\nHost: {host}\r\n{BROWSER}{cookie}\r\n");
        let stride = match &links {
            Links::One(_) => 1,
            Links::Many(slugs) => coprime(slugs.len()),
        };
        Self {
            request: request.into_bytes(),
            links,
            choice,
            stride,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The same requests to links drawn anew: what one slice clicked is in a cache when the next one begins.
    pub(crate) fn with_seed(&self, seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            ..self.clone()
        }
    }

    /// Bytes of a request.
    pub(crate) fn request_bytes(&self) -> usize {
        self.request.len()
    }

    /// Puts the next request into a buffer that held one of these, or nothing.
    pub(crate) fn next(&mut self, into: &mut Vec<u8>) {
        if into.len() != self.request.len() {
            into.clone_from(&self.request);
        }
        let Links::Many(slugs) = &self.links else {
            return;
        };
        let rank = match &self.choice {
            Choice::Uniform => self.random.usize(..slugs.len()),
            Choice::Zipf(zipf) => zipf.draw(&mut self.random),
        };
        let slug = &slugs[rank.wrapping_mul(self.stride) % slugs.len()];
        into["GET /".len()..][..SLUG_BYTES].copy_from_slice(slug);
    }
}

/// A step that comes to every place of a circle and lies far from 1.
fn coprime(count: usize) -> usize {
    let divisor = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (count * 2 / 3 + 1..)
        .find(|step| divisor(*step, count) == 1)
        .expect("a prime above the count is coprime to it")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_request_is_as_long_as_a_browsers() {
        let links = Links::One("plain".to_owned());
        let mut visits = Visits::new(HOST, links, Choice::Uniform, "", None, 1);
        let mut request = Vec::new();
        visits.next(&mut request);
        assert!((500..=900).contains(&visits.request_bytes()));
        let text = String::from_utf8(request).unwrap();
        assert!(text.starts_with("GET /plain HTTP/1.1\r\nHost: go.compare.example\r\n"));
        assert!(text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn every_link_is_clicked_and_a_seed_repeats_them() {
        let slugs: Vec<[u8; SLUG_BYTES]> = (0..50_u64)
            .map(|n| format!("{n:08}").into_bytes().try_into().unwrap())
            .collect();
        let links = Links::Many(Arc::new(slugs));
        let targets = |choice: Choice| {
            let mut visits = Visits::new(HOST, links.clone(), choice, "?sub1=a", None, 5);
            let mut request = Vec::new();
            let targets = (0..5_000).map(|_| {
                visits.next(&mut request);
                String::from_utf8(request[..20].to_vec()).unwrap()
            });
            targets.collect::<Vec<_>>()
        };
        let zipf = Choice::Zipf(Zipf::new(50, 1.0));
        for choice in [Choice::Uniform, zipf] {
            let seen = targets(choice.clone());
            assert_eq!(seen, targets(choice));
            assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 50);
        }
    }

    #[test]
    fn a_stride_visits_every_place() {
        for count in [1, 2, 3, 10, 97, 10_000] {
            let step = coprime(count);
            let seen: HashSet<usize> = (0..count).map(|rank| rank * step % count).collect();
            assert_eq!(seen.len(), count);
        }
    }
}
