//! The receiver's rule: what makes of "at least once" each record once and in order.
//!
//! Per (lane, stream) the receiver keeps `high`, the number of the last record folded. The next number is folded, a lower
//! one is a repeat and dropped, a higher one came early and is dropped too: it comes again, or is read again, after the
//! missing ones. Keeping just the highest number seen would lose the overtaken ones.
//!
//! The rule knows no partitions: when a topic grows, a lane goes on in another partition, and its numbers say in which order
//! its records belong together.
//!
//! The last record of a stream in a partition is its end ([`Record::ends`]): it comes early until every lane that it names is
//! whole.

use std::collections::HashMap;

use crate::{END, Record, StreamId};

/// The last record folded of one (lane, stream).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct High {
    /// Its number.
    pub n: u64,
    /// The latest time of a record up to it, Unix milliseconds.
    pub time_ms: u64,
}

/// The high of a lane of a stream, as stores keep it.
pub type Receipt = (u8, StreamId, High);

/// What to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one.
    Fold,
    /// It was folded before.
    Repeat,
    /// Its number was folded before, but it is younger than everything folded: two records claim one number.
    Conflict,
    /// Records before it are missing; it will be sent again after them.
    Early,
}

/// A set of lanes: bit `lane mod 8` of byte `lane / 8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Lanes(pub [u8; 32]);

impl Lanes {
    fn insert(&mut self, lane: u8) {
        self.0[usize::from(lane / 8)] |= 1 << (lane % 8);
    }

    /// Whether a lane is in it.
    pub fn contains(&self, lane: u8) -> bool {
        self.0[usize::from(lane / 8)] & 1 << (lane % 8) != 0
    }
}

/// Numbers of a lane that must come before a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) lane: u8,
    /// The first that is missing.
    pub(crate) first: u64,
    /// The last that is missing.
    pub(crate) last: u64,
}

/// What was folded of one topic, and what the batch under way would change.
///
/// Judging counts as folding until [`Self::commit`] keeps it or [`Self::rollback`] takes it back. Of lanes that have ended
/// only a set is kept for each stream, so that what is remembered grows little with every start of a worker.
#[derive(Clone, Debug, Default)]
pub struct Receipts {
    kept: Kept,
    /// Judged since the last commit; wins over `kept`.
    pending: Kept,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    highs: HashMap<(u8, StreamId), High>,
    ended: HashMap<StreamId, Lanes>,
}

impl Receipts {
    /// As the store has them.
    pub fn new(
        highs: impl IntoIterator<Item = Receipt>,
        ended: impl IntoIterator<Item = (StreamId, Lanes)>,
    ) -> Self {
        let highs = highs.into_iter();
        Self {
            kept: Kept {
                highs: highs
                    .map(|(lane, stream, high)| ((lane, stream), high))
                    .collect(),
                ended: ended.into_iter().collect(),
            },
            pending: Kept::default(),
        }
    }

    /// The rule.
    pub fn judge(&mut self, record: &Record) -> Verdict {
        let (lane, stream) = (record.lane, record.origin);
        if self.ended_lanes(stream).contains(lane) {
            return Verdict::Repeat;
        }
        let high = self.high(lane, stream);
        if record.last() <= high.n {
            return if record.time_ms > high.time_ms {
                Verdict::Conflict
            } else {
                Verdict::Repeat
            };
        }
        if record.n > high.n.saturating_add(1)
            || record.kind == END && !self.missing(record).is_empty()
        {
            return Verdict::Early;
        }
        if record.kind == END {
            let mut ended = self.ended_lanes(stream);
            let named = record.ended_lanes().into_iter().map(|(lane, _)| lane);
            for lane in named.chain([lane]) {
                ended.insert(lane);
                self.pending.highs.remove(&(lane, stream));
            }
            self.pending.ended.insert(stream, ended);
            return Verdict::Fold;
        }
        let high = High {
            n: record.last(),
            time_ms: record.time_ms.max(high.time_ms),
        };
        self.pending.highs.insert((lane, stream), high);
        Verdict::Fold
    }

