//! The load: visits that are due at their times whether or not anybody answers, and what advertisers say afterwards.
//!
//! A visit that is not answered within its time is given up, as its visitor would. There are as many senders as visits can be
//! under way when nobody answers at all, so that a hanging edge goes on being sent new ones.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use testkit::http::{Connection, Response};
use testkit::wait;

use super::visits::{ADVERTISERS, CLICK_PARAM, HOST, Kind, Visit, Visits};
use crate::drive;

/// How long a visitor waits.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Senders stand for this many seconds of visits that nobody answers.
const SENDERS_SECONDS: u64 = 3;

/// How many visits a balancer's connection carries.
const CONNECTION_VISITS: u32 = 20;

/// How long an advertiser goes on reporting a sale.
const SALE_MAX: Duration = Duration::from_secs(90);
const SALE_PATIENCE: Duration = Duration::from_secs(10);
const SALE_PAUSE: Duration = Duration::from_millis(100);
const SALE_SENDERS: usize = 16;

/// Small: a sender keeps a request and its answer.
const STACK_BYTES: usize = 256 << 10;

/// A visit that was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) edge: usize,
    /// Since the start of the load.
    pub(super) due: Duration,
    pub(super) sent: Duration,
    /// Status and the time of the answer.
    pub(super) answered: Option<(u16, Duration)>,
    pub(super) token: Option<String>,
}

/// What an advertiser said of an order, until it was answered.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// The visit it is about.
    pub(super) number: u64,
    pub(super) status: &'static str,
    /// Since the start of the load.
    pub(super) first_sent: Duration,
    pub(super) last_ended: Duration,
    pub(super) accepted: bool,
    /// Tries that may have been recorded, and were not answered 200.
    pub(super) in_doubt: u64,
}

/// Everything that was sent.
pub(super) struct Ledger {
    /// In the order of their numbers.
    pub(super) sent: Vec<Sent>,
    pub(super) said: Vec<Said>,
    /// The start, and its Unix time in milliseconds.
    pub(super) started: Instant,
    pub(super) started_ms: u64,
    pub(super) visits: Visits,
}

/// What to send.
pub(super) struct Plan<'a> {
    pub(super) edges: Vec<SocketAddr>,
    pub(super) rate: u64,
    pub(super) sale_every: u64,
    pub(super) seed: u64,
    /// The folder with the advertisers' secrets.
    pub(super) secrets: &'a Path,
    /// Where to write down what was answered.
    pub(super) evidence: &'a Path,
}

struct Shared {
    edges: Vec<SocketAddr>,
    rate: u64,
    visits: Visits,
    secrets: Vec<String>,
    started: Instant,
    next: AtomicU64,
    over: AtomicBool,
    /// Kept connections, those used last at the end.
    idle: Vec<Mutex<Vec<Connection>>>,
    sent: Mutex<Vec<Sent>>,
    said: Mutex<Vec<Said>>,
    evidence: Mutex<BufWriter<File>>,
}

/// A load under way.
pub(super) struct Load {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<()>>,
    sellers: Vec<JoinHandle<()>>,
    started_ms: u64,
}

/// A visit that is to become a sale.
type Order = (Visit, u64, String);

