"""Roles of a stream that are no superuser's, made by nothing but what `cdc setup --print` prints.

CDC_TEST_ROLES=least runs every test so: the configuration names no administrator, a DBA executes with
psql what is printed, and `cdc setup` comes after him. CDC_TEST_TRIGGERS=disabled lets replicas do without
`session_replication_role`. The databases let nobody in by themselves.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

from psycopg import conninfo

from cdc import clients

#: Whether this run is such a one.
LEAST = os.environ.get("CDC_TEST_ROLES") == "least"

TRIGGERS = os.environ.get("CDC_TEST_TRIGGERS", "session")

_END = re.compile(r"^-- ([A-Za-z0-9_-]+): database .*$", re.MULTILINE)


def role(stream: str) -> str:
    """Return the role that a stream's dsn name on every end."""
    return f"cdc_{stream}_daemon"


def configured(text: str, folder: Path, stream: str) -> str:
    """Return a configuration without administrators, whose roles' passwords lie in `folder`."""
    passfile = folder / "pgpass"
    passfile.touch(0o600)
    passfile.write_text(f"*:*:*:{role(stream)}:{secrets.token_urlsafe(24)}\n", encoding="ascii")

    def least(found: re.Match[str]) -> str:
        given = conninfo.conninfo_to_dict(json.loads(found[1]))
        given.pop("password", None)
        return "dsn = " + json.dumps(
            conninfo.make_conninfo("", **{**given, "user": role(stream), "passfile": str(passfile)})
        )

    text = re.sub(r"^admin_dsn = .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^dsn = (\".*\")$", least, text, flags=re.MULTILINE)
    if TRIGGERS != "session":
        text = re.sub(
            r"^\[replicas\..+\]\n(dsn = .*)$",
            rf'\g<0>\ntriggers = "{TRIGGERS}"',
            text,
            flags=re.MULTILINE,
        )
    return text


def administered(text: str, ends: Mapping[str, str]) -> str:
    """Return the configuration as the DBA has it, who logs in to `ends` as a superuser."""
    end, lines = "", []
    for line in text.splitlines():
        if found := re.fullmatch(r"\[(?:(primary)|replicas\.(.+))\]", line):
            end = found[1] or found[2]
        lines.append(line)
        if line.startswith("dsn = ") and end in ends:
            lines.append(f"admin_dsn = {json.dumps(ends[end])}")
    return "\n".join(lines) + "\n"


def passwords(folder: Path, stack: Path, stream: str) -> dict[str, str]:
    """Return the passwords that the DBA is told for the roles of a stream."""
    connector = (stack / "connect-secrets.properties").read_text("ascii").strip()
    return {
        role(stream): (folder / "pgpass").read_text("ascii").strip().rpartition(":")[2],
        f"cdc_{stream}_connector": connector.removeprefix("password="),
    }


def carry_out(
    script: str, folder: Path, ends: Mapping[str, str], known: Mapping[str, str], version: int
) -> None:
    """Let psql execute what was printed, each end's part as its superuser, who types the passwords.

    `version` is the servers', as libpq says it.
    """
    psql = clients.find(version).pg_dump.with_name("psql")
    parts = _END.split(script)
    for end, statements in zip(parts[1::2], parts[2::2], strict=True):
        file = folder / f"{end}.sql"
        file.write_text(statements, encoding="utf-8")
        asked = re.findall(r'^\\password "(.+)"$', statements, flags=re.MULTILINE)
        done = subprocess.run(
            [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", ends[end], "-f", file],
            input="".join(f"{known[name]}\n" * 2 for name in asked),
            capture_output=True, text=True, check=False, timeout=60,
            start_new_session=True,  # without a terminal it takes the passwords from stdin
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
