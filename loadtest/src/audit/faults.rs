//! What happens to the system under audit.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use testkit::wait;

use super::clock::STEP_S;
use super::cluster::{Cluster, Part};
use super::mounts::Disk;
use super::proxy::Network;

/// How long a full disk or a refused batch may go unseen: a ring takes clicks for some seconds.
const NOTICED_MAX: Duration = Duration::from_secs(20);

/// Some clicks and their sub ids.
const BATCH_BYTES_MAX: u32 = 4096;

/// What a courier says of a batch that is.
const TOO_LARGE: &str = "too large";

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
    /// A disk is full until those who write there have noticed; one of them may be killed and must come back on it.
    Fill(Disk, Option<Part>),
    /// Nobody reaches the broker.
    Network(Network, Duration),
    /// The broker refuses what many clicks make together, and takes each of them.
    RefuseBatches,
    /// Every topic gets twice as many partitions while edges go on.
    Grow,
    /// The wall clock steps by this, then to as much on the other side, then back; each lasts so long.
    StepClock(i64, Duration),
}

/// How often a kind comes, and what it is.
type Kind = (u32, fn(&mut fastrand::Rng) -> What);

/// Kinds that can happen wherever a broker runs.
const KINDS: [Kind; 12] = [
    (8, |random| What::Kill(part(random))),
    (3, |random| What::Restart(part(random))),
    (4, |random| What::Pause(part(random), short(random))),
    (2, |random| What::Workers(random.u32(1..5))),
    (3, |random| What::KillBroker(short(random))),
    (2, |random| What::PauseBroker(short(random) * 2)),
    (2, |_| What::KillEdgeAndCourier),
    (2, |_| What::SecondCourier),
    (2, |random| What::Network(Network::Cut, short(random) * 2)),
    (2, |random| {
        What::Network(Network::Silent, short(random) * 2)
    }),
    (1, |_| What::RefuseBatches),
    // Once a run: it takes half a minute until the groups have forgotten their members.
    (0, |_| What::Grow),
];

/// Kinds that need disks of their own.
const DISK_KINDS: [Kind; 4] = [
    (1, |random| {
        fill(random, Disk::Journals, &[Part::Edge, Part::Courier])
    }),
    (1, |random| fill(random, Disk::Cursors, &[Part::Courier])),
    (1, |random| {
        fill(random, Disk::DeadLetters, &[Part::Courier])
    }),
    (1, |random| {
        let writers = [Part::Fraud, Part::Clicks, Part::Conversions];
        fill(random, Disk::Store, &writers)
    }),
];

/// Kinds that need a clock that can be made to step.
const CLOCK_KINDS: [Kind; 1] = [(2, |random| {
    let step = if random.bool() { STEP_S } else { -STEP_S };
    // Parts that end when the clock is set back look once a second.
    What::StepClock(step, short(random) + Duration::from_millis(1_500))
})];

/// What can be filled or stepped here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Possible {
    pub(super) disks: bool,
    pub(super) clock: bool,
}

/// One fault of every kind that is possible here, then random ones, all in a random order.
pub(super) fn plan(random: &mut fastrand::Rng, count: u32, possible: Possible) -> Vec<Fault> {
    let mut kinds = KINDS.to_vec();
    if possible.disks {
        kinds.extend(DISK_KINDS);
    }
    if possible.clock {
        kinds.extend(CLOCK_KINDS);
    }
    let weights: u32 = kinds.iter().map(|(weight, _)| weight).sum();
    let mut first = kinds.clone();
    random.shuffle(&mut first);
    let mut first = first.into_iter();
    let faults = (0..count).map(|_| {
        let (_, make) = first.next().unwrap_or_else(|| {
            let mut at = random.u32(..weights);
            let mut chosen = kinds.iter();
            loop {
                let kind = chosen.next().expect("the weights are of these kinds");
                match at.checked_sub(kind.0) {
                    Some(rest) => at = rest,
                    None => break *kind,
                }
            }
        });
        Fault {
            what: make(random),
            then: Duration::from_millis(random.u64(50..900)),
        }
    });
    faults.collect()
}

fn part(random: &mut fastrand::Rng) -> Part {
    Part::ALL[random.usize(..Part::ALL.len())]
}

fn short(random: &mut fastrand::Rng) -> Duration {
    Duration::from_millis(random.u64(100..1_500))
}

fn fill(random: &mut fastrand::Rng, disk: Disk, writers: &[Part]) -> What {
    let killed = random
        .bool()
        .then(|| writers[random.usize(..writers.len())]);
    What::Fill(disk, killed)
}

