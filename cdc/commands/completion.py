"""`cdc completion`: the lines that make a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from cdc.commands.options import Common, common


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def completion(_said: Common, shell: str) -> None:
    """Print the completion for SHELL.

    bash: eval "$(cdc completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc; fish:
    cdc completion fish > ~/.config/fish/completions/cdc.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    click.echo(kind(root, {}, "cdc", "_CDC_COMPLETE").source())
