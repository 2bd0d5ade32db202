"""What a soak draws, and how it judges and counts: a seed says everything, nothing slips through."""

from __future__ import annotations

import datetime as dt
from typing import Any

import chunks
import faults
import pytest
from chunks import END, START, Chunk
from faults import Fault

REPLICAS = ("r1", "r2")


def finding(key: faults.Found, columns: frozenset[str]) -> dict[str, Any]:
    replica, table, kind, address, count = key
    return {
        "replica": replica, "table": table, "kind": kind, "key": dict(address), "count": count,
        "columns": dict.fromkeys(columns),
    }  # fmt: skip


def test_a_seed_says_everything_and_nothing_is_left_out() -> None:
    """The same seed gives the same faults, 300 of them are of every kind, no two at one place."""
    first, again, other = (list(faults.batches(seed, REPLICAS, 300, 30)) for seed in (1, 1, 2))

    assert first == again
    assert first != other
    assert faults.KINDS.keys() == {fault.what for batch in first for fault in batch}
    for batch in first:
        places = [place for fault in batch for place in fault.places]
        assert len(places) == len(set(places))
        expected = [key for fault in batch for key in fault.expected]
        assert len(expected) == len(set(expected))


def test_a_report_is_judged_against_the_faults() -> None:
    """Right is who names every fault with its columns and nothing else, but for what may be healed."""
    (batch,) = faults.batches(7, REPLICAS, 60, 60)
    said = [finding(*expected) for fault in batch for expected in fault.expected.items()]
    missing: Fault = next(f for f in batch if f.what == "a digit of scale")
    (key,) = missing.expected
    healed: faults.Found = ("r1", "s.wide", "different", (("id", "11"),), 1)
    sound: faults.Found = ("r1", "s.wide", "extra", (("id", "12"),), 1)

    assert faults.Judgement((), (), ()) == faults.judge(said, batch, ())
    judged = faults.judge([one for one in said if faults.found(one) != key], batch, ())
    assert faults.Judgement((f"a digit of scale: {key}",), (), ()) == judged
    judged = faults.judge([*said, finding(healed, frozenset()), finding(sound, frozenset())], batch, {healed})  # fmt: skip
    assert faults.Judgement((), (sound,), ()) == judged
    other = [one | {"columns": {"n": None}} if faults.found(one) == key else one for one in said]
    assert faults.Judgement((), (), (key,)) == faults.judge(other, batch, ())


def at(milliseconds: int) -> dt.datetime:
    return dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=milliseconds)


LOG = """\
2026-01-01 00:00:00.000 UTC [7] cdc-verify/app cdc@app LOG:  execute <unnamed>: SELECT t."id"::text FROM (SELECT t."id" FROM ONLY "s"."wide" AS t ORDER BY t."id" OFFSET 9999 LIMIT 1) AS t
2026-01-01 00:00:00.001 UTC [7] cdc-verify/app cdc@app LOG:  execute <unnamed>: SELECT count(*), coalesce(bit_xor(h(t."id")), 0) FROM ONLY "s"."wide" AS t WHERE (t."id") <= ($1::text::bigint)
2026-01-01 00:00:00.001 UTC [7] cdc-verify/app cdc@app DETAIL:  parameters: $1 = '100'
2026-01-01 00:00:00.001 UTC [7] cdc-verify/app cdc@app LOG:  execute <unnamed>: SELECT (hashtext((t."id"::text) COLLATE "C") & 4095), count(*), bit_xor(h(t."id")) FROM ONLY "s"."wide" AS t WHERE (t."id") <= ($1::text::bigint) GROUP BY 1
2026-01-01 00:00:00.001 UTC [7] cdc-verify/app cdc@app DETAIL:  parameters: $1 = '100'
2026-01-01 00:00:00.001 UTC [7] cdc-verify/app cdc@app LOG:  execute <unnamed>: SELECT hash_array_extended(h(t."id"), 0), t."id"::text FROM ONLY "s"."wide" AS t WHERE (t."id") <= ($1::text::bigint) AND (hashtext((t."id"::text) COLLATE "C") & 4095) = ANY ($2::int[])
2026-01-01 00:00:00.001 UTC [7] cdc-verify/app cdc@app DETAIL:  parameters: $1 = '100', $2 = '{7,9}'
2026-01-01 00:00:00.001 UTC [7] cdc-verify/app cdc@app LOG:  execute <unnamed>: SELECT o.place, hash_array_extended(h(t."id"), 0) FROM unnest($1::text[]) WITH ORDINALITY AS o (k0, place) JOIN ONLY "s"."wide" AS t ON t."id" = o."k0"::bigint
2026-01-01 00:00:00.001 UTC [7] cdc-verify/app cdc@app DETAIL:  parameters: $1 = '{100}'
2026-01-01 00:00:00.002 UTC [8] cdc-verify/app cdc@app LOG:  execute _pg3_0: SELECT count(*), coalesce(bit_xor(h(t."a")), 0) FROM ONLY "s"."words" AS t WHERE (t."a", t."b") > ($1::text::text, $2::text::text) AND (t."a", t."b") <= ($3::text::text, $4::text::text)
2026-01-01 00:00:00.002 UTC [8] cdc-verify/app cdc@app DETAIL:  parameters: $1 = 'a', $2 = 'it''s', $3 = 'b', $4 = ''
2026-01-01 00:00:00.003 UTC [9] cdc-verify/other cdc@other LOG:  execute <unnamed>: SELECT count(*), coalesce(bit_xor(h(t."id")), 0) FROM ONLY "s"."wide" AS t WHERE (t."id") > ($1::text::bigint)
2026-01-01 00:00:00.003 UTC [9] cdc-verify/other cdc@other DETAIL:  parameters: $1 = '100'
2026-01-01 00:00:00.004 UTC [8] cdc-verify/app cdc@app LOG:  execute <unnamed>: SELECT h & 16383, count(*), sum(h) FROM (SELECT h(t."a") AS h FROM ONLY "s"."lines" AS t OFFSET 0) AS r GROUP BY 1
"""


def test_chunks_are_read_from_the_servers_log() -> None:
    """Statements of one stream's verifications become chunks with their bounds, keys of any length."""
    assert [
        Chunk(at(1), 7, "s.wide", START, ("100",)),
        Chunk(at(2), 8, "s.words", ("a", "it's"), ("b", "")),
        Chunk(at(4), 8, "s.lines", START, END),
    ] == list(chunks.parsed(LOG.splitlines(), "app"))


def test_chunks_that_are_read_twice_are_counted() -> None:
    """What a later process reads again counts for it; a gap or an unread end is an error."""
    whole = [
        Chunk(at(0), pid, table, low, high)
        for pid, table, low, high in (
            (1, "t", START, ("1",)), (1, "t", ("1",), ("2",)), (1, "t", ("2",), ("3",)),
            (2, "t", ("2",), ("3",)), (2, "t", ("3",), ("4",)),
            (3, "t", ("4",), END), (3, "u", START, END),
            (4, "u", START, END),
        )
    ]  # fmt: skip

    assert {1: 0, 2: 1, 3: 0, 4: 1} == chunks.read_twice(whole, ["t", "u"])
    with pytest.raises(AssertionError, match="begins where none ended"):
        chunks.read_twice([*whole[:2], whole[4]], ["t", "u"])
    with pytest.raises(AssertionError, match=r"not read to the end: \['u'\]"):
        chunks.read_twice(whole[:6], ["t", "u"])