    /// Whether a record was folded before the batch under way.
    pub(crate) fn has_folded(&self, record: &Record) -> bool {
        let (lane, stream) = (record.lane, record.origin);
        let ended = self.kept.ended.get(&stream);
        let high = self.kept.highs.get(&(lane, stream)).copied();
        ended.is_some_and(|lanes| lanes.contains(lane))
            || record.last() <= high.unwrap_or_default().n
    }

    /// What a record waits for: numbers of its own lane, and an end also for those of the others that it names.
    pub(crate) fn missing(&self, record: &Record) -> Vec<Missing> {
        let ended = self.ended_lanes(record.origin);
        let others = record.ended_lanes().into_iter();
        let others = others.filter(|(lane, _)| *lane != record.lane && !ended.contains(*lane));
        let wanted = others.chain([(record.lane, record.n - 1)]);
        let missing = wanted.map(|(lane, last)| Missing {
            lane,
            first: self.next(lane, record.origin),
            last,
        });
        missing
            .filter(|missing| missing.first <= missing.last)
            .collect()
    }

    /// The number a lane of a stream goes on at.
    pub(crate) fn next(&self, lane: u8, stream: StreamId) -> u64 {
        self.high(lane, stream).n.saturating_add(1)
    }

    fn high(&self, lane: u8, stream: StreamId) -> High {
        let of = (lane, stream);
        let high = self.pending.highs.get(&of);
        let high = high.or_else(|| self.kept.highs.get(&of));
        high.copied().unwrap_or_default()
    }

    fn ended_lanes(&self, stream: StreamId) -> Lanes {
        let ended = self.pending.ended.get(&stream);
        let ended = ended.or_else(|| self.kept.ended.get(&stream));
        ended.copied().unwrap_or_default()
    }

    /// What judging changed since the last commit, in the order of lane and stream.
    pub fn changed(&self) -> Vec<Receipt> {
        let highs = self.pending.highs.iter();
        let mut changed: Vec<_> = highs
            .map(|(&(lane, stream), &high)| (lane, stream, high))
            .collect();
        changed.sort_unstable_by_key(|(lane, stream, _)| (*lane, *stream));
        changed
    }

    /// All lanes that have ended of the streams of which some did since the last commit, in the order of streams: nothing else
    /// is kept of these lanes from now on.
    pub fn ended(&self) -> Vec<(StreamId, Lanes)> {
        let ended = self.pending.ended.iter();
        let mut ended: Vec<_> = ended.map(|(stream, lanes)| (*stream, *lanes)).collect();
        ended.sort_unstable_by_key(|(stream, _)| *stream);
        ended
    }

    /// What was judged is in the store.
    pub fn commit(&mut self) {
        let Kept { highs, ended } = std::mem::take(&mut self.pending);
        if !ended.is_empty() {
            let is_ended = |lane: u8, of: &StreamId| {
                let lanes = ended.get(of);
                lanes.is_some_and(|lanes| lanes.contains(lane))
            };
            self.kept.highs.retain(|(lane, of), _| !is_ended(*lane, of));
        }
        self.kept.highs.extend(highs);
        self.kept.ended.extend(ended);
    }

