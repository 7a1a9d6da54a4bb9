//! A courier that drains a journal to nothing: the real one, with a stream that keeps nothing and acknowledges at once.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use courier::{Courier, Enrich, Metrics, Options, Places, TOPICS};
use service::Clock;
use stream::{Record, SendError, Sender};
use testkit::wait;

use crate::measure::process;

/// How long it may lag behind at the end of a slice.
const BEHIND_MAX: Duration = Duration::from_secs(30);

/// Couriers of one journal, each on a thread, as `sluice courier` runs them.
pub(crate) struct Drain {
    couriers: Vec<Draining>,
    stop: Arc<AtomicBool>,
}

struct Draining {
    thread: JoinHandle<Result<(), String>>,
    /// Its number in the kernel.
    id: i32,
    /// Records behind its cursor.
    passed: Arc<AtomicU64>,
}

impl Drain {
    /// Begins to drain a journal, on one core.
    pub(crate) fn start(
        journal: &Path,
        folder: &Path,
        core: usize,
    ) -> Result<Drain, Box<dyn Error>> {
        let registry = service::Metrics::new();
        let metrics = Metrics::register(registry.registry())?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut couriers = Vec::new();
        for topic in TOPICS {
            let places = Places {
                journal: journal.to_path_buf(),
                cursor: folder.join(format!("{}.cursor", topic.name())),
                dead_letters: folder.join(format!("dead.{}", topic.name())),
            };
            let options = Options {
                topic,
                ..Options::default()
            };
            let enrich = Enrich {
                visitor_key: [7; 32],
                truncate: true,
                zone: None,
                catalog_lock: 0,
            };
            let mut courier = Courier::open(&places, enrich, options, &metrics)?;
            let passed = Arc::new(AtomicU64::new(0));
            let (ended, counted) = (Arc::clone(&stop), Arc::clone(&passed));
            let (send_id, id) = mpsc::sync_channel(1);
            let thread = thread::spawn(move || {
                process::pin(&[core]).map_err(|error| error.to_string())?;
                let id = rustix::thread::gettid().as_raw_nonzero().get();
                // Nobody waits for it any more: the start has failed.
                let _ = send_id.send(id);
                let done = courier.run(
                    &mut || Ok(Box::new(Nothing::default())),
                    &Clock::system(),
                    &|| ended.load(Ordering::Relaxed),
                    &mut |shipped| {
                        counted.fetch_add(shipped.acknowledged, Ordering::Relaxed);
                    },
                );
                done.map_err(|error| error.to_string())
            });
            couriers.push(Draining {
                thread,
                id: id.recv().map_err(|_| "a courier did not start")?,
                passed,
            });
        }
        Ok(Drain { couriers, stop })
    }

    /// Processor time so far.
    pub(crate) fn cpu_ns(&self) -> Result<u64, String> {
        let times = self.couriers.iter().map(|one| process::thread_ns(one.id));
        let sum = times.sum::<Result<u64, _>>();
        sum.map_err(|error| format!("a courier has ended: {error}"))
    }

    /// Waits until every courier has passed so many records since the start.
    pub(crate) fn wait(&self, records: u64) -> Result<(), String> {
        let passed = || {
            let behind = |one: &Draining| one.passed.load(Ordering::Relaxed) < records;
            !self.couriers.iter().any(behind)
        };
        if wait::holds_within(BEHIND_MAX, passed) {
            return Ok(());
        }
        Err(format!("the courier is more than {BEHIND_MAX:?} behind"))
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        for one in self.couriers {
            let ended = one.thread.join();
            ended.map_err(|_| "a courier panicked".to_owned())??;
        }
        Ok(())
    }
}

/// A stream of which nothing stays.
#[derive(Default)]
struct Nothing {
    sent: u64,
}

impl Sender for Nothing {
    fn send(&mut self, _topic: &str, _record: &Record) -> Result<(), SendError> {
        self.sent += 1;
        Ok(())
    }

    fn acknowledged(&mut self, _wait: Duration) -> stream::Result<u64> {
        Ok(self.sent)
    }
}
