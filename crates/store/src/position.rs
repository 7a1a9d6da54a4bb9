//! Where a consumer goes on: the offset in each input partition, and the highest number folded of each (lane, stream).

use crate::Result;
use crate::batch::{Batch, stream_id};
use crate::error::{Error, Kind};

/// Where a consumer goes on in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The first offset that is not folded yet.
    pub offset: u64,
    /// What the receiver rule keeps, ordered by lane and stream.
    pub highs: Vec<High>,
    /// Streams that have ended, in order: nothing more is kept of them.
    pub ended: Vec<[u8; 16]>,
}

/// The highest number folded of one (lane, stream).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct High {
    /// The lane.
    pub lane: u8,
    /// The stream.
    pub stream: [u8; 16],
    /// Its highest number folded.
    pub n: u64,
    /// That record's time, Unix milliseconds.
    pub time_ms: u64,
}

impl Batch<'_> {
    /// Where `consumer` goes on; offset 0 and no highs for one that never read the partition.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn position(&self, consumer: &str, topic: u8, partition: u16) -> Result<Position> {
        let mut offsets = self.connection().prepare_cached(
            "SELECT offset FROM positions WHERE consumer = ?1 AND topic = ?2 AND partition = ?3",
        )?;
        let mut rows = offsets.query((consumer, topic, partition))?;
        let offset = match rows.next()? {
            Some(row) => row.get::<_, i64>(0)?.cast_unsigned(),
            None => 0,
        };
        let mut select = self.connection().prepare_cached(
            "SELECT lane, stream, n, time_ms FROM highs WHERE consumer = ?1 AND topic = ?2 AND partition = ?3
             ORDER BY lane, stream",
        )?;
        let mut rows = select.query((consumer, topic, partition))?;
        let mut highs = Vec::new();
        while let Some(row) = rows.next()? {
            highs.push(High {
                lane: row.get(0)?,
                stream: stream_id(row.get(1)?)?,
                n: row.get::<_, i64>(2)?.cast_unsigned(),
                time_ms: row.get::<_, i64>(3)?.cast_unsigned(),
            });
        }
        let mut select = self.connection().prepare_cached(
            "SELECT stream FROM ended WHERE consumer = ?1 AND topic = ?2 AND partition = ?3 ORDER BY stream",
        )?;
        let mut rows = select.query((consumer, topic, partition))?;
        let mut ended = Vec::new();
        while let Some(row) = rows.next()? {
            ended.push(stream_id(row.get(0)?)?);
        }
        Ok(Position {
            offset,
            highs,
            ended,
        })
    }

    /// Moves the offset from where this owner left it. The first thing a batch does.
    ///
    /// # Errors
    ///
    /// [`Error::is_overtaken`] when the offset is not `from` (0 for a partition never read): the batch must roll back.
    pub fn move_offset(
        &mut self,
        consumer: &str,
        topic: u8,
        partition: u16,
        from: u64,
        to: u64,
    ) -> Result<()> {
        let to = to.cast_signed();
        let mut changed = self
            .connection()
            .prepare_cached(
                "UPDATE positions SET offset = ?5
                 WHERE consumer = ?1 AND topic = ?2 AND partition = ?3 AND offset = ?4",
            )?
            .execute((consumer, topic, partition, from.cast_signed(), to))?;
        if changed == 0 && from == 0 {
            changed = self
                .connection()
                .prepare_cached("INSERT OR IGNORE INTO positions VALUES (?1, ?2, ?3, ?4)")?
                .execute((consumer, topic, partition, to))?;
        }
        if changed == 0 {
            return Err(Error::new(Kind::Overtaken {
                consumer: consumer.to_owned(),
                topic,
                partition,
                from,
            }));
        }
        Ok(())
    }

    /// Keeps the highest number folded of a (lane, stream).
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn set_high(
        &mut self,
        consumer: &str,
        topic: u8,
        partition: u16,
        high: &High,
    ) -> Result<()> {
        self.connection()
            .prepare_cached("INSERT OR REPLACE INTO highs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute((
                consumer,
                topic,
                partition,
                high.lane,
                &high.stream[..],
                high.n.cast_signed(),
                high.time_ms.cast_signed(),
            ))?;
        Ok(())
    }

    /// Keeps of a stream that it has ended, and nothing else.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn end_stream(
        &mut self,
        consumer: &str,
        topic: u8,
        partition: u16,
        stream: [u8; 16],
    ) -> Result<()> {
        let row = (consumer, topic, partition, &stream[..]);
        self.connection()
            .prepare_cached(
                "DELETE FROM highs WHERE consumer = ?1 AND topic = ?2 AND partition = ?3 AND stream = ?4",
            )?
            .execute(row)?;
        self.connection()
            .prepare_cached("INSERT OR IGNORE INTO ended VALUES (?1, ?2, ?3, ?4)")?
            .execute(row)?;
        Ok(())
    }
}
