-- Version 2 of the schema cdc on a replica: what cdc-verify has compared, for --resume and --history.

CREATE TABLE cdc.verification (
    stream      text        NOT NULL,
    started_at  timestamptz NOT NULL,
    lsn         pg_lsn      NOT NULL,
    fingerprint text        NOT NULL,
    ended_at    timestamptz,
    exit_code   integer,
    claim       text,
    PRIMARY KEY (stream, started_at)
);
COMMENT ON TABLE cdc.verification IS 'Runs of cdc-verify that compared this replica, the last hundred.';
COMMENT ON COLUMN cdc.verification.started_at IS
    'By the primary''s clock: what was visible there then is what the run speaks of.';
COMMENT ON COLUMN cdc.verification.lsn IS 'Where the primary''s log ended then.';
COMMENT ON COLUMN cdc.verification.fingerprint IS
    'Digest of the options that decide what is compared: only a run with the same may continue.';
COMMENT ON COLUMN cdc.verification.ended_at IS 'NULL while it runs, or when it was killed.';

CREATE TABLE cdc.verified (
    stream      text        NOT NULL,
    started_at  timestamptz NOT NULL,
    schema_name text        NOT NULL,
    table_name  text        NOT NULL,
    shape       text        NOT NULL,
    upto        jsonb,
    done        boolean     NOT NULL,
    rows        bigint      NOT NULL,
    chunks      integer     NOT NULL,
    candidates  jsonb       NOT NULL,
    PRIMARY KEY (stream, started_at, schema_name, table_name)
);
COMMENT ON TABLE cdc.verified IS 'How far a run of cdc-verify is in each table.';
COMMENT ON COLUMN cdc.verified.upto IS 'The last key compared, as text; NULL before the first chunk.';
COMMENT ON COLUMN cdc.verified.candidates IS
    'Keys to decide when the run goes on: undecided ones, and those found to differ.';

INSERT INTO cdc.version (version) VALUES (2);
