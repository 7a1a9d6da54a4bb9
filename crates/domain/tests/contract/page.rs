//! `docs/TOPICS.md` names every field that is in a topic, under its message.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::schema;

/// Never leaves the machine, and is no reader's business.
const JOURNAL_ONLY: &str = "EdgeRecord";

/// What is in backticks in the first column of the tables of each section, as (section, name).
fn named(page: &str) -> BTreeSet<(String, String)> {
    let mut section = "";
    let mut named = BTreeSet::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            section = title;
        }
        let Some(column) = line
            .strip_prefix("| ")
            .and_then(|row| row.split(" | ").next())
        else {
            continue;
        };
        let names = column.split('`').skip(1).step_by(2);
        named.extend(names.map(|name| (section.to_owned(), name.to_owned())));
    }
    named.retain(|(section, _)| !section.is_empty());
    named
}

#[test]
fn the_page_names_every_field() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/TOPICS.md");
    let named = named(&fs::read_to_string(page).unwrap());
    let schema = schema::compile(schema::folder());
    let fields: BTreeSet<(String, String)> = schema
        .iter()
        .filter(|((sort, of, _), what)| {
            sort == "field" && of != JOURNAL_ONLY && *what != "reserved"
        })
        .map(|((_, of, _), what)| (of.clone(), what.split(' ').next().unwrap().to_owned()))
        .collect();
    let missing: Vec<_> = fields.difference(&named).collect();
    let unknown: Vec<_> = named.difference(&fields).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "docs/TOPICS.md does not name {missing:?}, and names {unknown:?}, which the schema does not have"
    );
}