impl Load {
    pub(super) fn start(plan: Plan<'_>) -> Result<Self, String> {
        let secrets = ADVERTISERS
            .map(|(name, _)| crate::replay::secret(&plan.secrets.join(format!("{name}.secret"))));
        let evidence = File::create_new(plan.evidence)
            .map_err(|error| format!("{}: {error}", plan.evidence.display()))?;
        let idle = plan.edges.iter().map(|_| Mutex::default());
        let started_ms = service::Clock::system().now_ms();
        let shared = Arc::new(Shared {
            rate: plan.rate,
            visits: Visits::new(plan.seed, plan.sale_every),
            secrets: secrets.into_iter().collect::<Result<_, _>>()?,
            started: Instant::now(),
            next: AtomicU64::new(0),
            over: AtomicBool::new(false),
            idle: idle.collect(),
            edges: plan.edges,
            sent: Mutex::default(),
            said: Mutex::default(),
            evidence: Mutex::new(BufWriter::new(evidence)),
        });
        let (sales, sold) = mpsc::channel();
        let sold = Arc::new(Mutex::new(sold));
        let spawn = |work: Box<dyn FnOnce() + Send>| {
            let builder = thread::Builder::new().stack_size(STACK_BYTES);
            builder
                .spawn(work)
                .map_err(|error| format!("a sender: {error}"))
        };
        let senders = (0..plan.rate * SENDERS_SECONDS).map(|_| {
            let (shared, sales) = (Arc::clone(&shared), sales.clone());
            spawn(Box::new(move || shared.send(&sales)))
        });
        let sellers = (0..SALE_SENDERS).map(|_| {
            let (shared, sold) = (Arc::clone(&shared), Arc::clone(&sold));
            spawn(Box::new(move || shared.sell(&sold)))
        });
        Ok(Self {
            senders: senders.collect::<Result<_, _>>()?,
            sellers: sellers.collect::<Result<_, _>>()?,
            started_ms,
            shared,
        })
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Ends it once what is under way is answered or given up.
    pub(super) fn end(self) -> Result<Ledger, String> {
        self.shared.over.store(true, Ordering::Relaxed);
        // The last sender takes the channel with it, and then the sellers end.
        for thread in self.senders.into_iter().chain(self.sellers) {
            thread.join().map_err(|_| "a sender panicked")?;
        }
        let shared = Arc::into_inner(self.shared).ok_or("a sender is left")?;
        let mut evidence = own(shared.evidence);
        evidence
            .flush()
            .map_err(|error| format!("the evidence: {error}"))?;
        let mut sent = own(shared.sent);
        sent.sort_unstable_by_key(|sent| sent.number);
        Ok(Ledger {
            sent,
            said: own(shared.said),
            started: shared.started,
            started_ms: self.started_ms,
            visits: shared.visits,
        })
    }
}

impl Ledger {
    /// Unix time in milliseconds.
    pub(super) fn at_ms(&self, since_start: Duration) -> u64 {
        self.started_ms + u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Shared {
    /// Sends visits at their times until the load is over.
    fn send(&self, sales: &mpsc::Sender<Order>) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_nanos(number * 1_000_000_000 / self.rate);
            while !self.over.load(Ordering::Relaxed) && self.started.elapsed() < due {
                let rest = due.saturating_sub(self.started.elapsed());
                wait::pass(rest.min(Duration::from_secs(1)));
            }
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let visit = self.visits.visit(number);
            // A balancer gives each in turn.
            let edge = usize::try_from(number % self.edges.len() as u64).expect("a length");
            let sent = self.started.elapsed();
            let answer = self.ask(edge, &visit);
            let answered = answer.as_ref().ok();
            let status = answered.map(|answer| (answer.status, self.started.elapsed()));
            let token = answered.and_then(|answer| drive::redirected_token(answer, CLICK_PARAM));
            let line = format!(
                "{number}\t{edge}\t{sent:?}\t{}\n",
                match (&status, &answer) {
                    (Some((status, at)), _) =>
                        format!("{status}\t{at:?}\t{}", token.as_deref().unwrap_or("-")),
                    (None, Err(error)) => format!("unanswered: {error}"),
                    (None, Ok(_)) => String::new(),
                }
            );
            // A full disk here would show in what is compared.
            let _ = lock(&self.evidence).write_all(line.as_bytes());
            if let (Some(_), Some(token)) = (visit.sale, &token) {
                // The sellers wait for the senders, so that somebody hears it.
                let _ = sales.send((visit, number, token.clone()));
            }
            lock(&self.sent).push(Sent {
                number,
                edge,
                due,
                sent,
                answered: status,
                token,
            });
        }
    }

    fn ask(&self, edge: usize, visit: &Visit) -> std::io::Result<Response> {
        let mut headers = vec![
            ("Host", HOST),
            ("User-Agent", &visit.user_agent),
            ("X-Forwarded-For", &visit.forwarded),
            ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8"),
        ];
        if visit.kind == Kind::Prefetch {
            headers.push(("Sec-Purpose", "prefetch"));
        }
        let method = match visit.kind {
            Kind::Head => "HEAD",
            _ => "GET",
        };
        let kept = lock(&self.idle[edge]).pop();
        let mut connection = match kept {
            Some(kept) => kept,
            None => Connection::open_within(self.edges[edge], PATIENCE)?,
        };
        match connection.request(method, &visit.target(), &headers, b"") {
            Ok(response) => {
                // Connections are made anew now and then, so that all workers of an edge have some.
                if !response.closes() && fastrand::u32(..CONNECTION_VISITS) > 0 {
                    lock(&self.idle[edge]).push(connection);
                }
                Ok(response)
            }
            Err(error) => {
                // The others are of the same process.
                lock(&self.idle[edge]).clear();
                Err(error)
            }
        }
    }

