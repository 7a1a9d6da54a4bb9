//! Versions as records of the topic `catalog`: how they reach another machine, and how a reader of the topics learns what
//! numbers mean.
//!
//! A record is an entry of a kind and number, and holds from the version that is in its key until a later one; each version is
//! closed by a record of its own. Nothing is ever overwritten, so any version can be put together again, and its hash says
//! that it is whole. A version is sent as what differs from the one before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use domain::event::{CatalogEntry, CatalogKind, CatalogVersion};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Catalog, Error, GoalName, LinksBuilder, Names, Network, OfferName, Problem, Problems,
    apply::{entries_hash, failed, published_broken},
    folder,
    links::entries,
    snapshot::Kind,
};

/// What was read of the topic.
#[derive(Debug, Default)]
pub struct Replica {
    /// By kind and number, and by the version since which each holds.
    entries: BTreeMap<(i32, u64), BTreeMap<u32, CatalogEntry>>,
    versions: BTreeMap<u32, CatalogVersion>,
}

impl Replica {
    /// Takes an entry.
    pub fn take_entry(&mut self, entry: CatalogEntry) {
        let held = self.entries.entry((entry.kind, entry.number)).or_default();
        held.insert(entry.since_version, entry);
    }

    /// Takes the record that closes a version.
    pub fn take_version(&mut self, version: CatalogVersion) {
        self.versions.insert(version.version, version);
    }

    /// The newest version that is closed.
    pub fn last(&self) -> Option<&CatalogVersion> {
        self.versions.last_key_value().map(|(_, version)| version)
    }

    /// The record that closes a version.
    pub fn version(&self, version: u32) -> Option<&CatalogVersion> {
        self.versions.get(&version)
    }

