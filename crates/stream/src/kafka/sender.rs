//! The sender: one idempotent producer, whose reports move a contiguous watermark.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::{ClientContext, Statistics};

use super::statistics::{self, Role, Seat};
use super::{Inner, headers};
use crate::{Error, Record, Result, SendError, Sender};

/// Messages under way at once: seconds at full rate, and what a failure sends again.
const UNDER_WAY_MAX: usize = 1 << 16;
/// Kibibytes under way at once: as many messages of a kilobyte.
const UNDER_WAY_KIB_MAX: usize = 1 << 16;
/// How long a message waits for company. The visitor has been answered already.
const LINGER_MS: u32 = 20;
/// How long a failed producer's report of the reason is waited for; it is usually there.
const REPORT_MAX: Duration = Duration::from_millis(500);
const REPORT_POLL: Duration = Duration::from_millis(10);
/// The pause between looks for reports. A call that waits for them would spin through the last millisecond of its time, and go
/// on for all of it when some have come (rdkafka 0.39, `BaseProducer::poll`).
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How often a producer is attended to that nobody asks anything: more often than it has statistics to tell.
const ATTEND_EVERY: Duration = Duration::from_secs(1);

/// What the producer's reports say.
#[derive(Default)]
struct Reports {
    /// Of the messages after the watermark, in the order of sending: which are acknowledged.
    acknowledged: VecDeque<bool>,
    /// All messages before it are acknowledged.
    watermark: u64,
    /// How many reports came.
    heard: u64,
    failed: Option<KafkaError>,
}

#[derive(Clone)]
struct Context {
    reports: Arc<Mutex<Reports>>,
    seat: Arc<Seat>,
}

impl Context {
    fn lock(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        self.seat.take(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, place: usize) {
        let mut reports = self.lock();
        reports.heard += 1;
        match report {
            // A message that is there has an offset. This report is only what librdkafka concludes, as a rule because the message
            // behind it was taken, and that can be wrong: a broker that was just started refuses the first while it does not lead
            // the partition yet, and then takes the second, as any first number of a producer that it does not know (KAFKA-15591).
            Ok(message) if message.offset() < 0 => {
                tracing::warn!(
                    topic = message.topic(),
                    partition = message.partition(),
                    "a message was reported as delivered without an offset, it is sent again by another producer"
                );
                let unproven = KafkaError::MessageProduction(RDKafkaErrorCode::Inconsistent);
                reports.failed.get_or_insert(unproven);
            }
            Ok(_) => {
                // A report may come twice for nothing and never below the watermark by more than that.
                let Some(at) = (place as u64).checked_sub(reports.watermark) else {
                    return;
                };
                if let Some(acknowledged) = reports.acknowledged.get_mut(at as usize) {
                    *acknowledged = true;
                }
                while reports.acknowledged.front() == Some(&true) {
                    reports.acknowledged.pop_front();
                    reports.watermark += 1;
                }
            }
            Err((error, _)) => {
                reports.failed.get_or_insert_with(|| error.clone());
            }
        }
    }
}

struct KafkaSender {
    inner: Arc<Inner>,
    producer: Arc<BaseProducer<Context>>,
    context: Context,
    sent: u64,
    /// It failed, and takes nothing more.
    ended: bool,
}

pub(super) fn open(inner: &Arc<Inner>) -> Result<Box<dyn Sender>> {
    let context = Context {
        reports: Arc::default(),
        seat: Seat::new(inner, Role::Producer, ""),
    };
    let producer: BaseProducer<Context> = inner
        .config
        .clone()
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // No younger message may overtake one that failed.
        .set("enable.gapless.guarantee", "true")
        // Nothing expires while brokers are away: the journal keeps it, and so does this queue.
        .set("message.timeout.ms", "0")
        .set("linger.ms", LINGER_MS.to_string())
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", UNDER_WAY_MAX.to_string())
        .set("queue.buffering.max.kbytes", UNDER_WAY_KIB_MAX.to_string())
        .set(
            "statistics.interval.ms",
            statistics::INTERVAL_MS.to_string(),
        )
        .create_with_context(context.clone())
        .map_err(|error| Error::kafka("make a producer", error))?;
    let producer = Arc::new(producer);
    let attended = Arc::downgrade(&producer);
    std::thread::Builder::new()
        .name("kafka-producer".to_owned())
        .spawn(move || attend(&attended))
        .map_err(|error| Error::other(format!("cannot attend to a producer: {error}")))?;
    Ok(Box::new(KafkaSender {
        inner: Arc::clone(inner),
        producer,
        context,
        sent: 0,
        ended: false,
    }))
}

/// Takes what a producer tells while nobody else does, until it is dropped: unread it would pile up in librdkafka.
fn attend(producer: &Weak<BaseProducer<Context>>) {
    while let Some(living) = producer.upgrade() {
        living.poll(Duration::ZERO);
        drop(living);
        std::thread::park_timeout(ATTEND_EVERY);
    }
}

impl KafkaSender {
    /// Takes all reports that have come: a call that does not wait takes those of one batch of one partition.
    fn take_reports(&self) {
        let mut known = None;
        loop {
            let heard = self.context.lock().heard;
            if known == Some(heard) {
                return;
            }
            known = Some(heard);
            self.producer.poll(Duration::ZERO);
        }
    }

