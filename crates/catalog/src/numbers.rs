//! `links.lock`: the number behind each link of a file of links, handed out once and never used again.
//!
//! There are millions of these, so unlike `catalog.lock` it is not read whole, and only ever appended to:
//!
//! ```text
//! # a comment
//! format 1
//! id 00112233445566778899aabbccddeeff
//! 1 2.7.fall-boots
//! ```
//!
//! A line is a number and its key, `<offer>.<affiliate>.<slug>`, as in `catalog.lock`. Both files hand out from one row of
//! numbers: `next` of `catalog.lock` says how many are handed out, those that it does not have itself stand here, in their
//! order, and `id` ties the two together. Numbers are appended here first; what stands beyond `next` is what a command
//! left that did not come to its end, and means nothing.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use domain::{Affiliate, Offer};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{
    Catalog, LinkEntry, Problem, Problems,
    apply::failed,
    disk,
    links::{
        entries::{self, Directory, Entries},
        index,
    },
    lock::{self, Lock, link_key_parts},
    map::map,
    read::fields::name_mistake,
};

const HEAD: &str = "# The number behind each link of the file of links. Written by sluice: keep it with the catalog, never edit it,\n# never delete it. Old clicks and invoices go on meaning the same thing because of it.\n";
const FORMAT: &str = "format 1";
/// Longer than any line: a number, an offer's, an affiliate's, and a slug.
const LINE_BYTES_MAX: u64 = 256;

/// Where they are kept: beside the catalog.
pub(crate) fn path(catalog: &Path) -> PathBuf {
    disk::folder_of(catalog).join("links.lock")
}

/// Every link number handed out so far.
pub(crate) struct Numbers {
    path: PathBuf,
    /// How much of the file counts; 0 when there is none.
    good_bytes: u64,
    /// What each number means, as the entry of a link that is gone.
    pub(crate) entries: Entries,
    /// Ordinals by key.
    buckets: Vec<u8>,
}

impl Numbers {
    /// Reads both locks, the larger one into a file without a name in `work`.
    pub(crate) fn read(catalog: &Path, lock: &Lock, work: &Path) -> Result<Self, Problems> {
        let path = path(catalog);
        let broken = |error: io::Error| failed(&path, "cannot be read", &error);
        let mut lines = Lines::open(&path, &lock.id)?;
        let mut own = lock.link_names().unwrap_or_default().into_iter().peekable();
        let file = tempfile::tempfile_in(work)
            .map_err(|error| failed(work, "cannot be written", &error))?;
        let mut out = BufWriter::new(file);
        let mut directory = Directory::default();
        let mut entry = Vec::new();
        for number in 1..=lock.greatest_link() {
            entry.clear();
            let lost = || {
                let message = format!("has lost link number {number}: restore it from backup");
                Problems::from(Problem::of_file(&path, message))
            };
            match own.next_if(|(next, _)| next.get() == number) {
                Some((_, link)) => {
                    entries::write(
                        &mut entry,
                        &link.slug,
                        link.offer,
                        link.affiliate,
                        None,
                        |_| "",
                    );
                }
                None => {
                    let line = lines.next().map_err(broken)?;
                    let (offer, affiliate, slug) = parsed(line, number).ok_or_else(lost)?;
                    entries::write(&mut entry, slug, offer, affiliate, None, |_| "");
                }
            }
            directory.push(entry.len()).ok_or_else(lost)?;
            out.write_all(&entry)
                .map_err(|error| failed(work, "cannot be written", &error))?;
        }
        let heap = out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| map(&file))
            .map_err(|error| failed(work, "cannot be written", &error))?;
        let entries = Entries {
            count: directory.count,
            directory: directory.bytes.into(),
            heap,
        };
        let mut buckets = index::buckets(entries.count);
        for ordinal in 0..entries.count {
            let entry = entries.get(ordinal).expect("written above");
            let hash = key_hash(entry.offer, entry.affiliate, entry.slug());
            index::insert(&mut buckets, hash, ordinal);
        }
        Ok(Self {
            good_bytes: lines.good_bytes,
            path,
            entries,
            buckets,
        })
    }

    /// The ordinal of a key.
    pub(crate) fn find(&self, offer: Offer, affiliate: Affiliate, slug: &str) -> Option<u32> {
        index::find(&self.buckets, key_hash(offer, affiliate, slug), |ordinal| {
            let entry = self.entries.get(ordinal)?;
            let same = (entry.offer, entry.affiliate) == (offer, affiliate) && entry.is_of(slug);
            same.then_some(ordinal)
        })
    }

    /// What takes memory for look-ups is not needed any more.
    pub(crate) fn forget_keys(&mut self) {
        self.buckets = Vec::new();
    }

    /// A problem when a published version knows numbers that are gone here, or stand for something else.
    pub(crate) fn lost_nothing(&self, lock: &Lock, published: &Catalog) -> Result<(), Problems> {
        let own = lock.link_names().unwrap_or_default();
        for (number, link) in published.links.iter() {
            let ordinal = u32::try_from(number.get() - 1).ok();
            let kept = ordinal.and_then(|ordinal| self.entries.get(ordinal));
            let means = |entry: &LinkEntry<'_>| {
                (entry.offer, entry.affiliate) == (link.offer, link.affiliate)
                    // The links of catalog.lock may be renamed.
                    && (entry.is_of(link.slug()) || own.contains_key(&number))
            };
            if !kept.as_ref().is_some_and(means) {
                let message = format!(
                    "has lost link number {number}, \"{}\": restore it from backup",
                    link.slug()
                );
                return Err(Problem::of_file(&self.path, message).into());
            }
        }
        Ok(())
    }

    /// Keeps new numbers, which follow those there are.
    pub(crate) fn append<'e>(
        &self,
        lock_id: &str,
        new: impl Iterator<Item = LinkEntry<'e>>,
    ) -> Result<(), Problems> {
        let first = u64::from(self.entries.count) + 1;
        self.write(lock_id, first, new)
            .map_err(|error| failed(&self.path, "cannot be written", &error))
    }

    fn write<'e>(
        &self,
        lock_id: &str,
        first: u64,
        new: impl Iterator<Item = LinkEntry<'e>>,
    ) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)?;
        file.set_len(self.good_bytes)?;
        file.seek(SeekFrom::End(0))?;
        let mut out = BufWriter::new(file);
        if self.good_bytes == 0 {
            writeln!(out, "{HEAD}{FORMAT}\nid {lock_id}")?;
        }
        for (number, link) in (first..).zip(new) {
            writeln!(
                out,
                "{number} {}.{}.{}",
                link.offer,
                link.affiliate,
                link.slug()
            )?;
        }
        out.into_inner()?.sync_all()?;
        File::open(disk::folder_of(&self.path))?.sync_all()
    }
}

