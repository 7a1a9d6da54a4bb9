//! The redirect edge: a visitor's click in, a redirect out, a record in the journal before the first byte of the answer.
//!
//! One current-thread runtime per core shares nothing with its neighbours but the listening socket, the catalog
//! snapshot and the counters. Between having a request and having its answer there is no `.await`; the one exception is
//! `/postback`, which is answered when its record is durable.

pub mod settings;
mod live;
mod request;
mod classify;
mod cookie;
mod unmatched;
mod recorder;
mod click;
mod postback;
mod answer;
mod metrics;
mod worker;
mod start;

pub use settings::{Settings, WhenFull};
pub use start::{Edge, Parts, StartError};
