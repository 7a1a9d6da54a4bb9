//! What tests and load generators share: processes under test, a strict HTTP client, waiting with a bound, and skips that
//! are told. Never part of a shipped binary.

pub mod kafka;
pub mod process;
pub mod python;
pub mod system;

pub mod http;
pub mod wait;

mod skip;

pub use process::{RING_FOLDER_VARIABLE, Running, bin, ring_folder};
pub use skip::skip;
pub use system::System;

/// A free loopback address for a server that is killed and comes back: below the range that the system gives to outgoing
/// connections, so that while it is away no client's own end can take it (or, trying to connect, reach itself).
///
/// # Panics
///
/// When the machine has no such port left.
pub fn lasting_address() -> std::net::SocketAddr {
    const FIRST: u32 = 15_000;
    const COUNT: u32 = 17_000;
    // Processes that ask at once begin at different places.
    let start =
        std::process::id() * 97 + NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) * 31;
    (0..COUNT)
        .map(|step| {
            let port = FIRST + (start + step) % COUNT;
            let port = u16::try_from(port).expect("below 2^16");
            std::net::SocketAddr::from(([127, 0, 0, 1], port))
        })
        .find(|address| std::net::TcpListener::bind(address).is_ok())
        .expect("a loopback port is free")
}

static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
