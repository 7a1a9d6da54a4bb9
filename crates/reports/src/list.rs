//! A list as text, written while its rows come: an aligned table, CSV, JSON or NDJSON. Nothing holds more than one page.

use serde_json::{Map, Value};

use crate::format::{Format, harmless};
use crate::query::words;
use crate::{Error, Parameters, Result};

/// Bytes that are handed on at once.
const CHUNK_BYTES: usize = 32 * 1024;

/// One cell of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Nothing is known.
    Empty,
    /// Words.
    Text(String),
    /// A whole number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// Millionths of a currency's unit.
    Money(i64),
}

impl Cell {
    /// Words; empty where there are none.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        if text.is_empty() {
            Self::Empty
        } else {
            Self::Text(text)
        }
    }

    fn into_text(self) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => if flag { "yes" } else { "no" }.to_owned(),
            Self::Money(micros) => domain::money::text(i128::from(micros)),
        }
    }

    fn into_json(self) -> Value {
        match self {
            Self::Empty => Value::Null,
            Self::Number(number) => number.into(),
            Self::Flag(flag) => flag.into(),
            Self::Text(_) | Self::Money(_) => self.into_text().into(),
        }
    }

    fn is_right(&self) -> bool {
        matches!(self, Self::Number(_) | Self::Money(_))
    }
}

/// A list: its columns, its rows one after another, and where the next page begins.
pub trait List {
    /// The names of the columns.
    fn columns(&self) -> &[&'static str];

    /// The next row; `None` after the last one.
    ///
    /// # Errors
    /// The store cannot be read.
    fn next_row(&mut self) -> Result<Option<Vec<Cell>>>;

    /// What `after` names to go on behind the last row; `None` where nothing is behind it.
    fn next_page(&self) -> Option<String> {
        None
    }
}

/// Most rows of one page that a reader asks for.
pub const LIMIT_MAX: u64 = 10_000;

/// Rows of a page where nobody says how many.
pub const LIMIT: u64 = 100;

/// Rows looked at for one page: a filter that few rows pass ends a page early, with where to go on.
const LOOK_MAX: u64 = 200_000;

/// What a list of these columns can be asked for.
pub fn list_parameters(columns: &[&'static str]) -> Vec<&'static str> {
    let filters = columns.iter().copied().filter(|name| *name != "time");
    ["from", "to", "time", "format", "limit", "after"]
        .into_iter()
        .chain(filters)
        .collect()
}

/// Rows of a store, in the order of the list, a short read at a time: a list that is read slowly holds nothing up.
pub(crate) trait Pages {
    /// The names of the columns.
    fn columns(&self) -> &'static [&'static str];

    /// The next rows, each with what `after` names to go on behind it; none at the end.
    fn next_rows(&mut self) -> Result<Vec<(String, Vec<Cell>)>>;
}

/// The rows of a store that pass the filters, as many as are asked for.
pub struct Selection<'a> {
    pages: Box<dyn Pages + 'a>,
    page: std::vec::IntoIter<(String, Vec<Cell>)>,
    /// Places of columns and what their cells may say.
    filters: Vec<(usize, Vec<String>)>,
    left: Option<u64>,
    looked: u64,
    /// Of the last row that was looked at.
    cursor: String,
    next: Option<String>,
}

impl<'a> Selection<'a> {
    pub(crate) fn new(
        pages: Box<dyn Pages + 'a>,
        parameters: &Parameters,
        format: Format,
    ) -> Result<Self> {
        let columns = pages.columns().iter().enumerate();
        // The time has parameters of its own.
        let filters = columns
            .filter(|(_, name)| **name != "time")
            .filter_map(|(at, name)| {
                let wanted = words(parameters.get(name)?).map(str::to_owned);
                Some((at, wanted.collect()))
            });
        let wrong = || {
            let message = format!("is not a number from 1 to {LIMIT_MAX}");
            Error::parameter("limit", message)
        };
        let left = match parameters.get("limit") {
            Some(text) => {
                let limit = text.parse().map_err(|_| wrong())?;
                if limit == 0 || limit > LIMIT_MAX {
                    return Err(wrong());
                }
                Some(limit)
            }
            None => match format {
                Format::Table | Format::Json => Some(LIMIT),
                Format::Csv | Format::Ndjson => None,
            },
        };
        Ok(Self {
            filters: filters.collect(),
            pages,
            page: Vec::new().into_iter(),
            left,
            looked: 0,
            cursor: String::new(),
            next: None,
        })
    }

