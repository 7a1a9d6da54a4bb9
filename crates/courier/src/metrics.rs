//! What couriers count. The totals live in the cursor, so a restart resets nothing.

use domain::Topic;
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, Opts, Registry};

use crate::dead_letters::Reason;
use crate::marks::{TOPICS, Totals};

/// The families of all couriers of a process, each labelled with its journal's number.
#[derive(Clone, Debug)]
pub struct Metrics {
    delivered: IntCounterVec,
    dead: IntCounterVec,
    lost: IntCounterVec,
    lag_seconds: GaugeVec,
}

impl Metrics {
    /// Registers the families.
    ///
    /// # Errors
    /// They are registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            delivered: IntCounterVec::new(
                Opts::new(
                    "sluice_journal_delivered_total",
                    "Records the stream acknowledged.",
                ),
                &["journal", "topic"],
            )?,
            dead: IntCounterVec::new(
                Opts::new(
                    "sluice_journal_dead_total",
                    "Records that cannot be shipped, kept with the dead letters.",
                ),
                &["journal", "topic", "reason"],
            )?,
            lost: IntCounterVec::new(
                Opts::new(
                    "sluice_journal_lost_total",
                    "Records that were numbered and are not in the journal.",
                ),
                &["journal", "reason"],
            )?,
            lag_seconds: GaugeVec::new(
                Opts::new(
                    "sluice_courier_delivery_lag_seconds",
                    "Age of the oldest record read and not acknowledged; 0 when there is none.",
                ),
                &["journal", "topic"],
            )?,
        };
        registry.register(Box::new(metrics.delivered.clone()))?;
        registry.register(Box::new(metrics.dead.clone()))?;
        registry.register(Box::new(metrics.lost.clone()))?;
        registry.register(Box::new(metrics.lag_seconds.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn of(&self, journal: u16, topic: Topic) -> JournalMetrics {
        let journal = journal.to_string();
        let labels = [journal.as_str(), topic.name()];
        JournalMetrics {
            delivered: self.delivered.with_label_values(&labels),
            dead: Reason::ALL.map(|reason| {
                self.dead
                    .with_label_values(&[labels[0], labels[1], reason.name()])
            }),
            // Each topic's courier sees the same holes: one tells them.
            lost: (topic == TOPICS[0]).then(|| self.lost.with_label_values(&[labels[0], "hole"])),
            lag_seconds: self.lag_seconds.with_label_values(&labels),
        }
    }
}

/// The handles of one topic of one journal.
#[derive(Debug)]
pub(crate) struct JournalMetrics {
    delivered: IntCounter,
    dead: [IntCounter; Reason::ALL.len()],
    lost: Option<IntCounter>,
    lag_seconds: Gauge,
}

impl JournalMetrics {
    pub(crate) fn show(&self, totals: &Totals, lag_seconds: f64) {
        raise(&self.delivered, totals.delivered);
        if let Some(lost) = &self.lost {
            raise(lost, totals.lost);
        }
        for (counter, total) in self.dead.iter().zip(totals.dead) {
            raise(counter, total);
        }
        self.lag_seconds.set(lag_seconds);
    }
}

fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}
