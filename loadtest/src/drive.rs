//! The client machinery: some connections, each on a thread of its own, that send clicks one after the other, write every
//! answer into the ledger before the next request, and go on after the server was killed.
//!
//! A click whose connection broke before the answer is sent again under a new `ext`: nobody can know whether it was
//! recorded, so the two are two clicks. A postback is sent again under the same order, because an order counts once; a
//! connection of its own sends it, so that one that must wait holds up no click.

use std::error::Error;
use std::io::{self, IsTerminal};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use testkit::http::{Connection, Response};
use testkit::wait;

use crate::ledger::Ledger;

/// How long a server may be away before a run gives up.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// How long a refused connection or a 503 is left alone before the next try.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Sales that wait for their connection, each a token and an id: more than a minute's at any rate tried here.
const SALES_MAX: usize = 1 << 16;

/// More threads than this measure the client's own scheduler.
const CONNECTIONS_MAX: usize = 1024;

/// Where and how a run sends.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) edge: SocketAddr,
    pub(crate) host: &'a str,
    pub(crate) connections: usize,
    /// Clicks a second over all connections; 0 is as fast as the answers come.
    pub(crate) rate: u64,
    /// Go on when the connection breaks or the server cannot record; without it that ends the run or fails it.
    pub(crate) retry: bool,
    /// The parameter of the destination that carries the click token.
    pub(crate) click_param: &'a str,
    /// The goal a postback names.
    pub(crate) goal: &'a str,
    /// The advertiser's secret, percent-encoded; postbacks need it.
    pub(crate) secret: Option<&'a str>,
    pub(crate) ledger: &'a Ledger,
    /// The run ends once this file is there.
    pub(crate) until: Option<&'a Path>,
}

/// One visit to be made.
#[derive(Debug)]
pub(crate) struct Visit {
    /// The request's own id.
    pub(crate) ext: String,
    /// Path and query, up to and including `ext=`.
    pub(crate) target: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) user_agent: String,
    /// Whether the advertiser reports a sale afterwards.
    pub(crate) sale: bool,
}

/// An answered click.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// When it was due, since the run's start; when it was sent where there is no rate.
    pub(crate) due_ms: u32,
    /// From then to its answer.
    pub(crate) took_us: u32,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Clicks answered with a redirect.
    pub(crate) redirected: u64,
    /// Clicks redirected without a token: the server could not record them.
    pub(crate) unrecorded: u64,
    /// Clicks answered with anything else.
    pub(crate) refused: u64,
    /// Postbacks answered 200.
    pub(crate) accepted: u64,
    /// Postbacks answered with anything else.
    pub(crate) declined: u64,
    /// Clicks sent whose connection broke before the answer.
    unanswered: u64,
    pub(crate) samples: Vec<Sample>,
    /// From sending a postback for the first time to its 200.
    pub(crate) postbacks_us: Vec<u32>,
    /// Why it ended early.
    pub(crate) broken: Option<io::Error>,
}

/// Makes `visits(0)`, `visits(1)`, … up to `count`, spread over the connections, and prints what came of it.
pub(crate) fn run(
    run: &Run<'_>,
    count: u64,
    visits: &(impl Fn(u64) -> Visit + Sync),
) -> Result<(), Box<dyn Error>> {
    if !(1..=CONNECTIONS_MAX).contains(&run.connections) {
        return Err(format!("--connections is 1 to {CONNECTIONS_MAX}").into());
    }
    let bar = progress(count);
    let started = Instant::now();
    let mut total = drive(run, started, count, visits, &bar);
    bar.finish_and_clear();
    if let Some(error) = total.broken.take() {
        return Err(error.into());
    }
    total.print(started.elapsed());
    let unrecorded = if run.retry { 0 } else { total.unrecorded };
    if unrecorded + total.refused + total.declined > 0 {
        let hint = if total.redirected == 0 {
            format!(
                ": no redirect carried a token in {:?}, is --click-param right?",
                run.click_param
            )
        } else {
            ", see the ledger".to_owned()
        };
        return Err(format!("not every request was answered as expected{hint}").into());
    }
    Ok(())
}

