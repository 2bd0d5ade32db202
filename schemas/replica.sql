-- State of replication on one replica: the schema "cdc", version 1.
-- `cdc setup` runs this once, in one transaction, as the role of the replica's dsn, which owns it.
-- The schema itself exists already when this file runs.

CREATE TABLE cdc.version (
    version     integer     PRIMARY KEY,
    migrated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE cdc.version IS
    'Versions of this schema that `cdc setup` has installed; the greatest is in force.';

CREATE TABLE cdc.position (
    stream               text        PRIMARY KEY,
    topic                text        NOT NULL,
    topic_id             text        NOT NULL,
    next_offset          bigint      NOT NULL,
    leader_epoch         integer,
    applied_lsn          pg_lsn      NOT NULL,
    applied_txid         bigint,
    applied_at           timestamptz,
    heartbeat_at         timestamptz,
    heartbeat_lsn        pg_lsn,
    system_id            text        NOT NULL,
    timeline             integer     NOT NULL,
    ring                 jsonb       NOT NULL DEFAULT '[]',
    generation           bigint      NOT NULL DEFAULT 0,
    unmatched_updates    bigint      NOT NULL DEFAULT 0,
    unmatched_deletes    bigint      NOT NULL DEFAULT 0,
    rows_applied         bigint      NOT NULL DEFAULT 0,
    transactions_applied bigint      NOT NULL DEFAULT 0,
    updated_at           timestamptz NOT NULL
);
COMMENT ON TABLE cdc.position IS
    'Where this replica is, one row per stream, written in the transaction that wrote the rows.';
COMMENT ON COLUMN cdc.position.topic_id IS
    'Kafka''s id of the topic: another one means the topic was created anew.';
COMMENT ON COLUMN cdc.position.next_offset IS 'Offset of the next record to read.';
COMMENT ON COLUMN cdc.position.leader_epoch IS
    'Leader epoch of the record before next_offset: a log cut and grown again is noticed by it.';
COMMENT ON COLUMN cdc.position.applied_lsn IS
    'End of the commit record, on the primary, of the last transaction applied here.';
COMMENT ON COLUMN cdc.position.applied_txid IS
    'That transaction''s id on the primary; null until one was applied.';
COMMENT ON COLUMN cdc.position.applied_at IS
    'When that transaction committed, by the primary''s clock.';
COMMENT ON COLUMN cdc.position.heartbeat_at IS
    'When the newest heartbeat seen was written, by the primary''s clock.';
COMMENT ON COLUMN cdc.position.heartbeat_lsn IS
    'The primary''s insert position when that heartbeat was written.';
COMMENT ON COLUMN cdc.position.system_id IS
    'System identifier of the primary''s cluster: LSNs of another one mean nothing here.';
COMMENT ON COLUMN cdc.position.timeline IS
    'Timeline of the primary: LSNs go back when it changes (failover).';
COMMENT ON COLUMN cdc.position.ring IS
    'The last transactions applied, oldest first, each as [txid, end LSN]: second witness for duplicates.';
COMMENT ON COLUMN cdc.position.generation IS
    'Raised by every bootstrap; part of the compare-and-set that keeps two writers apart.';
COMMENT ON COLUMN cdc.position.unmatched_updates IS
    'Updates that found no row here: above 0 somebody else has changed this replica.';
COMMENT ON COLUMN cdc.position.unmatched_deletes IS
    'Deletes that found no row here: above 0 somebody else has changed this replica.';

CREATE TABLE cdc.tables (
    stream       text        NOT NULL,
    schema_name  text        NOT NULL,
    table_name   text        NOT NULL,
    state        text        NOT NULL CHECK (state IN ('registered', 'copying', 'copied')),
    snapshot_lsn pg_lsn,
    columns      jsonb,
    rows         bigint,
    bytes        bigint,
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream, schema_name, table_name)
);
COMMENT ON TABLE cdc.tables IS 'The replicated tables, one row each.';
COMMENT ON COLUMN cdc.tables.snapshot_lsn IS
    'Transactions that end at or before it are in the copied rows already.';
COMMENT ON COLUMN cdc.tables.columns IS
    'What the table looked like when it was copied: [[column, type], …] in order.';

CREATE TABLE cdc.daemon (
    stream     text        PRIMARY KEY,
    pid        integer,
    host       text,
    state      text        NOT NULL,
    error      text,
    started_at timestamptz,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE cdc.daemon IS
    'Last state and error of the daemon, written in a transaction of its own.';

CREATE TABLE cdc.schema_load (
    stream  text        NOT NULL,
    section text        NOT NULL,
    done_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream, section)
);
COMMENT ON TABLE cdc.schema_load IS
    'Sections of the primary''s schema that bootstrap has restored here, so that it can continue.';

INSERT INTO cdc.version (version) VALUES (1);
