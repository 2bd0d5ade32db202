"""The machine, its PostgreSQL servers, and what their processes and others use."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import LiteralString

import harness
from harness import Stream
from psycopg import conninfo

from cdc.local import pgpass
from cdc.local.layout import Layout

#: Twice the servers' shared_buffers, read by an index so that it takes their place.
_FILLER: LiteralString = """
    CREATE TABLE IF NOT EXISTS filler (id int PRIMARY KEY, pad text);
    ALTER TABLE filler ALTER pad SET STORAGE PLAIN;
    INSERT INTO filler SELECT n, repeat('x', 7000) FROM generate_series(1, 32768) n
      WHERE NOT EXISTS (SELECT FROM filler);
"""
_FILL: LiteralString = """
    SET enable_seqscan = off;
    SET enable_bitmapscan = off;
    SELECT count(pad) FROM filler WHERE id > 0;
    SELECT count(pad) FROM filler WHERE id > 0;
"""


class Server:
    """A server whose processes can be seen in /proc; `dsn` is a superuser's."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        (folder,) = harness.rows(dsn, "SHOW data_directory")[0]
        self._pid = int((Path(folder) / "postmaster.pid").read_text().splitlines()[0])

    def cpu(self) -> float:
        """Return the seconds of processor time that all its processes have used, ended ones too."""
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
        ticks = sum(_times(self._pid)) + sum(sum(_times(int(pid))[:2]) for pid in children)
        return ticks / os.sysconf("SC_CLK_TCK")

    def forget(self) -> None:
        """Fill its shared buffers with something else."""
        harness.rows(self._dsn, _FILLER)
        harness.rows(self._dsn, "CHECKPOINT")
        harness.rows(self._dsn, _FILL)


def forget(servers: Iterable[Server]) -> None:
    """Let servers and operating system forget what they have read; needs root."""
    for server in servers:
        server.forget()
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("1")


def cpu(pid: int) -> float:
    """Return the seconds of processor time that a process has used, 0 if there is none."""
    return sum(_times(pid)[:2]) / os.sysconf("SC_CLK_TCK")


def peak(pid: int) -> float:
    """Return the most memory that a process has held, in MiB, 0 if there is none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    held = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(held[0]) / 1024 if held else 0.0


def held(pid: int) -> float:
    """Return the memory that a process holds now, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(x.split()[1]) for x in status.splitlines() if x.startswith("VmRSS:")) / 1024


def machine(primary: str) -> dict[str, str]:
    """Return what the figures were measured on."""
    processor = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "processor": f"{os.cpu_count()} cores of {processor}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        "postgresql": str(harness.rows(primary, "SHOW server_version")[0][0]),
        "shared_buffers": str(harness.rows(primary, "SHOW shared_buffers")[0][0]),
    }


def password(stream: Stream, end: str) -> str:
    """Return the superuser's password on an end of the local stack."""
    folder = stream.stack.config.parent
    port = int(conninfo.conninfo_to_dict(stream.dsn(end))["port"] or 0)
    return pgpass.password(Layout(folder).pgpass, port, "postgres")


def passfile(dsn: str) -> str:
    """Return the file with the passwords that a connection string names."""
    return str(conninfo.conninfo_to_dict(dsn)["passfile"])


def _times(pid: int) -> tuple[int, int, int, int]:
    """Return user and system ticks of a process, and those of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0, 0, 0
    return int(fields[11]), int(fields[12]), int(fields[13]), int(fields[14])
