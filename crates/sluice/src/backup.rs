//! `sluice backup` and `sluice restore`: what an installation needs to go on elsewhere, as one folder.
//!
//! A backup is taken of a running system, so the order of copying makes it consistent:
//!
//! 1. The **store**, as one moment (SQLite copies it). Its positions say how far the topics are counted.
//! 2. The **journals**, as far as they were durable when the command began, or further. What a courier has shipped may be
//!    deleted there at any moment, and is then in the stream, which comes later.
//! 3. The **dead letters**: a record leaves its journal for them too.
//! 4. The **embedded stream**. It comes after the store, so that no position lies beyond its end, and after the journals,
//!    so that each record is in one of both. What is in both is counted once, by its number.
//! 5. **Catalog versions and keys**: after the events that name them.
//! 6. The **catalog with its lock files and the settings**, after the versions: a lock that knows a version too many is
//!    harmless, a lock that hands out a number again is not. A version that appeared meanwhile is copied in a second look.
//!
//! Cursors are not copied: a restored system sends its journals again, and repeats are dropped by number. Every open starts
//! new streams (journals, embedded logs, outbox), so that what happened after the backup and is lost with the machine never
//! shares a number with what happens after the restore.
//!
//! `manifest.toml` is written last. It names each file with its length and SHA-256; a folder without one is no backup.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};
use service::{Clock, Refusal, Shutdown};
use sha2::{Digest, Sha256};

use crate::commands::{print, refuse};
use crate::settings::{Installation, Settings};

/// The layout of a backup this build writes, and the only one it reads.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.toml";
/// In the backup: what lay in the data folder, and what lay elsewhere.
const DATA: &str = "data";
const CONFIG: &str = "config";
const STORE: &str = "store.sqlite";
/// Written last by a restore; until then the data folder is not one that a process would start on.
const VERSION: &str = "VERSION";
const RESTORING: &str = "a restore that did not end: empty this folder and restore again\n";

/// Parts of the data folder in the order they are copied; whatever else is there follows.
const ORDER: [&str; 5] = ["journal", "dead-letters", "stream", "keys", "catalog"];
/// What is made anew by whoever needs it.
const LEFT_OUT: [&str; 3] = ["cursors", "handover", "locks"];
/// A worker's records are on the disk after `edge.sync_ms`; a disk that takes longer than this is stalled.
const DURABLE_MAX: Duration = Duration::from_secs(10);
const DURABLE_LOOK: Duration = Duration::from_millis(5);
/// Looks at the catalog versions for ones that were published meanwhile; nobody publishes that often.
const LOOKS_MAX: usize = 10;
const COPY_BYTES: usize = 1 << 20;

/// `sluice backup`
#[derive(Args)]
pub(crate) struct Backup {
    /// The folder to make; it must be missing or empty.
    to: PathBuf,
    // The settings file names data folder and catalog, and is in the backup too.
    #[command(flatten)]
    installation: Installation,
    /// The catalog's file, as `sluice up` is given it.
    #[arg(long)]
    catalog: Option<PathBuf>,
    /// The file of its links.
    #[arg(long)]
    links: Option<PathBuf>,
}

/// `sluice restore`
#[derive(Args)]
pub(crate) struct Restore {
    /// The backup's folder.
    from: PathBuf,
    // The data folder to make; it must be missing or empty.
    #[command(flatten)]
    installation: Installation,
    /// Where to put catalog, lock files and settings. Without it each goes where it lay.
    #[arg(long)]
    config: Option<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    /// The version of Sluice that made it.
    sluice: String,
    taken: jiff::Timestamp,
    /// Where the data folder lay.
    data: PathBuf,
    #[serde(default)]
    not_taken: Vec<NotTaken>,
    #[serde(default)]
    file: Vec<Entry>,
}

/// What belongs to the installation and is not in the backup.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
struct NotTaken {
    what: String,
    /// The file, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lay: Option<PathBuf>,
}

