"""The processes of a PostgreSQL server on this machine: their processor time, and their caches."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import LiteralString

import harness
from psycopg import conninfo

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
