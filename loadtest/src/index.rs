//! What a store holds, as `sluice dump-store` and `sluice report` print it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use domain::ClickKey;
use domain::event::{Click, Conversion};
use prost::Message;

/// The keys under each click's own id (`ext`).
pub(crate) fn parse(dump: &str) -> Result<BTreeMap<String, Vec<ClickKey>>, Box<dyn Error>> {
    let mut index: BTreeMap<String, Vec<ClickKey>> = BTreeMap::new();
    for line in dump.lines() {
        // clicks_20261120 x'<key>' x'<facts>'
        let blobs: Vec<&str> = line.split('\'').collect();
        if !line.starts_with("clicks_") || blobs.len() < 4 {
            continue;
        }
        let key: [u8; 16] = bytes(blobs[1])
            .try_into()
            .map_err(|_| "a key is not 16 bytes")?;
        let click = Click::decode(&*bytes(blobs[3]))?;
        index
            .entry(click.ext)
            .or_default()
            .push(ClickKey::from_bytes(key));
    }
    Ok(index)
}

/// Gross clicks and conversions of a report's first line in CSV.
pub(crate) fn reported(report: &str) -> Result<(usize, usize), Box<dyn Error>> {
    let mut lines = report.lines().map(|line| line.split(','));
    let (names, figures) = (lines.next(), lines.next());
    let row: BTreeMap<&str, &str> = names
        .zip(figures)
        .map(|(names, figures)| names.zip(figures).collect())
        .ok_or("an empty report")?;
    let figure = |name: &str| -> Result<usize, Box<dyn Error>> {
        let figure = row.get(name);
        Ok(figure.ok_or_else(|| format!("no column {name}"))?.parse()?)
    };
    Ok((figure("gross")?, figure("conversions")?))
}

/// The orders that are paid for.
pub(crate) fn paid(dump: &str) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let mut paid = BTreeSet::new();
    for line in dump.lines().filter(|line| line.starts_with("conversions ")) {
        // conversions 1 "<order>" "<goal>" … x'<event>'
        let event = line
            .rsplit('\'')
            .nth(1)
            .ok_or("an order without its event")?;
        let conversion = Conversion::decode(&*bytes(event))?;
        if !conversion.after.is_empty() {
            paid.insert(conversion.order);
        }
    }
    Ok(paid)
}

/// Of a blob as it is printed.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    digits
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
