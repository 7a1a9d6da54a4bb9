//! The process's registry of metrics. Each part registers one struct of typed families in it.

use prometheus::{IntGaugeVec, Opts, Registry, TextEncoder};

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