impl Fault {
    /// Whether the edge may be unable to record meanwhile.
    pub(super) fn fills_journals(&self) -> bool {
        matches!(self.what, What::Fill(Disk::Journals, _))
    }

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
                let brokers = cluster.brokers.clone();
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
            What::Fill(disk, killed) => full(cluster, disk, killed)?,
            What::Network(network, away) => {
                cluster.network.set(network);
                wait::pass(away);
                cluster.network.set(Network::Open);
            }
            What::RefuseBatches => refuse_batches(cluster)?,
            What::Grow => cluster.grow()?,
            What::StepClock(step, held) => {
                for seconds in [step, -step, 0] {
                    if let Some(clock) = &cluster.clock {
                        clock.step_to(seconds)?;
                        wait::pass(held);
                        cluster.keep_up();
                    }
                }
            }
        }
        cluster.keep_up();
        wait::pass(self.then);
        cluster.keep_alive();
        cluster.check_books();
        Ok(())
    }
}

fn kill(cluster: &mut Cluster, part: Part) {
    if let Some(running) = cluster.of(part) {
        running.kill9();
    }
}

/// Those who write on a full disk must say so, and go on when there is room again. A cursor's file has all its room from
/// the beginning, and no letter is dead: there nobody may notice.
fn full(cluster: &mut Cluster, disk: Disk, killed: Option<Part>) -> Result<(), Box<dyn Error>> {
    cluster.all_up()?;
    let before = turned_away(cluster, disk);
    cluster.disks()?.fill(disk)?;
    let (bound, expected) = match disk {
        Disk::Cursors | Disk::DeadLetters => (Duration::from_secs(1), false),
        Disk::Journals | Disk::Store => (NOTICED_MAX, true),
    };
    let mut filled = Ok(());
    let noticed = wait::holds_within(bound, || {
        wait::pass(Duration::from_millis(100));
        // What somebody gave back meanwhile is taken too.
        filled = cluster
            .disks()
            .map_err(std::io::Error::other)
            .and_then(|disks| disks.fill(disk));
        turned_away(cluster, disk) > before
    });
    filled?;
    if let Some(part) = killed {
        kill(cluster, part);
        cluster.keep_up();
        wait::pass(Duration::from_secs(1));
    }
    cluster.disks()?.empty(disk)?;
    if noticed == expected {
        return Ok(());
    }
    Err(format!("{disk} is full, noticed within {bound:?}: {noticed}").into())
}

/// How often somebody was kept from writing on a disk, since the processes there now were started.
fn turned_away(cluster: &mut Cluster, disk: Disk) -> u64 {
    let writers: &[Part] = match disk {
        Disk::Journals => {
            let unrecorded = "sluice_edge_answered_total{outcome=\"unrecorded\"}";
            return cluster.metric(Part::Edge, unrecorded).unwrap_or(0);
        }
        Disk::Cursors | Disk::DeadLetters => &[Part::Courier],
        Disk::Store => &[Part::Fraud, Part::Clicks, Part::Conversions],
    };
    let said = writers
        .iter()
        .filter_map(|part| Some(cluster.of(*part)?.stderr()));
    said.map(|said| said.matches("stands still").count() as u64)
        .sum()
}

/// Lets clicks pile up before a courier, so that its next batches are larger than what the broker takes.
fn refuse_batches(cluster: &mut Cluster) -> Result<(), Box<dyn Error>> {
    cluster.all_up()?;
    cluster.limit_batches(Some(BATCH_BYTES_MAX))?;
    let mut tries = 0;
    let refused = wait::holds_within(NOTICED_MAX, || {
        tries += 1;
        let Some(courier) = cluster.of(Part::Courier) else {
            return false;
        };
        courier.pause();
        wait::pass(Duration::from_millis(500 * tries));
        courier.resume();
        wait::pass(Duration::from_millis(500));
        courier.stderr().contains(TOO_LARGE)
    });
    cluster.limit_batches(None)?;
    if refused {
        return Ok(());
    }
    Err("the broker refused no batch".into())
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
            What::Fill(disk, None) => write!(f, "{disk} full"),
            What::Fill(disk, Some(part)) => write!(f, "{disk} full, {} killed on it", part.name()),
            What::Network(Network::Silent, away) => write!(f, "broker unheard for {away:?}"),
            What::Network(_, away) => write!(f, "broker cut off for {away:?}"),
            What::Grow => f.write_str("topics grown to twice the partitions"),
            What::RefuseBatches => f.write_str("batches refused by their size"),
            What::StepClock(step, held) => {
                write!(
                    f,
                    "clock {:+} h and {:+} h for {held:?} each",
                    step / 3600,
                    -step / 3600
                )
            }
        }
    }
}
