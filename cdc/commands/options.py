"""Options every command takes, before or after its name."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from cdc import config
from cdc.config import Config
from cdc.errors import UsageError
from cdc.units import Duration

P = ParamSpec("P")
R = TypeVar("R")


@dataclasses.dataclass(slots=True)
class Common:
    """What the user said in the common options; later words win."""

    config: Path = Path("cdc.toml")
    replicas: tuple[str, ...] = ()
    verbose: int = 0
    json: bool = False

    def load(self) -> Config:
        return config.load(self.config)

    def one_replica(self, loaded: Config) -> str:
        """Return the one replica a command is about: -r, or the only one configured."""
        names = self.replicas or tuple(loaded.replicas)
        if len(names) != 1:
            raise UsageError(
                "which replica?",
                safe=config.NOTHING_CHANGED,
                next=f"add -r with one of: {', '.join(sorted(loaded.replicas))}",
            )
        loaded.replica(names[0])
        return names[0]

    def some_replicas(self, loaded: Config) -> tuple[str, ...]:
        """Return the replicas given by -r, or all."""
        for name in self.replicas:
            loaded.replica(name)
        return self.replicas or tuple(loaded.replicas)


def common(command: Callable[P, R]) -> Callable[P, R]:
    """Add the common options to a command or group; its first argument becomes the Common."""

    @click.option(
        "-c",
        "--config",
        "config_",
        type=click.Path(path_type=Path),
        envvar="CDC_CONFIG",
        metavar="FILE",
        help="Configuration file.  [default: cdc.toml]",
    )
    @click.option(
        "-r",
        "--replica",
        "replica_",
        multiple=True,
        metavar="NAME",
        help="Replica; may be repeated.",
    )
    @click.option("-v", "--verbose", "verbose_", count=True, help="Say more; -vv says everything.")
    @click.option("--json", "json_", is_flag=True, help="Print the result as JSON.")
    @functools.wraps(command)
    def wrapper(
        *args: Any,
        config_: Path | None,
        replica_: tuple[str, ...],
        verbose_: int,
        json_: bool,
        **kwargs: Any,
    ) -> R:
        ctx = click.get_current_context()
        said = ctx.ensure_object(Common)
        given = ctx.get_parameter_source("config_")
        if config_ is not None and (
            given is not click.core.ParameterSource.ENVIRONMENT or said.config == Path("cdc.toml")
        ):
            said.config = config_
        said.replicas = replica_ or said.replicas
        said.verbose = max(said.verbose, verbose_)
        said.json = said.json or json_
        return command(said, *args, **kwargs)  # type: ignore[arg-type]  # click calls it, not mypy

    return wrapper  # type: ignore[return-value]  # functools.wraps hides the parameters


class Seconds(click.ParamType[float]):
    """A duration as in the configuration file."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return value if isinstance(value, float) else Duration.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def emit(said: Common, value: dict[str, Any], human: str) -> None:
    """Print a result on stdout: `value` as one JSON object, or `human` for people."""
    click.echo(json.dumps({"version": 1, **value}, default=str) if said.json else human)


def note(message: str) -> None:
    """Print progress on stderr."""
    click.echo(message, err=True)
