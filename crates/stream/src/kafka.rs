//! The Kafka backend.
//!
//! A record is a Kafka message: key and value as they are, the rest of the envelope in headers (`headers.rs`), the
//! partition chosen by us from the lane. Topics must exist as they are described ([`Topic`]) before anything is sent or
//! read; nothing is ever made by accident.
//!
//! librdkafka is known for a few things that this module is built around: a success report without an offset is a conclusion
//! that may be wrong, some reports never come once a producer has failed, and messages that expire are overtaken by younger
//! ones. So senders never let messages expire, trust only reports with an offset, and end at the first failure; whoever sends
//! makes a new one.

mod admin;
mod headers;
mod receiver;
mod sender;
mod statistics;
mod topics;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use serde::Deserialize;

use crate::{Error, Receiver, Result, Sender};

pub use admin::Admin;
pub use headers::KindNames;
pub use statistics::{Client, Statistics};
pub use topics::{Cleanup, Difference, Partition, Topic};

/// How long a broker may take to answer a command of ours.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// How long each of the two questions of a check may take where somebody waits for the cluster: together below the time in
/// which a loop owes a sign of life.
const CHECK_ANSWER_MAX: Duration = Duration::from_secs(4);

/// A failed check is not repeated before this has passed: everybody who waits for the cluster asks.
const CHECK_PAUSE: Duration = Duration::from_secs(1);

/// How often a client looks at its topics; asking is cheap.
const METADATA_EVERY_MS: u32 = 10_000;

/// How to reach a cluster: the `[kafka]` table of the settings file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `HOST:PORT` of some brokers, comma separated; empty for the embedded stream.
    pub brokers: String,
    /// How the connection is protected.
    pub security: Security,
    /// A file of certificates (PEM) to check the brokers by; the system's own where it is empty.
    pub ca: String,
    /// Who we are, where the brokers ask.
    pub user: String,
    /// The file that holds the password.
    pub password_file: String,
    /// How the password is proven: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
    /// Milliseconds that a group waits for a member that is silent before its partitions go to others. A member that restarts
    /// within it keeps them.
    pub session_timeout_ms: u32,
    /// Milliseconds that a member may take for a batch before its group gives its partitions to others.
    pub max_poll_interval_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            security: Security::default(),
            ca: String::new(),
            user: String::new(),
            password_file: String::new(),
            mechanism: String::new(),
            session_timeout_ms: 30_000,
            max_poll_interval_ms: 300_000,
        }
    }
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// Not at all: for a network of one's own.
    #[default]
    Plaintext,
    /// TLS.
    Tls,
    /// A password, in the clear: for tests.
    Sasl,
    /// A password inside TLS.
    SaslTls,
}

/// A cluster, and the topics a process needs. Nothing is sent or read before they were found to be as they are described.
#[derive(Clone)]
pub struct Kafka {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    session_timeout_ms: u32,
    max_poll_interval_ms: u32,
    topics: BTreeMap<String, Topic>,
    kinds: KindNames,
    checked: Mutex<Checked>,
    statistics: statistics::Registry,
    /// Whose records these are: another installation's under the same topic names must not be mixed with them. 0 as long as
    /// it is not known.
    identity: AtomicU64,
    gate: Mutex<Gate>,
}

/// Whether records are sent and read. Compacted topics are read in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// They are.
    #[default]
    Open,
    /// Not yet, for this reason.
    NotYet(&'static str),
    /// Not before a person has put this right.
    Closed(String),
}

/// How the last look at the topics ended.
enum Checked {
    Never,
    Agree,
    Failed {
        at: Instant,
        differ: bool,
        text: String,
    },
}