    fn failure(&self) -> Option<Error> {
        if let Some(error) = self.reported() {
            return Some(error);
        }
        if let Some(error) = self.context.seat.difference() {
            return Some(error);
        }
        let (code, reason) = self.producer.client().fatal_error()?;
        // That no gap can be avoided is told before the report that says why: whether a record was refused for itself.
        let until = Instant::now() + REPORT_MAX;
        while Instant::now() < until {
            self.producer.poll(REPORT_POLL);
            if let Some(error) = self.reported() {
                return Some(error);
            }
        }
        Some(Error::other(format!("kafka producer: {code}: {reason}")))
    }

    fn reported(&self) -> Option<Error> {
        let failed = self.context.lock().failed.clone();
        failed.map(|error| Error::kafka("deliver a message", error))
    }
}

impl Sender for KafkaSender {
    fn send(&mut self, topic: &str, record: &Record) -> std::result::Result<(), SendError> {
        // Whether it failed is looked at where acknowledgements are asked for: here it would cost each message.
        if self.ended {
            return Err(self.failure().unwrap_or_else(Error::sender_ended).into());
        }
        let Some(found) = self.inner.topics.get(topic) else {
            return Err(Error::unknown_topic(topic).into());
        };
        self.inner.pass()?;
        let identity = self.inner.identity.load(Ordering::Relaxed);
        let Some(headers) = headers::encode(record, identity, &self.inner.kinds) else {
            return Err(
                Error::other(format!("records of kind {} have no name", record.kind)).into(),
            );
        };
        let place = usize::try_from(self.sent).expect("fewer messages than addresses");
        let message = BaseRecord::with_opaque_to(topic, place)
            .partition(i32::from(u16::from(record.lane) % found.partitions))
            .key(&record.key)
            .payload(headers::value(record))
            .headers(headers);
        // Before the message is handed over: its report may come at once.
        self.context.lock().acknowledged.push_back(false);
        match self.producer.send(message) {
            Ok(()) => {
                self.sent += 1;
                Ok(())
            }
            Err((error, _)) => {
                self.context.lock().acknowledged.pop_back();
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                    return Err(SendError::Full);
                }
                self.ended = true;
                Err(Error::kafka("send a message", error).into())
            }
        }
    }

    fn acknowledged(&mut self, wait: Duration) -> Result<u64> {
        let before = self.context.lock().watermark;
        let until = Instant::now() + wait;
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            self.take_reports();
            if let Some(error) = self.failure() {
                self.ended = true;
                return Err(error);
            }
            let watermark = self.context.lock().watermark;
            if watermark > before || rest.is_zero() {
                return Ok(watermark);
            }
            std::thread::park_timeout(rest.min(LOOK_EVERY));
        }
    }
}

impl Drop for KafkaSender {
    /// What is under way is somebody else's to send again; waiting for it would only hold that up.
    fn drop(&mut self) {
        self.producer
            .purge(PurgeConfig::default().queue().inflight());
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use testkit::wait;

    use super::*;
    use crate::StreamId;
    use crate::kafka::{Cleanup, Kafka, KindNames, Settings, Topic};

    const BOUND: Duration = Duration::from_secs(60);

    #[test]
    fn a_refused_message_counted_as_delivered_because_the_one_behind_it_was_taken() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t.sales", 1, 1).unwrap();
        let settings = Settings {
            brokers: cluster.bootstrap_servers(),
            ..Settings::default()
        };
        let topic = Topic {
            name: "t.sales".to_owned(),
            partitions: 1,
            cleanup: Cleanup::Never,
        };
        let kinds = KindNames {
            name: |_| Some("Sale"),
            number: |_| Some(1),
        };
        let kafka = Kafka::new(&settings, &[topic], kinds).unwrap();
        let send_both = || {
            let mut sender = open(&kafka.inner).unwrap();
            for n in [1, 2] {
                let record = Record {
                    key: vec![0],
                    kind: 1,
                    version: 1,
                    origin: StreamId([7; 16]),
                    lane: 0,
                    n,
                    time_ms: 1,
                    // No batch takes two of them: the second is under way before the first is answered.
                    value: vec![0; 700_000],
                };
                sender.send("t.sales", &record).unwrap();
            }
            sender
        };
        let reader: BaseConsumer = kafka.inner.config.create().unwrap();
        let end = || reader.fetch_watermarks("t.sales", 0, BOUND).unwrap().1;

        // A broker that was just started begins to lead the partition between the two.
        let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
        cluster.request_errors(RDKafkaApiKey::Produce, &[refusal]);
        let mut sender = send_both();
        wait::until("the sender ends", BOUND, || {
            match sender.acknowledged(Duration::from_millis(50)) {
                Ok(count) => assert_eq!(count, 0, "the first is not there"),
                Err(_) => return true,
            }
            false
        });
        assert_eq!(end(), 1, "the second is there");
        let mut next = send_both();
        wait::until("both are acknowledged", BOUND, || {
            next.acknowledged(Duration::from_millis(50)).unwrap() == 2
        });
        assert_eq!(end(), 3);
    }
}
