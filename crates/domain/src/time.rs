//! Time as the events carry it, and the key of a click.

/// The token's epoch, 2025-01-01T00:00:00Z, in Unix milliseconds.
pub const EPOCH_MS: u64 = 1_735_689_600_000;

/// What a click is known by: the parts of its token. Orders by time first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClickKey {
    /// Unix milliseconds, never backwards within a stream.
    pub time_ms: u64,
    /// First 32 bits of the stream.
    pub stream: u32,
    /// Low 32 bits of the sequence in the stream.
    pub sequence: u32,
}

impl ClickKey {
    /// Big-endian bytes, so that byte order is key order.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.time_ms.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.stream.to_be_bytes());
        bytes[12..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }

    /// Reads what [`Self`] prints.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = plain
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()?;
        Some(Self::from_bytes(number.to_be_bytes()))
    }

    /// The inverse of [`Self::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            time_ms: u64::from(word(0)) << 32 | u64::from(word(4)),
            stream: word(8),
            sequence: word(12),
        }
    }
}

impl std::fmt::Display for ClickKey {
    /// 32 hexadecimal digits: how a click, and a postback by its `id`, is named outside.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.to_bytes()))
    }
}

/// Rollup buckets are 15 minutes of UTC: every time zone's day adds up from them.
pub const BUCKET_MS: u64 = 15 * 60 * 1000;

/// The start of the bucket a time falls in, Unix milliseconds.
pub fn bucket(time_ms: u64) -> u64 {
    time_ms - time_ms % BUCKET_MS
}

/// A calendar day in some time zone, as days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(pub i32);

impl Day {
    /// The day a time falls on in a time zone.
    pub fn of(time_ms: u64, zone: &jiff::tz::TimeZone) -> Self {
        let timestamp =
            jiff::Timestamp::from_millisecond(i64::try_from(time_ms).unwrap_or(i64::MAX))
                .unwrap_or(jiff::Timestamp::MAX);
        let seconds = timestamp.as_second() + i64::from(zone.to_offset(timestamp).seconds());
        Self(i32::try_from(seconds.div_euclid(86_400)).unwrap_or(i32::MAX))
    }
}
