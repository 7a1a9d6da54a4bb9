//! What happens to the system under audit.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use testkit::wait;

use super::cluster::{Cluster, Part};

/// One fault, and how long the system is left alone after it.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    what: What,
    then: Duration,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Killed without warning and started again.
    Kill(Part),
    /// Asked to end and started again.
    Restart(Part),
    /// Stands still for so long, and goes on.
    Pause(Part, Duration),
    /// The edge comes back with another number of workers.
    Workers(u32),
    KillBroker(Duration),
    PauseBroker(Duration),
    /// Edge and courier at once: what the ring held is nobody's until one is back.
    KillEdgeAndCourier,
    /// A second courier on the same journals must not start.
    SecondCourier,
}

/// Faults of every kind, in a random order.
pub(super) fn plan(random: &mut fastrand::Rng, count: u32) -> Vec<Fault> {
    let faults = (0..count).map(|_| {
        let part = Part::ALL[random.usize(..Part::ALL.len())];
        let short = Duration::from_millis(random.u64(100..1_500));
        let what = match random.u32(..16) {
            0..5 => What::Kill(part),
            5..7 => What::Restart(part),
            7..10 => What::Pause(part, short),
            10 => What::Workers(random.u32(1..5)),
            11..13 => What::KillBroker(short),
            13 => What::PauseBroker(short * 2),
            14 => What::KillEdgeAndCourier,
            _ => What::SecondCourier,
        };
        Fault {
            what,
            then: Duration::from_millis(random.u64(50..900)),
        }
    });
    faults.collect()
}

impl Fault {
    pub(super) fn happen(&self, cluster: &mut Cluster) -> Result<(), Box<dyn Error>> {
        match self.what {
            What::Kill(part) => kill(cluster, part),
            What::Restart(part) => {
                if let Some(running) = cluster.of(part) {
                    running
                        .terminate(Duration::from_secs(60))
                        .ok_or_else(|| format!("{} does not end", part.name()))?;
                }
            }
            What::Pause(part, away) => {
                if let Some(running) = cluster.of(part) {
                    running.pause();
                    wait::pass(away);
                    running.resume();
                }
            }
            What::Workers(workers) => {
                cluster.workers = workers;
                kill(cluster, Part::Edge);
            }
            What::KillBroker(away) => {
                cluster.broker.kill9();
                wait::pass(away);
                cluster.broker.restart();
            }
            What::PauseBroker(away) => {
                if let Some(running) = cluster.broker.running() {
                    running.pause();
                    wait::pass(away);
                    running.resume();
                }
            }
            What::KillEdgeAndCourier => {
                kill(cluster, Part::Edge);
                kill(cluster, Part::Courier);
            }
            What::SecondCourier => {
                let data = cluster.data();
                let brokers = cluster.broker.address();
                let second = cluster.sluice(&[
                    "courier",
                    "--kafka",
                    &brokers,
                    "--admin",
                    "127.0.0.1:0",
                    "--data",
                    data.to_str().ok_or("the folder's name is not text")?,
                ]);
                let refused = second.is_err_and(|said| said.contains("in use by process"));
                // Where the first is just being started again, the second may be the one that runs: none of both is lost.
                if !refused
                    && cluster
                        .of(Part::Courier)
                        .is_some_and(|first| first.ended().is_none())
                {
                    return Err("a second courier was let in".into());
                }
            }
        }
        cluster.keep_up();
        wait::pass(self.then);
        cluster.keep_up();
        Ok(())
    }
}

fn kill(cluster: &mut Cluster, part: Part) {
    if let Some(running) = cluster.of(part) {
        running.kill9();
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Kill(part) => write!(f, "{} killed", part.name()),
            What::Restart(part) => write!(f, "{} restarted", part.name()),
            What::Pause(part, away) => write!(f, "{} paused for {away:?}", part.name()),
            What::Workers(workers) => write!(f, "edge killed, back with {workers} workers"),
            What::KillBroker(away) => write!(f, "broker killed for {away:?}"),
            What::PauseBroker(away) => write!(f, "broker paused for {away:?}"),
            What::KillEdgeAndCourier => f.write_str("edge and courier killed"),
            What::SecondCourier => f.write_str("a second courier refused"),
        }
    }
}
