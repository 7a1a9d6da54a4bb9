//! The wave that follows everything: so many visitors that each partition has some, each with a click, a repeat of it and a
//! sale. Once all of that is in the report, everybody has folded everything that came before: a partition is read in order.

use std::error::Error;
use std::time::Duration;

use testkit::{http, wait};

use super::cluster::{Cluster, text};
use super::visits::{self, ADVERTISERS, HOST};
use crate::drive;

/// With eight partitions, one of fifty thousand waves misses one.
const VISITORS: usize = 96;

/// Each goes on until it is taken.
const TAKEN_MAX: Duration = Duration::from_secs(30);

/// What orders of the wave begin with.
pub(super) const ORDER: &str = "last-";

/// An offer whose goal needs no amount.
const OFFER: usize = 0;

pub(super) fn send(cluster: &Cluster) -> Result<(), Box<dyn Error>> {
    let (advertiser, _) = ADVERTISERS[OFFER];
    let secret = crate::replay::secret(&cluster.catalog().join(format!("{advertiser}.secret")))?;
    let click = format!(
        "/c?offer={}&aff={}",
        visits::offer_name(OFFER),
        visits::LAST
    );
    for visitor in 0..VISITORS {
        let edge = cluster.edges[visitor % cluster.edges.len()];
        let address = format!("203.0.113.{visitor}");
        let headers = [
            ("Host", HOST),
            ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0"),
            ("X-Forwarded-For", address.as_str()),
        ];
        let taken = |target: &str, token: &mut Option<String>| {
            wait::holds_within(TAKEN_MAX, || {
                let answer = http::get(edge, target, &headers).ok();
                *token = answer
                    .as_ref()
                    .and_then(|answer| drive::redirected_token(answer, visits::CLICK_PARAM));
                token.is_some() || answer.is_some_and(|answer| answer.status == 200)
            })
        };
        let mut token = None;
        let clicked = taken(&click, &mut token) && taken(&click, &mut token);
        let token = token.unwrap_or_default();
        let sale = format!(
            "/postback?token={token}&order={ORDER}{visitor}&goal=signup&status=approved&secret={secret}"
        );
        if !clicked || !taken(&sale, &mut None) {
            return Err(format!("visitor {visitor} of the last wave is not served").into());
        }
    }
    Ok(())
}

/// Whether all of it is in the report.
pub(super) fn is_counted(cluster: &Cluster) -> bool {
    let report = || -> Option<String> {
        let data = cluster.data(0);
        let by = ["report", "--by", "affiliate", "--format", "csv", "--data"];
        cluster
            .sluice(&[&by[..], &[text(&data).ok()?]].concat())
            .ok()
    };
    report().is_some_and(|report| {
        ["unique", "invalid", "conversions"].map(|column| figure(&report, column))
            == [Some(VISITORS); 3]
    })
}

/// A column of the last affiliate's row.
fn figure(report: &str, column: &str) -> Option<usize> {
    let mut lines = report
        .lines()
        .map(|line| line.split(',').collect::<Vec<_>>());
    let at = lines.next()?.iter().position(|name| *name == column)?;
    let row = lines.find(|row| row[0] == visits::LAST)?;
    row.get(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_of_its_column_in_the_last_affiliates_row() {
        let report = "affiliate,gross,unique,invalid\nblog-1,9,8,7\nlast,6,5,4\n";
        assert_eq!(figure(report, "unique"), Some(5));
        assert_eq!(figure(report, "conversions"), None);
        assert_eq!(figure("affiliate,unique\nblog-1,8\n", "unique"), None);
    }
}
