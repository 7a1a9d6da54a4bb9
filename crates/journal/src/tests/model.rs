//! Random lives of a journal against a plain model: appends, flushes, kills, power cuts, failing and full disks, damage.
//!
//! What must hold:
//! - after a kill every appended record is delivered, after a power cut every one that was synced before it; and what was
//!   delivered once is there for ever;
//! - nothing is delivered that was not appended, and nothing under another's stream and sequence or with another ordinal;
//! - the sequences of a stream rise;
//! - a reader that goes on from its own last position sees each record once; from an older one it sees some again, and
//!   leaves none out;
//! - recovery done again changes nothing;
//! - the scoreboard counts each appended record, and after a power cut as many as log and ring hold and it took.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, FileExt, symlink};
use std::time::{Duration, Instant};

use super::disk::{Disk, Lots};
use super::{Folder, folder, last_mark, newest, options, read_all, start};
use crate::file::{self, HEADER_BYTES, Header};
use crate::{
    Entry, Flusher, Full, Position, Reader, Recovered, Writer, delete_before, frame, inspect,
    ledger, open, seal,
};
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Action {
    Append {
        bytes: usize,
    },
    Flush,
    Read {
        bytes_max: usize,
    },
    /// The reader's process ends; the next one goes on from its position.
    Restart,
    /// The reader's files are deleted as far as it has read.
    Delete,
    /// The writer's process dies; the next one opens.
    Kill,
    /// The next syncs fail, but the power stays.
    FailSyncs {
        count: u32,
    },
    /// The disk takes only so many more bytes, until a flush has failed.
    Full {
        room_bytes: usize,
    },
    /// The kernel writes some pages of its own accord.
    WriteBack {
        seed: u64,
    },
    /// The power goes at once, or so many syncs after the beginning of something.
    PowerCut {
        during: During,
        syncs: u32,
        seed: u64,
    },
    /// Bytes before a file's last mark go bad.
    Damage {
        file: prop::sample::Index,
        at: prop::sample::Index,
        bytes: usize,
        with: u8,
    },
}

#[derive(Debug, Clone, Copy)]
enum During {
    Nothing,
    Flush,
    Open,
}

fn action() -> impl Strategy<Value = Action> {
    let during = prop_oneof![
        Just(During::Nothing),
        Just(During::Flush),
        Just(During::Open)
    ];
    prop_oneof![
        24 => (1..600_usize).prop_map(|bytes| Action::Append { bytes }),
        10 => Just(Action::Flush),
        6 => (1..2000_usize).prop_map(|bytes_max| Action::Read { bytes_max }),
        2 => Just(Action::Restart),
        1 => Just(Action::Delete),
        2 => Just(Action::Kill),
        1 => (1..3_u32).prop_map(|count| Action::FailSyncs { count }),
        1 => (0..1500_usize).prop_map(|room_bytes| Action::Full { room_bytes }),
        1 => any::<u64>().prop_map(|seed| Action::WriteBack { seed }),
        3 => (during, 0..6_u32, any::<u64>())
            .prop_map(|(during, syncs, seed)| Action::PowerCut { during, syncs, seed }),
    ]
}

fn action_or_damage() -> impl Strategy<Value = Action> {
    let damage = (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        1..700_usize,
        any::<u8>(),
    )
        .prop_map(|(file, at, bytes, with)| Action::Damage {
            file,
            at,
            bytes,
            with,
        });
    prop_oneof![12 => action(), 1 => damage]
}

/// How an open ended.
#[derive(Clone, Copy)]
enum Ended {
    Killed,
    PowerCut,
}

/// Stream and sequence.
type Id = (u8, u64);

fn id(entry: &Entry) -> Id {
    (entry.stream.0[0], entry.sequence)
}

/// What must come back, what may, and what already came.
struct Model {
    disk: Disk,
    ends: Option<(Writer, Flusher)>,
    open: u8,
    /// Whether every flush of this open succeeded.
    smooth: bool,
    damaged: bool,
    /// Damage hit them, and may by chance put back what was there: whoever read before has them not.
    hit: BTreeSet<Id>,
    appended: BTreeMap<Id, Vec<u8>>,
    /// Appended and not synced.
    waiting: Vec<Id>,
    /// Recorded by the scoreboard when it was last in line with the log, and appended since.
    recorded: u64,
    appended_since: u64,
    /// What the folder must hold.
    required: BTreeSet<Id>,
    ordinals: BTreeMap<Id, u64>,
    reader: Reader,
    position: Position,
    read: Vec<Entry>,
    folder: Folder,
}

impl Model {
    fn new() -> Model {
        let folder = folder();
        let disk = Disk::of(folder.path());
        let reader = Reader::open(folder.path(), Position::default()).unwrap();
        let (writer, flusher, _) = start(folder.path(), 1);
        Model {
            disk,
            ends: Some((writer, flusher)),
            open: 1,
            smooth: true,
            damaged: false,
            hit: BTreeSet::new(),
            appended: BTreeMap::new(),
            waiting: Vec::new(),
            recorded: 0,
            appended_since: 0,
            required: BTreeSet::new(),
            ordinals: BTreeMap::new(),
            reader,
            position: Position::default(),
            read: Vec::new(),
            folder,
        }
    }