impl NotTaken {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            lay: None,
        }
    }

    /// A path begins where the command runs, in the settings file as well.
    fn file(path: impl AsRef<Path>, what: &str) -> Self {
        let path = path.as_ref();
        Self {
            what: what.to_owned(),
            lay: Some(std::path::absolute(path).unwrap_or_else(|_| path.to_owned())),
        }
    }
}

impl std::fmt::Display for NotTaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.lay {
            Some(lay) => write!(f, "file {}: {}", lay.display(), self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// A file of the backup.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// In the backup.
    path: String,
    bytes: u64,
    sha256: String,
    /// Where it lay, if not in the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lay: Option<PathBuf>,
}

/// Takes a backup.
pub(crate) fn backup(arguments: &Backup) -> Result<(), Refusal> {
    let mut settings = arguments.installation.load()?;
    settings.catalog = arguments.catalog.clone().or(settings.catalog);
    settings.links = arguments.links.clone().or(settings.links);
    let data = &settings.data;
    if !data.join(VERSION).exists() {
        return Err(refuse(format!(
            "{} is no data folder: name it with --data or --settings",
            data.display()
        )));
    }
    make_empty(&arguments.to)?;
    let mut copy = BackupWriter {
        from: data.clone(),
        to: arguments.to.clone(),
        files: Vec::new(),
        taken: BTreeSet::new(),
    };

    copy.store()?;
    let journals = folders(&data.join("journal")).map_err(refuse)?;
    // As couriers do, pass over what is no worker's.
    let is_number = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.parse::<u16>().is_ok())
    };
    for journal in journals.into_iter().filter(is_number) {
        // A worker that was killed left its last records in its ring.
        if let Err(error) = journal::seal(&journal) {
            print(&format!("{}: {error}", journal.display()))?;
        }
        wait_durable(&journal)?;
    }
    for part in ORDER {
        copy.folder(Path::new(part))?;
    }
    copy.config(arguments.installation.settings.as_deref(), &settings)?;
    for _ in 0..LOOKS_MAX {
        if !copy.folder(Path::new("catalog"))? {
            break;
        }
    }
    copy.folder(Path::new(""))?;

    let manifest = Manifest {
        format: FORMAT,
        sluice: env!("CARGO_PKG_VERSION").to_owned(),
        taken: jiff::Timestamp::from_millisecond(Clock::system().now_ms().cast_signed())
            .map_err(refuse)?,
        data: std::path::absolute(data).map_err(refuse)?,
        not_taken: not_taken(&settings),
        file: copy.files,
    };
    let text = toml::to_string(&manifest).map_err(refuse)?;
    write_new(&arguments.to.join(MANIFEST), text.as_bytes())?;
    sync_folders(&arguments.to).map_err(refuse)?;

    let bytes: u64 = manifest.file.iter().map(|file| file.bytes).sum();
    let to = arguments.to.display();
    print(&format!(
        "{to}: {} files, {bytes} bytes, of {}\n{}\nback again, on an empty folder: sluice restore {to} --data FOLDER",
        manifest.file.len(),
        data.display(),
        list("not taken:", &manifest.not_taken)
    ))
}

