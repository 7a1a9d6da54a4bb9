//! A click's record with everything borrowed: what the edge writes on its way to an answer, where building a [`Click`] and
//! its twenty strings would cost more than writing its bytes.
//!
//! The bytes are those that the generated code would write for the same values, which a test holds it to.
//!
//! [`Click`]: super::Click

use super::{Class, Consent, ConsentSource, Decision, Label, Reason};
use crate::token::OPENED_BYTES;
use crate::{ClickKey, Lane, Shard, Topic};

/// The fields of [`super::Click`] that an edge knows, under the same names. Numbers that are not known are 0, texts empty.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the schema carries the words")]
pub struct BorrowedClick<'a> {
    pub key: ClickKey,
    pub shard: Shard,
    pub catalog_version: u32,
    pub catalog_hash: u64,
    pub class: Class,
    pub decision: Decision,
    pub reason: Reason,
    pub domain: u32,
    pub link: u64,
    pub offer: u32,
    pub affiliate: u32,
    pub advertiser: u32,
    pub labels: &'a [Label],
    pub consent: Consent,
    pub consent_source: ConsentSource,
    pub token_issued: bool,
    pub cookie_set: bool,
    pub history: &'a [[u8; OPENED_BYTES]],
    pub user_agent: &'a str,
    /// ASCII: text that was not checked to be text once more.
    pub referrer_host: &'a [u8],
    pub source: &'a str,
    pub creative: &'a str,
    pub page: &'a str,
    pub ext: &'a str,
    pub coupon: &'a str,
    pub cost: &'a str,
    pub slug: &'a str,
    pub subs: [&'a str; 10],
}

/// What stands before a record's event: topic, lane and number of a few bytes each, at most 16 of an address, the event's
/// key and length.
const HEAD_BYTES_MAX: usize = 64;

impl BorrowedClick<'_> {
    /// Writes the [`super::EdgeRecord`] that holds this click somewhere into `buffer` and returns its bytes.
    ///
    /// # Panics
    /// Where it does not fit: a kilobyte beside the texts is enough.
    pub fn record<'b>(
        &self,
        topic: Topic,
        lane: Lane,
        n: u64,
        catalog_lock: u64,
        address: &[u8],
        buffer: &'b mut [u8],
    ) -> &'b [u8] {
        // The event's length comes before it: the head is written last, into room that was left for it.
        let (room, event) = buffer.split_at_mut(HEAD_BYTES_MAX);
        let mut event = Fields::into(event);
        self.encode(&mut event);
        let event_bytes = event.length;
        event.fixed64(9, catalog_lock);
        let end = HEAD_BYTES_MAX + event.length;
        let mut head = [0; HEAD_BYTES_MAX];
        let mut fields = Fields::into(&mut head);
        fields.number(1, topic as u64);
        fields.number(2, lane.0.into());
        fields.number(3, n);
        fields.text(4, address);
        fields.key(5, Wire::Bytes);
        fields.varint(event_bytes as u64);
        let head_bytes = fields.length;
        let start = HEAD_BYTES_MAX - head_bytes;
        room[start..].copy_from_slice(&head[..head_bytes]);
        &buffer[start..end]
    }

    fn encode(&self, out: &mut Fields<'_>) {
        let mut key_bytes = [0; 24];
        let mut key = Fields::into(&mut key_bytes);
        key.fixed64(1, self.key.time_ms);
        for (field, number) in [(2, self.key.stream), (3, self.key.sequence)] {
            if number != 0 {
                key.key(field, Wire::Fixed32);
                key.extend(&number.to_le_bytes());
            }
        }
        // A click has its key, also where all of it is 0.
        let length = key.length;
        out.key(1, Wire::Bytes);
        out.varint(length as u64);
        out.extend(&key_bytes[..length]);

        out.number(2, self.shard.get().into());
        out.number(3, self.catalog_version.into());
        out.number(4, self.class as u64);
        out.number(5, self.decision as u64);
        out.number(6, self.reason as u64);
        out.number(7, self.domain.into());
        out.number(8, self.link);
        out.number(9, self.offer.into());
        out.number(10, self.affiliate.into());
        out.number(11, self.advertiser.into());
        if !self.labels.is_empty() {
            // Packed: every label is below 128, a byte each.
            out.key(12, Wire::Bytes);
            out.varint(self.labels.len() as u64);
            for label in self.labels {
                debug_assert!((*label as u64) < 0x80, "the length above counts on it");
                out.varint(*label as u64);
            }
        }
        out.number(13, self.consent as u64);
        out.number(14, self.consent_source as u64);
        out.number(15, self.token_issued.into());
        out.number(16, self.cookie_set.into());
        for opened in self.history {
            out.text(17, opened);
        }
        out.text(20, self.user_agent.as_bytes());
        debug_assert!(self.referrer_host.is_ascii(), "the schema wants text");
        out.text(21, self.referrer_host);
        out.text(22, self.source.as_bytes());
        out.text(23, self.creative.as_bytes());
        out.text(24, self.page.as_bytes());
        out.text(25, self.ext.as_bytes());
        out.text(26, self.coupon.as_bytes());
        out.text(27, self.cost.as_bytes());
        out.text(28, self.slug.as_bytes());
        for (field, text) in (31..).zip(self.subs) {
            out.text(field, text.as_bytes());
        }
        out.fixed64(41, self.catalog_hash);
    }
}

/// How a field's value is laid out (Protocol Buffers encoding, "Message structure").
#[derive(Clone, Copy)]
enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

