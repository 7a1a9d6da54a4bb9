//! Bytes of any kind through what reads tokens and events: the entries of the fuzz targets in `fuzz/`, and of the tests
//! that replay their corpus.

use prost::Message;

use crate::event::{Click, Conversion, EdgeRecord, FraudSignal, Postback, Unmatched};
use crate::token::{KEY_BYTES, OPENED_BYTES, TOKEN_CHARS};
use crate::{Keyring, Token};

/// Two that share a number in the token's first character, and one that signs.
const KEYS: [(u32, [u8; KEY_BYTES]); 3] = [(1, [1; 32]), (9, [9; 32]), (2, [2; 32])];

/// The first byte says what the others are: an opened token, a token's text, damage to a good token, a key file. Returns how
/// many tokens were opened, or keyrings read.
///
/// # Panics
/// Where a codec breaks its word.
pub fn token(bytes: &[u8]) -> usize {
    let Some((sort, bytes)) = bytes.split_first() else {
        return 0;
    };
    let opened = match sort % 4 {
        0 => opened(bytes),
        1 => open(bytes),
        2 => open_damaged(bytes),
        _ => parse(bytes),
    };
    usize::from(opened)
}

fn opened(bytes: &[u8]) -> bool {
    let Some(token) = Token::from_bytes(bytes) else {
        return false;
    };
    assert_eq!(token.to_bytes(), bytes, "every bit means something");
    for key in KEYS {
        let ring = Keyring::new(&[key]).expect("a key");
        assert!(open(&ring.seal(&token)));
    }
    true
}

/// What opens is what one of the keys makes of it, to the letter.
fn open(text: &[u8]) -> bool {
    let Ok(token) = Keyring::new(&KEYS).expect("three keys").open(text) else {
        return false;
    };
    let made = KEYS.map(|key| Keyring::new(&[key]).expect("a key").seal(&token));
    assert!(made.iter().any(|made| made == text), "one token, one text");
    true
}

/// An opened token, sealed; then pairs of a place and what is changed there.
fn open_damaged(bytes: &[u8]) -> bool {
    let Some((token, damage)) = bytes.split_at_checked(OPENED_BYTES) else {
        return false;
    };
    let Some(token) = Token::from_bytes(token) else {
        return false;
    };
    let mut text = Keyring::new(&KEYS).expect("three keys").seal(&token);
    for pair in damage.chunks_exact(2) {
        text[usize::from(pair[0]) % TOKEN_CHARS] ^= pair[1];
    }
    open(&text)
}

fn parse(bytes: &[u8]) -> bool {
    let Ok(ring) = Keyring::parse(&String::from_utf8_lossy(bytes)) else {
        return false;
    };
    let mut token = [0; OPENED_BYTES];
    // A link's number: the last bit of the target.
    token[10] = 1 << 4;
    let token = Token::from_bytes(&token).expect("of link 1");
    let text = ring.seal(&token);
    assert_eq!(
        ring.open(&text),
        Ok(token),
        "the last key signs, and verifies"
    );
    true
}

/// The first byte says of which message the others are. Returns how many were decoded.
///
/// # Panics
/// Where what was decoded is not what its own bytes say.
pub fn event(bytes: &[u8]) -> usize {
    let Some((kind, bytes)) = bytes.split_first() else {
        return 0;
    };
    let decoded = match kind % 6 {
        0 => again::<EdgeRecord>(bytes),
        1 => again::<Click>(bytes),
        2 => again::<Unmatched>(bytes),
        3 => again::<Postback>(bytes),
        4 => again::<Conversion>(bytes),
        _ => again::<FraudSignal>(bytes),
    };
    usize::from(decoded)
}

fn again<M: Message + Default + PartialEq>(bytes: &[u8]) -> bool {
    let Ok(message) = M::decode(bytes) else {
        return false;
    };
    let written = message.encode_to_vec();
    let read = M::decode(&*written).expect("what is encoded decodes");
    assert!(read == message, "nothing is lost on the way");
    assert_eq!(read.encode_to_vec(), written, "one message, one encoding");
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    /// Runs every file of a corpus; each is named after what it holds.
    fn replay(corpus: &str, run: fn(&[u8]) -> usize) -> BTreeMap<String, usize> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(corpus);
        let entries = fs::read_dir(folder)
            .expect("a corpus")
            .map(|entry| entry.expect("a file"));
        entries
            .map(|entry| {
                let name = entry.file_name().into_string().expect("a name");
                (name, run(&fs::read(entry.path()).expect("a file")))
            })
            .collect()
    }

    #[test]
    fn the_corpus_of_tokens_passes() {
        let found = replay("token", token);
        for (name, count) in TOKENS {
            assert_eq!(found.get(name), Some(&count), "{name}");
        }
    }

    #[test]
    fn the_corpus_of_events_passes() {
        let found = replay("event", event);
        for (name, count) in EVENTS {
            assert_eq!(found.get(name), Some(&count), "{name}");
        }
    }

    const TOKENS: [(&str, usize); 16] = [
        ("damaged-base64", 0),
        ("damaged-first-character", 0),
        ("damaged-nowhere", 1),
        ("damaged-tag", 0),
        ("empty", 0),
        ("keys-comments-and-three", 1),
        ("keys-none", 0),
        ("keys-not-hexadecimal", 0),
        ("keys-over-the-bound", 0),
        ("opened-cut", 0),
        ("opened-largest-numbers", 1),
        ("opened-offer-and-affiliate", 1),
        ("opened-offer-zero", 0),
        ("text-lower-case", 0),
        ("text-of-another-version", 0),
        ("text-too-long", 0),
    ];

    const EVENTS: [(&str, usize); 15] = [
        ("click-cut", 0),
        ("click-empty", 1),
        ("click-fields-twice", 1),
        ("click-longest-texts", 1),
        ("click-not-utf8", 0),
        ("click-of-a-newer-schema", 1),
        ("click-unknown-enum-value", 1),
        ("click-valid", 1),
        ("click-wrong-wire-type", 0),
        ("conversion-valid", 1),
        ("edge-record-two-events", 1),
        ("edge-record-valid", 1),
        ("fraud-signal-length-that-lies", 0),
        ("postback-valid", 1),
        ("unmatched-overlong-varint", 0),
    ];

    proptest! {
        #[test]
        fn bytes_of_any_kind_pass(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            token(&bytes);
            event(&bytes);
        }

        #[test]
        fn damaged_tokens_pass(token_bytes: [u8; OPENED_BYTES], damage in prop::collection::vec(any::<u8>(), 0..6)) {
            for sort in [0, 2] {
                let mut bytes = vec![sort];
                bytes.extend(token_bytes);
                bytes.extend(&damage);
                token(&bytes);
            }
        }
    }
}
