//! From a file to a published version.

use std::{fs::File, io, path::Path, sync::Arc};

use text::NotText;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Catalog, Changes, Problem, Problems, Removes, SecretRef, disk, folder,
    lock::{self, Lock},
    numbers, read,
};

/// Largest catalog and lock read: some 200,000 links. A larger one is a mistake, and would be held in memory whole.
pub const CATALOG_BYTES_MAX: u64 = 64 << 20;

/// A catalog without mistakes, not published.
#[derive(Debug)]
pub struct Checked {
    /// Numbered as it would be; its version is 0.
    pub catalog: Catalog,
    /// What is allowed and seldom meant.
    pub warnings: Vec<Problem>,
    pub(crate) before: Lock,
    pub(crate) after: Lock,
}

/// What applying a catalog did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The version in force.
    pub catalog: Arc<Catalog>,
    /// What differs from the version before it.
    pub changes: Changes,
    /// What is allowed and seldom meant.
    pub warnings: Vec<Problem>,
}

/// Checks a catalog against itself and the lock beside it. Writes nothing.
///
/// # Errors
/// Every mistake in it.
pub fn check(path: &Path) -> Result<Checked, Problems> {
    no_links_file(path)?;
    check_file(path, &[])
}

fn no_links_file(path: &Path) -> Result<(), Problems> {
    let numbers = numbers::path(path);
    if numbers.exists() {
        let message = "the catalog's links stand in a file of links: name both to `sluice catalog build` or to `sluice up`, without it they would all be gone";
        return Err(Problem::of_file(numbers, message).into());
    }
    Ok(())
}

/// Checks a catalog that may have a file of links beside it. A secret that cannot be read is a mistake where its name is new;
/// where the version in force has it (`known`), it must not hold up what else the catalog says.
pub(crate) fn check_file(path: &Path, known: &[SecretRef]) -> Result<Checked, Problems> {
    let whole = |message: String| Problems::from(Problem::of_file(path, message));
    let meta = std::fs::metadata(path).map_err(|error| whole(unreadable(&error)))?;
    if meta.is_dir() {
        return Err(whole(
            "a folder of files is not supported yet: name one file".to_owned(),
        ));
    }
    if !meta.is_file() {
        return Err(whole("not a plain file".to_owned()));
    }
    let bytes =
        disk::read_steady(path, CATALOG_BYTES_MAX).map_err(|error| whole(unreadable(&error)))?;
    let text = text::decode(&bytes).map_err(|NotText { line, message }| Problem {
        line,
        ..Problem::of_file(path, message)
    })?;
    let before = Lock::read(&lock_path(path))?;
    let mut after = before.clone();
    let (catalog, warnings) = read::read(path, text, known, &mut after)?;
    Ok(Checked {
        catalog,
        warnings,
        before,
        after,
    })
}

/// Checks a catalog, keeps its numbers, and makes it the version in force in `folder`. Returns the version in force,
/// which is the one before when nothing changed. `new_id` becomes the identity of a lock that has none yet: 32 hexadecimal
/// digits that must never have been used before.
///
/// # Errors
/// Every mistake in the catalog, a lock that lost numbers, more entries gone than `removes` says, or a file that cannot be
/// written; then the version before stays in force.
pub fn apply(
    path: &Path,
    folder: &Path,
    new_id: &str,
    removes: Removes,
) -> Result<Applied, Problems> {
    let _doors = doors(path, folder)?;
    no_links_file(path)?;
    let mut checked = check_file(path, &folder::secrets(folder))?;
    if checked.after.id.is_empty() {
        new_id.clone_into(&mut checked.after.id);
    }
    let published = published(folder, path, &checked.before)?;
    if let Some(published) = &published {
        one_numbering(folder, published, &checked.before)?;
        let mut lost = checked.before.lost(published);
        lost.extend(checked.before.lost_links(published));
        lost_nothing(path, &lost)?;
        let (before, after) = (&checked.before, &checked.after);
        renamed_before(path, before, after, published, &checked.catalog)?;
    }

    let mut catalog = checked.catalog;
    catalog.lock_id.clone_from(&checked.after.id);
    let entries = &catalog.links.entries;
    let changes = Changes::between(published.as_ref(), &catalog, entries.count, |ordinal| {
        entries.bytes(ordinal)
    });
    few_removed(path, &changes, removes)?;
    catalog.hash = catalog.content_hash(entries_hash(&catalog.links.entries.heap));
    let in_force = published.as_ref();
    catalog.version = number_version(folder, in_force, &mut checked.after, catalog.hash)?;
    // Numbers first: one that is kept and never published is only a gap, one that is published and not kept is a lie.
    if checked.before != checked.after {
        keep(path, &checked.after)?;
    }
    folder::keep_home(folder, &disk::home(path))
        .map_err(|error| failed(folder, "cannot be written", &error))?;
    if published.is_none_or(|published| published.version != catalog.version) {
        folder::publish(folder, &catalog).map_err(|error| published_broken(&error))?;
    }
    catalog.resolve_secrets(&disk::home(path));
    Ok(Applied {
        catalog: Arc::new(catalog),
        changes,
        warnings: checked.warnings,
    })
}

