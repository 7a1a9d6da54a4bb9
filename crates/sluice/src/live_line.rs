//! Live lines, in a terminal only.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use service::{Metrics, Shutdown};

/// How often the line changes: often enough to look alive.
const EVERY: Duration = Duration::from_millis(500);

/// How far work is that takes long.
pub(crate) fn progress(records: u64, what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{msg} {wide_bar} {human_pos}/{human_len} records  {per_sec}  {eta} left",
    );
    ProgressBar::new(records)
        .with_style(style.expect("the template is valid"))
        .with_message(what)
}

/// Does work of several steps, each counted in its own way, and shows how far it is.
pub(crate) fn with_bar<T>(work: impl FnOnce(catalog::Progress<'_>) -> T) -> T {
    let bar = if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} %  {eta} left");
        ProgressBar::new(0).with_style(style.expect("the template is valid"))
    } else {
        ProgressBar::hidden()
    };
    let done = work(&|what, done, of| {
        bar.set_message(what);
        bar.set_length(of);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    done
}

/// Shows one line of counters until shutdown.
pub(crate) fn show(metrics: &Metrics, shutdown: &Shutdown) {
    if !std::io::stderr().is_terminal() {
        while !shutdown.wait_timeout(Duration::from_secs(1)) {}
        return;
    }
    let bar = ProgressBar::new_spinner();
    let mut last = 0;
    while !shutdown.wait_timeout(EVERY) {
        let recorded = sum(
            metrics,
            "sluice_edge_answered_total",
            ("outcome", "recorded"),
        );
        let folded = sum(
            metrics,
            "sluice_consumer_events_total",
            ("outcome", "folded"),
        );
        let delivered = sum(metrics, "sluice_journal_delivered_total", ("", ""));
        let rate = (recorded - last) as f64 / EVERY.as_secs_f64();
        last = recorded;
        bar.set_message(format!(
            "{recorded} recorded  {delivered} delivered  {folded} folded  {rate:.0}/s"
        ));
        bar.tick();
    }
    bar.finish_and_clear();
}

fn sum(metrics: &Metrics, name: &str, label: (&str, &str)) -> u64 {
    let families = metrics.registry().gather();
    let family = families.iter().filter(|family| family.name() == name);
    let has = |metric: &&prometheus::proto::Metric| {
        label.0.is_empty()
            || metric
                .get_label()
                .iter()
                .any(|pair| pair.name() == label.0 && pair.value() == label.1)
    };
    family
        .flat_map(prometheus::proto::MetricFamily::get_metric)
        .filter(has)
        .map(|metric| metric.get_counter().get_value() as u64)
        .sum()
}
