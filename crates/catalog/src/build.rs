//! A catalog whose links stand in a file of their own: millions, in little memory.
//!
//! The file is read twice at most and never held. A first pass checks each line, finds its number and writes its entry to a
//! file without a name; a second writes the entries into the snapshot by number and fills the index. What is held for a link
//! are eight bytes for its place and some six for its slot in the index, and, where numbers were handed out before, six for
//! looking these up during the first pass; the rest is files, which the machine can take out of memory.

mod lines;
mod table;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::{self, File},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use csv::StringRecord;
use domain::{Affiliate, Domain, Offer};
use text::nearest;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    Applied, Catalog, Changes, Checked, LinkEntry, Links, Problem, Problems, Removes, SUBS,
    SecretRef, apply,
    apply::failed,
    disk, folder,
    links::{
        entries::{self, Directory, Entries},
        index, slug_hash,
    },
    lock::{self, Kind},
    map::map,
    numbers::Numbers,
    read::fields::{SUB_BYTES_MAX, SUB_KEYS, name_mistake, short_text},
    snapshot,
};
use table::{BadLine, Columns, Table};

/// Problems listed of one file of links. Who makes a file by a program makes one mistake in every line.
const PROBLEMS_MAX: usize = 100;
/// The shortest line names slug, affiliate and offer by a letter each.
const LINE_BYTES_MIN: u64 = 6;
/// How many links go by between two looks at the progress.
const PROGRESS_EVERY: u64 = 10_000;

/// Told what is done, how much of it, and of how much.
pub type Progress<'p> = &'p dyn Fn(&'static str, u64, u64);

/// Checks a catalog and a file of its links, keeps their numbers, and makes both the version in force in `folder`. As
/// [`crate::apply`], but that the catalog has no links of its own.
///
/// # Errors
/// The mistakes in the catalog, or the first of those in the file of links; or a file that cannot be read or written. Then
/// the version before stays in force.
pub fn build(
    path: &Path,
    links: &Path,
    folder: &Path,
    new_id: &str,
    removes: Removes,
    progress: Progress<'_>,
) -> Result<Applied, Problems> {
    let _doors = apply::doors(path, folder)?;
    let mut checked = check_without_links(path, links, &folder::secrets(folder))?;
    let published = apply::published(folder, path, &checked.before)?;
    if let Some(published) = &published {
        apply::one_numbering(folder, published, &checked.before)?;
        apply::lost_nothing(path, &checked.before.lost(published))?;
        let (before, after) = (&checked.before, &checked.after);
        apply::renamed_before(path, before, after, published, &checked.catalog)?;
    }
    let mut numbers = Numbers::read(path, &checked.before, folder)?;
    if let Some(published) = &published {
        numbers.lost_nothing(&checked.before, published)?;
    }

    let rows = read(links, &checked.catalog, &numbers, folder, progress)?;
    numbers.forget_keys();
    let in_force = published.as_ref();
    let changes = Changes::between(in_force, &checked.catalog, rows.count(), |ordinal| {
        rows.bytes(ordinal)
    });
    apply::few_removed(links, &changes, removes)?;
    if checked.after.id.is_empty() {
        new_id.clone_into(&mut checked.after.id);
        // The id alone, before any number: links.lock is known by it.
        let mut named = checked.before.clone();
        new_id.clone_into(&mut named.id);
        apply::keep(path, &named)?;
    }
    let mut catalog = checked.catalog;
    catalog.lock_id.clone_from(&checked.after.id);

    let temporary = folder.join("links.snapshot.new");
    let built = (|| {
        let written = write(&catalog, &rows, &numbers, &temporary, progress)?;
        if !written.doubled.is_empty() {
            return Err(doubles(links, &written.doubled));
        }
        // Numbers first: one that is kept and never published is only a gap, one that is published and not kept is a lie.
        if rows.count() > numbers.entries.count {
            let new = (numbers.entries.count..rows.count()).filter_map(|ordinal| rows.get(ordinal));
            numbers.append(&checked.after.id, new)?;
            checked.after.hand_out_links(rows.count().into());
        }
        catalog.hash = catalog.content_hash(written.hash);
        catalog.version =
            apply::number_version(folder, in_force, &mut checked.after, catalog.hash)?;
        if checked.before != checked.after {
            apply::keep(path, &checked.after)?;
        }
        folder::keep_home(folder, &disk::home(path))
            .map_err(|error| failed(folder, "cannot be written", &error))?;
        drop(rows);
        finish(&mut catalog, written, &temporary)?;
        publish(&catalog, in_force, folder, &temporary)?;
        catalog.resolve_secrets(&disk::home(path));
        Ok(Applied {
            catalog: Arc::new(catalog),
            changes,
            warnings: checked.warnings,
        })
    })();
    if built.is_err() {
        // It has no meaning under this name; the next run writes over it.
        _ = fs::remove_file(&temporary);
    }
    built
}

/// Checks a catalog and a file of its links, and the locks beside them. Writes nothing beside temporary files.
///
/// # Errors
/// As [`build`].
pub fn check_build(path: &Path, links: &Path, progress: Progress<'_>) -> Result<Checked, Problems> {
    let work = tempfile::tempdir();
    let work = work.map_err(|error| failed(&std::env::temp_dir(), "cannot be written", &error))?;
    let mut checked = check_without_links(path, links, &[])?;
    let numbers = Numbers::read(path, &checked.before, work.path())?;
    let rows = read(links, &checked.catalog, &numbers, work.path(), progress)?;
    let temporary = work.path().join("links.snapshot");
    let written = write(&checked.catalog, &rows, &numbers, &temporary, progress)?;
    if !written.doubled.is_empty() {
        return Err(doubles(links, &written.doubled));
    }
    finish(&mut checked.catalog, written, &temporary)?;
    Ok(checked)
}

fn check_without_links(
    path: &Path,
    links: &Path,
    known: &[SecretRef],
) -> Result<Checked, Problems> {
    let checked = apply::check_file(path, known)?;
    if checked.catalog.links.is_empty() {
        return Ok(checked);
    }
    let message = format!("links stand in {}: move these there", links.display());
    Err(Problem {
        field: "link".to_owned(),
        ..Problem::of_file(path, message)
    }
    .into())
}

/// The links of the file, packed in the order of their lines.
struct Rows {
    entries: Bytes,
    /// By ordinal: where its entry begins, plus one; 0 where the file has none.
    places: Vec<u64>,
    live: u32,
}

impl Rows {
    fn count(&self) -> u32 {
        u32::try_from(self.places.len()).expect("numbers are handed out up to a bound")
    }

    fn bytes(&self, ordinal: u32) -> Option<&[u8]> {
        let place = self.places.get(ordinal as usize)?.checked_sub(1)?;
        entries::first(self.entries.get(usize::try_from(place).ok()?..)?)
    }

    fn get(&self, ordinal: u32) -> Option<LinkEntry<'_>> {
        entries::read(self.bytes(ordinal)?)
    }
}

