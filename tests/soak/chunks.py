"""Which chunks of which table a verification read on the primary, as the primary's own log tells."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Iterable, Iterator

import harness
from harness import Stream
from psycopg import sql

#: `%m [%p] %a …`: as `cdc local` lets the servers write.
_STATEMENT = re.compile(
    r"^(?P<at>\S+ \S+) UTC \[(?P<pid>\d+)\] cdc-verify/(?P<stream>\w+) .*LOG:  (?:execute [^:]*|statement): SELECT"
    r" (?:count\(\*\), coalesce\(bit_xor|\(hashtext\(|h & |hash_array_extended\().* FROM (?:ONLY|\(SELECT .* FROM ONLY) (?P<table>\S+) AS t"
)
_PARAMETERS = re.compile(r"\[(?P<pid>\d+)\] .*DETAIL:  [Pp]arameters: (?P<said>.*)")
_VALUE = re.compile(r"\$\d+ = '((?:[^']|'')*)'")

#: Before the first key and after the last one.
START, END = ("start",), ("end",)


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """A statement over the keys above `low` up to `high`, begun `at` by the server process `pid`."""

    at: dt.datetime
    pid: int
    table: str
    low: tuple[str, ...]
    high: tuple[str, ...]


class Log:
    """The primary's log of what verifications of one stream read, from now on."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream.name
        self._path = stream.stack.config.parent / "logs" / "primary.log"
        self._from = self._path.stat().st_size
        harness.rows(
            stream.primary,
            sql.SQL("ALTER ROLE cdc IN DATABASE {} SET log_statement = 'all'").format(
                sql.Identifier(stream.name)
            ),
        )

    def chunks(self) -> list[Chunk]:
        """Return the chunks that were read since the last call."""
        with self._path.open("rb") as log:
            log.seek(self._from)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._from += len(whole)
        return list(parsed(whole.decode(errors="replace").splitlines(), self._stream))


def parsed(lines: Iterable[str], stream: str) -> Iterator[Chunk]:
    """Yield the chunks in lines of a server's log; one whose rows are listed after all comes once."""
    last: Chunk | None = None
    for statement, parameters in _statements(lines):
        if statement["stream"] != stream:
            continue
        chunk = _chunk(statement, parameters)
        if last is None or dataclasses.replace(chunk, at=last.at) != last:
            yield chunk
        last = chunk


def _statements(lines: Iterable[str]) -> Iterator[tuple[re.Match[str], str]]:
    """Yield the statements that read chunks with their parameters, which stand in the next line."""
    statement: re.Match[str] | None = None
    for line in (*lines, ""):
        parameters = _PARAMETERS.search(line)
        if statement is not None:
            belongs = parameters is not None and parameters["pid"] == statement["pid"]
            yield statement, parameters["said"] if parameters and belongs else ""
        statement = _STATEMENT.search(line)


def _chunk(statement: re.Match[str], parameters: str) -> Chunk:
    given = [value.replace("''", "'") for value in _VALUE.findall(parameters)]
    text = statement.string
    if " = ANY (" in text:  # the parts of the chunk that are listed
        given.pop()
    low = high = 0
    if text.count(") > (") + text.count(") <= ("):
        share = len(given) // (text.count(") > (") + text.count(") <= ("))
        low, high = share * text.count(") > ("), share * text.count(") <= (")
    return Chunk(
        dt.datetime.fromisoformat(statement["at"]).replace(tzinfo=dt.UTC),
        int(statement["pid"]),
        statement["table"].replace('"', ""),
        tuple(given[:low]) if low else START,
        tuple(given[low:]) if high else END,
    )


def read_twice(chunks: Iterable[Chunk], tables: Iterable[str]) -> dict[int, int]:
    """Return by server process how many chunks of earlier ones it did not go on behind.

    Fails where a chunk begins where none ended, or a table was not read to its end.
    """
    paths: dict[str, list[tuple[str, ...]]] = {table: [START] for table in tables}
    again: dict[int, int] = {}
    for chunk in chunks:
        path = paths[chunk.table]
        assert chunk.low in path, f"{chunk} begins where none ended: {path}"
        behind = len(path) - 1 - path.index(chunk.low)
        again[chunk.pid] = again.get(chunk.pid, 0) + behind
        del path[len(path) - behind :]
        path.append(chunk.high)
    unread = [table for table, path in paths.items() if path[-1] != END]
    assert not unread, f"not read to the end: {unread}"
    return again
