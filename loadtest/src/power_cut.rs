//! `loadtest power-cut`: a whole `sluice up` on a disk that loses its power, again and again.
//!
//! The data folder lies on a file system of its own (ext4 in a file), which is shut down in the middle of the load without
//! writing out what it has in memory: what was synced stays, what was not is gone. Then the process is killed, the file
//! system mounted again and everything started again. In every second round the process is stopped a moment before, as the
//! power of a whole machine stops it; in the others it goes on and sees its disk fail, and must not promise a sale then.
//!
//! After each cut, every postback that was ever answered 200 must be a conversion; every record that was in the stream must
//! be there unchanged, every click that was counted must be counted, none twice; and the clicks that are lost must be
//! younger than what the journal may hold back: one sync interval and the slowest answer of a postback, which is what a sync
//! takes, as seen from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use domain::{ClickKey, Keyring};
use journal::{Entry, Position, Reader};
use stream::{Record, StreamId};
use testkit::{System, http, wait};

use crate::ledger::{self, Answers};
use crate::load::{HOST, Load, Plan, TARGET};
use crate::place::Place;
use crate::spread::Spread;
use crate::{index, scrape};

/// Room for the rings and for some minutes of clicks.
const DISK_BYTES: u64 = 1 << 30;

const READ_BYTES_MAX: usize = 1 << 20;

/// How often the stream is followed while the load runs.
const FOLLOW_EVERY: Duration = Duration::from_millis(5);

/// Follows between two looks at the metrics.
const LOOKS_PER_SCRAPE: u32 = 10;

/// How long folding everything may take after a start.
const QUIET_MAX: Duration = Duration::from_secs(120);

/// A sale for every so many clicks: each is a measure of how long a record waits for its sync.
const POSTBACK_EVERY: u64 = 5;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many cuts
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// When they come; a run tells its own, so that it can be tried again
    #[arg(long)]
    seed: Option<u64>,
    /// Clicks a second
    #[arg(long, default_value_t = 300)]
    rate: u64,
    /// edge.sync_ms of the system under test
    #[arg(long, default_value_t = 20)]
    sync_ms: u64,
    /// Where to keep everything; a temporary folder where none is named
    #[arg(long)]
    folder: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if !rustix::process::geteuid().is_root() {
        return Err("not run here: mounting a file system needs root".into());
    }
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|error| format!("no randomness: {error}"))?,
    };
    println!("seed {seed}");
    let place = Place::new(arguments.folder.as_deref())?;
    let outcome = show(arguments, seed, &place.folder);
    place.leave(outcome)
}

/// All that was answered in all rounds.
#[derive(Default)]
struct Promised {
    /// Redirected clicks by their ext.
    clicks: BTreeMap<String, ClickKey>,
    /// Lost in a cut, as it may be.
    lost: BTreeSet<String>,
    orders: BTreeSet<String>,
    orders_in_doubt: BTreeSet<String>,
    wrong: Vec<String>,
}

