//! `catalog.lock`: the number behind each name, handed out once and never used again.
//!
//! One section a kind, `name = number`; a deleted entry's line stays, so that adding it again gives the number back.
//! `owner` keeps the advertiser of every offer, by number: whoever owed for a click owes for it for ever. `id` is the
//! lock's own identity: published versions carry it, so that another catalog's lock can never give old numbers new meanings.
//! Goals are keyed `<offer>.<name>` and links `<offer>.<affiliate>.<slug>`, by number: what a number means never
//! changes, so a link that is pointed elsewhere is another number. `next` is one above every number ever handed out.
//! `former` keeps the names that numbers had before they were renamed, so that a rename that is taken back gives the number
//! back. `version` keeps the hash of each catalog version: a version's number is handed out here, as all others are, and so
//! means the same on every machine.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write,
    io,
    path::Path,
};

use serde::Deserialize;

use crate::{
    Catalog, GoalName, LinkName, Names, OfferName, Problem, Problems, apply::CATALOG_BYTES_MAX,
    disk, links::entries::DOMAIN_MAX,
};

/// The greatest number of a link: what the links' index can name.
pub(crate) const LINK_MAX: u64 = (1 << 32) - 2;
const FORMAT: u32 = 2;

/// The section of the offers' advertisers.
const OWNER: &str = "owner";
/// The section of names before a rename.
const FORMER: &str = "former";
/// The section of the catalog versions' hashes.
const VERSION: &str = "version";
/// What an identity looks like: 128 bits in hexadecimal digits.
const ID_DIGITS: usize = 32;

