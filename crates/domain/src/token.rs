//! The click token: what the shop receives and posts back.
//!
//! Opaque, URL-safe, authenticated, 49 characters: one for version (3 bits) and key number (3 bits), then 48 of
//! base64url for 36 bytes, canonical: the 16-byte tag of AES-SIV (RFC 5297, AES-128, no associated data) and 20 bytes
//! of ciphertext. The plaintext, big-endian bits:
//!
//! | time | target | shard | stream | sequence |
//! |---|---|---|---|---|
//! | 41 (ms since 2025-01-01) | 43 (0 + link 42, or 1 + offer 18 + affiliate 24) | 12 | 32 | 32 |

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::siv::{MESSAGE_BYTES, Siv, TAG_BYTES};
use crate::{Affiliate, ClickKey, Link, Offer, Shard, time::EPOCH_MS};

/// Characters of a token.
pub const TOKEN_CHARS: usize = 49;
/// Bytes of an opened token.
pub const OPENED_BYTES: usize = MESSAGE_BYTES;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Most keys that verify at once.
pub const KEYS_MAX: usize = 32;

const VERSION: u8 = 0;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What a token was issued for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A link fixes offer and affiliate.
    Link(Link),
    /// Named in the tracking URL.
    Offer(Offer, Affiliate),
}

/// An opened token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The click it was issued on.
    pub click: ClickKey,
    /// What it leads to.
    pub target: Target,
    /// The click's shard.
    pub shard: Shard,
}

impl Token {
    /// The 20 bytes of plaintext. Times outside of 41 bits from the epoch are clamped.
    pub fn to_bytes(&self) -> [u8; OPENED_BYTES] {
        let time = self
            .click
            .time_ms
            .saturating_sub(EPOCH_MS)
            .min((1 << 41) - 1);
        let target = match self.target {
            Target::Link(link) => link.get(),
            Target::Offer(offer, affiliate) => {
                1 << 42 | u64::from(offer.get()) << 24 | u64::from(affiliate.get())
            }
        };
        let head = u128::from(time) << 55 | u128::from(target) << 12 | u128::from(self.shard.get());
        let mut bytes = [0; OPENED_BYTES];
        bytes[..12].copy_from_slice(&head.to_be_bytes()[4..]);
        bytes[12..16].copy_from_slice(&self.click.stream.to_be_bytes());
        bytes[16..].copy_from_slice(&self.click.sequence.to_be_bytes());
        bytes
    }

    /// The inverse of [`Self::to_bytes`]; `None` when a number in it is 0.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; OPENED_BYTES] = bytes.try_into().ok()?;
        let mut head = [0; 16];
        head[4..].copy_from_slice(&bytes[..12]);
        let head = u128::from_be_bytes(head);
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let target = (head >> 12) as u64 & ((1 << 43) - 1);
        let target = if target >> 42 == 0 {
            Target::Link(Link::new(target)?)
        } else {
            Target::Offer(
                Offer::new((target >> 24) as u32 & Offer::MAX)?,
                Affiliate::new(target as u32 & Affiliate::MAX)?,
            )
        };
        Some(Self {
            click: ClickKey {
                time_ms: (head >> 55) as u64 + EPOCH_MS,
                stream: word(12),
                sequence: word(16),
            },
            target,
            shard: Shard::new(head as u32 & 0xfff)?,
        })
    }
}

/// Why a token does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not 49 characters of base64url, or of a version this build does not know.
    Malformed,
    /// Somebody lower-cased it on the way.
    Lowercased,
    /// No key of ours made it.
    Forged,
}

struct Key {
    number: u8,
    siv: Siv,
}

/// The keys that make and verify tokens. The last one signs.
pub struct Keyring {
    keys: Vec<Key>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({} keys)", self.keys.len())
    }
}