    fn act(&mut self, action: Action) {
        let (writer, flusher) = self.ends.as_mut().expect("open between actions");
        match action {
            Action::Append { bytes } => {
                let payload = vec![self.appended.len() as u8; bytes];
                let room = writer.room(bytes).is_ok();
                let Ok(sequence) = writer.append(&payload) else {
                    assert!(!room);
                    return;
                };
                assert!(room);
                let id = (self.open, sequence);
                self.appended.insert(id, payload);
                self.waiting.push(id);
                self.appended_since += 1;
                self.required.insert(id);
            }
            Action::Flush => {
                let flushed = flusher.flush().unwrap();
                assert_eq!(flushed.records, self.waiting.len() as u64);
                assert_eq!(
                    (flusher.unsynced_bytes(), writer.synced()),
                    (0, flushed.synced_sequence)
                );
                self.waiting.clear();
            }
            Action::Read { bytes_max } => self.read(bytes_max),
            Action::Restart => self.restart(),
            Action::Delete => {
                let file = self.position.file;
                delete_before(self.folder.path(), file, |_| false).unwrap();
                for entry in self.read.iter().filter(|entry| entry.next.file < file) {
                    self.required.remove(&id(entry));
                }
            }
            Action::Kill => self.reopen(Ended::Killed),
            Action::FailSyncs { count } => {
                self.smooth = false;
                flusher.fail_syncs(count);
                let flushed = flusher.flush();
                flusher.fail_syncs(0);
                if let Err(error) = flushed {
                    assert!(error.is_poisoned() && count == 2, "{error}");
                    assert_eq!(writer.room(1), Err(Full::Poisoned));
                    assert!(flusher.flush().unwrap_err().is_poisoned());
                    let later = Instant::now() + Duration::from_secs(1);
                    assert_eq!(
                        flusher.flush_at(later).unwrap().records,
                        self.waiting.len() as u64
                    );
                    assert_ne!(writer.room(1), Err(Full::Poisoned));
                }
                self.waiting.clear();
            }
            Action::Full { room_bytes } => {
                self.disk.set_room(Some(room_bytes));
                match flusher.flush() {
                    Ok(_) => self.waiting.clear(),
                    Err(error) => {
                        self.smooth = false;
                        assert!(error.is_disk_full(), "{error}");
                    }
                }
                self.disk.set_room(None);
            }
            Action::WriteBack { seed } => self.disk.write_back(&mut Lots(seed)),
            Action::PowerCut {
                during,
                syncs,
                seed,
            } => {
                self.disk.power_goes_after(syncs);
                let mut synced = writer.synced();
                match during {
                    During::Nothing => {}
                    During::Flush => {
                        let flushed = flusher.flush();
                        synced = writer.synced();
                        let all = self.waiting.iter().all(|id| id.1 <= synced);
                        assert_eq!(flushed.is_ok(), all);
                    }
                    During::Open => {
                        self.ends = None;
                        self.open += 1;
                        // A whole open saved everything; a part of one promises nothing.
                        if open(self.folder.path(), options(self.open)).is_ok() {
                            synced = u64::MAX;
                        }
                    }
                }
                for id in std::mem::take(&mut self.waiting) {
                    if id.1 > synced {
                        self.required.remove(&id);
                    }
                }
                self.ends = None;
                self.disk.cut(&mut Lots(seed));
                self.smooth = false;
                self.restart();
                self.reopen(Ended::PowerCut);
            }
            Action::Damage {
                file,
                at,
                bytes,
                with,
            } => {
                self.damaged = true;
                let index = *file.get(&file::list(self.folder.path()).unwrap());
                let path = file::path_of(self.folder.path(), index);
                let end = last_mark(&path);
                if end > HEADER_BYTES {
                    let from = HEADER_BYTES + at.index((end - HEADER_BYTES) as usize) as u64;
                    let to = (from + bytes as u64).min(end);
                    for entry in read_all(self.folder.path())
                        .iter()
                        .filter(|entry| entry.next.file == index)
                    {
                        let entry_from =
                            entry.next.offset - frame::frame_bytes(entry.payload.len()) as u64;
                        if entry_from < to && from < entry.next.offset {
                            self.required.remove(&id(entry));
                            self.hit.insert(id(entry));
                        }
                    }
                    let file = File::options().write(true).open(&path).unwrap();
                    file.write_all_at(&vec![with; (to - from) as usize], from)
                        .unwrap();
                    self.disk.written(&path);
                }
                self.reopen(Ended::Killed);
            }
        }
    }

    fn read(&mut self, bytes_max: usize) {
        let count = self.reader.read(&mut self.read, bytes_max).unwrap();
        if count > 0 {
            self.position = self.read.last().expect("just read").next;
        }
    }