impl Kafka {
    /// Keeps the settings and reaches for nothing: the cluster may be away.
    ///
    /// # Errors
    /// The settings are incomplete.
    pub fn new(settings: &Settings, topics: &[Topic], kinds: KindNames) -> Result<Self> {
        let topics = topics.iter();
        Ok(Self {
            inner: Arc::new(Inner {
                config: config(settings)?,
                session_timeout_ms: settings.session_timeout_ms,
                max_poll_interval_ms: settings.max_poll_interval_ms,
                topics: topics
                    .map(|topic| (topic.name.clone(), topic.clone()))
                    .collect(),
                kinds,
                checked: Mutex::new(Checked::Never),
                statistics: statistics::Registry::default(),
                identity: AtomicU64::new(0),
                gate: Mutex::default(),
            }),
        })
    }

    /// As [`Self::new`], and checks at once that every topic is as it is described.
    ///
    /// # Errors
    /// The settings are incomplete, no broker answers, or topics differ: the text says how and what to do.
    pub fn connect(settings: &Settings, topics: &[Topic], kinds: KindNames) -> Result<Self> {
        let kafka = Self::new(settings, topics, kinds)?;
        kafka.check()?;
        Ok(kafka)
    }

    /// Checks that every topic is as it is described, unless it is known.
    ///
    /// # Errors
    /// No broker answers, or topics differ ([`Error::is_topics_differ`]): the text says how and what to do.
    pub fn check(&self) -> Result<()> {
        self.inner.check()
    }

    /// Says whose records are sent and read from now on: each carries it in a header, and one with another stops the reader.
    pub fn identify(&self, identity: u64) {
        self.inner.identity.store(identity, Ordering::Relaxed);
    }

    /// Opens or closes the gate.
    pub fn set_gate(&self, gate: Gate) {
        *self.inner.gate() = gate;
    }

    /// Whether the gate is open.
    pub fn is_open(&self) -> bool {
        *self.inner.gate() == Gate::Open
    }

    /// What librdkafka last said of this process's clients.
    pub fn statistics(&self) -> Statistics {
        self.inner.statistics.add_up()
    }

    /// A new sender.
    ///
    /// # Errors
    /// As [`Self::check`], librdkafka refuses the settings, or the gate is not open.
    pub fn sender(&self) -> Result<Box<dyn Sender>> {
        self.check()?;
        self.inner.pass()?;
        sender::open(&self.inner)
    }

    /// A receiver of a topic in a consumer group, under a name of its own that it keeps over restarts (static membership).
    ///
    /// # Errors
    /// As [`Self::check`], librdkafka refuses the settings, there is no such topic, or the gate is not open.
    pub fn receiver(&self, topic: &str, group: &str, member: &str) -> Result<Box<dyn Receiver>> {
        self.check()?;
        receiver::open(&self.inner, topic, group, member)
    }
}

impl Inner {
    /// One look at a time; who waited for somebody else's look has its answer.
    fn check(&self) -> Result<()> {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        match &*checked {
            Checked::Agree => return Ok(()),
            Checked::Failed { at, differ, text } if at.elapsed() < CHECK_PAUSE => {
                return Err(if *differ {
                    Error::topics_differ(text.clone())
                } else {
                    Error::other(text.clone())
                });
            }
            Checked::Failed { .. } | Checked::Never => {}
        }
        let looked = self.look();
        *checked = match &looked {
            Ok(()) => Checked::Agree,
            Err(error) => Checked::Failed {
                at: Instant::now(),
                differ: error.is_topics_differ(),
                text: error.to_string(),
            },
        };
        looked
    }

    fn look(&self) -> Result<()> {
        let topics: Vec<Topic> = self.topics.values().cloned().collect();
        let differences = topics::check(&self.config, &topics, CHECK_ANSWER_MAX)?;
        let (serious, light): (Vec<_>, Vec<_>) = differences
            .into_iter()
            .partition(|difference| difference.stops);
        if !serious.is_empty() {
            let serious: Vec<String> = serious.iter().map(ToString::to_string).collect();
            return Err(Error::topics_differ(serious.join("; ")));
        }
        for difference in light {
            tracing::warn!(%difference, "topic differs");
        }
        Ok(())
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error while the gate is not open.
    fn pass(&self) -> Result<()> {
        match &*self.gate() {
            Gate::Open => Ok(()),
            Gate::NotYet(why) => Err(Error::not_yet(why)),
            Gate::Closed(why) => Err(Error::other(why.clone())),
        }
    }

    /// What was found no longer holds: the next sender or receiver looks again.
    fn distrust(&self) {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = Checked::Never;
    }
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka")
            .field("topics", &self.inner.topics.keys())
            .finish()
    }
}

