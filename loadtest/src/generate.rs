//! `loadtest generate`: made-up clicks at a rate, each with an id of its own.

use std::error::Error;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::drive::{self, Run, Visit};
use crate::ledger::Ledger;
use crate::replay;
use crate::visitor;

/// Visitors that come again: enough that most clicks of a run are unique, few enough that some are not.
const VISITORS: u64 = 1_000_003;

/// Device and system numbers that the made-up visitors have.
const DEVICES: u64 = 40;
const SYSTEMS: u64 = 30;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the edge listens. Visitors' addresses are sent as X-Forwarded-For: unless edge.trusted_forwarders has
    /// 127.0.0.0/8, they are all one visitor
    #[arg(long, default_value = "127.0.0.1:8080")]
    edge: SocketAddr,
    /// The redirect host
    #[arg(long)]
    host: String,
    /// The offer that is clicked
    #[arg(long, required_unless_present = "links", requires = "affiliate")]
    offer: Option<String>,
    /// The affiliate whose clicks they are
    #[arg(long)]
    affiliate: Option<String>,
    /// Slugs to click in turn instead of an offer
    #[arg(long, value_delimiter = ',', conflicts_with = "offer")]
    links: Vec<String>,
    /// How many clicks
    #[arg(long)]
    clicks: u64,
    /// Stop earlier, once this file is there
    #[arg(long)]
    until: Option<PathBuf>,
    /// Clicks a second; 0 is as fast as the answers come
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// The file that every answer is written to before the next request
    #[arg(long)]
    ledger: PathBuf,
    /// Connections, each with one request under way
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Report a sale for every so many clicks
    #[arg(long, requires = "secret_file", value_parser = clap::value_parser!(u64).range(1..))]
    postback_every: Option<u64>,
    /// The goal of those sales
    #[arg(long, default_value = "sale")]
    goal: String,
    /// The file with the advertiser's secret
    #[arg(long)]
    secret_file: Option<PathBuf>,
    /// The parameter of the destination that carries the click token
    #[arg(long, default_value = "sl")]
    click_param: String,
    /// Characters of each of three sub ids that a click carries, of its own; 0 is none
    #[arg(long, default_value_t = 0)]
    sub_chars: usize,
    /// Go on when the server is killed or its journal takes nothing: connect again and send the click again under a new
    /// id, report a sale again, take a redirect without a token for an answer
    #[arg(long)]
    retry: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let targets = targets(arguments)?;
    let secret = arguments
        .secret_file
        .as_deref()
        .map(replay::secret)
        .transpose()?;
    // Two runs against one system must not share an id.
    let run_id = getrandom::u32().map_err(|error| format!("no randomness: {error}"))?;
    let ledger = Ledger::create(&arguments.ledger)?;
    let run = Run {
        edge: arguments.edge,
        host: &arguments.host,
        connections: arguments.connections,
        rate: arguments.rate,
        retry: arguments.retry,
        click_param: &arguments.click_param,
        goal: &arguments.goal,
        secret: secret.as_deref(),
        ledger: &ledger,
        until: arguments.until.as_deref(),
    };
    drive::run(&run, arguments.clicks, &|index| {
        let (sold, chars) = (arguments.postback_every, arguments.sub_chars);
        visit(run_id, index, &targets, sold, chars)
    })
}

/// The sub ids of a click that was made up under this id: letters that do not compress.
pub(crate) fn subs(id: &str, chars: usize) -> [String; 3] {
    let mut hasher = std::hash::DefaultHasher::new();
    id.hash(&mut hasher);
    let mut random = fastrand::Rng::with_seed(hasher.finish());
    [(); 3].map(|()| (0..chars).map(|_| random.alphanumeric()).collect())
}

/// Paths and queries up to the id, to be clicked in turn.
fn targets(arguments: &Arguments) -> Result<Vec<String>, String> {
    if let (Some(offer), Some(affiliate)) = (&arguments.offer, &arguments.affiliate) {
        let offer = drive::encoded(offer.as_bytes());
        let affiliate = drive::encoded(affiliate.as_bytes());
        return Ok(vec![format!("/c?offer={offer}&aff={affiliate}&ext=")]);
    }
    let targets: Vec<String> = arguments
        .links
        .iter()
        .map(|slug| format!("/{}?ext=", slug.trim_start_matches('/')))
        .collect();
    if targets.is_empty() {
        return Err("name an --offer with its --affiliate, or --links".to_owned());
    }
    Ok(targets)
}

pub(crate) fn visit(
    run_id: u32,
    index: u64,
    targets: &[String],
    postback_every: Option<u64>,
    sub_chars: usize,
) -> Visit {
    // A fixed stride walks over all visitors before one comes again, out of order as in life.
    let visitor = u32::try_from((index * 7919) % VISITORS).expect("below a million");
    let visitor_bits = u64::from(visitor);
    let target = usize::try_from(index % targets.len() as u64).expect("below a length");
    let ext = format!("g{run_id:08x}-{index}");
    let mut target = targets[target].clone();
    if sub_chars > 0 {
        let [one, two, three] = subs(&ext, sub_chars);
        let before = target.len() - "ext=".len();
        target.insert_str(before, &format!("sub1={one}&sub2={two}&sub3={three}&"));
    }
    Visit {
        ext,
        target,
        address: visitor::address(visitor).expect("fewer visitors than addresses"),
        user_agent: visitor::user_agent(
            u32::try_from(visitor_bits % DEVICES).expect("a small constant"),
            u32::try_from(visitor_bits % SYSTEMS).expect("a small constant"),
        ),
        sale: postback_every.is_some_and(|every| index.is_multiple_of(every)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_have_ids_of_their_own_and_take_turns() {
        let targets = ["/a?ext=".to_owned(), "/b?ext=".to_owned()];
        let first = visit(0xab, 0, &targets, Some(2), 0);
        let second = visit(0xab, 1, &targets, Some(2), 0);
        assert_eq!(
            (first.ext.as_str(), second.ext.as_str()),
            ("g000000ab-0", "g000000ab-1")
        );
        assert_eq!(
            (first.target.as_str(), second.target.as_str()),
            ("/a?ext=", "/b?ext=")
        );
        assert_eq!((first.sale, second.sale), (true, false));
        assert_ne!(first.address, second.address);
    }

    #[test]
    fn sub_ids_are_the_clicks_own_and_come_before_its_id() {
        let targets = ["/a?ext=".to_owned()];
        let visit = visit(0xab, 0, &targets, None, 4);
        let [one, two, three] = subs("g000000ab-0", 4);
        assert_eq!(
            visit.target,
            format!("/a?sub1={one}&sub2={two}&sub3={three}&ext=")
        );
        assert_eq!(one.len(), 4);
        assert_ne!(subs("g000000ab-1", 4)[0], one);
    }
}