/// A problem when the version in force is another than the one the lock has by that number.
pub(crate) fn one_numbering(
    folder: &Path,
    in_force: &Catalog,
    lock: &Lock,
) -> Result<(), Problems> {
    match lock.version_hash(in_force.version) {
        Some(known) if known != in_force.hash => {
            let message = format!(
                "version {} here is another than the one catalog.lock has by that number: two copies of catalog.lock handed out versions. Restore the one that belongs to this folder, and apply the catalog on one machine only",
                in_force.version
            );
            Err(Problem::of_file(folder, message).into())
        }
        _ => Ok(()),
    }
}

/// A problem when a change takes away more than people remove at once, and nobody said that it is meant.
pub(crate) fn few_removed(
    path: &Path,
    changes: &Changes,
    removes: Removes,
) -> Result<(), Problems> {
    match changes.loss() {
        Some(loss) if removes == Removes::Few => {
            let message = format!(
                "{loss} would go, as when a file is cut off: if that is meant, apply it once with --removes"
            );
            Err(Problem::of_file(path, message).into())
        }
        _ => Ok(()),
    }
}

/// What the entries of all links add to the hash of a version.
pub(crate) fn entries_hash(entries: &[u8]) -> u64 {
    xxh3_64(entries)
}

/// The number of the version that has this hash, which the lock keeps: that of its last version where the hash is the same,
/// whatever folder that one was published in, else a new one.
pub(crate) fn number_version(
    folder: &Path,
    in_force: Option<&Catalog>,
    lock: &mut Lock,
    hash: u64,
) -> Result<u32, Problems> {
    // An older copy of the lock may not know it: numbers go on from what was published.
    if let Some(in_force) = in_force {
        lock.keep_version(in_force.version, in_force.hash);
    }
    match lock.last_version() {
        (version, known) if version > 0 && known == hash => Ok(version),
        (version, _) => {
            let next = next_version(folder, version)?;
            lock.keep_version(next, hash);
            Ok(next)
        }
    }
}

/// A problem for each new number of something that has one in the version in force, where the lock calls that by an earlier
/// name: an older copy of the lock came back, and the line that renames is gone.
pub(crate) fn renamed_before(
    path: &Path,
    before: &Lock,
    after: &Lock,
    in_force: &Catalog,
    now: &Catalog,
) -> Result<(), Problems> {
    let mut problems = Vec::new();
    // Links of a file of their own, millions, are not renamed.
    let keys = lock::published_keys(in_force, !now.links.is_empty());
    for (kind, key, number) in keys {
        let new = after.get(kind, &key).filter(|new| *new != number);
        if new.is_none() || before.get(kind, &key).is_some() {
            continue;
        }
        // Where the lock knows of the rename, the name is free for something new.
        let Some(old) = after.name_of(kind, number) else {
            continue;
        };
        if before.renamed_to(kind, &key).is_some() {
            continue;
        }
        let (name, old) = (lock::name_in_key(kind, &key), lock::name_in_key(kind, old));
        let advice = if now.has(kind, number) {
            "choose a name that was never used".to_owned()
        } else {
            format!("write was = \"{old}\" into it")
        };
        problems.push(Problem {
            field: format!("{}.{name}", kind.name()),
            ..Problem::of_file(
                path,
                format!(
                    "is number {number} in version {}, which catalog.lock, an older copy, calls \"{old}\": {advice}, or restore catalog.lock from backup",
                    in_force.version
                ),
            )
        });
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Problems(problems))
    }
}

