"""PostgreSQL's client programs on this machine: the ones that fit a server."""

from __future__ import annotations

import dataclasses
import operator
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cdc.errors import InstallationError
from cdc.local import artifacts


@dataclasses.dataclass(frozen=True, slots=True)
class Programs:
    """pg_dump and pg_restore of one installation."""

    pg_dump: Path
    pg_restore: Path


def find(server_version: int) -> Programs:
    """Find pg_dump at least as new as the server (`server_version` as in libpq, 160014).

    Those in CDC_PG_BIN where they will do; else of PATH, Debian's folders and the cache of `cdc
    local` the oldest that will: what a newer one writes an older replica need not understand.
    Raises InstallationError when there are none.
    """
    wanted, seen = server_version // 10000, []
    fit: list[tuple[int, Programs]] = []
    for folder in _folders():
        pg_dump, pg_restore = folder / "pg_dump", folder / "pg_restore"
        if not (pg_dump.exists() and pg_restore.exists()):
            continue
        said = subprocess.run([pg_dump, "--version"], capture_output=True, text=True, check=False)
        found = re.search(r"\) (\d+)", said.stdout)
        if found and int(found[1]) >= wanted:
            fit.append((int(found[1]), Programs(pg_dump, pg_restore)))
            if str(folder) == os.environ.get("CDC_PG_BIN") or int(found[1]) == wanted:
                return Programs(pg_dump, pg_restore)
        else:
            seen.append(f"{pg_dump} ({found[1] if found else 'does not run'})")
    if fit:
        return min(fit, key=operator.itemgetter(0))[1]
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
