//! What librdkafka says of this process's clients, read when metrics are.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use stream::Kafka;
use stream::kafka::Client;

struct KafkaMetrics {
    kafka: Kafka,
    prefix: String,
    brokers_connected: IntGaugeVec,
    waiting_messages: IntGaugeVec,
    waiting_bytes: IntGaugeVec,
    requests_in_flight: IntGaugeVec,
    round_trip_seconds: GaugeVec,
    throttle_seconds: GaugeVec,
    transmit_errors: IntCounterVec,
    transmit_retries: IntCounterVec,
    lag_records: IntGaugeVec,
}

/// `prefix` is what topics and groups are called by first.
pub(crate) fn register(
    kafka: &Kafka,
    prefix: &str,
    registry: &Registry,
) -> Result<(), prometheus::Error> {
    let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["client"]);
    let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["client"]);
    let metrics = KafkaMetrics {
        kafka: kafka.clone(),
        prefix: prefix.to_owned(),
        brokers_connected: gauge(
            "sluice_kafka_brokers_connected",
            "Connections to brokers that are up.",
        )?,
        waiting_messages: gauge(
            "sluice_kafka_waiting_messages",
            "Messages of producers not acknowledged yet, of consumers fetched and not read yet.",
        )?,
        waiting_bytes: gauge(
            "sluice_kafka_waiting_bytes",
            "Bytes of the messages that wait.",
        )?,
        requests_in_flight: gauge(
            "sluice_kafka_requests_in_flight",
            "Requests a broker has not answered yet.",
        )?,
        round_trip_seconds: GaugeVec::new(
            Opts::new(
                "sluice_kafka_round_trip_seconds",
                "How long brokers take to answer, at the slowest client.",
            ),
            &["client", "quantile"],
        )?,
        throttle_seconds: GaugeVec::new(
            Opts::new(
                "sluice_kafka_throttle_seconds",
                "Longest time brokers held an answer back because of a quota.",
            ),
            &["client"],
        )?,
        transmit_errors: counter(
            "sluice_kafka_transmit_errors_total",
            "Requests that could not be sent.",
        )?,
        transmit_retries: counter(
            "sluice_kafka_transmit_retries_total",
            "Requests sent again.",
        )?,
        lag_records: IntGaugeVec::new(
            Opts::new(
                "sluice_kafka_lag_records",
                "Records of a partition that a consumer has not read yet.",
            ),
            &["consumer", "topic", "partition"],
        )?,
    };
    registry.register(Box::new(metrics))
}

impl KafkaMetrics {
    fn families(&self) -> [&dyn Collector; 9] {
        [
            &self.brokers_connected,
            &self.waiting_messages,
            &self.waiting_bytes,
            &self.requests_in_flight,
            &self.round_trip_seconds,
            &self.throttle_seconds,
            &self.transmit_errors,
            &self.transmit_retries,
            &self.lag_records,
        ]
    }

    fn show(&self, role: &str, client: &Client) {
        let gauges = [
            (&self.brokers_connected, client.brokers_connected),
            (&self.waiting_messages, client.waiting_messages),
            (&self.waiting_bytes, client.waiting_bytes),
            (&self.requests_in_flight, client.requests_in_flight),
        ];
        for (gauge, value) in gauges {
            gauge.with_label_values(&[role]).set(value.cast_signed());
        }
        for (quantile, value) in [
            ("0.5", client.round_trip_p50_seconds),
            ("0.99", client.round_trip_p99_seconds),
        ] {
            let labels = &[role, quantile];
            self.round_trip_seconds.with_label_values(labels).set(value);
        }
        let throttle = self.throttle_seconds.with_label_values(&[role]);
        throttle.set(client.throttle_seconds);
        for (counter, total) in [
            (&self.transmit_errors, client.transmit_errors),
            (&self.transmit_retries, client.transmit_retries),
        ] {
            let counter = counter.with_label_values(&[role]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}

impl Collector for KafkaMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.families()
            .into_iter()
            .flat_map(Collector::desc)
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let statistics = self.kafka.statistics();
        self.show("producer", &statistics.producers);
        self.show("consumer", &statistics.consumers);
        // Partitions go to other members and come back.
        self.lag_records.reset();
        let plain = |name: &str| {
            let rest = name.strip_prefix(&self.prefix).unwrap_or(name);
            rest.trim_start_matches('.').to_owned()
        };
        for ((group, topic, partition), lag) in &statistics.lag {
            let labels = [plain(group), plain(topic), partition.to_string()];
            let lag_records = self.lag_records.with_label_values(&labels);
            lag_records.set(lag.cast_signed());
        }
        self.families()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}