impl Keyring {
    /// Keys as (id, bytes), oldest first; ids never repeat in an installation's life. `None` for none or over [`KEYS_MAX`].
    pub fn new(keys: &[(u32, [u8; KEY_BYTES])]) -> Option<Self> {
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return None;
        }
        let keys = keys.iter().map(|(id, bytes)| Key {
            number: (id & 7) as u8,
            siv: Siv::new(bytes),
        });
        Some(Self {
            keys: keys.collect(),
        })
    }

    /// Reads a key file: a line per key, `ID HEX`, oldest first; the last one signs. `#` begins a comment.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let key = text
                .split_once(' ')
                .and_then(|(id, hex)| Some((id.parse().ok()?, from_hex(hex.trim())?)));
            keys.push(key.ok_or_else(|| {
                format!("line {line}: expected a key's id and 64 hexadecimal digits")
            })?);
        }
        Self::new(&keys)
            .ok_or_else(|| format!("expected 1 to {KEYS_MAX} keys, found {}", keys.len()))
    }

    /// Makes the token's text.
    pub fn seal(&self, token: &Token) -> [u8; TOKEN_CHARS] {
        let key = self.keys.last().expect("a keyring holds a key");
        let mut message = token.to_bytes();
        let tag = key.siv.encrypt(&mut message);
        let mut sealed = [0; TAG_BYTES + OPENED_BYTES];
        sealed[..TAG_BYTES].copy_from_slice(&tag);
        sealed[TAG_BYTES..].copy_from_slice(&message);
        let mut text = [0; TOKEN_CHARS];
        text[0] = ALPHABET[usize::from(VERSION << 3 | key.number)];
        for (six, eight) in sealed.as_chunks().0.iter().zip(text[1..].as_chunks_mut().0) {
            *eight = encode(*six);
        }
        text
    }

    /// Opens a token's text, or says why not.
    pub fn open(&self, text: &[u8]) -> Result<Token, Refused> {
        if text.len() != TOKEN_CHARS || !text.iter().all(is_of_alphabet) {
            return Err(Refused::Malformed);
        }
        // A true token without one capital letter is rarer than one in ten thousand million.
        if !text.iter().any(u8::is_ascii_uppercase) {
            return Err(Refused::Lowercased);
        }
        let head = ALPHABET
            .iter()
            .position(|b| *b == text[0])
            .expect("checked above") as u8;
        if head >> 3 != VERSION {
            return Err(Refused::Malformed);
        }
        let mut sealed = [0; TAG_BYTES + OPENED_BYTES];
        URL_SAFE_NO_PAD
            .decode_slice(&text[1..], &mut sealed)
            .map_err(|_| Refused::Malformed)?;
        let (tag, body) = sealed.split_at(TAG_BYTES);
        let tag: [u8; TAG_BYTES] = tag.try_into().expect("split there");
        for key in self.keys.iter().filter(|key| key.number == head & 7).rev() {
            let mut opened: [u8; OPENED_BYTES] = body.try_into().expect("split there");
            if key.siv.decrypt(&mut opened, tag) {
                return Token::from_bytes(&opened).ok_or(Refused::Malformed);
            }
        }
        Err(Refused::Forged)
    }
}

fn is_of_alphabet(b: &u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')
}

/// Six bytes as eight characters of base64url (RFC 4648 §5).
fn encode([a, b, c, d, e, f]: [u8; 6]) -> [u8; 8] {
    let bits = u64::from_be_bytes([a, b, c, d, e, f, 0, 0]);
    std::array::from_fn(|at| ALPHABET[(bits >> (58 - 6 * at) & 63) as usize])
}

/// 32 bytes from 64 hexadecimal digits.
pub fn from_hex(hex: &str) -> Option<[u8; KEY_BYTES]> {
    let mut bytes = [0; KEY_BYTES];
    if hex.len() != 2 * KEY_BYTES || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring() -> Keyring {
        Keyring::new(&[(1, [1; 32]), (9, [9; 32])]).expect("two keys")
    }

    fn sample() -> Token {
        Token {
            click: ClickKey {
                time_ms: EPOCH_MS + 123_456_789,
                stream: 0xdead_beef,
                sequence: 42,
            },
            target: Target::Offer(
                Offer::new(7).expect("in range"),
                Affiliate::new(9).expect("in range"),
            ),
            shard: Shard::new(0xabc).expect("12 bits"),
        }
    }

    #[test]
    fn golden() {
        let text = ring().seal(&sample());
        assert_eq!(
            std::str::from_utf8(&text).expect("ascii"),
            "BHIUtNHDgUq88GOMSJDynyBmBVPtG8r6UG31f4CLO5ztftViB"
        );
        assert_eq!(ring().open(&text), Ok(sample()));
    }

    #[test]
    fn refusals() {
        let text = ring().seal(&sample());
        let other = Keyring::new(&[(1, [2; 32])]).expect("a key");
        assert_eq!(other.open(&text), Err(Refused::Forged));
        assert_eq!(
            ring().open(&text.to_ascii_lowercase()),
            Err(Refused::Lowercased)
        );
        assert_eq!(ring().open(&text[1..]), Err(Refused::Malformed));
        for at in 1..TOKEN_CHARS {
            let mut bent = text;
            bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(ring().open(&bent), Err(Refused::Forged), "character {at}");
        }
    }

    #[test]
    fn an_older_key_still_verifies() {
        let text = Keyring::new(&[(1, [1; 32])])
            .expect("a key")
            .seal(&sample());
        assert_eq!(ring().open(&text), Ok(sample()));
    }

    proptest! {
        #[test]
        fn whatever_is_sealed_opens(time in 0u64..1 << 41, stream: u32, sequence: u32, shard in 0u32..4096, link in 1u64..1 << 42) {
            let token = Token {
                click: ClickKey { time_ms: EPOCH_MS + time, stream, sequence },
                target: Target::Link(Link::new(link).expect("in range")),
                shard: Shard::new(shard).expect("12 bits"),
            };
            prop_assert_eq!(Token::from_bytes(&token.to_bytes()), Some(token));
            let ring = ring();
            let text = ring.seal(&token);
            prop_assert_eq!(ring.open(&text), Ok(token));
        }

        #[test]
        fn hostile_text_never_opens(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(ring().open(&text).is_err());
        }
    }
}
