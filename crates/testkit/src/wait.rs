//! Waiting for a condition, with a bound. Tests never sleep for a time and hope.

use std::thread;
use std::time::{Duration, Instant};

/// How long a poll rests: short against any process start, long enough to leave the core to what is waited for.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `done` says so.
///
/// # Panics
///
/// When `bound` has passed; the message names `what`.
#[track_caller]
pub fn until(what: &str, bound: Duration, done: impl FnMut() -> bool) {
    assert!(
        holds_within(bound, done),
        "waited {bound:?} in vain until {what}"
    );
}

/// Waits until `done` says so (true) or `bound` has passed (false).
pub fn holds_within(bound: Duration, mut done: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if done() {
            return true;
        }
        if started.elapsed() >= bound {
            return false;
        }
        thread::park_timeout(POLL);
    }
}

/// Lets `pause` pass, for the back-off of a client that tries again.
pub fn pass(pause: Duration) {
    let started = Instant::now();
    // A park may end for no reason.
    while let Some(rest) = pause
        .checked_sub(started.elapsed())
        .filter(|rest| !rest.is_zero())
    {
        thread::park_timeout(rest);
    }
}
