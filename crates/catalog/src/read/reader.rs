//! Walks a parsed TOML document and notes mistakes with file, line and field.

use std::path::Path;

use text::nearest;
use toml::de::{DeTable, DeValue, Error};

use super::fields::Fields;
use crate::{Problem, Problems, destination::Mistake};

/// Most mistakes told: nobody reads more, and a wrong file of many megabytes must not become as many texts.
const PROBLEMS_MAX: usize = 10_000;

/// Collects mistakes.
pub(super) struct Reader<'f> {
    file: &'f Path,
    /// Offsets of the first byte of each line.
    lines: Vec<usize>,
    problems: Vec<Problem>,
    /// What is allowed and seldom meant.
    warnings: Vec<Problem>,
    /// What was skipped as unreadable may be what seems to be missing.
    torn: bool,
}

/// A table and where it stands.
pub(super) struct Section<'t> {
    pub(super) table: &'t DeTable<'t>,
    /// Its path, `offer.boots`; empty for the document.
    pub(super) field: String,
    /// The offset of its name; none for the document.
    pub(super) at: Option<usize>,
}

/// A value and where it stands.
pub(super) struct Field<'t, T> {
    pub(super) value: T,
    /// Its path, `offer.boots.window`.
    pub(super) field: String,
    pub(super) at: usize,
    _of: std::marker::PhantomData<&'t ()>,
}

