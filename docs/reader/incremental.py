#!/usr/bin/env python3
"""Reads what is new in Sluice's topics since the last time, and prints the same table as reader.py.

    PYTHONPATH=. python docs/reader/incremental.py --brokers localhost:9092 --state state.sqlite

It keeps results, offsets and the numbers taken in one SQLite file, and changes them in one transaction: killed anywhere, it goes
on at the next run and takes each record once. Run it as often as you like, one at a time. What it keeps is what a warehouse
needs too; docs/TOPICS.md has the one line for a warehouse that only appends.
"""

import sqlite3
import sys
from collections import Counter

import reader

BATCH = 1000  # messages a transaction: much work for one sync of the disk, little to read again after a kill

SCHEMA = """
CREATE TABLE IF NOT EXISTS place (topic, partition, offset, PRIMARY KEY (topic, partition));
CREATE TABLE IF NOT EXISTS high (topic, lane, stream, n, time_ms, PRIMARY KEY (topic, lane, stream));
CREATE TABLE IF NOT EXISTS ahead (topic, lane, stream, partition, n, offset, PRIMARY KEY (topic, lane, stream, partition));
CREATE TABLE IF NOT EXISTS ended (topic, lane, stream, PRIMARY KEY (topic, lane, stream));
CREATE TABLE IF NOT EXISTS click (key, affiliate, offer, sent_on, PRIMARY KEY (key));
CREATE TABLE IF NOT EXISTS label (key, PRIMARY KEY (key));
CREATE TABLE IF NOT EXISTS state (advertiser, "order", goal, change, PRIMARY KEY (advertiser, "order", goal));
CREATE TABLE IF NOT EXISTS paid (advertiser, "order", goal, affiliate, offer, currency, micros);
"""


class Topic:
    """The receiver's rule for one topic, with what it knows kept in the database."""

    def __init__(self, db, name):
        self.db, self.name, self.met = db, name, Counter()

    def high(self, lane, stream):
        of = (self.name, lane, stream)
        row = self.db.execute("SELECT n, time_ms FROM high WHERE topic = ? AND lane = ? AND stream = ?", of).fetchone()
        return row or (0, 0)

    def take(self, headers, partition, offset):
        """Whether a record is new and carries an event."""
        lane, stream = int(headers["lane"]), headers["stream"]
        n, time_ms = int(headers["n"]), int(headers["time"])
        last = max(n, int(headers.get("through", n)))  # a Tombstone may take several numbers
        of = (self.name, lane, stream)
        if self.db.execute("SELECT 1 FROM ended WHERE topic = ? AND lane = ? AND stream = ?", of).fetchone():
            self.met["repeats"] += 1
            return False
        high, latest_ms = self.high(lane, stream)
        if last <= high:
            self.met["conflicts" if time_ms > latest_ms else "repeats"] += 1
            return False
        if n > high + 1:
            self.met["early"] += 1
            self.db.execute("INSERT INTO ahead VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = max(n, excluded.n)",
                            (self.name, lane, stream, partition, last, offset))
            return False
        self.db.execute("INSERT OR REPLACE INTO high VALUES (?, ?, ?, ?, ?)",
                        (self.name, lane, stream, last, max(time_ms, latest_ms)))
        if headers["type"] == "End":
            self.end(stream, headers["ends"])
        if headers["type"] in reader.NUMBER_ONLY:
            self.met[reader.NUMBER_ONLY[headers["type"]]] += last - high
            return False
        self.met["taken"] += 1
        return True

    def end(self, stream, ends):
        """Forgets the lanes of a stream that an End names once all of them have ended: what comes of them later is a repeat."""
        lanes = [tuple(map(int, lane.split(":"))) for lane in ends.split(",")]
        if all(self.high(lane, stream)[0] >= n for lane, n in lanes):
            for of in ((self.name, lane, stream) for lane, _ in lanes):
                self.db.execute("INSERT OR IGNORE INTO ended VALUES (?, ?, ?)", of)
                for table in ("high", "ahead"):
                    self.db.execute(f"DELETE FROM {table} WHERE topic = ? AND lane = ? AND stream = ?", of)

    def holes(self):
        """(lane, stream, from, to): the numbers that are owed."""
        return self.db.execute(
            "SELECT ahead.lane, ahead.stream, coalesce(high.n, 0) + 1, max(ahead.n) FROM ahead LEFT JOIN high"
            " USING (topic, lane, stream) WHERE topic = ? AND ahead.n > coalesce(high.n, 0) GROUP BY 1, 2 ORDER BY 1, 2",
            (self.name,)).fetchall()

    def wait(self):
        """Goes back to what came early and still waits: behind what is sent again, or in a partition the topic grew by."""
        self.db.execute("DELETE FROM ahead WHERE topic = ? AND n <= (SELECT n FROM high WHERE high.topic = ahead.topic"
                        " AND high.lane = ahead.lane AND high.stream = ahead.stream)", (self.name,))
        self.db.execute("UPDATE place SET offset = min(offset, (SELECT min(offset) FROM ahead WHERE topic = place.topic"
                        " AND partition = place.partition)) WHERE topic = ? AND partition IN"
                        " (SELECT partition FROM ahead WHERE topic = place.topic)", (self.name,))

    def read(self, consumer, topic, keep):
        """Takes what is new, from where the last run ended."""
        known = dict(self.db.execute("SELECT partition, offset FROM place WHERE topic = ?", (self.name,)))
        count = reader.partitions(consumer, topic)
        # Of a topic that has grown the old partitions come first: a lane's younger records may lie in a new one.
        for part in (known, range(len(known), count)):
            places = {partition: known.get(partition, reader.OFFSET_BEGINNING) for partition in part}
            unread = 0
            for partition, offset, headers, value in reader.messages(consumer, topic, places):
                if self.take(headers, partition, offset):
                    keep(self.db, headers["type"], reader.decode(headers, value, f"{topic}/{partition}@{offset}"))
                self.db.execute("INSERT OR REPLACE INTO place VALUES (?, ?, ?)", (self.name, partition, offset + 1))
                unread += 1
                if unread % BATCH == 0:
                    self.db.commit()
            for partition in part:
                self.db.execute("INSERT OR IGNORE INTO place VALUES (?, ?, 0)", (self.name, partition))
            self.wait()
            self.db.commit()


