//! A disk that forgets, fails and fills, for the thread that asks for one.
//!
//! The journal's files are real. What is kept beside them is what a power cut would leave for sure: the bytes of each file
//! at its last successful sync, and the names in the folder at the folder's last sync. Everything newer may be on the disk
//! or not, page by page or sector by sector, so [`Disk::cut`] draws lots for it and puts the folder into that state.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Disks write a sector whole or not at all.
const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

thread_local! {
    static DISK: RefCell<Option<State>> = const { RefCell::new(None) };
    static MEMORY_BYTES: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// The largest file that the machine's memory has room for.
pub(super) fn set_memory(bytes: u64) {
    MEMORY_BYTES.set(bytes);
}

/// Whether the machine's memory has room for a file of this size.
pub(crate) fn allocated(bytes: u64) -> Result<(), Errno> {
    match bytes <= MEMORY_BYTES.get() {
        true => Ok(()),
        false => Err(Errno::NOSPC),
    }
}

struct State {
    folder: PathBuf,
    /// Bytes on the disk for sure, by inode: a file keeps them when it is renamed.
    durable: BTreeMap<u64, Vec<u8>>,
    /// Names on the disk for sure.
    names: BTreeMap<String, u64>,
    /// Files of which a sync failed: the kernel may have let their pages go, and a later sync says nothing about them.
    failed: BTreeSet<u64>,
    /// How many more syncs end before the power goes.
    syncs_left: Option<u32>,
    /// How many more bytes the disk takes.
    room_bytes: Option<usize>,
    /// How many of the next syncs fail.
    syncs_to_fail: u32,
    /// Done when the next sync begins.
    at_next_sync: Option<Box<dyn FnOnce()>>,
}

/// Watches a folder as long as it lives.
pub(crate) struct Disk(());

/// Called for each file or folder that was synced.
pub(crate) fn synced(path: &Path) -> io::Result<()> {
    if let Some(act) = with(path, |state| state.at_next_sync.take()).flatten() {
        act();
    }
    with(path, |state| {
        if state.syncs_to_fail > 0 {
            state.syncs_to_fail -= 1;
            state.failed.insert(fs::metadata(path)?.ino());
            return Err(io::Error::other("made to fail"));
        }
        if let Some(left) = &mut state.syncs_left {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| io::Error::other("the power is gone"))?;
        }
        if path == state.folder {
            state.names = names(path);
            for (name, inode) in state.names.iter().filter(|(name, _)| is_link(name)) {
                state.durable.insert(*inode, read(&path.join(name)));
            }
            let known: BTreeSet<u64> = state.names.values().copied().collect();
            state.durable.retain(|inode, _| known.contains(inode));
            return Ok(());
        }
        let inode = fs::metadata(path)?.ino();
        if !state.failed.contains(&inode) {
            state.durable.insert(inode, read(path));
        }
        Ok(())
    })
    .unwrap_or(Ok(()))
}

/// Called for each file of which a sync was made to fail.
pub(crate) fn sync_failed(path: &Path) {
    with(path, |state| {
        state.failed.insert(fs::metadata(path).unwrap().ino());
    });
}

/// The part of `bytes` that the disk takes, and what it says of the rest.
pub(crate) fn room<'a>(path: &Path, bytes: &'a [u8]) -> (&'a [u8], io::Result<()>) {
    let taken = with(path, |state| {
        let room = state.room_bytes.as_mut()?;
        let taken = bytes.len().min(*room);
        *room -= taken;
        (taken < bytes.len()).then_some(taken)
    });
    match taken.flatten() {
        Some(taken) => (&bytes[..taken], Err(io::ErrorKind::StorageFull.into())),
        None => (bytes, Ok(())),
    }
}

fn with<T>(path: &Path, act: impl FnOnce(&mut State) -> T) -> Option<T> {
    DISK.with_borrow_mut(|disk| {
        disk.as_mut()
            .filter(|disk| path.starts_with(&disk.folder))
            .map(act)
    })
}

impl Disk {
    pub(crate) fn of(folder: &Path) -> Disk {
        let state = State {
            folder: folder.to_owned(),
            durable: BTreeMap::new(),
            names: BTreeMap::new(),
            failed: BTreeSet::new(),
            syncs_left: None,
            room_bytes: None,
            syncs_to_fail: 0,
            at_next_sync: None,
        };
        DISK.set(Some(state));
        Disk(())
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        DISK.with_borrow_mut(|disk| act(disk.as_mut().expect("set as long as `self` lives")))
    }

    /// The power goes after this many more syncs: all later ones fail.
    pub(super) fn power_goes_after(&self, syncs: u32) {
        self.with(|state| state.syncs_left = Some(syncs));
    }

