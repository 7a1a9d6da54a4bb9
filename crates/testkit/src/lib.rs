//! What tests and load generators share: processes under test, a strict HTTP client, waiting with a bound, and skips that
//! are told. Never part of a shipped binary.

pub mod process;

pub mod http;
pub mod wait;

mod skip;

pub use process::{Running, bin};
pub use skip::skip;

/// A TCP port of the loopback address that was free a moment ago. Good enough for tests: the system hands out ports in
/// turn, so the next one to ask gets another.
///
/// # Panics
///
/// When the machine has no free port.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a loopback port is free")
        .port()
}
