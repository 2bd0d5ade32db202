"""Kinds of tables: partitions, inheritance, foreign keys, generated columns, triggers, TRUNCATE."""

from __future__ import annotations

from road import Road, given


@given("""
    CREATE TABLE one (id int PRIMARY KEY, v text);
    CREATE TABLE two (id int PRIMARY KEY, v text);
    INSERT INTO one SELECT i, 'v' FROM generate_series(1, 9) i;
    INSERT INTO two SELECT i, 'v' FROM generate_series(1, 9) i
""")
def test_truncate(road: Road) -> None:
    """TRUNCATE empties the tables it names at its place in the transaction, between other changes."""
    road.replay(
        "INSERT INTO one VALUES (10, 'gone'); TRUNCATE one; INSERT INTO one VALUES (10, 'stays'), (11, 'x')",
        "UPDATE one SET v = 'y' WHERE id = 11; UPDATE two SET v = 'z'",
        "TRUNCATE one, two; INSERT INTO two VALUES (1, 'first')",
        "TRUNCATE two; TRUNCATE two; INSERT INTO two VALUES (1, 'second'), (2, 'third')",
        "UPDATE two SET id = 3 WHERE id = 2; SAVEPOINT s; TRUNCATE two; ROLLBACK TO s; INSERT INTO one VALUES (1, 'a')",
    )


@given("""
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent);
    CREATE TABLE grandchild (id int PRIMARY KEY, c int REFERENCES child);
    INSERT INTO parent SELECT generate_series(1, 5);
    INSERT INTO child SELECT i, i FROM generate_series(1, 5) i;
    INSERT INTO grandchild SELECT i, i FROM generate_series(1, 5) i
""")
def test_truncate_of_referenced_tables(road: Road) -> None:
    """Tables that refer to each other are emptied together, by name or by CASCADE."""
    road.replay(
        "TRUNCATE grandchild; INSERT INTO grandchild VALUES (1, 1)",
        "TRUNCATE parent CASCADE; INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 2)",
        "TRUNCATE child, grandchild; INSERT INTO child VALUES (7, 1); INSERT INTO grandchild VALUES (1, 7)",
        "TRUNCATE parent, child, grandchild RESTART IDENTITY; INSERT INTO parent VALUES (9)",
    )


@given("""
    CREATE TABLE parent (id int PRIMARY KEY, name text);
    CREATE TABLE casc (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE nul (id int PRIMARY KEY, p int REFERENCES parent ON DELETE SET NULL ON UPDATE CASCADE);
    CREATE TABLE def (id int PRIMARY KEY, p int DEFAULT 1 REFERENCES parent ON DELETE SET DEFAULT);
    CREATE TABLE late (id int PRIMARY KEY, p int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree ON DELETE CASCADE);
    INSERT INTO parent SELECT i, 'p' || i FROM generate_series(1, 9) i;
    INSERT INTO casc SELECT i, i % 9 + 1 FROM generate_series(1, 30) i;
    INSERT INTO nul SELECT i, i % 5 + 1 FROM generate_series(1, 30) i;
    INSERT INTO def SELECT i, 6 FROM generate_series(1, 5) i;
    INSERT INTO tree SELECT i, nullif(i / 2, 0) FROM generate_series(1, 31) i
""")
def test_foreign_keys(road: Road) -> None:
    """What foreign keys do on the primary happens once on the replicas, in any order of tables."""
    road.replay(
        "DELETE FROM parent WHERE id = 2",
        "UPDATE parent SET id = 33 WHERE id = 3",
        "DELETE FROM parent WHERE id = 6",
        "INSERT INTO late VALUES (1, 100), (2, 101); INSERT INTO parent VALUES (100, 'x'), (101, 'y')",
        "DELETE FROM parent WHERE id = 101; DELETE FROM late WHERE p = 101",
        "DELETE FROM tree WHERE id = 2; INSERT INTO tree VALUES (2, 3), (4, 2)",
        "INSERT INTO parent VALUES (200, 'n'); INSERT INTO casc VALUES (200, 200); DELETE FROM parent WHERE id = 200",
    )


