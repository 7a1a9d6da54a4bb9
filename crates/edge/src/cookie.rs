//! The attribution cookie: a history of click tokens, not a verdict.
//!
//! The first and the last seven tokens, joined by dots; what does not verify is dropped.

use domain::{Keyring, Token, token::TOKEN_CHARS};
use hyper::{HeaderMap, header};

/// Tokens a cookie holds: with name and dots they stay within 450 bytes.
pub(crate) const TOKENS_MAX: usize = 8;
/// How many cookie pairs of a request are looked at; browsers send at most 180 a host.
const PAIRS_MAX: usize = 256;

/// On HTTPS the prefix keeps other hosts from planting it; plain HTTP exists for development only.
pub(crate) fn name(secure: bool) -> &'static str {
    if secure { "__Host-sl" } else { "sl" }
}

/// What a request's cookie held.
#[derive(Default)]
pub(crate) struct History {
    /// Verified tokens, oldest first.
    pub(crate) tokens: Vec<Token>,
    texts: Vec<[u8; TOKEN_CHARS]>,
    /// Something in it did not verify.
    pub(crate) bad: bool,
}

impl History {
    pub(crate) fn read(headers: &HeaderMap, secure: bool, keyring: &mut Keyring) -> Self {
        let mut history = Self::default();
        let pairs = headers
            .get_all(header::COOKIE)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b';'));
        for pair in pairs.take(PAIRS_MAX) {
            let Some(value) = pair
                .trim_ascii()
                .strip_prefix(name(secure).as_bytes())
                .and_then(|rest| rest.strip_prefix(b"="))
            else {
                continue;
            };
            for (at, text) in value.split(|b| *b == b'.').take(TOKENS_MAX + 1).enumerate() {
                match (at < TOKENS_MAX).then(|| keyring.open(text)) {
                    Some(Ok(token)) => {
                        history.tokens.push(token);
                        history
                            .texts
                            .push(text.try_into().expect("what opens has a token's length"));
                    }
                    _ => history.bad = true,
                }
            }
            break;
        }
        history
    }

    /// The `Set-Cookie` value with one more token; the first stays, the oldest after it leaves.
    pub(crate) fn with(mut self, token: [u8; TOKEN_CHARS], secure: bool, max_age_s: u64) -> String {
        self.texts.push(token);
        if self.texts.len() > TOKENS_MAX {
            self.texts.remove(1);
        }
        let mut value = String::with_capacity(512);
        value.push_str(name(secure));
        for (at, text) in self.texts.iter().enumerate() {
            value.push(if at == 0 { '=' } else { '.' });
            value.push_str(std::str::from_utf8(text).expect("tokens are base64url"));
        }
        value.push_str(if secure { "; Secure" } else { "" });
        value.push_str(&format!(
            "; HttpOnly; SameSite=Lax; Path=/; Max-Age={max_age_s}"
        ));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{ClickKey, Link, Shard, Target};

    fn ring() -> Keyring {
        Keyring::new(&[(1, [7; 32])]).expect("a key")
    }

    fn token(sequence: u32) -> [u8; TOKEN_CHARS] {
        ring().seal(&Token {
            click: ClickKey {
                time_ms: domain::time::EPOCH_MS,
                stream: 1,
                sequence,
            },
            target: Target::Link(Link::new(1).expect("in range")),
            shard: Shard::new(1).expect("12 bits"),
        })
    }

    fn read(cookie: &str) -> History {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, cookie.parse().expect("a header"));
        History::read(&headers, true, &mut ring())
    }

    fn sequences(history: &History) -> Vec<u32> {
        history
            .tokens
            .iter()
            .map(|token| token.click.sequence)
            .collect()
    }

    #[test]
    fn the_first_and_the_last_seven_stay() {
        let mut cookie = String::new();
        for sequence in 1..=12 {
            let set = read(&format!("a=b; {cookie}")).with(token(sequence), true, 60);
            cookie = set.split(';').next().expect("a pair").to_owned();
            assert!(cookie.len() <= 450, "{}", cookie.len());
        }
        assert_eq!(sequences(&read(&cookie)), [1, 6, 7, 8, 9, 10, 11, 12]);
    }

    #[test]
    fn what_does_not_verify_is_dropped() {
        let good = String::from_utf8(token(5).to_vec()).expect("ascii");
        let history = read(&format!("__Host-sl={}.{good}", "x".repeat(49)));
        assert_eq!((sequences(&history), history.bad), (vec![5], true));
        let other = read(&format!("sl={good}; x__Host-sl={good}"));
        assert_eq!((sequences(&other), other.bad), (vec![], false));
    }
}