    /// What was judged did not get into the store.
    pub fn rollback(&mut self) {
        self.pending = Kept::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: StreamId = StreamId([3; 16]);

    fn record(lane: u8, n: u64, time_ms: u64) -> Record {
        Record {
            kind: 1,
            ..Record::tombstone(STREAM, lane, n, time_ms)
        }
    }

    #[test]
    fn the_rule() {
        let high = High {
            n: 5,
            time_ms: 1_000,
        };
        let mut receipts = Receipts::new([(0, STREAM, high)], []);
        for (lane, n, time_ms, expected) in [
            (0, 5, 1_000, Verdict::Repeat),
            (0, 1, 10, Verdict::Repeat),
            (0, 5, 1_001, Verdict::Conflict),
            (0, 7, 1_200, Verdict::Early),
            (0, 6, 1_100, Verdict::Fold),
            (0, 6, 1_100, Verdict::Repeat),
            (0, 7, 1_200, Verdict::Fold),
            (1, 2, 1, Verdict::Early),
            (1, 1, 1, Verdict::Fold),
            (1, 0, 0, Verdict::Repeat),
            // A clock that steps backwards makes no conflict of a repeat.
            (1, 2, 0, Verdict::Fold),
            (1, 1, 1, Verdict::Repeat),
        ] {
            assert_eq!(
                receipts.judge(&record(lane, n, time_ms)),
                expected,
                "lane {lane}, n {n}, time {time_ms}"
            );
        }
    }

    #[test]
    fn of_lanes_that_ended_only_a_set_is_kept() {
        let mut receipts = Receipts::default();
        // Lane 1 is another partition's.
        let ends = Record::ends(STREAM, &[(0, 1), (1, 8), (2, 2), (4, 1)], 2);
        let end = &ends[0];
        assert_eq!((end.lane, end.n), (0, 2));
        for (record, expected) in [
            (&record(0, 1, 7), Verdict::Fold),
            (end, Verdict::Early),
            (&record(2, 1, 8), Verdict::Fold),
            (&record(4, 1, 9), Verdict::Fold),
            (end, Verdict::Early),
        ] {
            assert_eq!(receipts.judge(record), expected, "{record:?}");
        }
        receipts.commit();
        // Lane 2 was overtaken: its stream has not ended before it has.
        assert_eq!(receipts.judge(&record(2, 2, 8)), Verdict::Fold);
        assert_eq!(receipts.judge(end), Verdict::Fold);
        let lanes = |bits| {
            let mut lanes = Lanes::default();
            lanes.0[0] = bits;
            lanes
        };
        let ended = vec![(STREAM, lanes(0b1_0101))];
        assert_eq!((receipts.changed(), receipts.ended()), (vec![], ended));
        receipts.rollback();
        assert_eq!(receipts.judge(&record(2, 2, 8)), Verdict::Fold);
        assert_eq!(receipts.judge(end), Verdict::Fold);
        receipts.commit();
        assert_eq!(receipts.kept.highs.len(), 0);
        for record in [&record(0, 1, 7), end, &record(4, 3, 99)] {
            assert_eq!(receipts.judge(record), Verdict::Repeat, "{record:?}");
        }
        // Lane 1 goes on until its partition's end has come too.
        for n in 1..=8 {
            assert_eq!(receipts.judge(&record(1, n, 9)), Verdict::Fold);
        }
        assert_eq!(receipts.judge(&ends[1]), Verdict::Fold);
        assert_eq!(receipts.ended(), [(STREAM, lanes(0b1_0111))]);
    }

    #[test]
    fn one_tombstone_takes_many_numbers() {
        let mut receipts = Receipts::default();
        let lost = |range| Record::tombstone_of(STREAM, 0, range, 5);
        for (record, expected) in [
            (lost(2..=9), Verdict::Early),
            (record(0, 1, 1), Verdict::Fold),
            (lost(2..=1 << 40), Verdict::Fold),
            (lost(2..=9), Verdict::Repeat),
            (record(0, 1 << 40, 5), Verdict::Repeat),
            (record(0, (1 << 40) + 1, 6), Verdict::Fold),
            // Another courier knows less of it.
            (lost(7..=(1 << 40) + 3), Verdict::Fold),
            (record(0, (1 << 40) + 4, 6), Verdict::Fold),
        ] {
            assert_eq!(receipts.judge(&record), expected, "{record:?}");
        }
    }

    #[test]
    fn numbers_that_nobody_reaches_break_nothing() {
        let mut receipts = Receipts::default();
        let all = Record::tombstone_of(STREAM, 0, 1..=u64::MAX, 5);
        assert_eq!(receipts.judge(&all), Verdict::Fold);
        let end = Record::ends(STREAM, &[(0, 1), (1, u64::MAX)], 1).remove(0);
        for record in [&record(0, u64::MAX, 5), &record(0, 0, 5), &end] {
            assert_eq!(receipts.judge(record), Verdict::Repeat, "{record:?}");
        }
        let end = Record {
            lane: 2,
            n: 1,
            ..end
        };
        assert_eq!(receipts.judge(&end), Verdict::Early);
        assert_eq!(receipts.missing(&end).len(), 1);
        let none = Record {
            n: 0,
            ..record(9, 1, 5)
        };
        assert!(receipts.has_folded(&none), "the offset passes it");
        let end = Record { n: 0, ..end };
        assert_eq!(receipts.judge(&end), Verdict::Repeat);
    }

    #[test]
    fn a_batch_that_failed_leaves_no_trace() {
        let mut receipts = Receipts::default();
        assert_eq!(receipts.judge(&record(0, 1, 1)), Verdict::Fold);
        receipts.commit();
        assert_eq!(receipts.changed(), []);
        assert_eq!(receipts.judge(&record(0, 2, 2)), Verdict::Fold);
        assert_eq!(receipts.judge(&record(9, 1, 2)), Verdict::Fold);
        assert_eq!(
            receipts.changed(),
            [
                (0, STREAM, High { n: 2, time_ms: 2 }),
                (9, STREAM, High { n: 1, time_ms: 2 }),
            ]
        );
        receipts.rollback();
        assert_eq!(receipts.changed(), []);
        assert_eq!(receipts.judge(&record(0, 1, 1)), Verdict::Repeat);
        assert_eq!(receipts.judge(&record(0, 2, 2)), Verdict::Fold);
    }

    const LANES: u8 = 4;
    const PARTITIONS: u8 = 2;

    /// What happens next, with a number that picks among what is possible.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// The sender hands the next records to its producer.
        Send(usize),
        /// A batch of some producer, living or replaced, reaches the log.
        Land(usize),
        /// The first batch of a partition is given up; younger ones go on and overtake it.
        Fail(usize),
        /// The sender learns of the failure: new producer, everything after the watermark again.
        Replace,
        /// The sender is killed and starts at a watermark it saved before.
        Kill(usize),
        /// The sender saves its watermark.
        Save,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            7 => (1usize..5).prop_map(Event::Send),
            8 => any::<usize>().prop_map(Event::Land),
            1 => any::<usize>().prop_map(Event::Fail),
            1 => Just(Event::Replace),
            1 => any::<usize>().prop_map(Event::Kill),
            1 => Just(Event::Save),
        ]
    }

    /// Batches on their way, per partition, as indexes of records.
    #[derive(Default)]
    struct Producer {
        queues: [Vec<Vec<usize>>; PARTITIONS as usize],
        acknowledged: Vec<usize>,
    }

    /// The logs a run of events leaves, faults first and a quiet end in which all is acknowledged.
    fn logs(records: &[Record], events: &[Event]) -> [Vec<usize>; PARTITIONS as usize] {
        let mut logs = [const { Vec::new() }; PARTITIONS as usize];
        let mut producers = vec![Producer::default()];
        let (mut next, mut watermark, mut saved) = (0, 0, 0);
        let quiet = [
            Event::Replace,
            Event::Send(records.len()),
            Event::Land(usize::MAX),
        ];
        for event in events.iter().chain(&quiet) {
            let last = producers.len() - 1;
            match *event {
                Event::Send(count) => {
                    let until = records.len().min(next + count);
                    let mut batches = [const { Vec::new() }; PARTITIONS as usize];
                    for index in next..until {
                        batches[usize::from(records[index].lane % PARTITIONS)].push(index);
                    }
                    next = until;
                    for (queue, batch) in producers[last].queues.iter_mut().zip(batches) {
                        if !batch.is_empty() {
                            queue.push(batch);
                        }
                    }
                }
                Event::Land(usize::MAX) => {
                    for producer in &mut producers {
                        for (queue, log) in producer.queues.iter_mut().zip(&mut logs) {
                            log.extend(queue.drain(..).flatten());
                        }
                    }
                }
                Event::Land(pick) => {
                    let at = pick % producers.len();
                    let partition = pick / 7 % usize::from(PARTITIONS);
                    let queue = &mut producers[at].queues[partition];
                    if !queue.is_empty() {
                        let batch = queue.remove(0);
                        logs[partition].extend(&batch);
                        producers[at].acknowledged.extend(batch);
                    }
                    while producers[last].acknowledged.contains(&watermark) {
                        watermark += 1;
                    }
                }
                Event::Fail(pick) => {
                    let queue = &mut producers[last].queues[pick % usize::from(PARTITIONS)];
                    if !queue.is_empty() {
                        queue.remove(0);
                    }
                }
                Event::Replace => {
                    producers.push(Producer::default());
                    next = watermark;
                }
                Event::Kill(pick) => {
                    watermark = saved + pick % (watermark - saved + 1);
                    saved = watermark;
                    producers.push(Producer::default());
                    next = watermark;
                }
                Event::Save => saved = watermark,
            }
        }
        logs
    }

    /// Records of these lanes, and the ends of their stream.
    fn sent(lanes: &[u8]) -> Vec<Record> {
        let mut last = [0; LANES as usize];
        let records = (0..).zip(lanes).map(|(time_ms, &lane)| {
            last[usize::from(lane)] += 1;
            record(lane, last[usize::from(lane)], time_ms)
        });
        let mut records: Vec<_> = records.collect();
        let last: Vec<(u8, u64)> = (0..).zip(last).filter(|(_, last)| *last > 0).collect();
        records.extend(Record::ends(STREAM, &last, PARTITIONS.into()));
        records
    }

    /// Folds the logs in batches of which some fail to commit and are read again; the indexes folded, per lane.
    fn fold(
        records: &[Record],
        logs: &[Vec<usize>],
        batch: usize,
        failures: &[bool],
    ) -> Vec<Vec<usize>> {
        let mut folded = vec![Vec::new(); usize::from(LANES)];
        let mut failures = failures.iter().copied();
        for log in logs {
            let mut receipts = Receipts::default();
            for chunk in log.chunks(batch) {
                loop {
                    let accepted: Vec<usize> = chunk
                        .iter()
                        .copied()
                        .filter(|&index| receipts.judge(&records[index]) == Verdict::Fold)
                        .collect();
                    if failures.next().unwrap_or(false) {
                        receipts.rollback();
                        continue;
                    }
                    receipts.commit();
                    for index in accepted {
                        folded[usize::from(records[index].lane)].push(index);
                    }
                    break;
                }
            }
            assert_eq!(receipts.kept.highs.len(), 0, "all of it has ended");
        }
        folded
    }

    fn expected(records: &[Record]) -> Vec<Vec<usize>> {
        (0..LANES)
            .map(|lane| {
                (0..records.len())
                    .filter(|&index| records[index].lane == lane)
                    .collect()
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn each_record_is_folded_once_and_in_order(
            lanes in proptest::collection::vec(0..LANES, 1..60),
            events in proptest::collection::vec(event(), 0..120),
            batch in 1usize..9,
            failures in proptest::collection::vec(any::<bool>(), 0..20),
        ) {
            let records = sent(&lanes);
            let logs = logs(&records, &events);
            prop_assert_eq!(fold(&records, &logs, batch, &failures), expected(&records));
        }
    }

    #[test]
    fn the_highest_number_seen_alone_loses_overtaken_records() {
        let records = sent(&[0, 0, 0]);
        let logs = logs(
            &records,
            &[
                Event::Send(1),
                Event::Send(1),
                Event::Send(1),
                Event::Fail(0),
                Event::Land(0),
                Event::Replace,
            ],
        );
        assert_eq!(
            logs[0],
            [1, 2, 0, 1, 2, 3],
            "younger ones overtook the first"
        );
        let mut high = 0;
        let naive: Vec<u64> = logs[0]
            .iter()
            .map(|&index| records[index].n)
            .filter(|&n| {
                let new = n > high;
                high = high.max(n);
                new
            })
            .collect();
        assert_eq!(naive, [2, 3, 4], "the first is lost");
        assert_eq!(fold(&records, &logs, 8, &[]), expected(&records));
    }
}
