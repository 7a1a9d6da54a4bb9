//! The folder of published versions: `<version>.snapshot` each, `current` naming the one in force, and `home`, where the
//! catalog was applied on this machine, naming the folder that it lies in: files of secrets are named relative to it. Where a
//! courier brings the versions, there is no `home`, and these files lie in `secrets`, beside this folder.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{Catalog, Error, SecretRef, Stamp, disk, map::map, snapshot::Kind};

/// Versions kept in memory: a fold that catches up meets a few at a time, each may be megabytes. Also, the last to let go of
/// a version is then this folder, and not a worker that would wait for its memory to be unmapped.
const CACHED_MAX: usize = 8;
/// `current` is one number of ten digits and a line's end.
const CURRENT_BYTES_MAX: u64 = 16;

/// `home` is one path.
const HOME_BYTES_MAX: u64 = 8 << 10;

/// What became of a look-up by number and hash.
#[derive(Debug)]
pub enum Lookup {
    /// The version an event means.
    Found(Arc<Catalog>),
    /// It is not here, or not yet.
    Missing,
    /// The version of this number is another one: who numbered it uses another catalog.
    Other {
        /// The hash of the version that is here.
        hash: u64,
    },
}

/// What a process starts with.
#[derive(Debug)]
pub struct Start {
    /// The version to decide by.
    pub catalog: Arc<Catalog>,
    /// Why it is not the one in force, where it is not.
    pub refused: Option<Error>,
}

/// Published versions, for reading.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// What [`Self::changed`] last returned, and where its secrets are.
    seen: Option<(u32, PathBuf)>,
    /// The identity of the lock that numbered what is followed; empty before the first version.
    lock_id: String,
    /// Most recently used last.
    cached: Mutex<Vec<Arc<Catalog>>>,
    /// The last version that was another one than an event means, and its file.
    other: Mutex<Option<(u32, Stamp)>>,
}

