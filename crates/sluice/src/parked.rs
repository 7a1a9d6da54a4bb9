//! `sluice parked`: events that could not be folded when they came.
//!
//! The store belongs to the process that consumes. Where one runs, a command asks it; where none does, the command holds its
//! place in the data folder meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Subcommand;
use clicks::Clicks;
use consumer::{Handler, Stored, Versions};
use conversions::Conversions;
use domain::Topic;
use fraud::Fraud;
use journal::StreamId;
use reports::Format;
use reports::list::{self, Cell, List};
use service::admin::{self, CommandAnswer, Commands};
use service::{Clock, DataFolder, Refusal, Shutdown};
use store::{Store, View};

use crate::commands::{format, print, refuse};
use crate::lists;
use crate::settings::Settings;
use crate::up::{Common, Part};

/// How long a running process gets to attempt what is asked for: some ten thousand events.
const FOLD_MAX: Duration = Duration::from_secs(60);

/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Rows of a page of the list.
const PAGE_ROWS: u32 = 500;

/// `sluice parked …`
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List events that wait for their catalog version, and those that are set aside.
    List {
        /// How to print them: table, json, ndjson or csv.
        #[arg(long, value_parser = format, default_value = "table")]
        format: Format,
        #[command(flatten)]
        common: Common,
    },
    /// Fold parked events now that what they lacked is there.
    Fold {
        /// Only the event of this id.
        #[arg(long, required_unless_present = "all", conflicts_with = "all")]
        id: Option<i64>,
        /// All of them.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Forget an event that nobody needs: it is in no report for ever.
    Drop {
        /// Its id.
        #[arg(long)]
        id: i64,
        #[command(flatten)]
        common: Common,
    },
}

pub(crate) fn run(command: &Command) -> Result<(), Refusal> {
    match command {
        Command::List { format, common } => {
            let settings = common.load()?;
            let view = View::open(&store_of(&settings.data)?).map_err(refuse)?;
            lists::show(Rows::new(view), *format)
        }
        Command::Fold { id, common, .. } => change(common, "fold", *id),
        Command::Drop { id, common } => change(common, "drop", Some(*id)),
    }
}

fn store_of(data: &Path) -> Result<std::path::PathBuf, Refusal> {
    let path = data.join("store.sqlite");
    if path.exists() {
        return Ok(path);
    }
    Err(refuse(format!(
        "{}: no store here: run this where the consumers run, or name their folder with --data",
        data.display()
    )))
}

/// Has the running process do it, or does it in its place.
fn change(common: &Common, what: &str, id: Option<i64>) -> Result<(), Refusal> {
    let settings = common.load()?;
    let path = store_of(&settings.data)?;
    let parts = Part::CONSUMERS.map(Part::name);
    let (status, said) = match DataFolder::open(&settings.data, &parts) {
        Ok(_folder) => {
            let store = Store::open(&path).map_err(refuse)?;
            match what {
                "fold" => fold_here(&settings, &store, id).map_err(refuse)?,
                _ => forget(&store, id),
            }
        }
        Err(error) if error.is_in_use() => {
            let query = id.map_or(String::new(), |id| format!("?id={id}"));
            ask(&settings.data, &format!("/parked/{what}{query}"))?
        }
        Err(error) => return Err(error.into()),
    };
    if status == 200 {
        print(&said)
    } else {
        Err(refuse(said.trim_end()))
    }
}

/// Asks a process that consumes into the folder's store; each of them can say what the others are to fold.
fn ask(data: &Path, target: &str) -> Result<CommandAnswer, Refusal> {
    let known = Part::CONSUMERS
        .iter()
        .filter_map(|part| service::folder::admin_of(data, part.name()));
    let mut failed = "it has not written down its admin address".to_owned();
    for admin in known {
        match admin::ask(admin, target) {
            Ok(answer) => return Ok(answer),
            Err(error) => failed = format!("{admin}: {error}"),
        }
    }
    Err(refuse(format!(
        "the process that consumes into {} does not answer: {failed}",
        data.display()
    )))
}

/// What a process that consumes does when it is asked.
pub(crate) fn commands(store: Store, shutdown: Shutdown) -> Commands {
    Arc::new(move |path, query| {
        let id = match query {
            "" => None,
            query => match query.strip_prefix("id=").and_then(|id| id.parse().ok()) {
                Some(id) => Some(id),
                None => return Some((400, "use id=NUMBER\n".to_owned())),
            },
        };
        match path {
            "/parked/fold" => Some(fold_by_consumers(&store, id, &shutdown)),
            "/parked/drop" => Some(forget(&store, id)),
            _ => None,
        }
    })
}

/// Lets the consumers of this process attempt events, and waits until they have.
fn fold_by_consumers(store: &Store, id: Option<i64>, shutdown: &Shutdown) -> CommandAnswer {
    let attempted = || {
        let (count, through) = store.batch(|batch| batch.want_parked(id))?;
        let started = Instant::now();
        loop {
            let (wanted, left) = store.batch(|batch| batch.parked_left(id, through))?;
            let over = wanted == 0 || started.elapsed() > FOLD_MAX;
            if over || shutdown.wait_timeout(LOOK_EVERY) {
                return Ok((count, wanted, left));
            }
        }
    };
    answer(attempted(), id)
}

