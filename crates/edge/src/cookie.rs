//! The attribution cookie: a history of click tokens, not a verdict.
//!
//! The first and the last seven tokens, joined by dots; what does not verify is dropped.

use bytes::BytesMut;
use domain::Keyring;
use domain::token::{OPENED_BYTES, TOKEN_CHARS};
use hyper::{HeaderMap, header};

/// Tokens a cookie holds: with name and dots they stay within 450 bytes.
pub(crate) const TOKENS_MAX: usize = 8;
/// How many cookie pairs of a request are looked at; browsers send at most 180 a host.
const PAIRS_MAX: usize = 256;

/// On HTTPS the prefix keeps other hosts from planting it; plain HTTP exists for development only.
pub(crate) fn name(secure: bool) -> &'static str {
    if secure { "__Host-sl" } else { "sl" }
}

/// What stands behind the tokens in `Set-Cookie`, for tokens that are worth this many seconds.
pub(crate) fn attributes(secure: bool, max_age_s: u64) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{secure}; HttpOnly; SameSite=Lax; Path=/; Max-Age={max_age_s}")
}

/// The `Set-Cookie` value that deletes it.
pub(crate) fn deletion(secure: bool) -> &'static str {
    if secure {
        "__Host-sl=; Secure; HttpOnly; SameSite=Lax; Path=/; Max-Age=0"
    } else {
        "sl=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0"
    }
}

/// What a request's cookie held: tokens that verify, oldest first.
#[derive(Default)]
pub(crate) struct History {
    count: usize,
    texts: [Text; TOKENS_MAX],
    opened: [[u8; OPENED_BYTES]; TOKENS_MAX],
    /// There was one, whatever it held.
    pub(crate) is_sent: bool,
    /// Something in it did not verify.
    pub(crate) bad: bool,
}

/// A token's characters.
#[derive(Clone, Copy)]
struct Text([u8; TOKEN_CHARS]);

impl Default for Text {
    fn default() -> Self {
        Self([0; TOKEN_CHARS])
    }
}

impl History {
    pub(crate) fn read(headers: &HeaderMap, secure: bool, keyring: &Keyring) -> Self {
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
            history.is_sent = true;
            for (at, text) in value.split(|b| *b == b'.').take(TOKENS_MAX + 1).enumerate() {
                match (at < TOKENS_MAX).then(|| keyring.open(text)) {
                    Some(Ok(token)) => {
                        history.opened[history.count] = token.to_bytes();
                        history.texts[history.count].0.copy_from_slice(text);
                        history.count += 1;
                    }
                    _ => history.bad = true,
                }
            }
            break;
        }
        history
    }

    /// The tokens, opened.
    pub(crate) fn opened(&self) -> &[[u8; OPENED_BYTES]] {
        &self.opened[..self.count]
    }

    fn texts(&self) -> &[Text] {
        &self.texts[..self.count]
    }
}

/// Writes the `Set-Cookie` value of a history with one more token; the first stays, the oldest after it leaves. `attributes`
/// is what [`attributes`] said.
pub(crate) fn write(
    history: Option<&History>,
    token: &[u8; TOKEN_CHARS],
    secure: bool,
    attributes: &str,
    out: &mut BytesMut,
) {
    out.extend_from_slice(name(secure).as_bytes());
    let mut joint = b"=";
    let texts = history.map_or(&[][..], History::texts);
    for (at, text) in texts.iter().enumerate() {
        if at == 1 && texts.len() == TOKENS_MAX {
            continue;
        }
        out.extend_from_slice(joint);
        out.extend_from_slice(&text.0);
        joint = b".";
    }
    out.extend_from_slice(joint);
    out.extend_from_slice(token);
    out.extend_from_slice(attributes.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{ClickKey, Link, Shard, Target, Token};

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
        History::read(&headers, true, &ring())
    }

    fn sequences(history: &History) -> Vec<u32> {
        let opened = history.opened().iter();
        opened
            .map(|bytes| Token::from_bytes(bytes).expect("a token").click.sequence)
            .collect()
    }

    fn set(history: &History, sequence: u32) -> String {
        let mut out = BytesMut::new();
        let attributes = attributes(true, 60);
        write(Some(history), &token(sequence), true, &attributes, &mut out);
        String::from_utf8(out.to_vec()).expect("ascii")
    }

    #[test]
    fn what_is_set() {
        let text = String::from_utf8(token(1).to_vec()).expect("ascii");
        assert_eq!(
            set(&History::default(), 1),
            format!("__Host-sl={text}; Secure; HttpOnly; SameSite=Lax; Path=/; Max-Age=60")
        );
        assert_eq!(
            attributes(false, 5),
            "; HttpOnly; SameSite=Lax; Path=/; Max-Age=5"
        );
        for secure in [false, true] {
            let expected = format!("{}={}", name(secure), attributes(secure, 0));
            assert_eq!(deletion(secure), expected);
        }
    }

    #[test]
    fn the_first_and_the_last_seven_stay() {
        let mut cookie = String::new();
        for sequence in 1..=12 {
            let set = set(&read(&format!("a=b; {cookie}")), sequence);
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