    /// The next row that passes, and what `after` names to go on behind it; `None` at the end, or after a long look.
    fn pull(&mut self) -> Result<Option<(String, Vec<Cell>)>> {
        loop {
            let (cursor, row) = match self.page.next() {
                Some(next) => next,
                None => {
                    if self.left.is_some() && self.looked >= LOOK_MAX {
                        self.next = Some(self.cursor.clone());
                        return Ok(None);
                    }
                    self.page = self.pages.next_rows()?.into_iter();
                    match self.page.next() {
                        Some(next) => next,
                        None => return Ok(None),
                    }
                }
            };
            self.looked += 1;
            self.cursor.clone_from(&cursor);
            let passes = |(at, wanted): &(usize, Vec<String>)| {
                let text = row[*at].clone().into_text();
                wanted.contains(&text)
            };
            if self.filters.iter().all(passes) {
                return Ok(Some((cursor, row)));
            }
        }
    }
}

impl List for Selection<'_> {
    fn columns(&self) -> &[&'static str] {
        self.pages.columns()
    }

    fn next_row(&mut self) -> Result<Option<Vec<Cell>>> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let Some((cursor, row)) = self.pull()? else {
            return Ok(None);
        };
        self.left = self.left.map(|left| left - 1);
        // Whether there is a next page shows in the row after the last one of this.
        if self.left == Some(0) && self.pull()?.is_some() {
            self.next = Some(cursor);
        }
        Ok(Some(row))
    }

    fn next_page(&self) -> Option<String> {
        self.next.clone()
    }
}

/// Where text goes; false when nobody reads it any more.
pub type Sink<'a> = &'a mut dyn FnMut(String) -> bool;

/// Writes a list. Whoever stops reading ends it.
///
/// # Errors
/// The store cannot be read: what was written is not the whole list.
pub fn write(list: &mut dyn List, format: Format, sink: Sink<'_>) -> Result<()> {
    match format {
        Format::Table => table(list, sink),
        Format::Csv => csv(list, sink),
        Format::Json => json(list, sink),
        Format::Ndjson => ndjson(list, sink),
    }
}

/// A table needs the widths of all of its rows: whoever asks for one bounds them.
fn table(list: &mut dyn List, sink: Sink<'_>) -> Result<()> {
    let head: Vec<Cell> = list
        .columns()
        .iter()
        .map(|name| Cell::text(*name))
        .collect();
    let mut lines = vec![head];
    while let Some(row) = list.next_row()? {
        lines.push(row);
    }
    let mut right = vec![false; list.columns().len()];
    let mut widths = right.iter().map(|_| 0).collect::<Vec<usize>>();
    let lines: Vec<Vec<String>> = lines
        .into_iter()
        .map(|cells| {
            for (right, cell) in right.iter_mut().zip(&cells) {
                *right |= cell.is_right();
            }
            let texts = cells.into_iter().map(|cell| plain(&cell.into_text()));
            texts.collect()
        })
        .collect();
    for line in &lines {
        for (widest, text) in widths.iter_mut().zip(line) {
            *widest = text.chars().count().max(*widest);
        }
    }
    let mut out = String::new();
    for line in &lines {
        let mut row = String::new();
        for (at, (text, widest)) in line.iter().zip(&widths).enumerate() {
            if at > 0 {
                row.push_str("  ");
            }
            row.push_str(&if right[at] {
                format!("{text:>widest$}")
            } else {
                format!("{text:<widest$}")
            });
        }
        out.push_str(row.trim_end());
        out.push('\n');
    }
    if let Some(next) = list.next_page() {
        out.push_str(&format!("more after {next}\n"));
    }
    sink(out);
    Ok(())
}

/// What came from outside must not steer the terminal.
pub(crate) fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

