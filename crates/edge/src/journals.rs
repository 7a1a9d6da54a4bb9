//! The journals' state as metrics, found out when they are scraped.

use journal::Gauges;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntGaugeVec, Opts};

/// The journals of all workers, each labelled with its number.
pub(crate) struct Journals {
    of: Vec<Gauges>,
    unsynced_seconds: GaugeVec,
    poisoned: IntGaugeVec,
    bytes: IntGaugeVec,
    bytes_max: IntGaugeVec,
}

impl Journals {
    pub(crate) fn new(of: Vec<Gauges>) -> Result<Self, prometheus::Error> {
        let label = &["journal"];
        Ok(Self {
            of,
            unsynced_seconds: GaugeVec::new(
                Opts::new(
                    "sluice_journal_unsynced_seconds",
                    "Age of the oldest record that a power cut would take; 0 when there is none.",
                ),
                label,
            )?,
            poisoned: IntGaugeVec::new(
                Opts::new(
                    "sluice_journal_poisoned",
                    "1 when the log could not be written twice in a row: nothing is recorded until a restart.",
                ),
                label,
            )?,
            bytes: IntGaugeVec::new(
                Opts::new(
                    "sluice_journal_bytes",
                    "Bytes of the journal's log files together.",
                ),
                label,
            )?,
            bytes_max: IntGaugeVec::new(
                Opts::new(
                    "sluice_journal_bytes_max",
                    "The bytes at which the journal takes no more records.",
                ),
                label,
            )?,
        })
    }

    fn families(&self) -> [&dyn Collector; 4] {
        [
            &self.unsynced_seconds,
            &self.poisoned,
            &self.bytes,
            &self.bytes_max,
        ]
    }
}

impl Collector for Journals {
    fn desc(&self) -> Vec<&Desc> {
        let families = self.families();
        families.into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (index, gauges) in self.of.iter().enumerate() {
            let journal = [index.to_string()];
            let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            self.unsynced_seconds
                .with_label_values(&journal)
                .set(gauges.unsynced().as_secs_f64());
            self.poisoned
                .with_label_values(&journal)
                .set(gauges.poisoned().into());
            self.bytes
                .with_label_values(&journal)
                .set(whole(gauges.folder_bytes()));
            self.bytes_max
                .with_label_values(&journal)
                .set(whole(gauges.folder_bytes_max()));
        }
        let families = self.families();
        families.into_iter().flat_map(Collector::collect).collect()
    }
}