/// What is numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Domain,
    Advertiser,
    Offer,
    Goal,
    Affiliate,
    Link,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Domain,
        Self::Advertiser,
        Self::Offer,
        Self::Goal,
        Self::Affiliate,
        Self::Link,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Advertiser => "advertiser",
            Self::Offer => "offer",
            Self::Goal => "goal",
            Self::Affiliate => "affiliate",
            Self::Link => "link",
        }
    }

    fn number_max(self) -> u64 {
        match self {
            // What an entry of the links can say.
            Self::Domain => DOMAIN_MAX.into(),
            Self::Advertiser => domain::Advertiser::MAX.into(),
            Self::Offer => domain::Offer::MAX.into(),
            Self::Goal => domain::Goal::MAX.into(),
            Self::Affiliate => domain::Affiliate::MAX.into(),
            Self::Link => LINK_MAX,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Section {
    next: u64,
    numbers: BTreeMap<String, u64>,
}

/// All numbers handed out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lock {
    /// Empty until it is first kept.
    pub(crate) id: String,
    sections: [Section; Kind::ALL.len()],
    /// Advertisers by offer.
    owners: BTreeMap<u64, u64>,
    /// Numbers by kind and former key.
    former: BTreeMap<(Kind, String), u64>,
    /// Hashes by catalog version.
    versions: BTreeMap<u32, u64>,
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "format")]
    _format: u32,
    id: String,
    next: BTreeMap<String, u64>,
    #[serde(default)]
    version: BTreeMap<String, String>,
    #[serde(flatten)]
    sections: BTreeMap<String, BTreeMap<String, u64>>,
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl Lock {
    pub(crate) fn new() -> Self {
        let empty = Section {
            next: 1,
            numbers: BTreeMap::new(),
        };
        Self {
            id: String::new(),
            sections: std::array::from_fn(|_| empty.clone()),
            owners: BTreeMap::new(),
            former: BTreeMap::new(),
            versions: BTreeMap::new(),
        }
    }

    /// Reads the lock; one that is not there is empty.
    pub(crate) fn read(path: &Path) -> Result<Self, Problems> {
        let bytes = match disk::read(path, CATALOG_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new()),
            Err(error) => {
                return Err(Problem::of_file(path, format!("cannot be read: {error}")).into());
            }
        };
        let text = String::from_utf8(bytes)
            .map_err(|_| Problem::of_file(path, "not text: restore it from backup"))?;
        Self::parse(&text).map_err(|message| Problem::of_file(path, message).into())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let broken =
            |error: toml::de::Error| format!("{}: restore it from backup", error.message());
        let head: Head = toml::from_str(text).map_err(broken)?;
        if head.format != FORMAT {
            return Err(format!(
                "catalog.lock of format {}, this version reads format {FORMAT}: use the version of sluice that wrote it",
                head.format
            ));
        }
        let mut file: File = toml::from_str(text).map_err(broken)?;
        let mut lock = Self::new();
        lock.id = file.id;
        if lock.id.len() != ID_DIGITS || !lock.id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!(
                "id \"{}\" is no identity of {ID_DIGITS} hexadecimal digits: restore it from backup",
                lock.id
            ));
        }
        for (version, hash) in file.version {
            let number = version.parse().ok().filter(|number| *number > 0);
            let known = number.zip(u64::from_str_radix(&hash, 16).ok());
            let (number, hash) = known.ok_or_else(|| {
                format!("version \"{version}\" = \"{hash}\" is no version and its hash: restore it from backup")
            })?;
            lock.versions.insert(number, hash);
        }
        for (key, number) in file.sections.remove(FORMER).unwrap_or_default() {
            let (kind, name) = key.split_once('.').unwrap_or_default();
            let kind = Kind::ALL.into_iter().find(|known| known.name() == kind);
            let kind = kind.ok_or_else(|| {
                format!("former \"{key}\" is no kind and a name: restore it from backup")
            })?;
            lock.former.insert((kind, name.to_owned()), number);
        }
        for (offer, advertiser) in file.sections.remove(OWNER).unwrap_or_default() {
            let offer = offer.parse().map_err(|_| {
                format!("owner \"{offer}\" is no offer's number: restore it from backup")
            })?;
            lock.owners.insert(offer, advertiser);
        }
        for kind in Kind::ALL {
            let section = &mut lock.sections[kind as usize];
            section.numbers = file.sections.remove(kind.name()).unwrap_or_default();
            section.next = file.next.remove(kind.name()).unwrap_or_default();
            let mut seen = BTreeSet::new();
            for (name, number) in &section.numbers {
                if *number == 0 || *number >= section.next || *number > kind.number_max() {
                    return Err(format!(
                        "{} \"{name}\" has number {number}, outside of what was handed out: restore it from backup",
                        kind.name()
                    ));
                }
                if !seen.insert(*number) {
                    return Err(format!(
                        "{} number {number} stands for two names: restore it from backup",
                        kind.name()
                    ));
                }
            }
            if section.next == 0 {
                return Err(format!(
                    "next {} number is missing: restore it from backup",
                    kind.name()
                ));
            }
        }
        if let Some(name) = file.sections.keys().chain(file.next.keys()).next() {
            return Err(format!(
                "unknown section \"{name}\": restore it from backup"
            ));
        }
        // Also says that every key is one this version can read.
        lock.names().zip(lock.link_names()).ok_or_else(|| {
            "a goal or link is not keyed by numbers, or an offer has no owner: restore it from backup".to_owned()
        })?;
        Ok(lock)
    }

    /// The file's text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::from(
            "# The number behind each name of the catalog. Written by sluice: keep it with the catalog, never edit it,\n# never delete it. Old clicks and invoices go on meaning the same thing because of it.\n",
        );
        let expect = "writing to a string does not fail";
        writeln!(text, "format = {FORMAT}\nid = \"{}\"\n\n[next]", self.id).expect(expect);
        for kind in Kind::ALL {
            writeln!(text, "{} = {}", kind.name(), self.section(kind).next).expect(expect);
        }
        for kind in Kind::ALL {
            writeln!(text, "\n[{}]", kind.name()).expect(expect);
            for (name, number) in &self.section(kind).numbers {
                writeln!(text, "\"{name}\" = {number}").expect(expect);
            }
        }
        writeln!(text, "\n[{OWNER}]").expect(expect);
        for (offer, advertiser) in &self.owners {
            writeln!(text, "\"{offer}\" = {advertiser}").expect(expect);
        }
        writeln!(text, "\n[{FORMER}]").expect(expect);
        for ((kind, name), number) in &self.former {
            writeln!(text, "\"{}.{name}\" = {number}", kind.name()).expect(expect);
        }
        writeln!(text, "\n[{VERSION}]").expect(expect);
        for (version, hash) in &self.versions {
            writeln!(text, "\"{version}\" = \"{hash:016x}\"").expect(expect);
        }
        text
    }

    fn section(&self, kind: Kind) -> &Section {
        &self.sections[kind as usize]
    }

    pub(crate) fn get(&self, kind: Kind, key: &str) -> Option<u64> {
        self.section(kind).numbers.get(key).copied()
    }

    /// Keeps that all link numbers up to this one are handed out, by the numbers of a file of links.
    pub(crate) fn hand_out_links(&mut self, greatest: u64) {
        let next = &mut self.sections[Kind::Link as usize].next;
        *next = (*next).max(greatest + 1);
    }

    /// The greatest link number handed out; 0 before the first.
    pub(crate) fn greatest_link(&self) -> u64 {
        self.section(Kind::Link).next - 1
    }

    /// The number of a key, a new one if it has none; `None` when all are used up.
    pub(crate) fn number(&mut self, kind: Kind, key: &str) -> Option<u64> {
        let section = &mut self.sections[kind as usize];
        if let Some(number) = section.numbers.get(key) {
            return Some(*number);
        }
        let number = section.next;
        if number > kind.number_max() {
            return None;
        }
        section.next += 1;
        section.numbers.insert(key.to_owned(), number);
        // The name is another thing's from here on.
        self.former.remove(&(kind, key.to_owned()));
        Some(number)
    }

    /// The last version and its hash; zeros before the first.
    pub(crate) fn last_version(&self) -> (u32, u64) {
        let last = self.versions.last_key_value();
        last.map_or((0, 0), |(version, hash)| (*version, *hash))
    }

    /// The hash of a version.
    pub(crate) fn version_hash(&self, version: u32) -> Option<u64> {
        self.versions.get(&version).copied()
    }

    /// Keeps the hash of a version.
    pub(crate) fn keep_version(&mut self, version: u32, hash: u64) {
        self.versions.insert(version, hash);
    }

    /// The key that took a key's number by a rename.
    pub(crate) fn renamed_to(&self, kind: Kind, key: &str) -> Option<&str> {
        let number = self.former.get(&(kind, key.to_owned()))?;
        self.name_of(kind, *number)
    }

    /// Gives a key its number back that moved to another key by a rename, where that one is not in the catalog: the rename
    /// was taken back, often by a version control tool, which does not know this file.
    pub(crate) fn take_back(&mut self, kind: Kind, key: &str, is_there: impl Fn(&str) -> bool) {
        if self.get(kind, key).is_some() {
            return;
        }
        if let Some(now) = self.renamed_to(kind, key).map(str::to_owned)
            && !is_there(&now)
        {
            let moved = self.rename(kind, &now, key);
            debug_assert!(moved.is_ok(), "the key was looked for above");
        }
    }

    /// Keeps who owes for an offer; refused when it was another one before.
    pub(crate) fn own(&mut self, offer: u64, advertiser: u64) -> Result<(), u64> {
        match *self.owners.entry(offer).or_insert(advertiser) {
            owner if owner == advertiser => Ok(()),
            owner => Err(owner),
        }
    }

    /// Whether a number was ever handed out under a name; a link's name is its slug.
    pub(crate) fn knows(&self, kind: Kind, name: &str) -> bool {
        let numbers = &self.section(kind).numbers;
        match kind {
            Kind::Link => numbers
                .keys()
                .any(|key| link_key_parts(key).is_some_and(|(_, _, slug)| slug == name)),
            _ => numbers.contains_key(name),
        }
    }

    /// Whether no number of a kind was handed out.
    pub(crate) fn is_new(&self, kind: Kind) -> bool {
        self.section(kind).numbers.is_empty()
    }

    /// The name of a number.
    pub(crate) fn name_of(&self, kind: Kind, number: u64) -> Option<&str> {
        let mut numbers = self.section(kind).numbers.iter();
        numbers
            .find(|(_, known)| **known == number)
            .map(|(name, _)| name.as_str())
    }

    /// Moves the number of `was` to `key`. Nothing to do when `was` has none: it moved before.
    /// Refused when both have one: then they stand for two things.
    pub(crate) fn rename(&mut self, kind: Kind, was: &str, key: &str) -> Result<(), (u64, u64)> {
        let numbers = &mut self.sections[kind as usize].numbers;
        match (numbers.get(was), numbers.get(key)) {
            (None, _) => Ok(()),
            (Some(was), Some(own)) => Err((*was, *own)),
            (Some(_), None) => {
                let number = numbers.remove(was).expect("found above");
                numbers.insert(key.to_owned(), number);
                self.former.remove(&(kind, key.to_owned()));
                self.former.insert((kind, was.to_owned()), number);
                Ok(())
            }
        }
    }

    /// Moves what the links of a slug meant before they were pointed elsewhere along to the new slug, so that these
    /// numbers, too, show the name people know. Takes the new slug by the old one.
    pub(crate) fn rename_slugs(&mut self, renamed: &HashMap<&str, &str>) {
        if renamed.is_empty() {
            return;
        }
        let numbers = &mut self.sections[Kind::Link as usize].numbers;
        let mut moves = Vec::new();
        for key in numbers.keys() {
            if let Some((_, _, was)) = link_key_parts(key)
                && let Some(slug) = renamed.get(was)
            {
                let head = &key[..key.len() - was.len()];
                moves.push((key.clone(), format!("{head}{slug}")));
            }
        }
        for (was, key) in moves {
            if !numbers.contains_key(&key)
                && let Some(number) = numbers.remove(&was)
            {
                self.former.remove(&(Kind::Link, key.clone()));
                self.former.insert((Kind::Link, was), number);
                numbers.insert(key, number);
            }
        }
    }

    /// The name of every number; `None` when a key cannot be read.
    pub(crate) fn names(&self) -> Option<Names> {
        let mut names = Names::default();
        for (name, number) in &self.section(Kind::Domain).numbers {
            let number = domain::Domain::new((*number).try_into().ok()?)?;
            names.domains.insert(number, name.clone());
        }
        for (name, number) in &self.section(Kind::Advertiser).numbers {
            let number = domain::Advertiser::new((*number).try_into().ok()?)?;
            names.advertisers.insert(number, name.clone());
        }
        for (name, number) in &self.section(Kind::Offer).numbers {
            let owner = *self.owners.get(number)?;
            let offer = OfferName {
                name: name.clone(),
                advertiser: domain::Advertiser::new(owner.try_into().ok()?)?,
            };
            let number = domain::Offer::new((*number).try_into().ok()?)?;
            names.offers.insert(number, offer);
        }
        for (name, number) in &self.section(Kind::Affiliate).numbers {
            let number = domain::Affiliate::new((*number).try_into().ok()?)?;
            names.affiliates.insert(number, name.clone());
        }
        for (key, number) in &self.section(Kind::Goal).numbers {
            let (offer, name) = key.split_once('.')?;
            let goal = GoalName {
                offer: domain::Offer::new(offer.parse().ok()?)?,
                name: name.to_owned(),
            };
            let number = domain::Goal::new((*number).try_into().ok()?)?;
            names.goals.insert(number, goal);
        }
        Some(names)
    }

    /// What every link's number means; `None` when a key cannot be read.
    pub(crate) fn link_names(&self) -> Option<BTreeMap<domain::Link, LinkName>> {
        let numbers = self.section(Kind::Link).numbers.iter();
        numbers
            .map(|(key, number)| {
                let (offer, affiliate, slug) = link_key_parts(key)?;
                let link = LinkName {
                    slug: slug.to_owned(),
                    offer,
                    affiliate,
                };
                Some((domain::Link::new(*number)?, link))
            })
            .collect()
    }

    /// What a published catalog knows and this lock has lost: numbers that are gone, or stand for something else.
    pub(crate) fn lost(&self, published: &Catalog) -> Vec<String> {
        let mut lost = Vec::new();
        for kind in Kind::ALL {
            if kind == Kind::Link {
                continue;
            }
            let known: BTreeMap<String, u64> = keys(&published.names, kind).collect();
            let known_numbers: BTreeSet<u64> = known.values().copied().collect();
            let section = self.section(kind);
            let numbers: BTreeSet<u64> = section.numbers.values().copied().collect();
            for (key, number) in &known {
                // A key may have moved by a rename; its number is still there then, and the key is free or new.
                let stolen = self
                    .get(kind, key)
                    .is_some_and(|now| now != *number && known_numbers.contains(&now));
                if stolen || !numbers.contains(number) {
                    lost.push(format!("{} \"{key}\" = {number}", kind.name()));
                }
            }
        }
        lost
    }

    /// The same of links.
    pub(crate) fn lost_links(&self, published: &Catalog) -> Vec<String> {
        let mut lost = Vec::new();
        let section = self.section(Kind::Link);
        let numbers: BTreeSet<u64> = section.numbers.values().copied().collect();
        for (number, link) in published.links.iter() {
            let key = link_key(
                link.offer.get().into(),
                link.affiliate.get().into(),
                link.slug(),
            );
            let stolen = section.numbers.get(&key).is_some_and(|now| {
                let known = domain::Link::new(*now).and_then(|now| published.links.get(now));
                *now != number.get() && known.is_some()
            });
            if stolen || !numbers.contains(&number.get()) {
                lost.push(format!("{} \"{key}\" = {number}", Kind::Link.name()));
            }
        }
        lost
    }
}