fn csv(list: &mut dyn List, sink: Sink<'_>) -> Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let written = writer.write_record(list.columns());
    written.expect("a vector takes every record");
    let text = |writer: csv::Writer<Vec<u8>>| {
        let bytes = writer.into_inner().expect("a vector flushes");
        String::from_utf8(bytes).expect("the cells were text")
    };
    let mut bytes = 0;
    while let Some(row) = list.next_row()? {
        let cells: Vec<String> = row
            .into_iter()
            .map(|cell| match cell {
                Cell::Text(text) => harmless(&text),
                cell => cell.into_text(),
            })
            .collect();
        bytes += cells.iter().map(String::len).sum::<usize>();
        let written = writer.write_record(&cells);
        written.expect("all records have a cell for each column");
        if bytes >= CHUNK_BYTES {
            bytes = 0;
            if !sink(text(writer)) {
                return Ok(());
            }
            writer = csv::Writer::from_writer(Vec::new());
        }
    }
    sink(text(writer));
    Ok(())
}

fn object(columns: &[&'static str], row: Vec<Cell>) -> Value {
    let cells = columns.iter().zip(row);
    let fields = cells.map(|(name, cell)| ((*name).to_owned(), cell.into_json()));
    Value::Object(fields.collect::<Map<_, _>>())
}

fn json(list: &mut dyn List, sink: Sink<'_>) -> Result<()> {
    let columns = list.columns().to_vec();
    let mut out = "{\"rows\":[".to_owned();
    let mut separator = "\n";
    while let Some(row) = list.next_row()? {
        out.push_str(separator);
        out.push_str(&object(&columns, row).to_string());
        separator = ",\n";
        if out.len() >= CHUNK_BYTES && !sink(std::mem::take(&mut out)) {
            return Ok(());
        }
    }
    let next = Value::from(list.next_page());
    out.push_str(&format!("\n],\"next\":{next}}}\n"));
    sink(out);
    Ok(())
}

fn ndjson(list: &mut dyn List, sink: Sink<'_>) -> Result<()> {
    let columns = list.columns().to_vec();
    let mut out = String::new();
    while let Some(row) = list.next_row()? {
        out.push_str(&object(&columns, row).to_string());
        out.push('\n');
        if out.len() >= CHUNK_BYTES && !sink(std::mem::take(&mut out)) {
            return Ok(());
        }
    }
    sink(out);
    Ok(())
}

/// The name of a value in the schema, as people read it.
pub(crate) fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_ascii_lowercase()
}

/// The time of an event as people read it, in UTC.
pub fn moment(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| format!("{ms} ms"), |time| format!("{time:.3}"))
}

