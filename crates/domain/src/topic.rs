//! The topics events travel in.

/// A topic. The number stands in journal records, the name in Kafka behind the installation's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Topic {
    /// Clicks and summaries of unmatched requests.
    Clicks = 1,
    /// What advertisers report.
    Postbacks = 2,
    /// The state of conversions after each change.
    Conversions = 3,
    /// Labels found over time.
    FraudSignals = 4,
}

impl Topic {
    /// Every topic, in the order of their numbers.
    pub const ALL: [Self; 4] = [
        Self::Clicks,
        Self::Postbacks,
        Self::Conversions,
        Self::FraudSignals,
    ];

    /// The name without the installation's prefix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clicks => "clicks",
            Self::Postbacks => "postbacks",
            Self::Conversions => "conversions",
            Self::FraudSignals => "fraud-signals",
        }
    }

    /// How many days records are kept; `None` for ever. A quarter's payout run can be done again from 100 days.
    pub fn kept_days(self) -> Option<u32> {
        match self {
            Self::Clicks | Self::Postbacks | Self::FraudSignals => Some(100),
            Self::Conversions => None,
        }
    }

    /// The topic of a number; `None` for one this version does not know.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| *topic as u32 == number)
    }
}