/// The first 64 bits of an identity; 0 where there is none.
pub(crate) fn id_number(id: &str) -> u64 {
    let first = id.get(..ID_DIGITS / 2).unwrap_or_default();
    u64::from_str_radix(first, 16).unwrap_or_default()
}

/// The key of a goal.
pub(crate) fn goal_key(offer: u64, name: &str) -> String {
    format!("{offer}.{name}")
}

/// The key of a link.
pub(crate) fn link_key(offer: u64, affiliate: u64, slug: &str) -> String {
    format!("{offer}.{affiliate}.{slug}")
}

/// The name within a key, as its author writes it.
pub(crate) fn name_in_key(kind: Kind, key: &str) -> &str {
    let parts = match kind {
        Kind::Goal => 2,
        Kind::Link => 3,
        _ => 1,
    };
    key.splitn(parts, '.').last().unwrap_or_default()
}

pub(crate) fn link_key_parts(key: &str) -> Option<(domain::Offer, domain::Affiliate, &str)> {
    let mut parts = key.splitn(3, '.');
    let offer = domain::Offer::new(parts.next()?.parse().ok()?)?;
    let affiliate = domain::Affiliate::new(parts.next()?.parse().ok()?)?;
    Some((offer, affiliate, parts.next()?))
}

/// The keys of everything a version knows, as the lock spells them.
pub(crate) fn published_keys(
    catalog: &Catalog,
    with_links: bool,
) -> impl Iterator<Item = (Kind, String, u64)> + '_ {
    let named = Kind::ALL
        .into_iter()
        .flat_map(|kind| keys(&catalog.names, kind).map(move |(key, number)| (kind, key, number)));
    let links = with_links.then(|| catalog.links.iter());
    let links = links.into_iter().flatten().map(|(number, link)| {
        let (offer, affiliate) = (link.offer.get().into(), link.affiliate.get().into());
        let key = link_key(offer, affiliate, link.slug());
        (Kind::Link, key, number.get())
    });
    named.chain(links)
}

/// The keys of a kind as the lock spells them.
fn keys(names: &Names, kind: Kind) -> Box<dyn Iterator<Item = (String, u64)> + '_> {
    match kind {
        Kind::Domain => Box::new(
            names
                .domains
                .iter()
                .map(|(n, k)| (k.clone(), n.get().into())),
        ),
        Kind::Advertiser => Box::new(
            names
                .advertisers
                .iter()
                .map(|(n, k)| (k.clone(), n.get().into())),
        ),
        Kind::Offer => Box::new(
            names
                .offers
                .iter()
                .map(|(n, k)| (k.name.clone(), n.get().into())),
        ),
        Kind::Goal => Box::new(
            names
                .goals
                .iter()
                .map(|(n, k)| (goal_key(k.offer.get().into(), &k.name), n.get().into())),
        ),
        Kind::Affiliate => Box::new(
            names
                .affiliates
                .iter()
                .map(|(n, k)| (k.clone(), n.get().into())),
        ),
        Kind::Link => Box::new(std::iter::empty()),
    }
}