/// The first pass.
fn read(
    path: &Path,
    catalog: &Catalog,
    numbers: &Numbers,
    work: &Path,
    progress: Progress<'_>,
) -> Result<Rows, Problems> {
    let unreadable = |error: &dyn std::error::Error| failed(path, "cannot be read", error);
    let unwritable = |error: io::Error| failed(work, "cannot be written", &error);
    let steady = disk::Steady::open(path)
        .map_err(|error| Problem::of_file(path, apply::unreadable(&error)))?;
    let file = &steady.file;
    // It may be read twice.
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err(Problem::of_file(path, "not a plain file").into());
    }
    let file_bytes = file.metadata().map_err(|error| unreadable(&error))?.len();
    let mut table = Table::open(path, file)?;
    let mut checker = Checker::new(path, catalog, table.columns);

    let mut out = BufWriter::new(tempfile::tempfile_in(work).map_err(unwritable)?);
    // Room for all the file can have, which takes no memory before it is used: growing would take it twice.
    let lines_max = usize::try_from(file_bytes / LINE_BYTES_MIN).unwrap_or_default();
    let known = numbers.entries.count as usize;
    let mut places = Vec::with_capacity(known + lines_max);
    places.resize(known, 0);
    let (mut live, mut place, mut lines) = (0, 0, 0);
    let mut is_doubled = false;
    let mut record = StringRecord::new();
    let mut entry = Vec::new();
    loop {
        match table.next(&mut record) {
            Ok(None) => break,
            Ok(Some(line)) => checker.line = line,
            Err(Ok(BadLine { line, message })) => {
                checker.line = line;
                checker.problem("", message, None);
                checker.not_too_many()?;
                continue;
            }
            Err(Err(error)) => return Err(unreadable(&error)),
        }
        lines += 1;
        if lines % PROGRESS_EVERY == 0 {
            progress("reading links", table.bytes_read(), file_bytes);
        }
        let Some(row) = checker.row(&record) else {
            checker.not_too_many()?;
            continue;
        };
        entry.clear();
        row.write(&mut entry);
        let ordinal = match numbers.find(row.offer, row.affiliate, row.slug) {
            Some(ordinal) => ordinal as usize,
            None => {
                places.push(0);
                places.len() - 1
            }
        };
        if ordinal as u64 >= lock::LINK_MAX {
            checker.problem("", "all link numbers are used up".to_owned(), None);
            break;
        }
        if places[ordinal] != 0 {
            is_doubled = true;
            continue;
        }
        places[ordinal] = place + 1;
        live += 1;
        place += entry.len() as u64;
        out.write_all(&entry).map_err(unwritable)?;
    }
    steady.ended(path).map_err(|error| unreadable(&error))?;
    progress("reading links", file_bytes, file_bytes);
    checker.finish(is_doubled)?;
    let file = out
        .into_inner()
        .map_err(|error| unwritable(error.into_error()))?;
    Ok(Rows {
        entries: map(&file).map_err(unwritable)?,
        places,
        live,
    })
}

