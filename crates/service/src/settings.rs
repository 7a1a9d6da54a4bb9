//! Settings files: TOML into one struct, with every mistake told at once, each with its file, line and field.
//!
//! The struct says what exists. With `#[serde(default, deny_unknown_fields)]` on it and on its parts, a name that is not
//! there is an error that names the nearest one:
//!
//! ```text
//! sluice.toml:12: edge.lissten: unknown setting, did you mean "listen"?
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::{error, fmt, fs};

use serde::de::DeserializeOwned;
use text::NotText;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

/// A settings file is read by people; a bigger one is some other file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// After this many mistakes it is the wrong file, and a longer list helps nobody.
const PROBLEMS_MAX: usize = 50;

/// The top level of the one settings file that all processes of an installation read. A process that knows only some of it
/// leaves the rest to those whose it is.
pub const SECTIONS: [&str; 9] = [
    "data", "catalog", "links", "edge", "admin", "reports", "stream", "kafka", "courier",
];

/// The settings in a file; without a file, the defaults.
///
/// # Errors
///
/// Every mistake in the file.
pub fn load<T: DeserializeOwned + Default>(path: Option<&Path>) -> Result<T, Problems> {
    load_own(path, &SECTIONS)
}

/// As [`load`], for a process that knows only these of the [`SECTIONS`].
///
/// # Errors
///
/// Every mistake in them, and every name that no process knows.
pub fn load_own<T: DeserializeOwned + Default>(
    path: Option<&Path>,
    own: &[&str],
) -> Result<T, Problems> {
    let Some(path) = path else {
        return Ok(T::default());
    };
    let about = |message: String| {
        Problems(vec![Problem {
            file: path.to_path_buf(),
            line: None,
            field: String::new(),
            message,
        }])
    };
    let unreadable = |source: io::Error| {
        about(match source.kind() {
            ErrorKind::NotFound => {
                "there is no such settings file: check its path, or leave --settings out for the defaults"
                    .to_owned()
            }
            _ => format!("cannot be read: {}", text::io_error(&source)),
        })
    };
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(about(format!(
            "is longer than {FILE_BYTES_MAX} bytes: name a settings file"
        )));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    let text = text::decode(&bytes).map_err(|NotText { line, message }| {
        Problems(vec![Problem {
            file: path.to_path_buf(),
            line: (line > 0).then_some(line),
            field: String::new(),
            message: message.to_owned(),
        }])
    })?;
    parse_own(text, path, own)
}

/// The names of everything that differs between two settings files, as `edge.listen`. What cannot be read differs in nothing.
pub fn changes(before: &str, after: &str) -> Vec<String> {
    let [before, after] = [before, after].map(|text| {
        let mut values = BTreeMap::new();
        if let Ok(table) = text.parse::<toml::Table>() {
            flatten(&table, "", &mut values);
        }
        values
    });
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .cloned()
        .collect()
}

fn flatten(table: &toml::Table, prefix: &str, values: &mut BTreeMap<String, toml::Value>) {
    for (name, value) in table {
        let name = format!("{prefix}{name}");
        match value {
            toml::Value::Table(inner) => flatten(inner, &format!("{name}."), values),
            value => _ = values.insert(name, value.clone()),
        }
    }
}

/// The settings in a text; `file` is only named in the problems.
///
/// # Errors
///
/// Every mistake in the text.
pub fn parse<T: DeserializeOwned>(text: &str, file: &Path) -> Result<T, Problems> {
    parse_own(text, file, &SECTIONS)
}

/// As [`parse`], for a process that knows only these of the [`SECTIONS`].
///
/// # Errors
///
/// Every mistake in them, and every name that no process knows.
pub fn parse_own<T: DeserializeOwned>(
    text: &str,
    file: &Path,
    own: &[&str],
) -> Result<T, Problems> {
    let problem = |span_start: usize, field: String, message: String| Problem {
        file: file.to_path_buf(),
        line: Some(line_of(text, span_start)),
        field,
        message,
    };

    let mut table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            let message = error.message().replace('\n', ", ");
            return Err(Problems(vec![problem(start, String::new(), message)]));
        }
    };

    let foreign = SECTIONS.iter().filter(|section| !own.contains(section));
    for section in foreign {
        table.get_mut().remove(*section);
    }
    // A deserializer stops at the first mistake: take that entry out and look again.
    let mut problems = Vec::new();
    while problems.len() < PROBLEMS_MAX {
        let error = match T::deserialize(Deserializer::from(table.clone())) {
            Ok(settings) if problems.is_empty() => return Ok(settings),
            Ok(_) => break,
            Err(error) => error,
        };
        let start = error.span().map_or(0, |span| span.start);
        let field = take_out(table.get_mut(), start).unwrap_or_default();
        let whole = field.is_empty();
        problems.push(problem(start, field, plain(error.message())));
        if whole {
            break;
        }
    }
    problems.sort_by_key(|problem| problem.line);
    Err(Problems(problems))
}

/// Removes the innermost entry that stands at `at` and returns its dotted name.
fn take_out(table: &mut DeTable<'_>, at: usize) -> Option<String> {
    let mut innermost = None;
    for (key, value) in table.iter_mut() {
        let name = key.get_ref().to_string();
        if let Some(inner) = take_out_of(value, at) {
            return Some(format!("{name}.{inner}"));
        }
        if key.span().contains(&at) || value.span().contains(&at) {
            innermost = Some(name);
            break;
        }
    }
    table.remove(innermost.as_deref()?);
    innermost
}

