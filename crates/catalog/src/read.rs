//! A catalog's text to the checked model, collecting every mistake on the way.
//!
//! Three steps: list the entries of each kind, give them numbers (references need them), then read their fields. The
//! fields of each table stand in one list, those of the whole shape that this version does not serve in another.

pub(crate) mod fields;
mod reader;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};

use domain::Rate;
use text::nearest;
use toml::de::{DeTable, DeValue};

use crate::{
    Advertiser, Affiliate, Catalog, Destination, DomainEntry, Goal, Link, Links, Network, Offer,
    Problem, Problems, SecretRef,
    destination::plain_address,
    disk,
    lock::{self, Kind, Lock, goal_key, link_key},
};
use fields::{currency, name_mistake, timezone, window_ms};
use reader::{Field, Reader, Section};

/// Secrets of an advertiser that are valid at once: the old one and the new.
const SECRETS_MAX: usize = 2;
const CLICK_PARAM: &str = "sl";
const WINDOW: &str = "30d";

/// An entry before its fields are read.
struct Entry<'t> {
    name: String,
    /// As in the lock; 0 when numbers are used up, which is a problem of its own.
    number: u64,
    section: Section<'t>,
    was: Option<Field<'t, &'t str>>,
}

/// The entries of a kind in the order of the file, and their numbers by name.
struct Entries<'t> {
    kind: Kind,
    list: Vec<Entry<'t>>,
    numbers: HashMap<String, u64>,
}