fn show(arguments: &Arguments, seed: u64, folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut disk = Disk::make(folder)?;
    // The process's output lies beside its data folder: not on the disk that fails.
    let data = disk.mount.clone();
    let settings = folder.join("sluice.toml");
    std::fs::write(
        &settings,
        format!(
            "[edge]\nworkers = 2\nring_bytes = 8388608\nsync_ms = {}\n",
            arguments.sync_ms
        ),
    )?;
    let edge = testkit::lasting_address();
    let start = || {
        let settings = settings.to_str().expect("made of text");
        System::start_at(edge, &data, &["--settings", settings])
    };
    let mut promised = Promised::default();
    let mut oldest_ms = Vec::new();
    let mut system = Some(start());
    println!(
        "{} clicks a second, a sale for every {POSTBACK_EVERY}th, edge.sync_ms {}",
        arguments.rate, arguments.sync_ms
    );
    for round in 1..=arguments.rounds {
        let running = system.take().expect("started before the round");
        let ledger = folder.join(format!("ledger-{round}"));
        let load = Load::start(&Plan {
            edge,
            data: data.clone(),
            ledger: ledger.clone(),
            rate: arguments.rate,
            postback_every: POSTBACK_EVERY,
            sub_chars: 0,
            connections: 32,
            retry: false,
        })?;
        let time = Duration::from_millis(random.u64(2_000..5_000));
        let frozen = round % 2 == 1;
        let cut = cut(&mut disk, running, &load, &data, time, frozen)?;
        // Its connections broke, as they must.
        let outcome = load.end()?;
        if outcome.broken.is_none() {
            return Err("the load did not notice the cut".into());
        }
        let slowest_ms = outcome.postbacks_us.iter().max().map_or(0, |us| us / 1000);

        let output = data.with_extension("output");
        std::fs::rename(output, folder.join(format!("output-{round}")))?;
        let after = start();
        let answers = ledger::read(&ledger)?;
        let index = settle(edge, &data, round)?;
        let stream = read_stream(&data.join("stream"))?;
        let found = promised.judge(&data, &ledger, &answers, &cut, &index, &stream)?;
        let report = after.report("");
        let paid = index::paid(&testkit::system::command(&data, &["dump-store"]))?;
        promised.compare(&report, &index, &paid)?;

        if cut.unsynced_ms.is_empty() {
            return Err("sluice_journal_unsynced_seconds is not exported".into());
        }
        let unsynced = Spread::of(cut.unsynced_ms.iter().copied());
        let allowed_ms = arguments.sync_ms + u64::from(slowest_ms);
        if unsynced.median > allowed_ms as f64 {
            promised.wrong.push(format!(
                "round {round}: the metric says that {:.1} ms are unsynced, {allowed_ms} are set",
                unsynced.median
            ));
        }
        let unsynced = unsynced.text(1);
        println!(
            "round {round}: {}: {} clicks and {} sales answered; {} records in the stream before; \
             {} clicks lost, the oldest {} ms before the cut ({allowed_ms} allowed), the last kept one {} ms before; \
             {} lost that were answered after the disk was gone; unsynced ms {unsynced}",
            if frozen { "power" } else { "disk" },
            found.clicks,
            found.sales,
            cut.stream.len(),
            found.lost,
            found.oldest_lost_ms,
            found.last_kept_ms,
            found.lost_after,
        );
        if found.oldest_lost_ms > allowed_ms {
            promised.wrong.push(format!(
                "round {round}: a click lost was {} ms old, {allowed_ms} ms are allowed",
                found.oldest_lost_ms
            ));
        }
        oldest_ms.push(found.oldest_lost_ms as f64);
        if !promised.wrong.is_empty() {
            break;
        }
        system = Some(after);
    }
    for text in promised.wrong.iter().take(20) {
        println!("wrong: {text}");
    }
    println!(
        "exposure  the oldest click lost, ms before the cut: {}",
        Spread::of(oldest_ms).text(0)
    );
    println!(
        "cuts {} clicks {} of them lost in the window {} sales {} wrong {}",
        arguments.rounds,
        promised.clicks.len(),
        promised.lost.len(),
        promised.orders.len(),
        promised.wrong.len()
    );
    match (promised.wrong.is_empty(), system) {
        (true, Some(system)) => {
            system.stop();
            disk.unmount()
        }
        _ => Err("the promise is broken".into()),
    }
}

/// What was known before a cut.
struct Cut {
    /// The latest moment before which nothing more was synced, Unix milliseconds.
    at_ms: u64,
    /// What the stream showed to its readers.
    stream: Content,
    /// The clicks that were counted.
    counted: BTreeSet<String>,
    /// `sluice_journal_unsynced_seconds` under load, of the worker that was furthest behind.
    unsynced_ms: Vec<f64>,
}

/// Follows the running system for a time, then takes its disk away and kills it.
fn cut(
    disk: &mut Disk,
    mut system: System,
    load: &Load,
    data: &Path,
    time: Duration,
    frozen: bool,
) -> Result<Cut, Box<dyn Error>> {
    let mut follower = Follower::new(&data.join("stream"))?;
    let mut unsynced_ms = Vec::new();
    let mut counted = None;
    let started = Instant::now();
    let mut looks = 0;
    while started.elapsed() < time {
        wait::pass(FOLLOW_EVERY);
        follower.read()?;
        looks += 1;
        if looks % LOOKS_PER_SCRAPE == 0 {
            let seconds = scrape::values(system.admin, "sluice_journal_unsynced_seconds")?;
            unsynced_ms.extend(seconds.into_iter().reduce(f64::max).map(|most| most * 1e3));
        }
        // Most of what is counted at the cut, and counted well before.
        if counted.is_none() && started.elapsed() > time / 2 {
            counted = Some(indexed(data)?);
        }
        if !load.goes_on() {
            return Err(
                format!("the load ended before the cut: {}", system.running.stderr()).into(),
            );
        }
    }
    let mut at_ms = now_ms();
    if frozen {
        system.running.pause();
        at_ms = now_ms();
    }
    follower.read()?;
    disk.cut()?;
    if !frozen {
        at_ms = now_ms();
        // The process sees what failed; what it answers now it must keep all the same.
        wait::pass(Duration::from_millis(100));
    }
    system.kill9();
    // The machine's memory goes with its power.
    for ring in std::fs::read_dir(testkit::ring_folder())? {
        std::fs::remove_file(ring?.path())?;
    }
    // Its open files would keep the file system mounted.
    let stream = follower.end();
    disk.mount_again()?;
    Ok(Cut {
        at_ms,
        stream,
        counted: counted.unwrap_or_default().into_keys().collect(),
        unsynced_ms,
    })
}

