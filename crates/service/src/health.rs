//! What a process knows about its own health: whether its parts are ready for work, and whether its loops still turn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A loop that has not turned for this long is stuck: far above any pause a loop takes, below a supervisor's patience.
pub const BEAT_MAX: Duration = Duration::from_secs(10);

/// The health of one process. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<Parts>>,
}

#[derive(Debug, Default)]
struct Parts {
    ready: BTreeMap<String, Result<(), String>>,
    beats: BTreeMap<String, Instant>,
    is_draining: bool,
}

impl Health {
    /// No part has reported yet: alive, and not ready.
    pub fn new() -> Health {
        Health::default()
    }

    /// Says whether a part is ready, and if not, why.
    pub fn set_ready(&self, part: &str, ready: Result<(), String>) {
        self.lock().ready.insert(part.to_owned(), ready);
    }

    /// A loop says that it turns; from its first beat on it owes one every [`BEAT_MAX`].
    pub fn beat(&self, part: &str) {
        let now = Instant::now();
        let mut parts = self.lock();
        match parts.beats.get_mut(part) {
            Some(beat) => *beat = now,
            None => _ = parts.beats.insert(part.to_owned(), now),
        }
    }

    /// A loop has ended in good order and owes no more beats.
    pub fn ended(&self, part: &str) {
        self.lock().beats.remove(part);
    }

    /// From now on the process is not ready, because it ends soon.
    pub fn drain(&self) {
        self.lock().is_draining = true;
    }

    /// Whether the process ends soon.
    pub fn is_draining(&self) -> bool {
        self.lock().is_draining
    }

    /// Why the process is not ready, one reason a line; `Ok` when it is.
    ///
    /// # Errors
    ///
    /// The reasons.
    pub fn ready(&self) -> Result<(), String> {
        let parts = self.lock();
        if parts.is_draining {
            return Err("draining".to_owned());
        }
        if parts.ready.is_empty() {
            return Err("starting".to_owned());
        }
        lines(parts.ready.iter().filter_map(|(part, ready)| {
            let reason = ready.as_ref().err()?;
            Some(format!("{part}: {reason}"))
        }))
    }

    /// Which loops stand still, one a line; `Ok` when all turn.
    ///
    /// # Errors
    ///
    /// The stuck loops.
    pub fn alive(&self) -> Result<(), String> {
        self.alive_at(Instant::now())
    }

    fn alive_at(&self, now: Instant) -> Result<(), String> {
        lines(self.lock().beats.iter().filter_map(|(part, beat)| {
            let age = now.saturating_duration_since(*beat);
            (age > BEAT_MAX).then(|| format!("{part}: no beat for {} s", age.as_secs()))
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lines(reasons: impl Iterator<Item = String>) -> Result<(), String> {
    let reasons: Vec<String> = reasons.collect();
    if reasons.is_empty() {
        return Ok(());
    }
    Err(reasons.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_every_part() {
        let health = Health::new();
        assert_eq!(health.ready(), Err("starting".to_owned()));
        health.set_ready("journal", Ok(()));
        health.set_ready("catalog", Err("not mapped".to_owned()));
        assert_eq!(health.ready(), Err("catalog: not mapped".to_owned()));
        health.set_ready("catalog", Ok(()));
        assert_eq!(health.ready(), Ok(()));
        health.drain();
        health.set_ready("journal", Ok(()));
        assert_eq!(health.ready(), Err("draining".to_owned()));
    }

    #[test]
    fn a_loop_that_stands_still_is_named_until_it_ends() {
        let health = Health::new();
        health.beat("courier");
        let now = Instant::now();
        assert_eq!(health.alive_at(now), Ok(()));
        let late = now + Duration::from_secs(12);
        assert!(
            health
                .alive_at(late)
                .unwrap_err()
                .starts_with("courier: no beat")
        );
        health.ended("courier");
        assert_eq!(health.alive_at(late), Ok(()));
    }
}
