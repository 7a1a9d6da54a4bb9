//! The generator: some connections on one thread, so cheap that one core of it keeps a server on another core busy.
//!
//! In a closed loop each connection sends when it has its answer, which measures what a request costs. At a constant rate
//! requests are due at times that were fixed before, whatever the server does, and each is late from its due time on: one
//! that had to wait for a free connection is not forgiven (no coordinated omission).
//!
//! Only 302 is an answer; everything else is a failure and never counted as speed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};

use crate::measure::answer::{Answer, Answered};
use crate::measure::connection::{Connection, Tls};
use crate::measure::visits::Visits;

/// What is under way at the end of a run may still be answered so long; a server that needs longer has failed.
const GRACE: Duration = Duration::from_secs(10);

/// Connections that broke before a run is given up: nothing measured there would mean anything.
const BROKEN_MAX: u64 = 100;

/// Latencies are kept up to this, in nanoseconds; what took longer counts as this long.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Latencies are kept to three digits.
const LATENCY_DIGITS: u8 = 3;

/// What is kept of the time when something was slow.
pub(crate) const WINDOW: Duration = Duration::from_millis(100);

/// An answer is read at once: none is longer.
const READ_BYTES: usize = 16 * 1024;

/// It never sleeps. At a constant rate who sleeps wakes up late; and in a closed loop the server pays for waking it, the more
/// often the slower it is, so that a difference between two servers would be counted twice.
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// What is sent where.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) to: SocketAddr,
    pub(crate) tls: Option<Tls>,
    pub(crate) connections: usize,
    /// Each request has a connection of its own, which the client closes once it is answered.
    pub(crate) new_connections: bool,
    /// Requests a second; a closed loop where there is none.
    pub(crate) rate: Option<f64>,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Answered with 302.
    pub(crate) redirects: u64,
    /// From the beginning to the last answer.
    pub(crate) seconds: f64,
    /// From when a request was due to its answer, in nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    /// The slowest of those due in each [`WINDOW`] since the beginning, in nanoseconds.
    pub(crate) slowest_ns: Vec<u64>,
    /// Answers of other statuses.
    refused: BTreeMap<u16, u64>,
    /// Connections that broke before their answer, and why the last did.
    broken: u64,
    why: Option<String>,
    /// Due in the run and not answered when the grace was over.
    unanswered: u64,
}

impl Outcome {
    fn new() -> Self {
        Self {
            redirects: 0,
            seconds: 0.0,
            latencies: Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
                .expect("the bounds are legal"),
            slowest_ns: Vec::new(),
            refused: BTreeMap::new(),
            broken: 0,
            why: None,
            unanswered: 0,
        }
    }

    fn redirected(&mut self, due_since_start: Duration, took_ns: u64) {
        self.redirects += 1;
        self.latencies.saturating_record(took_ns.max(1));
        let window = (due_since_start.as_nanos() / WINDOW.as_nanos()) as usize;
        if window >= self.slowest_ns.len() {
            self.slowest_ns.resize(window + 1, 0);
        }
        self.slowest_ns[window] = self.slowest_ns[window].max(took_ns);
    }

    /// # Errors
    /// Something was not answered with a redirect.
    pub(crate) fn whole(self) -> Result<Outcome, String> {
        let failed = !self.refused.is_empty() || self.broken + self.unanswered > 0;
        if failed || self.redirects == 0 {
            return Err(self.to_string());
        }
        Ok(self)
    }

    /// A latency below which this share of all lies, in microseconds.
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        self.latencies.value_at_quantile(share) as f64 / 1000.0
    }

    /// Redirects a second.
    pub(crate) fn rate(&self) -> f64 {
        self.redirects as f64 / self.seconds
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} redirects", self.redirects)?;
        for (status, count) in &self.refused {
            write!(f, ", {count} answers with {status}")?;
        }
        if self.broken > 0 {
            let why = self.why.as_deref().unwrap_or_default();
            write!(f, ", {} connections broke ({why})", self.broken)?;
        }
        if self.unanswered > 0 {
            write!(f, ", {} requests not answered in time", self.unanswered)?;
        }
        Ok(())
    }
}

/// When requests are due.
enum Schedule {
    /// As soon as a connection is free.
    Closed { ends: Instant },
    /// Evenly.
    Steady {
        starts: Instant,
        rate: f64,
        count: u64,
        /// Handed out so far.
        begun: u64,
    },
}

impl Schedule {
    fn new(rate: Option<f64>, starts: Instant, lasts: Duration) -> Self {
        match rate {
            None => Self::Closed {
                ends: starts + lasts,
            },
            Some(rate) => Self::Steady {
                starts,
                rate,
                count: (rate * lasts.as_secs_f64()) as u64,
                begun: 0,
            },
        }
    }

