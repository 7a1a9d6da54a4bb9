//! What can go wrong with topics.

use std::path::{Path, PathBuf};

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, with what, and why.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[derive(Debug)]
enum Kind {
    Io(PathBuf),
    Journal(String),
    TopicsFile(PathBuf),
    Kafka(&'static str),
    TopicsDiffer(String),
    Refused(String),
    NewerFormat(PathBuf, i64),
    PartitionCount {
        topic: String,
        made_with: u16,
        asked_for: u16,
    },
    BadPartitionCount {
        topic: String,
        asked_for: u16,
    },
    BadTopicName(String),
    UnknownTopic(String),
    NotAssigned(u16),
    OffsetGone {
        topic: String,
        partition: u16,
        offset: u64,
        earliest: u64,
    },
    Damaged {
        topic: String,
        partition: u16,
        offset: u64,
        next: u64,
    },
    OffsetAhead {
        topic: String,
        partition: u16,
        offset: u64,
        end: u64,
    },
    Recreated {
        topic: String,
        partition: u16,
        offset: u64,
    },
    SenderEnded,
    NotYet(&'static str),
    Other(String),
}

impl Error {
    /// An error of another backend, or of a test.
    pub fn other(text: impl Into<String>) -> Self {
        Self::bare(Kind::Other(text.into()))
    }

    /// A record that the stream refuses for itself: sent again it would be refused again.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::bare(Kind::Refused(text.into()))
    }

    /// Whether a record was refused for itself. One of those sent and not acknowledged it was; sent one by one, they tell
    /// which.
    pub fn is_refusal(&self) -> bool {
        matches!(self.kind, Kind::Refused(_))
    }

    /// Whether the process has only begun, and has something to do before it sends and reads.
    pub fn is_not_yet(&self) -> bool {
        matches!(self.kind, Kind::NotYet(_))
    }

    /// Whether topics are not as they are described; that ends when somebody puts them, or the settings, right.
    pub fn is_topics_differ(&self) -> bool {
        matches!(self.kind, Kind::TopicsDiffer(_))
    }

    /// Whether the place asked for does not exist or is another: the topic was made anew, or retention overtook the reader.
    pub fn is_offset(&self) -> bool {
        matches!(
            self.kind,
            Kind::OffsetGone { .. } | Kind::OffsetAhead { .. } | Kind::Recreated { .. }
        )
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self {
            kind: Kind::Io(path.to_owned()),
            source: Some(source.into()),
        }
    }

    pub(crate) fn journal(
        what: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind: Kind::Journal(what.into()),
            source: Some(source.into()),
        }
    }

    pub(crate) fn kafka(tried: &'static str, source: rdkafka::error::KafkaError) -> Self {
        use rdkafka::error::RDKafkaErrorCode as Code;
        let refusals = [
            Code::MessageSizeTooLarge,
            Code::InvalidMessageSize,
            Code::InvalidRecord,
            Code::MessageBatchTooLarge,
        ];
        if source
            .rdkafka_error_code()
            .is_some_and(|code| refusals.contains(&code))
        {
            return Self::refused(format!("kafka: cannot {tried}: {source}"));
        }
        Self {
            kind: Kind::Kafka(tried),
            source: Some(source.into()),
        }
    }

    pub(crate) fn topics_differ(text: String) -> Self {
        Self::bare(Kind::TopicsDiffer(text))
    }

