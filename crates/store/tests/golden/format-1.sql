-- A store of format 1 as its own version made it (sqlite3 .dump), with a row of everything an upgrade must keep.
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE positions (
    consumer TEXT NOT NULL, topic INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY (consumer, topic, partition)
) STRICT, WITHOUT ROWID;
INSERT INTO positions VALUES('clicks',0,1,12);
CREATE TABLE highs (
    consumer TEXT NOT NULL, topic INTEGER NOT NULL, partition INTEGER NOT NULL, lane INTEGER NOT NULL,
    stream BLOB NOT NULL, n INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    PRIMARY KEY (consumer, topic, partition, lane, stream)
) STRICT, WITHOUT ROWID;
INSERT INTO highs VALUES('clicks',0,1,3,X'07070707070707070707070707070707',12,1790000000000);
CREATE TABLE rollups (
    cube INTEGER NOT NULL, bucket_ms INTEGER NOT NULL, offer INTEGER NOT NULL, affiliate INTEGER NOT NULL,
    link INTEGER NOT NULL, reason INTEGER NOT NULL, currency TEXT NOT NULL,
    consumer INTEGER NOT NULL, partition INTEGER NOT NULL,
    clicks INTEGER NOT NULL, uniques INTEGER NOT NULL, duplicates INTEGER NOT NULL, invalid INTEGER NOT NULL,
    speculative INTEGER NOT NULL, unmatched INTEGER NOT NULL, conversions INTEGER NOT NULL,
    amount_units INTEGER NOT NULL, amount_millionths INTEGER NOT NULL,
    revenue_units INTEGER NOT NULL, revenue_millionths INTEGER NOT NULL,
    payout_units INTEGER NOT NULL, payout_millionths INTEGER NOT NULL,
    PRIMARY KEY (cube, bucket_ms, offer, affiliate, link, reason, currency, consumer, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE marks (
    day INTEGER NOT NULL, visitor INTEGER NOT NULL, offer INTEGER NOT NULL, affiliate INTEGER NOT NULL,
    click BLOB NOT NULL, seen INTEGER NOT NULL, reasons INTEGER NOT NULL, link INTEGER NOT NULL,
    PRIMARY KEY (day, visitor, offer, affiliate, click)
) STRICT, WITHOUT ROWID;
CREATE TABLE postbacks (
    advertiser INTEGER NOT NULL, order_id TEXT NOT NULL, goal INTEGER NOT NULL, at BLOB NOT NULL,
    trusted INTEGER NOT NULL, content BLOB NOT NULL, bytes BLOB NOT NULL,
    PRIMARY KEY (advertiser, order_id, goal, at)
) STRICT, WITHOUT ROWID;
INSERT INTO postbacks VALUES(1,'A-1',2,X'000001a0c4506c000000000700000003',1,X'01010101010101010101010101010101',X'73616964');
CREATE TABLE orders (
    advertiser INTEGER NOT NULL, order_id TEXT NOT NULL, goal INTEGER NOT NULL, bytes BLOB NOT NULL,
    waits_for BLOB, partition INTEGER NOT NULL,
    PRIMARY KEY (advertiser, order_id, goal)
) STRICT, WITHOUT ROWID;
INSERT INTO orders VALUES(1,'A-1',2,X'6f72646572',X'000001a0c4506c000000000700000003',1);
CREATE TABLE fraud_clicks (
    visitor INTEGER NOT NULL, offer INTEGER NOT NULL, affiliate INTEGER NOT NULL, click BLOB NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (visitor, offer, affiliate, click)
) STRICT, WITHOUT ROWID;
CREATE TABLE flags (
    click BLOB NOT NULL, reason INTEGER NOT NULL,
    PRIMARY KEY (click, reason)
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox_streams (
    consumer TEXT NOT NULL PRIMARY KEY, stream BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO outbox_streams VALUES('conversions',X'09090909090909090909090909090909');
CREATE TABLE outbox_counters (
    consumer TEXT NOT NULL, stream BLOB NOT NULL, topic INTEGER NOT NULL, lane INTEGER NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (consumer, stream, topic, lane)
) STRICT, WITHOUT ROWID;
INSERT INTO outbox_counters VALUES('conversions',X'09090909090909090909090909090909',3,1,2);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer TEXT NOT NULL, topic INTEGER NOT NULL, lane INTEGER NOT NULL, stream BLOB NOT NULL, n INTEGER NOT NULL,
    kind INTEGER NOT NULL, time_ms INTEGER NOT NULL, key BLOB NOT NULL, bytes BLOB NOT NULL
) STRICT;
INSERT INTO outbox VALUES(2,'conversions',3,1,X'09090909090909090909090909090909',2,4,1790000000002,X'6b6579',X'7365636f6e64');
CREATE TABLE clicks_20260921 (key BLOB NOT NULL PRIMARY KEY, facts BLOB NOT NULL)
                 STRICT, WITHOUT ROWID;
INSERT INTO clicks_20260921 VALUES(X'000001a0c4506c000000000700000003',X'6661637473');
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('outbox',2);
CREATE INDEX marks_valid ON marks (day, visitor, offer, affiliate, click) WHERE seen = 1 AND reasons = 0;
CREATE INDEX postbacks_by_content ON postbacks (advertiser, order_id, goal, content, at);
CREATE INDEX orders_waiting ON orders (partition, waits_for) WHERE waits_for IS NOT NULL;
CREATE INDEX orders_by_order ON orders (order_id);
CREATE INDEX outbox_by_consumer ON outbox (consumer, id);
COMMIT;
PRAGMA application_id=1399616873;
PRAGMA user_version=1;
