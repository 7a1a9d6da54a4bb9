//! The ledger of each journal as the courier's metrics tell it: in every scrape the equations hold, and nothing falls. A
//! journal whose couriers are just being opened has no `waiting` yet, and no equations.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{MACHINES, Machine};

const NAMES: [&str; 7] = [
    "answered_total",
    "appended_total",
    "unrecorded_total",
    "delivered_total",
    "dead_total",
    "lost_total",
    "waiting",
];

/// The sums of one journal, in the order of [`NAMES`].
pub(super) type Sums = [u64; NAMES.len()];

/// What the scrapes of a run said.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// The counters of the scrape before, by their whole names.
    counters: BTreeMap<(Machine, String), u64>,
    /// As the last scrape had it, by machine and the journal's number.
    pub(super) journals: BTreeMap<(Machine, String), Sums>,
    /// The machines all of whose journals have their couriers.
    whole: BTreeSet<Machine>,
    pub(super) scrapes: u32,
    pub(super) wrong: Vec<String>,
}

impl Books {
    /// Takes the text of one scrape of a machine's courier.
    pub(super) fn scrape(&mut self, machine: Machine, text: &str) {
        self.scrapes += 1;
        let mut journals: BTreeMap<String, Sums> = BTreeMap::new();
        let mut opened = BTreeSet::new();
        for line in text.lines() {
            let Some((sample, at, value)) = sample(line) else {
                continue;
            };
            let journal = label(sample, "journal").to_owned();
            if NAMES[at] == "waiting" {
                opened.insert(journal.clone());
            }
            journals.entry(journal).or_default()[at] += value;
            if NAMES[at].ends_with("_total") {
                let before = self.counters.insert((machine, sample.to_owned()), value);
                if before.is_some_and(|before| value < before) {
                    self.wrong
                        .push(format!("{sample} fell to {value} from {before:?}"));
                }
            }
        }
        let known = journals.len();
        journals.retain(|journal, _| opened.contains(journal));
        match journals.len() == known {
            true => self.whole.insert(machine),
            false => self.whole.remove(&machine),
        };
        for (journal, sums) in &journals {
            let [
                answered,
                appended,
                unrecorded,
                delivered,
                dead,
                lost,
                waiting,
            ] = *sums;
            if answered != appended + unrecorded || appended != delivered + dead + lost + waiting {
                self.wrong.push(format!(
                    "machine {machine}, journal {journal}: {NAMES:?} are {sums:?}"
                ));
            }
        }
        self.journals.retain(|(of, _), _| *of != machine);
        let journals = journals.into_iter();
        self.journals
            .extend(journals.map(|(journal, sums)| ((machine, journal), sums)));
    }

    /// What a machine's couriers had counted is taken back.
    pub(super) fn forget(&mut self, machine: Machine) {
        self.counters.retain(|(of, _), _| *of != machine);
        self.whole.remove(&machine);
    }

    /// Everything that was appended is delivered, as the last scrape has it.
    pub(super) fn settled(&self) -> bool {
        let [.., waiting] = self.sums();
        self.whole.len() == MACHINES.len() && waiting == 0
    }

    /// Over all journals, as the last scrape has it.
    pub(super) fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for journal in self.journals.values() {
            for (sum, of) in sums.iter_mut().zip(journal) {
                *sum += of;
            }
        }
        sums
    }
}

/// A line's sample, which of [`NAMES`] it is of, and its value.
fn sample(line: &str) -> Option<(&str, usize, u64)> {
    let (sample, value) = line.rsplit_once(' ')?;
    let name = sample.strip_prefix("sluice_journal_")?.split('{').next()?;
    let at = NAMES.iter().position(|known| *known == name)?;
    Some((sample, at, value.parse().ok()?))
}

fn label<'s>(sample: &'s str, name: &str) -> &'s str {
    let after = sample.split_once(&format!("{name}=\""));
    after.map_or("", |(_, rest)| rest.split('"').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(appended: u64, delivered: [u64; 2], waiting: u64) -> String {
        let [clicks, postbacks] = delivered;
        format!(
            "# HELP sluice_journal_answered_total x\n\
             sluice_journal_answered_total{{journal=\"0\"}} {}\n\
             sluice_journal_appended_total{{journal=\"0\"}} {appended}\n\
             sluice_journal_unrecorded_total{{journal=\"0\",reason=\"ring_full\"}} 2\n\
             sluice_journal_delivered_total{{journal=\"0\",topic=\"clicks\"}} {clicks}\n\
             sluice_journal_delivered_total{{journal=\"0\",topic=\"postbacks\"}} {postbacks}\n\
             sluice_journal_bytes{{journal=\"0\"}} 77\n\
             sluice_journal_waiting{{journal=\"0\"}} {waiting}\n",
            appended + 2
        )
    }

    #[test]
    fn equations_and_what_falls() {
        let mut books = Books::default();
        books.scrape(0, &scrape(10, [5, 3], 2));
        books.scrape(1, &scrape(10, [7, 3], 0));
        assert!(!books.settled());
        books.scrape(0, &scrape(10, [7, 3], 0));
        assert!(books.settled());
        assert_eq!(books.sums(), [24, 20, 4, 20, 0, 0, 0]);
        assert_eq!(books.wrong, Vec::<String>::new());
        books.scrape(0, &scrape(11, [7, 3], 0));
        assert_eq!(books.wrong.len(), 1);
        books.scrape(0, &scrape(11, [6, 3], 2));
        assert!(books.wrong[1].contains("fell to 6"), "{:?}", books.wrong);
    }
}
