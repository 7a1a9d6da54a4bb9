//! What the store says, by `sluice dump-store`.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};

use domain::ClickKey;
use domain::event::{Click, Conversion};
use prost::Message;

use super::cluster::Cluster;
use crate::index::bytes;

/// What is paid for once: advertiser, order, goal.
pub(super) type OrderKey = (u32, String, String);

/// A click of the index.
pub(super) struct StoredClick {
    pub(super) key: ClickKey,
    pub(super) offer: u32,
    pub(super) affiliate: u32,
    pub(super) subs: [String; 3],
    /// Of the whole event.
    pub(super) digest: u64,
}

#[derive(Default)]
pub(super) struct Stored {
    /// By the click's own id.
    pub(super) clicks: BTreeMap<String, Vec<StoredClick>>,
    /// What each order has become, as the event that says so.
    pub(super) orders: BTreeMap<OrderKey, Vec<u8>>,
    /// Which click was flagged for what.
    pub(super) flags: BTreeSet<(ClickKey, u32)>,
}

impl Stored {
    pub(super) fn read(cluster: &Cluster) -> Result<Self, Box<dyn Error>> {
        let data = cluster.data();
        let data = data.to_str().ok_or("the folder's name is not text")?;
        let mut stored = Self::default();
        for line in cluster.sluice(&["dump-store", "--data", data])?.lines() {
            // clicks_20261120 x'<key>' x'<event>', conversions 1 "<order>" "<goal>" … x'<event>', flags x'<click>' 8
            let table = line.split(' ').next().unwrap_or_default();
            let parts: Vec<&str> = line.split('\'').collect();
            match (table, &parts[..]) {
                ("flags", [_, click, reason]) => {
                    stored.flags.insert((key(click)?, reason.trim().parse()?));
                }
                ("conversions", [.., event, _]) => {
                    let event = bytes(event);
                    let order = order_key(&Conversion::decode(&*event)?);
                    stored.orders.insert(order, event);
                }
                (table, [_, of, _, event, _]) if table.starts_with("clicks_") => {
                    let event = bytes(event);
                    let click = Click::decode(&*event)?;
                    let entry = stored.clicks.entry(click.ext).or_default();
                    entry.push(StoredClick {
                        key: key(of)?,
                        offer: click.offer,
                        affiliate: click.affiliate,
                        subs: [click.sub1, click.sub2, click.sub3],
                        digest: digest(&event),
                    });
                }
                _ => {}
            }
        }
        Ok(stored)
    }
}

pub(super) fn order_key(conversion: &Conversion) -> OrderKey {
    (
        conversion.advertiser,
        conversion.order.clone(),
        conversion.goal.clone(),
    )
}

/// Stands for an event where many are compared.
pub(super) fn digest(event: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.hash(&mut hasher);
    hasher.finish()
}

fn key(hex: &str) -> Result<ClickKey, Box<dyn Error>> {
    let key: [u8; 16] = bytes(hex)
        .try_into()
        .map_err(|_| format!("{hex} is not a key of 16 bytes"))?;
    Ok(ClickKey::from_bytes(key))
}