    /// When the next request was due, if it is due now.
    fn next(&mut self, now: Instant) -> Option<Instant> {
        match self {
            Self::Closed { ends } => (now < *ends).then_some(now),
            Self::Steady {
                starts,
                rate,
                count,
                begun,
            } => {
                let due = *starts + Duration::from_secs_f64(*begun as f64 / *rate);
                (*begun < *count && due <= now).then(|| {
                    *begun += 1;
                    due
                })
            }
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        match self {
            Self::Closed { ends } => now >= *ends,
            Self::Steady { count, begun, .. } => begun == count,
        }
    }

    /// Due and not handed out, once the run's time is over.
    fn owed(&self) -> u64 {
        match self {
            Self::Closed { .. } => 0,
            Self::Steady { count, begun, .. } => count - begun,
        }
    }
}

/// One connection's place.
#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    request: Vec<u8>,
    sent: usize,
    answer: Answer,
    due: Option<Instant>,
}

impl Slot {
    /// Goes on as far as it can without waiting; the answer, once it is whole.
    fn advance(&mut self, scratch: &mut [u8]) -> io::Result<Option<Answered>> {
        let Some(connection) = &mut self.connection else {
            return Ok(None);
        };
        let mut wrote = false;
        while self.sent < self.request.len() {
            match connection.write(&self.request[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
            wrote = true;
        }
        if wrote {
            // The answer cannot be there yet; when it is, the system tells.
            return Ok(None);
        }
        loop {
            match connection.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => {
                    let pushed = self.answer.push(&scratch[..bytes]);
                    if let Some(answered) = pushed.map_err(io::Error::other)? {
                        return Ok(Some(answered));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Drives one server. Connections are kept between runs.
pub(crate) struct Generator {
    plan: Plan,
    visits: Visits,
    epoll: OwnedFd,
    slots: Vec<Slot>,
    opened: u32,
    scratch: Vec<u8>,
}

impl Generator {
    /// Opens no connection yet.
    pub(crate) fn new(plan: Plan, visits: Visits) -> io::Result<Self> {
        let slots = (0..plan.connections).map(|_| Slot::default()).collect();
        Ok(Self {
            plan,
            visits,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            slots,
            opened: 0,
            scratch: vec![0; READ_BYTES],
        })
    }

    /// Sends for so long and waits for what is under way then.
    ///
    /// # Errors
    /// The server cannot be reached, or breaks one connection after another.
    pub(crate) fn run(&mut self, lasts: Duration) -> io::Result<Outcome> {
        let mut outcome = Outcome::new();
        // The one that has been free for longest is next, so that all are used.
        let mut free: VecDeque<usize> = (0..self.slots.len()).collect();
        let mut events: Vec<epoll::Event> = Vec::with_capacity(self.slots.len());
        let starts = Instant::now();
        let mut schedule = Schedule::new(self.plan.rate, starts, lasts);
        let gives_up = starts + lasts + GRACE;
        loop {
            self.begin(&mut schedule, &mut free)?;
            let now = Instant::now();
            let busy = self.slots.len() - free.len();
            if busy == 0 && schedule.is_over(now) {
                break;
            }
            if now > gives_up {
                outcome.unanswered = busy as u64 + schedule.owed();
                break;
            }
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&AT_ONCE),
            ) {
                Err(rustix::io::Errno::INTR) | Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let at = event.data.u64() as usize;
                if self.slots[at].due.is_some() && self.advance(at, starts, &mut outcome)? {
                    free.push_back(at);
                    self.begin(&mut schedule, &mut free)?;
                }
            }
        }
        outcome.seconds = starts.elapsed().as_secs_f64();
        Ok(outcome)
    }

    /// Connections opened so far.
    pub(crate) fn opened(&self) -> usize {
        self.opened as usize
    }

    /// The bytes of the last answer on the first connection.
    pub(crate) fn last_answer(&self) -> &[u8] {
        self.slots[0].answer.bytes()
    }

    /// Sends what is due on what is free.
    fn begin(&mut self, schedule: &mut Schedule, free: &mut VecDeque<usize>) -> io::Result<()> {
        while let Some(&at) = free.front() {
            let Some(due) = schedule.next(Instant::now()) else {
                return Ok(());
            };
            free.pop_front();
            let slot = &mut self.slots[at];
            slot.due = Some(due);
            slot.answer.clear();
            self.visits.next(&mut slot.request);
            self.send(at)?;
        }
        Ok(())
    }

    /// Sends a slot's request from its beginning.
    fn send(&mut self, at: usize) -> io::Result<()> {
        let slot = &mut self.slots[at];
        slot.sent = 0;
        if slot.connection.is_none() {
            let connection = Connection::open(self.plan.to, self.plan.tls.as_ref(), self.opened)?;
            self.opened = self.opened.wrapping_add(1);
            // Edges are enough: a slot goes on until it would block.
            let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            let data = epoll::EventData::new_u64(at as u64);
            epoll::add(&self.epoll, connection.socket(), data, interest)?;
            slot.connection = Some(connection);
        }
        // What fails here fails again when the system tells of it.
        let _ = slot.advance(&mut self.scratch);
        Ok(())
    }

    /// Goes on with a slot; whether it is free now.
    fn advance(&mut self, at: usize, starts: Instant, outcome: &mut Outcome) -> io::Result<bool> {
        let slot = &mut self.slots[at];
        match slot.advance(&mut self.scratch) {
            Ok(None) => Ok(false),
            Ok(Some(answered)) => {
                let due = slot.due.take().expect("only what is due is sent");
                let took_ns = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
                if answered.status == 302 {
                    outcome.redirected(due - starts, took_ns);
                } else {
                    *outcome.refused.entry(answered.status).or_default() += 1;
                }
                if (self.plan.new_connections || answered.closes)
                    && let Some(connection) = slot.connection.take()
                {
                    connection.close();
                }
                Ok(true)
            }
            Err(error) => {
                outcome.broken += 1;
                if outcome.broken > BROKEN_MAX {
                    return Err(error);
                }
                outcome.why = Some(error.to_string());
                // Sent again on a new connection, as late as it is.
                slot.connection = None;
                slot.answer.clear();
                self.send(at)?;
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::ops::Range;
    use std::thread;

    use testkit::wait;

    use super::*;
    use crate::measure::visits::{Choice, HOST, Links};

    const FOUND: &str = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n";

    /// Answers everything with this, except that it answers nothing at all in a time after its start.
    fn server(answer: &'static str, stalls: Range<Duration>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let starts = Instant::now();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, stalls) = (stream.unwrap(), stalls.clone());
                thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(1..) = stream.read(&mut bytes) {
                        if stalls.contains(&starts.elapsed()) {
                            wait::pass(stalls.end.saturating_sub(starts.elapsed()));
                        }
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn generator(to: SocketAddr, new_connections: bool, rate: Option<f64>) -> Generator {
        let plan = Plan {
            to,
            tls: None,
            connections: 4,
            new_connections,
            rate,
        };
        let links = Links::One("plain".to_owned());
        Generator::new(plan, Visits::new(HOST, links, Choice::Uniform, "", None, 1)).unwrap()
    }

    const NEVER: Range<Duration> = Duration::ZERO..Duration::ZERO;
    const A_SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_stall_is_seen_by_everybody_who_was_due_in_it() {
        let stalls = Duration::from_millis(300)..Duration::from_millis(700);
        let slower = |rate| {
            let to = server(FOUND, stalls.clone());
            let outcome = generator(to, false, rate).run(A_SECOND).unwrap();
            let outcome = outcome.whole().unwrap();
            let slow = outcome.latencies.count_between(100_000_000, LATENCY_NS_MAX);
            let windows = outcome.slowest_ns.iter();
            let slow_windows = windows.filter(|ns| **ns > 100_000_000).count();
            assert!((1..=5).contains(&slow_windows), "{slow_windows}");
            (outcome.redirects, slow)
        };
        // A request each millisecond: those of the first 300 ms of the stall waited for more than 100 ms.
        let (redirects, slow) = slower(Some(1000.0));
        assert_eq!(redirects, 1000);
        assert!((270..=600).contains(&slow), "{slow}");
        // In a closed loop four connections waited, once each.
        assert_eq!(slower(None).1, 4);
    }

    #[test]
    fn requests_are_due_evenly_whatever_is_answered() {
        let starts = Instant::now();
        let mut schedule = Schedule::new(Some(100.0), starts, A_SECOND);
        let at = |ms| starts + Duration::from_millis(ms);
        assert_eq!(schedule.next(at(0)), Some(starts));
        assert_eq!(schedule.next(at(9)), None);
        // Nobody asked for half a second: what was due then is due since then.
        assert_eq!(schedule.next(at(500)), Some(at(10)));
        assert_eq!(schedule.next(at(500)), Some(at(20)));
        assert_eq!(schedule.owed(), 97);
        while schedule.next(at(5000)).is_some() {}
        assert!(schedule.is_over(at(1)));
    }

    #[test]
    fn each_request_may_have_a_connection_of_its_own() {
        let mut generator = generator(server(FOUND, NEVER), true, None);
        let outcome = generator.run(Duration::from_millis(200)).unwrap();
        let outcome = outcome.whole().unwrap();
        assert_eq!(u64::from(generator.opened), outcome.redirects);
    }

    #[test]
    fn another_answer_than_a_redirect_is_no_success() {
        let to = server("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", NEVER);
        let mut generator = generator(to, false, Some(100.0));
        let outcome = generator.run(Duration::from_millis(100)).unwrap();
        assert_eq!((outcome.redirects, outcome.latencies.len()), (0, 0));
        assert_eq!(
            outcome.whole().unwrap_err(),
            "0 redirects, 10 answers with 404"
        );
    }

    #[test]
    fn a_server_that_hangs_up_ends_the_run() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        thread::spawn(move || listener.incoming().for_each(drop));
        assert!(generator(to, false, None).run(A_SECOND).is_err());
    }
}