impl Folder {
    /// A folder that [`crate::apply`] publishes to. It need not exist yet: then there is no current version.
    ///
    /// # Errors
    /// The path names something that is not a folder.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        match std::fs::metadata(&path) {
            Ok(meta) if !meta.is_dir() => {
                let error = io::Error::from(io::ErrorKind::NotADirectory);
                return Err(Error::new(Kind::Disk(error)).at(path));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::new(Kind::Disk(error)).at(path));
            }
            _ => {}
        }
        Ok(Self {
            path,
            seen: None,
            lock_id: String::new(),
            cached: Mutex::new(Vec::new()),
            other: Mutex::new(None),
        })
    }

    /// The version in force; `None` before the first was published.
    ///
    /// # Errors
    /// It cannot be read, is damaged or of a newer format.
    pub fn current(&self) -> Result<Option<Arc<Catalog>>, Error> {
        match current_version(&self.path)? {
            Some(version) => self.any_version(version).map(Some),
            None => Ok(None),
        }
    }

    /// The version to start with, to be followed by [`Self::changed`]: the one in force, before all of it is checked. A start
    /// does not wait for that, and goes on to [`Catalog::verify`]; other versions are checked whole before they are returned.
    /// Where the one in force cannot be used, the newest before it that is whole, and why; [`Self::changed`] then goes on trying.
    ///
    /// # Errors
    /// No version can be used, though there are some.
    pub fn start(&mut self) -> Result<Option<Start>, Error> {
        let found = current_version(&self.path).and_then(|version| {
            let Some(version) = version else {
                return Ok(None);
            };
            let mut catalog = load(&self.path, version)?;
            let home = home(&self.path)?;
            catalog.resolve_secrets(&home);
            Ok(Some((catalog, home)))
        });
        match found {
            Ok(None) => Ok(None),
            Ok(Some((catalog, home))) => {
                let catalog = Arc::new(catalog);
                self.lock_id.clone_from(&catalog.lock_id);
                self.seen = Some((catalog.version, home));
                let cached = self.cached.get_mut();
                let cached = cached.unwrap_or_else(PoisonError::into_inner);
                cached.push(Arc::clone(&catalog));
                Ok(Some(Start {
                    catalog,
                    refused: None,
                }))
            }
            Err(error) => match self.whole_before(u32::MAX) {
                Some(catalog) => {
                    self.lock_id.clone_from(&catalog.lock_id);
                    Ok(Some(Start {
                        catalog,
                        refused: Some(error),
                    }))
                }
                None => Err(error),
            },
        }
    }

    /// The version an event names by number and hash.
    ///
    /// # Errors
    /// It is there and cannot be read, is damaged or of another format.
    pub fn version(&self, version: u32, hash: u64) -> Result<Lookup, Error> {
        let mut found = self.any_version(version);
        if found.as_ref().is_ok_and(|catalog| catalog.hash != hash) && self.is_replaced(version) {
            found = self.any_version(version);
        }
        match found {
            Ok(catalog) if catalog.hash == hash => Ok(Lookup::Found(catalog)),
            Ok(catalog) => Ok(Lookup::Other { hash: catalog.hash }),
            Err(error) if error.is_missing() => Ok(Lookup::Missing),
            Err(error) => Err(error),
        }
    }

    /// Whether the file of a version that was another one than an event means may have been put right since it was last found
    /// to be another one; then it is read again.
    fn is_replaced(&self, version: u32) -> bool {
        let stamp = Stamp::at(&snapshot_path(&self.path, version)).ok();
        let now = stamp.map(|stamp| (version, stamp));
        let mut other = self.other.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_none() || *other == now {
            return false;
        }
        *other = now;
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.retain(|kept| kept.version != version);
        true
    }

    /// The version of a number, whichever it is: for people who name one.
    ///
    /// # Errors
    /// It cannot be read, is damaged or of another format.
    pub fn any_version(&self, version: u32) -> Result<Arc<Catalog>, Error> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let found = cached.iter().position(|kept| kept.version == version);
        let catalog = match found {
            Some(at) => cached.remove(at),
            None => {
                let mut catalog = load_whole(&self.path, version)?;
                catalog.resolve_secrets(&home(&self.path)?);
                Arc::new(catalog)
            }
        };
        if cached.len() >= CACHED_MAX {
            cached.remove(0);
        }
        cached.push(Arc::clone(&catalog));
        Ok(catalog)
    }

    /// The number of the version in force.
    ///
    /// # Errors
    /// As for [`Self::current`].
    pub fn current_number(&self) -> Result<Option<u32>, Error> {
        current_version(&self.path)
    }

    /// The numbers of the versions that are here.
    pub fn numbers(&self) -> Vec<u32> {
        let mut numbers = versions(&self.path).unwrap_or_default();
        numbers.sort_unstable();
        numbers
    }

    /// A version as it was published: names of secrets' files are as the catalog has them, and mean the same everywhere.
    ///
    /// # Errors
    /// As for [`Self::any_version`].
    pub fn published(&self, version: u32) -> Result<Catalog, Error> {
        load_whole(&self.path, version)
    }

    /// The newest version before this one that is whole, if there is one.
    pub fn whole_before(&self, version: u32) -> Option<Arc<Catalog>> {
        let mut earlier = versions(&self.path).ok()?;
        earlier.retain(|earlier| *earlier < version);
        earlier.sort_unstable();
        earlier
            .into_iter()
            .rev()
            .find_map(|earlier| self.any_version(earlier).ok())
    }

    /// The version in force if it, or the folder of its secrets, is another than when this returned one last. Costs two small
    /// reads when nothing changed.
    ///
    /// # Errors
    /// As for [`Self::current`]; the next call tries again.
    pub fn changed(&mut self) -> Result<Option<Arc<Catalog>>, Error> {
        let Some(version) = current_version(&self.path)? else {
            return Ok(None);
        };
        let now = Some((version, home(&self.path)?));
        if now == self.seen {
            return Ok(None);
        }
        if self.seen.as_ref().is_some_and(|(seen, _)| *seen == version) {
            let cached = self.cached.get_mut();
            cached.unwrap_or_else(PoisonError::into_inner).clear();
        }
        let catalog = self.any_version(version)?;
        if !self.lock_id.is_empty() && self.lock_id != catalog.lock_id {
            return Err(Error::new(Kind::OtherLock).at(snapshot_path(&self.path, version)));
        }
        self.lock_id.clone_from(&catalog.lock_id);
        self.seen = now;
        Ok(Some(catalog))
    }
}

/// The version `current` names.
pub(crate) fn current_version(folder: &Path) -> Result<Option<u32>, Error> {
    let path = folder.join("current");
    let bytes = match disk::read(&path, CURRENT_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::new(Kind::Disk(error)).at(path)),
    };
    let version = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.trim_end().parse().ok())
        .filter(|version| *version > 0);
    version
        .map(Some)
        .ok_or_else(|| Error::new(Kind::BadCurrent).at(path))
}

