//! A wall clock that is set back.
//!
//! The waits inside of librdkafka end by the wall clock: where that is set back by two hours, one of a millisecond lasts for
//! two hours, in whatever thread of the client waits just then. So a process that lives by Kafka ends
//! when that happens, and its service manager starts it again. Nothing is lost by that: what is recorded is in journals.

use std::process;
use std::thread;
use std::time::{Duration, Instant};

use service::Clock;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A leap second and a clock that is slewed stay below; a client that waits for so much longer is no harm.
const SET_BACK_MAX: Duration = Duration::from_secs(3);

/// The wall clock in Unix milliseconds, and one that is never set.
type Moment = (u64, Instant);

/// Watches the clock for as long as the process runs.
pub(crate) fn end_when_set_back(clock: Clock) -> Result<(), String> {
    let watch = move || {
        let mut before = (clock.now_ms(), Instant::now());
        loop {
            thread::park_timeout(LOOK_EVERY);
            let now = (clock.now_ms(), Instant::now());
            let by = set_back(before, now);
            if by > SET_BACK_MAX {
                tracing::error!(
                    ?by,
                    "the wall clock was set back: ending, to be started again"
                );
                process::exit(1);
            }
            before = now;
        }
    };
    thread::Builder::new()
        .name("wall-clock".into())
        .spawn(watch)
        .map(drop)
        .map_err(|error| format!("wall-clock: {error}"))
}

/// By how much the wall clock was set back between two moments.
fn set_back(before: Moment, now: Moment) -> Duration {
    let passed = now.1.saturating_duration_since(before.1);
    let due = Duration::from_millis(before.0) + passed;
    due.saturating_sub(Duration::from_millis(now.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_was_set_back_is_one() {
        let start = Instant::now();
        let at = |wall_s: u64, true_s: u64| (wall_s * 1000, start + Duration::from_secs(true_s));
        let hours = 2 * 3600;
        assert_eq!(set_back(at(9000, 0), at(9001, 1)), Duration::ZERO);
        assert_eq!(set_back(at(9000, 0), at(9000 + hours, 1)), Duration::ZERO);
        assert_eq!(
            set_back(at(9000, 0), at(9001 - hours, 1)),
            Duration::from_secs(hours)
        );
        // A process that was paused for an hour.
        assert_eq!(set_back(at(9000, 0), at(12_600, 3600)), Duration::ZERO);
    }
}