fn key_hash(offer: Offer, affiliate: Affiliate, slug: &str) -> u64 {
    let target = u64::from(offer.get()) << 32 | u64::from(affiliate.get());
    xxh3_64_with_seed(slug.as_bytes(), xxh3_64(&target.to_le_bytes()))
}

/// What a line says of a number; `None` when it is another one's, or not whole.
fn parsed(line: &str, number: u64) -> Option<(Offer, Affiliate, &str)> {
    let (found, key) = line.strip_suffix('\n')?.split_once(' ')?;
    let (offer, affiliate, slug) = link_key_parts(key)?;
    let fits = found.parse() == Ok(number) && name_mistake(lock::Kind::Link, slug).is_none();
    fits.then_some((offer, affiliate, slug))
}

/// The lines of the file, one after another.
struct Lines {
    /// `None` when there is no file.
    file: Option<BufReader<File>>,
    line: Vec<u8>,
    good_bytes: u64,
}

impl Lines {
    fn open(path: &Path, lock_id: &str) -> Result<Self, Problems> {
        let of_file = |message: &str| Problems::from(Problem::of_file(path, message));
        let broken = |error: io::Error| failed(path, "cannot be read", &error);
        let file = match File::open(path) {
            Ok(file) => Some(BufReader::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(broken(error)),
        };
        let mut lines = Self {
            file,
            line: Vec::new(),
            good_bytes: 0,
        };
        if lines.file.is_none() {
            return Ok(lines);
        }
        let mut format = lines.next().map_err(broken)?;
        while format.starts_with('#') {
            format = lines.next().map_err(broken)?;
        }
        if format.is_empty() || !format.ends_with('\n') {
            // Not even its head was written: it never had a number.
            lines.good_bytes = 0;
            return Ok(lines);
        }
        if format.trim_end() != FORMAT {
            return Err(of_file(
                "not a links.lock that this version reads: use a newer version of sluice, or restore it from backup",
            ));
        }
        let id = lines.next().map_err(broken)?;
        if !id.ends_with('\n') {
            lines.good_bytes = 0;
        } else if id.trim_end().strip_prefix("id ") != Some(lock_id) {
            return Err(of_file(
                "belongs to another catalog.lock: restore the two from one backup",
            ));
        }
        Ok(lines)
    }

    /// The next line with its end; empty at the end of the file.
    fn next(&mut self) -> io::Result<&str> {
        self.line.clear();
        if let Some(file) = &mut self.file {
            file.take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut self.line)?;
        }
        self.good_bytes += self.line.len() as u64;
        // What is no text is no line either.
        Ok(std::str::from_utf8(&self.line).unwrap_or_default())
    }
}