def keep(db, name, event):
    """What an event changes. Said twice it changes nothing, in whatever order events come."""
    if name == "Click":
        of, is_sent_on = reader.counts_as(event)
        if of:
            db.execute("INSERT OR IGNORE INTO click VALUES (?, ?, ?, ?)", (text(event.key), *of, is_sent_on))
    elif name == "FraudSignal":
        db.execute("INSERT OR IGNORE INTO label VALUES (?)", (text(event.click),))
    elif name == "Conversion":
        of, change, lines = reader.state(event)
        # The state replaces the one before it: never sum over `before` and `after`, a restored store may say them again.
        changed = db.execute("INSERT INTO state VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET change = excluded.change"
                             " WHERE excluded.change >= change", (*of, change)).rowcount
        if changed:
            db.execute('DELETE FROM paid WHERE advertiser = ? AND "order" = ? AND goal = ?', of)
            db.executemany("INSERT INTO paid VALUES (?, ?, ?, ?, ?, ?, ?)", ((*of, *line) for line in lines))


def text(key):
    return "{}/{}/{}".format(*reader.key(key))


def lines(db):
    clicks, invalid = Counter(), Counter()
    valid = "sent_on AND NOT EXISTS (SELECT 1 FROM label WHERE label.key = click.key)"
    for affiliate, offer, is_valid, count in db.execute(f"SELECT affiliate, offer, {valid}, count(*) FROM click GROUP BY 1, 2, 3"):
        (clicks if is_valid else invalid)[affiliate, offer] += count
    return reader.table(clicks, invalid, db.execute("SELECT affiliate, offer, currency, micros FROM paid"))


def main():
    arguments = reader.arguments(__doc__)
    arguments.add_argument("--state", required=True, help="the file it keeps what it has read in")
    settings = arguments.parse_args()
    db = sqlite3.connect(settings.state)
    db.executescript(SCHEMA)
    consumer = reader.connect(settings)
    whole, summary = True, []
    for name in ("clicks", "fraud-signals", "postbacks", "conversions"):
        topic = Topic(db, name)
        topic.read(consumer, f"{settings.prefix}.{name}", keep)
        holes = topic.holes()
        for lane, stream, first, last in holes:
            print(f"{name}: lane {lane} of {stream}: {first} to {last} are owed", file=sys.stderr)
        whole = whole and not holes and not topic.met["conflicts"]
        summary.append((name, *(topic.met[what] for what in reader.COUNTED), len(holes)))
    consumer.close()
    reader.write(lines(db), summary)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
