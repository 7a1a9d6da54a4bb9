//! One request to stop, seen by threads and by tasks alike: it is asked for once and never taken back. And the signals that
//! a process hears.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::health::Health;

/// What a shell reports for a process ended by Ctrl-C; used when a second signal cuts a drain short.
const INTERRUPTED: i32 = 130;

/// A cloneable request to stop.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    requested: Mutex<bool>,
    changed: Condvar,
    tasks: watch::Sender<bool>,
    is_succeeded: AtomicBool,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner {
            requested: Mutex::new(false),
            changed: Condvar::new(),
            tasks: watch::Sender::new(false),
            is_succeeded: AtomicBool::new(false),
        }
    }
}

impl Shutdown {
    /// Nothing is requested yet.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Asks everybody who holds a clone to stop; repeats change nothing.
    pub fn request(&self) {
        *self
            .inner
            .requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.inner.changed.notify_all();
        self.inner.tasks.send_replace(true);
    }

    /// As [`Self::request`], because a successor does the work already: what is open may take its time.
    pub fn succeed(&self) {
        self.inner.is_succeeded.store(true, Ordering::Release);
        self.request();
    }

    /// Whether a successor does the work already.
    pub fn is_succeeded(&self) -> bool {
        self.inner.is_succeeded.load(Ordering::Acquire)
    }

    /// Whether stopping was requested. Cheap enough for every turn of a loop.
    pub fn requested(&self) -> bool {
        *self.inner.tasks.borrow()
    }

    /// Blocks this thread until stopping is requested (true) or `bound` has passed (false): the pause of a polling loop.
    pub fn wait_timeout(&self, bound: Duration) -> bool {
        let started = Instant::now();
        let mut requested = self
            .inner
            .requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A wait may end for no reason, so the rest of the time is waited for again.
        while !*requested {
            let Some(rest) = bound
                .checked_sub(started.elapsed())
                .filter(|rest| !rest.is_zero())
            else {
                return false;
            };
            requested = self
                .inner
                .changed
                .wait_timeout(requested, rest)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Waits, in a task, until stopping is requested.
    pub async fn requested_async(&self) {
        let mut tasks = self.inner.tasks.subscribe();
        tasks
            .wait_for(|requested| *requested)
            .await
            .expect("the sender lives as long as self");
    }
}

/// What a process does when it hears a signal.
pub struct Signals {
    /// Requested by the first SIGINT or SIGTERM. One more ends the process at once, for the person who will not wait.
    pub shutdown: Shutdown,
    /// Says "draining" from that signal on.
    pub health: Health,
    /// How long it says so before the shutdown is requested, so that a balancer sends nobody any more.
    pub drain_wait: Duration,
    /// Called at each SIGHUP.
    pub reload: Box<dyn FnMut() + Send>,
}

impl Signals {
    /// Hears signals on a thread of its own for as long as the process lives.
    ///
    /// # Errors
    ///
    /// When the signal handlers cannot be installed.
    pub fn hear(self) -> std::io::Result<()> {
        let Signals {
            shutdown,
            health,
            drain_wait,
            mut reload,
        } = self;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut interrupt, mut terminate, mut hang_up) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            )
        };
        let hear = async move {
            let name = loop {
                tokio::select! {
                    _ = interrupt.recv() => break Some("SIGINT"),
                    _ = terminate.recv() => break Some("SIGTERM"),
                    _ = hang_up.recv() => {
                        tracing::info!(signal = "SIGHUP", "reloading");
                        reload();
                    }
                    () = shutdown.requested_async() => break None,
                }
            };
            health.drain();
            let wait = match name {
                Some(signal) => {
                    tracing::info!(signal, "draining, a second signal ends at once");
                    drain_wait
                }
                None => Duration::ZERO,
            };
            let waited = async {
                tokio::time::sleep(wait).await;
                shutdown.request();
                std::future::pending::<()>().await;
            };
            let second = async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => break,
                        _ = terminate.recv() => break,
                        _ = hang_up.recv() => {}
                    }
                }
            };
            tokio::select! {
                () = waited => {}
                () = second => {}
            }
            tracing::warn!("second signal, ending without the drain");
            crate::logs::flush();
            std::process::exit(INTERRUPTED);
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || runtime.block_on(hear))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_without_a_request_ends_at_its_bound() {
        assert!(!Shutdown::new().wait_timeout(Duration::from_millis(5)));
    }

    #[test]
    fn a_request_wakes_a_thread_and_a_task() {
        let shutdown = Shutdown::new();
        let thread = {
            let shutdown = shutdown.clone();
            std::thread::spawn(move || shutdown.wait_timeout(Duration::from_secs(60)))
        };
        let task = {
            let shutdown = shutdown.clone();
            std::thread::spawn(move || {
                tokio::runtime::Builder::new_current_thread()
                    .build()
                    .expect("a bare runtime builds")
                    .block_on(shutdown.requested_async());
            })
        };
        assert!(!shutdown.requested());
        shutdown.request();
        assert!(shutdown.requested());
        assert!(thread.join().unwrap());
        task.join().unwrap();
    }
}
