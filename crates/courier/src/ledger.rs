//! The ledger of each journal folder on the metrics: `answered = recorded + unrecorded` and
//! `recorded = delivered + dead + lost + waiting`, in every scrape and through every restart.
//!
//! What was answered stands on the folder's scoreboard, what became of it in its couriers' cursors. A scrape takes the
//! couriers' totals first and reads the scoreboard after: meanwhile that only rises, so what was delivered was recorded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use domain::Topic;
use journal::Full;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use crate::marks::{TOPICS, Totals};
use stream::letters::Reason;

/// The ledgers of all journals that a process ships. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledgers(Arc<Mutex<BTreeMap<u16, Shipped>>>);

/// What the couriers of one journal said last.
#[derive(Clone, Debug)]
struct Shipped {
    folder: PathBuf,
    /// In the order of [`TOPICS`]; none until its courier opened its cursor.
    topics: [Option<Totals>; TOPICS.len()],
}

impl Ledgers {
    pub(crate) fn tell(&self, journal: u16, folder: &Path, topic: Topic, totals: Totals) {
        let mut journals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shipped = journals.entry(journal).or_insert_with(|| Shipped {
            folder: folder.to_owned(),
            topics: [None; TOPICS.len()],
        });
        for (told, _) in shipped
            .topics
            .iter_mut()
            .zip(TOPICS)
            .filter(|of| of.1 == topic)
        {
            *told = Some(totals);
        }
    }

    /// # Errors
    /// A name that is no metric's.
    pub(crate) fn collector(&self) -> Result<impl Collector + use<>, prometheus::Error> {
        Ok(Scrape {
            ledgers: self.clone(),
            families: Families::new()?,
        })
    }
}

struct Scrape {
    ledgers: Ledgers,
    /// To say what there is.
    families: Families,
}

impl Collector for Scrape {
    fn desc(&self) -> Vec<&Desc> {
        let families = self.families.all();
        families.into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let journals = self.ledgers.0.lock();
        let journals = journals.unwrap_or_else(PoisonError::into_inner).clone();
        let families = Families::new().expect("they were made once");
        for (journal, shipped) in &journals {
            families.fill(*journal, shipped);
        }
        families
            .all()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

struct Families {
    answered: IntCounterVec,
    appended: IntCounterVec,
    unrecorded: IntCounterVec,
    delivered: IntCounterVec,
    dead: IntCounterVec,
    lost: IntCounterVec,
    waiting: IntGaugeVec,
}

impl Families {
    fn new() -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(
                Opts::new(format!("sluice_journal_{name}_total"), help),
                labels,
            )
        };
        Ok(Self {
            answered: counter(
                "answered",
                "What owed the journal a record, since its folder was made: answers, counts of unmatched requests, and ends of streams.",
                &["journal"],
            )?,
            appended: counter("appended", "Records put into the journal.", &["journal"])?,
            unrecorded: counter(
                "unrecorded",
                "Answers without their record, by why the journal did not take it.",
                &["journal", "reason"],
            )?,
            delivered: counter(
                "delivered",
                "Records the stream acknowledged.",
                &["journal", "topic"],
            )?,
            dead: counter(
                "dead",
                "Records that cannot be shipped, kept with the dead letters.",
                &["journal", "topic", "reason"],
            )?,
            lost: counter(
                "lost",
                "Records that were appended and are not in the journal: taken from its end by a power cut, or missing inside it.",
                &["journal", "reason"],
            )?,
            waiting: IntGaugeVec::new(
                Opts::new(
                    "sluice_journal_waiting",
                    "Records appended that are not yet delivered, dead or lost.",
                ),
                &["journal"],
            )?,
        })
    }

    fn all(&self) -> [&dyn Collector; 7] {
        [
            &self.answered,
            &self.appended,
            &self.unrecorded,
            &self.delivered,
            &self.dead,
            &self.lost,
            &self.waiting,
        ]
    }