/// Puts a backup back.
pub(crate) fn restore(arguments: &Restore) -> Result<(), Refusal> {
    let from = &arguments.from;
    let named = &arguments.installation;
    if named.data.is_none() && named.settings.is_none() {
        return Err(refuse(
            "name the data folder to make with --data, or the settings file that names it with --settings",
        ));
    }
    let data = &named.data()?;
    let manifest = read_manifest(from)?;
    // Everything that can be refused is refused before anything is written.
    let owner = fs::metadata(data)
        .ok()
        .map(|found| (found.uid(), found.gid()));
    let mut config = Vec::new();
    for file in &manifest.file {
        let Some(lay) = &file.lay else { continue };
        let target = match &arguments.config {
            Some(folder) => folder.join(lay.file_name().unwrap_or_default()),
            None => lay.clone(),
        };
        if config.iter().any(|(_, other)| *other == target) {
            return Err(refuse(format!(
                "two files of the backup are called {}: leave --config out",
                target.display()
            )));
        }
        match fs::read(&target) {
            Ok(there) if hex(&Sha256::digest(&there)) == file.sha256 => continue,
            Ok(_) => {
                return Err(refuse(format!(
                    "{} is there and differs from the backup's: move it away, or name another folder with --config",
                    target.display()
                )));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(about(&target)(error)),
        }
        config.push((file, target));
    }
    make_empty(data)?;
    write_new(&data.join(VERSION), RESTORING.as_bytes())?;

    let version = format!("{DATA}/{VERSION}");
    let of_data = manifest.file.iter().filter(|file| file.lay.is_none());
    for file in of_data.filter(|file| file.path != version) {
        let inside = inside(&file.path)?;
        put(from, file, &data.join(inside), owner)?;
    }
    for (file, target) in &config {
        put(from, file, target, None)?;
    }
    let file = manifest.file.iter().find(|file| file.path == version);
    let file = file.ok_or_else(|| refuse(format!("{MANIFEST} names no {version}")))?;
    let young = data.join("VERSION.new");
    put(from, file, &young, owner)?;
    sync_folders(data).map_err(refuse)?;
    fs::rename(&young, data.join(VERSION)).map_err(about(data))?;
    sync_folders(data).map_err(refuse)?;

    let missing: Vec<String> = manifest
        .not_taken
        .iter()
        .filter_map(|not_taken| missing(not_taken, &manifest, arguments))
        .collect();
    let config: Vec<String> = config
        .iter()
        .map(|(_, target)| target.display().to_string())
        .collect();
    print(&format!(
        "{}: as it was at {}, made by Sluice {}\n{}\n{}\nEverything in it must belong to the user who runs Sluice. The system \
        that the backup was taken of must not run any more.",
        data.display(),
        manifest.taken,
        manifest.sluice,
        list("put back beside it:", &config),
        list("not in the backup, see that it is there:", &missing)
    ))
}

/// What a person has to see to after a restore: a file is named by the place where it belongs now; `None` for one that came
/// back.
fn missing(not_taken: &NotTaken, manifest: &Manifest, arguments: &Restore) -> Option<String> {
    let Some(lay) = &not_taken.lay else {
        return Some(not_taken.to_string());
    };
    let from_catalog = || {
        // What the catalog names beside itself goes with it.
        let config = arguments.config.as_ref()?;
        let mut folders = manifest
            .file
            .iter()
            .filter_map(|file| file.lay.as_ref()?.parent());
        folders.find_map(|folder| Some(config.join(lay.strip_prefix(folder).ok()?)))
    };
    let now = from_catalog().unwrap_or_else(|| lay.clone());
    let is = if now.exists() {
        "is there"
    } else {
        "is missing"
    };
    let lay = match now == *lay {
        true => String::new(),
        false => format!(" (it lay at {})", lay.display()),
    };
    Some(format!(
        "file {}{lay}, {is}: {}",
        now.display(),
        not_taken.what
    ))
}

/// A backup under way.
struct BackupWriter {
    from: PathBuf,
    to: PathBuf,
    files: Vec<Entry>,
    /// Paths in the data folder.
    taken: BTreeSet<PathBuf>,
}

impl BackupWriter {
    fn store(&mut self) -> Result<(), Refusal> {
        let view = match store::View::open(&self.from.join(STORE)) {
            Ok(view) => view,
            Err(error) if error.is_missing() => return Ok(()),
            Err(error) => return Err(refuse(error)),
        };
        let path = format!("{DATA}/{STORE}");
        let to = self.to.join(&path);
        make_folder(&self.to.join(DATA))?;
        view.copy_to(&to).map_err(refuse)?;
        let (bytes, sha256) = digest(&mut File::open(&to).map_err(about(&to))?, &mut io::sink())
            .map_err(about(&to))?;
        self.files.push(Entry {
            path,
            bytes,
            sha256,
            lay: None,
        });
        for name in ["", "-wal", "-shm"] {
            self.taken.insert(format!("{STORE}{name}").into());
        }
        Ok(())
    }

    /// Copies what is not copied yet of a folder of the data folder, and says whether there was anything. The files are
    /// listed first: of an append-only log all but the newest of a list are final, so their beginnings fit together.
    fn folder(&mut self, folder: &Path) -> Result<bool, Refusal> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(self.from.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(about(&self.from.join(folder))(error)),
        };
        for entry in entries {
            let name = entry.map_err(about(&self.from.join(folder)))?.file_name();
            found.push(folder.join(name));
        }
        found.sort();
        let mut any = false;
        for path in found {
            let is_top = path.components().count() == 1;
            if is_top && LEFT_OUT.iter().any(|name| path == Path::new(name)) {
                continue;
            }
            let whole = self.from.join(&path);
            let kind = match fs::metadata(&whole) {
                Ok(found) => found.file_type(),
                // Acknowledged and deleted since, or a file on its way to its name.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(about(&whole)(error)),
            };
            // Of a volume's own, for root alone.
            if path.ends_with("lost+found") {
                continue;
            }
            if kind.is_dir() {
                any |= self.folder(&path)?;
            } else if kind.is_file() && !is_left_out(&path) && !self.taken.contains(&path) {
                any |= self.file(&path)?;
            }
        }
        Ok(any)
    }

    fn file(&mut self, path: &Path) -> Result<bool, Refusal> {
        let from = self.from.join(path);
        let name = path.to_str().ok_or_else(|| {
            refuse(format!(
                "{}: a name that is not UTF-8: rename it",
                from.display()
            ))
        })?;
        let Some(file) = self.take(&from, format!("{DATA}/{name}"))? else {
            return Ok(false);
        };
        self.files.push(file);
        self.taken.insert(path.to_owned());
        Ok(true)
    }

    /// Copies a file as long as it is now; `None` where it is gone.
    fn take(&self, from: &Path, path: String) -> Result<Option<Entry>, Refusal> {
        let file = match File::open(from) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(about(from)(error)),
        };
        let length = file.metadata().map_err(about(from))?.len();
        let to = self.to.join(&path);
        make_folder(to.parent().unwrap_or(&self.to))?;
        let mut copy = create_new(&to, 0o600).map_err(about(&to))?;
        let (bytes, sha256) = digest(&mut file.take(length), &mut copy).map_err(about(&to))?;
        copy.sync_all().map_err(about(&to))?;
        Ok(Some(Entry {
            path,
            bytes,
            sha256,
            lay: None,
        }))
    }

    /// The catalog, its lock files and the settings, where they lie outside of the data folder.
    fn config(&mut self, settings_file: Option<&Path>, settings: &Settings) -> Result<(), Refusal> {
        let mut paths = Vec::new();
        if let Some(catalog) = &settings.catalog {
            let folder = catalog.parent().unwrap_or(Path::new(""));
            paths.push((catalog.clone(), true));
            paths.extend(settings.links.clone().map(|links| (links, true)));
            // After what they number.
            for lock in ["catalog.lock", "links.lock"] {
                paths.push((folder.join(lock), false));
            }
        }
        paths.extend(settings_file.map(|path| (path.to_owned(), true)));
        let data = fs::canonicalize(&self.from).map_err(about(&self.from))?;
        for (number, (path, needed)) in paths.into_iter().enumerate() {
            let lay = match fs::canonicalize(&path) {
                Ok(found) if found.starts_with(&data) => continue,
                Ok(_) => std::path::absolute(&path).map_err(about(&path))?,
                Err(error) if error.kind() == ErrorKind::NotFound && !needed => continue,
                Err(error) => return Err(about(&path)(error)),
            };
            let name = lay.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| {
                refuse(format!(
                    "{}: a name that is not UTF-8: rename it",
                    path.display()
                ))
            })?;
            if let Some(file) = self.take(&path, format!("{CONFIG}/{number}-{name}"))? {
                let lay = Some(lay);
                self.files.push(Entry { lay, ..file });
            }
        }
        Ok(())
    }
}

