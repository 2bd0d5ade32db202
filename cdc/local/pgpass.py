"""The stack's passwords for PostgreSQL, in libpq's own password file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cdc.errors import InstallationError

USERS = ("postgres", "cdc")


def complete(path: Path, ports: Sequence[int]) -> None:
    """Add a generated password for each user on each port that has none; mode 0600."""
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    known = {tuple(line.split(":")[1:4]) for line in lines}
    for port in ports:
        for user in USERS:
            if (str(port), "*", user) not in known:
                lines.append(f"127.0.0.1:{port}:*:{user}:{secrets.token_urlsafe(24)}")
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with open(
        fresh, "x", encoding="ascii", opener=lambda p, flags: os.open(p, flags, 0o600)
    ) as file:
        file.write("\n".join(lines) + "\n")
    fresh.replace(path)


def password(path: Path, port: int, user: str) -> str:
    """Return the password of `user` on the server at `port`."""
    for line in path.read_text(encoding="ascii").splitlines():
        _, at, _, name, secret = line.split(":", 4)
        if (at, name) == (str(port), user):
            return secret
    raise InstallationError(
        f"{path} has no password for {user} on port {port}",
        safe="nothing was changed",
        next="restore the file, or start anew: `cdc local down --purge`, `cdc local up`",
    )
