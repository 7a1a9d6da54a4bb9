//! Events as Protobuf messages, generated from `proto/sluice/v1`; the message types and versions headers name.

mod borrowed;

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    rustdoc::all,
    reason = "generated from the schema, which carries the words"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/sluice.v1.rs"));
}

pub use borrowed::BorrowedClick;
pub use generated::*;

/// The version of the schema in `sluice.v1`, for the `version` header.
pub const SCHEMA_VERSION: u16 = 1;

/// The message type a header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// [`Click`]
    Click = 1,
    /// [`Unmatched`]
    Unmatched = 2,
    /// [`Postback`]
    Postback = 3,
    /// [`Conversion`]
    Conversion = 4,
    /// [`FraudSignal`]
    FraudSignal = 5,
    /// [`CatalogEntry`]
    CatalogEntry = 6,
    /// [`CatalogVersion`]
    CatalogVersion = 7,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Click,
        Self::Unmatched,
        Self::Postback,
        Self::Conversion,
        Self::FraudSignal,
        Self::CatalogEntry,
        Self::CatalogVersion,
    ];

    /// The kind of a number; `None` for one this version does not know.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == number)
    }

    /// The name of its message in the schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::Click => "Click",
            Self::Unmatched => "Unmatched",
            Self::Postback => "Postback",
            Self::Conversion => "Conversion",
            Self::FraudSignal => "FraudSignal",
            Self::CatalogEntry => "CatalogEntry",
            Self::CatalogVersion => "CatalogVersion",
        }
    }

    /// The kind of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl From<crate::ClickKey> for ClickKey {
    fn from(key: crate::ClickKey) -> Self {
        Self {
            time_ms: key.time_ms,
            stream: key.stream,
            sequence: key.sequence,
        }
    }
}

impl From<&ClickKey> for crate::ClickKey {
    fn from(key: &ClickKey) -> Self {
        Self {
            time_ms: key.time_ms,
            stream: key.stream,
            sequence: key.sequence,
        }
    }
}

impl Conversion {
    /// What the order has become, without what is of this one event only.
    pub fn into_state(self) -> Self {
        Self {
            before: Vec::new(),
            postback: None,
            was: 0,
            repeat: false,
            outcome: 0,
            ..self
        }
    }
}

impl Reason {
    /// The stable name for reports and metric labels: `unknown_link`.
    pub fn name(self) -> String {
        self.as_str_name()
            .trim_start_matches("REASON_")
            .to_ascii_lowercase()
    }
}
