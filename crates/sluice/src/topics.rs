//! The topics of an installation, and the command that makes and checks them on a cluster.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use domain::Topic;
use domain::event::Kind;
use journal::StreamId;
use service::Refusal;
use stream::kafka::{self, Cleanup, KindNames};
use stream::{Embedded, Kafka, Stream};

use crate::commands::{print, refuse};
use crate::settings::Settings;

/// How long clicks, postbacks and labels are kept: a quarter's payout run can be done again from them.
const DAYS: u32 = 100;

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
}

/// Which cluster.
#[derive(Args)]
pub(crate) struct Cluster {
    /// A settings file (TOML).
    #[arg(long)]
    settings: Option<PathBuf>,
    /// Brokers, `HOST:PORT`, comma separated.
    #[arg(long)]
    kafka: Option<String>,
}

impl Cluster {
    fn load(&self) -> Result<Settings, Refusal> {
        let mut settings: Settings = service::settings::load(self.settings.as_deref())?;
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
            let serious = differences
                .iter()
                .filter(|difference| difference.stops)
                .count();
            if serious > 0 {
                return Err(refuse(format!("{serious} differences, listed above")));
            }
            print("topics are as they should be")
        }
    }
}

/// The stream the settings name. A cluster is not asked for anything yet: it may be away.
pub(crate) fn open(settings: &Settings) -> Result<Stream, stream::Error> {
    let topics = described(settings);
    if !settings.kafka.brokers.is_empty() {
        return Kafka::new(&settings.kafka, &topics, KINDS).map(Stream::Kafka);
    }
    let topics: Vec<(&str, u16)> = topics
        .iter()
        .map(|topic| (topic.name.as_str(), topic.partitions))
        .collect();
    let folder = settings.data.join("stream");
    Embedded::open(&folder, &topics, StreamId::random).map(Stream::Embedded)
}

const KINDS: KindNames = KindNames {
    name: |number| Kind::from_number(number).map(Kind::name),
    number: |name| Kind::from_name(name).map(|kind| kind as u16),
};

fn described(settings: &Settings) -> Vec<kafka::Topic> {
    let described = Topic::ALL.map(|topic| kafka::Topic {
        name: format!("{}.{}", settings.stream.prefix, topic.name()),
        partitions: settings.stream.partitions,
        cleanup: match topic {
            Topic::Clicks | Topic::Postbacks | Topic::FraudSignals => Cleanup::Days(DAYS),
            Topic::Conversions => Cleanup::Never,
        },
    });
    described.into()
}
