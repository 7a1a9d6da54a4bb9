//! Where a consumer goes on: the offset in each partition of a topic, and what it has folded of the topic's streams.

use crate::Result;
use crate::batch::{Batch, stream_id};
use crate::error::{Error, Kind};

/// What the receiver's rule keeps of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipts {
    /// Of lanes that go on, ordered by lane and stream.
    pub highs: Vec<High>,
    /// Streams of which lanes have ended, in order: nothing else is kept of these lanes.
    pub ended: Vec<Ended>,
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

/// The lanes of a stream that have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The stream.
    pub stream: [u8; 16],
    /// A bit a lane.
    pub lanes: [u8; 32],
}

impl Batch<'_> {
    /// The first offset of a partition that `consumer` has not folded; 0 of one that it never read.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn offset(&self, consumer: &str, topic: u8, partition: u16) -> Result<u64> {
        let mut select = self.connection().prepare_cached(
            "SELECT offset FROM positions WHERE consumer = ?1 AND topic = ?2 AND partition = ?3",
        )?;
        let mut rows = select.query((consumer, topic, partition))?;
        match rows.next()? {
            Some(row) => Ok(row.get::<_, i64>(0)?.cast_unsigned()),
            None => Ok(0),
        }
    }

    /// What `consumer` has folded of a topic.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn receipts(&self, consumer: &str, topic: u8) -> Result<Receipts> {
        let mut receipts = Receipts::default();
        let mut select = self.connection().prepare_cached(
            "SELECT lane, stream, n, time_ms FROM highs WHERE consumer = ?1 AND topic = ?2 ORDER BY lane, stream",
        )?;
        let mut rows = select.query((consumer, topic))?;
        while let Some(row) = rows.next()? {
            receipts.highs.push(High {
                lane: row.get(0)?,
                stream: stream_id(row.get(1)?)?,
                n: row.get::<_, i64>(2)?.cast_unsigned(),
                time_ms: row.get::<_, i64>(3)?.cast_unsigned(),
            });
        }
        let mut select = self.connection().prepare_cached(
            "SELECT stream, lanes FROM ended WHERE consumer = ?1 AND topic = ?2 ORDER BY stream",
        )?;
        let mut rows = select.query((consumer, topic))?;
        while let Some(row) = rows.next()? {
            let lanes: Vec<u8> = row.get(1)?;
            receipts.ended.push(Ended {
                stream: stream_id(row.get(0)?)?,
                lanes: lanes
                    .try_into()
                    .map_err(|_| Error::new(Kind::Damaged("a set of lanes is not 32 bytes")))?,
            });
        }
        Ok(receipts)
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
    pub fn set_high(&mut self, consumer: &str, topic: u8, high: &High) -> Result<()> {
        self.connection()
            .prepare_cached("INSERT OR REPLACE INTO highs VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute((
                consumer,
                topic,
                high.lane,
                &high.stream[..],
                high.n.cast_signed(),
                high.time_ms.cast_signed(),
            ))?;
        Ok(())
    }

    /// Keeps of lanes that they have ended, and nothing else.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn end_lanes(&mut self, consumer: &str, topic: u8, ended: &Ended) -> Result<()> {
        let mut delete = self.connection().prepare_cached(
            "DELETE FROM highs WHERE consumer = ?1 AND topic = ?2 AND lane = ?3 AND stream = ?4",
        )?;
        let is_ended = |lane: u8| ended.lanes[usize::from(lane / 8)] & 1 << (lane % 8) != 0;
        for lane in (0..=u8::MAX).filter(|lane| is_ended(*lane)) {
            delete.execute((consumer, topic, lane, &ended.stream[..]))?;
        }
        self.connection()
            .prepare_cached("INSERT OR REPLACE INTO ended VALUES (?1, ?2, ?3, ?4)")?
            .execute((consumer, topic, &ended.stream[..], &ended.lanes[..]))?;
        Ok(())
    }
}