    /// The numbers of all closed versions.
    pub fn versions(&self) -> impl Iterator<Item = u32> + '_ {
        self.versions.keys().copied()
    }

    /// What a number means in a version.
    fn held(&self, kind: CatalogKind, version: u32) -> impl Iterator<Item = &CatalogEntry> {
        let kinds = (kind as i32, 0)..=(kind as i32, u64::MAX);
        self.entries
            .range(kinds)
            .filter_map(move |(_, held)| held.range(..=version).next_back())
            .map(|(_, entry)| entry)
    }

    /// The entries of a version that differ from what is held: what has to be sent for it.
    pub fn missing(&self, catalog: &Catalog) -> Vec<CatalogEntry> {
        let all = entries_of(catalog).into_iter();
        all.filter(|entry| {
            let held = self.entries.get(&(entry.kind, entry.number));
            let held = held.and_then(|held| held.range(..=catalog.version).next_back());
            held.is_none_or(|(since, held)| {
                let same = CatalogEntry {
                    since_version: *since,
                    ..entry.clone()
                };
                same != *held
            })
        })
        .collect()
    }

    /// Puts a closed version together; the text says why that is not possible.
    ///
    /// # Errors
    /// It is not closed, or what is held is not what was published.
    pub fn build(&self, version: u32) -> Result<Catalog, String> {
        let closed = self.versions.get(&version);
        let closed = closed.ok_or_else(|| format!("version {version} is not there"))?;
        let broken = |entry: &CatalogEntry| {
            format!(
                "version {version}: entry {} of kind {} is not of this version of sluice",
                entry.number, entry.kind
            )
        };
        let mut catalog = Catalog {
            version,
            hash: closed.hash,
            lock_id: closed.lock.clone(),
            network: Network {
                timezone: closed.timezone.clone(),
                currency: domain::Currency::parse(&closed.currency)
                    .ok_or_else(|| format!("no currency \"{}\"", closed.currency))?,
            },
            domains: BTreeMap::new(),
            advertisers: BTreeMap::new(),
            offers: BTreeMap::new(),
            affiliates: BTreeMap::new(),
            links: crate::Links::default(),
            names: Names::default(),
        };
        macro_rules! take {
            ($kind:ident, $number:ident, $entries:ident, $names:ident, $name:expr) => {
                for entry in self.held(CatalogKind::$kind, version) {
                    let number = u32::try_from(entry.number).ok();
                    let number = number.and_then(domain::$number::new);
                    let number = number.ok_or_else(|| broken(entry))?;
                    let name = $name(entry).ok_or_else(|| broken(entry))?;
                    catalog.names.$names.insert(number, name);
                    if !entry.gone {
                        let read = read(&entry.model).ok_or_else(|| broken(entry))?;
                        catalog.$entries.insert(number, read);
                    }
                }
            };
        }
        let name = |entry: &CatalogEntry| Some(entry.name.clone());
        let offer_name = |entry: &CatalogEntry| {
            Some(OfferName {
                name: entry.name.clone(),
                advertiser: domain::Advertiser::new(entry.advertiser)?,
            })
        };
        take!(Domain, Domain, domains, domains, name);
        take!(Advertiser, Advertiser, advertisers, advertisers, name);
        take!(Offer, Offer, offers, offers, offer_name);
        take!(Affiliate, Affiliate, affiliates, affiliates, name);
        for entry in self.held(CatalogKind::Goal, version) {
            let number = u32::try_from(entry.number).ok();
            let number = number.and_then(domain::Goal::new);
            let goal = number.zip(domain::Offer::new(entry.offer));
            let (number, offer) = goal.ok_or_else(|| broken(entry))?;
            let name = entry.name.clone();
            catalog.names.goals.insert(number, GoalName { offer, name });
        }
        let (mut links, mut next) = (LinksBuilder::default(), 1);
        for entry in self.held(CatalogKind::Link, version) {
            // Numbers that mean nothing have no record.
            for _ in next..entry.number {
                links.none();
            }
            let is_one =
                entries::first(&entry.model).is_some_and(|one| one.len() == entry.model.len());
            if !is_one {
                return Err(broken(entry));
            }
            links.entry(&entry.model);
            next = entry.number + 1;
        }
        catalog.links = links.finish().ok_or("too many links")?;
        if catalog.content_hash(entries_hash(&catalog.links.entries.heap)) != closed.hash {
            return Err(format!(
                "version {version} is not whole: records of the topic are missing, publish it again"
            ));
        }
        Ok(catalog)
    }
}

impl Catalog {
    /// The record that closes this version, published after `parent` by an installation whose keys are known by `keys`.
    pub fn closing(&self, parent: u32, keys: u64, time_ms: u64) -> CatalogVersion {
        CatalogVersion {
            version: self.version,
            hash: self.hash,
            parent,
            time_ms,
            lock: self.lock_id.clone(),
            timezone: self.network.timezone.clone(),
            currency: self.network.currency.to_string(),
            keys,
        }
    }
}

