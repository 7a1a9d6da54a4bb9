//! The consumers' threads.

use std::thread::JoinHandle;
use std::time::Duration;

use consumer::{Handler, Stored};
use prometheus::{IntCounterVec, Opts};
use service::{Health, Shutdown};
use stream::Embedded;
use stream::consumer::{Options, Progress};

/// What every consumer thread needs.
#[derive(Clone)]
pub(crate) struct Around {
    pub(crate) stream: Embedded,
    pub(crate) events: IntCounterVec,
    pub(crate) health: Health,
    /// The whole process, stopped when a consumer cannot go on.
    pub(crate) process: Shutdown,
    pub(crate) records_max: usize,
}

/// Counts of every consumer, by outcome.
pub(crate) fn events(registry: &prometheus::Registry) -> Result<IntCounterVec, prometheus::Error> {
    let events = IntCounterVec::new(
        Opts::new(
            "sluice_consumer_events_total",
            "Records read by a consumer, by what became of them.",
        ),
        &["consumer", "outcome"],
    )?;
    registry.register(Box::new(events.clone()))?;
    Ok(events)
}

/// Starts one consumer on one topic. It ends when `stop` is requested and what is there is folded.
pub(crate) fn start<H: Handler + Send + 'static>(
    around: &Around,
    name: &'static str,
    topic: &str,
    mut stored: Stored<H>,
    stop: Shutdown,
) -> Result<JoinHandle<Result<(), String>>, String> {
    let mut receiver = around
        .stream
        .receiver(topic)
        .map_err(|error| error.to_string())?;
    let Around {
        stream,
        events,
        health,
        process,
        records_max,
    } = around.clone();
    let run = move || {
        let mut senders = || Ok(stream.sender());
        let options = Options {
            records_max,
            idle_wait: Duration::from_millis(20),
            ..Options::default()
        };
        let count = |outcome: &str, by: u64| events.with_label_values(&[name, outcome]).inc_by(by);
        let mut observe = |progress: &Progress| {
            health.beat(name);
            if let Progress::Folded {
                folded,
                tombstones,
                repeats,
                conflicts,
                early,
                ..
            } = progress
            {
                for (outcome, by) in [
                    ("folded", folded),
                    ("tombstone", tombstones),
                    ("repeat", repeats),
                    ("conflict", conflicts),
                    ("early", early),
                ] {
                    count(outcome, *by);
                }
            }
        };
        let done = stream::consumer::run(
            &mut *receiver,
            Some(&mut senders),
            &mut stored,
            &options,
            &|| stop.requested(),
            &mut observe,
        );
        health.ended(name);
        done.map_err(|error| {
            tracing::error!(consumer = name, %error, "consumer stopped: nothing is lost, it goes on where it stopped");
            process.request();
            format!("{name}: {error}")
        })
    };
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(|error| format!("{name}: {error}"))
}
