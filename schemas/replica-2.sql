-- Version 2 of the schema cdc on a replica: what cdc-verify has compared, for --resume, --history and metrics.

CREATE TABLE cdc.verification (
    stream      text        NOT NULL,
    started_at  timestamptz NOT NULL,
    lsn         pg_lsn      NOT NULL,
    fingerprint text        NOT NULL,
    whole       boolean     NOT NULL,
    ended_at    timestamptz,
    exit_code   integer,
    claim       text,
    left_open   boolean     NOT NULL DEFAULT true,
    PRIMARY KEY (stream, started_at)
);
COMMENT ON TABLE cdc.verification IS
    'Runs of cdc-verify that compared this replica: the last hundred, and the last that proved all equal.';
COMMENT ON COLUMN cdc.verification.started_at IS
    'By the primary''s clock: what was visible there then is what the run speaks of.';
COMMENT ON COLUMN cdc.verification.lsn IS 'Where the primary''s log ended then.';
COMMENT ON COLUMN cdc.verification.fingerprint IS
    'Digest of the options that decide what is compared: only a run with the same may continue.';
COMMENT ON COLUMN cdc.verification.whole IS 'Every replicated table was to be compared.';
COMMENT ON COLUMN cdc.verification.ended_at IS 'NULL while it runs, or when it was killed.';
COMMENT ON COLUMN cdc.verification.left_open IS
    'It was killed, or something could not be read or decided: --resume may go on.';

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
    candidates  bigint      NOT NULL,
    resolved    bigint      NOT NULL,
    open        jsonb       NOT NULL,
    PRIMARY KEY (stream, started_at, schema_name, table_name)
);
COMMENT ON TABLE cdc.verified IS 'How far the newest run of cdc-verify is in each table.';
COMMENT ON COLUMN cdc.verified.upto IS 'The last key compared, as text; NULL before the first chunk.';
COMMENT ON COLUMN cdc.verified.open IS
    'Keys to decide when the run goes on: undecided ones, and those found to differ.';

CREATE TABLE cdc.compared (
    stream      text        NOT NULL,
    schema_name text        NOT NULL,
    table_name  text        NOT NULL,
    started_at  timestamptz NOT NULL,
    proven_at   timestamptz,
    missing     bigint      NOT NULL,
    extra       bigint      NOT NULL,
    different   bigint      NOT NULL,
    PRIMARY KEY (stream, schema_name, table_name)
);
COMMENT ON TABLE cdc.compared IS 'What the newest run of cdc-verify that ended found in each table.';
COMMENT ON COLUMN cdc.compared.started_at IS 'That run.';
COMMENT ON COLUMN cdc.compared.proven_at IS
    'The newest moment as of which the table was proven equal; NULL if it never was.';
COMMENT ON COLUMN cdc.compared.missing IS 'Rows that differed and were not mended, by kind.';

INSERT INTO cdc.version (version) VALUES (2);
