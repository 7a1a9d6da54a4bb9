//! What happens to the system under audit.

use std::error::Error;
use std::fmt;
use std::process::Command;
use std::time::Duration;

use testkit::wait;

use super::clock::STEP_S;
use super::cluster::{Cluster, Flipped, Kept, MACHINES, Machine, POLL_MS, Part, SESSION_MS};
use super::mounts::Disk;
use super::proxy::Network;

/// How long a full disk or a refused batch may go unseen: a ring takes clicks for some seconds.
const NOTICED_MAX: Duration = Duration::from_secs(40);

/// What an edge gets to start, on a machine with much else to do.
const START_MAX: Duration = Duration::from_secs(4);

/// How long an edge may be dark that nothing happens to: a machine that is busy starting other processes holds it up.
const DARK_MAX: Duration = Duration::from_secs(1);

/// What a sync takes on a slow disk, in milliseconds.
const SLOW_MS: u32 = 200;

const NO_SYNCS: &str = "no syncs that can be made to fail";

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
    /// An edge comes back with another number of workers.
    Workers(Machine, u32),
    KillBroker(Duration),
    PauseBroker(Duration),
    /// Edge and courier of a machine at once: what the ring held is nobody's until one is back.
    KillEdgeAndCourier(Machine),
    /// A second process of a part must not start beside the first.
    Second(Part),
    /// A consumer of another store must not join the groups of the one that runs.
    OtherStore(Part),
    /// What was written in the last seconds is gone.
    RollBack(Kept),
    /// A copy of a machine's data folder has a courier beside the machine's own.
    Copy,
    /// A disk is full until those who write there have noticed; one of them may be killed and must come back on it.
    Fill(Disk, Option<Part>),
    /// Nobody reaches the broker.
    Network(Network, Duration),
    /// A disk stands still for so long.
    Freeze(Disk, Duration),
    /// The journals' disk can have no more files, and the edge that writes there comes back on it.
    NoInodes,
    /// So many of a part's next syncs fail.
    SyncsFail(Part, u32),
    /// Each sync of a part takes long, for so long.
    SlowSyncs(Part, Duration),
    /// A part can open nothing more, for so long.
    NoDescriptors(Part, Duration),
    /// A bit of what a courier reads is flipped.
    Flip(Flipped, u64),
    /// The broker refuses what many clicks make together, and takes each of them.
    RefuseBatches,
    /// Every topic gets twice as many partitions while edges go on.
    Grow,
    /// The wall clocks of some machines step by this, then to as much on the other side, then back; each lasts so long.
    StepClock(&'static [Machine], i64, Duration),
}

/// How often a kind comes, and what it is.
type Kind = (u32, fn(&mut fastrand::Rng) -> What);

/// Kinds that can happen wherever a broker runs.
const KINDS: [Kind; 20] = [
    (8, |random| What::Kill(part(random))),
    (3, |random| What::Restart(part(random))),
    (4, |random| What::Pause(part(random), short(random))),
    // The group has given the partitions away when it goes on.
    (1, |random| {
        What::Pause(consumer(random), beyond(SESSION_MS))
    }),
    (1, |random| What::Pause(consumer(random), beyond(POLL_MS))),
    (2, |random| {
        What::NoDescriptors(part(random), short(random) * 2)
    }),
    (2, |random| {
        let flipped = [Flipped::Cursor, Flipped::Header][random.usize(..2)];
        What::Flip(flipped, random.u64(..))
    }),
    (2, |random| What::Workers(machine(random), random.u32(2..4))),
    (3, |random| What::KillBroker(short(random))),
    (2, |random| What::PauseBroker(short(random) * 2)),
    (2, |random| What::KillEdgeAndCourier(machine(random))),
    (1, |random| What::Second(second(random))),
    (1, |random| What::OtherStore(consumer(random))),
    (1, |random| What::RollBack(Kept::Cursors(machine(random)))),
    (1, |_| What::RollBack(Kept::Store)),
    (1, |_| What::Copy),
    (2, |random| What::Network(Network::Cut, short(random) * 2)),
    (2, |random| {
        What::Network(Network::Silent, short(random) * 2)
    }),
    (1, |_| What::RefuseBatches),
    // Once a run: partitions are never fewer again.
    (0, |_| What::Grow),
];

