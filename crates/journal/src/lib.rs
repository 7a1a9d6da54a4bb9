//! Opaque records that survive a killed process (ring) and a power cut (log).
//!
//! One journal is one folder:
//!
//! | file | what | who touches it |
//! |---|---|---|
//! | `lock` | held with `flock` while somebody may write; names the process | [`FolderLock`] |
//! | `ring` | a link to the newest frames, which lie in the machine's memory, see `ring.rs` | the worker and its journal thread |
//! | `{index:016x}.log` | all frames, copied and synced, see `file.rs` and `frame.rs` | one appender, any number of readers |
//! | `scoreboard` | what the folder's writers counted, since it was made, see `scoreboard.rs` | the journal thread; anybody reads it |
//! | `quarantine-….bin` | bytes of a log file that went bad, see `quarantine.rs` | recovery or deletion makes it, a person deletes it |
//!
//! The worker's [`Writer`] puts a record into the ring and is done: from then on it survives the process. The journal
//! thread's [`Flusher`] copies new frames to the log, syncs, and writes a *mark* that says how far the log is durable.
//! A [`Reader`] delivers only what a mark covers; it takes no lock and maps nothing. Whoever next holds the folder's lock
//! ([`open`] or [`seal`]) saves what the ring had beyond the log. [`Log`] is the same log without a ring, for an owner
//! that can wait for the disk.
//!
//! Each open is a new stream: 128 random bits, sequences 1, 2, 3 …, never continued. So a restored backup or a cloned
//! disk can repeat records but never reuse the identity of one.

mod frame;
mod stream_id;

mod file;
mod log;
mod ring;

mod deletion;
mod flusher;
mod quarantine;
mod recovery;
mod scoreboard;
mod syncer;
mod writer;

mod inspect;
mod reader;
mod scanner;

mod cursor;
mod error;
mod lock;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod tests;

pub use cursor::{CURSOR_BYTES_MAX, Cursor};
pub use deletion::{Deleted, delete_before};
pub use error::Error;
pub use file::{folder_bytes, is_whole};
pub use flusher::{Flushed, Flusher, Gauges};
pub use frame::PAYLOAD_BYTES_MAX;
pub use inspect::{FileInspection, Inspection, RingInspection, inspect};
pub use lock::FolderLock;
pub use log::Log;
pub use reader::{Entry, Position, Reader, Skipped};
pub use recovery::{Recovered, durable, seal};
pub use ring::{RINGS_IN, default_folder as default_ring_folder, is_memory, is_unsealed};
pub use scoreboard::{Ledger, ledger};
pub use stream_id::{NotAStreamId, StreamId};
pub use syncer::Syncer;
pub use writer::{FOLDER_BYTES_MAX, Full, Options, Writer, open};
