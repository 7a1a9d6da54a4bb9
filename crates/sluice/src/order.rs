//! `sluice order …`: what became of an order, and a correction by a person of the network.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use catalog::Catalog;
use clap::{Args, Subcommand, ValueEnum};
use domain::event::{EdgeRecord, Postback, Status, StreamEnd, Trust, edge_record::Event};
use domain::{ClickKey, Currency, Micros, Numbering, Topic};
use edge::Keys;
use journal::{Options, StreamId};
use prost::Message;
use reports::OrderQuery;
use service::{Clock, Refusal, Shutdown};
use store::{OrderKey, View};

use crate::commands::{open, print, refuse};
use crate::settings::Installation;

/// The journal folder that commands write to; far above the numbers of workers. Whichever courier runs on the data folder
/// drains it like a worker's.
const JOURNAL: &str = "10000";
/// Room for some hundred adjustments at once.
const RING_BYTES: u64 = 1 << 20;
/// Some hundred thousand adjustments that no courier took.
const FOLDER_BYTES_MAX: u64 = 64 << 20;
/// How long another command, or the courier's look, may hold the journal.
const IN_USE_MAX: Duration = Duration::from_secs(10);
/// How long the command waits to tell what became of the order.
const OUTCOME_MAX: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// Longest text of `--reason` and `--by`.
const TEXT_BYTES_MAX: usize = 500;

/// `sluice order …`
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Print what became of an order, why, and everything that was said of it.
    Show(Show),
    /// Correct an order by hand: an event like any other, which the running system folds.
    Adjust(Adjust),
}

/// `sluice order show`
#[derive(Args)]
pub(crate) struct Show {
    /// The advertiser's name; or alone, the `id` in the answer to a postback.
    advertiser: String,
    /// The order's id, as the advertiser sent it; `token:…`, as lists show it, for an order without one.
    order: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    #[command(flatten)]
    installation: Installation,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// `sluice order adjust`
#[derive(Args)]
pub(crate) struct Adjust {
    /// The advertiser's name.
    advertiser: String,
    /// The order's id, as the advertiser sent it; `token:…`, as lists show it, for an order without one.
    order: String,
    /// Which of its goals; needed where it has several, unless all of them are rejected or reversed.
    #[arg(long)]
    goal: Option<String>,
    /// The order's value from now on: `80.00`.
    #[arg(long)]
    amount: Option<String>,
    /// ISO 4217, of the amount; the advertiser's unless it is given.
    #[arg(long, requires = "amount")]
    currency: Option<String>,
    /// Its status from now on.
    #[arg(long, value_enum)]
    status: Option<NewStatus>,
    /// The affiliate it belongs to from now on.
    #[arg(long)]
    affiliate: Option<String>,
    /// Why: kept with the order for ever.
    #[arg(long)]
    reason: String,
    /// Who does it; the user of this machine unless it is given.
    #[arg(long)]
    by: Option<String>,
    // One whose journals a running courier, or `sluice up`, ships.
    #[command(flatten)]
    installation: Installation,
}

#[derive(Clone, Copy, ValueEnum)]
enum NewStatus {
    Pending,
    Approved,
    Rejected,
    Reversed,
    /// Approved again.
    Reinstated,
}

impl From<NewStatus> for Status {
    fn from(status: NewStatus) -> Self {
        match status {
            NewStatus::Pending => Self::Pending,
            NewStatus::Approved => Self::Approved,
            NewStatus::Rejected => Self::Rejected,
            NewStatus::Reversed => Self::Reversed,
            NewStatus::Reinstated => Self::Reinstated,
        }
    }
}

pub(crate) fn run(command: &Command) -> Result<(), Refusal> {
    match command {
        Command::Show(arguments) => show(arguments),
        Command::Adjust(arguments) => adjust(arguments),
    }
}

fn show(arguments: &Show) -> Result<(), Refusal> {
    let (view, catalog) = open(&arguments.installation.data()?).map_err(refuse)?;
    let query = match &arguments.order {
        Some(order) => OrderQuery::Order {
            advertiser: arguments.advertiser.clone(),
            order: order.clone(),
        },
        None => OrderQuery::Postback(arguments.advertiser.clone()),
    };
    let found = reports::order(&view, &catalog, &query).map_err(refuse)?;
    let found = found.ok_or_else(|| refuse("nobody reported such an order"))?;
    match arguments.format {
        Format::Text => print(&found.text(&catalog)),
        Format::Json => print(&format!("{:#}", found.json(&catalog))),
    }
}

fn adjust(arguments: &Adjust) -> Result<(), Refusal> {
    let data = arguments.installation.data()?;
    owned(&data)?;
    let catalogs = catalog::Folder::open(data.join("catalog")).map_err(refuse)?;
    let catalog = catalogs.current().map_err(refuse)?.ok_or_else(|| {
        refuse(format!(
            "{}: no catalog has been applied yet",
            data.display()
        ))
    })?;
    let mut postback = understood(arguments, &catalog)?;
    let view = match View::open(&data.join("store.sqlite")) {
        Ok(view) => Some(view),
        // The store is another machine's.
        Err(error) if error.is_missing() => None,
        Err(error) => return Err(refuse(error)),
    };
    let order = match &view {
        Some(view) => known(view, &catalog, arguments, &postback)?.order,
        None => arguments.order.trim().to_owned(),
    };
    (postback.order, postback.token) = domain::order::parts(&order);
    let at = record(&data, catalog.lock(), postback)?;
    print(&format!("recorded: {at}"))?;
    let outcome = view.map(|view| outcome(&view, at)).transpose()?;
    if outcome == Some(true) {
        return show(&Show {
            advertiser: at.to_string(),
            order: None,
            format: Format::Text,
            installation: arguments.installation.clone(),
        });
    }
    print(&format!(
        "it is not folded yet: a courier ships it, and `sluice order show {at}` tells what became of it"
    ))
}

/// Files that somebody else makes in a data folder cannot be read by those who run on it.
fn owned(data: &Path) -> Result<(), Refusal> {
    let because = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "no data folder here: name the one Sluice runs on with --data or --settings"
                    .to_owned()
            }
            _ => text::io_error(&error),
        };
        refuse(format!("{}: {why}", data.display()))
    };
    let owner = std::fs::metadata(data).map_err(because)?.uid();
    let user = rustix::process::geteuid().as_raw();
    if owner != user {
        return Err(refuse(format!(
            "{} belongs to user {owner}: run this as that user (sudo -u '#{owner}' …)",
            data.display()
        )));
    }
    Ok(())
}

