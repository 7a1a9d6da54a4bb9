//! The process's registry of metrics. Each part registers one struct of typed families in it.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::logs;

/// The registry, and what every process says about itself. Clones share it.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// A registry that holds `sluice_build_info{version}`.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let build = IntGaugeVec::new(
            Opts::new(
                "sluice_build_info",
                "Always 1; the label says which build this is.",
            ),
            &["version"],
        )
        .expect("the name and label are valid");
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry
            .register(Box::new(build))
            .expect("a new registry has no names yet");
        registry
            .register(Box::new(DroppedLines::new()))
            .expect("each name is registered once");
        Metrics { registry }
    }

    /// Where parts register their families.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything registered, in Prometheus' text format.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| {
                tracing::error!(%error, "metrics not rendered");
                String::new()
            })
    }
}

/// The log's own counter, asked for when it is scraped: logs begin before there is a registry.
struct DroppedLines(IntCounter);

impl DroppedLines {
    fn new() -> DroppedLines {
        let counter = IntCounter::new(
            "sluice_log_lines_dropped_total",
            "Log lines that could not be written: standard error is full, closed or not read.",
        );
        DroppedLines(counter.expect("the name is valid"))
    }
}

impl Collector for DroppedLines {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.reset();
        self.0.inc_by(logs::dropped());
        self.0.collect()
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_is_told() {
        let text = Metrics::new().render();
        assert!(
            text.contains(concat!(
                "sluice_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            )),
            "{text}"
        );
    }
}
