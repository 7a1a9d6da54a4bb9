//! The one loop every consumer runs: read a partition's next records, judge them by the receiver's rule, fold what is new
//! in one transaction with the offset, send what the fold has to say.
//!
//! What a fold says leaves through its outbox: rows written in the transaction that caused them, sent in order, deleted
//! when acknowledged. A crash between sending and deleting sends them again under the same numbers.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::gaps::{Gap, Gaps};
use crate::receipts::{Lanes, Receipt};
use crate::{
    Batch, END, FOREIGN, MakeSender, Receipts, Receiver, Record, SendError, Sender, StreamId,
    Verdict,
};

/// Rows of the outbox under way at once: enough to fill a batch of the stream, little to send again.
const OUTBOX_ROWS_MAX: usize = 1024;

/// A partition never idle must not keep [`Fold::tick`] from its turn.
const TICK_EVERY_BATCHES: u32 = 64;

/// How long to wait for records while acknowledgements are awaited.
const ACKNOWLEDGEMENT_WAIT: Duration = Duration::from_millis(5);

/// The pause after a sender failed; doubles up to the maximum while they go on failing.
const SENDER_PAUSE: Duration = Duration::from_millis(100);
const SENDER_PAUSE_MAX: Duration = Duration::from_secs(5);

/// A consumer's state: a pure function of the records folded so far, kept in a store.
pub trait Fold {
    /// Why the store could not be read or changed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The offset a partition goes on at, as it was last committed; 0 at first.
    ///
    /// # Errors
    /// The store cannot be read.
    fn offset(&mut self, partition: u16) -> Result<u64, Self::Error>;

    /// What was folded of the topic, as it was last committed.
    ///
    /// # Errors
    /// The store cannot be read.
    fn receipts(&mut self) -> Result<Receipts, Self::Error>;

    /// Folds the records, moves the offset from `from` to `to`, keeps `highs` and `ended` and writes the outbox: in one
    /// transaction.
    ///
    /// # Errors
    /// Nothing of it was committed.
    fn apply(&mut self, accepted: &Accepted<'_>) -> Result<(), Self::Error>;

    /// The first rows of the outbox, at most `limit`, in the order of their ids: id, topic, record.
    ///
    /// # Errors
    /// The store cannot be read.
    fn outbox(&mut self, limit: usize) -> Result<Vec<(i64, String, Record)>, Self::Error> {
        let _ = limit;
        Ok(Vec::new())
    }

    /// Deletes the rows of the outbox up to and including an id: they are acknowledged.
    ///
    /// # Errors
    /// The store cannot be changed; the rows will be sent again.
    fn sent(&mut self, through: i64) -> Result<(), Self::Error> {
        let _ = through;
        Ok(())
    }

    /// The stream refuses a row of the outbox for itself: keeps it apart, and lets a tombstone take its number, in one
    /// transaction.
    ///
    /// # Errors
    /// The store cannot be changed; the row is looked for again.
    fn refused(&mut self, id: i64) -> Result<(), Self::Error> {
        let _ = id;
        Ok(())
    }

    /// Work that no record causes, called when there is nothing to read and now and then; says whether it did something.
    ///
    /// # Errors
    /// The store cannot be changed.
    fn tick(&mut self, now_ms: u64) -> Result<bool, Self::Error> {
        let _ = now_ms;
        Ok(false)
    }
}

/// What to fold of one batch. The offset moves over repeats, and not over a record that came early and waits: it is read again
/// after a restart.
#[derive(Debug)]
pub struct Accepted<'a> {
    /// Which partition.
    pub partition: u16,
    /// The offset the store must stand at.
    pub from: u64,
    /// The offset it stands at afterwards.
    pub to: u64,
    /// The new records in order, each with its offset, without tombstones and ends. [`FOREIGN`] ones come again after a
    /// restart while nothing of ours lies behind them.
    pub records: Vec<(u64, &'a Record)>,
    /// The receipts that changed, in the order of lane and stream.
    pub highs: Vec<Receipt>,
    /// All lanes that have ended of the streams of which some did now, in the order of streams: they take the place of receipts.
    pub ended: Vec<(StreamId, Lanes)>,
    /// Numbers known to be lost.
    pub tombstones: u64,
    /// Records folded before.
    pub repeats: u64,
    /// Numbers claimed by two records.
    pub conflicts: u64,
    /// Records whose predecessors are missing; they come again.
    pub early: u64,
    /// The time, Unix milliseconds.
    pub now_ms: u64,
}

/// How the loop behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most records of a batch, so of a transaction.
    pub records_max: usize,
    /// How long to wait for records before a tick.
    pub idle_wait: Duration,
    /// How long to go on reading and sending after a stop is asked for.
    pub drain_max: Duration,
    /// How long a topic must be silent then before it counts as read to its end.
    pub silence: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            records_max: 4096,
            idle_wait: Duration::from_millis(50),
            drain_max: Duration::from_secs(10),
            silence: Duration::ZERO,
        }
    }
}

