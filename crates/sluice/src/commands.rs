//! Commands that read: a catalog, or the data folder of a running or stopped system.
#![allow(
    clippy::print_stderr,
    reason = "what is wrong goes to standard error, an answer to standard output"
)]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use catalog::Removes;
use clap::{Args, Subcommand};
use reports::{Format, Parameters};
use service::Refusal;

use crate::follow::Source;
use crate::live_line;
use crate::published;
use crate::replay;
use crate::settings::Installation;
use crate::topics::Cluster;

/// `sluice catalog …`
#[derive(Subcommand)]
pub(crate) enum Catalog {
    /// Report every mistake in a catalog at once; change nothing.
    Check {
        /// The catalog's file.
        path: PathBuf,
        /// The file of its links (CSV), where they stand in one of their own.
        #[arg(long)]
        links: Option<PathBuf>,
    },
    /// Check a catalog, number it and make it the version in force of a data folder.
    Apply {
        /// The catalog's file.
        path: PathBuf,
        #[command(flatten)]
        installation: Installation,
        /// Apply it also where it takes away many of the entries there are.
        #[arg(long)]
        removes: bool,
    },
    /// Apply a catalog whose links stand in a CSV file of their own: millions, in little memory.
    Build {
        /// The catalog's file, without links.
        #[arg(long)]
        catalog: PathBuf,
        /// The links: a line each, the first names the columns slug, affiliate, offer, and as needed domain, sub1 to sub10.
        #[arg(long)]
        links: PathBuf,
        #[command(flatten)]
        installation: Installation,
        /// Apply it also where it takes away many of the links or entries there are.
        #[arg(long)]
        removes: bool,
    },
    /// Send the versions of a data folder to Kafka, for the couriers and consumers of other machines.
    Publish {
        #[command(flatten)]
        to: Cluster,
    },
}

/// `sluice keys …`
#[derive(Subcommand)]
pub(crate) enum Keys {
    /// Make the keys of a new installation: those of click tokens, and of visitors' hashes.
    Create {
        #[command(flatten)]
        installation: Installation,
        /// Make them also where the folder has data of other keys: every click token issued before is a forgery then.
        #[arg(long)]
        anew: bool,
    },
}

pub(crate) fn keys(command: &Keys) -> Result<(), Refusal> {
    let Keys::Create { installation, anew } = command;
    let data = &installation.data()?;
    let folder = data.join("keys");
    if edge::Keys::read(&folder).is_ok() {
        return print(&format!("{}: the keys are there", folder.display()));
    }
    if let Some(used) = edge::Keys::used(data)
        && !anew
    {
        return Err(refuse(format!(
            "{} has {used}, made with keys that are missing: restore keys/ from backup or copy it from another machine. With --anew other keys are made, and every click token issued before is a forgery",
            data.display()
        )));
    }
    service::folder::make(data)?;
    edge::Keys::make(&folder).map_err(refuse)?;
    print(&format!(
        "{}: made. Back the folder up, and copy it to every machine of this installation",
        folder.display()
    ))
}

/// `sluice journal …`
#[derive(Subcommand)]
pub(crate) enum Journal {
    /// Print what a worker's journal holds; change nothing.
    Inspect {
        /// The journal's folder: `DATA/journal/0`.
        folder: PathBuf,
    },
    /// Fail where a journal is damaged, or where its scoreboard counted other records than its files hold.
    Verify {
        /// The journal's folder.
        folder: PathBuf,
    },
    /// Send all of a journal again, each record as what it is: what is counted already is not counted twice.
    Replay {
        /// The journal's folder, or a copy of it.
        folder: PathBuf,
        /// Give up for good what cannot be read in it: nothing else has it.
        #[arg(long)]
        give_up: bool,
        #[command(flatten)]
        to: Cluster,
    },
}

/// `sluice dead-letters …`
#[derive(Subcommand)]
pub(crate) enum DeadLetters {
    /// Say what could not be sent, by folder and reason.
    List {
        #[command(flatten)]
        of: Cluster,
    },
    /// Send what can be sent now. Sent twice, a letter counts once: remove its folder when all of it is sent.
    Release {
        /// Folders of `DATA/dead-letters`.
        #[arg(required = true)]
        folders: Vec<PathBuf>,
        #[command(flatten)]
        to: Cluster,
    },
}

pub(crate) fn dead_letters(command: &DeadLetters) -> Result<(), Refusal> {
    match command {
        DeadLetters::List { of } => replay::list(&of.load()?.data),
        DeadLetters::Release { folders, to } => replay::release(folders, to),
    }
}

/// `sluice report`
#[derive(Args)]
pub(crate) struct Report {
    /// What to group by, comma separated: affiliate, offer, advertiser, link, reason, day, hour.
    #[arg(long, default_value = "affiliate,offer")]
    by: String,
    #[command(flatten)]
    span: Span,
    /// Only these affiliates; names, comma separated.
    #[arg(long)]
    affiliate: Option<String>,
    /// Only these offers.
    #[arg(long)]
    offer: Option<String>,
    /// Only offers of these advertisers.
    #[arg(long)]
    advertiser: Option<String>,
    /// Only these links; their slugs.
    #[arg(long)]
    link: Option<String>,
    /// Only clicks of these reasons; `none` for valid clicks and for sales.
    #[arg(long)]
    reason: Option<String>,
    /// How to print it.
    #[arg(long, value_parser = format, default_value = "table")]
    format: Format,
    #[command(flatten)]
    installation: Installation,
}

