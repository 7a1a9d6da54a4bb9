//! The crates depend on each other only where the map of the code allows it.
//!
//! The map is a table under `## Crates and arrows`, with rows `| crates | what | what they may depend on |`. Crates stand
//! between backticks.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata};

use super::PAGE;

const HEADING: &str = "## Crates and arrows";

/// Each crate with those it depends on.
pub(super) type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The arrows there are: dependencies between crates of this workspace, other than for tests.
pub(super) fn actual(metadata: &Metadata) -> Arrows {
    let packages = metadata.workspace_packages();
    let names: BTreeSet<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    packages
        .iter()
        .map(|package| {
            let targets = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != DependencyKind::Development)
                .filter(|dependency| names.contains(dependency.name.as_str()))
                .map(|dependency| dependency.name.clone())
                .collect();
            (package.name.to_string(), targets)
        })
        .collect()
}

/// What the page does not allow or does not know.
pub(super) fn check(page: &str, actual: &Arrows) -> Vec<String> {
    let allowed = match allowed(page) {
        Ok(allowed) => allowed,
        Err(error) => return vec![error],
    };
    compare(&allowed, actual)
}

fn compare(allowed: &Arrows, actual: &Arrows) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, targets) in actual {
        let Some(may) = allowed.get(from) else {
            wrong.push(format!("{PAGE}: crate {from} is missing from the table"));
            continue;
        };
        for to in targets.difference(may) {
            wrong.push(format!(
                "crates: {from} depends on {to}, which {PAGE} does not allow"
            ));
        }
    }
    for from in allowed.keys().filter(|from| !actual.contains_key(*from)) {
        wrong.push(format!("{PAGE}: there is no crate {from}"));
    }
    for (from, to) in allowed
        .iter()
        .flat_map(|(from, targets)| targets.iter().map(move |to| (from, to)))
    {
        if !actual.contains_key(to) {
            wrong.push(format!(
                "{PAGE}: {from} may depend on {to}, which is no crate"
            ));
        }
    }
    wrong
}

/// The arrows that the page allows.
fn allowed(page: &str) -> Result<Arrows, String> {
    let (_, section) = page
        .split_once(HEADING)
        .ok_or_else(|| format!("{PAGE}: the heading \"{HEADING}\" is missing"))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut arrows = Arrows::new();
    for line in section.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').collect();
        let [first, .., last] = cells[..] else {
            return Err(format!("{PAGE}: not a row of the table: {line}"));
        };
        for name in names(first) {
            let twice = arrows.insert(
                name.to_owned(),
                names(last).map(ToOwned::to_owned).collect(),
            );
            if twice.is_some() {
                return Err(format!("{PAGE}: {name} stands in two rows"));
            }
        }
    }
    Ok(arrows)
}

fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
# Map

## Crates and arrows

| crate | what it is | may depend on |
|---|---|---|
| `domain` | the nouns, with `Money` | – |
| `store` | rollups | `domain` |
| `clicks`, `fraud` | consumers | `domain`, `store` |

## Next

| `other` | not a crate | `domain` |
";

    fn arrows(list: &[(&str, &[&str])]) -> Arrows {
        list.iter()
            .map(|(from, targets)| {
                let targets = targets.iter().copied().map(str::to_owned).collect();
                ((*from).to_owned(), targets)
            })
            .collect()
    }

    #[test]
    fn what_the_page_allows_passes_and_an_unused_allowance_too() {
        let actual = arrows(&[
            ("domain", &[]),
            ("store", &["domain"]),
            ("clicks", &["store"]),
            ("fraud", &["domain", "store"]),
        ]);
        assert_eq!(check(TABLE, &actual), Vec::<String>::new());
    }

    #[test]
    fn an_added_arrow_fails_and_is_named() {
        let actual = arrows(&[
            ("domain", &["store"]),
            ("store", &["domain"]),
            ("clicks", &["fraud"]),
            ("fraud", &[]),
        ]);
        assert_eq!(
            check(TABLE, &actual),
            [
                "crates: clicks depends on fraud, which docs/ARCHITECTURE.md does not allow",
                "crates: domain depends on store, which docs/ARCHITECTURE.md does not allow",
            ]
        );
    }

    #[test]
    fn a_crate_the_page_does_not_know_fails_and_so_does_one_that_is_gone() {
        let actual = arrows(&[
            ("domain", &[]),
            ("store", &[]),
            ("clicks", &[]),
            ("new", &[]),
        ]);
        assert_eq!(
            check(TABLE, &actual),
            [
                "docs/ARCHITECTURE.md: crate new is missing from the table",
                "docs/ARCHITECTURE.md: there is no crate fraud",
            ]
        );
    }

    #[test]
    fn a_page_without_the_table_fails() {
        assert_eq!(
            check("# Map\n", &Arrows::new()),
            ["docs/ARCHITECTURE.md: the heading \"## Crates and arrows\" is missing"]
        );
    }
}
