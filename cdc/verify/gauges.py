"""What the last verifications found, as numbers to watch: for /metrics and for a textfile.

A replica remembers the values (schema cdc), so whoever can read it can tell them without having
compared anything; the names are the same everywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cdc import postgres
from cdc.config import Config
from cdc.errors import CdcError, UsageError

_LAST = """
SELECT extract(epoch FROM started_at)::float8, exit_code, whole
  FROM cdc.verification WHERE stream = %s AND ended_at IS NOT NULL
 ORDER BY started_at DESC LIMIT 1
"""

_SUCCESS = """
SELECT extract(epoch FROM max(started_at))::float8
  FROM cdc.verification WHERE stream = %s AND whole AND exit_code = 0
"""

_TABLES = """
SELECT CASE WHEN bool_and(c.proven_at IS NOT NULL)
            THEN extract(epoch FROM min(c.proven_at))::float8 END,
       coalesce(sum(c.missing), 0)::bigint, coalesce(sum(c.extra), 0)::bigint,
       coalesce(sum(c.different), 0)::bigint
  FROM cdc.tables t LEFT JOIN cdc.compared c USING (stream, schema_name, table_name)
 WHERE t.stream = %s
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Gauges:
    """What is known of a replica; moments are seconds since 1970, of what the primary showed then.

    `success` is the last run that proved every table equal; `oldest` the moment as of which the
    table that was not proven for the longest time was, None if one never was. `rows` of its tables
    differ, by kind, as the last comparison of each has left them. `last` is the last run that ended,
    of `whole` or of some tables, with `exit_code`.
    """

    success: float | None = None
    oldest: float | None = None
    rows: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(("missing", "extra", "different"), 0)
    )
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
                differing = sum(self.rows.values())
                return f"{differing:,} rows differ" if differing else "the catalog differs"
            case 2:
                return "not all could be read"
        return "not all was decided"


def read(conn: psycopg.Connection[Any], stream: str) -> Gauges:
    """Return what a replica remembers of `stream`; nothing where its schema cdc is older than that."""
    (there,) = conn.execute("SELECT to_regclass('cdc.compared') IS NOT NULL").fetchone() or (False,)
    if not there:
        return Gauges()
    (success,) = conn.execute(_SUCCESS, [stream]).fetchone() or (None,)
    oldest, missing, extra, different = conn.execute(_TABLES, [stream]).fetchone() or (
        None,
        0,
        0,
        0,
    )
    last, code, whole = conn.execute(_LAST, [stream]).fetchone() or (None, None, False)
    rows = {"missing": missing, "extra": extra, "different": different}
    return Gauges(success, oldest, rows, last, code, whole)


def metrics(replicas: Mapping[str, Gauges]) -> Iterator[Metric]:
    """Yield the metrics of some replicas; what is not known has no sample."""
    success = GaugeMetricFamily(
        "cdc_verify_last_success_timestamp_seconds",
        "As of when cdc-verify last proved every table equal.",
        labels=["replica"],
    )
    oldest = GaugeMetricFamily(
        "cdc_verify_oldest_verified_timestamp_seconds",
        "As of when that table was proven equal which has not been for the longest time.",
        labels=["replica"],
    )
    divergent = GaugeMetricFamily(
        "cdc_verify_divergent_rows",
        "Rows that differed when their table was last compared, and were not mended.",
        labels=["replica", "kind"],
    )
    for replica, gauges in replicas.items():
        for family, moment in ((success, gauges.success), (oldest, gauges.oldest)):
            if moment is not None:
                family.add_metric([replica], moment)
        for kind, rows in gauges.rows.items():
            divergent.add_metric([replica, kind], rows)
    yield from (success, oldest, divergent)


@dataclasses.dataclass(frozen=True, slots=True)
class _Collector(Collector):
    replicas: Mapping[str, Gauges]

    def collect(self) -> Iterator[Metric]:
        return metrics(self.replicas)


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
            with contextlib.closing(conn):
                yield name, read(conn, config.name)
