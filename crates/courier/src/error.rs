//! Why a courier cannot go on.

use std::path::{Path, PathBuf};

use crate::courier::OtherCatalog;

/// What went wrong, with what, and why.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    path: PathBuf,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[derive(Debug)]
enum Kind {
    Journal,
    Cursor,
    CursorFormat(u8),
    DeadLetters,
    Sender,
    OtherCatalog,
}

impl Error {
    /// The sender has ended: drop it, the next step needs a new one and sends again from the cursor.
    pub fn is_sender(&self) -> bool {
        matches!(self.kind, Kind::Sender)
    }

    /// The sender ended because the stream refuses a record for itself.
    pub fn is_refusal(&self) -> bool {
        let source = self.source.as_deref();
        source
            .and_then(|source| source.downcast_ref::<stream::Error>())
            .is_some_and(stream::Error::is_refusal)
    }

    pub(crate) fn journal(path: &Path, source: journal::Error) -> Self {
        Self::new(Kind::Journal, path, Some(source.into()))
    }

    pub(crate) fn cursor(path: &Path, source: journal::Error) -> Self {
        Self::new(Kind::Cursor, path, Some(source.into()))
    }

    pub(crate) fn cursor_damaged(path: &Path) -> Self {
        Self::new(Kind::Cursor, path, Some("its value is damaged".into()))
    }

    pub(crate) fn cursor_format(path: &Path, version: u8) -> Self {
        Self::new(Kind::CursorFormat(version), path, None)
    }

    pub(crate) fn dead_letters(path: &Path, source: stream::Error) -> Self {
        Self::new(Kind::DeadLetters, path, Some(source.into()))
    }

    pub(crate) fn sender(path: &Path, source: stream::Error) -> Self {
        Self::new(Kind::Sender, path, Some(source.into()))
    }

    pub(crate) fn other_catalog(path: &Path, other: OtherCatalog) -> Self {
        Self::new(Kind::OtherCatalog, path, Some(other.into()))
    }

    fn new(
        kind: Kind,
        path: &Path,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            path: path.to_owned(),
            source,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.display();
        match self.kind {
            Kind::Journal => write!(f, "cannot read the journal {path}")?,
            Kind::Cursor => write!(f, "cannot use the cursor {path}")?,
            Kind::CursorFormat(version) => write!(
                f,
                "the cursor {path} has version {version}, which is newer than this version reads"
            )?,
            Kind::DeadLetters => write!(f, "cannot write {path}")?,
            Kind::OtherCatalog => write!(f, "nothing of {path} is shipped")?,
            Kind::Sender => write!(f, "cannot send the records of {path}")?,
        }
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