/// Fields one after the other; what is 0 or empty is not written.
struct Fields<'b> {
    rest: &'b mut [u8],
    length: usize,
}

impl<'b> Fields<'b> {
    fn into(bytes: &'b mut [u8]) -> Self {
        Self {
            rest: bytes,
            length: 0,
        }
    }

    #[inline]
    fn extend(&mut self, bytes: &[u8]) {
        let rest = std::mem::take(&mut self.rest);
        let (room, rest) = rest.split_at_mut(bytes.len());
        room.copy_from_slice(bytes);
        self.rest = rest;
        self.length += bytes.len();
    }

    #[inline]
    fn varint(&mut self, mut value: u64) {
        // Most are below it.
        while value >= 0x80 {
            self.extend(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.extend(&[value as u8]);
    }

    /// Field numbers stay below 2048: a key has one byte or two.
    #[inline]
    fn key(&mut self, field: u64, wire: Wire) {
        let key = field << 3 | wire as u64;
        match field {
            ..16 => self.extend(&[key as u8]),
            _ => self.extend(&[key as u8 | 0x80, (key >> 7) as u8]),
        }
    }

    #[inline]
    fn number(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.key(field, Wire::Varint);
            self.varint(value);
        }
    }

    #[inline]
    fn fixed64(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.key(field, Wire::Fixed64);
            self.extend(&value.to_le_bytes());
        }
    }

    #[inline]
    fn text(&mut self, field: u64, text: &[u8]) {
        if !text.is_empty() {
            self.key(field, Wire::Bytes);
            self.varint(text.len() as u64);
            self.extend(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::event::{self, EdgeRecord, edge_record::Event};

    fn texts() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec(prop_oneof![Just(String::new()), ".{0,300}"], 19)
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_generated_code(
            key: (u64, u32, u32),
            numbers: (u32, u32, u32, u32, u32),
            long: (u64, u64, u64, u64),
            (class, decision, reason, consent, source) in (0..6, 0..5, 0..12, 0..4, 0..5),
            (shard, lane) in (0u32..4096, any::<u8>()),
            labels in proptest::collection::vec(1..6, 0..6),
            history in proptest::collection::vec(any::<[u8; OPENED_BYTES]>(), 0..9),
            flags: (bool, bool),
            address in prop_oneof![
                proptest::collection::vec(any::<u8>(), 4),
                proptest::collection::vec(any::<u8>(), 16)
            ],
            mut texts in texts(),
        ) {
            texts[1].retain(|c| c.is_ascii());
            let labels: Vec<Label> = labels
                .into_iter()
                .map(|label| Label::try_from(label).expect("a label"))
                .collect();
            let text = |at: usize| texts[at].as_str();
            let borrowed = BorrowedClick {
                key: ClickKey { time_ms: key.0, stream: key.1, sequence: key.2 },
                shard: Shard::new(shard).expect("12 bits"),
                catalog_version: numbers.0,
                catalog_hash: long.2,
                class: Class::try_from(class).expect("a class"),
                decision: Decision::try_from(decision).expect("a decision"),
                reason: Reason::try_from(reason).expect("a reason"),
                domain: numbers.1,
                link: long.0,
                offer: numbers.2,
                affiliate: numbers.3,
                advertiser: numbers.4,
                labels: &labels,
                consent: Consent::try_from(consent).expect("consent"),
                consent_source: ConsentSource::try_from(source).expect("a source"),
                token_issued: flags.0,
                cookie_set: flags.1,
                history: &history,
                user_agent: text(0),
                referrer_host: text(1).as_bytes(),
                source: text(2),
                creative: text(3),
                page: text(4),
                ext: text(5),
                coupon: text(6),
                cost: text(7),
                slug: text(8),
                subs: std::array::from_fn(|at| text(9 + at)),
            };
            // Every field is named: one that the schema gets has to be thought of here.
            let owned = |at: usize| texts[at].clone();
            let click = event::Click {
                key: Some(borrowed.key.into()),
                shard,
                catalog_version: numbers.0,
                class,
                decision,
                reason,
                domain: numbers.1,
                link: long.0,
                offer: numbers.2,
                affiliate: numbers.3,
                advertiser: numbers.4,
                labels: labels.iter().map(|label| *label as i32).collect(),
                consent,
                consent_source: source,
                token_issued: flags.0,
                cookie_set: flags.1,
                history: history.iter().map(|opened| opened.to_vec()).collect(),
                visitor: 0,
                network: String::new(),
                user_agent: owned(0),
                referrer_host: owned(1),
                source: owned(2),
                creative: owned(3),
                page: owned(4),
                ext: owned(5),
                coupon: owned(6),
                cost: owned(7),
                slug: owned(8),
                sub1: owned(9),
                sub2: owned(10),
                sub3: owned(11),
                sub4: owned(12),
                sub5: owned(13),
                sub6: owned(14),
                sub7: owned(15),
                sub8: owned(16),
                sub9: owned(17),
                sub10: owned(18),
                catalog_hash: long.2,
            };
            let record = EdgeRecord {
                topic: Topic::Clicks as u32,
                lane: lane.into(),
                n: long.1,
                address: address.clone(),
                event: Some(Event::Click(click)),
                catalog_lock: long.3,
            };
            let mut buffer = vec![0xff; 64 << 10];
            let bytes = borrowed.record(Topic::Clicks, Lane(lane), long.1, long.3, &address, &mut buffer);
            prop_assert_eq!(bytes, record.encode_to_vec());
        }
    }
}
