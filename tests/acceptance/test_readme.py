"""The README does what it says."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import harness
from harness import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
IN_A_CHECKOUT = "<!-- in a checkout -->\n"
BLOCK = re.compile(rf"({IN_A_CHECKOUT})?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: The program; a person looks at the status again until the first heartbeat has come: so does this.
PROGRAM = """#!/bin/sh
if [ "$1" = status ]; then until {program} "$@"; do sleep 0.5; done; exit; fi
exec {program} "$@"
"""


def blocks(*, checkout: bool) -> list[str]:
    """Return the fenced blocks for a checkout, or all others, in order."""
    return [body for mark, _, body in BLOCK.findall(TEXT) if bool(mark) == checkout]


def test_every_block_is_one_that_is_run() -> None:
    """Each fenced block is shell and executed here, or names make targets that other tests run."""
    kinds = [kind for _mark, kind, _body in BLOCK.findall(TEXT)]

    assert {"sh"} == set(kinds)
    assert 2 * len(kinds) == TEXT.count("```")
    assert 1 == len(blocks(checkout=True))


def test_what_runs_in_a_checkout_are_targets() -> None:
    """The commands for a checkout are Makefile targets; `demo` calls what test_demo.py runs."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    for line in blocks(checkout=True)[0].splitlines():
        make, target = line.split()
        assert "make" == make
        assert re.search(rf"^{target}:.*\n(\t.*\n)+", makefile, re.MULTILINE)
    assert re.search(r"^demo:.*\n\t@\$\(BIN\)/python -m cdc local demo$", makefile, re.MULTILINE)
    assert re.search(r"^test:.*\n\t@\$\(BIN\)/python -m pytest", makefile, re.MULTILINE)


def test_every_command_works_in_order_in_an_empty_folder(tmp_path: Path) -> None:
    """What a newcomer types after the demo works line by line and leaves the folder empty."""
    programs, folder = tmp_path / "bin", tmp_path / "empty"
    programs.mkdir()
    folder.mkdir()
    for name in ("cdc", "cdc-verify"):
        started = programs / name
        started.write_text(PROGRAM.format(program=shlex.join(harness.program(name))))
        started.chmod(0o755)
    environment = harness.environment()
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    output = tmp_path / "output"
    with output.open("w") as written:
        typed = subprocess.Popen(
            ["bash", "-c", "set -eu\n" + "".join(blocks(checkout=False))],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        code = typed.wait(600)
        said = output.read_text()

        assert 0 == code, said
        assert " changed\n" in said, said
        assert "1 replica, at most" in said, said
        assert "r1: 1 table, 1,000 rows proven equal" in said, said
        assert [] == list(folder.iterdir())
    finally:
        with contextlib.suppress(ProcessLookupError):  # what is still running of what was typed
            os.killpg(typed.pid, signal.SIGKILL)
        typed.wait()
        if (folder / "cdc-local").exists():
            harness.run("local", "down", "--purge", cwd=folder)