    fn restart(&mut self) {
        self.reader = Reader::open(self.folder.path(), self.position).unwrap();
    }

    fn reopen(&mut self, ended: Ended) {
        if let Some((writer, flusher)) = self.ends.take() {
            drop(writer);
            flusher.kill();
        }
        let link = self.folder.path().join("ring");
        let ring = fs::read_link(&link).and_then(|path| Ok((fs::read(&path)?, path)));
        let recovered = seal(self.folder.path()).unwrap().expect("nobody has it");
        if self.smooth {
            let records = self.waiting.len() as u64;
            assert_eq!((recovered.records, recovered.torn_bytes), (records, 0));
        }
        // Had the process died before the ring was gone, the next one would find it again.
        let once = read_all(self.folder.path());
        if let Ok((bytes, path)) = ring {
            let mut ring_folder = fs::DirBuilder::new();
            let ring_folder = ring_folder.recursive(true).mode(0o700);
            ring_folder.create(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            symlink(path, link).unwrap();
        }
        let again = seal(self.folder.path()).unwrap().expect("nobody has it");
        assert_eq!((again.records, again.quarantined_files), (0, 0));
        assert_eq!(once, read_all(self.folder.path()));

        self.open += 1;
        let (writer, flusher, last): (_, _, Recovered) = start(self.folder.path(), self.open);
        assert_eq!((last.records, last.previous), (0, again.previous));
        self.ends = Some((writer, flusher));
        self.waiting.clear();
        self.smooth = true;
        self.balance(ended);
        let whole = once.iter().map(id).filter(|id| !self.hit.contains(id));
        self.required.extend(whole);
        self.check(&once, &BTreeSet::new());
    }

    /// The scoreboard is in line with the log that was just begun, and with what was appended.
    fn balance(&mut self, ended: Ended) {
        let ledger = ledger(self.folder.path()).unwrap().expect("just begun");
        let path = newest(self.folder.path());
        let header = Header::read(&File::open(&path).unwrap(), &path).unwrap();
        assert_eq!(ledger.written(), header.expect("just made").ordinal);
        let all = self.recorded + self.appended_since;
        match ended {
            Ended::Killed => assert_eq!(ledger.recorded, all),
            // The page on the disk may be older than what was appended, never than the last open.
            Ended::PowerCut => assert!((self.recorded..=all).contains(&ledger.recorded)),
        }
        assert!(inspect(self.folder.path()).unwrap().agrees());
        (self.recorded, self.appended_since) = (ledger.recorded, 0);
    }

    /// Everything required but not `seen` is there, in order, once, with its number and bytes.
    fn check(&mut self, entries: &[Entry], seen: &BTreeSet<Id>) {
        let mut before: Option<(Id, u64)> = None;
        let mut missing: BTreeSet<Id> = self.required.difference(seen).copied().collect();
        for entry in entries {
            let id = id(entry);
            assert_eq!(self.appended.get(&id), Some(&entry.payload), "{id:?}");
            assert!(
                before.is_none_or(|before| before.0 < id && before.1 < entry.ordinal),
                "{before:?} then {id:?}"
            );
            assert_eq!(
                *self.ordinals.entry(id).or_insert(entry.ordinal),
                entry.ordinal,
                "{id:?} keeps its ordinal"
            );
            missing.remove(&id);
            before = Some((id, entry.ordinal));
        }
        assert!(missing.is_empty(), "lost {missing:?}");
    }

    /// The reader that lived through it all saw everything once.
    fn end(mut self) {
        self.reopen(Ended::Killed);
        loop {
            let before = self.read.len();
            self.read(500);
            if self.read.len() == before {
                break;
            }
        }
        let mut read = std::mem::take(&mut self.read);
        // From any older position the rest comes, and perhaps some again.
        let mut seen = BTreeSet::new();
        for (count, entry) in read.iter().enumerate() {
            seen.insert(id(entry));
            if count % OLD_POSITIONS_EVERY != 0 {
                continue;
            }
            let mut rest = Vec::new();
            Reader::open(self.folder.path(), entry.next)
                .unwrap()
                .read(&mut rest, usize::MAX)
                .unwrap();
            self.check(&rest, &seen);
        }
        // Where damage took the records before a position, a reader cannot know that it has them already.
        if self.damaged {
            let mut once = BTreeSet::new();
            read.retain(|entry| once.insert(id(entry)));
        }
        self.check(&read, &BTreeSet::new());
    }
}

/// Each costs a reading of the whole folder; batches of any size fall on other entries.
const OLD_POSITIONS_EVERY: usize = 5;

fn live(actions: Vec<Action>) {
    let mut model = Model::new();
    for action in actions {
        model.act(action);
    }
    model.end();
}

proptest! {
    #[test]
    fn every_record_survives_once_and_in_order(actions in prop::collection::vec(action(), 1..120)) {
        live(actions);
    }

    #[test]
    fn damage_costs_what_it_hits_and_nothing_else(actions in prop::collection::vec(action_or_damage(), 1..120)) {
        live(actions);
    }
}
