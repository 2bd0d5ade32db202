"""What a worker of a parallel run leaves behind when it is killed, which pytest-xdist does after ten seconds.

Streams and stacks are listed while they stand, in the folder that CDC_TEST_LISTED names; whoever has
started the workers takes away what is still listed once they have ended (Linux).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Kind = Literal["stack", "stream"]

NAMED_BY = "CDC_TEST_LISTED"


@contextlib.contextmanager
def listed(kind: Kind, folder: Path) -> Iterator[None]:
    """List a folder meanwhile; without workers there is no list."""
    if (where := os.environ.get(NAMED_BY)) is None:
        yield
        return
    entry = Path(where) / f"{kind}-{secrets.token_hex(8)}"
    entry.write_text(str(folder.absolute()), encoding="utf-8")
    yield
    entry.unlink()


def left(kind: Kind, where: Path) -> list[Path]:
    """Return the folders that are still listed."""
    return [Path(entry.read_text(encoding="utf-8")) for entry in where.glob(f"{kind}-*")]


def end_programs(folder: Path) -> None:
    """Kill what runs in a stream's folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # one that has ended meanwhile
            if (process / "cwd").readlink() == folder:
                os.kill(int(process.name), signal.SIGKILL)