/// Kinds that need disks of their own.
const DISK_KINDS: [Kind; 6] = [
    (2, |random| {
        let disk = [Disk::Journals, Disk::Store][random.usize(..2)];
        What::Freeze(disk, short(random) * 3)
    }),
    (1, |_| What::NoInodes),
    (1, |random| {
        let writers = [Part::Edge(0), Part::Courier(0)];
        fill(random, Disk::Journals, &writers)
    }),
    (1, |random| fill(random, Disk::Cursors, &[Part::Courier(0)])),
    (1, |random| {
        fill(random, Disk::DeadLetters, &[Part::Courier(0)])
    }),
    (1, |random| fill(random, Disk::Store, &Part::CONSUMERS)),
];

/// Kinds that need clocks that can be made to step.
const CLOCK_KINDS: [Kind; 1] = [(2, |random| {
    let step = if random.bool() { STEP_S } else { -STEP_S };
    // One machine's alone as often as both: events then come from another time than those who fold them.
    let whose: [&[Machine]; 4] = [&[0], &[1], &MACHINES, &MACHINES];
    // Parts that end when the clock is set back look once a second.
    let held = short(random) + Duration::from_millis(1_500);
    What::StepClock(whose[random.usize(..whose.len())], step, held)
})];

/// Kinds that need syncs that can be made to fail.
const SYNC_KINDS: [Kind; 2] = [
    (3, |random| What::SyncsFail(part(random), random.u32(1..4))),
    (2, |random| What::SlowSyncs(part(random), short(random) * 3)),
];

