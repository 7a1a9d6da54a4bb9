//! How many partitions the topics have that this store's rows are for, with a version that goes up as they grow.
//!
//! A lane's partition is its number mod the count: rows of one count are wrong under another. Growing is a plan first, kept
//! before the cluster is touched, so that a command that was killed in between is completed by the next one.

use rusqlite::{Connection, OptionalExtension};

use crate::error::{Error, Kind};
use crate::{Batch, Result, Store, View};

/// The count in force, and the one that a growth under way leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions {
    /// 1, and one more with each growth.
    pub version: u32,
    /// The count that rows are for.
    pub count: u16,
    /// The count that is planned.
    pub planned: Option<u16>,
}

impl Partitions {
    /// What is wrong where topics have `count` partitions, and what to do.
    pub fn difference(&self, count: u16) -> Option<String> {
        let rows = format!("the store's rows are for {} partitions", self.count);
        match self.planned {
            Some(planned) => Some(format!(
                "{rows} and on their way to {planned}: run sluice topics grow --partitions {planned} again"
            )),
            None if self.count != count => Some(format!(
                "{rows} (version {}), stream.partitions is {count}: set it to {}, or see sluice topics grow",
                self.version, self.count
            )),
            None => None,
        }
    }
}

impl Store {
    /// Makes sure that rows are for this count before a consumer runs; a new store is for it from now on. A plan to grow stays
    /// one: where topics have grown already, consumers stand still at them.
    ///
    /// # Errors
    ///
    /// Rows are for another count, or the store cannot be changed.
    pub fn keep_partitions(&self, count: u16) -> Result<()> {
        self.batch(|batch| match batch.partitions()? {
            Some(found) if found.count != count => {
                Err(Error::other(found.difference(count).unwrap_or_default()))
            }
            Some(_) => Ok(()),
            None => {
                batch
                    .connection()
                    .execute("INSERT INTO partitions VALUES (1, ?1, 1)", (count,))?;
                Ok(())
            }
        })
    }
}

impl Batch<'_> {
    /// What the rows are for; `None` in a store that no consumer has used.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn partitions(&self) -> Result<Option<Partitions>> {
        partitions(self.connection())
    }

    /// Plans a growth, in place of another plan.
    ///
    /// # Errors
    ///
    /// When the store cannot be written, or no count is in force.
    pub fn plan_partitions(&mut self, count: u16) -> Result<()> {
        let found = self.partitions()?.ok_or(Error::new(Kind::Damaged(
            "no count of partitions that could grow",
        )))?;
        self.connection().execute(
            "INSERT OR REPLACE INTO partitions VALUES (?1, ?2, 0)",
            (found.version + 1, count),
        )?;
        Ok(())
    }

    /// Puts the plan in force: what is kept of each lane goes on in the lane's new partition. In the old one it stays as it
    /// was, for the records that lie there. Offsets stay: they are those of partitions, and a new partition begins at 0.
    /// Rollups and orders stay under the partition they were counted from: sums are over all of them.
    ///
    /// # Errors
    ///
    /// When the store cannot be written, or nothing is planned.
    pub fn grow_partitions(&mut self) -> Result<Partitions> {
        let found = self.partitions()?;
        let (before, after) = found
            .and_then(|found| Some((found.count, found.planned?)))
            .ok_or(Error::new(Kind::Damaged("no plan to grow")))?;
        self.connection().execute(
            "INSERT OR REPLACE INTO highs
             SELECT consumer, topic, lane % ?2, lane, stream, n, time_ms FROM highs
             WHERE partition = lane % ?1 AND lane % ?2 <> partition",
            (before, after),
        )?;
        for partition in before..after {
            self.connection().execute(
                "INSERT OR IGNORE INTO ended SELECT consumer, topic, ?1, stream FROM ended WHERE partition = ?2",
                (partition, partition % before),
            )?;
        }
        self.connection()
            .execute("UPDATE partitions SET in_force = 1", ())?;
        let grown = self.partitions()?;
        Ok(grown.expect("a count was just put in force"))
    }

    /// Whether nothing of a consumer waits to be sent.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn outbox_is_empty(&self, consumer: &str) -> Result<bool> {
        Ok(self.outbox_waiting(consumer, 1)?.is_empty())
    }
}

