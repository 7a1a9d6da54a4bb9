//! Events are a contract: a change of the schema that breaks a reader fails here.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod golden;
mod lock;
mod page;
mod schema;

/// Set, it lets the tests write what is new: lines of the lock and golden bytes. They never remove or change any.
const WRITE_VARIABLE: &str = "SLUICE_WRITE_CONTRACT";
/// The command that does it.
const WRITE: &str = "SLUICE_WRITE_CONTRACT=1 cargo test -p domain --test contract";

fn writes() -> bool {
    std::env::var_os(WRITE_VARIABLE).is_some()
}
