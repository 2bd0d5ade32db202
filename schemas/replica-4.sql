-- Version 4 of the schema cdc on a replica: which programs may go on writing beside a newer one.

ALTER TABLE cdc.version ADD COLUMN oldest integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN cdc.version.oldest IS
    'Programs made for this version or a later one may still write here; those for an earlier one stop.';

INSERT INTO cdc.version (version, oldest) VALUES (4, 1);
