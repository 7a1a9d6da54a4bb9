//! Restarts under load: a successor takes over again and again while visitors arrive, and every request is looked at.
//!
//! Half of the requests come on connections of their own, half on kept ones. Each is due at its time, whatever became of the
//! one before, and its wait counts from there. A request that a kept connection's close crossed is sent again, as browsers and
//! proxies do, and counted apart: any server may close an idle connection at any time.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use hdrhistogram::Histogram;
use testkit::http::Connection;
use testkit::{Running, System, bin, system, wait};

/// Threads that send; as many requests can wait at a time. Those due meanwhile are late, and count as such.
const SENDERS: u32 = 400;
/// Far above any start or drain.
const BOUND: Duration = Duration::from_secs(120);
const HOST: (&str, &str) = ("Host", "go.northpeak.example");
const AGENT: (&str, &str) = (
    "User-Agent",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What is restarted.
    #[arg(long, value_enum)]
    of: Of,
    /// Requests a second.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Seconds of load.
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Restarts in that time.
    #[arg(long, default_value_t = 3)]
    restarts: u32,
    /// The longest wait in seconds that is no failure: what the documentation promises.
    #[arg(long, default_value_t = 3)]
    wait_max_s: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Of {
    /// `sluice-edge`, whose successor works beside it.
    Edge,
    /// `sluice up`, whose successor starts when it has ended.
    Up,
}

/// What became of requests.
struct Outcome {
    answered: u64,
    /// On connections that were kept.
    on_kept: u64,
    /// Connections refused, and answers that did not come on new connections.
    refused: BTreeMap<String, u64>,
    /// Answers other than a redirect.
    other: u64,
    crossed: u64,
    waits: Histogram<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    // An installation with the demo's catalog and keys.
    let first = System::start(&data, &[]);
    let (edge, admin, reports) = (first.edge, first.admin, first.reports);
    let start = |output: PathBuf| -> io::Result<Running> {
        let mut command = match arguments.of {
            Of::Edge => Command::new(bin("sluice-edge")),
            Of::Up => Command::new(bin("sluice")),
        };
        if arguments.of == Of::Up {
            command.arg("up").args(["--reports", &reports.to_string()]);
        }
        command.args(["--take-over", "--edge", &edge.to_string()]);
        command
            .args(["--admin", &admin.to_string(), "--data"])
            .arg(&data);
        Running::spawn(command, &output)
    };
    let is_up = |running: &mut Running| {
        let word = match arguments.of {
            Of::Edge => "is up: edge",
            Of::Up => "  admin ",
        };
        wait::until("the successor is up", BOUND, || {
            assert!(running.ended().is_none(), "{}", running.stderr());
            running.stdout().contains(word)
        });
    };
    first.stop();
    let mut running = start(folder.path().join("0"))?;
    is_up(&mut running);

    let requests = arguments.rate * arguments.seconds;
    let outcome = Mutex::new(Outcome {
        answered: 0,
        on_kept: 0,
        refused: BTreeMap::new(),
        other: 0,
        crossed: 0,
        // In microseconds, up to the bound of a whole run.
        waits: Histogram::new_with_bounds(1, 600_000_000, 3)?,
    });
    let next = AtomicU32::new(0);
    let begun = Instant::now();
    let between = Duration::from_secs(1) / arguments.rate;
    let running = std::thread::scope(|scope| -> Result<Running, Box<dyn Error>> {
        for sender in 0..SENDERS.min(arguments.rate) {
            let (outcome, next) = (&outcome, &next);
            let is_kept = sender % 2 == 0;
            std::thread::Builder::new()
                .stack_size(256 << 10)
                .spawn_scoped(scope, move || {
                    let mut kept = None;
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= requests {
                            return;
                        }
                        let due = begun + between * number;
                        pause_until(due);
                        send(edge, number, due, is_kept.then_some(&mut kept), outcome);
                    }
                })?;
        }
        let mut running = running;
        for restart in 1..=arguments.restarts {
            let at =
                Duration::from_secs(arguments.seconds.into()) * restart / (arguments.restarts + 1);
            pause_until(begun + at);
            let restarted = Instant::now();
            let mut successor = start(folder.path().join(restart.to_string()))?;
            is_up(&mut successor);
            let up = restarted.elapsed();
            let status = running.wait(BOUND).ok_or("the predecessor does not end")?;
            println!(
                "restart {restart}: the successor was up after {} ms, its predecessor gone after {} ms ({status})",
                up.as_millis(),
                restarted.elapsed().as_millis()
            );
            if !status.success() {
                return Err(format!("it did not end in good order: {}", running.stderr()).into());
            }
            running = successor;
        }
        Ok(running)
    })?;
    let outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    let counted = counted(&data, running, arguments.of)?;
    tell(arguments, &outcome, counted)
}

