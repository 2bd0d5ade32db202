"""Every type of the corpus, from the primary's rows to the replicas': as value and as address."""

from __future__ import annotations

import type_cases
from road import Road, given

#: What needs an extension or another build is captured in tests/integration/test_capture_values.py.
CASES = [case for case in type_cases.expanded() if case.needs is None]
LARGE = [(number, case) for number, case in enumerate(CASES) if case.big]
MOST = max(len(case.values) for case in CASES)

COLUMNS = ", ".join(f"c{number} {case.type}" for number, case in enumerate(CASES))
EXTERNAL = ", ".join(f"ALTER c{number} SET STORAGE EXTERNAL" for number, _ in LARGE)


def row(number: int) -> str:
    """Return a row with the `number`th value of every type, NULL where it has fewer."""
    values = (
        f"({case.values[number]})::{case.type}" if number < len(case.values) else "NULL"
        for case in CASES
    )
    return f"({number}, 0, {', '.join(values)})"


ROWS = ", ".join(row(number) for number in range(MOST))
BIG = ", ".join(f"({case.big})::{case.type}" for _, case in LARGE)


@given(f"""
    {type_cases.PRELUDE}
    CREATE TABLE t (id int PRIMARY KEY, n int, {COLUMNS});
    CREATE TABLE bare (id int, n int, {COLUMNS}); ALTER TABLE bare REPLICA IDENTITY FULL;
    INSERT INTO t VALUES {row(0)}; INSERT INTO bare VALUES {row(0)}
""")
def test_every_type(road: Road) -> None:
    """Values of every type are copied, inserted, updated, left alone, and found again by all of them together."""
    road.replay(
        f"DELETE FROM t; INSERT INTO t VALUES {ROWS}; INSERT INTO bare SELECT * FROM t; INSERT INTO bare SELECT * FROM t",
        "UPDATE t SET n = 1; UPDATE t SET id = id + 1000 WHERE id % 2 = 0; DELETE FROM t WHERE id % 5 = 0",
        "UPDATE bare SET n = 1 WHERE ctid IN (SELECT min(ctid) FROM bare WHERE id % 2 = 0 GROUP BY id)",
        "DELETE FROM bare WHERE ctid IN (SELECT max(ctid) FROM bare WHERE id % 3 = 0 GROUP BY id)",
    )


@given(f"""
    {type_cases.PRELUDE}
    CREATE TABLE big (id int PRIMARY KEY, n int, {COLUMNS}); ALTER TABLE big {EXTERNAL};
    CREATE TABLE bare (LIKE big); ALTER TABLE bare REPLICA IDENTITY FULL;
    INSERT INTO big (id, n, {", ".join(f"c{number}" for number, _ in LARGE)}) VALUES (1, 0, {BIG});
    INSERT INTO bare SELECT * FROM big
""")
def test_every_type_stored_out_of_line(road: Road) -> None:
    """A large value of every type that can have one stays when other columns or the key change."""
    road.replay(
        "UPDATE big SET n = 1; UPDATE big SET id = 2; INSERT INTO bare SELECT * FROM big",
        "UPDATE bare SET n = 2 WHERE id = 1; UPDATE big SET id = 3, n = NULL; DELETE FROM bare WHERE id = 2",
    )
