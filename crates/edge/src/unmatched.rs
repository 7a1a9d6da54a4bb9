//! Requests that name nothing known: the first hundred of a minute whole, the rest as counts, so that a scanner cannot
//! fill the disk.

use std::collections::BTreeMap;

use domain::Domain;
use domain::event::{Class, Reason};

/// How many a minute are kept whole: enough to see what is asked for.
const WHOLE_MAX: u32 = 100;
const MINUTE_MS: u64 = 60_000;

/// What is counted apart. No part of it comes from the request itself, so that it is bounded.
pub(crate) type Named = (Option<Domain>, Reason, Class);

/// The current minute.
#[derive(Default)]
pub(crate) struct Unmatched {
    minute_ms: u64,
    whole: u32,
    counts: BTreeMap<Named, u64>,
}

impl Unmatched {
    /// Whether this one is kept whole; if not, it was counted.
    pub(crate) fn keep_whole(&mut self, named: Named) -> bool {
        self.whole += 1;
        if self.whole <= WHOLE_MAX {
            return true;
        }
        *self.counts.entry(named).or_insert(0) += 1;
        false
    }

    /// The counts of a minute that is over (or of the current one at the end), to be recorded.
    pub(crate) fn take(
        &mut self,
        now_ms: u64,
        at_end: bool,
    ) -> Option<(u64, BTreeMap<Named, u64>)> {
        let minute_ms = now_ms - now_ms % MINUTE_MS;
        if minute_ms == self.minute_ms && !at_end {
            return None;
        }
        let past = std::mem::replace(
            self,
            Self {
                minute_ms,
                ..Self::default()
            },
        );
        (!past.counts.is_empty()).then_some((past.minute_ms, past.counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_whole_and_the_rest_counted() {
        let mut unmatched = Unmatched::default();
        let named = (None, Reason::UnknownHost, Class::Browser);
        assert!(unmatched.take(60_000, false).is_none());
        let whole = (0..250).filter(|_| unmatched.keep_whole(named)).count();
        assert_eq!(whole, 100);
        assert!(unmatched.take(119_999, false).is_none());
        assert_eq!(
            unmatched.take(120_000, false),
            Some((60_000, BTreeMap::from([(named, 150)])))
        );
        assert!(unmatched.keep_whole(named));
        assert_eq!(unmatched.take(120_001, true), None);
    }
}
