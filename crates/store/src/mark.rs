//! Unique marks: which clicks a visitor made on an offer by an affiliate in a day, and which of them are valid.
//!
//! The earliest valid click of a group is the unique one, the others are duplicates. All clicks of the group are kept, so
//! that an earlier one that comes late, or a label found later, moves the mark to the same place in any order.

use domain::ClickKey;
use rusqlite::{OptionalExtension, Row};

use crate::batch::click_key;
use crate::{Batch, Result};

/// What one unique click is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MarkGroup {
    /// The day in the network's time zone, days since 1970-01-01.
    pub day: i32,
    /// The visitor's keyed hash.
    pub visitor: u64,
    /// The offer's number.
    pub offer: u32,
    /// The affiliate's number.
    pub affiliate: u32,
}

/// One click of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The click.
    pub click: ClickKey,
    /// Whether the click itself was read; false while only labels for it have come.
    pub seen: bool,
    /// A bit for each reason (by its code) that makes it invalid.
    pub reasons: u64,
    /// The link's number.
    pub link: u64,
}

impl Batch<'_> {
    /// One click of a group.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn mark(&self, group: &MarkGroup, click: ClickKey) -> Result<Option<Mark>> {
        let mut select = self.connection().prepare_cached(
            "SELECT click, seen, reasons, link FROM marks
             WHERE day = ?1 AND visitor = ?2 AND offer = ?3 AND affiliate = ?4 AND click = ?5",
        )?;
        let found = select
            .query_row(
                (
                    group.day,
                    group.visitor.cast_signed(),
                    group.offer,
                    group.affiliate,
                    &click.to_bytes()[..],
                ),
                columns,
            )
            .optional()?;
        found.map(mark).transpose()
    }

    /// Keeps one click of a group, in place of what was kept of it.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn put_mark(&mut self, group: &MarkGroup, mark: &Mark) -> Result<()> {
        self.connection()
            .prepare_cached("INSERT OR REPLACE INTO marks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
            .execute((
                group.day,
                group.visitor.cast_signed(),
                group.offer,
                group.affiliate,
                &mark.click.to_bytes()[..],
                mark.seen,
                mark.reasons.cast_signed(),
                mark.link.cast_signed(),
            ))?;
        Ok(())
    }

    /// The unique click of a group: the earliest that was read and has no reason against it.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn first_valid(&self, group: &MarkGroup) -> Result<Option<Mark>> {
        let mut select = self.connection().prepare_cached(
            "SELECT click, seen, reasons, link FROM marks
             WHERE day = ?1 AND visitor = ?2 AND offer = ?3 AND affiliate = ?4 AND seen = 1 AND reasons = 0
             ORDER BY click LIMIT 1",
        )?;
        let found = select
            .query_row(
                (
                    group.day,
                    group.visitor.cast_signed(),
                    group.offer,
                    group.affiliate,
                ),
                columns,
            )
            .optional()?;
        found.map(mark).transpose()
    }
}

type Columns = (Vec<u8>, bool, i64, i64);

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn mark((click, seen, reasons, link): Columns) -> Result<Mark> {
    Ok(Mark {
        click: click_key(click)?,
        seen,
        reasons: reasons.cast_unsigned(),
        link: link.cast_unsigned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn the_first_valid_click_is_read_and_unlabelled() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        let group = MarkGroup {
            day: 20_000,
            visitor: u64::MAX,
            offer: 1,
            affiliate: 2,
        };
        let mark = |sequence, seen, reasons| Mark {
            click: ClickKey {
                time_ms: 5,
                stream: u32::MAX,
                sequence,
            },
            seen,
            reasons,
            link: 9,
        };
        store
            .batch(|batch| {
                assert_eq!(batch.first_valid(&group)?, None);
                for mark in [
                    mark(4, true, 0),
                    mark(1, false, 0),
                    mark(2, true, 1 << 63),
                    mark(3, true, 0),
                ] {
                    batch.put_mark(&group, &mark)?;
                }
                assert_eq!(batch.first_valid(&group)?, Some(mark(3, true, 0)));
                assert_eq!(
                    batch.mark(&group, mark(2, true, 0).click)?,
                    Some(mark(2, true, 1 << 63))
                );
                batch.put_mark(&group, &mark(3, true, 1))?;
                assert_eq!(batch.first_valid(&group)?, Some(mark(4, true, 0)));
                Ok(())
            })
            .unwrap();
    }
}
