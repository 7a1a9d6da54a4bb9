//! `loadtest replay`: sends the clicks of a file through a running edge, and a postback for each that was attributed.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::catalog::{HOST, SECRET_FILE};
use crate::clicks_file::{self, Click, affiliate_name, offer_name};
use crate::drive::{self, Run, Visit};
use crate::ledger::Ledger;
use crate::visitor;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file of clicks (.csv or .csv.gz)
    #[arg(long)]
    csv: PathBuf,
    /// Where the edge listens
    #[arg(long, default_value = "127.0.0.1:8080")]
    edge: SocketAddr,
    /// The folder that `loadtest catalog` wrote: the advertiser's secret is there
    #[arg(long)]
    catalog: PathBuf,
    /// The file that every answer is written to before the next request
    #[arg(long)]
    ledger: PathBuf,
    /// The redirect host
    #[arg(long, default_value = HOST)]
    host: String,
    /// Connections, each with one request under way
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Only the first so many clicks
    #[arg(long)]
    limit: Option<usize>,
    /// Go on when the server is killed: connect again and send the click again under a new id
    #[arg(long)]
    retry: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let clicks = clicks_file::read(&arguments.csv, arguments.limit)?;
    if let Some(row) = clicks
        .iter()
        .position(|click| visitor::address(click.ip).is_none())
    {
        return Err(format!("row {}: ip is not below {}", row + 1, visitor::ADDRESSES).into());
    }
    let secret = secret(&arguments.catalog.join(SECRET_FILE))?;
    let ledger = Ledger::create(&arguments.ledger)?;
    let run = Run {
        edge: arguments.edge,
        host: &arguments.host,
        connections: arguments.connections,
        rate: 0,
        retry: arguments.retry,
        click_param: "sl",
        goal: "install",
        secret: Some(&secret),
        ledger: &ledger,
        until: None,
    };
    let count = clicks.len() as u64;
    drive::run(&run, count, &|index| {
        let row = usize::try_from(index).expect("an index into a list");
        visit(row + 1, &clicks[row])
    })
}

/// The id of a row's click in the ledger and in the events.
pub(crate) fn ext(row: usize) -> String {
    format!("r{row}")
}

/// The row that an ext, also one of a click sent again (`r7.2`), came from.
pub(crate) fn row_of(ext: &str) -> Option<usize> {
    let row = ext.strip_prefix('r')?;
    let row = row.split_once('.').map_or(row, |(row, _)| row);
    row.parse().ok()
}

/// A secret file's content as it stands in a query.
pub(crate) fn secret(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(drive::encoded(bytes.trim_ascii_end()))
}

fn visit(row: usize, click: &Click) -> Visit {
    Visit {
        ext: ext(row),
        target: format!(
            "/c?offer={}&aff={}&ext=",
            offer_name(click.app),
            affiliate_name(click.channel)
        ),
        address: visitor::address(click.ip).expect("checked before the first click"),
        user_agent: visitor::user_agent(click.device, click.os),
        sale: click.attributed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ext_leads_back_to_its_row() {
        assert_eq!(row_of(&ext(12)), Some(12));
        assert_eq!(row_of("r12.3"), Some(12));
        assert_eq!(row_of("g1-12"), None);
        assert_eq!(row_of("rx"), None);
    }

    #[test]
    fn a_row_becomes_a_visit() {
        let click = Click {
            ip: 258,
            app: 3,
            device: 1,
            os: 19,
            channel: 7,
            attributed: true,
        };
        let visit = visit(5, &click);
        assert_eq!(visit.ext, "r5");
        assert_eq!(visit.target, "/c?offer=app-3&aff=channel-7&ext=");
        assert_eq!(visit.address.to_string(), "100.64.1.2");
        assert!(visit.sale);
    }
}
