//! The TalkingData click file: CSV, plain or gzipped, with the columns
//! `ip,app,device,os,channel,click_time,attributed_time,is_attributed`. An app is an offer here, a channel an affiliate.

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

const COLUMNS: [&str; 8] = [
    "ip",
    "app",
    "device",
    "os",
    "channel",
    "click_time",
    "attributed_time",
    "is_attributed",
];

/// One click of the file; its position in the file, from 1, is its row number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Click {
    pub(crate) ip: u32,
    pub(crate) app: u32,
    pub(crate) device: u32,
    pub(crate) os: u32,
    pub(crate) channel: u32,
    pub(crate) attributed: bool,
}

/// The offer's name in the catalog.
pub(crate) fn offer_name(app: u32) -> String {
    format!("app-{app}")
}

/// The affiliate's name in the catalog.
pub(crate) fn affiliate_name(channel: u32) -> String {
    format!("channel-{channel}")
}

/// The clicks of a file in its order, at most `limit`; a name that ends in `.gz` is unpacked.
pub(crate) fn read(path: &Path, limit: Option<usize>) -> Result<Vec<Click>, Box<dyn Error>> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let input: Box<dyn Read> = if path.extension().is_some_and(|end| end == "gz") {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    parse(input, limit).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn parse(input: impl Read, limit: Option<usize>) -> Result<Vec<Click>, Box<dyn Error>> {
    let mut reader = csv::Reader::from_reader(input);
    if reader.headers()? != COLUMNS[..] {
        return Err(format!("the columns are not {}", COLUMNS.join(",")).into());
    }
    let mut clicks = Vec::new();
    for (index, record) in reader.records().enumerate() {
        if limit.is_some_and(|limit| index >= limit) {
            break;
        }
        let record = record?;
        let number = |column: usize| {
            record[column].parse::<u32>().map_err(|_| {
                format!(
                    "row {}: {} is not a number: {:?}",
                    index + 1,
                    COLUMNS[column],
                    &record[column]
                )
            })
        };
        let attributed = match &record[7] {
            "0" => false,
            "1" => true,
            other => {
                return Err(format!(
                    "row {}: is_attributed is neither 0 nor 1: {other:?}",
                    index + 1
                )
                .into());
            }
        };
        clicks.push(Click {
            ip: number(0)?,
            app: number(1)?,
            device: number(2)?,
            os: number(3)?,
            channel: number(4)?,
            attributed,
        });
    }
    Ok(clicks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rows: &str, expected: &str) {
        let text = format!("{}\n{rows}", COLUMNS.join(","));
        let told = match parse(text.as_bytes(), None) {
            Ok(clicks) => clicks
                .iter()
                .map(|click| {
                    format!(
                        "{} {} {} {} {} {}",
                        click.ip,
                        click.app,
                        click.device,
                        click.os,
                        click.channel,
                        click.attributed
                    )
                })
                .collect::<Vec<_>>()
                .join("; "),
            Err(error) => error.to_string(),
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn rows_are_read_or_named() {
        check(
            "7,1,2,3,4,2001-01-01 00:00:00,,0\n8,1,2,3,5,2001-01-01 00:00:01,2001-01-02 00:00:00,1\n",
            "7 1 2 3 4 false; 8 1 2 3 5 true",
        );
        check("7,x,2,3,4,t,,0\n", "row 1: app is not a number: \"x\"");
        check(
            "7,1,2,3,4,t,,2\n",
            "row 1: is_attributed is neither 0 nor 1: \"2\"",
        );
    }

    #[test]
    fn other_columns_are_refused_and_the_limit_holds() {
        assert!(parse("a,b\n1,2\n".as_bytes(), None).is_err());
        let text = format!("{}\n1,1,1,1,1,,,0\n2,1,1,1,1,,,0\n", COLUMNS.join(","));
        assert_eq!(parse(text.as_bytes(), Some(1)).unwrap().len(), 1);
    }
}
