-- Version 6 of the schema cdc on a replica: what `cdc setup` took from others there, for `cdc remove` to give back.

CREATE TABLE cdc.revoked (
    stream      text    NOT NULL,
    schema_name text,
    table_name  text,
    column_name text,
    grantee     text,
    privilege   text    NOT NULL CHECK (privilege IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')),
    grantable   boolean NOT NULL,
    UNIQUE NULLS NOT DISTINCT (stream, schema_name, table_name, column_name, grantee, privilege, grantable)
);
COMMENT ON TABLE cdc.revoked IS
    'Rights to write replicated tables that `cdc setup` took from others; `cdc remove` gives them back.';
COMMENT ON COLUMN cdc.revoked.table_name IS
    'NULL: a default privilege on tables that the owner of this schema makes, in schema_name or (NULL) anywhere.';
COMMENT ON COLUMN cdc.revoked.column_name IS 'NULL: on the whole table.';
COMMENT ON COLUMN cdc.revoked.grantee IS 'NULL: PUBLIC.';
COMMENT ON COLUMN cdc.revoked.grantable IS 'WITH GRANT OPTION. Given back, it comes from the table''s owner.';

INSERT INTO cdc.version (version, oldest) VALUES (6, 1);