impl<'f> Reader<'f> {
    pub(super) fn new(file: &'f Path, text: &str, errors: &[Error]) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let mut reader = Self {
            file,
            lines: std::iter::once(0)
                .chain(breaks.map(|(at, _)| at + 1))
                .collect(),
            problems: Vec::new(),
            warnings: Vec::new(),
            torn: !errors.is_empty(),
        };
        for error in errors {
            let mut message = error.message().replace('\n', ", ");
            // The parser says what, not which.
            if message == "duplicate key"
                && let Some(key) = error.span().and_then(|span| text.get(span))
            {
                message = format!("{message} \"{key}\"");
            }
            reader.problem(error.span().map(|span| span.start), "", message, None);
        }
        reader
    }

    /// Every mistake in the order of the file, if there is one; if not, the warnings.
    pub(super) fn finish(mut self) -> Result<Vec<Problem>, Problems> {
        self.problems.sort();
        self.problems.dedup();
        if self.problems.is_empty() {
            self.warnings.sort();
            Ok(self.warnings)
        } else {
            Err(Problems(self.problems))
        }
    }

    pub(super) fn problem(
        &mut self,
        at: Option<usize>,
        field: &str,
        message: impl Into<String>,
        nearest: Option<String>,
    ) {
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let problem = self.told(at, field, message.into(), nearest);
        self.problems.push(problem);
    }

    /// Something that is allowed and seldom meant.
    pub(super) fn warning(&mut self, at: Option<usize>, field: &str, message: String) {
        if self.warnings.len() < PROBLEMS_MAX {
            let warning = self.told(at, field, message, None);
            self.warnings.push(warning);
        }
    }

    fn told(
        &self,
        at: Option<usize>,
        field: &str,
        message: String,
        nearest: Option<String>,
    ) -> Problem {
        Problem {
            file: self.file.to_owned(),
            line: at.map_or(0, |at| self.lines.partition_point(|start| *start <= at)),
            field: field.to_owned(),
            message,
            nearest,
        }
    }

    /// The mistakes of one field.
    pub(super) fn problems<T>(&mut self, found: &Field<'_, T>, mistakes: Vec<Mistake>) {
        for (message, nearest) in mistakes {
            self.problem(Some(found.at), &found.field, message, nearest);
        }
    }

    /// A mistake about something elsewhere in the file, which may have been unreadable.
    pub(super) fn doubtful<T>(
        &mut self,
        found: &Field<'_, T>,
        message: String,
        nearest: Option<String>,
    ) {
        if !self.torn {
            self.problem(Some(found.at), &found.field, message, nearest);
        }
    }

    pub(super) fn missing(&mut self, section: &Section<'_>, key: &str) {
        if !self.torn {
            self.problem(section.at, &join(&section.field, key), "is missing", None);
        }
    }

    /// A value the shape has or may come to have: `valid` are those it has, the first is the one served now.
    pub(super) fn later(&mut self, found: &Field<'_, &str>, valid: &[&str]) {
        let now = valid.first().expect("a field has a value");
        if valid.len() == 1 || valid.contains(&found.value) {
            let message = format!(
                "\"{}\" is not supported yet: only \"{now}\" is",
                found.value
            );
            self.problem(Some(found.at), &found.field, message, None);
        } else {
            let message = format!("expected \"{now}\", found \"{}\"", found.value);
            let near = nearest(found.value, valid.iter().copied());
            self.problem(Some(found.at), &found.field, message, near);
        }
    }

    /// The parsed value, or a problem with the reason.
    pub(super) fn parsed<T, V, E: Into<Refusal>>(
        &mut self,
        found: &Field<'_, T>,
        parsed: Result<V, E>,
    ) -> Option<V> {
        match parsed {
            Ok(value) => Some(value),
            Err(refusal) => {
                let Refusal { message, nearest } = refusal.into();
                self.problem(Some(found.at), &found.field, message, nearest);
                None
            }
        }
    }

    /// Notes what a table holds and should not.
    pub(super) fn only(&mut self, section: &Section<'_>, fields: &Fields) {
        for (key, _) in section.table {
            let name: &str = key.get_ref();
            if fields.now.contains(&name) {
                continue;
            }
            let at = Some(key.span().start);
            let field = join(&section.field, &quoted(name));
            if fields.later.contains(&name) {
                self.problem(at, &field, "not supported yet", None);
            } else {
                let valid = fields.now.iter().chain(fields.later).copied();
                self.problem(at, &field, "unknown field", nearest(name, valid));
            }
        }
    }

    /// A field, of whatever type.
    pub(super) fn value<'t>(
        &self,
        section: &Section<'t>,
        key: &str,
    ) -> Option<Field<'t, &'t DeValue<'t>>> {
        let (_, value) = section
            .table
            .iter()
            .find(|(name, _)| name.get_ref() == key)?;
        Some(Field {
            value: value.get_ref(),
            field: join(&section.field, key),
            at: value.span().start,
            _of: std::marker::PhantomData,
        })
    }

    /// A field that is text.
    pub(super) fn text<'t>(
        &mut self,
        section: &Section<'t>,
        key: &str,
    ) -> Option<Field<'t, &'t str>> {
        let found = self.value(section, key)?;
        self.as_text(found)
    }

    /// A field that is text and has to be there.
    pub(super) fn required_text<'t>(
        &mut self,
        section: &Section<'t>,
        key: &str,
    ) -> Option<Field<'t, &'t str>> {
        if self.value(section, key).is_none() {
            self.missing(section, key);
        }
        self.text(section, key)
    }

    /// A field that is a list of texts; those that are not are left out and noted.
    pub(super) fn texts<'t>(
        &mut self,
        section: &Section<'t>,
        key: &str,
    ) -> Option<Vec<Field<'t, &'t str>>> {
        let found = self.value(section, key)?;
        let DeValue::Array(items) = found.value else {
            self.wrong_type(&found, "a list of texts");
            return None;
        };
        let mut texts = Vec::new();
        for item in items {
            let item = Field {
                value: item.get_ref(),
                field: found.field.clone(),
                at: item.span().start,
                _of: std::marker::PhantomData,
            };
            texts.extend(self.as_text(item));
        }
        Some(texts)
    }

    /// A field that is a table.
    pub(super) fn table<'t>(&mut self, section: &Section<'t>, key: &str) -> Option<Section<'t>> {
        let (name, _) = section
            .table
            .iter()
            .find(|(name, _)| name.get_ref() == key)?;
        let found = self.value(section, key)?;
        let DeValue::Table(table) = found.value else {
            self.wrong_type(&found, "a table");
            return None;
        };
        Some(Section {
            table,
            field: found.field,
            at: Some(name.span().start),
        })
    }

    /// The tables in a field, by name, in the order of the file: numbers are handed out in it.
    pub(super) fn tables<'t>(
        &mut self,
        section: &Section<'t>,
        key: &str,
    ) -> Vec<(String, Section<'t>)> {
        let Some(parent) = self.table(section, key) else {
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (name, value) in parent.table {
            let field = join(&parent.field, &quoted(name.get_ref()));
            match value.get_ref() {
                DeValue::Table(table) => {
                    let section = Section {
                        table,
                        field,
                        at: Some(name.span().start),
                    };
                    tables.push((name.get_ref().to_string(), section));
                }
                other => {
                    let message = format!("expected a table, found {}", type_of(other));
                    self.problem(Some(name.span().start), &field, message, None);
                }
            }
        }
        tables.sort_by_key(|(_, section)| section.at);
        tables
    }

    fn as_text<'t>(&mut self, found: Field<'t, &'t DeValue<'t>>) -> Option<Field<'t, &'t str>> {
        let DeValue::String(text) = found.value else {
            self.wrong_type(&found, "a text in quotes");
            return None;
        };
        Some(Field {
            value: text,
            field: found.field,
            at: found.at,
            _of: std::marker::PhantomData,
        })
    }

    fn wrong_type(&mut self, found: &Field<'_, &DeValue<'_>>, expected: &str) {
        let message = format!("expected {expected}, found {}", type_of(found.value));
        self.problem(Some(found.at), &found.field, message, None);
    }
}

/// Why a value is not one, and what was probably meant.
pub(super) struct Refusal {
    message: String,
    nearest: Option<String>,
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self {
            message,
            nearest: None,
        }
    }
}

impl From<Mistake> for Refusal {
    fn from((message, nearest): Mistake) -> Self {
        Self { message, nearest }
    }
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn join(field: &str, key: &str) -> String {
    if field.is_empty() {
        key.to_owned()
    } else {
        format!("{field}.{key}")
    }
}

/// A key as one writes it in TOML.
fn quoted(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !name.is_empty() && name.bytes().all(bare) {
        name.to_owned()
    } else {
        format!("{name:?}")
    }
}
