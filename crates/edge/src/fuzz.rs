//! Bytes of any kind as a request's cookies: the entry of the fuzz target in `fuzz/`, and of the test that replays its
//! corpus.
//!
//! Bytes alone would never hold a token that verifies, so the input is a small program that writes a `Cookie` header.

use bytes::BytesMut;
use domain::token::TOKEN_CHARS;
use domain::{ClickKey, Keyring, Link, Shard, Target, Token};
use hyper::header::{COOKIE, HeaderMap, HeaderValue};

use crate::cookie::{self, History, TOKENS_MAX, attributes, name};

/// Longer than a request's head may be.
const COOKIE_BYTES_MAX: usize = 32 << 10;

/// Writes the header that `program` describes and reads it. Returns how many tokens of ours were in it.
///
/// # Panics
/// Where the reader breaks its word.
pub fn cookie(program: &[u8]) -> usize {
    let Some((first, program)) = program.split_first() else {
        return 0;
    };
    let secure = first % 2 == 0;
    let keyring = Keyring::new(&[(1, [1; 32]), (9, [9; 32])]).expect("two keys");
    let Ok(header) = HeaderValue::from_bytes(&written(program, secure, &keyring)) else {
        return 0;
    };
    let history = read(header, secure, &keyring);
    let count = history.opened().len();
    assert!(count <= TOKENS_MAX);

    // What is set next is read back whole: the first one and the latest stay, and nothing that did not verify.
    let next = token(u32::MAX);
    let mut set = BytesMut::new();
    let attributes = attributes(secure, 60);
    let sealed = keyring.seal(&next);
    cookie::write(Some(&history), &sealed, secure, &attributes, &mut set);
    let pair = set[..].split(|b| *b == b';').next().expect("a pair");
    assert!(pair.len() <= 450, "{} bytes", pair.len());
    let header = HeaderValue::from_bytes(pair).expect("tokens are plain text");
    let after = read(header, secure, &keyring);
    assert!(!after.bad && after.opened().len() == (count + 1).min(TOKENS_MAX));
    assert_eq!(after.opened().last(), Some(&next.to_bytes()));
    if let Some(oldest) = history.opened().first() {
        assert_eq!(after.opened().first(), Some(oldest));
    }
    count
}

fn read(header: HeaderValue, secure: bool, keyring: &Keyring) -> History {
    let mut headers = HeaderMap::new();
    headers.insert(COOKIE, header);
    History::read(&headers, secure, keyring)
}

fn token(sequence: u32) -> Token {
    Token {
        click: ClickKey {
            time_ms: domain::time::EPOCH_MS,
            stream: 1,
            sequence,
        },
        target: Target::Link(Link::new(1).expect("in range")),
        shard: Shard::new(1).expect("12 bits"),
    }
}

fn written(mut program: &[u8], secure: bool, keyring: &Keyring) -> Vec<u8> {
    let mut header = Vec::new();
    while let [step, rest @ ..] = program
        && header.len() < COOKIE_BYTES_MAX
    {
        program = rest;
        let length = usize::from(program.first().copied().unwrap_or(0));
        match step % 6 {
            0 => header.extend(format!("{}=", name(secure)).bytes()),
            1 => header.extend(keyring.seal(&token(length as u32))),
            2 => header.push(b'.'),
            3 => header.extend(b"; "),
            // Raw bytes, as many as the next one says.
            4 => {
                let (raw, rest) = program.split_at((1 + length).min(program.len()));
                header.extend(raw.get(1..).unwrap_or_default());
                program = rest;
            }
            // Damage to what was written last.
            _ => {
                let at = header.len().saturating_sub(1 + length % TOKEN_CHARS);
                if let Some(byte) = header.get_mut(at) {
                    *byte ^= 1;
                }
            }
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Each seed is named after what it writes; so many tokens of ours are found in it.
    const SEEDS: [(&str, usize); 12] = [
        ("after-257-pairs", 0),
        ("eight-tokens", 8),
        ("empty", 0),
        ("hostile-dots", 0),
        ("line-end", 0),
        ("longest-raw", 0),
        ("name-of-another", 0),
        ("nine-tokens", 8),
        ("one-damaged-of-three", 2),
        ("plain-http", 1),
        ("second-cookie-of-the-name", 1),
        ("token-cut", 0),
    ];

    #[test]
    fn the_corpus_passes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/cookie");
        let entries = fs::read_dir(folder)
            .expect("a corpus")
            .map(|entry| entry.expect("a file"));
        let found: BTreeMap<String, usize> = entries
            .map(|entry| {
                let name = entry.file_name().into_string().expect("a name");
                (name, cookie(&fs::read(entry.path()).expect("a file")))
            })
            .collect();
        for (name, count) in SEEDS {
            assert_eq!(found.get(name), Some(&count), "{name}");
        }
    }
}