    /// Something happens while a file is synced.
    pub(crate) fn at_next_sync(&self, act: impl FnOnce() + 'static) {
        self.with(|state| state.at_next_sync = Some(Box::new(act)));
    }

    /// The next syncs fail, of whatever file or folder.
    pub(super) fn fail_syncs(&self, count: u32) {
        self.with(|state| state.syncs_to_fail = count);
    }

    /// None is as much as anybody wants.
    pub(super) fn set_room(&self, bytes: Option<usize>) {
        self.with(|state| state.room_bytes = bytes);
    }

    /// A file is on the disk as it is now.
    pub(super) fn written(&self, path: &Path) {
        let inode = fs::metadata(path).unwrap().ino();
        self.with(|state| state.durable.insert(inode, read(path)));
    }

    /// The kernel writes some of what is new, as it may at any time.
    pub(super) fn write_back(&self, lots: &mut Lots) {
        self.with(|state| {
            for (name, inode) in names(&state.folder) {
                let mixed = state.mixed(&name, inode, lots);
                state.durable.insert(inode, mixed);
                if lots.draw(2) == 0 {
                    state.names.insert(name, inode);
                }
            }
        });
    }

    /// The power goes and comes back: the machine's memory is empty. Nobody may have a file of the folder open.
    pub(super) fn cut(&self, lots: &mut Lots) {
        self.with(|state| {
            if let Ok(ring) = fs::read_link(state.folder.join("ring")) {
                let _ = fs::remove_file(ring);
            }
            let now = names(&state.folder);
            let mut left = BTreeMap::new();
            for name in now.keys().chain(state.names.keys()) {
                let (old, new) = (state.names.get(name), now.get(name));
                let inode = if lots.draw(2) == 0 { old } else { new };
                // A name that went away without a sync of the folder has its durable bytes, at most.
                let bytes = match inode {
                    Some(inode) if new == Some(inode) => state.mixed(name, *inode, lots),
                    Some(inode) => state.durable.get(inode).cloned().unwrap_or_default(),
                    None => continue,
                };
                left.insert(name.clone(), bytes);
            }
            for name in now.keys() {
                fs::remove_file(state.folder.join(name)).unwrap();
            }
            for (name, bytes) in &left {
                let path = state.folder.join(name);
                match is_link(name) {
                    true => symlink(OsStr::from_bytes(bytes), path).unwrap(),
                    false => fs::write(path, bytes).unwrap(),
                }
            }
            state.names = names(&state.folder);
            state.durable = state
                .names
                .iter()
                .map(|(name, inode)| (*inode, left[name].clone()))
                .collect();
            state.failed.clear();
            state.syncs_left = None;
        });
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        DISK.set(None);
    }
}

impl State {
    /// What the disk may have of a file: each piece as it is durable or as it is now.
    fn mixed(&self, name: &str, inode: u64, lots: &mut Lots) -> Vec<u8> {
        let now = read(&self.folder.join(name));
        if is_link(name) {
            return now;
        }
        let durable = self.durable.get(&inode).cloned().unwrap_or_default();
        let piece_bytes = match lots.draw(4) {
            0 => return now,
            1 => return durable,
            2 => PAGE_BYTES,
            _ => SECTOR_BYTES,
        };
        // A file grows by whole pieces of data and by a new length, in any order.
        let bytes = match lots.draw(3) {
            0 => durable.len().max(now.len()),
            1 => durable.len(),
            _ => {
                let new = now.len().saturating_sub(durable.len());
                durable.len() + lots.draw(new as u64 + 1) as usize
            }
        };
        let mut mixed = vec![0; bytes];
        for (piece, from) in mixed
            .chunks_mut(piece_bytes)
            .zip((0..).step_by(piece_bytes))
        {
            let source = if lots.draw(2) == 0 { &durable } else { &now };
            let source = source.get(from..).unwrap_or_default();
            let length = piece.len().min(source.len());
            piece[..length].copy_from_slice(&source[..length]);
        }
        mixed
    }
}

/// The ring is a link, which is there whole or not at all.
fn is_link(name: &str) -> bool {
    name.starts_with("ring")
}

/// What a file holds, or where a link leads.
fn read(path: &Path) -> Vec<u8> {
    match fs::read_link(path) {
        Ok(to) => to.into_os_string().into_vec(),
        Err(_) => fs::read(path).unwrap(),
    }
}

/// The lock holds nothing that matters after a power cut.
fn names(folder: &Path) -> BTreeMap<String, u64> {
    fs::read_dir(folder)
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.file_name() != "lock")
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, entry.metadata().unwrap().ino())
        })
        .collect()
}

/// Numbers that look random and are the same for the same seed (splitmix64).
pub(super) struct Lots(pub(super) u64);

impl Lots {
    /// One of 0, 1 … `below` − 1.
    pub(super) fn draw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % below
    }
}