@given("""
    CREATE TABLE m (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE m_eu PARTITION OF m FOR VALUES IN ('eu');
    CREATE TABLE m_us (v text, region text NOT NULL, extra int, id int NOT NULL);
    ALTER TABLE m_us DROP extra;
    ALTER TABLE m ATTACH PARTITION m_us FOR VALUES IN ('us');
    CREATE TABLE m_rest PARTITION OF m DEFAULT PARTITION BY RANGE (id);
    CREATE TABLE m_low PARTITION OF m_rest FOR VALUES FROM (MINVALUE) TO (100);
    CREATE TABLE m_high PARTITION OF m_rest FOR VALUES FROM (100) TO (MAXVALUE);
    CREATE TABLE log (id int PRIMARY KEY, d date NOT NULL, v text) PARTITION BY HASH (id);
    CREATE TABLE log_0 PARTITION OF log FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE log_1 PARTITION OF log FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    ALTER TABLE m_eu ALTER v SET STORAGE EXTERNAL;
    INSERT INTO m SELECT i, (ARRAY['eu', 'us', 'asia'])[i % 3 + 1], repeat('v' || i, 2000) FROM generate_series(1, 120) i;
    INSERT INTO log SELECT i, '2020-01-01'::date + i, 'x' FROM generate_series(1, 20) i
""")
def test_partitioned_tables(road: Road) -> None:
    """Rows reach their partition, and move to another one when the primary moves them."""
    road.replay(
        "INSERT INTO m VALUES (500, 'eu', 'e'), (501, 'us', 'u'), (502, 'mars', 'm'), (2, 'moon', 'n')",
        "UPDATE m SET v = 'changed' WHERE id % 10 = 0; DELETE FROM m WHERE id % 11 = 0",
        "UPDATE m SET region = 'us' WHERE region = 'eu' AND id < 60",
        "UPDATE m SET id = id + 1000 WHERE region = 'asia' AND id BETWEEN 80 AND 99",
        "UPDATE m SET region = 'eu' WHERE id = 501; UPDATE m SET region = 'us' WHERE id = 501; UPDATE m SET v = 'back' WHERE id = 501",
        "UPDATE log SET id = id + 100; DELETE FROM log WHERE id = 101",
    )
    road.replay(
        "TRUNCATE m_high; INSERT INTO m VALUES (900, 'venus', 'v')",
        "TRUNCATE m; INSERT INTO m VALUES (1, 'eu', 'e')",
        "TRUNCATE log",
    )


@given("""
    CREATE TABLE base (id int PRIMARY KEY, v text);
    CREATE TABLE derived (w text, PRIMARY KEY (id)) INHERITS (base);
    INSERT INTO base VALUES (1, 'base'), (2, 'base');
    INSERT INTO derived VALUES (1, 'derived', 'w'), (2, 'derived', 'w')
""")
def test_inheritance(road: Road) -> None:
    """A child's row with the same key as its parent's is another row."""
    road.replay(
        "UPDATE ONLY base SET v = 'b' WHERE id = 1; DELETE FROM ONLY base WHERE id = 2",
        "UPDATE derived SET w = 'x'; INSERT INTO derived VALUES (3, 'd', 'w')",
        "UPDATE base SET v = v || '!'",
        "TRUNCATE ONLY base; INSERT INTO base VALUES (3, 'b')",
        "DELETE FROM base WHERE id = 1; UPDATE ONLY base SET id = 30 WHERE id = 3",
    )


