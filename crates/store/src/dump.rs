//! The canonical text of what happened: a line a row, ordered by key, so that two stores are compared byte for byte.

use std::collections::BTreeSet;
use std::fmt::Write;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::{Result, click};

/// The tables that say what happened: what is shown of each, and its key columns. The tables of the click index come after
/// them. What became of a postback when it came is left out: it depends on what had come before it.
const TABLES: [(&str, &str, &str); 7] = [
    (
        "rollups",
        "*",
        "cube, bucket_ms, offer, affiliate, link, reason, currency, consumer, partition",
    ),
    ("marks", "*", "day, visitor, offer, affiliate, click"),
    (
        "postbacks",
        "at, advertiser, order_key, sender, bytes",
        "at",
    ),
    ("orders", "*", "advertiser, order_key"),
    ("conversions", "*", "advertiser, order_key, goal"),
    ("fraud_clicks", "*", "visitor, offer, affiliate, click"),
    ("flags", "*", "click, reason"),
];

pub(crate) fn dump(connection: &Connection) -> Result<String> {
    let mut text = String::new();
    for (name, columns, key) in TABLES {
        table(connection, name, columns, key, &mut text)?;
    }
    let days: BTreeSet<String> = click::tables(connection)?.into_iter().collect();
    for name in days {
        table(connection, &name, "*", "key", &mut text)?;
    }
    Ok(text)
}

fn table(
    connection: &Connection,
    name: &str,
    columns: &str,
    key: &str,
    text: &mut String,
) -> Result<()> {
    let mut select = connection.prepare(&format!("SELECT {columns} FROM {name} ORDER BY {key}"))?;
    let columns = select.column_count();
    let mut rows = select.query(())?;
    while let Some(row) = rows.next()? {
        text.push_str(name);
        for column in 0..columns {
            text.push(' ');
            // Writing to a string cannot fail.
            let _ = match row.get_ref(column)? {
                ValueRef::Null => write!(text, "-"),
                ValueRef::Integer(number) => write!(text, "{number}"),
                ValueRef::Real(number) => write!(text, "{number}"),
                ValueRef::Text(bytes) => write!(text, "{:?}", String::from_utf8_lossy(bytes)),
                ValueRef::Blob(bytes) => {
                    text.push_str("x'");
                    for byte in bytes {
                        let _ = write!(text, "{byte:02x}");
                    }
                    write!(text, "'")
                }
            };
        }
        text.push('\n');
    }
    Ok(())
}
