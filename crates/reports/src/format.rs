//! A report as text: an aligned table, CSV, JSON. All three have the same lines: one a group and currency, where the lines
//! after a group's first leave its counts empty, so that a column can be summed.

use serde_json::{Map, Value};
use store::Money;

use crate::{By, Error, Group, Report, Result};

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For a terminal.
    #[default]
    Table,
    /// For a spreadsheet.
    Csv,
    /// For a program.
    Json,
    /// For a program that reads a row a line.
    Ndjson,
}

/// The names of the formats.
pub const FORMATS: [(&str, Format); 4] = [
    ("table", Format::Table),
    ("json", Format::Json),
    ("ndjson", Format::Ndjson),
    ("csv", Format::Csv),
];

impl Format {
    /// What an answer in it is, for a header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Table => "text/plain; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// The format of a name.
    ///
    /// # Errors
    ///
    /// The text names the valid ones.
    pub fn parse(name: &str) -> Result<Self> {
        FORMATS
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, format)| format)
            .ok_or_else(|| {
                let known = FORMATS.map(|(known, _)| known).join(", ");
                Error::parameter(
                    "format",
                    format!("{name:?} is not known: use one of {known}"),
                )
            })
    }
}

/// The columns after those of the groups; machines read them in lower case.
const COLUMNS: [&str; 14] = [
    "gross",
    "clicks",
    "unique",
    "duplicate",
    "anonymous",
    "invalid",
    "conversions",
    "CVR",
    "currency",
    "amount",
    "revenue",
    "payout",
    "profit",
    "EPC",
];

/// Columns that hold words and stand to the left.
const CURRENCY: usize = 8;

/// Characters that make a spreadsheet take a cell for a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

impl Report {
    /// In a format.
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Table => self.table(),
            Format::Csv => self.csv(),
            Format::Json => self.json(),
            Format::Ndjson => self.ndjson(),
        }
    }

    /// An aligned table with a total line for each currency.
    pub fn table(&self) -> String {
        let width = self.by.len();
        let mut lines: Vec<Vec<String>> = vec![
            self.by
                .iter()
                .map(|by| by.name())
                .chain(COLUMNS)
                .map(str::to_owned)
                .collect(),
        ];
        for group in &self.groups {
            for (at, money) in group.money.iter().enumerate() {
                let names = group
                    .names
                    .iter()
                    .map(|name| if at == 0 { name.clone() } else { String::new() });
                lines.push(names.chain(cells(group, at, money)).collect());
            }
        }
        if width > 0 {
            for (at, money) in self.total.money.iter().enumerate() {
                let names = (0..width).map(|column| {
                    if column + at == 0 {
                        "total".to_owned()
                    } else {
                        String::new()
                    }
                });
                lines.push(names.chain(cells(&self.total, at, money)).collect());
            }
        }

        let mut widths = vec![0; width + COLUMNS.len()];
        for line in &lines {
            for (widest, cell) in widths.iter_mut().zip(line) {
                *widest = cell.chars().count().max(*widest);
            }
        }
        let mut text = String::new();
        for line in lines {
            let mut row = String::new();
            for (column, (cell, widest)) in line.iter().zip(&widths).enumerate() {
                if column > 0 {
                    row.push_str("  ");
                }
                row.push_str(&if column < width || column == width + CURRENCY {
                    format!("{cell:<widest$}")
                } else {
                    format!("{cell:>widest$}")
                });
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }

    /// Comma-separated, with a header and without totals. Names that a spreadsheet would run as formulas begin with a `'`.
    pub fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let header = self.by.iter().map(|by| by.name().to_owned());
        let written = writer.write_record(header.chain(COLUMNS.map(str::to_ascii_lowercase)));
        written.expect("a vector takes every record");
        for group in &self.groups {
            for (at, money) in group.money.iter().enumerate() {
                let names = group.names.iter().map(|name| harmless(name));
                let written = writer.write_record(names.chain(cells(group, at, money)));
                written.expect("all records have a cell for each column");
            }
        }
        let bytes = writer.into_inner().expect("a vector flushes");
        String::from_utf8(bytes).expect("the cells were text")
    }

    /// `{"by": […], "rows": […], "total": […]}`; counts and CVR are numbers, money decimal strings, what is empty is null.
    pub fn json(&self) -> String {
        let rows: Vec<Value> = self.rows().collect();
        let by: Vec<&str> = self.by.iter().copied().map(By::name).collect();
        let total: Vec<Value> = self.lines(&self.total, &[]).collect();
        let report = serde_json::json!({ "by": by, "rows": rows, "total": total });
        format!("{report:#}\n")
    }

    /// The rows of [`Self::json`], one a line, without totals.
    pub fn ndjson(&self) -> String {
        self.rows()
            .map(|row| format!("{row}\n"))
            .collect::<String>()
    }

    fn rows(&self) -> impl Iterator<Item = Value> {
        self.groups
            .iter()
            .flat_map(|group| self.lines(group, &self.by))
    }

    fn lines<'a>(&self, group: &'a Group, by: &'a [By]) -> impl Iterator<Item = Value> + use<'a> {
        group.money.iter().enumerate().map(move |(at, money)| {
            let mut row = Map::new();
            for (by, name) in by.iter().zip(&group.names) {
                row.insert(by.name().to_owned(), name.as_str().into());
            }
            for (column, cell) in COLUMNS.into_iter().zip(cells(group, at, money)) {
                let value = match column {
                    _ if cell.is_empty() => Value::Null,
                    "currency" | "amount" | "revenue" | "payout" | "profit" | "EPC" => cell.into(),
                    _ => serde_json::from_str(&cell).expect("counts and CVR are numbers"),
                };
                row.insert(column.to_ascii_lowercase(), value);
            }
            Value::Object(row)
        })
    }
}

