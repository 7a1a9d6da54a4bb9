//! Why something was not folded: the whole batch, or one event.

use std::{error, fmt};

use stream::Record;

/// Why a fold failed.
#[derive(Debug)]
pub enum Error {
    /// The store could not be read or changed: the consumer stands still and tries again.
    Store(store::Error),
    /// The store holds something that cannot be understood: the consumer stands still.
    Damaged(String),
    /// This one event cannot be folded: it is parked, and the others are folded.
    Event(Refusal),
}

/// Why an event cannot be folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of the reason.
    pub reason: Reason,
    /// The reason in words. Events that lack the same thing have the same words.
    pub detail: String,
}

/// The kinds of reasons for which events are parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The event names a catalog version that is not here, or cannot be used here: it waits.
    CatalogVersion,
    /// The version of that number here is another one than the event's.
    CatalogHash,
    /// This version of Sluice does not know the event's type.
    UnknownType,
    /// The event's value does not decode, or lacks what every event has.
    Undecodable,
    /// It is no record of Sluice.
    Foreign,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::CatalogVersion,
        Self::CatalogHash,
        Self::UnknownType,
        Self::Undecodable,
        Self::Foreign,
    ];

    /// The stable name, in the store, in metrics and lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::CatalogVersion => "catalog_version",
            Self::CatalogHash => "catalog_hash",
            Self::UnknownType => "unknown_type",
            Self::Undecodable => "undecodable",
            Self::Foreign => "foreign",
        }
    }
}

impl Error {
    /// An event that does not decode, or lacks what every event has.
    pub fn undecodable(record: &Record, what: impl fmt::Display) -> Self {
        Self::event(
            Reason::Undecodable,
            format!(
                "{} lane {} n {}: {what}",
                record.origin, record.lane, record.n
            ),
        )
    }

    /// An event of a type that the fold of this version does not know.
    pub fn unknown_type(name: impl fmt::Display) -> Self {
        Self::event(
            Reason::UnknownType,
            format!("type {name} is not known to this version: use a newer Sluice"),
        )
    }

    /// An event that cannot be folded.
    pub fn event(reason: Reason, detail: impl Into<String>) -> Self {
        Self::Event(Refusal {
            reason,
            detail: detail.into(),
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Damaged(what) => write!(f, "the store holds {what}: restore it from a backup"),
            Self::Event(refusal) => f.write_str(&refusal.detail),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Damaged(_) | Self::Event(_) => None,
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}
