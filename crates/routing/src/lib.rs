//! Which destination a click gets. Pure: a catalog and a request in, a decision out; no disk, no clock, no randomness.
//!
//! [`Table`] is built once for a catalog version, [`decide`] names the route or the reason for none, and [`render`]
//! writes the location.

mod decide;
mod render;
mod table;
mod value;

pub use decide::{Decision, Params, Path, Route, decide};
pub use render::render;
pub use table::Table;
pub use value::Value;