/// Makes the visits of a run that began at `started`.
pub(crate) fn drive(
    run: &Run<'_>,
    started: Instant,
    count: u64,
    visits: &(impl Fn(u64) -> Visit + Sync),
    bar: &ProgressBar,
) -> Outcome {
    let stop = AtomicBool::new(false);
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let threads: Vec<_> = (0..run.connections)
            .map(|first| {
                let stop = &stop;
                scope.spawn(move || {
                    let outcome = lanes(run, started, first as u64, count, visits, stop, bar);
                    // One connection that gives up ends them all: the run's numbers would mean nothing.
                    if outcome.broken.is_some() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    outcome
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a connection's thread does not panic"))
            .collect()
    });
    let mut total = Outcome::default();
    for outcome in outcomes {
        total.add(outcome);
    }
    total
}

/// A lane of clicks and, beside it, one of the sales that come of them.
fn lanes(
    run: &Run<'_>,
    started: Instant,
    first: u64,
    count: u64,
    visits: &(impl Fn(u64) -> Visit + Sync),
    stop: &AtomicBool,
    bar: &ProgressBar,
) -> Outcome {
    let (sales, sold) = mpsc::sync_channel(SALES_MAX);
    thread::scope(|scope| {
        let selling = scope.spawn(move || {
            let mut lane = Lane::new(run, started, stop);
            lane.outcome.broken = lane.sell(&sold).err();
            lane.outcome
        });
        let mut lane = Lane::new(run, started, stop);
        lane.outcome.broken = lane.all(first, count, visits, &sales, bar).err();
        drop(sales);
        let sold = selling.join().expect("a sale's thread does not panic");
        lane.outcome.add(sold);
        lane.outcome
    })
}

/// A bar in a terminal, nothing in a pipe.
fn progress(count: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{wide_bar} {human_pos}/{human_len} clicks  {per_sec}  {eta} left",
    )
    .expect("the template is valid");
    ProgressBar::new(count).with_style(style)
}

/// One connection and its work.
struct Lane<'a> {
    run: &'a Run<'a>,
    started: Instant,
    connection: Option<Connection>,
    outcome: Outcome,
    stop: &'a AtomicBool,
}

impl<'a> Lane<'a> {
    fn new(run: &'a Run<'a>, started: Instant, stop: &'a AtomicBool) -> Self {
        Self {
            run,
            started,
            connection: None,
            outcome: Outcome::default(),
            stop,
        }
    }

    fn all(
        &mut self,
        first: u64,
        count: u64,
        visits: &impl Fn(u64) -> Visit,
        sales: &SyncSender<(String, String)>,
        bar: &ProgressBar,
    ) -> io::Result<()> {
        for index in (first..count).step_by(self.run.connections) {
            let over = self.run.until.is_some_and(Path::exists);
            if over || self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            // At a given rate a click is due at its time and late from then on: a stalled server is not let off the
            // clicks it held up.
            let due = self.due(index);
            let visit = visits(index);
            let answered = self.click(&visit, due)?;
            if let Some(sale) = answered
                && visit.sale
                && sales.send(sale).is_err()
            {
                // The lane of sales has given up and says why.
                return Ok(());
            }
            bar.inc(1);
        }
        Ok(())
    }

    /// Reports sales as long as some can come.
    fn sell(&mut self, sold: &Receiver<(String, String)>) -> io::Result<()> {
        for (ext, token) in sold {
            self.postback(&ext, &token)?;
        }
        Ok(())
    }

    fn due(&self, index: u64) -> Option<Instant> {
        if self.run.rate == 0 {
            return None;
        }
        let nanos = u128::from(index) * 1_000_000_000 / u128::from(self.run.rate);
        let due = self.started + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        wait::pass(due.saturating_duration_since(Instant::now()));
        Some(due)
    }