/// Two commands at once would hand out the same number twice, or write one version over another: the folder the lock lies in
/// and the one of the versions are the doors.
pub(crate) fn doors(path: &Path, folder: &Path) -> Result<[Option<File>; 2], Problems> {
    let door = |folder: &Path| {
        let opened = File::open(folder).and_then(|door| door.lock().map(|()| door));
        opened.map_err(|error| failed(folder, "cannot be locked", &error))
    };
    let home = disk::folder_of(path);
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, "cannot be made", &error))?;
    let is_same = home.canonicalize().ok() == folder.canonicalize().ok();
    let home = door(home)?;
    let folder = if is_same { None } else { Some(door(folder)?) };
    Ok([Some(home), folder])
}

/// The version in force, whose numbers must come from the lock of this identity.
pub(crate) fn published(
    folder: &Path,
    path: &Path,
    lock: &Lock,
) -> Result<Option<Catalog>, Problems> {
    let version = folder::current_version(folder).map_err(|error| published_broken(&error))?;
    let Some(version) = version else {
        return Ok(None);
    };
    let published = match folder::load_whole(folder, version) {
        Ok(published) => published,
        // The lock knows what it was: applied once more, the catalog is published anew.
        Err(error) if lock.version_hash(version).is_some() && error.is_damaged() => {
            return Ok(None);
        }
        Err(error) => return Err(published_broken(&error)),
    };
    if lock.id != published.lock_id {
        let message = format!(
            "{} holds the versions of another catalog: name that one with --catalog, or choose another folder with --data{}",
            folder.display(),
            if lock.id.is_empty() {
                ", or restore catalog.lock from backup"
            } else {
                ""
            }
        );
        return Err(Problem::of_file(lock_path(path), message).into());
    }
    Ok(Some(published))
}

/// A problem when a published version knows numbers that the lock has lost.
pub(crate) fn lost_nothing(path: &Path, lost: &[String]) -> Result<(), Problems> {
    let Some(first) = lost.first() else {
        return Ok(());
    };
    let more = match lost.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!("catalog.lock has lost {first}{more}: restore it from backup");
    Err(Problem::of_file(lock_path(path), message).into())
}

/// Writes the lock beside the catalog.
pub(crate) fn keep(path: &Path, lock: &Lock) -> Result<(), Problems> {
    let path = lock_path(path);
    disk::replace(&path, lock.to_text().as_bytes())
        .map_err(|error| failed(&path, "cannot be written", &error))
}

/// Above every version a file in the folder stands for, and the last one handed out.
fn next_version(folder: &Path, last: u32) -> Result<u32, Problems> {
    let highest = folder::highest_version(folder)
        .map_err(|error| failed(folder, "cannot be read", &error))?;
    let next = highest.max(last).checked_add(1);
    next.ok_or_else(|| Problem::of_file(folder, "no catalog versions left").into())
}

pub(crate) fn failed(path: &Path, what: &str, error: &dyn std::error::Error) -> Problems {
    Problem::of_file(path, format!("{what}: {error}")).into()
}

/// Why a file of a person cannot be read.
pub(crate) fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {}", text::io_error(error))
}

pub(crate) fn published_broken(error: &crate::Error) -> Problems {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    let path = error.path().unwrap_or(Path::new("current")).to_owned();
    let message = format!("{}{}", error.what(), cause.unwrap_or_default());
    Problem::of_file(path, message).into()
}

fn lock_path(path: &Path) -> std::path::PathBuf {
    disk::folder_of(path).join("catalog.lock")
}
