//! A process's metrics, read as Prometheus reads them.

use std::io;
use std::net::SocketAddr;

use testkit::http;

/// The address of a process's listener, from what it wrote when it was up.
pub(crate) fn address(stdout: &str, what: &str) -> Option<SocketAddr> {
    stdout
        .lines()
        .find(|line| line.trim_start().starts_with(what))
        .and_then(|line| line.rsplit_once("http://")?.1.trim().parse().ok())
}

/// The values of a family, one a label set; empty where it is not exported.
pub(crate) fn values(admin: SocketAddr, family: &str) -> io::Result<Vec<f64>> {
    let response = http::get(admin, "/metrics", &[])?;
    Ok(parse(&response.text(), family))
}

fn parse(text: &str, family: &str) -> Vec<f64> {
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(family)?;
        // Another family may begin alike.
        if !rest.starts_with(['{', ' ']) {
            return None;
        }
        rest.rsplit_once(' ')?.1.parse().ok()
    });
    samples.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_all_of_its_label_sets_and_no_other() {
        let text =
            "# HELP a_total A.\na_total{j=\"0\"} 2\na_total{j=\"1\"} 3.5\na_total_more 9\na 7\n";
        assert_eq!(parse(text, "a_total"), [2.0, 3.5]);
        assert_eq!(parse(text, "a"), [7.0]);
        assert_eq!(parse(text, "b"), [0.0; 0]);
    }

    #[test]
    fn an_address_is_found_by_its_name() {
        let text = "sluice courier 0.1.0 is up, data in x\n  admin    http://127.0.0.1:9091\n";
        assert_eq!(address(text, "admin").unwrap().port(), 9091);
        assert_eq!(address(text, "edge"), None);
    }
}
