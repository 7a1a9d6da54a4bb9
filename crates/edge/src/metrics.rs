//! The edge's metrics. Labels are enums; every handle is resolved at start.

use domain::event::{Class, Decision, Reason};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Whether a newer catalog is refused. Registered twice, by what refuses it: the label `what` is `file` where the catalog's
/// file is followed and `snapshot` where its versions are.
pub const CATALOG_REFUSED: &str = "sluice_catalog_refused";
/// Its help, which must be the same for both.
pub const CATALOG_REFUSED_HELP: &str =
    "1 while a newer catalog is refused and the last good version goes on; the log says why.";

use hyper::StatusCode;

use crate::forwarded::UnreadAddresses;

/// What a path is, for a label.
#[derive(Clone, Copy)]
pub(crate) enum PathKind {
    Slug,
    Click,
    Postback,
    Other,
}

impl PathKind {
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

const PATHS: [&str; 4] = ["slug", "click", "postback", "other"];
const STATUSES: [u16; 14] = [
    200, 202, 302, 400, 403, 404, 405, 413, 414, 421, 422, 408, 500, 503,
];
const CLASSES: [&str; 6] = [
    "none",
    "browser",
    "non_browser",
    "bot",
    "head",
    "speculative",
];

const DECISIONS: [&str; 5] = ["none", "redirect", "fallback", "refuse", "speculative"];
/// Codes of reasons a click is decided for lie below this.
const REASONS: usize = 32;

/// One set for all workers of a process.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: Vec<IntCounter>,
    decisions: Vec<Option<IntCounter>>,
    pub(crate) catalog_version: IntGauge,
    pub(crate) catalog_refused: IntGauge,
    pub(crate) catalog_damaged: IntGauge,
    pub(crate) secrets_failing: IntGauge,
    recorded: IntCounter,
    unrecorded: IntCounter,
    pub(crate) seconds: Histogram,
    pub(crate) active: IntGauge,
    pub(crate) idle: IntGauge,
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
        let seconds = Histogram::with_opts(
            HistogramOpts::new(
                "sluice_edge_request_duration_seconds",
                "From having a request's head to having its answer.",
            )
            .buckets(prometheus::exponential_buckets(1e-6, 2.0, 18)?),
        )?;
        let connections = IntGaugeVec::new(
            Opts::new(
                "sluice_edge_connections",
                "Connections that are open, by state: idle ones wait for a request, or are still in the TLS handshake, and hold none of HTTP's buffers.",
            ),
            &["state"],
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
        registry.register(Box::new(decided.clone()))?;
        registry.register(Box::new(catalog_version.clone()))?;
        let catalog_damaged = IntGauge::new(
            "sluice_catalog_damaged",
            "Whether the catalog version that clicks are decided by is damaged.",
        )?;
        registry.register(Box::new(catalog_damaged.clone()))?;
        let catalog_refused = IntGauge::with_opts(
            Opts::new(CATALOG_REFUSED, CATALOG_REFUSED_HELP).const_label("what", "snapshot"),
        )?;
        registry.register(Box::new(catalog_refused.clone()))?;
        let secrets_failing = IntGauge::new(
            "sluice_edge_secrets_failing",
            "Advertisers whose secrets cannot all be read; their postbacks are answered with 503.",
        )?;
        registry.register(Box::new(secrets_failing.clone()))?;
        let mut decisions = Vec::new();
        for decision in DECISIONS {
            for code in 0..REASONS {
                let reason = i32::try_from(code)
                    .ok()
                    .and_then(|code| Reason::try_from(code).ok());
                decisions.push(
                    reason.map(|reason| decided.with_label_values(&[decision, &reason.name()])),
                );
            }
        }
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(answered.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        let mut handles = Vec::new();
        for path in PATHS {
            for status in STATUSES {
                for class in CLASSES {
                    handles.push(requests.with_label_values(&[path, &status.to_string(), class]));
                }
            }
        }
        Ok(Self {
            requests: handles,
            decisions,
            catalog_version,
            catalog_damaged,
            catalog_refused,
            secrets_failing,
            recorded: answered.with_label_values(&["recorded"]),
            unrecorded: answered.with_label_values(&["unrecorded"]),
            seconds,
            active: connections.with_label_values(&["active"]),
            idle: connections.with_label_values(&["idle"]),
            unread_addresses: UnreadAddresses::new(registry)?,
        })
    }

    pub(crate) fn answered(&self, path: PathKind, status: StatusCode, class: Class) {
        let status = STATUSES
            .iter()
            .position(|known| *known == status.as_u16())
            .expect("every answer's status is listed");
        let class = usize::try_from(class as i32).unwrap_or(0);
        self.requests[(path as usize * STATUSES.len() + status) * CLASSES.len() + class].inc();
    }

    pub(crate) fn decided(&self, decision: Decision, reason: Reason) {
        let at = decision as usize * REASONS + reason as usize;
        if let Some(Some(counter)) = self.decisions.get(at) {
            counter.inc();
        }
    }

    pub(crate) fn recorded(&self, taken: bool) {
        if taken {
            self.recorded.inc();
        } else {
            self.unrecorded.inc();
        }
    }
}