/// What differs between the cluster's topics and how they are described, in the order of the topics.
///
/// # Errors
/// The settings are incomplete or no broker answers.
pub fn check_topics(settings: &Settings, topics: &[Topic]) -> Result<Vec<Difference>> {
    topics::check(&config(settings)?, topics, ANSWER_MAX)
}

/// Makes the topics that are missing, and says which; those that are there are left as they are.
///
/// # Errors
/// The settings are incomplete, no broker answers, or a topic cannot be made.
pub fn create_topics(
    settings: &Settings,
    topics: &[Topic],
    replication: u16,
) -> Result<Vec<String>> {
    topics::create(&config(settings)?, topics, replication)
}

/// What every client has in common.
fn config(settings: &Settings) -> Result<ClientConfig> {
    let missing = |what: &str| {
        Err(Error::other(format!(
            "kafka.{what} is missing in the settings"
        )))
    };
    if settings.brokers.is_empty() {
        return missing("brokers");
    }
    let (session, poll) = (settings.session_timeout_ms, settings.max_poll_interval_ms);
    // What brokers take where nobody changed it, and what librdkafka takes.
    if !(6_000..=1_800_000).contains(&session) || !(session..=86_400_000).contains(&poll) {
        return Err(Error::other(format!(
            "kafka.session_timeout_ms is {session} and kafka.max_poll_interval_ms {poll}: choose 6000 to 1800000 for the first, \
             and at least as much for the second, at most 86400000"
        )));
    }
    let (tls, sasl) = match settings.security {
        Security::Plaintext => (false, false),
        Security::Tls => (true, false),
        Security::Sasl => (false, true),
        Security::SaslTls => (true, true),
    };
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("client.id", "sluice")
        // A broker that is away is asked again soon after it is back, not minutes later.
        .set("reconnect.backoff.max.ms", "2000")
        .set("socket.keepalive.enable", "true")
        // Somebody may add partitions to a topic: routing by two counts at once would put a lane into two partitions.
        .set(
            "topic.metadata.refresh.interval.ms",
            METADATA_EVERY_MS.to_string(),
        )
        .set(
            "security.protocol",
            match (tls, sasl) {
                (false, false) => "plaintext",
                (true, false) => "ssl",
                (false, true) => "sasl_plaintext",
                (true, true) => "sasl_ssl",
            },
        );
    if tls && !settings.ca.is_empty() {
        // As text: the library's own reader refuses the mark that Windows programs put before it.
        config.set("ssl.ca.pem", read_text(&settings.ca)?);
    }
    if sasl {
        const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
        if !MECHANISMS.contains(&settings.mechanism.as_str()) {
            return Err(Error::other(format!(
                "kafka.mechanism is {:?}: choose one of {}",
                settings.mechanism,
                MECHANISMS.join(", ")
            )));
        }
        if settings.user.is_empty() {
            return missing("user");
        }
        if settings.password_file.is_empty() {
            return missing("password_file");
        }
        let password = read_text(&settings.password_file)?;
        config
            .set("sasl.mechanism", &settings.mechanism)
            .set("sasl.username", &settings.user)
            .set("sasl.password", password.trim_end_matches(['\r', '\n']));
    }
    Ok(config)
}

/// The text of a file that settings name.
fn read_text(path: &str) -> Result<String> {
    let bytes = std::fs::read(path)
        .map_err(|error| Error::other(format!("{path}: {}", text::io_error(&error))))?;
    match text::decode(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(not_text) => Err(Error::other(format!("{path}: {}", not_text.message))),
    }
}
