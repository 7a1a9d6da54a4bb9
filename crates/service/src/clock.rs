//! The one place that reads the wall clock. Everything else is given a [`Clock`], so that a test decides what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time in Unix milliseconds. Clones tell the same time.
#[derive(Debug, Clone)]
pub struct Clock {
    /// `None` reads the system's clock.
    fixed_ms: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// The system's wall clock. It may step backwards; who needs order keeps a high mark of their own.
    pub fn system() -> Clock {
        Clock { fixed_ms: None }
    }

    /// A clock that stands still at `ms` until it is [set](Clock::set).
    pub fn fixed(ms: u64) -> Clock {
        Clock {
            fixed_ms: Some(Arc::new(AtomicU64::new(ms))),
        }
    }

    /// Moves a fixed clock and all its clones.
    ///
    /// # Panics
    ///
    /// On a system clock: only tests set the time.
    pub fn set(&self, ms: u64) {
        self.fixed_ms
            .as_ref()
            .expect("only a fixed clock can be set")
            .store(ms, Ordering::Relaxed);
    }

    /// Milliseconds since 1970-01-01 UTC; 0 on a machine whose clock stands before that.
    pub fn now_ms(&self) -> u64 {
        match &self.fixed_ms {
            Some(ms) => ms.load(Ordering::Relaxed),
            None => system_ms(),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that may: everybody else is given a Clock"
)]
fn system_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_a_fixed_clock_move_together() {
        let clock = Clock::fixed(7);
        let other = clock.clone();
        assert_eq!(other.now_ms(), 7);
        clock.set(9);
        assert_eq!(other.now_ms(), 9);
    }

    #[test]
    fn the_system_clock_is_past_2025() {
        assert!(Clock::system().now_ms() > 1_735_689_600_000);
    }
}