/// A stretch of time, in the network's time zone.
#[derive(Args)]
pub(crate) struct Span {
    /// today, yesterday, last-7-days, this-month or last-month.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    time: Option<String>,
    /// The first day (2026-11-20), a word as above, or the moment (RFC 3339) from which to count.
    #[arg(long)]
    from: Option<String>,
    /// The last day counted, a word as above, or the moment before which to count.
    #[arg(long)]
    to: Option<String>,
}

impl Span {
    pub(crate) fn parameters(&self) -> Parameters {
        Parameters::default()
            .with("time", self.time.as_deref())
            .with("from", self.from.as_deref())
            .with("to", self.to.as_deref())
    }
}

/// The format of a name, for flags.
pub(crate) fn format(name: &str) -> Result<Format, String> {
    Format::parse(name).map_err(|error| error.to_string())
}

/// `sluice dump-store`
#[derive(Args)]
pub(crate) struct DumpStore {
    #[command(flatten)]
    installation: Installation,
}

/// One line on standard error.
pub(crate) fn complain(refusal: &Refusal) {
    // Whoever closed standard error has the exit code.
    let _ = writeln!(io::stderr(), "sluice: {refusal}");
}

/// Prints an answer. Whoever closes the pipe has read enough.
pub(crate) fn print(text: &str) -> Result<(), Refusal> {
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(refuse(error)),
        _ => Ok(()),
    }
}

pub(crate) fn refuse(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(error.to_string())
}

pub(crate) fn catalog(command: &Catalog) -> Result<(), Refusal> {
    let (source, to) = match command {
        Catalog::Check { path, links } => (Source::new(path.clone(), links.clone()), None),
        Catalog::Apply {
            path,
            installation,
            removes,
        } => {
            let source = Source::new(path.clone(), None);
            (source, Some((installation.data()?, removes)))
        }
        Catalog::Build {
            catalog,
            links,
            installation,
            removes,
        } => {
            let source = Source::new(catalog.clone(), Some(links.clone()));
            (source, Some((installation.data()?, removes)))
        }
        Catalog::Publish { to } => return published::publish(to),
    };
    let path = &source.catalog;
    let Some((data, removes)) = to else {
        let checked = live_line::with_bar(|progress| source.check(progress));
        let checked = checked.map_err(|problems| mistakes(&problems))?;
        for warning in &checked.warnings {
            eprintln!("warning: {warning}");
        }
        return print(&format!(
            "{}: good: {}",
            path.display(),
            entries(&checked.catalog)
        ));
    };
    service::folder::make(&data)?;
    // A new installation often begins with its catalog.
    edge::Keys::make_where_new(&data).map_err(refuse)?;
    let removes = if *removes {
        Removes::Many
    } else {
        Removes::Few
    };
    let versions = data.join("catalog");
    let applied = live_line::with_bar(|progress| source.apply(&versions, removes, progress));
    let applied = applied.map_err(|problems| mistakes(&problems))?;
    for warning in &applied.warnings {
        eprintln!("warning: {warning}");
    }
    print(&format!(
        "{}: in force as version {}: {}; {}",
        path.display(),
        applied.catalog.version,
        entries(&applied.catalog),
        applied.changes
    ))
}

fn entries(catalog: &catalog::Catalog) -> String {
    format!(
        "{} domains, {} advertisers, {} offers, {} affiliates, {} links",
        catalog.domains.len(),
        catalog.advertisers.len(),
        catalog.offers.len(),
        catalog.affiliates.len(),
        catalog.links.len()
    )
}

/// Prints the mistakes of a catalog, a line each, and counts them; a single one says it all.
pub(crate) fn mistakes(problems: &catalog::Problems) -> Refusal {
    if problems.0.len() == 1 {
        return refuse(problems);
    }
    eprintln!("{problems}");
    refuse(counted(problems))
}

/// How many mistakes there are in which files.
fn counted(problems: &catalog::Problems) -> String {
    let mut files: BTreeMap<String, usize> = BTreeMap::new();
    for problem in &problems.0 {
        *files.entry(problem.file.display().to_string()).or_default() += 1;
    }
    let files = files.iter().map(|(file, count)| match count {
        1 => format!("{file}: 1 mistake"),
        count => format!("{file}: {count} mistakes"),
    });
    format!("{}, listed above", files.collect::<Vec<_>>().join(", "))
}

/// The version in force, or the newest before it that is whole where that one cannot be read; `None` before the first.
pub(crate) fn last_good(versions: &Path) -> Result<Option<Arc<catalog::Catalog>>, catalog::Error> {
    let folder = catalog::Folder::open(versions)?;
    match folder.current() {
        Err(error) => folder.whole_before(u32::MAX).map(Some).ok_or(error),
        found => found,
    }
}

