"""What `make setup` says and does before anything is fetched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc.errors import InstallationError
from cdc.local import artifacts, prepare, programs

ROOT = Path(__file__).parents[2]


def test_it_needs_nothing_installed() -> None:
    """It runs on a bare Python: what it imports is the standard library and modules like it."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import cdc.local.prepare"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)


def test_what_will_be_fetched_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty checkout and cache are told with sizes and places; complete ones are silent."""
    monkeypatch.setenv("CDC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CDC_PG_BIN", raising=False)
    checkout = tmp_path / "checkout"
    (checkout / "connectors/exact/target").mkdir(parents=True)
    (checkout / ".venv").mkdir()
    said = prepare.announcement(checkout)

    assert 4 == said.count(" MB  ")
    assert str(tmp_path / "cache") in said
    assert str(checkout / ".venv") in said
    (checkout / ".venv/installed").touch()
    (checkout / "connectors/exact/target/cdc-exact.jar").touch()
    assert 2 == prepare.announcement(checkout).count(" MB  ")
    monkeypatch.setattr(artifacts, "missing", lambda _cache: ())
    assert "" == prepare.announcement(checkout)


def _apt(folder: Path, log: Path) -> None:
    program = folder / "apt-get"
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    program.chmod(0o755)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the log of an apt-get that installs nothing, alone on the PATH."""
    (tmp_path / "bin").mkdir()
    _apt(tmp_path / "bin", tmp_path / "log")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(programs, "_debian_jdk", lambda: "some-jdk")
    programs.java.cache_clear()
    (tmp_path / "log").touch()
    yield tmp_path / "log"
    programs.java.cache_clear()


def test_root_installs_what_is_missing(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root it is installed; when that did not help, the command is told and nothing goes on."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(InstallationError) as raised:
        prepare.install(programs.absent())

    assert ["-q update", "install -y some-jdk maven"] == bare.read_text().splitlines()
    assert "apt-get install -y some-jdk maven" == raised.value.next


def test_others_are_told_the_command(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root nothing is run; the one command is told."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InstallationError) as raised:
        prepare.install(programs.absent())

    assert "" == bare.read_text()
    assert "sudo apt-get install -y some-jdk maven" == raised.value.next
