-- Version 5 of the schema cdc on a replica: which table of the primary each one is, and what is being filled.

ALTER TABLE cdc.tables ADD COLUMN relid bigint;
COMMENT ON COLUMN cdc.tables.relid IS
    'The table''s oid on the primary when it was copied: it tells a renamed table from one made anew. NULL: not known.';

CREATE TABLE cdc.filling (
    stream      text        NOT NULL,
    schema_name text        NOT NULL,
    table_name  text        NOT NULL,
    shadow      text,
    begun_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream, schema_name, table_name)
);
COMMENT ON TABLE cdc.filling IS
    'Tables that a bootstrap fills beside the running stream; what is left of one that was killed, the next clears away.';
COMMENT ON COLUMN cdc.filling.shadow IS
    'The table of the schema cdc that holds the new rows until the swap; NULL: they go into the table itself.';

INSERT INTO cdc.version (version) VALUES (5);