/// The store and the last good catalog of a data folder, read only.
pub(crate) fn open(data: &Path) -> Result<(store::View, Arc<catalog::Catalog>), String> {
    let path = data.join("store.sqlite");
    if !path.exists() {
        return Err(format!(
            "{}: no store here yet: start `sluice up` first, or name its folder with --data",
            data.display()
        ));
    }
    let view = store::View::open(&path).map_err(|error| error.to_string())?;
    let catalog = last_good(&data.join("catalog")).map_err(|error| error.to_string())?;
    Ok((
        view,
        catalog.ok_or_else(|| format!("{}: no catalog has been applied yet", data.display()))?,
    ))
}

/// The time.
pub(crate) fn now() -> jiff::Timestamp {
    let ms = i64::try_from(service::Clock::system().now_ms()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
}

pub(crate) fn report(arguments: &Report) -> Result<(), Refusal> {
    let (view, catalog) = open(&arguments.installation.data()?).map_err(refuse)?;
    let parameters = arguments
        .span
        .parameters()
        .with("by", Some(&arguments.by))
        .with("affiliate", arguments.affiliate.as_deref())
        .with("offer", arguments.offer.as_deref())
        .with("advertiser", arguments.advertiser.as_deref())
        .with("link", arguments.link.as_deref())
        .with("reason", arguments.reason.as_deref());
    let query = reports::ReportQuery::parse(&parameters, &catalog, now()).map_err(refuse)?;
    let report = reports::run(&view, &catalog, &query).map_err(refuse)?;
    print(&report.render(arguments.format))
}

/// What a journal's folder holds; a folder without anything of one is refused.
pub(crate) fn journal_at(folder: &Path) -> Result<journal::Inspection, Refusal> {
    let found = journal::inspect(folder).map_err(refuse)?;
    if found.files.is_empty() && found.ring.is_none() {
        return Err(refuse(format!(
            "{}: no journal here: name a worker's folder, DATA/journal/0 and so on",
            folder.display()
        )));
    }
    Ok(found)
}

pub(crate) fn journal(command: &Journal) -> Result<(), Refusal> {
    let folder = match command {
        Journal::Inspect { folder } | Journal::Verify { folder } => folder,
        Journal::Replay {
            folder,
            give_up,
            to,
        } => return replay::replay(folder, *give_up, to),
    };
    let found = journal_at(folder)?;
    if let Journal::Inspect { .. } = command {
        for file in &found.files {
            let stream = match file.stream {
                Some(stream) => format!("stream {stream} from {}", file.first_sequence),
                None => "its header is damaged".to_owned(),
            };
            print(&format!(
                "{:016x}.log  {:>10} bytes  {:>8} records  {} not marked  {} corrupt  {} torn  {stream}",
                file.index,
                file.bytes,
                file.records,
                file.records_unmarked,
                file.corrupt_bytes,
                file.torn_bytes
            ))?;
        }
        if let Some(ring) = &found.ring {
            print(&format!(
                "ring                  {:>10} bytes  {} bytes not in the log  stream {}  in {}",
                ring.bytes,
                ring.unflushed_bytes,
                ring.stream,
                ring.path.display()
            ))?;
        }
        if let Some(ledger) = &found.ledger {
            print(&ledger_line(ledger))?;
        }
        return Ok(());
    }
    let records: u64 = found.files.iter().map(|file| file.records).sum();
    let corrupt: u64 = found.files.iter().map(|file| file.corrupt_bytes).sum();
    if corrupt > 0 {
        return Err(refuse(format!(
            "{}: {corrupt} bytes are damaged: what recovery finds is copied to quarantine files there; see sluice journal inspect",
            folder.display()
        )));
    }
    let written = found.written().unwrap_or(0);
    if !found.agrees() {
        let counted = found.ledger.map_or(0, |ledger| ledger.written());
        return Err(refuse(format!(
            "{}: its scoreboard counted {counted} records and log and ring hold {written}, those deleted since included: \
            after a power cut the next start puts it right, otherwise somebody changed the files",
            folder.display()
        )));
    }
    print(&format!(
        "{}: {records} records, none damaged, {written} ever written{}",
        folder.display(),
        match found.ledger {
            Some(_) => " as its scoreboard says",
            None => "",
        }
    ))
}

fn ledger_line(ledger: &journal::Ledger) -> String {
    let unrecorded: Vec<String> = journal::Full::ALL
        .iter()
        .zip(ledger.unrecorded)
        .map(|(why, count)| format!("{count} {}", why.name()))
        .collect();
    format!(
        "ledger                {} answered = {} recorded + {}; power cuts took {}",
        ledger.answered(),
        ledger.recorded,
        unrecorded.join(" + "),
        ledger.power_cut
    )
}

pub(crate) fn dump_store(arguments: &DumpStore) -> Result<(), Refusal> {
    let (view, _) = open(&arguments.installation.data()?).map_err(refuse)?;
    print(&view.dump().map_err(refuse)?)
}