    /// Sends a click until it is answered; its ext and token where it was redirected.
    fn click(
        &mut self,
        visit: &Visit,
        due: Option<Instant>,
    ) -> io::Result<Option<(String, String)>> {
        let run = self.run;
        let address = visit.address.to_string();
        let headers = [
            ("Host", run.host),
            ("User-Agent", visit.user_agent.as_str()),
            ("X-Forwarded-For", address.as_str()),
            ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8"),
        ];
        let mut ext = visit.ext.clone();
        for attempt in 2_u32.. {
            self.connect()?;
            let sent = Instant::now();
            match self.send(&format!("{}{ext}", visit.target), &headers) {
                Ok(response) => {
                    let token = redirected_token(&response, run.click_param);
                    run.ledger.click(&ext, token.as_deref(), response.status)?;
                    let due = due.unwrap_or(sent);
                    let since_start = due.saturating_duration_since(self.started);
                    self.outcome.samples.push(Sample {
                        due_ms: u32::try_from(since_start.as_millis()).unwrap_or(u32::MAX),
                        took_us: micros(due.elapsed()),
                    });
                    return Ok(match token {
                        Some(token) => {
                            self.outcome.redirected += 1;
                            Some((ext, token))
                        }
                        None if response.status == 302 => {
                            self.outcome.unrecorded += 1;
                            None
                        }
                        None => {
                            self.outcome.refused += 1;
                            None
                        }
                    });
                }
                Err(error) => {
                    run.ledger.click_unanswered(&ext)?;
                    self.outcome.unanswered += 1;
                    if !run.retry {
                        return Err(error);
                    }
                    ext = format!("{}.{attempt}", visit.ext);
                }
            }
        }
        unreachable!("a server that breaks four thousand million connections is met first")
    }

