//! Dead letters that can be shipped after all: by a newer version, or since the stream takes longer records.
//!
//! A tombstone has taken the number such a record had, so it gets another identity: the first record of a stream of its
//! own, whose name is worked out from where the record comes from. Released twice it is the same record twice, and
//! receivers drop the repeat. The event itself goes on naming its origin by its key (stream and sequence).

use domain::Topic;
use journal::StreamId;
use sha2::{Digest, Sha256};
use stream::letters::{Content, Letter, Reason};
use stream::{Record, Sender};

use crate::Enrich;
use crate::courier::{Translated, Untranslated, translate};
use crate::enrich::Enricher;

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// The stream has it.
    Sent,
    /// It still cannot be shipped.
    Dead(Reason),
}

/// Sends letters of one topic.
#[derive(Debug)]
pub struct Release {
    topic: Topic,
    name: String,
    enricher: Enricher,
}

impl Release {
    /// To a topic, `prefix.name` on the stream.
    pub fn new(topic: Topic, prefix: &str, enrich: Enrich) -> Self {
        Self {
            topic,
            name: format!("{prefix}.{}", topic.name()),
            enricher: Enricher::new(enrich),
        }
    }

    /// Sends a letter and waits for its acknowledgement. `sender` is used for this one only.
    ///
    /// # Errors
    /// The stream does not take it now, for no reason of its own.
    pub fn send(&mut self, letter: &Letter, sender: &mut dyn Sender) -> stream::Result<Released> {
        let stream = stream_of(letter);
        let record = match &letter.content {
            Content::Record(record) => record.clone(),
            Content::EdgeRecord { bytes, .. } => {
                match translate(&mut self.enricher, self.topic, stream, bytes) {
                    Ok(Translated::Record(record)) => record,
                    // A stream's end is nothing to be told late.
                    Ok(Translated::End) => return Ok(Released::Dead(Reason::Invalid)),
                    Err(Untranslated::Dead(reason)) => return Ok(Released::Dead(reason)),
                    Err(Untranslated::OtherCatalog(other)) => {
                        return Err(stream::Error::other(other.to_string()));
                    }
                }
            }
        };
        let record = Record {
            origin: stream,
            n: 1,
            ..record
        };
        let mut records = Record::ends(stream, &[(record.lane, 1)], 1);
        records.insert(0, record);
        match stream::deliver(sender, &self.name, &records) {
            Err(error) if error.is_refusal() => Ok(Released::Dead(Reason::Refused)),
            done => done.map(|()| Released::Sent),
        }
    }
}

/// The stream of a released letter: always the same for the same one.
fn stream_of(letter: &Letter) -> StreamId {
    let digest = Sha256::new().chain_update(b"sluice released");
    let digest = match &letter.content {
        Content::EdgeRecord {
            stream, sequence, ..
        } => digest
            .chain_update(stream.0)
            .chain_update(sequence.to_be_bytes()),
        Content::Record(record) => digest
            .chain_update(record.origin.0)
            .chain_update([record.lane])
            .chain_update(record.n.to_be_bytes()),
    };
    let digest = digest.finalize();
    let mut stream = StreamId([0; 16]);
    stream.0.copy_from_slice(&digest[..16]);
    stream
}
