//! From a hash to the ordinals of few entries: buckets of one cache line.
//!
//! | fingerprints | zero | ordinals + 1 |
//! |---|---|---|
//! | 12 × u8 | 4 bytes | 12 × u32, 0 where the slot is free |
//!
//! The hash's upper bits choose the bucket, its lowest byte is the fingerprint. What does not fit lies in the next bucket
//! that has room, so a search ends at the first bucket that is not full. A fingerprint only says what is worth comparing.

/// One cache line.
pub(crate) const BUCKET_BYTES: usize = 64;
const SLOTS: usize = 12;
const ORDINALS: usize = 16;
/// Slots that are taken of a hundred: with more, searches run through many buckets.
const LOAD_PERCENT: u64 = 88;

/// Empty buckets for so many entries.
pub(crate) fn buckets(entries: u32) -> Vec<u8> {
    let bytes = usize::try_from(bytes_for(entries)).expect("a program's memory can be addressed");
    vec![0; bytes]
}

/// How many bytes the buckets of so many entries take.
pub(crate) fn bytes_for(entries: u32) -> u64 {
    let slots = (u64::from(entries) * 100).div_ceil(LOAD_PERCENT);
    // At least one slot stays free, or a search for what is not there would not end.
    let buckets = slots.max(u64::from(entries) + 1).div_ceil(SLOTS as u64);
    if entries == 0 {
        0
    } else {
        buckets * BUCKET_BYTES as u64
    }
}

/// The first entry of a hash that `is` says something of.
pub(crate) fn find<T>(
    buckets: &[u8],
    hash: u64,
    mut is: impl FnMut(u32) -> Option<T>,
) -> Option<T> {
    let (buckets, _) = buckets.as_chunks::<BUCKET_BYTES>();
    let home = home(buckets.len(), hash)?;
    let fingerprint = hash.to_le_bytes()[0];
    // Every bucket once: the end of a search that damage has made endless.
    for bucket in buckets[home..].iter().chain(&buckets[..home]) {
        for slot in 0..SLOTS {
            if bucket[slot] == fingerprint
                && let Some(ordinal) = ordinal(bucket, slot)
                && let Some(found) = is(ordinal)
            {
                return Some(found);
            }
        }
        ordinal(bucket, SLOTS - 1)?;
    }
    None
}

/// Adds an entry. The buckets were made for all that are added.
pub(crate) fn insert(buckets: &mut [u8], hash: u64, ordinal_new: u32) {
    let (buckets, _) = buckets.as_chunks_mut::<BUCKET_BYTES>();
    let count = buckets.len();
    let home = home(count, hash).expect("made for entries");
    for step in 0..count {
        let bucket = &mut buckets[(home + step) % count];
        if let Some(slot) = (0..SLOTS).find(|slot| ordinal(bucket, *slot).is_none()) {
            bucket[slot] = hash.to_le_bytes()[0];
            let at = ORDINALS + slot * 4;
            bucket[at..at + 4].copy_from_slice(&(ordinal_new + 1).to_le_bytes());
            return;
        }
    }
    unreachable!("made for all that are added");
}

fn home(buckets: usize, hash: u64) -> Option<usize> {
    let scaled = (u128::from(hash) * buckets as u128) >> 64;
    (buckets > 0).then(|| usize::try_from(scaled).expect("below the count"))
}

fn ordinal(bucket: &[u8; BUCKET_BYTES], slot: usize) -> Option<u32> {
    let at = ORDINALS + slot * 4;
    let word = [bucket[at], bucket[at + 1], bucket[at + 2], bucket[at + 3]];
    u32::from_le_bytes(word).checked_sub(1)
}