fn pause_until(at: Instant) {
    // It may end early.
    while let Some(rest) = at
        .checked_duration_since(Instant::now())
        .filter(|rest| !rest.is_zero())
    {
        std::thread::park_timeout(rest);
    }
}

/// One request, on the kept connection where there is one.
fn send(
    edge: SocketAddr,
    number: u32,
    due: Instant,
    kept: Option<&mut Option<Connection>>,
    outcome: &Mutex<Outcome>,
) {
    let is_kept = kept.is_some();
    let mut crossed = false;
    // Another person each time.
    let agent = format!("{} {number}", AGENT.1);
    let headers = [HOST, (AGENT.0, agent.as_str())];
    let ask = |connection: &mut Connection| connection.request("GET", "/fall-boots", &headers, b"");
    let mut own = None;
    let place = kept.unwrap_or(&mut own);
    let mut answer = None;
    if let Some(connection) = place {
        match ask(connection) {
            Ok(found) => answer = Some(found),
            Err(_) => crossed = true,
        }
    }
    let answer = match answer {
        Some(answer) => Ok(answer),
        None => Connection::open(edge).and_then(|connection| ask(place.insert(connection))),
    };
    let wait = due.elapsed();
    let stays = is_kept && answer.as_ref().is_ok_and(|answer| !answer.closes());
    if !stays {
        *place = None;
    }
    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    outcome.crossed += u64::from(crossed);
    match answer {
        Ok(answer) if answer.status == 302 => {
            outcome.answered += 1;
            outcome.on_kept += u64::from(is_kept);
            let wait = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
            outcome.waits.saturating_record(wait);
        }
        Ok(_) => outcome.other += 1,
        Err(error) => *outcome.refused.entry(error.to_string()).or_default() += 1,
    }
}

/// Ends the last process and says how many clicks are counted: those of an edge once `sluice up` has shipped its journals.
fn counted(data: &Path, mut running: Running, of: Of) -> Result<u64, Box<dyn Error>> {
    let status = running.terminate(BOUND).ok_or("it does not end")?;
    if !status.success() {
        return Err(format!("it did not end in good order: {}", running.stderr()).into());
    }
    if of == Of::Edge {
        System::start(data, &[]).stop();
    }
    let report = system::command(data, &["report", "--format", "csv", "--by", ""]);
    let row = report.lines().nth(1).ok_or("an empty report")?;
    Ok(row.split(',').next().ok_or("an empty row")?.parse()?)
}

fn tell(arguments: &Arguments, outcome: &Outcome, counted: u64) -> Result<(), Box<dyn Error>> {
    let refused: u64 = outcome.refused.values().sum();
    let sent = outcome.answered + outcome.other + refused;
    let ms = |micros: u64| format!("{}.{:03} ms", micros / 1000, micros % 1000);
    let longest = outcome.waits.max();
    println!("requests            {sent}, {} a second", arguments.rate);
    println!(
        "answered            {}, {} of them on kept connections",
        outcome.answered, outcome.on_kept
    );
    println!("refused             {refused}");
    for (error, count) in &outcome.refused {
        println!("                    {count}: {error}");
    }
    println!("other than 302      {}", outcome.other);
    println!(
        "crossed a close     {}, answered when sent again",
        outcome.crossed
    );
    println!(
        "wait p50            {}",
        ms(outcome.waits.value_at_quantile(0.5))
    );
    println!(
        "wait p99            {}",
        ms(outcome.waits.value_at_quantile(0.99))
    );
    println!("wait longest        {}", ms(longest));
    println!("counted             {counted}");
    let most = outcome.answered + outcome.crossed;
    if refused + outcome.other > 0 {
        return Err("somebody was not redirected".into());
    }
    if !(outcome.answered..=most).contains(&counted) {
        return Err(format!(
            "{} were answered and {counted} are counted",
            outcome.answered
        )
        .into());
    }
    if longest > arguments.wait_max_s * 1_000_000 {
        return Err(format!("somebody waited longer than {} s", arguments.wait_max_s).into());
    }
    Ok(())
}
