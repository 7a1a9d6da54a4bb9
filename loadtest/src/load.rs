//! A steady load of clicks and sales on the demo catalog, beside whatever else a show does meanwhile.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::drive::{self, Outcome, Run};
use crate::ledger::Ledger;
use crate::{generate, replay};

/// The demo catalog's redirect host.
pub(crate) const HOST: &str = "go.northpeak.example";

/// What is clicked there.
pub(crate) const TARGET: &str = "/c?offer=boots&aff=trailblog&ext=";

/// A load that goes on for longer than a day is none.
const SECONDS_MAX: u64 = 24 * 60 * 60;

/// What to send.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) edge: SocketAddr,
    /// The data folder, for the advertiser's secret.
    pub(crate) data: PathBuf,
    /// Where the ledger is written.
    pub(crate) ledger: PathBuf,
    /// Clicks a second.
    pub(crate) rate: u64,
    /// A sale for every so many clicks.
    pub(crate) postback_every: u64,
    /// Of each sub id.
    pub(crate) sub_chars: usize,
    /// Enough that none waits for a sale to be answered while its next click is due.
    pub(crate) connections: usize,
    /// Go on when the edge is away.
    pub(crate) retry: bool,
}

/// A load under way.
pub(crate) struct Load {
    thread: JoinHandle<Outcome>,
    until: PathBuf,
    /// What samples count from.
    started: Instant,
}

impl Load {
    pub(crate) fn start(plan: &Plan) -> Result<Load, String> {
        let secret = replay::secret(&plan.data.join("demo/northpeak.secret"))?;
        let run_id = getrandom::u32().map_err(|error| format!("no randomness: {error}"))?;
        let ledger = Ledger::create(&plan.ledger)?;
        let until = until(&plan.ledger);
        let (started, ends) = (Instant::now(), until.clone());
        let plan = plan.clone();
        let thread = thread::spawn(move || {
            let run = Run {
                edge: plan.edge,
                host: HOST,
                connections: plan.connections,
                rate: plan.rate,
                retry: plan.retry,
                click_param: "npk",
                goal: "signup",
                secret: Some(&secret),
                ledger: &ledger,
                until: Some(&ends),
            };
            let targets = [TARGET.to_owned()];
            let visits = |index| {
                let sold = Some(plan.postback_every);
                generate::visit(run_id, index, &targets, sold, plan.sub_chars)
            };
            let count = SECONDS_MAX * plan.rate;
            drive::drive(&run, started, count, &visits, &ProgressBar::hidden())
        });
        Ok(Load {
            thread,
            until,
            started,
        })
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether it still goes on; it ends by itself only where it cannot.
    pub(crate) fn goes_on(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Ends it once what is under way is answered. Whether it was whole until then is for the outcome to say.
    pub(crate) fn end(self) -> Result<Outcome, String> {
        std::fs::write(&self.until, "")
            .map_err(|error| format!("{}: {error}", self.until.display()))?;
        self.thread
            .join()
            .map_err(|_| "the load panicked".to_owned())
    }
}

/// The file that ends a load, beside its ledger.
fn until(ledger: &Path) -> PathBuf {
    ledger.with_extension("until")
}
