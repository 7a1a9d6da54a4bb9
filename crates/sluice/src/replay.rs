//! Journals and dead letters sent by hand.

use std::path::{Path, PathBuf};
use std::time::Duration;

use courier::dead_letters::{self, Letter};
use courier::{Courier, Enrich, Options, Places, Release, Released, TOPICS};
use domain::Topic;
use edge::Keys;
use service::{Clock, Refusal};
use stream::Stream;

use crate::commands::{print, refuse};
use crate::topics::Cluster;
use crate::{couriers, live_line, published, topics};

/// A replay that takes longer than a day is stopped by whoever waits for it.
const REPLAY_MAX: Duration = Duration::from_secs(24 * 3600);

/// The stream of an installation, and what records must be to enter it.
struct Target {
    stream: Stream,
    prefix: String,
    enrich: Enrich,
    dead_letters: PathBuf,
}

impl Target {
    /// Without Kafka it is the data folder's own stream, while nothing else uses it.
    fn open(to: &Cluster) -> Result<Self, Refusal> {
        let settings = to.load()?;
        let keys = Keys::read(&settings.data.join("keys")).map_err(refuse)?;
        let stream = topics::open(&settings).map_err(refuse)?;
        if let Stream::Kafka(kafka) = &stream {
            published::check_lock(kafka, &settings)?;
        }
        let truncate = settings.courier.truncated_address;
        Ok(Self {
            stream,
            enrich: couriers::enrich(keys.visitor, truncate, &settings.data.join("catalog")),
            dead_letters: settings.data.join("dead-letters"),
            prefix: settings.stream.prefix,
        })
    }
}

/// Sends every record of a journal folder under the identity it has: what was folded before is a repeat.
pub(crate) fn replay(folder: &Path, to: &Cluster) -> Result<(), Refusal> {
    service::logs::init();
    let target = Target::open(to)?;
    journal::seal(folder).map_err(refuse)?;
    let total: u64 = {
        let files = journal::inspect(folder).map_err(refuse)?.files;
        files.iter().map(|file| file.records).sum()
    };
    // Not the cursors of the courier whose journal this is.
    let scratch = tempfile::tempdir().map_err(refuse)?;
    std::fs::create_dir_all(&target.dead_letters).map_err(refuse)?;
    let mut dead = Vec::new();
    let metrics = courier::Metrics::register(&prometheus::Registry::new()).map_err(refuse)?;
    for topic in TOPICS {
        let letters = format!("{}.{}.log", scratch_name(scratch.path()), topic.name());
        let places = Places {
            journal: folder.to_owned(),
            cursor: scratch.path().join(topic.name()),
            dead_letters: target.dead_letters.join(letters),
        };
        let options = Options {
            topic,
            topic_prefix: target.prefix.clone(),
            drain_max: REPLAY_MAX,
            ..Options::default()
        };
        let mut courier =
            Courier::open(&places, target.enrich.clone(), options, &metrics).map_err(refuse)?;
        let bar = live_line::progress(total, topic.name());
        let mut done = false;
        courier
            .run(
                &mut || target.stream.sender(),
                &Clock::system(),
                &|| true,
                &mut |shipped| {
                    bar.inc(shipped.acknowledged);
                    done = shipped.is_idle();
                },
            )
            .map_err(refuse)?;
        bar.finish_and_clear();
        if !done {
            return Err(refuse(format!(
                "{}: the stream did not take all of it: run it again, what is there already is dropped as a repeat",
                folder.display()
            )));
        }
        if places.dead_letters.exists() {
            let letters = dead_letters::read(&places.dead_letters).map_err(refuse)?;
            let file = places.dead_letters.display();
            dead.push(format!(
                "{} cannot be shipped, kept in {file}",
                letters.len()
            ));
        }
    }
    if !dead.is_empty() {
        let dead = dead.join("; ");
        return Err(refuse(format!("{}: {dead}", folder.display())));
    }
    print(&format!("{}: {total} records, all sent", folder.display()))
}

/// A name no other replay has.
fn scratch_name(scratch: &Path) -> String {
    let name = scratch.file_name().unwrap_or_default().to_string_lossy();
    format!("replay{}", name.trim_start_matches('.'))
}

/// Sends the dead letters that can be shipped now.
pub(crate) fn release(files: &[PathBuf], to: &Cluster) -> Result<(), Refusal> {
    service::logs::init();
    let letters: Vec<(Topic, &Path, Vec<Letter>)> = files
        .iter()
        .map(|path| {
            let because =
                |error: &dyn std::fmt::Display| refuse(format!("{}: {error}", path.display()));
            let topic = topic_of(path).ok_or_else(|| {
                because(&"not named like a file of dead letters: N.clicks.log or N.postbacks.log")
            })?;
            let letters = dead_letters::read(path).map_err(|error| because(&error))?;
            Ok((topic, path.as_path(), letters))
        })
        .collect::<Result<_, Refusal>>()?;
    let target = Target::open(to)?;
    let mut left = 0;
    for (topic, path, letters) in letters {
        let mut release = Release::new(topic, &target.prefix, target.enrich.clone());
        for letter in letters {
            let mut sender = target.stream.sender().map_err(refuse)?;
            let released = release.send(&letter, &mut *sender).map_err(refuse)?;
            let what = match released {
                Released::Sent => "sent".to_owned(),
                Released::Dead(reason) => {
                    left += 1;
                    format!("still {}", reason.name())
                }
            };
            let (stream, sequence) = (letter.stream, letter.sequence);
            print(&format!(
                "{}: stream {stream} record {sequence}: {what}",
                path.display()
            ))?;
        }
    }
    if left > 0 {
        return Err(refuse(format!("{left} letters are left, listed above")));
    }
    Ok(())
}

/// As couriers name the files: `0.clicks.log`.
fn topic_of(path: &Path) -> Option<Topic> {
    let name = path.file_stem()?.to_str()?;
    let (_, name) = name.split_once('.')?;
    TOPICS.into_iter().find(|topic| topic.name() == name)
}