/// Reads a catalog's text, handing out numbers in `lock`; beside the catalog, whose version is 0, what is allowed and seldom
/// meant. The secrets in `known` need not be readable now.
pub(crate) fn read(
    path: &Path,
    text: &str,
    known: &[SecretRef],
    lock: &mut Lock,
) -> Result<(Catalog, Vec<Problem>), Problems> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader::new(path, text, &errors);
    let root = Section {
        table: root.get_ref(),
        field: String::new(),
        at: None,
    };
    reader.only(&root, &fields::ROOT);

    let mut domains = entries(&mut reader, &root, Kind::Domain);
    let mut advertisers = entries(&mut reader, &root, Kind::Advertiser);
    let mut offers = entries(&mut reader, &root, Kind::Offer);
    let mut affiliates = entries(&mut reader, &root, Kind::Affiliate);
    let mut links = entries(&mut reader, &root, Kind::Link);
    for entries in [&mut domains, &mut advertisers, &mut offers, &mut affiliates] {
        for entry in &entries.list {
            let is_there = |name: &str| entries.numbers.contains_key(name);
            lock.take_back(entries.kind, &entry.name, is_there);
        }
        for entry in &entries.list {
            rename(&mut reader, lock, entries.kind, entry, |name| {
                name.to_owned()
            });
        }
        for entry in &mut entries.list {
            entry.number = hand_out(&mut reader, lock, entries.kind, &entry.name, &entry.section);
            entries.numbers.insert(entry.name.clone(), entry.number);
        }
    }

    let network = network(&mut reader, &root);
    let domains_read = domains
        .list
        .iter()
        .map(|entry| (entry.number, domain(&mut reader, entry, &domains)))
        .collect::<Vec<_>>();
    let folder = disk::home(path);
    let advertisers_read = advertisers
        .list
        .iter()
        .map(|entry| {
            let read = advertiser(&mut reader, entry, &folder, known, network.as_ref());
            (entry.number, read)
        })
        .collect::<Vec<_>>();
    let offers_read = offers
        .list
        .iter()
        .map(|entry| {
            let read = offer(&mut reader, entry, &advertisers, &domains, lock);
            if let Some(read) = &read {
                keep_owner(&mut reader, lock, entry, read);
            }
            (entry.number, read)
        })
        .collect::<Vec<_>>();
    let affiliates_read = affiliates
        .list
        .iter()
        .map(|entry| (entry.number, affiliate(&mut reader, entry, &offers)))
        .collect::<Vec<_>>();
    let approved: HashMap<u64, &Affiliate> = affiliates_read
        .iter()
        .filter_map(|(number, read)| Some((*number, read.as_ref()?)))
        .collect();
    let links_read = links
        .list
        .iter()
        .map(|entry| {
            link(
                &mut reader,
                entry,
                &domains,
                &affiliates,
                &offers,
                &approved,
            )
        })
        .collect::<Vec<_>>();
    let keys: BTreeSet<String> = links_read.iter().flatten().map(key_of).collect();
    for key in &keys {
        lock.take_back(Kind::Link, key, |key| keys.contains(key));
    }
    for (entry, read) in links.list.iter().zip(&links_read) {
        if let Some(link) = read {
            let key =
                |slug: &str| link_key(link.offer.get().into(), link.affiliate.get().into(), slug);
            rename(&mut reader, lock, Kind::Link, entry, key);
        }
    }
    let slugs = links.list.iter().filter_map(|entry| {
        let was = entry.was.as_ref()?;
        Some((was.value, &*entry.name))
    });
    lock.rename_slugs(&slugs.collect());
    for (entry, read) in links.list.iter_mut().zip(&links_read) {
        if let Some(link) = read {
            entry.number = hand_out(&mut reader, lock, Kind::Link, &key_of(link), &entry.section);
        }
    }

    let links_read = numbered(
        links.list.iter().map(|entry| entry.number).zip(links_read),
        domain::Link::new,
    );
    let names = lock.names();
    let link_names = lock.link_names();
    let warnings = reader.finish()?;
    let link_names = link_names.expect("the lock's keys were read or made by this version");
    let links = Links::new(&link_names, &links_read).ok_or_else(|| {
        let message = "catalog.lock has lost link numbers: restore it from backup";
        Problem::of_file(path, message)
    })?;
    // Without a problem every entry was read and has a number in range.
    let catalog = Catalog {
        version: 0,
        hash: 0,
        lock_id: String::new(),
        network: network.expect("read without a problem"),
        domains: numbered(domains_read, |n| domain::Domain::new(n.try_into().ok()?)),
        advertisers: numbered(advertisers_read, |n| {
            domain::Advertiser::new(n.try_into().ok()?)
        }),
        offers: numbered(offers_read, |n| domain::Offer::new(n.try_into().ok()?)),
        affiliates: numbered(affiliates_read, |n| {
            domain::Affiliate::new(n.try_into().ok()?)
        }),
        links,
        names: names.expect("the lock's keys were read or made by this version"),
    };
    Ok((catalog, warnings))
}

fn key_of(link: &Link) -> String {
    link_key(
        link.offer.get().into(),
        link.affiliate.get().into(),
        &link.slug,
    )
}

fn numbered<N: Ord, E>(
    entries: impl IntoIterator<Item = (u64, Option<E>)>,
    number: impl Fn(u64) -> Option<N>,
) -> BTreeMap<N, E> {
    entries
        .into_iter()
        .filter_map(|(n, entry)| Some((number(n)?, entry?)))
        .collect()
}

/// The entries of a kind.
fn entries<'t>(reader: &mut Reader<'_>, root: &Section<'t>, kind: Kind) -> Entries<'t> {
    let mut list = Vec::new();
    for (name, section) in reader.tables(root, kind.name()) {
        if let Some(mistake) = name_mistake(kind, &name) {
            // The entry stays: what refers to it is not wrong for that.
            reader.problem(section.at, &section.field, mistake, None);
        }
        let was = reader.text(&section, "was");
        list.push(Entry {
            name,
            number: 0,
            section,
            was,
        });
    }
    let numbers: HashMap<String, u64> = list.iter().map(|entry| (entry.name.clone(), 0)).collect();
    let mut renamed = BTreeSet::new();
    for entry in &mut list {
        if let Some(was) = &entry.was
            && !was_alone(reader, was, numbers.contains_key(was.value), &mut renamed)
        {
            entry.was = None;
        }
    }
    Entries {
        kind,
        list,
        numbers,
    }
}

