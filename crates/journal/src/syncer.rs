//! One thread that flushes many journals at an interval.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Error, Flusher};

/// A running journal thread.
pub struct Syncer {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Syncer {
    /// Starts the thread: each `interval` it flushes every journal that has something new and then calls `on_sync` with
    /// the journal's place in `flushers` and its last synced sequence. A journal whose writer is gone is flushed a last
    /// time and let go. A failure is logged when it begins and tried again at the next interval; the others go on.
    ///
    /// # Panics
    /// When the system gives no thread.
    pub fn start(
        flushers: Vec<Flusher>,
        interval: Duration,
        on_sync: impl Fn(usize, u64) + Send + 'static,
    ) -> Syncer {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || run(flushers, interval, &told, on_sync))
            .expect("the system gives a thread at start");
        Syncer {
            stop,
            thread: Some(thread),
        }
    }

    /// Flushes every journal a last time and ends the thread.
    ///
    /// # Errors
    /// The first failure of the last flushes; every journal was tried.
    pub fn stop(mut self) -> Result<(), Error> {
        self.tell();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }

    fn tell(&self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
    }
}

/// Dropped without [`Syncer::stop`] the thread still flushes a last time and ends, but nobody waits for it.
impl Drop for Syncer {
    fn drop(&mut self) {
        self.tell();
    }
}

struct Turn {
    flusher: Flusher,
    failing: bool,
}

fn run(
    flushers: Vec<Flusher>,
    interval: Duration,
    stop: &(Mutex<bool>, Condvar),
    on_sync: impl Fn(usize, u64),
) -> Result<(), Error> {
    let mut turns: Vec<Option<Turn>> = flushers
        .into_iter()
        .map(|flusher| {
            Some(Turn {
                flusher,
                failing: false,
            })
        })
        .collect();
    let mut stopping = false;
    loop {
        let next = Instant::now() + interval;
        let mut outcome = Ok(());
        for (journal, place) in turns.iter_mut().enumerate() {
            let Some(turn) = place else { continue };
            // Asked before the flush: whatever the writer did before it went is then in the ring.
            let gone = turn.flusher.writer_gone();
            match turn.flusher.flush() {
                Ok(flushed) => {
                    turn.failing = false;
                    if flushed.records > 0 {
                        on_sync(journal, flushed.synced_sequence);
                    }
                    if gone {
                        *place = None;
                    }
                }
                Err(error) if stopping => outcome = outcome.and(Err(error)),
                Err(error) => {
                    if !turn.failing {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::error!(journal, %error, cause, "journal flush failed");
                    }
                    turn.failing = true;
                }
            }
        }
        if stopping {
            return outcome;
        }
        let told = stop.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = next.saturating_duration_since(Instant::now());
        let (told, _) = stop
            .1
            .wait_timeout_while(told, wait, |told| !*told)
            .unwrap_or_else(PoisonError::into_inner);
        stopping = *told;
    }
}