    pub(crate) fn topics_file(
        path: &Path,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind: Kind::TopicsFile(path.to_owned()),
            source: Some(source.into()),
        }
    }

    pub(crate) fn newer_format(path: &Path, format: i64) -> Self {
        Self::bare(Kind::NewerFormat(path.to_owned(), format))
    }

    pub(crate) fn partition_count(topic: &str, made_with: u16, asked_for: u16) -> Self {
        Self::bare(Kind::PartitionCount {
            topic: topic.to_owned(),
            made_with,
            asked_for,
        })
    }

    pub(crate) fn bad_partition_count(topic: &str, asked_for: u16) -> Self {
        Self::bare(Kind::BadPartitionCount {
            topic: topic.to_owned(),
            asked_for,
        })
    }

    pub(crate) fn bad_topic_name(topic: &str) -> Self {
        Self::bare(Kind::BadTopicName(topic.to_owned()))
    }

    pub(crate) fn unknown_topic(topic: &str) -> Self {
        Self::bare(Kind::UnknownTopic(topic.to_owned()))
    }

    pub(crate) fn not_assigned(partition: u16) -> Self {
        Self::bare(Kind::NotAssigned(partition))
    }

    pub(crate) fn offset_gone(topic: &str, partition: u16, offset: u64, earliest: u64) -> Self {
        Self::bare(Kind::OffsetGone {
            topic: topic.to_owned(),
            partition,
            offset,
            earliest,
        })
    }

    pub(crate) fn damaged(topic: &str, partition: u16, offset: u64, next: u64) -> Self {
        Self::bare(Kind::Damaged {
            topic: topic.to_owned(),
            partition,
            offset,
            next,
        })
    }

    pub(crate) fn offset_ahead(topic: &str, partition: u16, offset: u64, end: u64) -> Self {
        Self::bare(Kind::OffsetAhead {
            topic: topic.to_owned(),
            partition,
            offset,
            end,
        })
    }

    pub(crate) fn recreated(topic: &str, partition: u16, offset: u64) -> Self {
        Self::bare(Kind::Recreated {
            topic: topic.to_owned(),
            partition,
            offset,
        })
    }

    pub(crate) fn not_yet(why: &'static str) -> Self {
        Self::bare(Kind::NotYet(why))
    }

    pub(crate) fn sender_ended() -> Self {
        Self::bare(Kind::SenderEnded)
    }

    fn bare(kind: Kind) -> Self {
        Self { kind, source: None }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            Kind::Kafka(tried) => write!(f, "kafka: cannot {tried}")?,
            Kind::TopicsDiffer(text) | Kind::Refused(text) => f.write_str(text)?,
            Kind::Io(path) => write!(f, "cannot use {}", path.display())?,
            Kind::Journal(what) => write!(f, "cannot use the log of {what}")?,
            Kind::TopicsFile(path) => write!(f, "{} is not a list of topics", path.display())?,
            Kind::NewerFormat(path, format) => write!(
                f,
                "{} has format {format}, which is newer than this version reads",
                path.display()
            )?,
            Kind::PartitionCount {
                topic,
                made_with,
                asked_for,
            } => write!(
                f,
                "topic {topic} was made with {made_with} partitions and cannot be used with {asked_for}: set it back to {made_with}"
            )?,
            Kind::BadPartitionCount { topic, asked_for } => write!(
                f,
                "topic {topic} cannot have {asked_for} partitions: 1 to {} are allowed",
                crate::embedded::PARTITIONS_MAX
            )?,
            Kind::BadTopicName(topic) => write!(
                f,
                "{topic:?} is no topic name: letters, digits, '.', '-' and '_' are allowed"
            )?,
            Kind::UnknownTopic(topic) => write!(f, "there is no topic {topic}")?,
            Kind::NotAssigned(partition) => {
                write!(f, "partition {partition} is not assigned to this receiver")?;
            }
            Kind::Damaged {
                topic,
                partition,
                offset,
                next,
            } => write!(
                f,
                "topic {topic}, partition {partition} is damaged: offsets {offset} to {} cannot be read: restore them from backup",
                next.saturating_sub(1)
            )?,
            Kind::OffsetGone {
                topic,
                partition,
                offset,
                earliest,
            } => write!(
                f,
                "offset {offset} of topic {topic}, partition {partition} is deleted: the earliest is {earliest}: retention overtook this reader, see \"A topic made anew\" in docs/OPERATIONS.md"
            )?,
            Kind::OffsetAhead {
                topic,
                partition,
                offset,
                end,
            } => write!(
                f,
                "offset {offset} of topic {topic}, partition {partition} is beyond its end {end}: the topic was made anew or lost records, see \"A topic made anew\" in docs/OPERATIONS.md"
            )?,
            Kind::Recreated {
                topic,
                partition,
                offset,
            } => write!(
                f,
                "topic {topic}, partition {partition} was made anew: before offset {offset} is not the record that was read there: bring the old topic back, or see \"A topic made anew\" in docs/OPERATIONS.md"
            )?,
            Kind::SenderEnded => write!(f, "this sender failed before and takes nothing more")?,
            Kind::NotYet(why) => f.write_str(why)?,
            Kind::Other(text) => write!(f, "{text}")?,
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

/// Why a record was not taken.
#[derive(Debug)]
pub enum SendError {
    /// Too much is under way: ask for acknowledgements, then try again.
    Full,
    /// The sender has ended; a new one gets everything after the watermark.
    Failed(Error),
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full => f.write_str("too many records are under way"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SendError {}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
