use super::*;

fn record(lane: u8, n: u64) -> Record {
    Record {
        key: vec![lane],
        kind: 1,
        version: 1,
        origin: StreamId([7; 16]),
        lane,
        n,
        time_ms: n * 10,
        value: format!("{lane}/{n}").into_bytes(),
    }
}

fn open(folder: &Path, partitions: u16) -> Result<Embedded> {
    Embedded::open(folder, &[("things", partitions)], StreamId::random)
}

/// Everything there is, as (partition, offset, lane, n).
fn drain(receiver: &mut dyn Receiver, records_max: usize) -> Vec<(u16, u64, u8, u64)> {
    let mut all = Vec::new();
    while let Some(batch) = receiver.poll(records_max, Duration::ZERO).unwrap() {
        assert!(batch.records.len() <= records_max);
        assert_eq!(batch.first, batch.records[0].0);
        for (offset, record) in &batch.records {
            all.push((batch.partition, *offset, record.lane, record.n));
        }
        assert_eq!(batch.next, all.last().unwrap().1 + 1);
    }
    all.sort_unstable();
    all
}

#[test]
fn records_are_seen_once_synced_and_keep_their_offsets_over_a_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let stream = open(folder.path(), 2).unwrap();
    let mut sender = stream.sender();
    let mut receiver = stream.receiver("things").unwrap();
    assert_eq!(receiver.assigned(), Some(vec![0, 1]));
    assert_eq!(receiver.assigned(), None);
    for (lane, n) in [(0, 1), (1, 1), (2, 1), (0, 2)] {
        sender.send("things", &record(lane, n)).unwrap();
    }
    assert_eq!(drain(&mut *receiver, 10), [], "nothing is synced");
    assert_eq!(sender.acknowledged(Duration::ZERO).unwrap(), 4);
    let first = [(0, 0, 0, 1), (0, 1, 2, 1), (0, 2, 0, 2), (1, 0, 1, 1)];
    assert_eq!(drain(&mut *receiver, 1), first);
    sender.send("things", &record(0, 99)).unwrap();
    drop((sender, receiver, stream));

    let stream = open(folder.path(), 2).unwrap();
    let mut sender = stream.sender();
    sender.send("things", &record(0, 3)).unwrap();
    assert_eq!(sender.acknowledged(Duration::ZERO).unwrap(), 1);
    let mut receiver = stream.receiver("things").unwrap();
    let mut all = first.to_vec();
    all.insert(3, (0, 3, 0, 3));
    assert_eq!(drain(&mut *receiver, 10), all);
    receiver.seek(0, 2).unwrap();
    assert_eq!(drain(&mut *receiver, 10), [(0, 2, 0, 2), (0, 3, 0, 3)]);
    receiver.seek(0, 4).unwrap();
    assert_eq!(drain(&mut *receiver, 10), []);
    let error = receiver.seek(0, 5).unwrap_err();
    assert!(error.is_offset(), "{error}");
    assert!(receiver.seek(2, 0).is_err());
}

#[test]
fn a_second_open_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let stream = open(folder.path(), 1).unwrap();
    let receiver = stream.receiver("things").unwrap();
    drop(stream);
    let error = open(folder.path(), 1).unwrap_err().to_string();
    assert!(error.contains("in use by process"), "{error}");
    drop(receiver);
    open(folder.path(), 1).unwrap();
}

#[test]
fn another_partition_count_is_refused_and_new_topics_are_added() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), 2).unwrap());
    let error = open(folder.path(), 3).unwrap_err().to_string();
    assert_eq!(
        error,
        "topic things was made with 2 partitions and cannot be used with 3: set it back to 2"
    );
    let more = [("more", 1), ("things", 2)];
    drop(Embedded::open(folder.path(), &more, StreamId::random).unwrap());
    let text = std::fs::read_to_string(folder.path().join("topics.toml")).unwrap();
    assert_eq!(
        text,
        "# Written when a topic is made. A partition count cannot be changed here.\n\
         format = 1\n\n[topics.\"more\"]\npartitions = 1\nversion = 1\n\n\
         [topics.\"things\"]\npartitions = 2\nversion = 1\n"
    );
    for bad in [
        ("things", 0),
        ("things", 257),
        ("a/b", 1),
        ("", 1),
        (".", 1),
    ] {
        assert!(
            Embedded::open(folder.path(), &[bad], StreamId::random).is_err(),
            "{bad:?}"
        );
    }
    std::fs::write(folder.path().join("topics.toml"), "format = 2\n").unwrap();
    let error = open(folder.path(), 2).unwrap_err().to_string();
    assert!(error.contains("format 2, which is newer"), "{error}");
}

