//! The schema against its lock, `proto/sluice/v1/events.lock`.

use std::fs;
use std::path::PathBuf;

use crate::schema::{self, Schema};
use crate::{WRITE, writes};

const HEAD: &str = "# What readers of version 1 rely on, one line each; compared with the schema by a test. Lines are added, never removed.\n";

fn path() -> PathBuf {
    schema::folder().join("sluice/v1/events.lock")
}

fn parse(text: &str) -> Schema {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let entries = lines.map(|line| {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let [sort, of, number, what] = words[..] else {
            panic!("{}: not a line of a lock: {line}", path().display());
        };
        let number = number.parse().expect("a number");
        ((sort.to_owned(), of.to_owned(), number), what.to_owned())
    });
    entries.collect()
}

fn print(schema: &Schema) -> String {
    let mut text = HEAD.to_owned();
    for ((sort, of, number), what) in schema {
        text.push_str(&format!("{sort} {of} {number} {what}\n"));
    }
    text
}

/// What a reader of the locked schema would misread, and what to do.
fn broken(locked: &Schema, now: &Schema) -> Vec<String> {
    let mut wrong = Vec::new();
    for (identity, was) in locked {
        let (sort, of, number) = identity;
        let what = format!("{sort} {of} {number}, locked as `{was}`");
        match now.get(identity) {
            Some(is) if is == was => {}
            Some(_) if was == "reserved" => {
                wrong.push(format!("{what}, is used again: take a number that was never used"));
            }
            None if sort == "kind" => {
                wrong.push(format!("{what}, is gone: readers know it by that name and number; put it back"));
            }
            Some(is) if sort == "kind" => wrong.push(format!(
                "{what}, is now `{is}`: a new version is a schema and a lock of its own beside this one"
            )),
            None => wrong.push(format!(
                "{what}, is gone: put it back. What nobody writes any more stays; when no reader is left, \
                 `reserved {number};` takes its place, in the lock as `reserved`"
            )),
            Some(is) => wrong.push(format!(
                "{what}, is now `{is}`: put it back as it was, and add the new one under a number that was never used"
            )),
        }
    }
    wrong
}

/// What the lock does not have yet.
fn added(locked: &Schema, now: &Schema) -> Schema {
    let new = now
        .iter()
        .filter(|(identity, _)| !locked.contains_key(*identity));
    new.map(|(identity, what)| (identity.clone(), what.clone()))
        .collect()
}

#[test]
fn the_schema_keeps_what_readers_rely_on() {
    let text = fs::read_to_string(path()).unwrap_or_default();
    let mut locked = parse(&text);
    let now = schema::compile(schema::folder());
    let added = added(&locked, &now);
    if writes() && !added.is_empty() {
        locked.extend(added.clone());
        fs::write(path(), print(&locked)).unwrap();
    }
    let mut wrong = broken(&locked, &now);
    if !writes() {
        wrong.extend(added.iter().map(|((sort, of, number), what)| {
            format!("{sort} {of} {number} {what} is new: lock it with {WRITE}")
        }));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The complaints about a schema in which one text is replaced by another, against the lock of the schema as it is.
#[track_caller]
fn after(edit: (&str, &str)) -> (Vec<String>, Schema) {
    let text = fs::read_to_string(schema::folder().join(schema::FILE)).unwrap();
    assert_eq!(
        text.matches(edit.0).count(),
        1,
        "{} is in the schema once",
        edit.0
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(schema::FILE);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, text.replace(edit.0, edit.1)).unwrap();
    let (locked, now) = (
        schema::compile(schema::folder()),
        schema::compile(folder.path()),
    );
    (broken(&locked, &now), added(&locked, &now))
}

#[test]
fn changes_that_break_readers_are_named() {
    const FIELD: &str = "string coupon = 26;";
    for (edit, said) in [
        (
            (FIELD, ""),
            &["field Click 26, locked as `coupon string`, is gone"][..],
        ),
        (
            (FIELD, "reserved 26;"),
            &["locked as `coupon string`, is now `reserved`"],
        ),
        (
            (FIELD, "string coupon = 99;"),
            &["field Click 26, locked as `coupon string`, is gone"],
        ),
        (
            (FIELD, "string voucher = 26;"),
            &["is now `voucher string`"],
        ),
        ((FIELD, "bytes coupon = 26;"), &["is now `coupon bytes`"]),
        (
            (FIELD, "repeated string coupon = 26;"),
            &["is now `coupon repeated string`"],
        ),
        (
            (FIELD, "optional string coupon = 26;"),
            &["is now `coupon optional string`"],
        ),
        (
            ("  CLASS_BOT = 3;", ""),
            &["value Class 3, locked as `CLASS_BOT`, is gone"],
        ),
        (
            ("  CLASS_BOT = 3;", "CLASS_ROBOT = 3;"),
            &["is now `CLASS_ROBOT`"],
        ),
        (
            ("    StreamEnd end = 8;\n  }", "}\n  StreamEnd end = 8;"),
            &["field EdgeRecord 8, locked as `end StreamEnd oneof event`, is now `end StreamEnd`"],
        ),
    ] {
        let (wrong, _) = after(edit);
        assert_eq!(wrong.len(), said.len(), "{edit:?}: {wrong:?}");
        for (wrong, said) in wrong.iter().zip(said) {
            assert!(wrong.contains(said), "{edit:?}: {wrong}");
        }
    }
}

#[test]
fn additions_break_nobody_and_reserved_numbers_stay_so() {
    const FIELD: &str = "string coupon = 26;";
    let (wrong, new) = after((FIELD, "string coupon = 26; string voucher = 99;"));
    assert_eq!(wrong, [""; 0]);
    assert_eq!(
        print(&new),
        format!("{HEAD}field Click 99 voucher string\n")
    );

    let reserved =
        parse("field Click 26 reserved\nkind Click 9 version 1\nkind Click 1 version 0\n");
    let wrong = broken(&reserved, &schema::compile(schema::folder()));
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(wrong[0].contains("is used again"), "{wrong:?}");
    assert!(wrong[1].contains("a new version is a schema"), "{wrong:?}");
    assert!(
        wrong[2].contains("is gone: readers know it by that name"),
        "{wrong:?}"
    );
    assert_eq!(parse(&print(&reserved)), reserved);
}
