//! The identity of one open for writing.

use std::fmt;
use std::str::FromStr;

/// 128 random bits, a new one for each open; with the sequence they name a record for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub [u8; 16]);

impl StreamId {
    /// A new identity from the kernel's random source.
    ///
    /// # Panics
    /// When the kernel has no random source: nothing may be written without one.
    pub fn random() -> StreamId {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
        StreamId(bytes)
    }

    /// The first 32 bits, big-endian: what a click token carries of it.
    pub fn prefix(&self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAStreamId;

impl fmt::Display for NotAStreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stream is named by 32 hexadecimal digits")
    }
}

impl std::error::Error for NotAStreamId {}

impl FromStr for StreamId {
    type Err = NotAStreamId;

    fn from_str(text: &str) -> Result<StreamId, NotAStreamId> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAStreamId);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| NotAStreamId)?;
        Ok(StreamId(number.to_be_bytes()))
    }
}