/// The whole list as one text, where whoever asks has bounded it.
///
/// # Errors
/// The store cannot be read.
pub fn text(list: &mut dyn List, format: Format) -> std::result::Result<String, Error> {
    let mut text = String::new();
    write(list, format, &mut |chunk| {
        text.push_str(&chunk);
        true
    })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Example(std::vec::IntoIter<Vec<Cell>>);

    impl List for Example {
        fn columns(&self) -> &[&'static str] {
            &["order", "amount", "paid", "n"]
        }

        fn next_row(&mut self) -> Result<Option<Vec<Cell>>> {
            Ok(self.0.next())
        }

        fn next_page(&self) -> Option<String> {
            Some("k7".to_owned())
        }
    }

    fn example() -> Example {
        let rows = vec![
            vec![
                Cell::text("=1+1"),
                Cell::Money(80_000_000),
                Cell::Flag(true),
                Cell::Number(1),
            ],
            vec![
                Cell::text("a,\u{1b}"),
                Cell::Money(-5),
                Cell::Flag(false),
                Cell::Empty,
            ],
        ];
        Example(rows.into_iter())
    }

    #[test]
    fn each_format_has_the_same_rows() {
        for (format, expected) in [
            (
                Format::Table,
                "order        amount  paid  n\n=1+1          80.00  yes   1\na,\\u{1b}  -0.000005  no\nmore after k7\n",
            ),
            (
                Format::Csv,
                "order,amount,paid,n\n'=1+1,80.00,yes,1\n\"a,\u{1b}\",-0.000005,no,\n",
            ),
            (
                Format::Json,
                concat!(
                    "{\"rows\":[\n",
                    r#"{"order":"=1+1","amount":"80.00","paid":true,"n":1}"#,
                    ",\n",
                    r#"{"order":"a,\u001b","amount":"-0.000005","paid":false,"n":null}"#,
                    "\n],\"next\":\"k7\"}\n"
                ),
            ),
            (
                Format::Ndjson,
                concat!(
                    r#"{"order":"=1+1","amount":"80.00","paid":true,"n":1}"#,
                    "\n",
                    r#"{"order":"a,\u001b","amount":"-0.000005","paid":false,"n":null}"#,
                    "\n"
                ),
            ),
        ] {
            assert_eq!(
                text(&mut example(), format).unwrap(),
                expected,
                "{format:?}"
            );
        }
    }

    /// Numbers from 1 on, by tens.
    struct Numbers(u64);

    impl Pages for Numbers {
        fn columns(&self) -> &'static [&'static str] {
            &["number", "kind"]
        }

        fn next_rows(&mut self) -> Result<Vec<(String, Vec<Cell>)>> {
            let from = self.0 + 1;
            self.0 = (self.0 + 10).min(25);
            let row = |number: u64| {
                let kind = if number.is_multiple_of(2) {
                    "even"
                } else {
                    "odd"
                };
                (
                    format!("k{number}"),
                    vec![Cell::Number(number), Cell::text(kind)],
                )
            };
            Ok((from..=self.0).map(row).collect())
        }
    }

    #[test]
    fn a_page_says_where_the_next_one_begins() {
        for (query, numbers, next) in [
            ("limit=3", vec![1, 2, 3], Some("k3")),
            ("limit=3&kind=even", vec![2, 4, 6], Some("k6")),
            (
                "limit=12&kind=even",
                (1..=12).map(|n| 2 * n).collect(),
                None,
            ),
            ("limit=25", (1..=25).collect(), None),
            ("limit=9&number=7,24,70", vec![7, 24], None),
            ("kind=neither", vec![], None),
        ] {
            let parameters = Parameters::parse(query, &["limit", "kind", "number"]).unwrap();
            let pages = Box::new(Numbers(0));
            let mut list = Selection::new(pages, &parameters, Format::Json).unwrap();
            let mut found = Vec::new();
            while let Some(row) = list.next_row().unwrap() {
                found.push(row[0].clone());
            }
            let numbers: Vec<Cell> = numbers.into_iter().map(Cell::Number).collect();
            assert_eq!(
                (found, list.next_page().as_deref()),
                (numbers, next),
                "{query}"
            );
        }
        for limit in ["0", "10001", "x"] {
            let parameters = Parameters::default().with("limit", Some(limit));
            let refused = Selection::new(Box::new(Numbers(0)), &parameters, Format::Json);
            let error = refused.err().map(|error| error.to_string());
            assert_eq!(
                error.as_deref(),
                Some("limit: is not a number from 1 to 10000")
            );
        }
    }

    #[test]
    fn a_filter_that_nothing_passes_ends_a_page_with_where_to_go_on() {
        struct Odd(u64);
        impl Pages for Odd {
            fn columns(&self) -> &'static [&'static str] {
                &["kind"]
            }
            fn next_rows(&mut self) -> Result<Vec<(String, Vec<Cell>)>> {
                self.0 += 1000;
                let row = (self.0.to_string(), vec![Cell::text("odd")]);
                Ok(vec![row; 1000])
            }
        }
        let parameters = Parameters::default().with("kind", Some("even"));
        let mut list = Selection::new(Box::new(Odd(0)), &parameters, Format::Json).unwrap();
        assert_eq!(list.next_row().unwrap(), None);
        assert_eq!(list.next_page().as_deref(), Some("200000"));
    }

    #[test]
    fn who_stops_reading_ends_a_list_that_has_no_end() {
        struct Endless;
        impl List for Endless {
            fn columns(&self) -> &[&'static str] {
                &["text"]
            }
            fn next_row(&mut self) -> Result<Option<Vec<Cell>>> {
                Ok(Some(vec![Cell::text("x".repeat(100))]))
            }
        }
        for format in [Format::Csv, Format::Json, Format::Ndjson] {
            let mut chunks = 0;
            write(&mut Endless, format, &mut |_| {
                chunks += 1;
                chunks < 3
            })
            .unwrap();
            assert_eq!(chunks, 3, "{format:?}");
        }
    }
}