impl View {
    /// As [`Batch::partitions`]; `None` also for a store of a format that did not keep it.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn partitions(&self) -> Result<Option<Partitions>> {
        let kept = self
            .connection
            .prepare("SELECT 1 FROM sqlite_master WHERE name = 'partitions'")?
            .exists(())?;
        if !kept {
            return Ok(None);
        }
        partitions(&self.connection)
    }
}

fn partitions(connection: &Connection) -> Result<Option<Partitions>> {
    let newest = |in_force: bool| {
        connection
            .query_row(
                "SELECT version, count FROM partitions WHERE in_force = ?1 ORDER BY version DESC LIMIT 1",
                (in_force,),
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()
    };
    let Some((version, count)) = newest(true)? else {
        return Ok(None);
    };
    let planned: Option<(u32, u16)> = newest(false)?;
    Ok(Some(Partitions {
        version,
        count,
        planned: planned.map(|(_, count)| count),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::High;

    #[test]
    fn what_is_kept_of_a_lane_goes_where_the_lane_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = Store::open(&path).unwrap();
        assert_eq!(View::open(&path).unwrap().partitions().unwrap(), None);
        store.keep_partitions(2).unwrap();
        let high = |lane: u8, n| High {
            lane,
            stream: [1; 16],
            n,
            time_ms: 7,
        };
        store
            .batch(|batch| {
                for lane in 0..=255 {
                    let partition = u16::from(lane) % 2;
                    batch.set_high("clicks", 1, partition, &high(lane, 10 + u64::from(lane)))?;
                }
                batch.end_stream("clicks", 1, 1, [2; 16])?;
                batch.move_offset("clicks", 1, 1, 0, 99)
            })
            .unwrap();

        store.batch(|batch| batch.plan_partitions(4)).unwrap();
        let found = View::open(&path).unwrap().partitions().unwrap();
        assert_eq!(found.unwrap().planned, Some(4));
        let refused = store.keep_partitions(4).unwrap_err().to_string();
        assert_eq!(
            refused,
            "the store's rows are for 2 partitions and on their way to 4: run sluice topics grow --partitions 4 again"
        );
        // A plan that came to nothing.
        store.keep_partitions(2).unwrap();
        store.batch(|batch| batch.plan_partitions(6)).unwrap();
        let grown = store.batch(|batch| {
            batch.plan_partitions(8)?;
            batch.grow_partitions()
        });
        assert_eq!(
            grown.unwrap(),
            Partitions {
                version: 2,
                count: 8,
                planned: None
            }
        );
        store.keep_partitions(8).unwrap();
        let refused = store.keep_partitions(2).unwrap_err().to_string();
        assert_eq!(
            refused,
            "the store's rows are for 8 partitions (version 2), stream.partitions is 2: set it to 8, or see sluice topics grow"
        );
        for partition in 0..8_u16 {
            let position = store
                .batch(|batch| batch.position("clicks", 1, partition))
                .unwrap();
            assert_eq!(position.offset, if partition == 1 { 99 } else { 0 });
            // What the first two have of lanes that moved on stays as it was.
            let count = if partition < 2 { 2 } else { 8 };
            let lanes = (0..=255_u8).filter(|lane| u16::from(*lane) % count == partition);
            let expected: Vec<High> = lanes.map(|lane| high(lane, 10 + u64::from(lane))).collect();
            assert_eq!(position.highs, expected);
            let ended = if partition % 2 == 1 {
                vec![[2; 16]]
            } else {
                vec![]
            };
            assert_eq!(position.ended, ended);
        }
    }
}