/// Waits until everything is folded: a fresh click is counted, and came after all the others in its lane.
fn settle(
    edge: SocketAddr,
    data: &Path,
    round: u32,
) -> Result<BTreeMap<String, Vec<ClickKey>>, Box<dyn Error>> {
    let last = format!("last-{round}");
    let headers = [
        ("Host", HOST),
        ("User-Agent", "Mozilla/5.0 (X11; Linux) last"),
    ];
    let answer = http::get(edge, &format!("{TARGET}{last}"), &headers)?;
    if answer.status != 302 {
        return Err(format!("a fresh click got {}", answer.status).into());
    }
    let started = Instant::now();
    let mut known = 0;
    loop {
        wait::pass(Duration::from_millis(500));
        let index = indexed(data)?;
        // And nothing else comes any more.
        if index.contains_key(&last) && index.len() == known {
            return Ok(index);
        }
        known = index.len();
        if started.elapsed() > QUIET_MAX {
            return Err(format!("not everything was folded within {QUIET_MAX:?}").into());
        }
    }
}

fn indexed(data: &Path) -> Result<BTreeMap<String, Vec<ClickKey>>, Box<dyn Error>> {
    index::parse(&testkit::system::command(data, &["dump-store"]))
}

/// What a round showed.
#[derive(Default)]
struct Found {
    clicks: usize,
    sales: usize,
    lost: usize,
    lost_after: usize,
    oldest_lost_ms: u64,
    last_kept_ms: u64,
}

impl Promised {
    fn judge(
        &mut self,
        data: &Path,
        ledger: &Path,
        answers: &Answers,
        cut: &Cut,
        index: &BTreeMap<String, Vec<ClickKey>>,
        stream: &Content,
    ) -> Result<Found, Box<dyn Error>> {
        let mut found = Found {
            last_kept_ms: u64::MAX,
            ..Found::default()
        };
        let keys = std::fs::read_to_string(data.join("keys/tokens.key"))?;
        let keyring = Keyring::parse(&keys)?;
        for (ext, token) in ledger::tokens(ledger)? {
            let token = keyring
                .open(token.as_bytes())
                .map_err(|refused| format!("{ext}: its token does not open: {refused:?}"))?;
            found.clicks += 1;
            let before_ms = cut.at_ms.checked_sub(token.click.time_ms);
            match (index.get(&ext).map(Vec::as_slice), before_ms) {
                (Some([key]), _) if *key == token.click => {
                    found.last_kept_ms = found.last_kept_ms.min(before_ms.unwrap_or(0));
                }
                (Some(keys), _) => self.wrong.push(format!(
                    "{ext} is at {keys:?}, its token says {:?}",
                    token.click
                )),
                (None, Some(before_ms)) => {
                    found.lost += 1;
                    found.oldest_lost_ms = found.oldest_lost_ms.max(before_ms);
                    self.lost.insert(ext.clone());
                }
                (None, None) => {
                    found.lost_after += 1;
                    self.lost.insert(ext.clone());
                }
            }
            self.clicks.insert(ext, token.click);
        }
        for (order, status) in &answers.postbacks {
            if *status == 200 {
                found.sales += 1;
                self.orders.insert(order.clone());
            } else {
                // It said that it could not promise.
                self.orders_in_doubt.insert(order.clone());
            }
        }
        let unanswered = answers.postbacks_unanswered.iter().cloned();
        self.orders_in_doubt.extend(unanswered);
        for ext in &cut.counted {
            if !index.contains_key(ext) {
                self.wrong
                    .push(format!("{ext} was counted before the cut and is not now"));
            }
        }
        for (place, record) in &cut.stream {
            match stream.get(place) {
                Some(now) if now == record => {}
                Some(_) => self.wrong.push(format!(
                    "{place:?} is another record in the stream than before"
                )),
                None => self
                    .wrong
                    .push(format!("{place:?} was in the stream before and is not now")),
            }
        }
        Ok(found)
    }