/// Whether `was` names something that is gone, and nothing else was it.
fn was_alone<'t>(
    reader: &mut Reader<'_>,
    was: &Field<'t, &'t str>,
    exists: bool,
    renamed: &mut BTreeSet<&'t str>,
) -> bool {
    if exists {
        let message = format!(
            "\"{}\" still exists: an entry cannot be what it was",
            was.value
        );
        reader.problem(Some(was.at), &was.field, message, None);
    } else if !renamed.insert(was.value) {
        let message = format!("another entry already was \"{}\"", was.value);
        reader.problem(Some(was.at), &was.field, message, None);
    } else {
        return true;
    }
    false
}

/// Moves the number an entry had under its old name.
fn rename(
    reader: &mut Reader<'_>,
    lock: &mut Lock,
    kind: Kind,
    entry: &Entry<'_>,
    key: impl Fn(&str) -> String,
) {
    if let Some(was) = &entry.was {
        rename_key(
            reader,
            lock,
            kind,
            was,
            &key(was.value),
            &key(&entry.name),
            &entry.name,
        );
    }
}

/// Who owes for an offer is written into every conversion of it, so it never changes.
fn keep_owner(reader: &mut Reader<'_>, lock: &mut Lock, entry: &Entry<'_>, offer: &Offer) {
    if let Err(owner) = lock.own(entry.number, offer.advertiser.get().into()) {
        let owner = lock.name_of(Kind::Advertiser, owner).unwrap_or("another");
        let message = format!(
            "the offer is \"{owner}\"'s, and its clicks and sales stay so: give the other advertiser an offer of its own"
        );
        let field = format!("{}.advertiser", entry.section.field);
        reader.problem(entry.section.at, &field, message, None);
    }
}

fn rename_key(
    reader: &mut Reader<'_>,
    lock: &mut Lock,
    kind: Kind,
    was: &Field<'_, &str>,
    was_key: &str,
    key: &str,
    name: &str,
) {
    if was_key == key {
        return;
    }
    let known = match kind {
        Kind::Link => lock.knows(kind, was.value) || lock.knows(kind, name),
        _ => lock.knows(kind, was_key) || lock.knows(kind, key),
    };
    if !known && !lock.is_new(kind) {
        let message = match lock.renamed_to(kind, was_key) {
            Some(now) => {
                let now = lock::name_in_key(kind, now);
                format!(
                    "\"{}\" was renamed to \"{now}\" before: write was = \"{now}\"",
                    was.value
                )
            }
            None => format!(
                "no {} was ever called \"{}\": a number is only moved from a name that has one",
                kind.name(),
                was.value
            ),
        };
        reader.problem(Some(was.at), &was.field, message, None);
        return;
    }
    if let Err((number_was, number_own)) = lock.rename(kind, was_key, key) {
        let message = format!(
            "\"{name}\" has number {number_own} from earlier use and \"{}\" has {number_was}: choose a name that was never used",
            was.value
        );
        reader.problem(Some(was.at), &was.field, message, None);
    }
}

fn hand_out(
    reader: &mut Reader<'_>,
    lock: &mut Lock,
    kind: Kind,
    key: &str,
    section: &Section<'_>,
) -> u64 {
    lock.number(kind, key).unwrap_or_else(|| {
        let message = format!("all {} numbers are used up", kind.name());
        reader.problem(section.at, &section.field, message, None);
        0
    })
}