/// Everything of a version, in the order of kinds and numbers.
fn entries_of(catalog: &Catalog) -> Vec<CatalogEntry> {
    let names = &catalog.names;
    let new = |kind: CatalogKind, number: u64, name: &str, model: Option<Vec<u8>>| CatalogEntry {
        kind: kind.into(),
        number,
        since_version: catalog.version,
        name: name.to_owned(),
        gone: model.is_none(),
        model: model.unwrap_or_default(),
        ..CatalogEntry::default()
    };
    let mut all = Vec::new();
    for (number, name) in &names.domains {
        let model = catalog.domains.get(number).map(written);
        all.push(new(CatalogKind::Domain, number.get().into(), name, model));
    }
    for (number, name) in &names.advertisers {
        let advertiser = catalog.advertisers.get(number);
        all.push(CatalogEntry {
            title: advertiser.map_or_else(String::new, |is| is.title.clone()),
            currency: advertiser.map_or_else(String::new, |is| is.currency.to_string()),
            ..new(
                CatalogKind::Advertiser,
                number.get().into(),
                name,
                advertiser.map(written),
            )
        });
    }
    for (number, name) in &names.offers {
        let model = catalog.offers.get(number).map(written);
        all.push(CatalogEntry {
            advertiser: name.advertiser.get(),
            ..new(CatalogKind::Offer, number.get().into(), &name.name, model)
        });
    }
    let goals: BTreeSet<domain::Goal> = catalog
        .offers
        .values()
        .flat_map(|offer| offer.goals.keys().copied())
        .collect();
    for (number, name) in &names.goals {
        // Its rates are its offer's.
        all.push(CatalogEntry {
            offer: name.offer.get(),
            gone: !goals.contains(number),
            ..new(CatalogKind::Goal, number.get().into(), &name.name, None)
        });
    }
    for (number, name) in &names.affiliates {
        let affiliate = catalog.affiliates.get(number);
        all.push(CatalogEntry {
            title: affiliate.map_or_else(String::new, |is| is.title.clone()),
            ..new(
                CatalogKind::Affiliate,
                number.get().into(),
                name,
                affiliate.map(written),
            )
        });
    }
    for (number, link) in catalog.links.iter() {
        let ordinal = u32::try_from(number.get() - 1).ok();
        let model = ordinal.and_then(|ordinal| catalog.links.entries.bytes(ordinal));
        all.push(CatalogEntry {
            gone: link.domain.is_none(),
            domain: link.domain.map_or(0, domain::Domain::get),
            offer: link.offer.get(),
            affiliate: link.affiliate.get(),
            ..new(
                CatalogKind::Link,
                number.get(),
                link.slug(),
                model.map(<[u8]>::to_vec),
            )
        });
    }
    all
}

fn written<T: Serialize>(entry: &T) -> Vec<u8> {
    postcard::to_stdvec(entry).expect("the model has no type postcard refuses")
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (entry, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(entry)
}

/// Keeps a version that came by the topic in a folder of versions, and makes it the one in force where it is newer than that.
/// Returns whether it is in force now and was not.
///
/// # Errors
/// The folder cannot be written, or holds versions of another catalog: nothing is changed then.
pub fn receive(folder: &Path, catalog: &Catalog) -> Result<bool, Problems> {
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, "cannot be made", &error))?;
    let door = std::fs::File::open(folder).and_then(|door| door.lock().map(|()| door));
    let _door = door.map_err(|error| failed(folder, "cannot be locked", &error))?;
    let current = folder::current_version(folder).map_err(|error| published_broken(&error))?;
    if let Some(current) = current {
        let here = folder::load(folder, current).map_err(|error| published_broken(&error))?;
        if here.lock_id != catalog.lock_id {
            let message = format!(
                "holds the versions of catalog.lock {}, the topic those of {}: two catalogs number apart, and nothing is shipped or counted until one of them is gone. Name another stream.prefix, or move this folder away",
                here.lock_id, catalog.lock_id
            );
            return Err(Problem::of_file(folder, message).into());
        }
    }
    let path = folder::snapshot_path(folder, catalog.version);
    match folder::load(folder, catalog.version) {
        Ok(here) if here.hash != catalog.hash => {
            let message = "is another version than the topic has by this number: two copies of catalog.lock handed out versions. Apply the catalog on one machine only";
            return Err(Problem::of_file(path, message).into());
        }
        Ok(_) => {}
        Err(error) if error.is_missing() || error.is_damaged() => {
            let bytes = catalog.encode();
            let bytes =
                bytes.ok_or_else(|| published_broken(&Error::new(Kind::TooLarge).at(&path)))?;
            crate::disk::replace(&path, &bytes)
                .map_err(|error| failed(&path, "cannot be written", &error))?;
        }
        Err(error) => return Err(published_broken(&error)),
    }
    if current.is_some_and(|current| current >= catalog.version) {
        return Ok(false);
    }
    folder::make_current(folder, catalog.version).map_err(|error| published_broken(&error))?;
    Ok(true)
}
