"""Shell completion."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from cdc import cli


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_for_the_program(shell: str) -> None:
    """`cdc completion` prints a script of that shell that asks `cdc` for what fits."""
    done = CliRunner().invoke(cli.cdc, ["completion", shell])

    assert 0 == done.exit_code, done.output
    assert f"_CDC_COMPLETE={shell}_complete" in done.stdout


def test_commands_are_completed() -> None:
    """The beginning of a command's name becomes the command."""
    done = CliRunner().invoke(
        cli.cdc,
        prog_name="cdc",
        env={"COMP_WORDS": "cdc boo", "COMP_CWORD": "1", "_CDC_COMPLETE": "bash_complete"},
    )

    assert "plain,bootstrap" in done.stdout
