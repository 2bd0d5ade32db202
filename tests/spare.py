"""One more PostgreSQL server of the stack's version, for what no test may do to the shared ones."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import Stack, answers_sql, rows, wait_until


@dataclasses.dataclass(slots=True)
class Spare:
    """A server that may be started with other settings again and again."""

    folder: Path
    programs: Path
    owner: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return f"host={self.folder} dbname=postgres user=postgres"

    def start(self, *settings: str) -> None:
        self.stop()
        given = [part for setting in settings for part in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder,
                 "-h", "", *given],
                user=self.owner, cwd=self.folder, stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(lambda: answers_sql(self.dsn), "the spare server takes connections")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()


@contextlib.contextmanager
def server(stack: Stack, *options: str) -> Iterator[Spare]:
    """Give a server, not started yet, that initdb made with `options`; nothing of it stays."""
    ((started,),) = rows(stack.primary, "SELECT pg_read_file('postmaster.pid')")
    running = Path("/proc") / started.split()[0]
    programs, owner = (running / "exe").readlink().parent, running.stat().st_uid
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    os.chown(folder, owner, -1)
    subprocess.run(
        [programs / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-N", *options],
        user=owner, cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    made = Spare(folder, programs, owner)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)
