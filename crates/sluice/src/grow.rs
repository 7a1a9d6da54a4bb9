//! `sluice topics grow`: more partitions for every topic.
//!
//! A lane's partition is its number mod the count, so growing moves lanes. Nobody has to wait for that: records say by their
//! numbers in which order they belong together, and consumers read a partition again whose records came before those of
//! another that they follow. Whoever still counts the old partitions stands still as soon as it hears of the new ones.
//!
//! A command killed anywhere is completed by the next.

use service::Refusal;
use stream::embedded::PARTITIONS_MAX;
use stream::kafka::Admin;

use crate::commands::{print, refuse};
use crate::settings::Settings;
use crate::topics;

pub(crate) fn run(settings: &Settings, partitions: u16) -> Result<(), Refusal> {
    let admin = Admin::connect(&settings.kafka).map_err(refuse)?;
    let present = present(settings, &admin)?;
    check_counts(partitions, &present)?;
    for (topic, count) in &present {
        if *count != partitions {
            admin.grow(topic, partitions).map_err(refuse)?;
        }
        print(&format!("topic {topic} has {partitions} partitions"))?;
    }
    print(&format!(
        "set stream.partitions = {partitions} for every courier and consumer and start them again"
    ))
}

/// The topics and how many partitions each has.
fn present(settings: &Settings, admin: &Admin) -> Result<Vec<(String, u16)>, Refusal> {
    let mut present = Vec::new();
    for topic in topics::described(settings) {
        let found = admin.partitions(&topic.name).map_err(refuse)?;
        if found.is_empty() {
            return Err(refuse(format!(
                "topic {} is missing: run sluice topics create",
                topic.name
            )));
        }
        present.push((topic.name, u16::try_from(found.len()).unwrap_or(u16::MAX)));
    }
    Ok(present)
}

/// A multiple of every count, so that a lane only moves to a partition that is new.
fn check_counts(after: u16, topics: &[(String, u16)]) -> Result<(), Refusal> {
    for (topic, before) in topics {
        if after < *before || !after.is_multiple_of(*before) || after > PARTITIONS_MAX {
            return Err(refuse(format!(
                "topic {topic} has {before} partitions, which cannot become {after}: choose a whole multiple of {before}, {PARTITIONS_MAX} at most"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_cannot_be() {
        for (before, after, said) in [
            ([4, 4], 8, None),
            ([4, 8], 8, None),
            ([8, 8], 8, None),
            ([4, 4], 256, None),
            (
                [4, 4],
                6,
                Some(
                    "topic t0 has 4 partitions, which cannot become 6: choose a whole multiple of 4, 256 at most",
                ),
            ),
            (
                [4, 4],
                2,
                Some("topic t0 has 4 partitions, which cannot become 2"),
            ),
            (
                [4, 4],
                0,
                Some("topic t0 has 4 partitions, which cannot become 0"),
            ),
            ([4, 4], 512, Some("256 at most")),
            (
                [4, 6],
                8,
                Some("topic t1 has 6 partitions, which cannot become 8"),
            ),
        ] {
            let topics: Vec<_> = (0..)
                .zip(before)
                .map(|(i, n)| (format!("t{i}"), n))
                .collect();
            let refused = check_counts(after, &topics).err();
            let text = refused.map(|refusal| refusal.to_string());
            match said {
                None => assert_eq!(text, None),
                Some(said) => assert!(text.is_some_and(|text| text.contains(said)), "{after}"),
            }
        }
    }
}
