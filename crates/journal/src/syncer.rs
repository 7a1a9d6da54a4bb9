//! Threads that flush journals at an interval, one a journal: what another one's disk takes does not lengthen what a power cut
//! would take of it.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Error, Flusher};

/// The running threads.
pub struct Syncer {
    interval: Duration,
    stop: Arc<Stop>,
    threads: Mutex<Vec<JoinHandle<Result<(), Error>>>>,
}

#[derive(Default)]
struct Stop {
    is_asked: Mutex<bool>,
    asked: Condvar,
}

impl Syncer {
    /// Each `interval` every journal that is added is flushed.
    pub fn new(interval: Duration) -> Syncer {
        Syncer {
            interval,
            stop: Arc::default(),
            threads: Mutex::default(),
        }
    }

    /// Adds a journal: whenever something new is synced, `on_sync` is called with the last synced sequence. A journal whose
    /// writer is gone is flushed a last time and let go. A failure is logged when it begins and tried again at the next interval.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn add(
        &self,
        flusher: Flusher,
        on_sync: impl Fn(u64) + Send + 'static,
    ) -> Result<(), Error> {
        let folder = flusher.folder().to_owned();
        let (interval, stop) = (self.interval, Arc::clone(&self.stop));
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || run(flusher, &on_sync, interval, &stop))
            .map_err(Error::io("start a thread for", &folder))?;
        let mut threads = self.threads();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// Flushes every journal a last time and ends the threads.
    ///
    /// # Errors
    /// The first failure of the last flushes; every journal was tried.
    pub fn stop(self) -> Result<(), Error> {
        self.stop.ask();
        let mut outcome = Ok(());
        for thread in std::mem::take(&mut *self.threads()) {
            match thread.join() {
                Ok(done) => outcome = outcome.and(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        outcome
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<Result<(), Error>>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dropped without [`Syncer::stop`] the threads still flush a last time and end, but nobody waits for them.
impl Drop for Syncer {
    fn drop(&mut self) {
        self.stop.ask();
    }
}

impl Stop {
    fn ask(&self) {
        *self.is_asked() = true;
        self.asked.notify_all();
    }

    fn is_asked(&self) -> MutexGuard<'_, bool> {
        self.is_asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until(&self, then: Instant) {
        let wait = then.saturating_duration_since(Instant::now());
        let waited = self
            .asked
            .wait_timeout_while(self.is_asked(), wait, |is_asked| !*is_asked);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

fn run(
    mut flusher: Flusher,
    on_sync: &dyn Fn(u64),
    interval: Duration,
    stop: &Stop,
) -> Result<(), Error> {
    let mut is_failing = false;
    loop {
        let next = Instant::now() + interval;
        let stopping = *stop.is_asked();
        match flush(&mut flusher, on_sync) {
            Ok(is_last) if is_last || stopping => return Ok(()),
            Ok(_) => is_failing = false,
            Err(error) if stopping => return Err(error),
            Err(error) => {
                if !is_failing {
                    tell(flusher.folder(), &error);
                }
                is_failing = true;
            }
        }
        stop.wait_until(next);
    }
}

/// Whether that was the last time: the writer is gone.
fn flush(flusher: &mut Flusher, on_sync: &dyn Fn(u64)) -> Result<bool, Error> {
    // Asked before the flush: whatever the writer did before it went is then in the ring.
    let is_gone = flusher.writer_gone();
    let flushed = flusher.flush()?;
    if flushed.records > 0 {
        on_sync(flushed.synced_sequence);
    }
    Ok(is_gone)
}

fn tell(folder: &Path, error: &Error) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(folder = %folder.display(), %error, cause, "journal flush failed");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::disk::Disk;
    use crate::tests::{folder, read_all, start, texts};

    #[test]
    fn a_writer_that_went_during_a_flush_was_let_go_before_its_last_record_was_synced() {
        let folder = folder();
        let disk = Disk::of(folder.path());
        let (mut writer, mut flusher, _) = start(folder.path(), 1);
        writer.append(b"one").unwrap();
        disk.at_next_sync(move || {
            writer.append(b"last").unwrap();
        });
        for is_last in [false, true] {
            assert_eq!(flush(&mut flusher, &|_| {}).unwrap(), is_last);
        }
        assert_eq!(texts(&read_all(folder.path())), ["one", "last"]);
    }
}