/// A line without mistakes.
struct Row<'r> {
    slug: &'r str,
    domain: Domain,
    affiliate: Affiliate,
    offer: Offer,
    subs: [&'r str; SUBS],
}

impl Row<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let (offer, affiliate, domain) = (self.offer, self.affiliate, Some(self.domain));
        entries::write(out, self.slug, offer, affiliate, domain, |at| self.subs[at]);
    }
}

/// What lines are checked against, and what was found.
struct Checker<'c> {
    path: &'c Path,
    columns: Columns,
    domains: HashMap<&'c str, Domain>,
    offers: HashMap<&'c str, Offer>,
    affiliates: HashMap<&'c str, (Affiliate, &'c BTreeSet<Offer>)>,
    line: u64,
    problems: Vec<Problem>,
}

impl<'c> Checker<'c> {
    fn new(path: &'c Path, catalog: &'c Catalog, columns: Columns) -> Self {
        Self {
            path,
            columns,
            domains: catalog
                .domains
                .iter()
                .map(|(number, entry)| (&*entry.host, *number))
                .collect(),
            offers: catalog
                .offers
                .iter()
                .map(|(number, entry)| (&*entry.name, *number))
                .collect(),
            affiliates: catalog
                .affiliates
                .iter()
                .map(|(number, entry)| (&*entry.name, (*number, &entry.offers)))
                .collect(),
            line: 1,
            problems: Vec::new(),
        }
    }

    /// What a line says; `None` when it has a problem.
    fn row<'r>(&mut self, record: &'r StringRecord) -> Option<Row<'r>> {
        let before = self.problems.len();
        // Blanks after a comma, and before it, are nobody's name.
        let field = |at: usize| record.get(at).unwrap_or_default().trim_ascii();
        let slug = field(self.columns.slug);
        if let Some(mistake) = name_mistake(Kind::Link, slug) {
            self.problem("slug", mistake, None);
        }
        let domain = match self.columns.domain.map(field).unwrap_or_default() {
            "" if self.domains.len() == 1 => self.domains.values().next().copied(),
            "" => {
                let message = "is missing: the catalog has not just one".to_owned();
                self.problem("domain", message, None);
                None
            }
            host => known(&self.domains, host)
                .map_err(|near| self.unknown("domain", host, near))
                .ok(),
        };
        let name = field(self.columns.affiliate);
        let affiliate = known(&self.affiliates, name);
        let affiliate = affiliate
            .map_err(|near| self.unknown("affiliate", name, near))
            .ok();
        let offer_name = field(self.columns.offer);
        let offer = known(&self.offers, offer_name);
        let offer = offer
            .map_err(|near| self.unknown("offer", offer_name, near))
            .ok();
        if let (Some((_, approved)), Some(offer)) = (affiliate, offer)
            && !approved.contains(&offer)
        {
            let message = format!(
                "affiliate \"{name}\" is not approved for \"{offer_name}\": add it to affiliate.{name}.offers"
            );
            self.problem("offer", message, None);
        }
        let subs = self
            .columns
            .subs
            .map(|at| at.map(field).unwrap_or_default());
        for (at, sub) in subs.iter().enumerate().filter(|(_, sub)| !sub.is_empty()) {
            if let Err(mistake) = short_text(sub, SUB_BYTES_MAX) {
                self.problem(SUB_KEYS[at], mistake, None);
            }
        }
        let row = Row {
            slug,
            domain: domain?,
            affiliate: affiliate?.0,
            offer: offer?,
            subs,
        };
        (self.problems.len() == before).then_some(row)
    }

    fn unknown(&mut self, kind: &str, name: &str, near: Option<String>) {
        let message = match name {
            "" => "is missing".to_owned(),
            _ => format!("no {kind} \"{name}\""),
        };
        self.problem(kind, message, near);
    }

    fn problem(&mut self, field: &str, message: String, near: Option<String>) {
        self.problems.push(Problem {
            file: self.path.to_owned(),
            line: usize::try_from(self.line).unwrap_or_default(),
            field: field.to_owned(),
            message,
            nearest: near,
        });
    }

    /// Ends a reading that finds a problem in every line.
    fn not_too_many(&mut self) -> Result<(), Problems> {
        if self.problems.len() < PROBLEMS_MAX {
            return Ok(());
        }
        let message = format!("more than {PROBLEMS_MAX} problems: the rest was not read");
        self.problems.truncate(PROBLEMS_MAX);
        self.problems.push(Problem::of_file(self.path, message));
        Err(Problems(std::mem::take(&mut self.problems)))
    }

    /// With the slugs that stand in more than one line.
    fn finish(mut self, is_doubled: bool) -> Result<(), Problems> {
        if self.problems.is_empty() && !is_doubled {
            return Ok(());
        }
        // The second pass would find them; there is none.
        let doubled = doubled(self.path)?;
        self.problems.extend(doubles(self.path, &doubled).0);
        self.problems.sort_by_key(|problem| problem.line);
        Err(Problems(self.problems))
    }
}

