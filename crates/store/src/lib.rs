//! Rollups, click index, outbox and offsets, changed as one batch: SQLite in one file.
//!
//! A consumer is a fold over the stream. Its state and the offset it has read to change in one transaction
//! ([`Store::batch`]), so that a crash, a repeat or a second owner never counts anything twice: a batch first moves its
//! offset with a conditional update, and when somebody else has moved it, everything rolls back.
//!
//! What the store holds is a function of the *set* of events and never of their order or batching; [`Store::dump`] prints
//! that function's value in one canonical text, so that two runs can be compared byte for byte.
//!
//! One file has one writing process; inside it the [`Store`] handle lets one batch run at a time. Readers use a [`View`] of
//! their own and see whole batches only.

mod error;
mod file;

mod batch;
mod click;
mod dump;
mod fraud;
mod identity;
mod mark;
mod order;
mod outbox;
mod parked;
mod position;
mod report;
mod rollup;

pub use batch::Batch;
pub use click::KeptClick;
pub use error::Error;
pub use file::{FORMAT, Interrupter, Store, View};
pub use mark::{Mark, MarkGroup};
pub use order::{
    ConversionPlace, KeptConversion, LoggedPostback, OrderKey, Sender, TRUSTED_MAX, UNTRUSTED_MAX,
};
pub use outbox::{OutboxCounter, OutboxRow};
pub use parked::{Parked, ParkedEvent};
pub use position::{Ended, High, Receipts};
pub use report::{Counts, Dimension, Money, Query, Row};
pub use rollup::{Change, Cube, RollupKey, Source};

/// What every fallible function here returns.
pub type Result<T> = std::result::Result<T, Error>;