/// One version, all of it checked.
/// The secrets that the version in force names, as it names them; none where no version can be read.
pub(crate) fn secrets(folder: &Path) -> Vec<SecretRef> {
    let version = current_version(folder).ok().flatten();
    let in_force = version.and_then(|version| load(folder, version).ok());
    let advertisers = in_force
        .into_iter()
        .flat_map(|catalog| catalog.advertisers.into_values());
    advertisers
        .flat_map(|advertiser| advertiser.secrets)
        .collect()
}

pub(crate) fn load_whole(folder: &Path, version: u32) -> Result<Catalog, Error> {
    let catalog = load(folder, version)?;
    let verified = catalog.verify();
    verified.map_err(|error| error.at(snapshot_path(folder, version)))?;
    Ok(catalog)
}

/// One version; its links are not all checked.
pub(crate) fn load(folder: &Path, version: u32) -> Result<Catalog, Error> {
    let path = snapshot_path(folder, version);
    let bytes = File::open(&path).and_then(|file| map(&file));
    let bytes = bytes.map_err(|error| Error::new(Kind::Disk(error)).at(&path))?;
    let catalog = Catalog::open(&bytes).map_err(|error| error.at(&path))?;
    if catalog.version != version {
        return Err(Error::new(Kind::Damaged).at(path));
    }
    Ok(catalog)
}

/// The folder that files of secrets are named relative to.
fn home(folder: &Path) -> Result<PathBuf, Error> {
    let path = folder.join("home");
    match disk::read(&path, HOME_BYTES_MAX) {
        Ok(bytes) => Ok(PathBuf::from(OsString::from_vec(bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
            Ok(disk::folder_of(&absolute).join("secrets"))
        }
        Err(error) => Err(Error::new(Kind::Disk(error)).at(path)),
    }
}

/// Keeps where the catalog lies that is applied here.
pub(crate) fn keep_home(folder: &Path, home: &Path) -> io::Result<()> {
    let (path, home) = (folder.join("home"), home.as_os_str().as_bytes());
    if disk::read(&path, HOME_BYTES_MAX).is_ok_and(|kept| kept == home) {
        return Ok(());
    }
    disk::replace(&path, home)
}

/// Removes snapshots above the version in force, which a command left that did not come to its end: nothing names them, and
/// where the version in force is damaged, one that never was in force must not stand in for it.
pub(crate) fn remove_never_current(folder: &Path) -> Result<(), Error> {
    let current = current_version(folder)?.unwrap_or(0);
    let disk = |error| Error::new(Kind::Disk(error)).at(folder);
    for version in versions(folder).map_err(disk)? {
        if version > current {
            std::fs::remove_file(snapshot_path(folder, version)).map_err(disk)?;
        }
    }
    Ok(())
}

/// Makes a catalog the version in force.
pub(crate) fn publish(folder: &Path, catalog: &Catalog) -> Result<(), Error> {
    remove_never_current(folder)?;
    let path = snapshot_path(folder, catalog.version);
    let bytes = catalog
        .encode()
        .ok_or(Error::new(Kind::TooLarge).at(&path))?;
    disk::replace(&path, &bytes).map_err(|error| Error::new(Kind::Disk(error)).at(path))?;
    make_current(folder, catalog.version)
}

/// Makes a published version the one in force.
pub(crate) fn make_current(folder: &Path, version: u32) -> Result<(), Error> {
    let path = folder.join("current");
    disk::replace(&path, format!("{version}\n").as_bytes())
        .map_err(|error| Error::new(Kind::Disk(error)).at(path))
}

/// The highest version a file stands for, also one that was never made current.
pub(crate) fn highest_version(folder: &Path) -> io::Result<u32> {
    Ok(versions(folder)?.into_iter().max().unwrap_or(0))
}

/// The versions that files stand for.
fn versions(folder: &Path) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let version = name
            .to_str()
            .and_then(|name| name.strip_suffix(".snapshot"))
            .and_then(|number| number.parse::<u32>().ok());
        found.extend(version);
    }
    Ok(found)
}

pub(crate) fn snapshot_path(folder: &Path, version: u32) -> PathBuf {
    folder.join(format!("{version}.snapshot"))
}
