//! `sluice gaps`: numbers that a consumer waits for, and giving them up.
//!
//! A gap is known to the process that reads. Giving it up is a person's word, and goes the way of all words: as tombstones on
//! the topic, so that whoever reads it goes on.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::{Args, Subcommand};
use journal::StreamId;
use service::admin::{self, CommandAnswer};
use service::{Clock, Refusal};
use stream::gaps::Gap;
use stream::{Record, Stream};

use crate::commands::{print, refuse};
use crate::up::{Common, Part};

/// `sluice gaps …`
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List numbers that are missing, though higher ones came: what comes after them waits.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Give the missing numbers of a lane up: who owes them is gone for good. What comes after them is counted.
    GiveUp {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        common: Common,
    },
}

/// A gap, as the list names it.
#[derive(Args)]
pub(crate) struct Of {
    /// The topic, with the installation's prefix.
    #[arg(long)]
    topic: String,
    /// The stream: 32 hexadecimal digits.
    #[arg(long)]
    stream: StreamId,
    /// The lane.
    #[arg(long)]
    lane: u8,
}

pub(crate) fn run(command: &Command) -> Result<(), Refusal> {
    match command {
        Command::List { common } => {
            let answers = ask_all(common, "/gaps")?;
            let said: String = answers.into_iter().map(|(_, said)| said).collect();
            print(match said.trim_end() {
                "" => "no numbers are missing",
                said => said,
            })
        }
        Command::GiveUp { of, common } => {
            let Of {
                topic,
                stream,
                lane,
            } = of;
            let target = format!("/gaps/give-up?topic={topic}&stream={stream}&lane={lane}");
            let answers = ask_all(common, &target)?;
            let given_up = answers.iter().find(|(status, _)| *status == 200);
            match given_up.or(answers.first()) {
                Some((200, said)) => print(said.trim_end()),
                Some((_, said)) => Err(refuse(said.trim_end())),
                None => Err(refuse("no consumer answers")),
            }
        }
    }
}

/// Asks every process that consumes into the data folder: each knows its own gaps.
fn ask_all(common: &Common, target: &str) -> Result<Vec<CommandAnswer>, Refusal> {
    let data = common.load()?.data;
    let parts = Part::CONSUMERS.iter();
    let mut known: Vec<_> = parts
        .filter_map(|part| service::folder::admin_of(&data, part.name()))
        .collect();
    known.dedup();
    let answers: Vec<CommandAnswer> = known
        .iter()
        .filter_map(|admin| admin::ask(*admin, target).ok())
        .collect();
    if answers.is_empty() {
        return Err(refuse(format!(
            "no process consumes into {}: gaps are known to the one that reads; start it, or name its folder with --data",
            data.display()
        )));
    }
    Ok(answers)
}

/// By consumer and topic.
type Known = BTreeMap<(&'static str, String), Vec<Gap>>;

/// The gaps of the consumers of this process.
#[derive(Clone, Default)]
pub(crate) struct Gaps(Arc<Mutex<Known>>);

impl Gaps {
    /// What a consumer knows of a topic now.
    pub(crate) fn keep(&self, consumer: &'static str, topic: &str, gaps: &[Gap]) {
        let mut all = self.lock();
        match all.get_mut(&(consumer, topic.to_owned())) {
            Some(kept) => gaps.clone_into(kept),
            None if gaps.is_empty() => {}
            None => _ = all.insert((consumer, topic.to_owned()), gaps.to_vec()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this process answers to a command; `None` to one that is not about gaps.
    pub(crate) fn answer(&self, stream: &Stream, path: &str, query: &str) -> Option<CommandAnswer> {
        match path {
            "/gaps" => Some((200, self.list(Clock::system().now_ms()))),
            "/gaps/give-up" => Some(self.give_up(stream, query)),
            _ => None,
        }
    }

    fn list(&self, now_ms: u64) -> String {
        let mut text = String::new();
        for ((consumer, topic), gaps) in &*self.lock() {
            for gap in gaps {
                let seconds = now_ms.saturating_sub(gap.since_ms) / 1000;
                let (stream, lane, first, last) = (gap.stream, gap.lane, gap.first, gap.last);
                writeln!(
                    text,
                    "{consumer} waits {seconds} s: topic {topic} stream {stream} lane {lane} numbers {first} to {last}"
                )
                .expect("a string takes it");
            }
        }
        text
    }

    fn give_up(&self, stream: &Stream, query: &str) -> CommandAnswer {
        let fields: BTreeMap<&str, &str> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let of = fields
            .get("stream")
            .and_then(|text| text.parse::<StreamId>().ok());
        let lane = fields.get("lane").and_then(|text| text.parse::<u8>().ok());
        let (Some(topic), Some(of), Some(lane)) = (fields.get("topic"), of, lane) else {
            return (400, "name topic, stream and lane\n".to_owned());
        };
        let found = self.lock().iter().find_map(|((_, known), gaps)| {
            let mut gaps = gaps.iter().filter(|_| known == topic);
            gaps.find(|gap| (gap.stream, gap.lane) == (of, lane))
                .copied()
        });
        let Some(gap) = found else {
            let said = format!(
                "{topic}: no number of stream {of} lane {lane} is missing: see sluice gaps list\n"
            );
            return (404, said);
        };
        let lost = gap.first..=gap.last;
        // The time of none: a record that comes after all is a repeat.
        let tombstone = Record::tombstone_of(gap.stream, gap.lane, lost, 0);
        let sent = stream
            .sender()
            .and_then(|mut sender| stream::deliver(&mut *sender, topic, &[tombstone]));
        match sent {
            Ok(()) => {
                let Gap { first, last, .. } = gap;
                tracing::warn!(topic, stream = %of, lane, first, last, "missing numbers given up by command");
                (
                    200,
                    format!(
                        "{topic}: stream {of} lane {lane}: numbers {first} to {last} are given up\n"
                    ),
                )
            }
            Err(error) => (503, format!("{error}: run it again\n")),
        }
    }
}