/// What only its holder needs (locks), what is only the newest of what a log holds as well (rings), and files on their way
/// to their names.
fn is_left_out(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name == "lock" || name == "ring" || name.ends_with(".new"))
}

/// What belongs to the installation and lies elsewhere, or is made anew.
fn not_taken(settings: &Settings) -> Vec<NotTaken> {
    let mut not_taken = Vec::new();
    let data = std::path::absolute(&settings.data).unwrap_or_else(|_| settings.data.clone());
    let catalog = catalog::Folder::open(settings.data.join("catalog"));
    if let Ok(Some(catalog)) = catalog.and_then(|folder| folder.current()) {
        let advertisers = catalog.advertisers.values();
        let secrets = advertisers.flat_map(|advertiser| &advertiser.secrets);
        let secrets = secrets.filter_map(|secret| match secret {
            catalog::SecretRef::File(path) if path.starts_with(&data) => None,
            catalog::SecretRef::File(path) => Some(NotTaken::file(path, "a secret of the catalog")),
            variable => Some(NotTaken::new(format!(
                "{variable}: a secret of the catalog"
            ))),
        });
        not_taken.extend(secrets.collect::<BTreeSet<_>>());
    }
    if settings.catalog.is_none() && !settings.data.join("demo").exists() {
        not_taken.push(NotTaken::new(
            "catalog and lock files: name them with --settings or --catalog, if they lie on this machine",
        ));
    }
    if let Some(tls) = &settings.edge.tls {
        for path in [&tls.certificate, &tls.key] {
            not_taken.push(NotTaken::file(path, "the edge's certificate"));
        }
    }
    for (path, what) in [
        (&settings.kafka.password_file, "the password for Kafka"),
        (
            &settings.kafka.ca,
            "the certificates brokers are checked by",
        ),
    ] {
        if !path.is_empty() {
            not_taken.push(NotTaken::file(path, what));
        }
    }
    if !settings.kafka.brokers.is_empty() {
        not_taken.push(NotTaken::new(format!(
            "the topics on {}: Kafka keeps them; the store goes on where it stood in them",
            settings.kafka.brokers
        )));
        not_taken.push(NotTaken::new(
            "journals of other machines: back up each edge's data folder there",
        ));
    }
    not_taken.push(NotTaken::new(
        "cursors: the journals are sent again, and counted once",
    ));
    not_taken
}

