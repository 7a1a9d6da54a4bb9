//! What every process of Sluice does, whatever its work is: settings, logs, a clock that is passed in, shutdown, the
//! data folder, secrets, listeners, metrics and health. This crate knows nothing of clicks.
//!
//! A mistake of the person who starts a process ends as one [`exit::Refusal`]: exit code 2 and one line that says what to
//! do.

pub mod exit;
pub mod settings;

pub mod clock;
pub mod logs;
pub mod shutdown;

pub mod folder;
pub mod secret;

pub mod descriptors;
pub mod handover;

pub mod http;
pub mod listen;

pub mod admin;
pub mod health;
pub mod metrics;

pub use admin::Health;
pub use clock::Clock;
pub use exit::Refusal;
pub use folder::DataFolder;
pub use metrics::Metrics;
pub use shutdown::{Shutdown, Signals};