@given("""
    CREATE TABLE stored (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED,
                         big text, len int GENERATED ALWAYS AS (length(big)) STORED);
    ALTER TABLE stored ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE generated_key (a int, k int GENERATED ALWAYS AS (a + 1) STORED, v text, PRIMARY KEY (a));
    CREATE TABLE always (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
    CREATE TABLE aside (id int PRIMARY KEY, n bigint GENERATED ALWAYS AS IDENTITY, v text);
    CREATE TABLE by_default (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, s serial, v text);
    INSERT INTO stored (id, a, big) SELECT i, i, repeat('s', 5000 + i) FROM generate_series(1, 5) i;
    INSERT INTO always (v) SELECT 'v' FROM generate_series(1, 5);
    INSERT INTO aside (id, v) SELECT i, 'v' FROM generate_series(1, 5) i
""")
def test_generated_and_identity_columns(road: Road) -> None:
    """Generated values are the same, and identity values are the primary's, not the replica's."""
    road.replay(
        "UPDATE stored SET a = a + 1 WHERE id < 3; UPDATE stored SET big = 'small' WHERE id = 4; DELETE FROM stored WHERE id = 5",
        "INSERT INTO stored VALUES (6, NULL, DEFAULT, NULL); UPDATE stored SET id = 66 WHERE id = 1",
        "INSERT INTO generated_key VALUES (1, DEFAULT, 'x'), (2, DEFAULT, 'y'); UPDATE generated_key SET a = 5 WHERE a = 1",
        "INSERT INTO always (v) VALUES ('a'), ('b'); UPDATE always SET v = 'c' WHERE id = 2; DELETE FROM always WHERE id = 3",
        "INSERT INTO always OVERRIDING SYSTEM VALUE VALUES (1000, 'given'), (-1, 'negative')",
        "INSERT INTO aside VALUES (10, DEFAULT, 'x'); UPDATE aside SET v = 'y' WHERE id = 1; UPDATE aside SET id = 20 WHERE id = 2",
        "INSERT INTO by_default (v) VALUES ('x'), ('y'); INSERT INTO by_default VALUES (77, 5, 'z'); UPDATE by_default SET v = v || 'w'",
        "UPDATE by_default SET id = DEFAULT WHERE id = 77; DELETE FROM by_default WHERE v = 'xw'",
    )


@given("""
    CREATE TABLE keyed (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, big text, v text);
    CREATE TABLE aside (id int PRIMARY KEY, n bigint GENERATED ALWAYS AS IDENTITY UNIQUE, big text, v text);
    ALTER TABLE keyed ALTER big SET STORAGE EXTERNAL; ALTER TABLE aside ALTER big SET STORAGE EXTERNAL;
    INSERT INTO keyed (big, v) SELECT repeat('k', 9000), 'v' || i FROM generate_series(1, 5) i;
    INSERT INTO aside (id, big, v) SELECT i, repeat('a', 9000), 'v' || i FROM generate_series(1, 5) i
""")
def test_identity_values_drawn_again(road: Road) -> None:
    """A GENERATED ALWAYS value that the primary draws again is the same on the replicas."""
    road.replay(
        "UPDATE keyed SET id = DEFAULT WHERE id = 2",
        "UPDATE aside SET n = DEFAULT WHERE id = 3",
        "UPDATE aside SET n = DEFAULT, v = 'new' WHERE id IN (1, 2)",
        "UPDATE keyed SET id = DEFAULT, v = 'new' WHERE id = 3",
        "UPDATE aside SET id = 40, n = DEFAULT WHERE id = 4",
    )


@given("""
    CREATE TABLE t (id int PRIMARY KEY, v text);
    CREATE TABLE audit (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
    BEGIN
        INSERT INTO audit (what) VALUES (TG_OP || coalesce(NEW.v, OLD.v));
        IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
        NEW.v := NEW.v || '+';
        RETURN NEW;
    END $$;
    CREATE TRIGGER note BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note();
    CREATE RULE twice AS ON INSERT TO audit DO ALSO NOTHING;
    INSERT INTO t VALUES (1, 'a'), (2, 'b')
""")
def test_triggers_fire_once(road: Road) -> None:
    """A trigger's work on the primary arrives; the replica's own trigger does not do it again."""
    road.replay(
        "INSERT INTO t VALUES (3, 'c'); UPDATE t SET v = 'd' WHERE id = 1; DELETE FROM t WHERE id = 2",
        "UPDATE t SET id = 10 WHERE id = 1",
        "INSERT INTO t SELECT i, 'many' FROM generate_series(20, 40) i",
    )