fn network(reader: &mut Reader<'_>, root: &Section<'_>) -> Option<Network> {
    let Some(section) = reader.table(root, "network") else {
        reader.missing(root, "network.currency");
        return None;
    };
    reader.only(&section, &fields::NETWORK);
    let zone = match reader.text(&section, "timezone") {
        Some(zone) => reader.parsed(&zone, timezone(zone.value)),
        None => Some("UTC".to_owned()),
    };
    if let Some(unique) = reader.text(&section, "unique")
        && unique.value != "day"
    {
        reader.later(&unique, &["day"]);
    }
    let found = reader.required_text(&section, "currency")?;
    let currency = reader.parsed(&found, currency(found.value));
    Some(Network {
        timezone: zone?,
        currency: currency?,
    })
}

fn domain(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    domains: &Entries<'_>,
) -> Option<DomainEntry> {
    reader.only(&entry.section, &fields::DOMAIN);
    let mut fallback = None;
    if let Some(found) = reader.text(&entry.section, "fallback") {
        match plain_address(found.value) {
            Ok(address) => {
                no_loop(reader, &found, &address, domains);
                fallback = Some(address);
            }
            Err(mistakes) => {
                reader.problems(&found, mistakes);
                return None;
            }
        }
    }
    Some(DomainEntry {
        host: entry.name.clone(),
        fallback,
    })
}

/// Notes an address that leads back to a host of this catalog: its visitors would go round in circles. Another port is another
/// server.
fn no_loop(reader: &mut Reader<'_>, found: &Field<'_, &str>, address: &str, domains: &Entries<'_>) {
    let Ok(url) = url::Url::parse(address) else {
        return;
    };
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    if url.port().is_none() && domains.numbers.contains_key(host) {
        let message = format!(
            "leads back to \"{host}\", a domain of this catalog: its visitors would go round in circles"
        );
        reader.problem(Some(found.at), &found.field, message, None);
    }
}

fn advertiser(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    folder: &Path,
    known: &[SecretRef],
    network: Option<&Network>,
) -> Option<Advertiser> {
    let section = &entry.section;
    reader.only(section, &fields::ADVERTISER);
    let title = title(reader, entry);
    let currency = match reader.text(section, "currency") {
        Some(found) => reader.parsed(&found, currency(found.value)),
        None => network.map(|network| network.currency),
    };
    let secrets = match reader.table(section, "postback") {
        Some(postback) => {
            reader.only(&postback, &fields::POSTBACK);
            secrets(reader, &postback, folder, known)
        }
        None => Some(Vec::new()),
    };
    Some(Advertiser {
        name: entry.name.clone(),
        title: title?,
        currency: currency?,
        secrets: secrets?,
    })
}

fn secrets(
    reader: &mut Reader<'_>,
    postback: &Section<'_>,
    folder: &Path,
    known: &[SecretRef],
) -> Option<Vec<SecretRef>> {
    let Some(value) = reader.value(postback, "secret") else {
        reader.missing(postback, "secret");
        return None;
    };
    let found = match value.value {
        DeValue::Array(_) => reader.texts(postback, "secret")?,
        _ => vec![reader.text(postback, "secret")?],
    };
    if found.is_empty() || found.len() > SECRETS_MAX {
        let message = format!("expected one secret, or {SECRETS_MAX} while one replaces the other");
        reader.problem(Some(value.at), &value.field, message, None);
        return None;
    }
    let mut secrets = Vec::new();
    for found in &found {
        let secret = SecretRef::parse(found.value).map_err(str::to_owned);
        let secret = secret.and_then(|secret| {
            let mut there = secret.clone();
            there.resolve(folder);
            match there.read().map_err(|error| text::io_error(&error)) {
                Ok(_) => Ok(secret),
                Err(error) if known.contains(&secret) => {
                    let message = format!(
                        "cannot read the secret in {there}: {error}: its postbacks wait until it can be read"
                    );
                    reader.warning(Some(found.at), &found.field, message);
                    Ok(secret)
                }
                Err(error) => Err(format!("cannot read the secret in {there}: {error}")),
            }
        });
        secrets.extend(reader.parsed(found, secret));
    }
    (secrets.len() == found.len()).then_some(secrets)
}