/// One line after the names, in the order of [`COLUMNS`].
fn cells(group: &Group, at: usize, money: &Money) -> [String; COLUMNS.len()] {
    let counts = &group.counts;
    let count = |value: i64| {
        if at == 0 {
            value.to_string()
        } else {
            String::new()
        }
    };
    let decimal =
        |value: Option<rust_decimal::Decimal>| value.map(|v| v.to_string()).unwrap_or_default();
    [
        count(group.gross()),
        count(counts.clicks),
        count(counts.unique),
        count(counts.duplicate),
        count(counts.anonymous),
        count(counts.invalid),
        count(counts.conversions),
        decimal(group.cvr().filter(|_| at == 0)),
        money.currency.clone(),
        domain::money::text(money.amount),
        domain::money::text(money.revenue),
        domain::money::text(money.payout),
        domain::money::text(money.revenue - money.payout),
        decimal(group.epc(money)),
    ]
}

pub(crate) fn harmless(name: &str) -> String {
    if name.starts_with(FORMULA) {
        format!("'{name}")
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn a_table_is_aligned_and_totals_stay_apart() {
        let expected = r#"
affiliate  offer          gross  clicks  unique  duplicate  anonymous  invalid  conversions   CVR  currency  amount  revenue  payout  profit     EPC
=adam      boots, "warm"      0       0       0          0          0        0            1        USD       -10.00    -2.00   -1.00   -1.00
zoe        axes               9       6       6          0          1        2            0  0.00  EUR         0.00     0.00    0.00    0.00  0.0000
zoe        boots, "warm"    300     300     300          0          0        0            7  2.33  EUR        40.00     8.00    4.00    4.00  0.0133
                                                                                                   USD        30.00     6.00    3.00    3.00  0.0100
total                       309     306     306          0          1        2            8  2.61  EUR        40.00     8.00    4.00    4.00  0.0131
                                                                                                   USD        20.00     4.00    2.00    2.00  0.0065
"#;
        assert_eq!(example().table(), expected.trim_start_matches('\n'));
    }

    #[test]
    fn csv_runs_no_formulas() {
        let expected = r#"affiliate,offer,gross,clicks,unique,duplicate,anonymous,invalid,conversions,cvr,currency,amount,revenue,payout,profit,epc
'=adam,"boots, ""warm""",0,0,0,0,0,0,1,,USD,-10.00,-2.00,-1.00,-1.00,
zoe,axes,9,6,6,0,1,2,0,0.00,EUR,0.00,0.00,0.00,0.00,0.0000
zoe,"boots, ""warm""",300,300,300,0,0,0,7,2.33,EUR,40.00,8.00,4.00,4.00,0.0133
zoe,"boots, ""warm""",,,,,,,,,USD,30.00,6.00,3.00,3.00,0.0100
"#;
        assert_eq!(example().csv(), expected);
    }

    #[test]
    fn json_has_names_numbers_and_exact_money() {
        let json: Value = serde_json::from_str(&example().json()).unwrap();
        assert_eq!(json["by"], serde_json::json!(["affiliate", "offer"]));
        assert_eq!(
            json["rows"][2],
            serde_json::json!({
                "affiliate": "zoe", "offer": "boots, \"warm\"", "gross": 300, "clicks": 300, "unique": 300,
                "duplicate": 0, "anonymous": 0, "invalid": 0, "conversions": 7, "cvr": 2.33, "currency": "EUR", "amount": "40.00",
                "revenue": "8.00", "payout": "4.00", "profit": "4.00", "epc": "0.0133",
            })
        );
        assert_eq!(json["rows"][3]["clicks"], Value::Null);
        assert_eq!(
            (&json["rows"][0]["cvr"], &json["rows"][0]["epc"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(json["total"][1]["payout"], "2.00");
    }

    #[test]
    fn an_unknown_format_names_the_valid_ones() {
        let error = Format::parse("xml").unwrap_err().to_string();
        assert_eq!(
            error,
            r#"format: "xml" is not known: use one of table, json, ndjson, csv"#
        );
    }
}