/// Waits until what a journal's worker has recorded by now is in its log.
fn wait_durable(journal: &Path) -> Result<(), Refusal> {
    let recorded = match journal::ledger(journal).map_err(refuse)? {
        Some(ledger) => ledger.written(),
        None => return Ok(()),
    };
    let (began, look) = (Instant::now(), Shutdown::new());
    loop {
        let durable = journal::durable(journal).map_err(refuse)?;
        if durable >= recorded {
            return Ok(());
        }
        if began.elapsed() > DURABLE_MAX {
            return print(&format!(
                "{}: its last {} records are not on the disk and not in the backup: the disk is stalled",
                journal.display(),
                recorded - durable
            ));
        }
        look.wait_timeout(DURABLE_LOOK);
    }
}

fn read_manifest(from: &Path) -> Result<Manifest, Refusal> {
    let path = from.join(MANIFEST);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            return Err(match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => no_backup(from),
                _ => about(&path)(error),
            });
        }
    };
    #[derive(Deserialize)]
    struct Format {
        format: u32,
        sluice: String,
    }
    let found: Format = toml::from_str(&text)
        .map_err(|error| refuse(format!("{}: {}", path.display(), error.message())))?;
    if found.format != FORMAT {
        return Err(refuse(format!(
            "{} is of format {}, this build reads {FORMAT}: use Sluice {}",
            path.display(),
            found.format,
            found.sluice
        )));
    }
    toml::from_str(&text)
        .map_err(|error| refuse(format!("{}: {}", path.display(), error.message())))
}

/// Says what a folder without a manifest is instead, as far as that can be seen.
fn no_backup(from: &Path) -> Refusal {
    let shown = from.display();
    if from.join(VERSION).exists() {
        return refuse(format!(
            "{shown} is a data folder, no backup: name the folder that sluice backup made, and this one with --data"
        ));
    }
    let mut backups = folders(from).unwrap_or_default();
    backups.retain(|folder| folder.join(MANIFEST).exists());
    let backups: Vec<String> = backups
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    refuse(match (from.is_dir(), backups.is_empty()) {
        (false, _) if from.exists() => {
            format!("{shown} is a file: name the folder that sluice backup made")
        }
        (false, _) => {
            format!("{shown}: there is no such folder: name the one that sluice backup made")
        }
        (true, true) => format!(
            "{shown} is no backup: it has no {MANIFEST}, which a backup gets at its end: name the folder that sluice backup made"
        ),
        (true, false) => format!(
            "{shown} is no backup, but holds some: name one of {}",
            backups.join(", ")
        ),
    })
}