    /// Reports a sale until that is answered.
    fn postback(&mut self, order: &str, token: &str) -> io::Result<()> {
        let run = self.run;
        let secret = run.secret.expect("visits with a sale come with a secret");
        let target = format!(
            "/postback?token={token}&order={order}&goal={}&status=approved&secret={secret}",
            run.goal
        );
        let headers = [("Host", run.host), ("User-Agent", "market-server/1.0")];
        let started = Instant::now();
        loop {
            self.connect()?;
            match self.send(&target, &headers) {
                // The journal takes nothing right now: the sender owes another try.
                Ok(response)
                    if response.status == 503 && run.retry && started.elapsed() < AWAY_MAX =>
                {
                    run.ledger.postback(order, response.status)?;
                    wait::pass(RETRY_PAUSE);
                }
                Ok(response) => {
                    run.ledger.postback(order, response.status)?;
                    if response.status == 200 {
                        self.outcome.accepted += 1;
                        self.outcome.postbacks_us.push(micros(started.elapsed()));
                    } else {
                        self.outcome.declined += 1;
                    }
                    return Ok(());
                }
                Err(error) => {
                    run.ledger.postback_unanswered(order)?;
                    if !run.retry || started.elapsed() >= AWAY_MAX {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Sends on the connection there is; one that broke or is closed by the server is dropped.
    fn send(&mut self, target: &str, headers: &[(&str, &str)]) -> io::Result<Response> {
        let mut connection = self.connection.take().expect("connect comes first");
        let response = connection.request("GET", target, headers, b"")?;
        if !response.closes() {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    /// Makes sure that there is a connection; nothing is sent yet, so a failure here leaves nothing in doubt.
    fn connect(&mut self) -> io::Result<()> {
        if self.connection.is_some() {
            return Ok(());
        }
        let started = Instant::now();
        loop {
            match Connection::open(self.run.edge) {
                Ok(connection) => {
                    self.connection = Some(connection);
                    return Ok(());
                }
                Err(error) => {
                    let given_up = !self.run.retry
                        || started.elapsed() >= AWAY_MAX
                        || self.stop.load(Ordering::Relaxed);
                    if given_up {
                        let text = format!("{}: {error}", self.run.edge);
                        return Err(io::Error::new(error.kind(), text));
                    }
                    wait::pass(RETRY_PAUSE);
                }
            }
        }
    }
}

/// The click token of a redirect: the named parameter of its `Location`.
pub(crate) fn redirected_token(response: &Response, click_param: &str) -> Option<String> {
    if response.status != 302 {
        return None;
    }
    let (_, query) = response.header("location")?.split_once('?')?;
    let query = query.split('#').next().unwrap_or_default();
    let token = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(click_param)?.strip_prefix('='))?;
    (!token.is_empty()).then(|| token.to_owned())
}

/// A value as it stands in a query: everything but unreserved characters percent-encoded.
pub(crate) fn encoded(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.redirected += other.redirected;
        self.unrecorded += other.unrecorded;
        self.refused += other.refused;
        self.accepted += other.accepted;
        self.declined += other.declined;
        self.unanswered += other.unanswered;
        self.samples.extend(other.samples);
        self.postbacks_us.extend(other.postbacks_us);
        self.broken = self.broken.take().or(other.broken);
    }

    fn print(&self, took: Duration) {
        let mut latencies_us: Vec<u32> = self.samples.iter().map(|sample| sample.took_us).collect();
        latencies_us.sort_unstable();
        let seconds = took.as_secs_f64();
        let answered = self.redirected + self.unrecorded + self.refused;
        println!("clicks answered    {answered}");
        println!("  redirected       {}", self.redirected);
        println!("  without a token  {}", self.unrecorded);
        println!("  otherwise        {}", self.refused);
        println!("clicks unanswered  {}", self.unanswered);
        println!("postbacks accepted {}", self.accepted);
        println!("  otherwise        {}", self.declined);
        println!("seconds            {seconds:.1}");
        println!("clicks per second  {:.0}", answered as f64 / seconds);
        println!("latency p50 ms     {:.3}", quantile_ms(&latencies_us, 500));
        println!("latency p99 ms     {:.3}", quantile_ms(&latencies_us, 990));
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// The smallest value that so many thousandths of the sorted values do not exceed, in milliseconds.
pub(crate) fn quantile_ms(sorted_us: &[u32], thousandths: usize) -> f64 {
    let rank = (sorted_us.len() * thousandths).div_ceil(1000).max(1);
    f64::from(sorted_us.get(rank - 1).copied().unwrap_or_default()) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_token(status: u16, location: &str, expected: Option<&str>) {
        let response = Response {
            status,
            headers: vec![("location".into(), location.into())],
            body: Vec::new(),
        };
        assert_eq!(redirected_token(&response, "sl").as_deref(), expected);
    }

    #[test]
    fn the_token_is_the_named_parameter_of_a_redirect() {
        check_token(302, "https://s.example/a?aff=x&sl=abc", Some("abc"));
        check_token(302, "https://s.example/a?sl=abc&slx=no#f", Some("abc"));
        check_token(302, "https://s.example/a?slx=no#?sl=no", None);
        check_token(302, "https://s.example/a?sl=", None);
        check_token(404, "https://s.example/a?sl=abc", None);
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let values: Vec<u32> = (1..=1000).map(|n| n * 1000).collect();
        assert_eq!(quantile_ms(&values, 500), 500.0);
        assert_eq!(quantile_ms(&values, 990), 990.0);
        assert_eq!(quantile_ms(&values[..1], 999), 1.0);
        assert_eq!(quantile_ms(&[], 500), 0.0);
    }

    #[test]
    fn secrets_are_encoded() {
        assert_eq!(encoded(b"a-Z_0.~ &%"), "a-Z_0.~%20%26%25");
    }
}
