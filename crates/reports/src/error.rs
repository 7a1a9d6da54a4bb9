//! Why there is no report.

use std::{error, fmt};

/// What went wrong; its text is one line.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Parameter {
        name: String,
        message: String,
    },
    /// The answer would be too long, or take too long: what to ask instead.
    TooLarge {
        why: String,
        instead: String,
    },
    Timezone(String),
    Store(store::Error),
    Event(prost::DecodeError),
}

impl Error {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind }
    }

    pub(crate) fn parameter(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::Parameter {
            name: name.into(),
            message: message.into(),
        })
    }

    /// The question asks for too much; the text names a smaller one.
    pub fn is_too_large(&self) -> bool {
        matches!(self.kind, Kind::TooLarge { .. })
    }

    /// The parameter that is wrong, when it is the asker's mistake.
    pub fn parameter_name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Parameter { name, .. } => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Parameter { name, message } => write!(f, "{name}: {message}"),
            Kind::TooLarge { why, instead } => write!(f, "{why}: ask for {instead}"),
            Kind::Timezone(name) => {
                write!(
                    f,
                    "the time zone {name:?} of the network is not known on this machine"
                )
            }
            Kind::Store(source) => source.fmt(f),
            Kind::Event(source) => write!(
                f,
                "the store holds a conversion that cannot be read: {source}"
            ),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.kind {
            Kind::Store(source) => source.source(),
            Kind::Event(source) => Some(source),
            _ => None,
        }
    }
}

impl From<store::Error> for Error {
    fn from(source: store::Error) -> Self {
        Self::new(Kind::Store(source))
    }
}
