//! One thread that flushes many journals at an interval.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Error, Flusher};

/// A running journal thread.
pub struct Syncer {
    orders: Arc<(Mutex<Orders>, Condvar)>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

/// What the thread is told.
#[derive(Default)]
struct Orders {
    is_stop: bool,
    /// Journals that were added since it last looked.
    added: Vec<Turn>,
}

/// Told of each sync: the last synced sequence.
type OnSync = Box<dyn Fn(u64) + Send>;

impl Syncer {
    /// Starts the thread: each `interval` it flushes every journal that has something new and then calls the journal's
    /// `on_sync` with its last synced sequence. A journal whose writer is gone is flushed a last time and let go. A failure
    /// is logged when it begins and tried again at the next interval; the others go on.
    ///
    /// # Panics
    /// When the system gives no thread.
    pub fn start(interval: Duration) -> Syncer {
        let orders = Arc::<(Mutex<Orders>, Condvar)>::default();
        let told = Arc::clone(&orders);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || run(interval, &told))
            .expect("the system gives a thread at start");
        Syncer {
            orders,
            thread: Some(thread),
        }
    }

    /// Adds a journal, from the next flush on.
    pub fn add(&self, flusher: Flusher, on_sync: impl Fn(u64) + Send + 'static) {
        let folder = flusher.folder().to_owned();
        self.orders().added.push(Turn {
            flusher,
            folder,
            on_sync: Box::new(on_sync),
            failing: false,
        });
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
        self.orders().is_stop = true;
        self.orders.1.notify_all();
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    folder: PathBuf,
    on_sync: OnSync,
    failing: bool,
}

fn run(interval: Duration, orders: &(Mutex<Orders>, Condvar)) -> Result<(), Error> {
    let mut turns = Vec::new();
    loop {
        let next = Instant::now() + interval;
        let stopping = {
            let mut told = orders.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.append(&mut told.added);
            told.is_stop
        };
        let outcome = flush_all(&mut turns, stopping);
        if stopping {
            return outcome;
        }
        let told = orders.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = next.saturating_duration_since(Instant::now());
        drop(
            orders
                .1
                .wait_timeout_while(told, wait, |told| !told.is_stop)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

/// Flushes each journal once, and lets those go whose writer is gone.
fn flush_all(turns: &mut Vec<Turn>, stopping: bool) -> Result<(), Error> {
    let mut outcome = Ok(());
    turns.retain_mut(|turn| {
        // Asked before the flush: whatever the writer did before it went is then in the ring.
        let gone = turn.flusher.writer_gone();
        match turn.flusher.flush() {
            Ok(flushed) => {
                turn.failing = false;
                if flushed.records > 0 {
                    (turn.on_sync)(flushed.synced_sequence);
                }
                return !gone;
            }
            Err(error) if stopping => {
                if outcome.is_ok() {
                    outcome = Err(error);
                }
            }
            Err(error) => {
                if !turn.failing {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    let folder = turn.folder.display();
                    tracing::error!(%folder, %error, cause, "journal flush failed");
                }
                turn.failing = true;
            }
        }
        true
    });
    outcome
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
        let (mut writer, flusher, _) = start(folder.path(), 1);
        writer.append(b"one").unwrap();
        let mut turns = vec![Turn {
            folder: flusher.folder().to_owned(),
            flusher,
            on_sync: Box::new(|_| {}),
            failing: false,
        }];
        disk.at_next_sync(move || {
            writer.append(b"last").unwrap();
        });
        for left in [1, 0] {
            flush_all(&mut turns, false).unwrap();
            assert_eq!(turns.len(), left);
        }
        assert_eq!(texts(&read_all(folder.path())), ["one", "last"]);
    }
}
