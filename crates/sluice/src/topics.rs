//! The topics of an installation, and the command that makes, checks and grows them on a cluster.

use clap::{Args, Subcommand};
use domain::Topic;
use domain::event::Kind;
use journal::StreamId;
use service::Refusal;
use stream::kafka::{self, Cleanup, KindNames};
use stream::{Embedded, Kafka, Stream};

use crate::commands::{print, refuse};
use crate::grow;
use crate::published;
use crate::settings::{Installation, Settings};

/// `sluice topics …`
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make the topics that are missing.
    Create {
        #[command(flatten)]
        cluster: Cluster,
        /// Copies of every record.
        #[arg(long, default_value_t = 3)]
        replication: u16,
    },
    /// Say what differs from how topics should be; change nothing.
    Check {
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Give every topic more partitions; couriers and consumers then want the new count in their settings.
    Grow {
        #[command(flatten)]
        cluster: Cluster,
        /// A whole multiple of the present count, 256 at most.
        #[arg(long)]
        partitions: u16,
    },
}

/// Which installation, and where its stream is.
#[derive(Args)]
pub(crate) struct Cluster {
    #[command(flatten)]
    installation: Installation,
    /// Brokers, `HOST:PORT`, comma separated.
    #[arg(long)]
    kafka: Option<String>,
}

impl Cluster {
    pub(crate) fn load(&self) -> Result<Settings, Refusal> {
        let mut settings = self.installation.load()?;
        if let Some(brokers) = &self.kafka {
            settings.kafka.brokers.clone_from(brokers);
        }
        Ok(settings)
    }
}

pub(crate) fn run(command: &Command) -> Result<(), Refusal> {
    match command {
        Command::Create {
            cluster,
            replication,
        } => {
            let settings = cluster.load()?;
            let made = kafka::create_topics(&settings.kafka, &described(&settings), *replication)
                .map_err(refuse)?;
            if made.is_empty() {
                return print("every topic is there");
            }
            print(&format!("made {}", made.join(", ")))
        }
        Command::Check { cluster } => {
            let settings = cluster.load()?;
            let differences =
                kafka::check_topics(&settings.kafka, &described(&settings)).map_err(refuse)?;
            for difference in &differences {
                let weight = if difference.stops {
                    "differs"
                } else {
                    "warning"
                };
                print(&format!("{weight}: {difference}"))?;
            }
            let stopping = differences.iter().filter(|difference| difference.stops);
            let serious = stopping.count();
            if serious > 0 {
                return Err(refuse(format!("{serious} differences, listed above")));
            }
            print("topics are as they should be")
        }
        Command::Grow {
            cluster,
            partitions,
        } => grow::run(&cluster.load()?, *partitions),
    }
}

/// The stream the settings name. A cluster is not asked for anything yet: it may be away.
pub(crate) fn open(settings: &Settings) -> Result<Stream, stream::Error> {
    let topics = described(settings);
    if !settings.kafka.brokers.is_empty() {
        let kafka = Kafka::new(&settings.kafka, &topics, KINDS)?;
        let catalog = catalog::Folder::open(settings.data.join("catalog"));
        if let Ok(Some(catalog)) = catalog.and_then(|folder| folder.current()) {
            kafka.identify(catalog.lock());
        }
        return Ok(Stream::Kafka(kafka));
    }
    let topics: Vec<(&str, u16)> = topics
        .iter()
        // Everything is in one process, which has the catalog's folder.
        .filter(|topic| topic.cleanup != Cleanup::Compact)
        .map(|topic| (topic.name.as_str(), topic.partitions))
        .collect();
    let folder = settings.data.join("stream");
    Embedded::open(&folder, &topics, StreamId::random).map(Stream::Embedded)
}

const KINDS: KindNames = KindNames {
    name: |number| Kind::from_number(number).map(Kind::name),
    number: |name| Kind::from_name(name).map(|kind| kind as u16),
};

pub(crate) fn described(settings: &Settings) -> Vec<kafka::Topic> {
    let described = Topic::ALL.map(|topic| kafka::Topic {
        name: format!("{}.{}", settings.stream.prefix, topic.name()),
        partitions: settings.stream.partitions,
        cleanup: topic.kept_days().map_or(Cleanup::Never, Cleanup::Days),
    });
    let catalog = kafka::Topic {
        name: format!("{}.{}", settings.stream.prefix, published::TOPIC),
        partitions: settings.stream.partitions,
        cleanup: Cleanup::Compact,
    };
    described.into_iter().chain([catalog]).collect()
}
