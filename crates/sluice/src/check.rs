//! `sluice check`: what a start would meet, without starting. Every mistake is told at once.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use catalog::{Catalog, Folder, SecretRef};
use clap::Args;
use edge::Keys;
use service::Refusal;

use crate::commands::{print, refuse};
use crate::follow::Source;
use crate::settings::Installation;

/// `sluice check`
#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    installation: Installation,
    /// The catalog's file; the version in force is checked where none is named.
    #[arg(long)]
    catalog: Option<PathBuf>,
    /// The file of its links (CSV), where they stand in one of their own.
    #[arg(long, requires = "catalog")]
    links: Option<PathBuf>,
}

/// What was found.
#[derive(Default)]
struct Report {
    good: Vec<String>,
    bad: Vec<String>,
}

impl Report {
    fn take(&mut self, what: &str, found: Result<String, String>) {
        match found {
            Ok(text) => self.good.push(format!("{what}: {text}")),
            // A list of mistakes names its files itself.
            Err(text) => self.bad.extend(text.lines().map(str::to_owned)),
        }
    }

    fn end(self) -> Result<(), Refusal> {
        for line in &self.good {
            print(line)?;
        }
        if self.bad.is_empty() {
            return print("all good: it would start");
        }
        for line in &self.bad {
            print(&format!("wrong: {line}"))?;
        }
        Err(refuse(match self.bad.len() {
            1 => "1 mistake, named above".to_owned(),
            count => format!("{count} mistakes, listed above"),
        }))
    }
}

pub(crate) fn check(arguments: &Check) -> Result<(), Refusal> {
    let mut report = Report::default();
    let settings = match arguments.installation.load() {
        Ok(settings) => {
            report.good.push("settings: good".to_owned());
            settings
        }
        Err(problems) => {
            report.take("settings", Err(problems.to_string()));
            let text = "not looked at before the settings are right, which name them";
            report
                .good
                .push(format!("data, certificate, keys, catalog: {text}"));
            return report.end();
        }
    };
    let edge = settings.edge.check().map(|()| "good".to_owned());
    report.take("edge", edge.map_err(|error| error.to_string()));
    let data = settings.data;
    let owner = rights(&mut report, &data);

    if let Some(files) = &settings.edge.tls {
        report.take(
            "certificate",
            edge::check_tls(files).map(|()| "good".to_owned()),
        );
        for path in [&files.certificate, &files.key] {
            readable(&mut report, path, owner);
        }
    }
    if !settings.kafka.password_file.is_empty() {
        readable(&mut report, Path::new(&settings.kafka.password_file), owner);
    }
    rings(&mut report, &settings.edge, &data.join("journal"), owner);
    keys(&mut report, &data);
    let catalog = arguments.catalog.clone().or(settings.catalog);
    let links = arguments.links.clone().or(settings.links);
    match catalog {
        Some(path) => {
            let checked = Source::new(path.clone(), links.clone()).check(&|_, _, _| {});
            for path in [Some(&path), links.as_ref()].into_iter().flatten() {
                if path.exists() {
                    readable(&mut report, path, owner);
                }
            }
            let said = checked.map(|checked| {
                // Names of files of secrets begin at the catalog's folder.
                let home = path.parent().unwrap_or(Path::new(""));
                for path in files_of_secrets(&checked.catalog) {
                    readable(&mut report, &home.join(path), owner);
                }
                for warning in &checked.warnings {
                    report.good.push(format!("warning: {warning}"));
                }
                format!(
                    "{} offers, {} affiliates, {} links",
                    checked.catalog.offers.len(),
                    checked.catalog.affiliates.len(),
                    checked.catalog.links.len()
                )
            });
            report.take("catalog", said.map_err(|problems| problems.to_string()));
        }
        None => in_force(&mut report, &data.join("catalog"), owner),
    }

    report.end()
}

/// Whether this user may use the data folder, and whose it has to be; the user and group of whoever runs Sluice.
fn rights(report: &mut Report, data: &Path) -> (u32, u32) {
    let user = rustix::process::geteuid().as_raw();
    let own = (user, rustix::process::getegid().as_raw());
    let meta = match std::fs::metadata(data) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = "not there yet, the first start makes it: its parent must be writable for the user that runs Sluice";
            report
                .good
                .push(format!("data: {}: {text}", data.display()));
            return own;
        }
        Err(error) => {
            report
                .bad
                .push(format!("{}: {}", data.display(), text::io_error(&error)));
            return own;
        }
    };
    let owner = (meta.uid(), meta.gid());
    if user != 0 && user != owner.0 {
        report.bad.push(format!(
            "{}: belongs to user {}, this is user {user}: run Sluice as user {0}, or give it the folder with chown -R {user} {}",
            data.display(),
            owner.0,
            data.display(),
        ));
        return own;
    }
    let mut strange = Vec::new();
    for name in [
        "keys",
        "catalog",
        "journal",
        "stream",
        "cursors",
        "locks",
        "store.sqlite",
    ] {
        let path = data.join(name);
        if let Ok(meta) = std::fs::metadata(&path)
            && meta.uid() != owner.0
        {
            strange.push((path, meta.uid()));
        }
    }
    for (path, uid) in &strange {
        report.bad.push(format!(
            "{}: belongs to user {uid}, the data folder to user {}: chown -R {1} {0}",
            path.display(),
            owner.0
        ));
    }
    if strange.is_empty() {
        report.good.push(format!(
            "rights: {} belongs to user {}, who must run Sluice",
            data.display(),
            owner.0
        ));
    }
    owner
}