/// What a name stands for, or the nearest one.
fn known<N: Copy>(names: &HashMap<&str, N>, name: &str) -> Result<N, Option<String>> {
    let found = names.get(name).copied();
    found.ok_or_else(|| {
        let mut names: Vec<&str> = names.keys().copied().collect();
        names.sort_unstable();
        nearest(name, names)
    })
}

/// A snapshot whose entries are there, and what else is known of its links.
struct Written {
    file: File,
    /// Where the entries begin.
    place: u64,
    directory: Directory,
    buckets: Vec<u8>,
    live: u32,
    checksum: u32,
    /// Of the entries.
    hash: u64,
    /// Slugs of more than one line, the first of them.
    doubled: BTreeSet<String>,
}

/// The second pass: the entries to their place in the snapshot's file.
fn write(
    catalog: &Catalog,
    rows: &Rows,
    numbers: &Numbers,
    path: &Path,
    progress: Progress<'_>,
) -> Result<Written, Problems> {
    let unwritable = |error: io::Error| failed(path, "cannot be written", &error);
    let count = rows.count();
    let place =
        snapshot::entries_place(catalog, count, rows.live).ok_or_else(|| too_large(path))?;
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let mut file = options.open(path).map_err(unwritable)?;
    file.seek(SeekFrom::Start(place)).map_err(unwritable)?;

    let mut out = BufWriter::new(file);
    let mut directory = Directory::default();
    let mut buckets = index::buckets(rows.live);
    let (mut checksum, mut hash) = (0, Xxh3::new());
    let mut doubled = BTreeSet::new();
    let mut none = Vec::new();
    entries::write_none(&mut none);
    for ordinal in 0..count {
        if u64::from(ordinal) % PROGRESS_EVERY == 0 {
            progress("writing links", ordinal.into(), count.into());
        }
        let entry = match rows.bytes(ordinal) {
            Some(entry) => {
                let slug = entries::read(entry).map_or("", |entry| entry.slug());
                let same = |other| (rows.get(other)?.is_of(slug)).then_some(());
                if index::find(&buckets, slug_hash(slug), same).is_some() {
                    doubled.insert(slug.to_owned());
                }
                index::insert(&mut buckets, slug_hash(slug), ordinal);
                entry
            }
            None => numbers.entries.bytes(ordinal).unwrap_or(&none),
        };
        if doubled.len() >= PROBLEMS_MAX {
            break;
        }
        let pushed = directory.push(entry.len());
        pushed.ok_or_else(|| too_large(path))?;
        checksum = crc32c::crc32c_append(checksum, entry);
        hash.update(entry);
        out.write_all(entry).map_err(unwritable)?;
    }
    progress("writing links", count.into(), count.into());
    let file = out.into_inner();
    Ok(Written {
        file: file.map_err(|error| unwritable(error.into_error()))?,
        place,
        directory,
        buckets,
        live: rows.live,
        checksum,
        hash: hash.digest(),
        doubled,
    })
}

