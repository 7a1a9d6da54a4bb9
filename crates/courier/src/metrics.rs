//! What couriers count. The totals live in the cursor, so a restart resets nothing.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, Opts, Registry};

use crate::dead_letters::Reason;
use crate::marks::Totals;

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
                &["journal"],
            )?,
            dead: IntCounterVec::new(
                Opts::new(
                    "sluice_journal_dead_total",
                    "Records that cannot be understood, now in dead-letters.log.",
                ),
                &["journal", "reason"],
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
                &["journal"],
            )?,
        };
        registry.register(Box::new(metrics.delivered.clone()))?;
        registry.register(Box::new(metrics.dead.clone()))?;
        registry.register(Box::new(metrics.lost.clone()))?;
        registry.register(Box::new(metrics.lag_seconds.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn of(&self, journal: u16) -> JournalMetrics {
        let journal = journal.to_string();
        JournalMetrics {
            delivered: self.delivered.with_label_values(&[&journal]),
            dead: Reason::ALL.map(|reason| {
                self.dead
                    .with_label_values(&[journal.as_str(), reason.name()])
            }),
            lost: self.lost.with_label_values(&[journal.as_str(), "hole"]),
            lag_seconds: self.lag_seconds.with_label_values(&[&journal]),
        }
    }
}

/// The handles of one journal.
#[derive(Debug)]
pub(crate) struct JournalMetrics {
    delivered: IntCounter,
    dead: [IntCounter; Reason::ALL.len()],
    lost: IntCounter,
    lag_seconds: Gauge,
}

impl JournalMetrics {
    pub(crate) fn show(&self, totals: &Totals, lag_seconds: f64) {
        raise(&self.delivered, totals.delivered);
        raise(&self.lost, totals.lost);
        for (counter, total) in self.dead.iter().zip(totals.dead) {
            raise(counter, total);
        }
        self.lag_seconds.set(lag_seconds);
    }
}

fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}