fn offer(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    advertisers: &Entries<'_>,
    domains: &Entries<'_>,
    lock: &mut Lock,
) -> Option<Offer> {
    let section = &entry.section;
    reader.only(section, &fields::OFFER);
    let advertiser = reader
        .required_text(section, "advertiser")
        .and_then(|found| reference(reader, &found, advertisers))
        .and_then(|n| domain::Advertiser::new(n.try_into().ok()?));
    let click_param = match reader.text(section, "click_param") {
        Some(found) => {
            let checked = fields::click_param(found.value);
            reader.parsed(&found, checked)
        }
        None => Some(CLICK_PARAM.to_owned()),
    };
    let window_ms = match reader.text(section, "window") {
        Some(found) => reader.parsed(&found, window_ms(found.value)),
        None => window_ms(WINDOW).ok(),
    };
    if let Some(credit) = reader.text(section, "credit")
        && credit.value != "last"
    {
        reader.later(&credit, &["last", "first", "linear"]);
    }
    let destination = reader.required_text(section, "to").and_then(|found| {
        // A bad parameter has its own problem; the address is still checked.
        let param = click_param.as_deref().unwrap_or(CLICK_PARAM);
        match Destination::parse(found.value, param) {
            Ok(destination) => {
                no_loop(reader, &found, destination.head(), domains);
                if found.value.matches('?').count() > 1 {
                    let message = "has a second \"?\": what follows it belongs to the value before it. Write \"&\" between parameters, and %3F in a value";
                    reader.warning(Some(found.at), &found.field, message.to_owned());
                }
                Some(destination)
            }
            Err(mistakes) => {
                reader.problems(&found, mistakes);
                None
            }
        }
    });
    let goals = goals(reader, entry, lock);
    Some(Offer {
        name: entry.name.clone(),
        advertiser: advertiser?,
        destination: destination?,
        click_param: click_param?,
        window_ms: window_ms?,
        goals,
    })
}

fn goals(
    reader: &mut Reader<'_>,
    offer: &Entry<'_>,
    lock: &mut Lock,
) -> BTreeMap<domain::Goal, Goal> {
    let found = reader.tables(&offer.section, "goal");
    let names: BTreeSet<String> = found.iter().map(|(name, _)| name.clone()).collect();
    for name in &names {
        let is_there = |key: &str| names.contains(lock::name_in_key(Kind::Goal, key));
        lock.take_back(Kind::Goal, &goal_key(offer.number, name), is_there);
    }
    let mut renamed = BTreeSet::new();
    for (name, section) in &found {
        if let Some(was) = reader.text(section, "was") {
            was_alone(reader, &was, names.contains(was.value), &mut renamed);
            let was_key = goal_key(offer.number, was.value);
            let key = goal_key(offer.number, name);
            rename_key(reader, lock, Kind::Goal, &was, &was_key, &key, name);
        }
    }
    let mut goals = BTreeMap::new();
    for (name, section) in found {
        reader.only(&section, &fields::GOAL);
        if let Some(mistake) = name_mistake(Kind::Goal, &name) {
            reader.problem(section.at, &section.field, mistake, None);
        }
        let mut rate = |key| {
            let found = reader.required_text(&section, key)?;
            let rate = Rate::parse(found.value).map_err(str::to_owned);
            reader.parsed(&found, rate)
        };
        let (revenue, payout) = (rate("revenue"), rate("payout"));
        let key = goal_key(offer.number, &name);
        let number = hand_out(reader, lock, Kind::Goal, &key, &section);
        let number = u32::try_from(number).ok().and_then(domain::Goal::new);
        if let (Some(number), Some(revenue), Some(payout)) = (number, revenue, payout) {
            if exceeds(&payout, &revenue) {
                let message = "the payout is more than the revenue: each conversion costs money";
                reader.warning(section.at, &section.field, message.to_owned());
            }
            let goal = Goal {
                name,
                revenue,
                payout,
            };
            goals.insert(number, goal);
        }
    }
    goals
}