/// Writes what comes before the entries; the snapshot is whole then, and its links stay in it.
fn finish(catalog: &mut Catalog, written: Written, path: &Path) -> Result<(), Problems> {
    let unwritable = |error: io::Error| failed(path, "cannot be written", &error);
    let entries_bytes = written.directory.heap_bytes;
    catalog.links = Links {
        entries: Entries {
            count: written.directory.count,
            directory: written.directory.bytes.into(),
            heap: Bytes::new(),
        },
        buckets: written.buckets.into(),
        live: written.live,
        checksum: written.checksum,
    };
    let before = snapshot::before_entries(catalog, entries_bytes);
    let before = before.ok_or_else(|| too_large(path))?;
    let mut file = written.file;
    file.seek(SeekFrom::Start(0)).map_err(unwritable)?;
    file.write_all(&before).map_err(unwritable)?;
    file.sync_all().map_err(unwritable)?;
    let place = usize::try_from(written.place).expect("a program's memory can be addressed");
    catalog.links.entries.heap = map(&file).map_err(unwritable)?.slice(place..);
    Ok(())
}

fn too_large(path: &Path) -> Problems {
    apply::published_broken(&crate::Error::new(snapshot::Kind::TooLarge).at(path))
}

/// Makes the written snapshot the version in force, unless it says the same as the one before.
fn publish(
    catalog: &Catalog,
    in_force: Option<&Catalog>,
    folder: &Path,
    temporary: &Path,
) -> Result<(), Problems> {
    if in_force.is_some_and(|in_force| in_force.version == catalog.version) {
        return fs::remove_file(temporary)
            .map_err(|error| failed(temporary, "cannot be removed", &error));
    }
    folder::remove_never_current(folder).map_err(|error| apply::published_broken(&error))?;
    let path = folder::snapshot_path(folder, catalog.version);
    fs::rename(temporary, &path)
        .and_then(|()| File::open(disk::folder_of(&path))?.sync_all())
        .map_err(|error| failed(&path, "cannot be written", &error))?;
    folder::make_current(folder, catalog.version).map_err(|error| apply::published_broken(&error))
}

/// The slugs that stand in more than one line, the first of them, found by reading the file once more.
fn doubled(path: &Path) -> Result<BTreeSet<String>, Problems> {
    let (mut seen, mut doubled) = (HashSet::new(), BTreeSet::new());
    each_slug(path, |slug, _| {
        if !seen.insert(slug_hash(slug)) && doubled.len() < PROBLEMS_MAX {
            doubled.insert(slug.to_owned());
        }
    })?;
    Ok(doubled)
}

/// The lines of slugs that stand in more than one, found by reading the file once more.
fn doubles(path: &Path, slugs: &BTreeSet<String>) -> Problems {
    let mut problems = Vec::new();
    let mut first: HashMap<String, u64> = HashMap::new();
    let read = each_slug(path, |slug, line| {
        if !slugs.contains(slug) || problems.len() >= PROBLEMS_MAX {
            return;
        }
        match first.get(slug) {
            None => _ = first.insert(slug.to_owned(), line),
            Some(first) => problems.push(Problem {
                line: usize::try_from(line).unwrap_or_default(),
                field: "slug".to_owned(),
                ..Problem::of_file(path, format!("\"{slug}\" stands in line {first} already"))
            }),
        }
    });
    match read {
        Err(unreadable) => unreadable,
        Ok(()) => Problems(problems),
    }
}

/// The slugs of the lines that can be read, each with its line.
fn each_slug(path: &Path, mut told: impl FnMut(&str, u64)) -> Result<(), Problems> {
    let unreadable = |error: &dyn std::error::Error| failed(path, "cannot be read", error);
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let mut table = Table::open(path, &file)?;
    let at = table.columns.slug;
    let mut record = StringRecord::new();
    loop {
        match table.next(&mut record) {
            Ok(None) => return Ok(()),
            Ok(Some(line)) => told(record.get(at).unwrap_or_default().trim_ascii(), line),
            // A line with a mistake, which is told already.
            Err(Ok(_)) => {}
            Err(Err(error)) => return Err(unreadable(&error)),
        }
    }
}
