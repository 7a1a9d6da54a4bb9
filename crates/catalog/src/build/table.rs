//! A file of links as spreadsheets write it: the first line names the columns, separated by commas, semicolons or tabs.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek},
    path::Path,
};

use csv::{ErrorKind, ReaderBuilder, StringRecord};
use text::nearest;

use super::lines::Lines;
use crate::{Problem, Problems, SUBS, apply::failed, read::fields::SUB_KEYS};

const REQUIRED: [&str; 3] = ["slug", "affiliate", "offer"];
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];
const NOT_UTF_8: &str = "not UTF-8 text: save the file as UTF-8 (Excel calls it \"CSV UTF-8\")";
/// How much of the beginning says what kind of file it is: more than a first line that names every column.
const BEGINNING_BYTES: u64 = 4096;

/// The records of a file, without its first line.
pub(super) struct Table<'f> {
    reader: csv::Reader<Lines<&'f File>>,
    pub(super) columns: Columns,
}

/// Where the fields of a line are.
#[derive(Clone, Copy, Default)]
pub(super) struct Columns {
    pub(super) slug: usize,
    pub(super) affiliate: usize,
    pub(super) offer: usize,
    pub(super) domain: Option<usize>,
    pub(super) subs: [Option<usize>; SUBS],
    /// How many have a name.
    count: usize,
}

/// What is wrong with a line.
pub(super) struct BadLine {
    pub(super) line: u64,
    pub(super) message: String,
}

impl<'f> Table<'f> {
    /// Reads the first line. `sep=;`, which Excel takes for a statement and not for data, may stand before it.
    pub(super) fn open(path: &Path, mut file: &'f File) -> Result<Self, Problems> {
        let unreadable = |error: &dyn std::error::Error| failed(path, "cannot be read", error);
        let mut beginning = Vec::new();
        file.take(BEGINNING_BYTES)
            .read_to_end(&mut beginning)
            .and_then(|_| file.rewind())
            .map_err(|error| unreadable(&error))?;
        let beginning =
            text::without_mark(&beginning).map_err(|message| Problem::of_file(path, message))?;
        let mut lines = beginning.split(|byte| matches!(byte, b'\r' | b'\n'));
        let first = lines.find(|line| !line.is_empty()).unwrap_or_default();
        let said = match first.strip_prefix(b"sep=") {
            Some(&[delimiter]) => Some(delimiter),
            _ => None,
        };
        let delimiter = said.unwrap_or_else(|| delimiter_of(first));
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .from_reader(Lines::new(file));
        let mut header = StringRecord::new();
        for _ in 0..=usize::from(said.is_some()) {
            let read = reader.read_record(&mut header);
            read.map_err(|error| unreadable(&error))?;
        }
        let place = header.position().map_or(0, csv::Position::byte);
        let line = reader.get_mut().line_at(place);
        let columns = columns(path, line, &header, delimiter)?;
        Ok(Self { reader, columns })
    }

    /// The next record and its line; `None` at the end of the file.
    pub(super) fn next(
        &mut self,
        record: &mut StringRecord,
    ) -> Result<Option<u64>, Result<BadLine, csv::Error>> {
        loop {
            match self.reader.read_record(record) {
                Ok(false) => return Ok(None),
                Ok(true) => {}
                Err(error) => {
                    let message = match error.kind() {
                        ErrorKind::Io(_) => return Err(Err(error)),
                        ErrorKind::Utf8 { .. } => NOT_UTF_8.to_owned(),
                        _ => error.to_string(),
                    };
                    let place = error.position().map_or(0, csv::Position::byte);
                    let line = self.reader.get_mut().line_at(place);
                    return Err(Ok(BadLine { line, message }));
                }
            }
            // Spreadsheets write rows that were used once and emptied: `;;;`.
            if record.iter().any(|field| !field.trim_ascii().is_empty()) {
                break;
            }
        }
        let place = record.position().map_or(0, csv::Position::byte);
        let line = self.reader.get_mut().line_at(place);
        // Spreadsheets write empty columns behind the last one that has a name.
        let more = record.iter().skip(self.columns.count);
        let is_longer = more.into_iter().any(|field| !field.trim_ascii().is_empty());
        if record.len() < self.columns.count || is_longer {
            let message = format!(
                "expected {} fields as in the first line, found {}",
                self.columns.count,
                record.len()
            );
            return Err(Ok(BadLine { line, message }));
        }
        Ok(Some(line))
    }

    /// How far the file is read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.reader.position().byte()
    }
}

fn known() -> impl Iterator<Item = &'static str> {
    REQUIRED.into_iter().chain(["domain"]).chain(SUB_KEYS)
}

/// The delimiter by which the first line names most columns.
fn delimiter_of(first: &[u8]) -> u8 {
    let first = String::from_utf8_lossy(first);
    let named = |delimiter: u8| {
        let names = first.split(char::from(delimiter));
        let names = names.map(|name| name.trim().trim_matches('"').trim().to_ascii_lowercase());
        names
            .filter(|name| known().any(|known| known == name))
            .count()
    };
    // The first of equal ones: a file that names nothing has commas.
    let mut best = (DELIMITERS[0], named(DELIMITERS[0]));
    for delimiter in DELIMITERS {
        if named(delimiter) > best.1 {
            best = (delimiter, named(delimiter));
        }
    }
    best.0
}

fn columns(
    path: &Path,
    line: u64,
    header: &StringRecord,
    delimiter: u8,
) -> Result<Columns, Problems> {
    let mut problems = Vec::new();
    let mut problem = |name: &str, message: String, near: Option<String>| {
        problems.push(Problem {
            line: usize::try_from(line).unwrap_or_default(),
            field: name.to_owned(),
            nearest: near,
            ..Problem::of_file(path, message)
        });
    };
    // Spreadsheets begin words with a capital, and write empty columns behind the last one.
    let names: Vec<String> = header
        .iter()
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let count = names.iter().rposition(|name| !name.is_empty());
    let names = &names[..count.map_or(0, |last| last + 1)];
    let mut found = BTreeMap::new();
    for (at, name) in names.iter().enumerate() {
        if !known().any(|known| known == name) {
            problem(name, "unknown column".to_owned(), nearest(name, known()));
        } else if found.insert(name.as_str(), at).is_some() {
            problem(name, "the column stands there twice".to_owned(), None);
        }
    }
    if found.is_empty() {
        let message = format!(
            "the first line names no column: it names slug, affiliate and offer, and may name domain and sub1 to sub10, separated by commas, semicolons or tabs; \"{}\" separates what is there",
            char::from(delimiter).escape_default()
        );
        let whole = Problem {
            line: usize::try_from(line).unwrap_or_default(),
            ..Problem::of_file(path, message)
        };
        return Err(whole.into());
    }
    for name in REQUIRED {
        if !found.contains_key(name) {
            let message = "the column is missing: the first line names slug, affiliate and offer, and may name domain and sub1 to sub10";
            problem(name, message.to_owned(), None);
        }
    }
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let at = |name: &str| found.get(name).copied();
    Ok(Columns {
        slug: at("slug").unwrap_or_default(),
        affiliate: at("affiliate").unwrap_or_default(),
        offer: at("offer").unwrap_or_default(),
        domain: at("domain"),
        subs: SUB_KEYS.map(at),
        count: names.len(),
    })
}
