//! Journals and dead letters sent by hand.

use std::path::{Path, PathBuf};
use std::time::Duration;

use courier::{Courier, Enrich, Options, Places, Release, Released, TOPICS};
use domain::Topic;
use edge::Keys;
use service::{Clock, Refusal};
use stream::Stream;
use stream::letters::{self, Content, Found};

use crate::commands::{self, print, refuse};
use crate::topics::Cluster;
use crate::{couriers, live_line, published, topics};

/// A replay that takes longer than a day is stopped by whoever waits for it.
const REPLAY_MAX: Duration = Duration::from_secs(24 * 3600);

/// The stream of an installation, and what records must be to enter it.
struct Target {
    stream: Stream,
    prefix: String,
    partitions: u16,
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
            partitions: settings.stream.partitions,
            prefix: settings.stream.prefix,
        })
    }
}

/// Sends every record of a journal folder under the identity it has: what was folded before is a repeat. What cannot be read
/// in it is given up by a person's word only: where the folder is a copy, the original may still have it.
pub(crate) fn replay(folder: &Path, gives_up: bool, to: &Cluster) -> Result<(), Refusal> {
    service::logs::init();
    let target = Target::open(to)?;
    commands::journal_at(folder)?;
    journal::seal(folder).map_err(refuse)?;
    let total: u64 = {
        let files = journal::inspect(folder).map_err(refuse)?.files;
        files.iter().map(|file| file.records).sum()
    };
    // Not the cursors of the courier whose journal this is.
    let scratch = tempfile::tempdir().map_err(refuse)?;
    let mut dead = Vec::new();
    let metrics = courier::Metrics::register(&prometheus::Registry::new()).map_err(refuse)?;
    for topic in TOPICS {
        let letters = format!("{}.{}", scratch_name(scratch.path()), topic.name());
        let places = Places {
            journal: folder.to_owned(),
            cursor: scratch.path().join(topic.name()),
            dead_letters: target.dead_letters.join(letters),
        };
        let options = Options {
            topic,
            topic_prefix: target.prefix.clone(),
            partitions: target.partitions,
            drain_max: REPLAY_MAX,
            gives_up,
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
            let letters = letters::read(&places.dead_letters).map_err(refuse)?.letters;
            dead.push(format!(
                "{} cannot be shipped, kept in {}",
                letters.len(),
                places.dead_letters.display()
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

/// `sluice dead-letters list`
pub(crate) fn list(data: &Path) -> Result<(), Refusal> {
    if !service::folder::is_made(data) {
        return Err(refuse(format!(
            "{} is no data folder: name it with --data or --settings",
            data.display()
        )));
    }
    let folder = data.join("dead-letters");
    let mut folders: Vec<PathBuf> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(refuse(format!("{}: {error}", folder.display()))),
    };
    folders.retain(|folder| topic_of(folder).is_some());
    folders.sort();
    for folder in &folders {
        let found = read(folder)?;
        for reason in letters::Reason::ALL {
            let of = found
                .letters
                .iter()
                .filter(|letter| letter.reason == reason);
            let count = of.count();
            if count > 0 {
                print(&format!("{}  {count} {}", folder.display(), reason.name()))?;
            }
        }
        if found.unknown > 0 {
            let unknown = found.unknown;
            print(&format!(
                "{}  {unknown} of a newer version",
                folder.display()
            ))?;
        }
        if found.corrupt_bytes > 0 {
            let bytes = found.corrupt_bytes;
            print(&format!("{}  {bytes} bytes are damaged", folder.display()))?;
        }
    }
    if folders.is_empty() {
        print("no dead letters")?;
    }
    Ok(())
}

fn read(folder: &Path) -> Result<Found, Refusal> {
    if !folder.is_dir() {
        return Err(refuse(format!(
            "{}: no folder of dead letters: sluice dead-letters list names them",
            folder.display()
        )));
    }
    letters::read(folder).map_err(refuse)
}

/// `sluice dead-letters release`: sends what can be sent now.
pub(crate) fn release(folders: &[PathBuf], to: &Cluster) -> Result<(), Refusal> {
    service::logs::init();
    let letters: Vec<(Topic, &Path, Found)> = folders
        .iter()
        .map(|folder| {
            let topic = topic_of(folder).ok_or_else(|| {
                refuse(format!(
                    "{}: not named like a folder of dead letters, whose name ends with a topic's: 0.clicks",
                    folder.display()
                ))
            })?;
            Ok((topic, folder.as_path(), read(folder)?))
        })
        .collect::<Result<_, Refusal>>()?;
    let target = Target::open(to)?;
    let mut left = 0;
    for (topic, path, found) in letters {
        let mut release = Release::new(topic, &target.prefix, target.enrich.clone());
        left += found.unknown;
        for letter in found.letters {
            let mut sender = target.stream.sender().map_err(refuse)?;
            let released = release.send(&letter, &mut *sender).map_err(refuse)?;
            let what = match released {
                Released::Sent => "sent".to_owned(),
                Released::Dead(reason) => {
                    left += 1;
                    format!("still {}", reason.name())
                }
            };
            let (stream, number) = match &letter.content {
                Content::EdgeRecord {
                    stream, sequence, ..
                } => (stream, format!("record {sequence}")),
                Content::Record(record) => {
                    let (lane, n) = (record.lane, record.n);
                    (&record.origin, format!("lane {lane} number {n}"))
                }
            };
            print(&format!(
                "{}: stream {stream} {number}: {what}",
                path.display()
            ))?;
        }
    }
    if left > 0 {
        return Err(refuse(format!("{left} letters are left")));
    }
    Ok(())
}

/// By the end of the name, as senders name their folders: `0.clicks`, `conversions-postbacks.conversions`.
fn topic_of(folder: &Path) -> Option<Topic> {
    let name = folder.extension()?.to_str()?;
    Topic::ALL.into_iter().find(|topic| topic.name() == name)
}