/// What just happened, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A batch is committed.
    Folded {
        /// Of which partition.
        partition: u16,
        /// The offset the store stands at.
        to: u64,
        /// New records.
        folded: u64,
        /// Numbers known to be lost.
        tombstones: u64,
        /// Records folded before.
        repeats: u64,
        /// Numbers claimed by two records.
        conflicts: u64,
        /// Records whose predecessors are missing.
        early: u64,
        /// The latest time of a record in the batch, Unix milliseconds.
        newest_ms: u64,
    },
    /// Rows of the outbox are acknowledged and deleted.
    Shipped {
        /// How many.
        records: u64,
    },
    /// The outbox's sender failed; another one is made after a pause.
    SenderFailed,
    /// The stream refuses a row of the outbox for itself; a tombstone takes its place.
    Refused,
    /// Records wait for predecessors that are missing: all there is of that at the moment.
    Gaps(Vec<Gap>),
    /// Numbers are missing for too long.
    Overdue(Gap),
    /// There is nothing to read.
    Idle,
}

/// Why the loop ended.
#[derive(Debug)]
pub enum Error<E> {
    /// The topic cannot be read.
    Stream(crate::Error),
    /// The store cannot be read or changed.
    Fold(E),
}

impl<E: std::fmt::Display> std::fmt::Display for Error<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stream(error) => error.fmt(f),
            Self::Fold(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Stream(error) => error.source(),
            Self::Fold(error) => error.source(),
        }
    }
}

/// Runs until `stop` says so; then folds and sends what is already there, for at most `options.drain_max`. Returns
/// whether that was all of it.
///
/// `senders` makes the outbox's senders; `None` for a fold that says nothing. `now_ms` is the time, Unix milliseconds.
///
/// # Errors
/// The first failure of the topic or the store. Nothing of the batch under way is kept; run again to go on.
pub fn run<F: Fold>(
    receiver: &mut dyn Receiver,
    senders: Option<&mut MakeSender<'_>>,
    fold: &mut F,
    options: &Options,
    now_ms: &dyn Fn() -> u64,
    stop: &dyn Fn() -> bool,
    observe: &mut dyn FnMut(&Progress),
) -> Result<bool, Error<F::Error>> {
    let mut partitions: HashMap<u16, Place> = HashMap::new();
    let mut known = Known::default();
    receiver.restart();
    let mut outbox = senders.map(Outbox::new);
    let mut stopping: Option<Instant> = None;
    let mut batches_since_tick = 0;
    loop {
        if stopping.is_none() && stop() {
            stopping = Some(Instant::now());
        }
        if let Some(assigned) = receiver.assigned() {
            partitions.clear();
            known = Known {
                receipts: fold.receipts().map_err(Error::Fold)?,
                gaps: Gaps::default(),
            };
            for partition in assigned {
                let offset = fold.offset(partition).map_err(Error::Fold)?;
                let begin = receiver
                    .begin_at(partition, offset)
                    .map_err(Error::Stream)?;
                receiver.seek(partition, begin).map_err(Error::Stream)?;
                let proven = begin == offset;
                partitions.insert(partition, Place { offset, proven });
            }
        }
        let wait = if outbox.as_ref().is_some_and(|outbox| !outbox.is_empty()) {
            ACKNOWLEDGEMENT_WAIT.min(options.idle_wait)
        } else if stopping.is_some() {
            options.silence
        } else {
            options.idle_wait
        };
        let batch = receiver
            .poll(options.records_max, wait)
            .map_err(Error::Stream)?;
        let idle = batch.is_none();
        let mut busy = false;
        if let Some(mut batch) = batch {
            let place = partitions
                .get_mut(&batch.partition)
                .expect("a receiver reads the partitions it was assigned");
            if !place.proven {
                place
                    .prove(&mut batch, &known.receipts, receiver.topic())
                    .map_err(Error::Stream)?;
            }
            if !batch.records.is_empty() {
                let progress = fold_batch(fold, &batch, place, &mut known, now_ms());
                observe(&progress.map_err(Error::Fold)?);
            }
            batches_since_tick += 1;
            busy = true;
        } else {
            observe(&Progress::Idle);
        }
        if idle || batches_since_tick >= TICK_EVERY_BATCHES {
            batches_since_tick = 0;
            tell_gaps(&mut known.gaps, now_ms(), observe);
            // Not at once: what waits is mostly sent again by then, and it may wait for many lanes.
            for (partition, offset) in known.gaps.take_again() {
                receiver.seek(partition, offset).map_err(Error::Stream)?;
                busy = true;
            }
            busy |= fold.tick(now_ms()).map_err(Error::Fold)?;
        }
        let mut drained = idle && !busy;
        if let Some(outbox) = &mut outbox {
            outbox.more |= busy;
            outbox.ship(fold, observe).map_err(Error::Fold)?;
            drained &= outbox.is_empty();
        }
        if stopping.is_some_and(|since| drained || since.elapsed() >= options.drain_max) {
            return Ok(drained);
        }
    }
}

