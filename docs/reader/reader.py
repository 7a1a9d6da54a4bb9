#!/usr/bin/env python3
"""Reads Sluice's topics to their end and prints what each affiliate did for each offer, from the topics alone.

    pip install -r docs/reader/requirements.txt
    python -m grpc_tools.protoc -I crates/domain/proto --python_out=. sluice/v1/events.proto
    PYTHONPATH=. python docs/reader/reader.py --brokers localhost:9092

The numbers go to standard output as CSV, what was met on the way to standard error. The exit code is 1 when records are
missing or two writers claim one number: the numbers are then not whole. docs/TOPICS.md says why it is done this way.
"""

import argparse
import csv
import sys
from collections import Counter, defaultdict
from decimal import Decimal

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from sluice.v1 import events_pb2 as events

VERSION = 1  # of the schema this reader was generated from
NUMBER_ONLY = {"Tombstone": "tombstones", "End": "ends"}  # these take a number and carry no event
COUNTED = ("taken", "repeats", "early", "ends", "tombstones", "conflicts")
SILENCE_S = 30  # a broker that says nothing for so long is away


class Receiver:
    """The receiver's rule for one topic: of "at least once" it makes each record once, and knows what is missing.

    A reader that goes on later keeps `high` where it keeps its results: in one transaction with them and the offset. This
    one begins anew each time and keeps a row for each lane of each stream; docs/TOPICS.md says how an End makes them fewer.
    """

    def __init__(self):
        self.high = {}  # (lane, stream): the number of the last record taken, and the latest time up to it
        self.ahead = {}  # (lane, stream): the highest number that came early
        self.met = Counter()
        self.again = False  # what is read once more was met already

    def take(self, headers):
        """Whether a record is new and carries an event."""
        of = (int(headers["lane"]), headers["stream"])
        n, time_ms = int(headers["n"]), int(headers["time"])
        high, latest_ms = self.high.get(of, (0, 0))
        if n <= high:
            self.met["conflicts" if time_ms > latest_ms else "repeats"] += not self.again
            return False
        if n > high + 1:
            # Not kept: the sender owes everything after the gap again, in order.
            self.ahead[of] = max(n, self.ahead.get(of, 0))
            self.met["early"] += not self.again
            return False
        self.high[of] = (n, max(time_ms, latest_ms))
        if headers["type"] in NUMBER_ONLY:
            self.met[NUMBER_ONLY[headers["type"]]] += 1
            return False
        self.met["taken"] += 1
        return True

    def holes(self):
        """(lane, stream, from, to): the numbers that are owed."""
        for of, ahead in sorted(self.ahead.items()):
            high, _ = self.high.get(of, (0, 0))
            if ahead > high:
                yield *of, high + 1, ahead


class Totals:
    """Clicks and conversions per (affiliate, offer): a function of the set of events, in whatever order they come."""

    def __init__(self):
        self.refused = Counter()  # clicks that were never sent on, or were only looked at
        self.clicks = {}  # key: (affiliate, offer) of a click that was sent on
        self.labelled = set()  # keys of clicks that a label was found for, before or after the click itself came
        self.orders = {}  # (advertiser, order, goal): its latest state

    def click(self, click):
        if click.offer == 0 and click.link == 0:
            return  # it names nothing known
        if getattr(click, "class") == events.CLASS_SPECULATIVE:
            return  # a prefetch is no click
        of = (click.affiliate, click.offer)
        if click.decision != events.DECISION_REDIRECT or getattr(click, "class") == events.CLASS_HEAD:
            self.refused[of] += 1
        else:
            self.clicks[key(click.key)] = of

    def fraud_signal(self, signal):
        self.labelled.add(key(signal.click))

    def conversion(self, conversion):
        of = (conversion.advertiser, conversion.order, conversion.goal)
        before = self.orders.get(of)
        if before is None or conversion.revision >= before.revision:
            self.orders[of] = conversion

    def lines(self):
        """affiliate, offer, clicks, invalid, conversions, currency, payout; one line a currency, counts on the first."""
        clicks, invalid, conversions = Counter(), Counter(self.refused), Counter()
        payout = defaultdict(Counter)
        for click, of in self.clicks.items():
            (invalid if click in self.labelled else clicks)[of] += 1
        for order in self.orders.values():
            if order.paid:
                of = (order.affiliate, order.offer)
                conversions[of] += 1
                payout[of][order.payout_currency] += order.payout_micros
        for of in sorted({*clicks, *invalid, *conversions}):
            counts = (clicks[of], invalid[of], conversions[of])
            for currency, micros in sorted(payout[of].items()) or [("", 0)]:
                yield *of, *counts, currency, Decimal(micros).scaleb(-6)
                counts = ("", "", "")