    /// Nothing of any round is gone or there twice.
    fn compare(
        &mut self,
        report: &str,
        index: &BTreeMap<String, Vec<ClickKey>>,
        paid: &BTreeSet<String>,
    ) -> Result<(), Box<dyn Error>> {
        let missing = self.orders.difference(paid);
        let missing = missing.map(|order| format!("sale {order} was answered 200 and is not paid"));
        self.wrong.extend(missing);
        for ext in self.clicks.keys() {
            let times = index.get(ext).map_or(0, Vec::len);
            let expected = usize::from(!self.lost.contains(ext));
            if times != expected {
                self.wrong.push(format!(
                    "{ext} is counted {times} times, {expected} expected"
                ));
            }
        }
        let (gross, conversions) = index::reported(report)?;
        let clicks: usize = index.values().map(Vec::len).sum();
        if gross != clicks {
            self.wrong.push(format!(
                "the report's gross is {gross}, the index holds {clicks}"
            ));
        }
        let most = self.orders.len() + self.orders_in_doubt.len();
        if !(self.orders.len()..=most).contains(&conversions) {
            self.wrong.push(format!(
                "{} sales were answered 200, {conversions} conversions are reported",
                self.orders.len()
            ));
        }
        Ok(())
    }
}

/// The first record under each identity, by the folder of its partition.
type Content = BTreeMap<(String, StreamId, u8, u64), Record>;

/// Reads the embedded stream's partitions from beside, as far as its own readers may.
struct Follower {
    partitions: Vec<(String, Reader)>,
    content: Content,
    entries: Vec<Entry>,
}

impl Follower {
    fn new(folder: &Path) -> Result<Follower, Box<dyn Error>> {
        let mut partitions = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                partitions.push((name.into_owned(), Reader::open(&path, Position::default())?));
            }
        }
        if partitions.is_empty() {
            return Err(format!("{} holds no partition", folder.display()).into());
        }
        Ok(Follower {
            partitions,
            content: Content::new(),
            entries: Vec::new(),
        })
    }

    fn read(&mut self) -> Result<(), Box<dyn Error>> {
        for (name, reader) in &mut self.partitions {
            while reader.read(&mut self.entries, READ_BYTES_MAX)? > 0 {
                for entry in self.entries.drain(..) {
                    let record = Record::decode(&entry.payload).ok_or("not a record")?;
                    let identity = (name.clone(), record.origin, record.lane, record.n);
                    self.content.entry(identity).or_insert(record);
                }
            }
        }
        Ok(())
    }

    fn end(self) -> Content {
        self.content
    }
}

fn read_stream(folder: &Path) -> Result<Content, Box<dyn Error>> {
    let mut follower = Follower::new(folder)?;
    follower.read()?;
    Ok(follower.end())
}

/// A file system in a file, whose power can be cut.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

impl Disk {
    fn make(folder: &Path) -> Result<Disk, Box<dyn Error>> {
        let (image, mount) = (folder.join("disk.ext4"), folder.join("disk"));
        std::fs::File::create(&image)?.set_len(DISK_BYTES)?;
        std::fs::create_dir_all(&mount)?;
        tool(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
        let mut disk = Disk {
            image,
            mount,
            mounted: false,
        };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&mut self) -> Result<(), Box<dyn Error>> {
        tool(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&self.image)
                .arg(&self.mount),
        )?;
        self.mounted = true;
        Ok(())
    }

    /// From here on nothing reaches the disk, and what was not synced before never did.
    fn cut(&self) -> Result<(), Box<dyn Error>> {
        // Without -f it does not write out the file system's own log either.
        tool(
            Command::new("xfs_io")
                .args(["-x", "-c", "shutdown"])
                .arg(&self.mount),
        )
    }

    fn mount_again(&mut self) -> Result<(), Box<dyn Error>> {
        self.unmount()?;
        self.mount()
    }

    fn unmount(&mut self) -> Result<(), Box<dyn Error>> {
        tool(Command::new("umount").arg(&self.mount))?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // The evidence stays in the image.
            let _ = self.unmount();
        }
    }
}

/// A program of the system that must succeed.
fn tool(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("not run here: {program} does not start: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program}: {}", said.trim()).into());
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge's own clock stamps clicks, and the cut is told by the same"
)]
fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
