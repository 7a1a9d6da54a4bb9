//! The edge's metrics. Labels are enums, and their tables are made from them; a handle is resolved at start, or once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use domain::event::{Class, Decision, Reason};
use hyper::StatusCode;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

use crate::forwarded::UnreadAddresses;

/// Whether a newer catalog is refused. Registered twice, by what refuses it: the label `what` is `file` where the catalog's
/// file is followed and `snapshot` where its versions are.
pub const CATALOG_REFUSED: &str = "sluice_catalog_refused";
/// Its help, which must be the same for both.
pub const CATALOG_REFUSED_HELP: &str =
    "1 while a newer catalog is refused and the last good version goes on; the log says why.";

/// What a path is, for a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathKind {
    Slug,
    Click,
    Postback,
    Other,
}

impl PathKind {
    const ALL: [Self; 4] = [Self::Slug, Self::Click, Self::Postback, Self::Other];

    fn label(self) -> &'static str {
        match self {
            Self::Slug => "slug",
            Self::Click => "click",
            Self::Postback => "postback",
            Self::Other => "other",
        }
    }

    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/c" => Self::Click,
            "/postback" => Self::Postback,
            path if is_reserved(path) => Self::Other,
            _ => Self::Slug,
        }
    }
}

/// Paths that are no slugs, now and for ever.
fn is_reserved(path: &str) -> bool {
    matches!(
        path,
        "/event" | "/pixel.gif" | "/s.js" | "/i.gif" | "/robots.txt" | "/favicon.ico"
    ) || path.starts_with("/.well-known/")
        || path.starts_with("/_/")
}

/// Statuses with a label of their own; any other one is `other`.
const STATUSES: [u16; 16] = [
    302, 200, 202, 400, 403, 404, 405, 408, 413, 414, 415, 421, 422, 431, 500, 503,
];
/// Numbers of the schema's enums lie below this: a table has a place for each.
const CODES: usize = 128;
/// Numbers of reasons a click is decided for lie below this: their counters are there from the start.
const CLICK_REASONS: usize = 32;

/// What a metric calls a value of the schema's enums.
fn label(name: &str, prefix: &str) -> String {
    match name.trim_start_matches(prefix) {
        "UNSPECIFIED" => "none".to_owned(),
        name => name.to_ascii_lowercase(),
    }
}

/// The values of one of the schema's enums.
fn values<E: TryFrom<i32>>() -> impl Iterator<Item = E> {
    (0..CODES).filter_map(|code| E::try_from(i32::try_from(code).ok()?).ok())
}

