//! Why the store could not do something.

use std::path::PathBuf;
use std::{error, fmt};

/// What went wrong; its text is one line.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// The offset is not where this owner left it.
    Overtaken {
        consumer: String,
        topic: u8,
        partition: u16,
        from: u64,
    },
    Open {
        path: PathBuf,
        source: rusqlite::Error,
    },
    Missing(PathBuf),
    Format {
        path: PathBuf,
        found: i64,
    },
    Copy {
        path: PathBuf,
        source: Box<dyn error::Error + Send + Sync>,
    },
    Foreign(PathBuf),
    /// An earlier commit met an I/O error: what the file holds is for a restart to find out.
    Failed,
    Damaged(&'static str),
    Sqlite(rusqlite::Error),
    Other(Box<dyn error::Error + Send + Sync>),
}

impl Error {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind }
    }

    /// What a closure given to [`crate::Store::batch`] returns for a mistake of its own; the batch rolls back.
    pub fn other(source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        Self::new(Kind::Other(source.into()))
    }

    /// Somebody else has moved the offset: this owner's memory is stale, it must read its position again.
    pub fn is_overtaken(&self) -> bool {
        matches!(self.kind, Kind::Overtaken { .. })
    }

    /// An [`crate::Interrupter`] ended the question.
    pub fn is_interrupted(&self) -> bool {
        let Kind::Sqlite(source) = &self.kind else {
            return false;
        };
        source.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted)
    }

    /// There is no store at the path yet.
    pub fn is_missing(&self) -> bool {
        matches!(self.kind, Kind::Missing(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Overtaken {
                consumer,
                topic,
                partition,
                from,
            } => write!(
                f,
                "{consumer}: the offset of topic {topic} partition {partition} is no longer {from}: another process reads it"
            ),
            Kind::Open { path, source } => {
                write!(f, "store {} cannot be opened: {source}", path.display())
            }
            Kind::Missing(path) => write!(f, "there is no store at {}", path.display()),
            Kind::Format { path, found } => {
                let what = if *found > i64::from(crate::FORMAT) {
                    "use a newer Sluice"
                } else {
                    "use the Sluice that wrote it, or begin a new data folder"
                };
                write!(
                    f,
                    "store {} is of format {found}, this build reads {}: {what}",
                    path.display(),
                    crate::FORMAT
                )
            }
            Kind::Copy { path, source } => {
                write!(
                    f,
                    "the store cannot be copied to {}: {source}",
                    path.display()
                )
            }
            Kind::Foreign(path) => write!(
                f,
                "{} is not a store of Sluice: choose another data folder",
                path.display()
            ),
            Kind::Failed => {
                f.write_str("the store failed to write earlier and takes no more: restart Sluice")
            }
            Kind::Damaged(what) => write!(f, "the store holds {what}: restore it from a backup"),
            Kind::Sqlite(source) => write!(f, "store: {source}"),
            Kind::Other(source) => source.fmt(f),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.kind {
            Kind::Open { source, .. } | Kind::Sqlite(source) => Some(source),
            Kind::Copy { source, .. } => Some(source.as_ref()),
            Kind::Other(source) => source.source(),
            _ => None,
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(source: rusqlite::Error) -> Self {
        Self::new(Kind::Sqlite(source))
    }
}
