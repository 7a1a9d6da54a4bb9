//! The redirect edge: a visitor's click in, a redirect out, a record in the journal before the first byte of the answer.
//!
//! One current-thread runtime per core shares nothing with its neighbours but the listening socket, the catalog
//! snapshot and the counters. Between having a request and having its answer there is no `.await`; the one exception is
//! `/postback`, which is answered when its record is durable.

mod answer;
mod classify;
mod click;
mod connection;
mod cookie;
mod forwarded;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod journals;
pub mod keys;
mod live;
mod local_hosts;
mod mend;
mod metrics;
mod parameters;
mod postback;
mod recorder;
mod request;
mod secrets;
pub mod settings;
mod start;
mod tls;
mod unmatched;
mod worker;

pub use keys::Keys;
pub use metrics::{CATALOG_REFUSED, CATALOG_REFUSED_HELP};
pub use settings::{RING_BYTES_UP, Settings, WhenFull};
pub use start::{Edge, Parts, Reloader, StartError, at_hang_up};
pub use tls::check as check_tls;
