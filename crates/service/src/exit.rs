//! The one error that ends a process with exit code 2: somebody has to change something before it can start.

use std::error::Error;
use std::fmt;

/// The exit code of a refusal; 1 is kept for work that was begun and failed.
pub const REFUSED: u8 = 2;

/// Says why a process does not start and what to do about it. The text is one line, or one line a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    text: String,
}

impl Refusal {
    /// A refusal with its line: what is wrong, a colon, what to do.
    pub fn new(text: impl Into<String>) -> Refusal {
        Refusal { text: text.into() }
    }

    /// The process's exit code.
    pub fn code(&self) -> u8 {
        REFUSED
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Refusal {}

impl From<crate::settings::Problems> for Refusal {
    fn from(problems: crate::settings::Problems) -> Refusal {
        Refusal::new(problems.to_string())
    }
}

impl From<crate::folder::FolderError> for Refusal {
    fn from(error: crate::folder::FolderError) -> Refusal {
        Refusal::new(error.to_string())
    }
}

impl From<crate::secret::SecretError> for Refusal {
    fn from(error: crate::secret::SecretError) -> Refusal {
        Refusal::new(error.to_string())
    }
}

impl From<crate::listen::ListenError> for Refusal {
    fn from(error: crate::listen::ListenError) -> Refusal {
        Refusal::new(error.to_string())
    }
}