fn take_out_of(value: &mut Spanned<DeValue<'_>>, at: usize) -> Option<String> {
    match value.get_mut() {
        DeValue::Table(table) => take_out(table, at),
        DeValue::Array(values) => values.iter_mut().find_map(|value| take_out_of(value, at)),
        _ => None,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Serde's message in our words. Its names stand between backticks: first the unknown one, then those expected.
fn plain(message: &str) -> String {
    if message == "invalid socket address syntax" {
        return "expected an address and a port, such as \"127.0.0.1:8080\"".to_owned();
    }
    if !message.starts_with("unknown field") {
        return message.replace('\n', ", ");
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    match text::nearest(unknown, known.iter().copied()) {
        Some(name) => format!("unknown setting, did you mean \"{name}\"?"),
        None if known.is_empty() => "unknown setting, none are known here".to_owned(),
        None => format!("unknown setting, known here: {}", known.join(", ")),
    }
}

/// Every mistake of a settings file, one a line, in the file's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    file: PathBuf,
    line: Option<usize>,
    field: String,
    message: String,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", problem.file.display())?;
            if let Some(line) = problem.line {
                write!(f, "{line}:")?;
            }
            if !problem.field.is_empty() {
                write!(f, " {}:", problem.field)?;
            }
            write!(f, " {}", problem.message)?;
        }
        Ok(())
    }
}

impl error::Error for Problems {}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        data: String,
        edge: Edge,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Edge {
        listen: String,
        workers: u16,
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let told = match parse::<Sample>(text, Path::new("s.toml")) {
            Ok(sample) => format!(
                "{} {} {}",
                sample.data, sample.edge.listen, sample.edge.workers
            ),
            Err(problems) => problems.to_string(),
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_right_is_read() {
        check("data = 'd'\n[edge]\nlisten = 'l'\nworkers = 2\n", "d l 2");
        assert_eq!(load::<Sample>(None).unwrap(), Sample::default());
    }

    #[test]
    fn a_slip_names_the_nearest_setting() {
        check(
            "data = 'd'\n\n[edge]\nlissten = 'l'\n",
            "s.toml:4: edge.lissten: unknown setting, did you mean \"listen\"?",
        );
        check(
            "edge = { lissten = 'l' }",
            "s.toml:1: edge.lissten: unknown setting, did you mean \"listen\"?",
        );
        check(
            "edge.zzz = 1",
            "s.toml:1: edge.zzz: unknown setting, known here: listen, workers",
        );
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        check(
            "dta = 'd'\n[edge]\nworkers = 'many'\nlisten = 3\n[egde]\n",
            "s.toml:1: dta: unknown setting, did you mean \"data\"?\n\
             s.toml:3: edge.workers: invalid type: string \"many\", expected u16\n\
             s.toml:4: edge.listen: invalid type: integer `3`, expected a string\n\
             s.toml:5: egde: unknown setting, did you mean \"edge\"?",
        );
    }

    #[test]
    fn a_process_leaves_to_others_what_is_theirs() {
        let text = "data = 'd'\nlinks = 3\n[courier]\nzzz = 1\n[edge]\nlisten = 'l'\n";
        let file = Path::new("s.toml");
        let sample = parse_own::<Sample>(text, file, &["data", "edge"]).unwrap();
        assert_eq!((&*sample.data, &*sample.edge.listen), ("d", "l"));
        let text = format!("linkz = 3\n{text}");
        let problems = parse_own::<Sample>(&text, file, &["data", "edge"]).unwrap_err();
        assert_eq!(
            problems.to_string(),
            "s.toml:1: linkz: unknown setting, known here: data, edge"
        );
    }

    #[test]
    fn changed_settings_are_named() {
        let before = "data = 'd'\n[edge]\nlisten = 'l'\nworkers = 2\n";
        let after = "[edge]\nlisten = 'm'\nworkers = 2\ntls = { key = 'k' }\n";
        let named = changes(before, after);
        assert_eq!(named, ["data", "edge.listen", "edge.tls.key"]);
    }

    #[test]
    fn broken_toml_has_its_line() {
        let problems = parse::<Sample>("data = 'd'\nedge = [\n", Path::new("s.toml"))
            .unwrap_err()
            .to_string();
        assert!(problems.starts_with("s.toml:2"), "{problems}");
        assert_eq!(problems.lines().count(), 1);
    }

    #[test]
    fn a_file_that_is_missing_or_no_text_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.toml");
        let told = || {
            let told = match load::<Sample>(Some(&path)) {
                Ok(sample) => sample.data,
                Err(problems) => problems.to_string(),
            };
            told.replace(path.to_str().unwrap(), "s.toml")
        };
        assert_eq!(
            told(),
            "s.toml: there is no such settings file: check its path, or leave --settings out for the defaults"
        );
        let utf_16: Vec<u8> = "data = 'd'"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        for (bytes, expected) in [
            (&b"\xef\xbb\xbfdata = 'd'\r\n"[..], "d"),
            (
                &utf_16,
                "s.toml: is UTF-16, as Windows programs write it: save it as UTF-8",
            ),
            (
                b"\ndata = '\xe9'",
                "s.toml:2: not UTF-8 text: save it as UTF-8",
            ),
        ] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(told(), expected);
        }
    }
}