/// What can be filled, stepped or made to fail here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Possible {
    pub(super) disks: bool,
    pub(super) clock: bool,
    pub(super) syncs: bool,
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
    if possible.syncs {
        kinds.extend(SYNC_KINDS);
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

fn consumer(random: &mut fastrand::Rng) -> Part {
    Part::CONSUMERS[random.usize(..Part::CONSUMERS.len())]
}

/// Whoever writes what only one may write.
fn second(random: &mut fastrand::Rng) -> Part {
    Part::ALL[random.usize(2..Part::ALL.len())]
}

fn machine(random: &mut fastrand::Rng) -> Machine {
    random.usize(..MACHINES.len())
}

fn is_long(away: Duration) -> bool {
    away > Duration::from_millis(SESSION_MS.into())
}

fn beyond(bound_ms: u32) -> Duration {
    Duration::from_millis(u64::from(bound_ms) * 5 / 4)
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
    /// Whether an edge may be unable to record meanwhile.
    pub(super) fn fills_journals(&self) -> bool {
        matches!(self.what, What::Fill(Disk::Journals, _) | What::NoInodes)
    }

    /// Whether parts may end or stand still by themselves because of it: what waits by a clock that is set back ends or waits
    /// for long, and nothing starts on a full disk.
    pub(super) fn excuses(&self) -> bool {
        match self.what {
            What::StepClock(..) | What::Fill(_, Some(_)) | What::NoInodes => true,
            // One that is just starting refuses to.
            What::SyncsFail(part, _) => Part::CONSUMERS.contains(&part),
            _ => false,
        }
    }

    /// How long an edge may answer too few visits because of it.
    pub(super) fn dark_max(&self) -> Duration {
        let away = match self.what {
            What::Kill(Part::Edge(_))
            | What::Restart(Part::Edge(_))
            | What::Workers(..)
            | What::KillEdgeAndCourier(_)
            | What::NoInodes
            | What::Fill(_, Some(Part::Edge(_))) => START_MAX,
            What::Pause(Part::Edge(_), away) | What::NoDescriptors(Part::Edge(_), away) => away,
            _ => Duration::ZERO,
        };
        away + DARK_MAX
    }

    /// What it is called among others of its kind, in a table.
    pub(super) fn kind(&self) -> &'static str {
        let is_edge = |part| matches!(part, Part::Edge(_));
        match self.what {
            What::Kill(part) if is_edge(part) => "an edge killed",
            What::Kill(_) => "a courier or consumer killed",
            What::Restart(part) if is_edge(part) => "an edge restarted",
            What::Restart(_) => "a courier or consumer restarted",
            What::Pause(part, _) if is_edge(part) => "an edge paused",
            What::Pause(_, away) if is_long(away) => "a consumer paused beyond its session",
            What::Pause(..) => "a courier or consumer paused",
            What::Workers(..) => "an edge with other workers",
            What::KillBroker(_) => "the broker killed",
            What::PauseBroker(_) => "the broker paused",
            What::KillEdgeAndCourier(_) => "edge and courier killed",
            What::Second(_) => "a second process refused",
            What::OtherStore(_) => "another store's consumer refused",
            What::RollBack(Kept::Store) => "the store taken back",
            What::RollBack(_) => "cursors taken back",
            What::Copy => "a machine's data copied",
            What::Fill(Disk::Journals, _) => "the journals' disk full",
            What::Fill(Disk::Store, _) => "the store's disk full",
            What::Fill(..) => "a courier's disk full",
            What::Network(..) => "the broker out of reach",
            What::Freeze(..) => "a disk frozen",
            What::NoInodes => "the journals' disk out of inodes",
            What::SyncsFail(part, _) if is_edge(part) => "an edge's syncs failed",
            What::SyncsFail(..) => "a courier's or consumer's syncs failed",
            What::SlowSyncs(..) => "syncs slow",
            What::NoDescriptors(..) => "no descriptors",
            What::Flip(..) => "a bit flipped",
            What::RefuseBatches => "batches refused",
            What::Grow => "topics grown",
            What::StepClock(..) => "clocks stepped",
        }
    }

    pub(super) fn happen(&self, cluster: &mut Cluster) -> Result<(), Box<dyn Error>> {
        match self.what {
            What::Kill(part) => cluster.kill(part),
            What::Restart(part) => cluster.terminate(part)?,
            What::Pause(part, away) => {
                if let Some(running) = cluster.of(part) {
                    running.pause();
                    wait::pass(away / 2);
                }
                // Whoever stands still has let go of nothing: when it goes on, nobody must have gone on in its place.
                let refused = match is_long(away) {
                    true => cluster.refuses_a_second(part),
                    false => Ok(()),
                };
                if let Some(running) = cluster.of(part) {
                    wait::pass(away / 2);
                    running.resume();
                }
                refused?;
            }
            What::Workers(machine, workers) => {
                cluster.workers = workers;
                cluster.kill(Part::Edge(machine));
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
            What::KillEdgeAndCourier(machine) => {
                cluster.kill(Part::Edge(machine));
                cluster.kill(Part::Courier(machine));
            }
            What::Second(part) => cluster.refuses_a_second(part)?,
            What::OtherStore(part) => cluster.refuses_another_store(part)?,
            What::RollBack(kept) => cluster.roll_back(kept)?,
            What::Copy => cluster.copy_machine()?,
            What::Fill(disk, killed) => full(cluster, disk, killed)?,
            What::Network(network, away) => {
                cluster.network.set(network);
                wait::pass(away);
                cluster.network.set(Network::Open);
            }
            What::Freeze(disk, away) => {
                let disks = cluster.disks()?;
                disks.freeze(disk, true)?;
                wait::pass(away);
                disks.freeze(disk, false)?;
            }
            What::NoInodes => without_inodes(cluster)?,
            What::SyncsFail(part, failures) => syncs_fail(cluster, part, failures)?,
            What::SlowSyncs(part, held) => {
                let syncs = cluster.syncs.as_ref().ok_or(NO_SYNCS)?;
                syncs.set(part, 0, SLOW_MS)?;
                wait::pass(held);
                syncs.set(part, 0, 0)?;
            }
            What::NoDescriptors(part, held) => without_descriptors(cluster, part, held)?,
            What::Flip(flipped, random) => cluster.flip(flipped, random)?,
            What::RefuseBatches => refuse_batches(cluster)?,
            What::Grow => cluster.grow()?,
            What::StepClock(machines, step, held) => {
                for seconds in [step, -step, 0] {
                    let Some(clock) = &mut cluster.clock else {
                        break;
                    };
                    for machine in machines {
                        clock.step_to(*machine, seconds)?;
                    }
                    wait::pass(held);
                    cluster.keep_up();
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
        cluster.kill(part);
        cluster.keep_up();
        wait::pass(Duration::from_secs(1));
    }
    cluster.disks()?.empty(disk)?;
    if noticed == expected {
        return Ok(());
    }
    Err(format!("{disk} is full, noticed within {bound:?}: {noticed}").into())
}

/// The edge comes back where it can make no file, and opens its journals when it can.
fn without_inodes(cluster: &mut Cluster) -> Result<(), Box<dyn Error>> {
    cluster.all_up()?;
    cluster.disks()?.fill_inodes(Disk::Journals)?;
    cluster.kill(Part::Edge(0));
    cluster.keep_up();
    let noticed = wait::holds_within(NOTICED_MAX, || {
        wait::pass(Duration::from_millis(100));
        turned_away(cluster, Disk::Journals) > 0
    });
    cluster.disks()?.empty_inodes(Disk::Journals)?;
    match noticed {
        true => Ok(()),
        false => Err("an edge without inodes says nothing".into()),
    }
}

/// Whoever syncs meets every failure, and goes on. A store syncs now and then, so that its failures may meet nobody.
fn syncs_fail(cluster: &mut Cluster, part: Part, failures: u32) -> Result<(), Box<dyn Error>> {
    let syncs = cluster.syncs.as_ref().ok_or(NO_SYNCS)?;
    syncs.set(part, failures, 0)?;
    let bound = match Part::CONSUMERS.contains(&part) {
        true => Duration::from_secs(2),
        false => NOTICED_MAX,
    };
    let mut met = Ok(false);
    let done = wait::holds_within(bound, || {
        wait::pass(Duration::from_millis(100));
        met = syncs.failures(part).map(|left| left == 0);
        !matches!(met, Ok(false))
    });
    met?;
    syncs.set(part, 0, 0)?;
    match done || Part::CONSUMERS.contains(&part) {
        true => Ok(()),
        false => Err(format!("{} syncs nothing", part.name()).into()),
    }
}

/// What is open stays open.
fn without_descriptors(
    cluster: &mut Cluster,
    part: Part,
    held: Duration,
) -> Result<(), Box<dyn Error>> {
    let Some(running) = cluster.of(part) else {
        return Ok(());
    };
    let limit = |soft: &str| -> Result<(), Box<dyn Error>> {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &running.pid().to_string()]);
        let status = prlimit.arg(format!("--nofile={soft}:")).status()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("prlimit ended with {status}").into()),
        }
    };
    limit("3")?;
    wait::pass(held);
    limit("1024")
}