/// The path in the data folder of a file of the backup, which must not lead out of it.
fn inside(path: &str) -> Result<&Path, Refusal> {
    let inside = Path::new(path).strip_prefix(DATA);
    let inside = inside.ok().filter(|path| {
        path.components()
            .all(|part| matches!(part, Component::Normal(_)))
    });
    inside.ok_or_else(|| {
        refuse(format!(
            "{MANIFEST} names {path}, which is no file of a data folder"
        ))
    })
}

/// Copies a file of the backup and checks it on the way.
fn put(
    backup: &Path,
    file: &Entry,
    target: &Path,
    owner: Option<(u32, u32)>,
) -> Result<(), Refusal> {
    let from = backup.join(&file.path);
    let mut source = File::open(&from).map_err(about(&from))?;
    let folder = target.parent().unwrap_or(Path::new(""));
    make_folder(folder)?;
    let mut copy = create_new(target, 0o600).map_err(about(target))?;
    let (bytes, sha256) = digest(&mut source, &mut copy).map_err(about(target))?;
    if (bytes, &sha256) != (file.bytes, &file.sha256) {
        return Err(refuse(format!(
            "{} is damaged: {bytes} bytes with SHA-256 {sha256}, {MANIFEST} says {} with {}: take another backup; what is \
            restored so far is not whole",
            from.display(),
            file.bytes,
            file.sha256
        )));
    }
    copy.sync_all().map_err(about(target))?;
    // Root puts back what the service's user must be able to read: the folder made for it says whom that is.
    if let Some((user, group)) = owner
        && rustix::process::geteuid().is_root()
    {
        for path in [target, folder] {
            chown(path, Some(user), Some(group)).map_err(about(path))?;
        }
    }
    Ok(())
}

/// Makes a folder for its owner alone; one that is there must be empty.
fn make_empty(folder: &Path) -> Result<(), Refusal> {
    make_folder(folder)?;
    let mut entries = fs::read_dir(folder).map_err(about(folder))?;
    if entries.next().is_some() {
        return Err(refuse(format!(
            "{} is not empty: name a new folder, nothing is written over",
            folder.display()
        )));
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(about(folder))
}

fn make_folder(folder: &Path) -> Result<(), Refusal> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(folder);
    made.map_err(about(folder))
}

fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode).open(path)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Refusal> {
    let write = || {
        let mut file = create_new(path, 0o600)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(about(path))
}

/// Copies a source to its end; its length and SHA-256.
fn digest(source: &mut impl Read, copy: &mut impl Write) -> io::Result<(u64, String)> {
    let mut sha256 = Sha256::new();
    let mut bytes = 0;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, hex(&sha256.finalize())));
        }
        sha256.update(&buffer[..read]);
        copy.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The folders in a folder; none where it is missing.
fn folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    match fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() {
                    found.push(path);
                }
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    found.sort();
    Ok(found)
}

/// Makes the names in a folder and in those below it durable.
fn sync_folders(folder: &Path) -> io::Result<()> {
    for below in folders(folder)? {
        sync_folders(&below)?;
    }
    File::open(folder)?.sync_all()
}

fn list(head: &str, lines: &[impl std::fmt::Display]) -> String {
    let mut text = head.to_owned();
    if lines.is_empty() {
        text.push_str(" nothing");
    }
    for line in lines {
        text.push_str(&format!("\n  {line}"));
    }
    text
}

fn about(path: &Path) -> impl Fn(io::Error) -> Refusal + use<> {
    let path = path.display().to_string();
    move |error| refuse(format!("{path}: {}", text::io_error(&error)))
}