/// Where the loop stands in a partition.
struct Place {
    /// The offset the store stands at.
    offset: u64,
    /// The topic is known to be the one that was read.
    proven: bool,
}

/// What the loop knows of a topic.
#[derive(Default)]
struct Known {
    receipts: Receipts,
    gaps: Gaps,
}

fn tell_gaps(gaps: &mut Gaps, now_ms: u64, observe: &mut dyn FnMut(&Progress)) {
    observe(&Progress::Gaps(gaps.all().collect()));
    for overdue in gaps.overdue(now_ms) {
        observe(&Progress::Overdue(overdue));
    }
}

impl Place {
    /// The first record read is the one before the position. It was folded or a repeat when the store moved over it, so it is
    /// a repeat now; any other was not there then. Takes it off the batch.
    fn prove(&mut self, batch: &mut Batch, receipts: &Receipts, topic: &str) -> crate::Result<()> {
        let first = batch.records.first();
        let is_ours = first.is_some_and(|(offset, record)| {
            offset + 1 == self.offset && receipts.has_folded(record)
        });
        if !is_ours {
            return Err(crate::Error::recreated(topic, batch.partition, self.offset));
        }
        batch.records.remove(0);
        batch.first = self.offset;
        self.proven = true;
        Ok(())
    }
}

fn fold_batch<F: Fold>(
    fold: &mut F,
    batch: &Batch,
    place: &mut Place,
    Known { receipts, gaps }: &mut Known,
    now_ms: u64,
) -> Result<Progress, F::Error> {
    let partition = batch.partition;
    let mut accepted = Accepted {
        partition,
        from: place.offset,
        to: place.offset,
        records: Vec::with_capacity(batch.records.len()),
        highs: Vec::new(),
        ended: Vec::new(),
        tombstones: 0,
        repeats: 0,
        conflicts: 0,
        early: 0,
        now_ms,
    };
    let mut newest_ms = 0;
    let mut foreign = 0;
    for (offset, record) in &batch.records {
        if record.kind == FOREIGN {
            accepted.records.push((*offset, record));
            foreign += 1;
            continue;
        }
        newest_ms = newest_ms.max(record.time_ms);
        let lost = match record.is_tombstone() {
            true => {
                let next = receipts.next(record.lane, record.origin);
                record.last().saturating_sub(next).saturating_add(1)
            }
            false => 0,
        };
        let verdict = receipts.judge(record);
        match verdict {
            Verdict::Fold => {
                gaps.folded(record);
                accepted.tombstones += lost;
                if !record.is_tombstone() && record.kind != END {
                    accepted.records.push((*offset, record));
                }
            }
            Verdict::Repeat => accepted.repeats += 1,
            Verdict::Conflict => accepted.conflicts += 1,
            Verdict::Early => {
                accepted.early += 1;
                let missing = receipts.missing(record);
                gaps.early((partition, *offset), record, &missing, now_ms);
            }
        }
        // The record before the store's offset is always one that the receipts know: that is what proves a topic. And the
        // offset passes none that waits.
        if verdict != Verdict::Early && *offset < gaps.first(partition) {
            accepted.to = accepted.to.max(offset + 1);
        }
    }
    accepted.highs = receipts.changed();
    accepted.ended = receipts.ended();
    // Others are folded beside one that waits, though the offset stays.
    let is_changed = accepted.to > accepted.from || foreign > 0;
    let is_changed = is_changed || !accepted.highs.is_empty() || !accepted.ended.is_empty();
    if is_changed && let Err(error) = fold.apply(&accepted) {
        receipts.rollback();
        return Err(error);
    }
    receipts.commit();
    place.offset = accepted.to;
    if accepted.conflicts > 0 {
        tracing::error!(
            partition,
            conflicts = accepted.conflicts,
            "two records claim one number"
        );
    }
    Ok(Progress::Folded {
        partition,
        to: accepted.to,
        folded: accepted.records.len() as u64 - foreign,
        tombstones: accepted.tombstones,
        repeats: accepted.repeats,
        conflicts: accepted.conflicts,
        early: accepted.early,
        newest_ms,
    })
}

