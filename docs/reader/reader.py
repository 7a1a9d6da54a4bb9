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
NUMBER_ONLY = {"Tombstone": "tombstones", "End": "ends"}  # these take a number, carry no event, and their value is empty
TYPES = ("Click", "Unmatched", "Postback", "FraudSignal", "Conversion")
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
        last = max(n, int(headers.get("through", n)))  # a Tombstone may take several numbers
        high, latest_ms = self.high.get(of, (0, 0))
        if last <= high:
            self.met["conflicts" if time_ms > latest_ms else "repeats"] += not self.again
            return False
        if n > high + 1:
            # Not kept: the sender owes everything after the gap again, in order.
            self.ahead[of] = max(n, self.ahead.get(of, 0))
            self.met["early"] += not self.again
            return False
        self.high[of] = (last, max(time_ms, latest_ms))
        if headers["type"] in NUMBER_ONLY:
            self.met[NUMBER_ONLY[headers["type"]]] += last - high
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
        self.orders = {}  # (advertiser, order, goal): its latest change, and what it pays for

    def click(self, click):
        of, is_sent_on = counts_as(click)
        if is_sent_on:
            self.clicks[key(click.key)] = of
        elif of:
            self.refused[of] += 1

    def fraud_signal(self, signal):
        self.labelled.add(key(signal.click))

    def conversion(self, conversion):
        of, change, lines = state(conversion)
        if change >= self.orders.get(of, (0,))[0]:
            self.orders[of] = (change, lines)

    def lines(self):
        clicks, invalid = Counter(), Counter(self.refused)
        for click, of in self.clicks.items():
            (invalid if click in self.labelled else clicks)[of] += 1
        return table(clicks, invalid, (line for _, lines in self.orders.values() for line in lines))


def counts_as(click):
    """The (affiliate, offer) of a click, none where it is in no report; and whether it was sent on by a visitor."""
    if click.offer == 0 and click.link == 0:
        return None, False  # it names nothing known
    if getattr(click, "class") == events.CLASS_SPECULATIVE:
        return None, False  # a prefetch is no click
    is_sent_on = click.decision == events.DECISION_REDIRECT and getattr(click, "class") != events.CLASS_HEAD
    return (click.affiliate, click.offer), is_sent_on


def state(conversion):
    """What a conversion is the state of, the number of the change, and what pays: (affiliate, offer, currency, micros)."""
    order = conversion.order or f"token:{conversion.token.hex()}"  # an order without an id is known by its token
    of = (conversion.advertiser, order, conversion.goal)
    lines = [(line.affiliate, line.offer, line.payout_currency, line.payout_micros) for line in conversion.after]
    return of, conversion.change, lines  # none where the order does not count


def table(clicks, invalid, paid):
    """affiliate, offer, clicks, invalid, conversions, currency, payout; one line a currency, counts on the first."""
    conversions, payout = Counter(), defaultdict(Counter)
    for affiliate, offer, currency, micros in paid:
        conversions[affiliate, offer] += 1
        payout[affiliate, offer][currency] += micros
    for of in sorted({*clicks, *invalid, *conversions}):
        counts = (clicks[of], invalid[of], conversions[of])
        for currency, micros in sorted(payout[of].items()) or [("", 0)]:
            yield *of, *counts, currency, Decimal(micros).scaleb(-6)
            counts = ("", "", "")


def write(lines, summary):
    """The table to standard output, what was met on the way to standard error."""
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["affiliate", "offer", "clicks", "invalid", "conversions", "currency", "payout"])
    for *counts, payout in lines:
        out.writerow([*counts, f"{payout:.6f}"])
    out = csv.writer(sys.stderr, lineterminator="\n")
    out.writerow(["topic", *COUNTED, "holes"])
    out.writerows(summary)


def key(key):
    return key.time_ms, key.stream, key.sequence


def partitions(consumer, topic):
    """How many partitions a topic has."""
    found = consumer.list_topics(topic, SILENCE_S).topics[topic]
    if found.error:
        raise KafkaException(found.error)
    return len(found.partitions)


def messages(consumer, topic, places):
    """Every message of some partitions up to their ends, each partition in order: (partition, offset, headers, value).

    `places` says where each partition is begun.
    """
    waiting = set(places)
    consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in places.items()])
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
            yield message.partition(), message.offset(), headers, message.value()


def decode(headers, value, where):
    """The event of a record that carries one."""
    name = headers["type"]
    if name not in TYPES or int(headers["version"]) > VERSION:
        sys.exit(f"{where}: {name} of version {headers['version']} is not known: generate from a newer schema")
    event = getattr(events, name)()
    event.ParseFromString(value)
    return event


def read(consumer, topic, types, receiver):
    """Takes what is new in a topic, from its beginning to its end."""
    places = dict.fromkeys(range(partitions(consumer, topic)), OFFSET_BEGINNING)
    for partition, offset, headers, value in messages(consumer, topic, places):
        if receiver.take(headers):
            take = types.get(headers["type"])
            event = decode(headers, value, f"{topic}/{partition}@{offset}")
            if take:
                take(event)


def connect(settings):
    """A consumer that keeps no offsets of its own."""
    return Consumer({
        "bootstrap.servers": settings.brokers,
        "group.id": f"{settings.prefix}-reader",  # asked for, not used: offsets are ours
        "enable.auto.commit": False,
        "auto.offset.reset": "error",  # what is gone is not skipped over
        "enable.partition.eof": True,
        **dict(setting.split("=", 1) for setting in settings.more),
    })


def arguments(about):
    arguments = argparse.ArgumentParser(description=about.splitlines()[0])
    arguments.add_argument("--brokers", required=True, help="HOST:PORT, comma separated")
    arguments.add_argument("--prefix", default="sluice", help="what topic names begin with")
    arguments.add_argument("-X", dest="more", action="append", default=[], metavar="NAME=VALUE",
                           help="a setting of librdkafka, such as security.protocol=SASL_SSL")
    return arguments


def main():
    settings = arguments(__doc__).parse_args()
    consumer = connect(settings)

    totals = Totals()
    # What to do with each type of each topic. Requests that name nothing known, and what an advertiser said before it
    # was made a conversion of, change no number here; their records are followed all the same.
    topics = {
        "clicks": {"Click": totals.click},
        "fraud-signals": {"FraudSignal": totals.fraud_signal},
        "postbacks": {},
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
            read(consumer, f"{settings.prefix}.{topic}", types, receiver)
            holes, progress = list(receiver.holes()), receiver.high != before
            receiver.again = True
        for lane, stream, first, last in holes:
            print(f"{topic}: lane {lane} of {stream}: {first} to {last} are owed", file=sys.stderr)
        met = receiver.met
        whole = whole and not holes and not met["conflicts"]
        counts = [met[name] for name in COUNTED]
        summary.append((topic, *counts, len(holes)))
    consumer.close()

    write(totals.lines(), summary)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