/// How often somebody was kept from writing on a disk, since the processes there now were started.
fn turned_away(cluster: &mut Cluster, disk: Disk) -> u64 {
    let writers: &[Part] = match disk {
        Disk::Journals => {
            let unrecorded = "sluice_edge_answered_total{outcome=\"unrecorded\"}";
            return cluster.metric(Part::Edge(0), unrecorded).unwrap_or(0);
        }
        Disk::Cursors | Disk::DeadLetters => &[Part::Courier(0)],
        Disk::Store => &Part::CONSUMERS,
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
        let Some(courier) = cluster.of(Part::Courier(0)) else {
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
            What::Workers(machine, workers) => {
                let edge = Part::Edge(machine).name();
                write!(f, "{edge} killed, back with {workers} workers")
            }
            What::KillBroker(away) => write!(f, "broker killed for {away:?}"),
            What::PauseBroker(away) => write!(f, "broker paused for {away:?}"),
            What::KillEdgeAndCourier(machine) => {
                let (edge, courier) = (Part::Edge(machine), Part::Courier(machine));
                write!(f, "{} and {} killed", edge.name(), courier.name())
            }
            What::Second(part) => write!(f, "a second {} refused", part.name()),
            What::OtherStore(part) => write!(f, "{} of another store refused", part.name()),
            What::RollBack(kept) => write!(f, "{kept:?} taken back"),
            What::Copy => f.write_str("a courier on a copy of a machine's data folder"),
            What::Fill(disk, None) => write!(f, "{disk} full"),
            What::Fill(disk, Some(part)) => write!(f, "{disk} full, {} killed on it", part.name()),
            What::Network(Network::Silent, away) => write!(f, "broker unheard for {away:?}"),
            What::Network(_, away) => write!(f, "broker cut off for {away:?}"),
            What::Grow => f.write_str("topics grown to twice the partitions"),
            What::Freeze(disk, away) => write!(f, "{disk} frozen for {away:?}"),
            What::NoInodes => f.write_str("no inodes for journals, edge-a killed on it"),
            What::SyncsFail(part, failures) => {
                write!(f, "{failures} syncs of {} failed", part.name())
            }
            What::SlowSyncs(part, held) => {
                write!(f, "syncs of {} take {SLOW_MS} ms for {held:?}", part.name())
            }
            What::NoDescriptors(part, held) => {
                write!(f, "no descriptors for {} for {held:?}", part.name())
            }
            What::Flip(flipped, _) => write!(f, "a bit flipped: {flipped:?}"),
            What::RefuseBatches => f.write_str("batches refused by their size"),
            What::StepClock(machines, step, held) => {
                let hours = step / 3600;
                write!(
                    f,
                    "clocks of {machines:?} {hours:+} h and {:+} h for {held:?} each",
                    -hours
                )
            }
        }
    }
}