/// Whether one rate is more than the other, whatever the amount. Different kinds cannot be compared.
fn exceeds(rate: &Rate, other: &Rate) -> bool {
    match (rate, other) {
        (Rate::Percent { micros: rate }, Rate::Percent { micros: other }) => rate > other,
        (
            Rate::Fixed { micros, currency },
            Rate::Fixed {
                micros: other,
                currency: of_other,
            },
        ) => currency == of_other && micros.0 > other.0,
        _ => false,
    }
}

fn affiliate(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    offers: &Entries<'_>,
) -> Option<Affiliate> {
    reader.only(&entry.section, &fields::AFFILIATE);
    let title = title(reader, entry);
    let mut approved = BTreeSet::new();
    for found in reader.texts(&entry.section, "offers").unwrap_or_default() {
        let number = reference(reader, &found, offers);
        approved.extend(number.and_then(|n| domain::Offer::new(n.try_into().ok()?)));
    }
    Some(Affiliate {
        name: entry.name.clone(),
        title: title?,
        offers: approved,
    })
}

fn link(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    domains: &Entries<'_>,
    affiliates: &Entries<'_>,
    offers: &Entries<'_>,
    approved: &HashMap<u64, &Affiliate>,
) -> Option<Link> {
    let section = &entry.section;
    reader.only(section, &fields::LINK);
    let domain = match (reader.text(section, "domain"), &domains.list[..]) {
        (Some(found), _) => reference(reader, &found, domains),
        (None, [only]) => Some(only.number),
        (None, _) if reader.value(section, "domain").is_some() => None,
        (None, _) => {
            reader.missing(section, "domain");
            None
        }
    };
    let affiliate = reader
        .required_text(section, "affiliate")
        .and_then(|found| reference(reader, &found, affiliates));
    let offer = reader
        .required_text(section, "offer")
        .and_then(|found| Some((reference(reader, &found, offers)?, found)));
    let mut subs: [String; crate::SUBS] = Default::default();
    for (at, sub) in subs.iter_mut().enumerate() {
        if let Some(found) = reader.text(section, fields::SUB_KEYS[at]) {
            let checked = fields::short_text(found.value, fields::SUB_BYTES_MAX);
            *sub = reader.parsed(&found, checked).unwrap_or_default();
        }
    }
    let ((offer, offer_found), affiliate, domain) = (offer?, affiliate?, domain?);
    let offer = domain::Offer::new(offer.try_into().ok()?)?;
    let promoter = approved.get(&affiliate)?;
    if !promoter.offers.contains(&offer) {
        let message = format!(
            "affiliate \"{}\" is not approved for \"{}\": add it to affiliate.{}.offers",
            promoter.name, offer_found.value, promoter.name
        );
        reader.doubtful(&offer_found, message, None);
    }
    Some(Link {
        slug: entry.name.clone(),
        domain: domain::Domain::new(domain.try_into().ok()?)?,
        affiliate: domain::Affiliate::new(affiliate.try_into().ok()?)?,
        offer,
        subs,
    })
}

/// What people call an entry; its name when they do not say.
fn title(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<String> {
    match reader.text(&entry.section, "name") {
        Some(found) => {
            let checked = fields::short_text(found.value, fields::TITLE_BYTES_MAX);
            reader.parsed(&found, checked)
        }
        None => Some(entry.name.clone()),
    }
}

/// The number of the entry a field names.
fn reference(reader: &mut Reader<'_>, found: &Field<'_, &str>, among: &Entries<'_>) -> Option<u64> {
    let number = among.numbers.get(found.value).copied();
    if number.is_none() {
        let near = nearest(found.value, among.list.iter().map(|entry| &*entry.name));
        let message = format!("no {} \"{}\"", among.kind.name(), found.value);
        reader.doubtful(found, message, near);
    }
    number
}
