//! What tests and load generators share: processes under test, a strict HTTP client, waiting with a bound, and skips that
//! are told. Never part of a shipped binary.

pub mod kafka;
pub mod process;
pub mod system;

pub mod http;
pub mod wait;

mod skip;

pub use process::{Running, bin};
pub use skip::skip;
pub use system::System;
