//! From a file to a published version.

use std::{fs::File, path::Path, sync::Arc};

use crate::{Catalog, Problem, Problems, disk, folder, lock::Lock, numbers, read};

/// Largest catalog and lock read: some 200,000 links. A larger one is a mistake, and would be held in memory whole.
pub const CATALOG_BYTES_MAX: u64 = 64 << 20;

/// A catalog without mistakes, not published.
#[derive(Debug)]
pub struct Checked {
    /// Numbered as it would be; its version is 0.
    pub catalog: Catalog,
    pub(crate) before: Lock,
    pub(crate) after: Lock,
}

/// Checks a catalog against itself and the lock beside it. Writes nothing.
///
/// # Errors
/// Every mistake in it.
pub fn check(path: &Path) -> Result<Checked, Problems> {
    let numbers = numbers::path(path);
    if numbers.exists() {
        let message = "the catalog's links stand in a file of links: name both to `sluice catalog build` or to `sluice up`, without it they would all be gone";
        return Err(Problem::of_file(numbers, message).into());
    }
    check_file(path)
}

/// Checks a catalog that may have a file of links beside it.
pub(crate) fn check_file(path: &Path) -> Result<Checked, Problems> {
    let whole = |message: String| Problems::from(Problem::of_file(path, message));
    let meta =
        std::fs::metadata(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
    if meta.is_dir() {
        return Err(whole(
            "a folder of files is not supported yet: name one file".to_owned(),
        ));
    }
    if !meta.is_file() {
        return Err(whole("not a plain file".to_owned()));
    }
    let bytes = disk::read(path, CATALOG_BYTES_MAX)
        .map_err(|error| whole(format!("cannot be read: {error}")))?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            return Err(Problem {
                line: good.iter().filter(|b| **b == b'\n').count() + 1,
                ..Problem::of_file(path, "not UTF-8 text")
            }
            .into());
        }
    };
    let before = Lock::read(&lock_path(path))?;
    let mut after = before.clone();
    let catalog = read::read(path, &text, &mut after)?;
    Ok(Checked {
        catalog,
        before,
        after,
    })
}

/// Checks a catalog, keeps its numbers, and makes it the version in force in `folder`. Returns the version in force,
/// which is the one before when nothing changed. `new_id` becomes the identity of a lock that has none yet; it must never
/// have been used before.
///
/// # Errors
/// Every mistake in the catalog, a lock that lost numbers, or a file that cannot be written; then the version before
/// stays in force.
pub fn apply(path: &Path, folder: &Path, new_id: &str) -> Result<Arc<Catalog>, Problems> {
    let _doors = doors(path, folder)?;
    let mut checked = check(path)?;
    if checked.after.id.is_empty() {
        new_id.clone_into(&mut checked.after.id);
    }
    let published = published(folder, path, &checked.before.id)?;
    if let Some(published) = &published {
        let mut lost = checked.before.lost(published);
        lost.extend(checked.before.lost_links(published));
        lost_nothing(path, &lost)?;
    }

    // Numbers first: one that is kept and never published is only a gap, one that is published and not kept is a lie.
    if checked.before != checked.after {
        keep(path, &checked.after)?;
    }
    let mut catalog = checked.catalog;
    catalog.lock_id = checked.after.id;
    if let Some(published) = published {
        catalog.version = published.version;
        if catalog == published {
            return Ok(Arc::new(published));
        }
    }
    catalog.version = next_version(folder, catalog.version)?;
    folder::publish(folder, &catalog).map_err(|error| published_broken(&error))?;
    Ok(Arc::new(catalog))
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
    lock_id: &str,
) -> Result<Option<Catalog>, Problems> {
    let version = folder::current_version(folder).map_err(|error| published_broken(&error))?;
    let Some(version) = version else {
        return Ok(None);
    };
    let published =
        folder::load_whole(folder, version).map_err(|error| published_broken(&error))?;
    if lock_id != published.lock_id {
        let message = format!(
            "{} holds the versions of another catalog: name that one with --catalog, or choose another folder with --data{}",
            folder.display(),
            if lock_id.is_empty() {
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

/// Above every version a file in the folder stands for, and the one in force. Makes the folder where it is missing.
pub(crate) fn next_version(folder: &Path, in_force: u32) -> Result<u32, Problems> {
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, "cannot be made", &error))?;
    let highest = folder::highest_version(folder)
        .map_err(|error| failed(folder, "cannot be read", &error))?;
    let next = highest.max(in_force).checked_add(1);
    next.ok_or_else(|| Problem::of_file(folder, "no catalog versions left").into())
}

pub(crate) fn failed(path: &Path, what: &str, error: &dyn std::error::Error) -> Problems {
    Problem::of_file(path, format!("{what}: {error}")).into()
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
