//! Journal to stream: enrich, encode, ship.
//!
//! A courier reads the synced records of one journal folder that are of one topic, takes the client's address out of them
//! and puts in what may leave the machine, and sends them under the identity they were recorded with. Its cursor moves over
//! acknowledged records only, so a crash anywhere sends again and never skips; the receiver's rule (`stream::receipts`)
//! makes one of the repeats. Each topic has a courier and a cursor of its own over the same log, so that one that cannot be
//! shipped does not hold up the other.
//!
//! Numbers are without holes per (stream, topic, lane) when the edge hands them out. A power cut may take records the log
//! had not synced, damage may take others; their numbers show as holes and are filled with tombstones so that receivers go
//! on. How many were lost is seen in the journal's own numbers. A record that cannot be understood goes to
//! the dead letters (`stream::letters`), from where [`Release`] sends it once it can be. Where the worker said that its stream
//! ends, each lane gets an end record.

mod courier;
mod enrich;
mod error;
mod ledger;
mod marks;
mod metrics;
mod release;

pub use courier::{Courier, Options, Places, Shipped, delete_acknowledged};
pub use enrich::Enrich;
pub use error::Error;
pub use marks::TOPICS;
pub use metrics::Metrics;
pub use release::{Release, Released};
