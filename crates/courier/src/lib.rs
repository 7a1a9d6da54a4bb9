//! Journal to stream: enrich, encode, ship.
//!
//! A courier reads the synced records of one journal folder, takes the client's address out of them and puts in what may
//! leave the machine, and sends them under the identity they were recorded with. Its cursor moves over acknowledged
//! records only, so a crash anywhere sends again and never skips; the receiver's rule (`stream::receipts`) makes one of
//! the repeats.
//!
//! Numbers are without holes per (stream, topic, lane) when the edge hands them out. A power cut may take records the log
//! had not synced, damage may take others; their numbers show as holes, are filled with tombstones so that receivers go
//! on, and are counted as lost. A record that cannot be understood goes to `dead-letters.log`.

mod courier;
pub mod dead_letters;
mod enrich;
mod error;
mod marks;
mod metrics;

pub use courier::{Courier, Options, Shipped};
pub use enrich::Enrich;
pub use error::Error;
pub use metrics::Metrics;