/// Where rings lie, and whether they are where a stalled disk does not reach them and where they find room.
fn rings(report: &mut Report, edge: &edge::Settings, journals: &Path, owner: (u32, u32)) {
    let named = edge.ring_folder();
    let is_default = named.is_none();
    let folder = match named {
        Some(folder) => folder,
        None => match journal::default_ring_folder(journals) {
            Ok(folder) => folder,
            // The first start makes it, when there is a folder of journals to name it after.
            Err(_) => Path::new(journal::RINGS_IN).join("sluice"),
        },
    };
    if let Ok(found) = std::fs::symlink_metadata(&folder) {
        let mode = found.permissions().mode() & 0o777;
        if !found.is_dir() || found.uid() != owner.0 || mode & 0o077 != 0 {
            return report.bad.push(format!(
                "{}: rings lie in a folder that user {} owns and nobody else may use (owner {}, mode {mode:03o}): chown {1} and \
                 chmod 700, or name another one as edge.ring_folder",
                folder.display(),
                owner.0,
                found.uid(),
            ));
        }
    }
    let there = folder
        .ancestors()
        .find_map(|path| std::fs::File::open(path).ok());
    let Some(there) = there else { return };
    let place = folder.display();
    if !journal::is_memory(&there) {
        let text = "is no memory file system: when its disk stalls, redirects stop";
        report.good.push(format!("warning: rings: {place} {text}"));
    }
    let needed = edge.ring_bytes().saturating_mul(edge.workers() as u64);
    let room =
        rustix::fs::fstatvfs(&there).map(|found| found.f_blocks.saturating_mul(found.f_frsize));
    if let Ok(room) = room
        && room <= needed
    {
        report.good.push(format!(
            "warning: rings: {place} has {room} bytes and the rings of {} workers need {needed}: they will be smaller, down to \
             4 MiB each; a worker that finds less records nothing",
            edge.workers()
        ));
    }
    let is_contained = ["/.dockerenv", "/run/.containerenv"];
    let is_contained = is_contained.iter().any(|path| Path::new(path).exists())
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    if is_contained && is_default {
        let text = "goes with this container, and with it what is not synced: mount a memory volume that outlives it and name it \
                    as edge.ring_folder (OPERATIONS.md, What a ring survives)";
        report.good.push(format!("warning: rings: {place} {text}"));
    }
    report.good.push(format!("rings: in {place}"));
}

/// Whether who runs Sluice may read a file.
fn readable(report: &mut Report, path: &Path, owner: (u32, u32)) {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) => {
            let why = text::io_error(&error);
            return report.bad.push(format!("{}: {why}", path.display()));
        }
    };
    if !may_read(&meta, owner) {
        report.bad.push(format!(
            "{}: user {} cannot read it (owner {}, mode {:03o}): chown {1} {0}, or give its group the right",
            path.display(),
            owner.0,
            meta.uid(),
            meta.permissions().mode() & 0o777
        ));
    }
}

fn may_read(meta: &Metadata, (user, group): (u32, u32)) -> bool {
    let mode = meta.permissions().mode();
    user == 0
        || meta.uid() == user && mode & 0o400 != 0
        || meta.gid() == group && mode & 0o040 != 0
        || mode & 0o004 != 0
}

fn keys(report: &mut Report, data: &Path) {
    let folder = data.join("keys");
    match (Keys::read(&folder), Keys::used(data)) {
        (Ok(_), _) => report.good.push("keys: good".to_owned()),
        (Err(_), None) if !folder.exists() => {
            report
                .good
                .push("keys: the first start makes them".to_owned());
        }
        (Err(error), _) => report.bad.push(error),
    }
}

/// The version in force and the secrets it names, where no file is followed.
fn in_force(report: &mut Report, versions: &Path, owner: (u32, u32)) {
    let found = Folder::open(versions).and_then(|folder| folder.current());
    let catalog = match found {
        Ok(Some(catalog)) => catalog,
        Ok(None) => {
            let text = "none is in force yet: sluice up writes a demo, sluice-edge needs sluice catalog apply or a courier that brings one";
            return report.good.push(format!("catalog: {text}"));
        }
        Err(error) => return report.bad.push(error.to_string()),
    };
    report
        .good
        .push(format!("catalog: version {}", catalog.version));
    for advertiser in catalog.advertisers.values() {
        for secret in &advertiser.secrets {
            if let Err(error) = secret.read() {
                let name = &advertiser.name;
                report
                    .bad
                    .push(format!("advertiser {name}: {secret}: {error}"));
            }
        }
    }
    for path in files_of_secrets(&catalog) {
        if path.exists() {
            readable(report, path, owner);
        }
    }
}

fn files_of_secrets(catalog: &Catalog) -> impl Iterator<Item = &Path> {
    let secrets = catalog
        .advertisers
        .values()
        .flat_map(|advertiser| &advertiser.secrets);
    secrets.filter_map(|secret| match secret {
        SecretRef::File(path) => Some(path.as_path()),
        SecretRef::Env(_) => None,
    })
}