/// The word, but for its order.
fn understood(arguments: &Adjust, catalog: &Catalog) -> Result<Postback, Refusal> {
    let name = &arguments.advertiser;
    let advertiser = catalog.advertiser_number(name).ok_or_else(|| {
        let known = catalog.advertisers.values().map(|of| &*of.name);
        not_in_catalog("advertiser", name, known)
    })?;
    let text = |what: &str, text: &str| match text.trim() {
        "" => Err(refuse(format!("--{what} is empty"))),
        text if text.len() > TEXT_BYTES_MAX || text.contains(char::is_control) => Err(refuse(
            format!("--{what} is one line of at most {TEXT_BYTES_MAX} bytes"),
        )),
        text => Ok(text.to_owned()),
    };
    let by = arguments.by.clone().unwrap_or_else(user);
    let mut postback = Postback {
        catalog_version: catalog.version,
        catalog_hash: catalog.hash,
        trust: Trust::Operator.into(),
        advertiser: advertiser.get(),
        adjusted_by: text("by", &by)?,
        note: text("reason", &arguments.reason)?,
        ..Postback::default()
    };
    if let Some(goal) = &arguments.goal {
        let mut offers = catalog.offers.values();
        if !offers.any(|offer| offer.advertiser == advertiser && offer.goal(goal).is_some()) {
            let offers = catalog.offers.values();
            let goals = offers.filter(|offer| offer.advertiser == advertiser);
            let goals: Vec<&str> = goals
                .flat_map(|offer| offer.goals.values())
                .map(|goal| &*goal.name)
                .collect();
            return Err(refuse(format!(
                "no offer of {name} has a goal {goal}: its goals are {}",
                goals.join(", ")
            )));
        }
        postback.goal_text.clone_from(goal);
        postback.goal_name.clone_from(goal);
    }
    if let Some(affiliate) = &arguments.affiliate {
        let number = catalog.affiliate_number(affiliate).ok_or_else(|| {
            let known = catalog.affiliates.values().map(|of| &*of.name);
            not_in_catalog("affiliate", affiliate, known)
        })?;
        postback.credit_affiliate = number.get();
    }
    if let Some(amount) = &arguments.amount {
        let value = Micros::parse(amount).ok_or_else(|| {
            refuse(format!(
                "--amount {amount}: expected a number such as 80.00"
            ))
        })?;
        let currency = match &arguments.currency {
            Some(code) => Currency::parse(&code.to_ascii_uppercase()).ok_or_else(|| {
                refuse(format!(
                    "--currency {code}: expected a currency such as USD"
                ))
            })?,
            None => catalog.advertisers[&advertiser].currency,
        };
        if !currency.can_charge(value) || value > currency.order_max() {
            return Err(refuse(format!(
                "--amount {amount}: no order can be worth that in {currency}"
            )));
        }
        postback.has_amount = true;
        postback.amount_micros = value.0;
        postback.currency = currency.code().to_owned();
    }
    if let Some(status) = arguments.status {
        postback.set_status(status.into());
    }
    if !postback.has_amount && arguments.status.is_none() && arguments.affiliate.is_none() {
        return Err(refuse(
            "say what to change: --amount, --status or --affiliate",
        ));
    }
    Ok(postback)
}