/// Attempts events in this process.
fn fold_here(
    settings: &Settings,
    store: &Store,
    id: Option<i64>,
) -> Result<CommandAnswer, consumer::Error> {
    let (count, through) = store.batch(|batch| batch.want_parked(id))?;
    let versions = || -> Result<Versions, consumer::Error> {
        let folder = catalog::Folder::open(settings.data.join("catalog"));
        folder
            .map(Versions::new)
            .map_err(|error| consumer::Error::Damaged(error.to_string()))
    };
    attempt_here(settings, store, Clicks::new(versions()?), Topic::Clicks)?;
    attempt_here(
        settings,
        store,
        Clicks::new(versions()?),
        Topic::FraudSignals,
    )?;
    attempt_here(settings, store, Fraud, Topic::Clicks)?;
    let conversions = Conversions::new(versions()?);
    attempt_here(settings, store, conversions, Topic::Postbacks)?;
    let (wanted, left) = store.batch(|batch| batch.parked_left(id, through))?;
    Ok(answer(Ok((count, wanted, left)), id))
}

fn attempt_here<H: Handler>(
    settings: &Settings,
    store: &Store,
    handler: H,
    topic: Topic,
) -> Result<(), consumer::Error> {
    let installation = (&*settings.stream.prefix, settings.stream.partitions);
    let letters = settings.data.join("dead-letters");
    let stream = StreamId::random();
    let mut stored = Stored::new(
        store.clone(),
        handler,
        topic,
        installation,
        stream,
        &letters,
    )?;
    while stored.look_at_parked(Clock::system().now_ms())? {}
    Ok(())
}

/// `count` were asked for; of these, `wanted` were not attempted and `left` are still parked.
fn answer(attempted: Result<(u64, u64, u64), store::Error>, id: Option<i64>) -> CommandAnswer {
    match (attempted, id) {
        (Err(error), _) => (500, format!("{error}\n")),
        (Ok((0, ..)), Some(id)) => (404, format!("nothing is parked under id {id}\n")),
        (Ok((0, ..)), None) => (200, "nothing is parked\n".to_owned()),
        (Ok((count, wanted, left)), _) => {
            let mut said = format!(
                "{} of {count} parked events folded",
                count.saturating_sub(left)
            );
            if wanted > 0 {
                said += &format!(", {wanted} are still to be attempted");
            }
            if left > wanted {
                said += &format!(
                    ", {} still cannot be folded: see sluice parked list",
                    left - wanted
                );
            }
            (200, said + "\n")
        }
    }
}

fn forget(store: &Store, id: Option<i64>) -> CommandAnswer {
    let Some(id) = id else {
        return (400, "name the event to forget by its id\n".to_owned());
    };
    match store.batch(|batch| batch.unpark(id)) {
        Ok(true) => (200, format!("event {id} is forgotten\n")),
        Ok(false) => (404, format!("nothing is parked under id {id}\n")),
        Err(error) => (500, format!("{error}\n")),
    }
}

/// The list.
struct Rows {
    view: View,
    page: std::vec::IntoIter<store::Parked>,
    after: i64,
}

impl Rows {
    fn new(view: View) -> Self {
        Self {
            view,
            page: Vec::new().into_iter(),
            after: 0,
        }
    }
}

impl List for Rows {
    fn columns(&self) -> &[&'static str] {
        &[
            "id",
            "parked",
            "state",
            "reason",
            "consumer",
            "topic",
            "partition",
            "offset",
            "type",
            "time",
            "detail",
        ]
    }

    fn next_row(&mut self) -> reports::Result<Option<Vec<Cell>>> {
        let next = match self.page.next() {
            Some(next) => next,
            None => {
                self.page = self.view.parked_after(self.after, PAGE_ROWS)?.into_iter();
                match self.page.next() {
                    Some(next) => next,
                    None => return Ok(None),
                }
            }
        };
        self.after = next.id;
        let event = next.event;
        let topic = Topic::from_number(event.topic.into()).map_or("?", Topic::name);
        let kind = match domain::event::Kind::from_number(event.kind) {
            Some(kind) => kind.name(),
            None => "unknown",
        };
        let time = match event.time_ms {
            0 => Cell::Empty,
            ms => Cell::text(list::moment(ms)),
        };
        Ok(Some(vec![
            Cell::Number(next.id.cast_unsigned()),
            Cell::text(list::moment(event.at_ms)),
            Cell::text(match event.waits_until_ms {
                Some(_) => "waits",
                None => "set aside",
            }),
            Cell::text(event.reason),
            Cell::text(event.consumer),
            Cell::text(topic),
            Cell::Number(event.partition.into()),
            Cell::Number(event.offset),
            Cell::text(kind),
            time,
            Cell::text(event.detail),
        ]))
    }
}
