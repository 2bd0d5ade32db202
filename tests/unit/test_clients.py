"""Which pg_dump and pg_restore are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc import clients
from cdc.errors import InstallationError


def install(folder: Path, version: str) -> Path:
    """Put programs that say they are of `version` into `folder`."""
    folder.mkdir()
    for program in ("pg_dump", "pg_restore"):
        (folder / program).write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}'\n")
        (folder / program).chmod(0o755)
    return folder


def test_old_pg_dump_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pg_dump older than the server is named with its version and never used."""
    old = install(tmp_path / "old", "12.3")
    monkeypatch.setattr(clients, "_folders", lambda: iter([old]))

    with pytest.raises(InstallationError) as refused:
        clients.find(160014)

    assert f"{old}/pg_dump (12)" in refused.value.what
    assert "CDC_PG_BIN" in refused.value.next


def test_the_oldest_that_is_new_enough_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the first and not the newest one: what it writes must be understood by the replica."""
    folders = [install(tmp_path / v, v) for v in ("15.1", "18.0", "17.5")]
    monkeypatch.setattr(clients, "_folders", lambda: iter(folders))
    monkeypatch.delenv("CDC_PG_BIN", raising=False)

    assert tmp_path / "17.5/pg_dump" == clients.find(160014).pg_dump
    assert tmp_path / "18.0/pg_dump" == clients.find(180001).pg_dump


def test_the_programs_that_a_person_names_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CDC_PG_BIN wins where its programs are new enough."""
    folders = [install(tmp_path / v, v) for v in ("18.0", "16.5")]
    monkeypatch.setattr(clients, "_folders", lambda: iter(folders))
    monkeypatch.setenv("CDC_PG_BIN", str(folders[0]))

    assert folders[0] / "pg_dump" == clients.find(160014).pg_dump