def key(key):
    return key.time_ms, key.stream, key.sequence


def messages(consumer, topic):
    """Every message of a topic up to its end, each partition in order: (where, headers, value)."""
    found = consumer.list_topics(topic, SILENCE_S).topics[topic]
    if found.error:
        raise KafkaException(found.error)
    waiting = set(found.partitions)
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in waiting])
    while waiting:
        message = consumer.poll(SILENCE_S)
        if message is None:
            sys.exit(f"{topic}: no answer for {SILENCE_S} s")
        error = message.error()
        if error and error.code() == KafkaError._PARTITION_EOF:
            waiting.discard(message.partition())
        elif error:
            raise KafkaException(error)
        else:
            headers = {name: value.decode() for name, value in message.headers() or []}
            yield f"{topic}/{message.partition()}@{message.offset()}", headers, message.value()


def read(consumer, topic, types, receiver):
    """Takes what is new in a topic, from its beginning to its end."""
    for where, headers, value in messages(consumer, topic):
        if not receiver.take(headers):
            continue
        name = headers["type"]
        if name not in types or int(headers["version"]) > VERSION:
            sys.exit(f"{where}: {name} of version {headers['version']} is not known: generate from a newer schema")
        if types[name]:
            event = getattr(events, name)()
            event.ParseFromString(value)
            types[name](event)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--brokers", required=True, help="HOST:PORT, comma separated")
    arguments.add_argument("--prefix", default="sluice", help="what topic names begin with")
    arguments.add_argument("-X", dest="more", action="append", default=[], metavar="NAME=VALUE",
                           help="a setting of librdkafka, such as security.protocol=SASL_SSL")
    arguments = arguments.parse_args()
    consumer = Consumer({
        "bootstrap.servers": arguments.brokers,
        "group.id": f"{arguments.prefix}-reader",  # asked for, not used: offsets are ours
        "enable.auto.commit": False,
        "auto.offset.reset": "error",  # what is gone is not skipped over
        "enable.partition.eof": True,
        **dict(setting.split("=", 1) for setting in arguments.more),
    })

    totals = Totals()
    # What to do with each type of each topic. Requests that name nothing known, and what an advertiser said before it
    # was made a conversion of, change no number here; their records are followed all the same.
    topics = {
        "clicks": {"Click": totals.click, "Unmatched": None},
        "fraud-signals": {"FraudSignal": totals.fraud_signal},
        "postbacks": {"Postback": None},
        "conversions": {"Conversion": totals.conversion},
    }
    whole = True
    summary = []
    for topic, types in topics.items():
        receiver = Receiver()
        holes, progress = True, True
        # Of a topic that has grown, a lane's younger records can come first, from its new partition: once more helps.
        while holes and progress:
            before = dict(receiver.high)
            read(consumer, f"{arguments.prefix}.{topic}", types, receiver)
            holes, progress = list(receiver.holes()), receiver.high != before
            receiver.again = True
        for lane, stream, first, last in holes:
            print(f"{topic}: lane {lane} of {stream}: {first} to {last} are owed", file=sys.stderr)
        met = receiver.met
        whole = whole and not holes and not met["conflicts"]
        counts = [met[name] for name in COUNTED]
        summary.append((topic, *counts, len(holes)))
    consumer.close()

    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(["affiliate", "offer", "clicks", "invalid", "conversions", "currency", "payout"])
    for *counts, payout in totals.lines():
        lines.writerow([*counts, f"{payout:.6f}"])
    lines = csv.writer(sys.stderr, lineterminator="\n")
    lines.writerow(["topic", *COUNTED, "holes"])
    lines.writerows(summary)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