/// The outbox on its way: at most one sender, at most [`OUTBOX_ROWS_MAX`] rows taken from the store.
struct Outbox<'a, 'b> {
    senders: &'a mut MakeSender<'b>,
    sender: Option<Box<dyn Sender>>,
    /// Taken from the store, not yet taken by the sender.
    unsent: VecDeque<(i64, String, Record)>,
    /// Ids of the rows the sender took, not yet acknowledged.
    under_way: VecDeque<i64>,
    /// Acknowledged by this sender so far.
    acknowledged: u64,
    /// The store may hold rows that were not taken.
    more: bool,
    /// So many rows are sent one by one, to find the one that the stream refuses.
    one_by_one: usize,
    pause: Duration,
    paused_since: Option<Instant>,
}

impl<'a, 'b> Outbox<'a, 'b> {
    fn new(senders: &'a mut MakeSender<'b>) -> Self {
        Self {
            senders,
            sender: None,
            unsent: VecDeque::new(),
            under_way: VecDeque::new(),
            acknowledged: 0,
            more: true,
            one_by_one: 0,
            pause: SENDER_PAUSE,
            paused_since: None,
        }
    }

    fn is_under_way(&self) -> bool {
        !self.under_way.is_empty() || !self.unsent.is_empty()
    }

    fn is_empty(&self) -> bool {
        !self.more && !self.is_under_way()
    }

    /// Sends and deletes until there is nothing more, or until the sender wants time.
    fn ship<F: Fold>(
        &mut self,
        fold: &mut F,
        observe: &mut dyn FnMut(&Progress),
    ) -> Result<(), F::Error> {
        if self
            .paused_since
            .is_some_and(|since| since.elapsed() < self.pause)
        {
            return Ok(());
        }
        self.paused_since = None;
        // Each turn ships rows that exist now; new ones come only from folding, which waits for this.
        while !self.is_empty() {
            if !self.is_under_way() {
                self.unsent = fold.outbox(OUTBOX_ROWS_MAX)?.into();
                self.more = self.unsent.len() == OUTBOX_ROWS_MAX;
                if self.unsent.is_empty() {
                    break;
                }
            }
            let shipped = match self.turn() {
                Ok(shipped) => shipped,
                Err(error) => {
                    tracing::warn!(%error, "outbox sender failed, sending again after a pause");
                    if error.is_refusal() {
                        self.look_for_refused(fold, &error, observe)?;
                    }
                    self.end_sender();
                    observe(&Progress::SenderFailed);
                    break;
                }
            };
            let through = self.under_way.drain(..shipped).next_back();
            let Some(through) = through else {
                break;
            };
            fold.sent(through)?;
            self.one_by_one = self.one_by_one.saturating_sub(shipped);
            self.pause = SENDER_PAUSE;
            observe(&Progress::Shipped {
                records: shipped as u64,
            });
        }
        Ok(())
    }

    /// The first time, everything that is under way is sent again one by one; then the only one under way is the one.
    fn look_for_refused<F: Fold>(
        &mut self,
        fold: &mut F,
        error: &crate::Error,
        observe: &mut dyn FnMut(&Progress),
    ) -> Result<(), F::Error> {
        if self.one_by_one == 0 {
            self.one_by_one = self.under_way.len() + 1;
            return Ok(());
        }
        // One that was refused before it was sent is still the first of the others.
        let unsent = self.unsent.front().map(|(id, ..)| id);
        if let Some(&row) = self.under_way.front().or(unsent) {
            fold.refused(row)?;
            tracing::error!(
                row,
                %error,
                "the stream refuses a record of the outbox: it is kept with the dead letters, a tombstone takes its number"
            );
            observe(&Progress::Refused);
        }
        Ok(())
    }

    /// Hands over what the sender takes and asks how many more are acknowledged.
    fn turn(&mut self) -> crate::Result<usize> {
        let sender = match &mut self.sender {
            Some(sender) => sender,
            none => none.insert((self.senders)()?),
        };
        let under_way_max = if self.one_by_one > 0 {
            1
        } else {
            OUTBOX_ROWS_MAX
        };
        while self.under_way.len() < under_way_max
            && let Some((id, topic, record)) = self.unsent.front()
        {
            match sender.send(topic, record) {
                Ok(()) => self.under_way.push_back(*id),
                Err(SendError::Full) => break,
                Err(SendError::Failed(error)) => return Err(error),
            }
            self.unsent.pop_front();
        }
        let acknowledged = sender.acknowledged(Duration::ZERO)?;
        let shipped = usize::try_from(acknowledged - self.acknowledged)
            .expect("no more are acknowledged than were sent");
        self.acknowledged = acknowledged;
        Ok(shipped)
    }

    /// Everything after the watermark is taken from the store again.
    fn end_sender(&mut self) {
        if self.sender.take().is_none() || self.acknowledged == 0 {
            self.pause = (self.pause * 2).min(SENDER_PAUSE_MAX);
        }
        self.unsent.clear();
        self.under_way.clear();
        self.acknowledged = 0;
        self.more = true;
        self.paused_since = Some(Instant::now());
    }
}