    fn fill(&self, journal: u16, shipped: &Shipped) {
        let journal = journal.to_string();
        let journal = journal.as_str();
        let mut settled = 0;
        for (totals, topic) in shipped.topics.iter().zip(TOPICS) {
            let Some(totals) = totals else { continue };
            let of = [journal, topic.name()];
            self.delivered
                .with_label_values(&of)
                .inc_by(totals.delivered);
            for (reason, dead) in Reason::ALL.into_iter().zip(totals.dead) {
                let of = [journal, topic.name(), reason.name()];
                self.dead.with_label_values(&of).inc_by(dead);
            }
            settled += totals.delivered + totals.dead.iter().sum::<u64>();
            // Each topic's courier sees the same holes: one tells them.
            if topic == TOPICS[0] {
                let of = [journal, "hole"];
                self.lost.with_label_values(&of).inc_by(totals.lost);
                settled += totals.lost;
            }
        }
        let ledger = match journal::ledger(&shipped.folder) {
            Ok(Some(ledger)) => ledger,
            // No edge was here yet, or not since it keeps one.
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(journal, %error, "a journal's scoreboard cannot be read");
                return;
            }
        };
        let of = [journal, "power_cut"];
        self.lost.with_label_values(&of).inc_by(ledger.power_cut);
        settled += ledger.power_cut;
        // After a power cut the page may be older than the log until somebody holds the folder's lock.
        let recorded = ledger.recorded.max(settled);
        let mut answered = recorded;
        for (why, count) in Full::ALL.into_iter().zip(ledger.unrecorded) {
            let of = [journal, why.name()];
            self.unrecorded.with_label_values(&of).inc_by(count);
            answered += count;
        }
        let of = [journal];
        self.appended.with_label_values(&of).inc_by(recorded);
        self.answered.with_label_values(&of).inc_by(answered);
        if shipped.topics.iter().all(Option::is_some) {
            let waiting = i64::try_from(recorded - settled).unwrap_or(i64::MAX);
            self.waiting.with_label_values(&of).set(waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal::{Options, StreamId};
    use prometheus::{Registry, TextEncoder};

    /// What a scrape says, sorted, without the name's beginning and the journal.
    fn scrape(registry: &Registry) -> Vec<String> {
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                line.replace("sluice_journal_", "")
                    .replace("journal=\"3\"", "")
            })
            .collect()
    }

    #[test]
    fn it_balances_from_the_first_record_to_the_last_and_through_a_power_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (ledgers, registry) = (Ledgers::default(), Registry::new());
        let collector = ledgers.collector().unwrap();
        registry.register(Box::new(collector)).unwrap();
        assert_eq!(scrape(&registry), [""; 0]);

        let rings = tempfile::tempdir().unwrap();
        let open = |stream| {
            let options = Options {
                ring_bytes: 4096,
                ring_folder: Some(rings.path().join("rings")),
                ..Options::new(StreamId([stream; 16]))
            };
            journal::open(folder.path(), options).unwrap()
        };
        let (mut writer, mut flusher, _) = open(1);
        for _ in 0..10 {
            writer.append(b"record").unwrap();
        }
        flusher.flush().unwrap();
        for why in [Full::Ring, Full::Bound, Full::Bound] {
            writer.unrecorded(why);
        }
        let totals = |delivered, lost| Totals {
            delivered,
            lost,
            dead: [0, 1, 0],
        };
        ledgers.tell(3, folder.path(), Topic::Clicks, totals(4, 2));
        let before = scrape(&registry);
        assert!(
            before.contains(&"answered_total{} 13".to_owned()),
            "{before:?}"
        );
        assert!(!before.iter().any(|line| line.starts_with("waiting")));

        // What the other courier says of lost records is the same again.
        ledgers.tell(3, folder.path(), Topic::Postbacks, totals(1, 2));
        let dead = |topic: &str| {
            [("invalid", 1), ("refused", 0), ("undecodable", 0)].map(|(reason, count)| {
                format!("dead_total{{,reason=\"{reason}\",topic=\"{topic}\"}} {count}")
            })
        };
        let rest = |recorded: u64, [full, bound]: [u64; 2], waiting: u64| {
            let mut lines = vec![
                format!("answered_total{{}} {}", recorded + full + bound),
                format!("appended_total{{}} {recorded}"),
            ];
            lines.extend(dead("clicks"));
            lines.extend(dead("postbacks"));
            lines.extend([
                "delivered_total{,topic=\"clicks\"} 4".to_owned(),
                "delivered_total{,topic=\"postbacks\"} 1".to_owned(),
                "lost_total{,reason=\"hole\"} 2".to_owned(),
                "lost_total{,reason=\"power_cut\"} 0".to_owned(),
                "unrecorded_total{,reason=\"poisoned\"} 0".to_owned(),
                format!("unrecorded_total{{,reason=\"ring_full\"}} {full}"),
                format!("unrecorded_total{{,reason=\"size_bound\"}} {bound}"),
                "unrecorded_total{,reason=\"unopened\"} 0".to_owned(),
                format!("waiting{{}} {waiting}"),
            ]);
            lines.sort();
            lines
        };
        let sorted = || {
            let mut lines = scrape(&registry);
            lines.sort();
            lines
        };
        assert_eq!(sorted(), rest(10, [1, 2], 1));

        // The ring goes with the power: of what was in it alone, and counted there alone, nothing is known any more.
        flusher.flush().unwrap();
        for _ in 0..5 {
            writer.append(b"taken").unwrap();
        }
        assert_eq!(sorted(), rest(15, [1, 2], 6));
        drop((writer, flusher));
        std::fs::remove_file(folder.path().join("ring")).unwrap();
        journal::seal(folder.path()).unwrap();
        assert_eq!(sorted(), rest(10, [0, 0], 1));
        let (mut writer, ..) = open(2);
        writer.append(b"after").unwrap();
        assert_eq!(sorted(), rest(11, [0, 0], 2));
    }
}
