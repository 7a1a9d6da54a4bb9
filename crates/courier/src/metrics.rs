//! What couriers tell. The totals live in the cursor, so a restart resets nothing.

use std::path::Path;

use domain::Topic;
use prometheus::{Gauge, GaugeVec, Opts, Registry};

use crate::ledger::Ledgers;
use crate::marks::Totals;

/// The families of all couriers of a process, each labelled with its journal's number.
#[derive(Clone, Debug)]
pub struct Metrics {
    ledgers: Ledgers,
    lag_seconds: GaugeVec,
}

impl Metrics {
    /// Registers the families.
    ///
    /// # Errors
    /// They are registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            ledgers: Ledgers::default(),
            lag_seconds: GaugeVec::new(
                Opts::new(
                    "sluice_courier_delivery_lag_seconds",
                    "Age of the oldest record read and not acknowledged; 0 when there is none.",
                ),
                &["journal", "topic"],
            )?,
        };
        registry.register(Box::new(metrics.ledgers.collector()?))?;
        registry.register(Box::new(metrics.lag_seconds.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn of(&self, journal: u16, topic: Topic) -> JournalMetrics {
        let labels = [&journal.to_string(), topic.name()];
        JournalMetrics {
            journal,
            topic,
            lag_seconds: self.lag_seconds.with_label_values(&labels),
            ledgers: self.ledgers.clone(),
        }
    }
}

/// The handles of one topic of one journal.
#[derive(Debug)]
pub(crate) struct JournalMetrics {
    journal: u16,
    topic: Topic,
    ledgers: Ledgers,
    lag_seconds: Gauge,
}

impl JournalMetrics {
    pub(crate) fn show(&self, folder: &Path, totals: &Totals, lag_seconds: f64) {
        self.ledgers.tell(self.journal, folder, self.topic, *totals);
        self.lag_seconds.set(lag_seconds);
    }
}