    /// Reports sales as long as some can come.
    fn sell(&self, sold: &Mutex<mpsc::Receiver<Order>>) {
        loop {
            let order = lock(sold).recv();
            let Ok((visit, number, token)) = order else {
                return;
            };
            let approved = self.say(&visit, number, &token, "approved");
            let reversed = visit.sale.is_some_and(|sale| sale.reversed);
            if approved && reversed {
                self.say(&visit, number, &token, "reversed");
            }
        }
    }

    /// Says something of an order until it is taken; whether it was.
    fn say(&self, visit: &Visit, number: u64, token: &str, status: &'static str) -> bool {
        let Some(sale) = visit.sale else {
            return false;
        };
        let offer = visit.named.offer;
        let worth = sale.worth(offer);
        let secret = &self.secrets[offer % self.secrets.len()];
        let amount = match status {
            // The currency is the advertiser's own where none is named.
            "approved" if number.is_multiple_of(2) => format!("&amount={}", decimal(sale.cents)),
            "approved" => format!(
                "&amount={}&currency={}",
                decimal(sale.cents),
                worth.currency
            ),
            _ => String::new(),
        };
        let target = format!(
            "/postback?token={token}&order={}&goal={}&status={status}{amount}&secret={secret}",
            visit.ext, worth.goal
        );
        let headers = [("Host", HOST), ("User-Agent", "market-server/1.0")];
        let first_sent = self.started.elapsed();
        let mut in_doubt = 0;
        let mut accepted = false;
        let mut tries = number;
        while !accepted && self.started.elapsed() < first_sent + SALE_MAX {
            let edge = usize::try_from(tries % self.edges.len() as u64).expect("a length");
            tries += 1;
            let answer = Connection::open_within(self.edges[edge], SALE_PATIENCE)
                .map(|mut connection| connection.request("GET", &target, &headers, b""));
            match answer {
                // Nobody there: nothing is in doubt.
                Err(_) => wait::pass(SALE_PAUSE),
                Ok(Ok(answer)) if answer.status == 200 => accepted = true,
                Ok(Ok(answer)) => {
                    in_doubt += 1;
                    let line = format!("postback\t{number}\t{status}\t{}\n", answer.status);
                    let _ = lock(&self.evidence).write_all(line.as_bytes());
                    wait::pass(SALE_PAUSE);
                }
                Ok(Err(_)) => in_doubt += 1,
            }
        }
        lock(&self.said).push(Said {
            number,
            status,
            first_sent,
            last_ended: self.started.elapsed(),
            accepted,
            in_doubt,
        });
        accepted
    }
}

fn decimal(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn own<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    fn load<'a>(edges: Vec<SocketAddr>, folder: &'a Path, evidence: &'a Path) -> Load {
        for (name, _) in ADVERTISERS {
            std::fs::write(folder.join(format!("{name}.secret")), "12345678").unwrap();
        }
        Load::start(Plan {
            edges,
            rate: 100,
            sale_every: 20,
            seed: 1,
            secrets: folder,
            evidence,
        })
        .unwrap()
    }

    #[test]
    fn an_edge_that_hangs_goes_on_being_sent_visits_and_none_counts_as_answered() {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let edge = listener.local_addr().unwrap();
        let heard = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&heard);
        thread::spawn(move || {
            let mut hanging = Vec::new();
            for mut connection in listener.incoming().flatten() {
                let mut head = [0; 64];
                if connection.read(&mut head).is_ok_and(|read| read > 0) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                hanging.push(connection);
            }
        });
        let load = load(vec![edge], folder.path(), &folder.path().join("answers"));
        let sent_on = wait::holds_within(Duration::from_secs(30), || {
            heard.load(Ordering::Relaxed) > 3 * PATIENCE.as_secs() * 100
        });
        let ledger = load.end().unwrap();
        assert!(sent_on, "{}", heard.load(Ordering::Relaxed));
        assert!(ledger.sent.iter().all(|sent| sent.answered.is_none()));
    }

    #[test]
    fn cents_are_written_with_two_digits() {
        assert_eq!(decimal(1205), "12.05");
        assert_eq!(decimal(99), "0.99");
    }
}