/// One set for all workers of a process.
#[derive(Clone)]
pub(crate) struct Metrics {
    /// By path, status and class.
    requests: Vec<IntCounter>,
    classes: usize,
    decided: IntCounterVec,
    /// By decision and reason.
    decisions: Vec<OnceLock<IntCounter>>,
    recorded: IntCounter,
    unrecorded: IntCounter,
    pub(crate) catalog_version: IntGauge,
    pub(crate) catalog_damaged: IntGauge,
    pub(crate) catalog_refused: IntGauge,
    pub(crate) catalog_age: Age,
    pub(crate) secrets_failing: IntGauge,
    pub(crate) secrets_age: Age,
    redirect_seconds: Histogram,
    postback_seconds: Histogram,
    pub(crate) active: IntGauge,
    pub(crate) idle: IntGauge,
    pub(crate) connections_max: IntGauge,
    pub(crate) evicted: IntCounter,
    pub(crate) unopened: IntGauge,
    clock_ahead: GaugeVec,
    pub(crate) unread_addresses: UnreadAddresses,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "sluice_edge_requests_total",
                "Requests answered, by kind of path, status and class.",
            ),
            &["path", "status", "class"],
        )?;
        let answered = IntCounterVec::new(
            Opts::new(
                "sluice_edge_answered_total",
                "Answers of this process that owe the journal a record, by whether it was taken.",
            ),
            &["outcome"],
        )?;
        let redirect_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "sluice_edge_request_duration_seconds",
                "From having a click's head to having its answer.",
            )
            // From a microsecond to half a second: decided from memory, some ten microseconds are usual.
            .buckets(prometheus::exponential_buckets(1e-6, 2.0, 20)?),
        )?;
        let postback_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "sluice_edge_postback_duration_seconds",
                "From having a postback's head to having its answer, which waits for the body and for the disk.",
            )
            .buckets(prometheus::exponential_buckets(1e-3, 2.0, 15)?),
        )?;
        let connections = IntGaugeVec::new(
            Opts::new(
                "sluice_edge_connections",
                "Connections that are open, by state: idle ones wait for a request, or are still in the TLS handshake, and hold none of HTTP's buffers.",
            ),
            &["state"],
        )?;
        let connections_max = IntGauge::new(
            "sluice_edge_connections_max",
            "Connections that all workers together may hold.",
        )?;
        let evicted = IntCounter::new(
            "sluice_edge_connections_evicted_total",
            "Connections closed at the bound, silent longest, so that others are answered.",
        )?;
        let unopened = IntGauge::new(
            "sluice_edge_workers_without_journal",
            "Workers whose journal cannot be opened: their clicks are not recorded; the log says why, and they try again.",
        )?;
        let decided = IntCounterVec::new(
            Opts::new(
                "sluice_edge_decisions_total",
                "Clicks by what was decided and why; requests that name nothing known included.",
            ),
            &["decision", "reason"],
        )?;
        let catalog_version = IntGauge::new(
            "sluice_catalog_version",
            "The catalog version that clicks are decided by.",
        )?;
        let catalog_damaged = IntGauge::new(
            "sluice_catalog_damaged",
            "Whether the catalog version that clicks are decided by is damaged.",
        )?;
        let catalog_refused = IntGauge::with_opts(
            Opts::new(CATALOG_REFUSED, CATALOG_REFUSED_HELP).const_label("what", "snapshot"),
        )?;
        let catalog_age = Age::new(
            "sluice_catalog_age_seconds",
            "Since the edge last looked for a newer catalog: it looks several times a second.",
        )?;
        let secrets_failing = IntGauge::new(
            "sluice_edge_secrets_failing",
            "Advertisers whose secrets cannot all be read; their postbacks are answered with 503.",
        )?;
        let secrets_age = Age::new(
            "sluice_edge_secrets_age_seconds",
            "Since the edge last looked for changed secrets: it looks every two seconds.",
        )?;
        let clock_ahead = GaugeVec::new(
            Opts::new(
                "sluice_edge_clock_ahead_seconds",
                "How far a worker's events are ahead of the machine's clock, because it was set back.",
            ),
            &["worker"],
        )?;
        let collectors: [Box<dyn Collector>; 16] = [
            Box::new(unopened.clone()),
            Box::new(requests.clone()),
            Box::new(answered.clone()),
            Box::new(redirect_seconds.clone()),
            Box::new(postback_seconds.clone()),
            Box::new(connections.clone()),
            Box::new(connections_max.clone()),
            Box::new(evicted.clone()),
            Box::new(decided.clone()),
            Box::new(catalog_version.clone()),
            Box::new(catalog_damaged.clone()),
            Box::new(catalog_refused.clone()),
            Box::new(catalog_age.clone()),
            Box::new(secrets_failing.clone()),
            Box::new(secrets_age.clone()),
            Box::new(clock_ahead.clone()),
        ];
        for collector in collectors {
            registry.register(collector)?;
        }

        let classes = values::<Class>().map(|class| class as usize).max();
        let classes = classes.map_or(0, |highest| highest + 1);
        let mut handles = Vec::new();
        for path in PathKind::ALL {
            let statuses = STATUSES.iter().map(ToString::to_string);
            for status in statuses.chain(["other".to_owned()]) {
                for code in 0..classes {
                    let class = i32::try_from(code)
                        .ok()
                        .and_then(|code| Class::try_from(code).ok());
                    let class = class.unwrap_or_default();
                    let class = label(class.as_str_name(), "CLASS_");
                    handles.push(requests.with_label_values(&[path.label(), &status, &class]));
                }
            }
        }
        let decisions = values::<Decision>().map(|decision| decision as usize).max();
        let places = decisions.map_or(0, |highest| highest + 1) * CODES;
        let metrics = Self {
            requests: handles,
            classes,
            decided,
            decisions: vec![OnceLock::new(); places],
            recorded: answered.with_label_values(&["recorded"]),
            unrecorded: answered.with_label_values(&["unrecorded"]),
            catalog_version,
            catalog_damaged,
            catalog_refused,
            catalog_age,
            secrets_failing,
            secrets_age,
            redirect_seconds,
            postback_seconds,
            active: connections.with_label_values(&["active"]),
            idle: connections.with_label_values(&["idle"]),
            connections_max,
            evicted,
            unopened,
            clock_ahead,
            unread_addresses: UnreadAddresses::new(registry)?,
        };
        for decision in values::<Decision>() {
            for reason in values::<Reason>().filter(|reason| (*reason as usize) < CLICK_REASONS) {
                metrics.decision(decision, reason);
            }
        }
        Ok(metrics)
    }

    /// A request was answered so many seconds after its head was there.
    pub(crate) fn answered(&self, path: PathKind, status: StatusCode, class: Class, seconds: f64) {
        match path {
            PathKind::Slug | PathKind::Click => self.redirect_seconds.observe(seconds),
            PathKind::Postback => self.postback_seconds.observe(seconds),
            PathKind::Other => {}
        }
        self.count(path, status.as_u16(), class);
    }

    /// A request was refused before it had a path.
    pub(crate) fn refused(&self, status: StatusCode) {
        self.count(PathKind::Other, status.as_u16(), Class::Unspecified);
    }

    fn count(&self, path: PathKind, status: u16, class: Class) {
        let place = STATUSES.iter().position(|known| *known == status);
        let place = place.unwrap_or(STATUSES.len());
        let row = path as usize * (STATUSES.len() + 1) + place;
        self.requests[row * self.classes + class as usize].inc();
    }

    pub(crate) fn decided(&self, decision: Decision, reason: Reason) {
        self.decision(decision, reason).inc();
    }

    fn decision(&self, decision: Decision, reason: Reason) -> &IntCounter {
        self.decisions[decision as usize * CODES + reason as usize].get_or_init(|| {
            let decision = label(decision.as_str_name(), "DECISION_");
            self.decided.with_label_values(&[&decision, &reason.name()])
        })
    }

    pub(crate) fn recorded(&self, taken: bool) {
        if taken {
            self.recorded.inc();
        } else {
            self.unrecorded.inc();
        }
    }

    /// How far a worker's events are ahead of the clock.
    pub(crate) fn clock_ahead(&self, worker: usize) -> Gauge {
        self.clock_ahead.with_label_values(&[worker.to_string()])
    }
}