fn not_in_catalog<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Refusal {
    let near = match text::nearest(name, known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "check its spelling".to_owned(),
    };
    refuse(format!("{what} {name} is not in the catalog: {near}"))
}

/// Who runs this: as the environment says, as the machine's list of users says, or the user's number.
fn user() -> String {
    let said = ["SUDO_USER", "USER", "LOGNAME"].into_iter();
    let mut said = said.filter_map(|name| std::env::var(name).ok());
    if let Some(name) = said.find(|name| !name.trim().is_empty()) {
        return name;
    }
    let number = rustix::process::getuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    match name_of(number, &users) {
        Some(name) => name.to_owned(),
        None => format!("user {number}"),
    }
}

/// The name of a user in a list such as `/etc/passwd`.
fn name_of(number: u32, users: &str) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number_of) = (fields.next()?, fields.nth(1)?);
        (number_of.parse() == Ok(number) && !name.is_empty()).then_some(name)
    })
}

/// The order in the store, where it has the goal that is meant.
fn known(
    view: &View,
    catalog: &Arc<Catalog>,
    arguments: &Adjust,
    postback: &Postback,
) -> Result<OrderKey, Refusal> {
    let (advertiser, order) = (&arguments.advertiser, &arguments.order);
    let key = reports::order_key(view, catalog, advertiser, order).map_err(refuse)?;
    let key = key.ok_or_else(|| {
        refuse(format!(
            "nobody reported an order {order} of {advertiser}: check its spelling"
        ))
    })?;
    let goals = reports::goals(view, &key).map_err(refuse)?;
    let takes_back = matches!(postback.status(), Status::Rejected | Status::Reversed);
    let is_one = match &arguments.goal {
        Some(goal) => goals.contains(goal),
        None => goals.len() == 1 || takes_back && !postback.has_amount && !goals.is_empty(),
    };
    if !is_one {
        let goals = match goals.is_empty() {
            true => "none yet".to_owned(),
            false => goals.join(", "),
        };
        return Err(refuse(format!(
            "order {order} has these goals: {goals}; name one with --goal"
        )));
    }
    Ok(key)
}

/// Appends the word to the commands' journal, as a stream of its own that ends with it.
fn record(data: &Path, catalog_lock: u64, mut postback: Postback) -> Result<ClickKey, Refusal> {
    let keys = Keys::read(&data.join("keys")).map_err(refuse)?;
    let folder = data.join("journal").join(JOURNAL);
    let stream = StreamId::random();
    let options = Options {
        ring_bytes: RING_BYTES,
        folder_bytes_max: FOLDER_BYTES_MAX,
        ..Options::new(stream)
    };
    std::fs::create_dir_all(&folder)
        .map_err(|error| refuse(format!("{}: {error}", folder.display())))?;
    let started = Instant::now();
    let (mut writer, mut flusher, _) = loop {
        match journal::open(&folder, options.clone()) {
            Ok(opened) => break opened,
            Err(error) if error.is_in_use() && started.elapsed() < IN_USE_MAX => {
                Shutdown::new().wait_timeout(PAUSE);
            }
            Err(error) => return Err(refuse(error)),
        }
    };
    let at = ClickKey {
        time_ms: Clock::system().now_ms(),
        stream: stream.prefix(),
        sequence: writer.next_sequence() as u32,
    };
    let shard = domain::order::shard(
        keys.seed(),
        postback.advertiser,
        &postback.order,
        &postback.token,
        "",
    );
    postback.key = Some(at.into());
    postback.shard = shard.get().into();
    let record = EdgeRecord {
        topic: Topic::Postbacks as u32,
        lane: shard.lane().0.into(),
        n: Numbering::default().next(Topic::Postbacks, shard.lane()),
        address: Vec::new(),
        event: Some(Event::Postback(postback)),
        catalog_lock,
    };
    let end = EdgeRecord {
        event: Some(Event::End(StreamEnd {})),
        catalog_lock,
        ..EdgeRecord::default()
    };
    for record in [record, end] {
        writer
            .append(&record.encode_to_vec())
            .map_err(|full| refuse(format!("{}: {full}", folder.display())))?;
    }
    drop(writer);
    flusher.flush().map_err(refuse)?;
    Ok(at)
}

/// Waits until the word is folded; false when that takes longer than a person waits.
fn outcome(view: &View, at: ClickKey) -> Result<bool, Refusal> {
    let started = Instant::now();
    while started.elapsed() < OUTCOME_MAX {
        if view.postback(at).map_err(refuse)?.is_some() {
            return Ok(true);
        }
        Shutdown::new().wait_timeout(PAUSE);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_user_variable_asked_for_a_name_the_machine_knows() {
        let users = "root:x:0:0:root:/:/bin/sh\n\nbroken\nkim:x:1001:1001::/:/bin/sh\n:x:7:7:::\n";
        for (number, expected) in [(0, Some("root")), (1001, Some("kim")), (7, None), (1, None)] {
            assert_eq!(name_of(number, users), expected, "{number}");
        }
    }
}
