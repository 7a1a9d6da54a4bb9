//! The consumers' threads.

use std::cell::Cell;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use consumer::parking::Parking;
use consumer::{Handler, Reason, Stored};
use domain::Topic;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts};
use service::{Clock, Health, Shutdown};
use stream::Stream;
use stream::consumer::{Options, Progress};

use crate::gaps::Gaps;
use crate::waiting::Waiting;

/// The pause after a failure; doubles up to the maximum while nothing is folded in between.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What every consumer thread needs.
#[derive(Clone)]
pub(crate) struct Around {
    pub(crate) stream: Stream,
    /// What topics and groups are called by first.
    pub(crate) prefix: String,
    pub(crate) partitions: u16,
    /// The store's name in the groups.
    pub(crate) member: String,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) clock: Clock,
    pub(crate) records_max: usize,
    /// The folder of the dead letters.
    pub(crate) letters: PathBuf,
    pub(crate) gaps: Gaps,
}

/// What consumers count.
#[derive(Clone)]
pub(crate) struct Metrics {
    events: IntCounterVec,
    failing: IntGaugeVec,
    lag_seconds: GaugeVec,
    gap_seconds: GaugeVec,
    refused: IntCounterVec,
    parked_total: IntCounterVec,
    parked: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn register(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let events = IntCounterVec::new(
            Opts::new(
                "sluice_consumer_events_total",
                "Records read by a consumer, by what became of them.",
            ),
            &["consumer", "outcome"],
        )?;
        let failing = IntGaugeVec::new(
            Opts::new(
                "sluice_consumer_failing",
                "1 while a consumer cannot fold and tries again; the log says why.",
            ),
            &["consumer"],
        )?;
        let lag_seconds = GaugeVec::new(
            Opts::new(
                "sluice_consumer_lag_seconds",
                "Age of the newest record folded when it was folded; 0 when there is nothing to read.",
            ),
            &["consumer"],
        )?;
        let gap_seconds = GaugeVec::new(
            Opts::new(
                "sluice_consumer_gap_seconds",
                "How long the oldest record that came early has waited for its predecessors; 0 when none waits.",
            ),
            &["consumer"],
        )?;
        let refused = IntCounterVec::new(
            Opts::new(
                "sluice_outbox_dead_total",
                "Records the stream refused for themselves; they are in dead-letters/.",
            ),
            &["consumer"],
        )?;
        let parked_total = IntCounterVec::new(
            Opts::new(
                "sluice_parked_total",
                "Events set aside because they could not be folded, by why; sluice parked list shows them.",
            ),
            &["consumer", "reason"],
        )?;
        let parked = IntGaugeVec::new(
            Opts::new("sluice_parked", "Events that are set aside now."),
            &["consumer"],
        )?;
        registry.register(Box::new(parked_total.clone()))?;
        registry.register(Box::new(parked.clone()))?;
        registry.register(Box::new(gap_seconds.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(events.clone()))?;
        registry.register(Box::new(failing.clone()))?;
        registry.register(Box::new(lag_seconds.clone()))?;
        Ok(Self {
            events,
            failing,
            lag_seconds,
            gap_seconds,
            refused,
            parked_total,
            parked,
        })
    }

    /// Counts what a reader parks.
    pub(crate) fn parking(&self, reader: &str) -> impl FnMut(Parking) + Send + 'static {
        let totals = Reason::ALL.map(|reason| {
            let labels = [reader, reason.name()];
            (reason, self.parked_total.with_label_values(&labels))
        });
        let now = self.parked.with_label_values(&[reader]);
        move |parking| match parking {
            Parking::SetAside { reason, events } => {
                for (_, total) in totals.iter().filter(|(of, _)| *of == reason) {
                    total.inc_by(events);
                }
            }
            Parking::Now(events) => now.set(i64::try_from(events).unwrap_or(i64::MAX)),
        }
    }
}

