"""What the last verifications found, as numbers to watch: for /metrics and for a textfile.

A replica remembers the values (schema cdc), so whoever can read it can tell them without having
compared anything; the names are the same everywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
import psycopg
from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from psycopg import sql

from cdc import metrics, postgres
from cdc.config import Config
from cdc.errors import CdcError, UsageError

_QUERY = """
SELECT json_build_object(
  'success', (SELECT extract(epoch FROM max(started_at)) FROM cdc.verification
     WHERE stream = {stream} AND whole AND exit_code = 0),
  'oldest', CASE WHEN bool_and(c.proven_at IS NOT NULL)
     THEN extract(epoch FROM min(c.proven_at)) END,
  'missing', coalesce(sum(c.missing), 0), 'extra', coalesce(sum(c.extra), 0),
  'different', coalesce(sum(c.different), 0),
  'last', max(v.started_at), 'exit_code', max(v.exit_code), 'whole', coalesce(bool_and(v.whole), false))
  FROM cdc.tables t LEFT JOIN cdc.compared c USING (stream, schema_name, table_name)
  LEFT JOIN (SELECT extract(epoch FROM started_at) AS started_at, exit_code, whole
     FROM cdc.verification WHERE stream = {stream} AND ended_at IS NOT NULL
     ORDER BY 1 DESC LIMIT 1) AS v ON true
 WHERE t.stream = {stream}
"""


class Gauges(msgspec.Struct, frozen=True):
    """What is known of a replica; moments are seconds since 1970, of what the primary showed then.

    `success` is the last run that proved every table equal; `oldest` the moment as of which the
    table that was not proven for the longest time was, None if one never was. `missing`, `extra` and
    `different` count the rows of its tables that differ, as the last comparison of each has left
    them. `last` is the last run that ended, of `whole` or of some tables, with `exit_code`.
    """

    success: float | None = None
    oldest: float | None = None
    missing: int = 0
    extra: int = 0
    different: int = 0
    last: float | None = None
    exit_code: int | None = None
    whole: bool = False

    @property
    def verdict(self) -> str:
        """What the last run that ended says, in a word or two."""
        match self.exit_code:
            case None:
                return "never verified"
            case 0:
                return "identical" if self.whole else "identical (some tables)"
            case 1:
                differing = self.missing + self.extra + self.different
                return f"{differing:,} rows differ" if differing else "the catalog differs"
            case 2:
                return "not all could be read"
        return "not all was decided"


def query(stream: str) -> sql.Composed:
    """Return the statement that answers with the gauges of `stream`, as one JSON object."""
    return sql.SQL(_QUERY).format(stream=sql.Literal(stream))


def collected(replicas: Mapping[str, Gauges]) -> Iterator[Metric]:
    """Yield the metrics of some replicas; what is not known has no sample."""
    yield metrics.VERIFY_SUCCESS.family(*(((r,), g.success) for r, g in replicas.items()))
    yield metrics.VERIFY_OLDEST.family(*(((r,), g.oldest) for r, g in replicas.items()))
    yield metrics.DIVERGENT.family(
        *(
            ((r, kind), getattr(g, kind))
            for r, g in replicas.items()
            for kind in ("missing", "extra", "different")
        )
    )


@dataclasses.dataclass(frozen=True, eq=False)  # a registry keeps its collectors by identity
class _Collector(Collector):
    replicas: Mapping[str, Gauges]

    def collect(self) -> Iterator[Metric]:
        return collected(self.replicas)


def write(path: Path, config: Config, replicas: Iterable[str]) -> None:
    """Write the metrics for node_exporter's textfile collector, in one step.

    A replica that cannot be read has no sample. Raises UsageError when the file cannot be written.
    """
    registry = CollectorRegistry()
    registry.register(_Collector(dict(_readable(config, replicas))))
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise UsageError(
            f"the metrics cannot be written to {path}: {error.strerror}",
            safe="what was compared is remembered on the replicas",
            next="let --textfile name a file in a directory that may be written to",
        ) from error


def _readable(config: Config, replicas: Iterable[str]) -> Iterator[tuple[str, Gauges]]:
    for name in replicas:
        with contextlib.suppress(CdcError, psycopg.Error):
            conn = postgres.connect(config.replica(name).dsn, f"cdc-verify/{config.name}/gauges")
            with contextlib.closing(conn), psycopg.RawCursor(conn) as cursor:
                (found,) = cursor.execute(query(config.name)).fetchone() or (None,)
                yield name, msgspec.convert(found, Gauges)
