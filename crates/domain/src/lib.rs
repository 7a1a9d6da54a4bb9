//! The nouns of Sluice: numbers, money, time, click token, events. No I/O and no clock.

pub mod event;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod money;
pub mod number;
pub mod order;
pub mod placeholder;
pub mod shard;
mod siv;
pub mod time;
pub mod token;
pub mod topic;

pub use money::{Currency, Micros, Rate};
pub use number::{Advertiser, Affiliate, Domain, Goal, Link, Offer};
pub use shard::{Lane, Numbering, Shard};
pub use time::{ClickKey, Day};
pub use token::{Keyring, Target, Token};
pub use topic::Topic;