/// Starts one consumer on one topic. It ends when `stop` is requested and what is there is folded. One that cannot go on
/// (a full disk, a damaged topic) stands still and tries again: nothing is lost, and visitors are redirected meanwhile.
pub(crate) fn start<H: Handler + Send + 'static>(
    around: &Around,
    name: &'static str,
    topic: Topic,
    mut stored: Stored<H>,
    stop: Shutdown,
) -> Result<JoinHandle<Result<(), String>>, String> {
    let Around {
        stream,
        prefix,
        member,
        metrics,
        health,
        clock,
        records_max,
        gaps,
        ..
    } = around.clone();
    let topic = format!("{prefix}.{}", topic.name());
    let group = format!("{prefix}.{name}");
    let run = move || {
        let mut senders = || stream.sender();
        let options = Options {
            records_max,
            idle_wait: Duration::from_millis(20),
            silence: stream.silence(),
            ..Options::default()
        };
        let failing = metrics.failing.with_label_values(&[name]);
        let lag_seconds = metrics.lag_seconds.with_label_values(&[name]);
        let gap_seconds = metrics.gap_seconds.with_label_values(&[name]);
        let refused = metrics.refused.with_label_values(&[name]);
        let [
            folds,
            tombstones_seen,
            repeats_seen,
            conflicts_seen,
            earlies,
        ] = ["folded", "tombstone", "repeat", "conflict", "early"]
            .map(|outcome| metrics.events.with_label_values(&[name, outcome]));
        let pause = Cell::new(RETRY_PAUSE);
        let mut observe = |progress: &Progress| {
            health.beat(name);
            match progress {
                Progress::Folded {
                    folded,
                    tombstones,
                    repeats,
                    conflicts,
                    early,
                    newest_ms,
                    ..
                } => {
                    // Ends have no time.
                    if *newest_ms > 0 {
                        let lag_ms = clock.now_ms().saturating_sub(*newest_ms);
                        lag_seconds.set(lag_ms as f64 / 1000.0);
                    }
                    folds.inc_by(*folded);
                    tombstones_seen.inc_by(*tombstones);
                    repeats_seen.inc_by(*repeats);
                    conflicts_seen.inc_by(*conflicts);
                    earlies.inc_by(*early);
                    failing.set(0);
                    pause.set(RETRY_PAUSE);
                }
                Progress::Idle => lag_seconds.set(0.0),
                Progress::Gaps(open) => {
                    let oldest_ms = open.iter().map(|gap| gap.since_ms).min();
                    let age_ms = oldest_ms.map_or(0, |since| clock.now_ms().saturating_sub(since));
                    gap_seconds.set(age_ms as f64 / 1000.0);
                    gaps.keep(name, &topic, open);
                }
                Progress::Overdue(gap) => tracing::error!(
                    consumer = name,
                    topic,
                    lane = gap.lane,
                    stream = %gap.stream,
                    first = gap.first,
                    last = gap.last,
                    "numbers are missing, what comes after them waits: their courier or consumer owes them. Where it is gone for good: sluice gaps give-up"
                ),
                Progress::Refused => refused.inc(),
                Progress::Shipped { .. } | Progress::SenderFailed => {}
            }
        };
        let mut waiting = Waiting::default();
        let mut receiver = None;
        loop {
            let reader = match &mut receiver {
                Some(reader) => reader,
                none => match stream.receiver(&topic, &group, &member) {
                    Ok(reader) => {
                        // After a failure only a batch that is folded says that it is over.
                        if waiting.ended(name) {
                            failing.set(0);
                            pause.set(RETRY_PAUSE);
                        }
                        none.insert(reader)
                    }
                    Err(error) => {
                        failing.set(1);
                        waiting.because(name, &error);
                        health.beat(name);
                        if stop.wait_timeout(pause.get()) {
                            health.ended(name);
                            // One that has not begun has nothing to end.
                            return match error.is_not_yet() {
                                true => Ok(()),
                                false => Err(format!("{name}: {error}")),
                            };
                        }
                        pause.set((pause.get() * 2).min(RETRY_PAUSE_MAX));
                        health.beat(name);
                        continue;
                    }
                },
            };
            let done = stream::consumer::run(
                &mut **reader,
                Some(&mut senders),
                &mut stored,
                &options,
                &|| clock.now_ms(),
                &|| stop.requested(),
                &mut observe,
            );
            let error = match done {
                Ok(is_drained) => {
                    if !is_drained {
                        tracing::warn!(
                            consumer = name,
                            "consumer stopped before everything was folded, the rest is folded at the next start"
                        );
                    }
                    health.ended(name);
                    return Ok(());
                }
                Err(error) => error,
            };
            failing.set(1);
            // A client may be past saving, and a new one looks at the topics again.
            if matches!(error, stream::consumer::Error::Stream(_)) {
                receiver = None;
            }
            tracing::error!(consumer = name, %error, "consumer stands still and tries again, nothing is lost");
            if stop.wait_timeout(pause.get()) {
                health.ended(name);
                return Err(format!("{name}: {error}"));
            }
            pause.set((pause.get() * 2).min(RETRY_PAUSE_MAX));
            // It is not stuck: starting the process anew would not help it.
            health.beat(name);
        }
    };
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(|error| format!("{name}: {error}"))
}