#[test]
fn a_sender_that_failed_takes_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let stream = open(folder.path(), 1).unwrap();
    let mut sender = stream.sender();
    sender.send("things", &record(0, 1)).unwrap();
    assert!(matches!(
        sender.send("nothing", &record(0, 1)),
        Err(SendError::Failed(_))
    ));
    assert!(sender.send("things", &record(0, 2)).is_err());
    assert!(sender.acknowledged(Duration::ZERO).is_err());
    let mut sender = stream.sender();
    let mut large = record(0, 1);
    large.value = vec![0; PAYLOAD_BYTES_MAX];
    assert!(sender.send("things", &large).is_err());
}

#[test]
fn a_log_that_failed_ends_the_senders_that_had_records_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let stream = open(folder.path(), 2).unwrap();
    let (mut hit, mut spared) = (stream.sender(), stream.sender());
    hit.send("things", &record(0, 1)).unwrap();
    spared.send("things", &record(1, 1)).unwrap();
    lock(&stream.inner.topics["things"].partitions[0].log).fail();
    assert!(hit.acknowledged(Duration::ZERO).is_err());
    assert_eq!(spared.acknowledged(Duration::ZERO).unwrap(), 1);
    let mut again = stream.sender();
    again.send("things", &record(0, 1)).unwrap();
    assert_eq!(again.acknowledged(Duration::ZERO).unwrap(), 1);
    let mut receiver = stream.receiver("things").unwrap();
    assert_eq!(drain(&mut *receiver, 10), [(0, 0, 0, 1), (1, 0, 1, 1)]);
}

#[test]
fn a_damaged_record_is_an_error_and_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let stream = open(folder.path(), 1).unwrap();
    let mut sender = stream.sender();
    for n in 1..=5 {
        sender.send("things", &record(0, n)).unwrap();
    }
    sender.acknowledged(Duration::ZERO).unwrap();
    drop((sender, stream));
    let path = folder.path().join("things-0/0000000000000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let value = bytes.windows(3).position(|part| part == b"0/3").unwrap();
    bytes[value] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let stream = open(folder.path(), 1).unwrap();
    let mut receiver = stream.receiver("things").unwrap();
    let error = receiver.poll(10, Duration::ZERO).unwrap_err().to_string();
    assert!(
        error.contains("topic things, partition 0 is damaged: offsets 2 to 2 cannot be read"),
        "{error}"
    );
    receiver.seek(0, 3).unwrap();
    assert_eq!(drain(&mut *receiver, 10), [(0, 3, 0, 4), (0, 4, 0, 5)]);
}

#[test]
fn a_full_sender_goes_on_after_the_acknowledgement() {
    let folder = tempfile::tempdir().unwrap();
    let stream = open(folder.path(), 1).unwrap();
    let mut sender = stream.sender();
    let mut large = record(0, 1);
    large.value = vec![0; PAYLOAD_BYTES_MAX / 2];
    let mut sent = 0;
    while sender.send("things", &large).is_ok() {
        sent += 1;
        assert!(sent <= UNDER_WAY_BYTES_MAX / large.value.len());
    }
    assert!(matches!(
        sender.send("things", &large),
        Err(SendError::Full)
    ));
    assert_eq!(sender.acknowledged(Duration::ZERO).unwrap(), sent as u64);
    sender.send("things", &large).unwrap();
}

#[test]
fn a_waiting_receiver_is_woken() {
    let folder = tempfile::tempdir().unwrap();
    let stream = open(folder.path(), 1).unwrap();
    let mut receiver = stream.receiver("things").unwrap();
    let waiting =
        std::thread::spawn(move || receiver.poll(10, Duration::from_secs(60)).unwrap().unwrap());
    let mut sender = stream.sender();
    sender.send("things", &record(0, 1)).unwrap();
    sender.acknowledged(Duration::ZERO).unwrap();
    assert_eq!(waiting.join().unwrap().records, [(0, record(0, 1))]);
}
