//! `topics.toml`: the partition count a topic was made with, because a lane's records must stay in one partition.
//!
//! ```toml
//! format = 1
//!
//! [topics."clicks"]
//! partitions = 8
//! version = 1
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::PARTITIONS_MAX;
use crate::{Error, Result};

const FORMAT: i64 = 1;
/// Of a topic that was never grown.
const TOPIC_VERSION: u16 = 1;

/// Checks the topics against the file and adds those that are new.
pub(super) fn agree(folder: &Path, topics: &[(&str, u16)]) -> Result<()> {
    let path = folder.join("topics.toml");
    let mut made = match fs::read_to_string(&path) {
        Ok(text) => parse(&path, &text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(Error::io(&path, error)),
    };
    let before = made.len();
    for &(topic, partitions) in topics {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if topic.is_empty() || topic.starts_with('.') || !topic.bytes().all(plain) {
            return Err(Error::bad_topic_name(topic));
        }
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(Error::bad_partition_count(topic, partitions));
        }
        let (made_with, _) = *made
            .entry(topic.to_owned())
            .or_insert((partitions, TOPIC_VERSION));
        if made_with != partitions {
            return Err(Error::partition_count(topic, made_with, partitions));
        }
    }
    if made.len() > before {
        write(folder, &path, &made).map_err(|error| Error::io(&path, error))?;
    }
    Ok(())
}

fn parse(path: &Path, text: &str) -> Result<BTreeMap<String, (u16, u16)>> {
    let file: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| Error::topics_file(path, error))?;
    let format = file
        .get("format")
        .and_then(toml::Value::as_integer)
        .ok_or_else(|| Error::topics_file(path, "it has no format"))?;
    if format > FORMAT {
        return Err(Error::newer_format(path, format));
    }
    let topics = file.get("topics").and_then(toml::Value::as_table);
    let mut made = BTreeMap::new();
    for (topic, entry) in topics.into_iter().flatten() {
        let number = |name| {
            entry
                .get(name)
                .and_then(toml::Value::as_integer)
                .and_then(|number| u16::try_from(number).ok())
                .ok_or_else(|| Error::topics_file(path, format!("topic {topic} has no {name}")))
        };
        made.insert(topic.clone(), (number("partitions")?, number("version")?));
    }
    Ok(made)
}

/// A crash leaves the old file or the new one.
fn write(folder: &Path, path: &Path, made: &BTreeMap<String, (u16, u16)>) -> std::io::Result<()> {
    let mut text = format!(
        "# Written when a topic is made. A partition count cannot be changed here.\nformat = {FORMAT}\n"
    );
    for (topic, (partitions, version)) in made {
        text.push_str(&format!(
            "\n[topics.\"{topic}\"]\npartitions = {partitions}\nversion = {version}\n"
        ));
    }
    let temporary = folder.join("topics.toml.new");
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}
