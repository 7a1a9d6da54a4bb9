//! Shards, lanes and hole-free numbers: how records spread over partitions and how a reader knows that none is missing.
//!
//! A shard is 12 bits of a keyed hash, its lane the top 8; a lane's partition is lane mod the topic's partition count.

use crate::Topic;

/// How many lanes there are; no topic has more partitions.
pub const LANES: usize = 256;

/// 12 bits of a keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(u16);

impl Shard {
    /// The shard of some bytes under the installation's seed (which keeps strangers from aiming at one partition).
    pub fn of(seed: u64, bytes: &[u8]) -> Self {
        Self((xxhash_rust::xxh3::xxh3_64_with_seed(bytes, seed) >> 52) as u16)
    }

    /// `None` when it does not fit 12 bits.
    pub fn new(shard: u32) -> Option<Self> {
        u16::try_from(shard)
            .ok()
            .filter(|shard| *shard < 1 << 12)
            .map(Self)
    }

    /// The plain number.
    pub fn get(self) -> u16 {
        self.0
    }

    /// The top 8 bits.
    pub fn lane(self) -> Lane {
        Lane((self.0 >> 4) as u8)
    }
}

/// The top 8 bits of a shard; records of one lane stay in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane(pub u8);

impl Lane {
    /// The partition of this lane among so many.
    pub fn partition(self, partitions: u16) -> u16 {
        u16::from(self.0) % partitions.max(1)
    }
}

/// Hands out n = 1, 2, 3 … per (topic, lane) for one stream.
#[derive(Debug)]
pub struct Numbering {
    /// By topic (from number 1 on) and lane.
    last: Box<[[u64; LANES]; Topic::ALL.len()]>,
}

impl Default for Numbering {
    fn default() -> Self {
        Self {
            last: Box::new([[0; LANES]; Topic::ALL.len()]),
        }
    }
}

impl Numbering {
    /// The next number, for the record that is appended now.
    pub fn next(&mut self, topic: Topic, lane: Lane) -> u64 {
        let last = self.last(topic, lane);
        *last += 1;
        *last
    }

    /// Gives the last number back, because the record that was to have it was not appended.
    pub fn take_back(&mut self, topic: Topic, lane: Lane) {
        let last = self.last(topic, lane);
        *last = last.checked_sub(1).expect("a number was handed out");
    }

    fn last(&mut self, topic: Topic, lane: Lane) -> &mut u64 {
        &mut self.last[topic as usize - 1][usize::from(lane.0)]
    }
}

/// The seed of shards that belongs to a key of the installation.
pub fn seed(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, 0x736c_7569_6365)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_given_back_leaves_no_hole() {
        let mut numbering = Numbering::default();
        let mut next = |lane| numbering.next(Topic::Clicks, Lane(lane));
        assert_eq!([next(1), next(1), next(2)], [1, 2, 1]);
        numbering.take_back(Topic::Clicks, Lane(1));
        assert_eq!(numbering.next(Topic::Clicks, Lane(1)), 2);
        assert_eq!(numbering.next(Topic::Clicks, Lane(2)), 2);
        assert_eq!(numbering.next(Topic::Postbacks, Lane(1)), 1);
    }
}