/// How long ago something was done last, found out when it is scraped.
#[derive(Clone)]
pub(crate) struct Age {
    gauge: Gauge,
    started: Instant,
    /// Milliseconds after the start.
    done_ms: Arc<AtomicU64>,
}

impl Age {
    fn new(name: &str, help: &str) -> Result<Self, prometheus::Error> {
        Ok(Self {
            gauge: Gauge::new(name, help)?,
            started: Instant::now(),
            done_ms: Arc::default(),
        })
    }

    /// It was done just now.
    pub(crate) fn done(&self) {
        self.done_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Collector for Age {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let age_ms = self
            .elapsed_ms()
            .saturating_sub(self.done_ms.load(Ordering::Relaxed));
        self.gauge.set(age_ms as f64 / 1000.0);
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of an enum, also where its numbers end far beyond those of today.
    fn every<E: TryFrom<i32>>() -> Vec<E> {
        (0..10_000)
            .filter_map(|code| E::try_from(code).ok())
            .collect()
    }

    #[test]
    fn no_value_of_an_enum_counts_as_another_one() {
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let mut cells = 0;
        for decision in every::<Decision>() {
            for reason in every::<Reason>() {
                let counter = metrics.decision(decision, reason);
                assert_eq!(counter.get(), 0, "{decision:?} {reason:?}");
                metrics.decided(decision, reason);
                cells += 1;
            }
        }
        for path in PathKind::ALL {
            for status in 100..600 {
                for class in every::<Class>() {
                    let status = StatusCode::from_u16(status).unwrap();
                    metrics.answered(path, status, class, 0.0);
                    cells += 1;
                }
            }
        }
        let sum = |counter: &IntCounterVec| -> u64 {
            let families = counter.collect();
            let metrics = families.iter().flat_map(MetricFamily::get_metric);
            metrics
                .map(|metric| metric.get_counter().get_value() as u64)
                .sum()
        };
        let requests: u64 = metrics.requests.iter().map(IntCounter::get).sum();
        assert_eq!(sum(&metrics.decided) + requests, cells);
        let head = label(Class::Head.as_str_name(), "CLASS_");
        assert_eq!(head, "head");
        let text = prometheus::TextEncoder::new().encode_to_string(&metrics.decided.collect());
        let line = "sluice_edge_decisions_total{decision=\"refuse\",reason=\"unknown_host\"} 1";
        assert!(text.unwrap().contains(line));
    }

    #[test]
    fn a_postback_that_waits_for_the_disk_is_no_slow_redirect() {
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let answer =
            |path, seconds| metrics.answered(path, StatusCode::OK, Class::Browser, seconds);
        answer(PathKind::Postback, 5.0);
        answer(PathKind::Slug, 0.00001);
        answer(PathKind::Other, 1.0);
        assert_eq!(metrics.redirect_seconds.get_sample_count(), 1);
        assert_eq!(metrics.redirect_seconds.get_sample_sum(), 0.00001);
        assert_eq!(metrics.postback_seconds.get_sample_count(), 1);
    }
}
