//! How many visits were answered of those that were due, and for how long an edge answered too few.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::load::Sent;

/// What is looked at together: short against any bound, long enough for some ten visits.
const SLOT: Duration = Duration::from_millis(250);

/// A slot in which fewer of the visits were answered is dark.
const ANSWERED_MIN_PERCENT: u64 = 80;

/// Something that happened to the system, and how long each edge may be dark because of it.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) kind: &'static str,
    /// Since the start of the load; the next one begins where it ends.
    pub(super) begins: Duration,
    pub(super) ends: Duration,
    pub(super) dark_max: Duration,
}

/// An edge that answered too few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dark {
    pub(super) edge: usize,
    pub(super) begins: Duration,
    pub(super) ends: Duration,
}

/// Visits of one edge, and those of them that were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    due: u64,
    answered: u64,
}

impl Count {
    fn add(&mut self, is_answered: bool) {
        self.due += 1;
        self.answered += u64::from(is_answered);
    }

    fn is_dark(self) -> bool {
        self.answered * 100 < self.due * ANSWERED_MIN_PERCENT
    }
}

/// One line a second and edge.
pub(super) fn seconds(sent: &[Sent], is_answered: impl Fn(&Sent) -> bool) -> String {
    let mut seconds: BTreeMap<(u64, usize), Count> = BTreeMap::new();
    for sent in sent {
        let second = seconds.entry((sent.due.as_secs(), sent.edge)).or_default();
        second.add(is_answered(sent));
    }
    let mut text = "second,edge,due,answered\n".to_owned();
    for ((second, edge), Count { due, answered }) in seconds {
        let _ = writeln!(text, "{second},{edge},{due},{answered}");
    }
    text
}

/// The times in which an edge answered too few.
pub(super) fn dark(sent: &[Sent], is_answered: impl Fn(&Sent) -> bool) -> Vec<Dark> {
    let mut edges: BTreeMap<usize, BTreeMap<u128, Count>> = BTreeMap::new();
    for sent in sent {
        let slot = sent.due.as_millis() / SLOT.as_millis();
        let count = edges.entry(sent.edge).or_default().entry(slot).or_default();
        count.add(is_answered(sent));
    }
    let mut found: Vec<Dark> = Vec::new();
    for (edge, slots) in edges {
        for (slot, _) in slots.into_iter().filter(|(_, count)| count.is_dark()) {
            let begins = SLOT * u32::try_from(slot).unwrap_or(u32::MAX);
            match found.last_mut() {
                Some(before) if before.edge == edge && before.ends == begins => {
                    before.ends += SLOT;
                }
                _ => found.push(Dark {
                    edge,
                    begins,
                    ends: begins + SLOT,
                }),
            }
        }
    }
    found
}

/// A line a kind, and what lasted for longer than it may.
pub(super) fn judge(
    windows: &[Window],
    sent: &[Sent],
    is_answered: impl Fn(&Sent) -> bool,
) -> (String, Vec<String>) {
    let dark = dark(sent, &is_answered);
    let mut kinds: BTreeMap<&str, (u32, Count, Duration, Duration)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for window in windows {
        let (times, count, longest, dark_max) = kinds.entry(window.kind).or_default();
        *times += 1;
        *dark_max = window.dark_max.max(*dark_max);
        let from = sent.partition_point(|sent| sent.due < window.begins);
        let to = sent.partition_point(|sent| sent.due < window.ends);
        for sent in &sent[from..to.max(from)] {
            count.add(is_answered(sent));
        }
        let here = dark.iter().filter(|dark| is_during(dark, window));
        for dark in here {
            *longest = (dark.ends - dark.begins).max(*longest);
        }
    }
    for dark in &dark {
        let Dark { edge, begins, ends } = dark;
        let during: Vec<&Window> = windows
            .iter()
            .filter(|window| is_during(dark, window))
            .collect();
        let bound = during.iter().map(|window| window.dark_max).max();
        // A slot's edges lie where they lie: one more is not too long.
        if *ends - *begins > bound.unwrap_or_default() + SLOT {
            let kinds: Vec<&str> = during.iter().map(|window| window.kind).collect();
            wrong.push(format!(
                "edge {edge} answered too few for {:?} from {begins:?} on, during {kinds:?}: the bound is {bound:?}",
                *ends - *begins
            ));
        }
    }
    let mut table = format!(
        "{:34}{:>6}{:>10}{:>10}{:>9}{:>11}{:>8}\n",
        "availability during", "times", "due", "answered", "%", "dark s", "bound"
    );
    for (kind, (times, Count { due, answered }, longest, bound)) in kinds {
        let percent = answered as f64 * 100.0 / due.max(1) as f64;
        let (longest, bound) = (longest.as_secs_f64(), bound.as_secs_f64());
        let _ = writeln!(
            table,
            "{kind:34}{times:>6}{due:>10}{answered:>10}{percent:>9.2}{longest:>11.2}{bound:>8.1}"
        );
    }
    (table, wrong)
}

fn is_during(dark: &Dark, window: &Window) -> bool {
    dark.begins < window.ends && dark.ends > window.begins
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two edges, a hundred visits a second each, not answered where `is_away` says so.
    fn sent(seconds: u64, is_away: impl Fn(usize, u64) -> bool) -> Vec<Sent> {
        let all = (0..seconds * 200).map(|number| {
            let edge = (number % 2) as usize;
            let due = Duration::from_millis(number * 5);
            Sent {
                number,
                edge,
                due,
                sent: due,
                answered: (!is_away(edge, number * 5)).then_some((302, due)),
                token: None,
            }
        });
        all.collect()
    }

    fn windows(dark_max: [u64; 2]) -> Vec<Window> {
        let mut begins = 0;
        let windows = dark_max.map(|dark_max| {
            begins += 10;
            Window {
                kind: if begins == 10 { "first" } else { "second" },
                begins: Duration::from_secs(begins - 10),
                ends: Duration::from_secs(begins),
                dark_max: Duration::from_secs(dark_max),
            }
        });
        windows.into()
    }

    fn is_answered(sent: &Sent) -> bool {
        sent.answered.is_some()
    }

    #[test]
    fn an_edge_that_refuses_for_longer_than_the_fault_explains_is_wrong() {
        let away = sent(20, |edge, at_ms| {
            edge == 1 && (8_000..12_000).contains(&at_ms)
        });
        let (table, wrong) = judge(&windows([1, 1]), &away, is_answered);
        assert_eq!(wrong.len(), 1, "{table}");
        assert!(
            wrong[0].starts_with("edge 1 answered too few for 4s from 8s on"),
            "{wrong:?}"
        );
        // What began in the one is explained by the other.
        assert_eq!(
            judge(&windows([1, 5]), &away, is_answered).1,
            Vec::<String>::new()
        );
    }

    #[test]
    fn one_answer_of_four_is_too_few_and_nine_of_ten_are_not() {
        let some = |of_ten: u64| {
            let all = sent(20, |_, at_ms| at_ms >= 5_000 && at_ms / 10 % 10 >= of_ten);
            judge(&windows([2, 2]), &all, is_answered).1.len()
        };
        assert_eq!(some(9), 0);
        assert_eq!(some(3), 2);
    }

    #[test]
    fn every_second_has_a_line_for_each_edge() {
        let text = seconds(
            &sent(2, |edge, at_ms| edge == 1 && at_ms < 1_000),
            is_answered,
        );
        assert_eq!(
            text,
            "second,edge,due,answered\n0,0,100,100\n0,1,100,0\n1,0,100,100\n1,1,100,100\n"
        );
    }
}
