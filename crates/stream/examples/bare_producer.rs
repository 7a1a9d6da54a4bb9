//! What `loadtest courier` measures a courier against: the least that sends the same messages.
//!
//! It reads messages from a topic into memory, then sends the same bytes to the same partitions through one
//! `BaseProducer` with the sender's settings, and prints how long that took and how much processor time.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

/// A broker that says nothing for so long has nothing more to say.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Messages between two looks at what was acknowledged.
const POLL_EVERY: usize = 1024;

struct Message {
    partition: i32,
    key: Vec<u8>,
    value: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
}

/// Counts what the broker acknowledged and what it did not.
#[derive(Clone, Default)]
struct Reports {
    acknowledged: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, _place: usize) {
        let count = match report {
            Ok(_) => &self.acknowledged,
            Err(_) => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a program prints is its answer"
)]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic, partitions, count] = &arguments[..] else {
        eprintln!("bare_producer BROKERS TOPIC PARTITIONS COUNT");
        return ExitCode::from(2);
    };
    let numbers = partitions.parse().ok().zip(count.parse().ok());
    let Some((partitions, count)) = numbers else {
        eprintln!("bare_producer: PARTITIONS and COUNT are numbers");
        return ExitCode::from(2);
    };
    let done = read(brokers, topic, partitions, count)
        .map_err(|error| error.to_string())
        .and_then(|messages| send(brokers, topic, &messages));
    match done {
        Ok((seconds, cpu_seconds)) => {
            println!("{seconds} {cpu_seconds}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bare_producer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The oldest messages of a topic, taken from its partitions in turn.
fn read(
    brokers: &str,
    topic: &str,
    partitions: i32,
    count: usize,
) -> Result<Vec<Message>, KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bare")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut places = TopicPartitionList::new();
    for partition in 0..partitions {
        places.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&places)?;
    let mut of_partition: Vec<VecDeque<Message>> = Vec::new();
    of_partition.resize_with(usize::try_from(partitions).unwrap_or(0), VecDeque::new);
    for _ in 0..count {
        let Some(message) = consumer.poll(SILENCE_MAX) else {
            return Err(KafkaError::Canceled);
        };
        let message = message?;
        let headers = message.headers().into_iter().flat_map(|headers| {
            headers.iter().map(|header| {
                let value = header.value.unwrap_or_default().to_vec();
                (header.key.to_owned(), value)
            })
        });
        let at = usize::try_from(message.partition()).unwrap_or(0);
        of_partition[at].push_back(Message {
            partition: message.partition(),
            key: message.key().unwrap_or_default().to_vec(),
            value: message.payload().unwrap_or_default().to_vec(),
            headers: headers.collect(),
        });
    }
    let mut messages = Vec::with_capacity(count);
    while messages.len() < count {
        messages.extend(of_partition.iter_mut().filter_map(VecDeque::pop_front));
    }
    Ok(messages)
}

/// Sends them all and waits until all are acknowledged; seconds, and seconds of processor time.
fn send(brokers: &str, topic: &str, messages: &[Message]) -> Result<(f64, f64), String> {
    let reports = Reports::default();
    // As in `stream::kafka::sender`.
    let producer: BaseProducer<Reports> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("enable.gapless.guarantee", "true")
        .set("message.timeout.ms", "0")
        .set("linger.ms", "20")
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", (1 << 16).to_string())
        .set("queue.buffering.max.kbytes", (1 << 16).to_string())
        .create_with_context(reports.clone())
        .map_err(|error| error.to_string())?;
    let (started, cpu_before) = (Instant::now(), cpu_seconds()?);
    for (place, message) in messages.iter().enumerate() {
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for (key, value) in &message.headers {
            headers = headers.insert(Header {
                key,
                value: Some(value),
            });
        }
        let mut record = BaseRecord::with_opaque_to(topic, place)
            .partition(message.partition)
            .key(&message.key)
            .payload(&message.value)
            .headers(headers);
        while let Err((error, refused)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.to_string());
            }
            producer.poll(Duration::from_millis(20));
            record = refused;
        }
        if place % POLL_EVERY == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    let all = messages.len() as u64;
    let mut last = Instant::now();
    let mut known = 0;
    while known < all {
        producer.poll(Duration::from_millis(20));
        if reports.failed.load(Ordering::Relaxed) > 0 {
            return Err("a message was not delivered".to_owned());
        }
        let acknowledged = reports.acknowledged.load(Ordering::Relaxed);
        if acknowledged > known {
            (known, last) = (acknowledged, Instant::now());
        } else if last.elapsed() > SILENCE_MAX {
            return Err(format!("{known} of {all} messages were acknowledged"));
        }
    }
    Ok((started.elapsed().as_secs_f64(), cpu_seconds()? - cpu_before))
}

/// Processor time of this process, user and system, as the system counts it: in hundredths.
fn cpu_seconds() -> Result<f64, String> {
    let text = std::fs::read_to_string("/proc/self/stat").map_err(|error| error.to_string())?;
    // The second field is a name in brackets, which may hold spaces; user and system time are 14 and 15.
    let fields = text.rsplit_once(')').map(|(_, rest)| rest.split(' '));
    let ticks = fields
        .into_iter()
        .flatten()
        .skip(12)
        .take(2)
        .map(|field| field.parse::<u32>().map_err(|error| error.to_string()))
        .sum::<Result<u32, _>>()?;
    Ok(f64::from(ticks) / 100.0)
}
