"""PostgreSQL's client programs on this machine: the ones that fit a server."""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from psycopg import conninfo

from cdc import postgres
from cdc.errors import InstallationError
from cdc.local import artifacts


@dataclasses.dataclass(frozen=True, slots=True)
class Programs:
    """pg_dump, pg_restore and psql of one installation, which come together; `version` is as in 16."""

    pg_dump: Path
    pg_restore: Path
    version: int

    @property
    def psql(self) -> Path:
        return self.pg_restore.with_name("psql")


def find(server_version: int) -> Programs:
    """Find pg_dump at least as new as the server (`server_version` as in libpq, 160014).

    Those in CDC_PG_BIN where they will do; else of PATH, Debian's folders and the cache of `cdc
    local` the oldest that will: what a newer one writes an older replica need not understand.
    Raises InstallationError when there are none.
    """
    wanted, seen = server_version // 10000, []
    fit: list[Programs] = []
    for folder in _folders():
        pg_dump, pg_restore = folder / "pg_dump", folder / "pg_restore"
        if not (pg_dump.exists() and pg_restore.exists()):
            continue
        said = subprocess.run([pg_dump, "--version"], capture_output=True, text=True, check=False)
        found = re.search(r"\) (\d+)", said.stdout)
        if found and int(found[1]) >= wanted:
            fit.append(Programs(pg_dump, pg_restore, int(found[1])))
            if str(folder) == os.environ.get("CDC_PG_BIN") or int(found[1]) == wanted:
                return fit[-1]
        else:
            seen.append(f"{pg_dump} ({found[1] if found else 'does not run'})")
    if fit:
        return min(fit, key=operator.attrgetter("version"))
    raise InstallationError(
        f"no pg_dump for a PostgreSQL {wanted} server: "
        + (f"older ones were found: {', '.join(seen)}" if seen else "none was found"),
        safe="nothing was changed",
        next=f"install PostgreSQL's client programs, version {wanted} or newer, and "
        'name their folder in CDC_PG_BIN; or create the tables yourself and set bootstrap.schema = "none"',
    )


def _folders() -> Iterator[Path]:
    if given := os.environ.get("CDC_PG_BIN"):
        yield Path(given)
    if found := shutil.which("pg_dump"):
        yield Path(found).parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    yield from artifacts.cache_folder().glob("postgresql-*/*/pginstall/bin")


def run(
    argv: Sequence[str], dsn: str, stopping: threading.Event | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a client program."""
    with (
        _secrets(dsn) as told,
        subprocess.Popen(
            argv,
            env={**os.environ, "PGAPPNAME": "cdc bootstrap", "LC_MESSAGES": "C", **told},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            while True:
                try:
                    out, err = process.communicate(timeout=0.2)
                except subprocess.TimeoutExpired:
                    if stopping is not None and stopping.is_set():
                        process.terminate()
                else:
                    return subprocess.CompletedProcess(argv, process.returncode, out, err)
        except BaseException:
            process.kill()
            raise


@contextlib.contextmanager
def _secrets(dsn: str) -> Iterator[dict[str, str]]:
    """Give the variables by which a program gets a connection string's secrets: never in its command line.

    Only the role's password has a variable of its own; the others lie meanwhile in a service file that
    only we read.
    """
    parts = conninfo.conninfo_to_dict(dsn)
    told = {"PGPASSWORD": str(parts["password"])} if "password" in parts else {}
    others = [f"{k}={parts[k]}\n" for k in postgres.SECRETS if k != "password" and k in parts]
    if not others or "service" in parts or "PGSERVICE" in os.environ:
        yield told
        return
    with tempfile.NamedTemporaryFile("w", prefix="cdc-", suffix=".conf") as file:
        file.writelines(["[cdc]\n", *others])
        file.flush()
        yield {**told, "PGSERVICE": "cdc", "PGSERVICEFILE": file.name}


def told(stderr: str) -> str:
    """Return what a program said, on one line, without the statement it repeats."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    kept = [re.sub(r"^(pg_(dump|restore): (error: )?|psql:.+?:\d+: )", "", line) for line in lines]
    return " · ".join(line for line in kept if not line.startswith("while "))[:600]
