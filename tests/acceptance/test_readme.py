"""The README does what it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import harness
from harness import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
IN_A_CHECKOUT = "<!-- in a checkout -->\n"
BLOCK = re.compile(rf"({IN_A_CHECKOUT})?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: A person looks again until the first heartbeat has come; so does this.
AS_A_PERSON_DOES = """
set -eu
cdc() {
    if [ "$1" = status ]; then until command cdc "$@"; do sleep 0.5; done; else command cdc "$@"; fi
}
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
    started = programs / "cdc"
    started.write_text(f'#!/bin/sh\nexec {shlex.join(harness.program())} "$@"\n')
    started.chmod(0o755)
    environment = harness.environment()
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    script = AS_A_PERSON_DOES + "".join(blocks(checkout=False))
    try:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        said = f"{done.stdout}\n{done.stderr}"

        assert 0 == done.returncode, said
        assert " changed\n" in done.stdout, said
        assert "1 replica, at most" in done.stdout, said
        assert [] == list(folder.iterdir())
    finally:
        if (folder / "cdc-local").exists():
            harness.run("local", "down", "--purge", cwd=folder)
