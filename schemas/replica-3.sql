-- Version 3 of the schema cdc on a replica: how fresh it is, for SQL; samples of the lag.

CREATE TABLE cdc.lag (
    stream  text        NOT NULL,
    at      timestamptz NOT NULL,
    seconds float8,
    state   text        NOT NULL,
    backlog bigint,
    PRIMARY KEY (stream, at)
);
COMMENT ON TABLE cdc.lag IS
    'Samples of the lag that the daemon takes every ten seconds, of the last week; `cdc lag history`.';
COMMENT ON COLUMN cdc.lag.at IS 'By the primary''s clock.';
COMMENT ON COLUMN cdc.lag.seconds IS 'NULL where it was not known.';
COMMENT ON COLUMN cdc.lag.backlog IS 'Records in the topic that were not applied.';

CREATE VIEW cdc.freshness AS
SELECT p.stream,
       p.heartbeat_at AS as_of,
       greatest(clock_timestamp() - p.heartbeat_at, interval '0') AS age,
       p.applied_lsn,
       p.applied_at,
       t.unfilled = 0 AND p.applied_lsn >= t.complete_at AS complete
  FROM cdc.position p
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE state <> 'copied') AS unfilled,
              coalesce(max(snapshot_lsn), '0/0') AS complete_at
         FROM cdc.tables WHERE stream = p.stream) t;
COMMENT ON VIEW cdc.freshness IS
    'How fresh this replica is: everything committed on the primary before as_of is here.';
COMMENT ON COLUMN cdc.freshness.age IS
    'By this server''s clock: off by as much as it differs from the primary''s.';
COMMENT ON COLUMN cdc.freshness.complete IS
    'Whether all tables are filled and stand at one point; else what they show together never was.';

CREATE FUNCTION cdc.wait_for(lsn pg_lsn, timeout interval DEFAULT '30 seconds', stream text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    deadline timestamptz := clock_timestamp() + wait_for.timeout;
    pause    float8 := 0.002;
    found    record;
BEGIN
    IF wait_for.lsn IS NULL OR wait_for.timeout IS NULL THEN
        RAISE EXCEPTION 'cdc.wait_for: neither lsn nor timeout may be NULL'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'cdc.wait_for: a % transaction sees nothing newer than its beginning',
            current_setting('transaction_isolation')
            USING ERRCODE = 'active_sql_transaction',
                  HINT = 'Call it before the transaction begins, or in READ COMMITTED.';
    END IF;
    LOOP
        -- Each statement of a volatile function takes a new snapshot: it sees what was applied meanwhile.
        SELECT count(*) AS streams, bool_and(f.complete AND f.applied_lsn >= wait_for.lsn) AS reached
          INTO found
          FROM cdc.freshness f WHERE f.stream = coalesce(wait_for.stream, f.stream);
        IF found.streams <> 1 THEN
            RAISE EXCEPTION 'cdc.wait_for: % streams here%', found.streams,
                coalesce(' are called ' || wait_for.stream, '')
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Name one of cdc.freshness.stream; a replica without any was not filled.';
        END IF;
        IF found.reached THEN
            RETURN true;
        END IF;
        IF clock_timestamp() >= deadline THEN
            RETURN false;
        END IF;
        PERFORM pg_sleep(least(pause, greatest(0, extract(epoch FROM deadline - clock_timestamp()))));
        pause := least(pause * 1.5, 0.1);
    END LOOP;
END
$$;
COMMENT ON FUNCTION cdc.wait_for IS
    'Wait until everything that ends at or before lsn on the primary is here: true, or false when the'
    ' time is over. The statement that calls it sees what was there when it began, the next one the rest.';

-- Whoever may log in may ask; the tables themselves stay the owner's.
GRANT USAGE ON SCHEMA cdc TO PUBLIC;
GRANT SELECT ON cdc.freshness TO PUBLIC;

INSERT INTO cdc.version (version) VALUES (3);
