"""`cdc init`: a first cdc.toml for ends that are there."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cdc import draft
from cdc.commands.options import Common, common, emit, note
from cdc.config import NOTHING_CHANGED
from cdc.draft import Given
from cdc.errors import UsageError


@click.command()
@click.option(
    "--name", metavar="NAME", help="Name of the stream.  [default: the primary's database]"
)
@click.option(
    "--primary", metavar="DSN", help="Connection string of the primary, without password."
)
@click.option("--kafka", metavar="SERVERS", help="Brokers, host:port, comma-separated.")
@click.option("--connect", metavar="URL", help="Where Kafka Connect's REST interface answers.")
@click.option("--kafka-option", "kafka_options", multiple=True, metavar="NAME=VALUE", help="A setting of librdkafka, "
              "for TLS and SASL; a secret as '${NAME}'. May be repeated.")  # fmt: skip
@click.option("--connect-option", "connect_options", multiple=True, metavar="KEY=VALUE", help="user, password, ca, "
              "certificate or key, for Kafka Connect; the password as '${NAME}'. May be repeated.")  # fmt: skip
@click.option("--tables", multiple=True, metavar="PATTERN", help="What is replicated; may be repeated.  "
              "[default: every schema that has tables]")  # fmt: skip
@common
def init(
    said: Common, *, name: str | None, primary: str | None, kafka: str | None, connect: str | None,
    kafka_options: tuple[str, ...], connect_options: tuple[str, ...], tables: tuple[str, ...],
) -> None:  # fmt: skip
    """Look at primary, Kafka, Kafka Connect and replicas, and write cdc.toml for them.

    -r is NAME=DSN here. What is not given is asked for. Every end must answer and be fit; nothing is changed on them. The
    file has only what is needed, commented, and is never written over another (-c names it).
    """
    path = said.config
    if path.exists():
        raise UsageError(f"{path} is there already", safe=NOTHING_CHANGED,
                         next="name another file with -c, or move that one away")  # fmt: skip
    primary = primary or _asked("the primary's connection string", "--primary")
    kafka = kafka or _asked("Kafka's brokers, host:port,…", "--kafka")
    connect = connect or _asked("Kafka Connect's address, http://…", "--connect")
    replicas = said.replicas or (f"r1={_asked('the connection string of replica r1', '-r')}",)
    given = Given(draft.named(name, primary), primary, kafka, connect, _replicas(replicas), tables,
                  _pairs("--kafka-option", kafka_options), _pairs("--connect-option", connect_options))  # fmt: skip
    seen = draft.look(draft.checked(given, path))
    text = draft.text(given, seen)
    config = draft.decoded(text, path)
    _write(path, text)
    for line in seen.notes:
        note(f"note: {line}")
    first = next(iter(config.replicas))
    commands = ["setup --print", "setup", "connectors apply", *(f"bootstrap -r {r}" for r in config.replicas),
                f"run -r {first}", "check", "status"]  # fmt: skip
    emit(said, {"file": str(path), "notes": seen.notes, "next": [f"cdc {c}" for c in commands]},
         "\n".join([f"{path} is written: read it through, then", *(f"  cdc {c}" for c in commands)]))  # fmt: skip


def _asked(what: str, option: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError(f"{option} is needed, and nobody is there to be asked",
                         safe=NOTHING_CHANGED, next=f"give {option}: {what}")  # fmt: skip
    return str(click.prompt(what, err=True))


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    found = dict(text.partition("=")[::2] for text in given)
    if any(not name or not value for name, value in found.items()):
        raise UsageError(f"{option} is not of the form NAME=VALUE", safe=NOTHING_CHANGED,
                         next=f"write {option} NAME=VALUE")  # fmt: skip
    return found


def _replicas(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, dsn = text.partition("=")
        if not equals or not name or " " in name or "/" in name:
            raise UsageError(f"-r {text.partition('=')[0]!r} is not of the form NAME=DSN",
                             safe=NOTHING_CHANGED, next='write -r "r1=host=… dbname=…"')  # fmt: skip
        found[name] = dsn
    return found


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", safe="nothing was changed",
                         next="name another file with -c") from error  # fmt: skip
