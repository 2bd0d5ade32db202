"""Write docs/commands.md, docs/configuration.md, and the tables of other documents, from what they are about.

`python docs/generate.py` writes them, with --check it says which are stale and exits 1.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import corpus

from cdc import cli, metrics
from cdc.alert import metrics as alert_metrics
from cdc.alert import program as alert
from cdc.check import registry
from cdc.verify import program as verify

ROOT = Path(__file__).parents[1]

COMMANDS = """\
# Commands

What `--help` says, written by `make docs`. Results go to stdout, progress and messages to stderr;
an error is four lines: what happened, where, what that means for the data, what to do next.

| exit code | meaning |
|---|---|
| 0 | done; for `check`: nothing that can lose or delay data; for `status`, `local status` and `connectors status`: all is well; for `connectors diff`: nothing differs |
| 1 | halted or failed: a person is needed, a restart will not help; for those above: not so; for `wait`: the time is over |
| 2 | the command line or the configuration is wrong; nothing was done; for `check`: not everything could be read ([check.md](check.md)) |
| 70 | a defect of this program, with a traceback |
| 0 to 3 | of `cdc-verify`: all proven equal, differences, trouble, left undecided ([verify.md](verify.md)) |
| 0 to 3 | of `cdc-lag-alert once`: ok, warning, critical, unknown ([alerts.md](alerts.md)) |
| 130, 143 | interrupted, or killed by a second signal |

The common options may stand before or after the command's name.
"""

CONFIGURATION = """\
# Configuration

One TOML file, `cdc.toml` in the current directory, or what `-c` or `CDC_CONFIG` names. Written by
`make docs` from [`cdc.example.toml`](../cdc.example.toml).

An unknown key is an error that names the closest known one. `${NAME}` is replaced from the
environment, or by what stands in the file that `NAME_FILE` names there. Durations are written `"500ms"`,
`"30s"`, `"5m"`, `"7d"`; sizes `"512KiB"`, `"8MiB"`. Relative paths are relative to the file. Database
passwords never stand in it: libpq finds them through `passfile`, `service` or `PGPASSWORD`.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A key of the example: its value there, and the comment above it.

    `entry` counts the entries of lists of tables, so that each gets a section of its own.
    """

    table: str
    name: str
    value: str
    says: str
    entry: int

    @property
    def optional(self) -> bool:
        return self.says.startswith("Optional. ")


def keys(text: str) -> Iterator[Key]:
    """Yield the keys of a TOML text in their order; ValueError when one has no comment."""
    table, entries, said = "", 0, list[str]()
    for line in text.splitlines():
        if line.startswith("#"):
            said.append(line[1:].strip())
        elif header := re.fullmatch(r"\[\[(.+)\]\]", line):
            table, entries, said = f"[{header[1]}]", entries + 1, []
        elif header := re.fullmatch(r"\[(.+)\]", line):
            table, said = header[1], []
        elif pair := re.fullmatch(r"(\w+) = (.+)", line):
            if not said:
                raise ValueError(f"{table}.{pair[1]} has no comment")
            yield Key(table, pair[1], pair[2], " ".join(said), entries)
            said = []
        elif not line:
            said = []


def configuration() -> str:
    text = (ROOT / "cdc.example.toml").read_text(encoding="utf-8")
    tomllib.loads(text)
    parts, section = [CONFIGURATION], None
    for key in keys(text):
        if (key.table, key.entry) != section:
            section = (key.table, key.entry)
            title = f"`[{key.table}]`" if key.table else "Top level"
            if key.name == "kind":
                title += ": " + key.value.strip('"')
            parts.append(
                f"\n## {title}\n\n| key | example or default | consequence |\n|---|---|---|\n"
            )
        says = key.says.removeprefix("Optional. ")
        needed = "" if key.optional else "**Required.** "
        parts.append(
            f"| `{key.name}` | `{_cell(key.value)}` | {needed}{_cell(says).replace('<', '&lt;')} |\n"
        )
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def commands() -> str:
    programs = (
        (cli.cdc, "cdc"),
        (verify.cdc_verify, "cdc-verify"),
        (alert.cdc_lag_alert, "cdc-lag-alert"),
    )
    return COMMANDS + "".join(page for p, name in programs for page in _pages(p, name, None))


def _pages(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=90, max_content_width=90
    )
    yield f"\n## `{context.command_path}`\n\n```text\n{context.get_help()}\n```\n"
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            child = command.get_command(context, word)
            assert child is not None
            yield from _pages(child, word, context)


ENDS = {
    "primary": "The primary", "kafka": "Kafka", "connect": "Kafka Connect", "replica": "Replicas",
}  # fmt: skip

#: What in a document is followed by tables made of a module.
METRICS = "<!-- from {}, by `make docs` -->\n"


def with_metrics(name: str, module: ModuleType, file: str) -> str:
    """Return a document of docs/ that ends with a table, with the metrics that `module` has now."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    names = [value for value in vars(module).values() if isinstance(value, metrics.Name)]
    lines = ["", "| metric | kind | labels | says |", "|---|---|---|---|"]
    for one in names:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{one.name}` | {one.kind} | {labels} | {_cell(one.says)} |")
    mark = METRICS.format(file)
    return text.partition(mark)[0] + mark + "\n".join(lines) + "\n"


def with_findings(file: str) -> str:
    """Return docs/check.md with a table of the findings of each end."""
    text = (ROOT / "docs/check.md").read_text(encoding="utf-8")
    lines = list[str]()
    for end, title in ENDS.items():
        lines += ["", f"## {title}", "", "| finding | severity | why |", "|---|---|---|"]
        for finding in registry.findings(x for x in registry.LOOKS if x.end == end).values():
            # Of the primary the daemon needs nothing to start.
            refused = finding.at_start and end != "primary"
            start = " **The daemon does not start.**" if refused else ""
            lines.append(f"| `{finding.name}` | {finding.severity} | {_cell(finding.why)}{start} |")
    mark = METRICS.format(file)
    return text.partition(mark)[0] + mark + "\n".join(lines) + "\n"


def main() -> int:
    stale = []
    guarantees = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
    for name, fresh in (
        ("commands.md", commands()),
        ("configuration.md", configuration()),
        ("guarantees.md", corpus.filled_in(guarantees)),
        ("check.md", with_findings("cdc/check/registry.py")),
        ("lag.md", with_metrics("lag.md", metrics, "cdc/metrics.py")),
        ("alerts.md", with_metrics("alerts.md", alert_metrics, "cdc/alert/metrics.py")),
    ):
        file = ROOT / "docs" / name
        if not file.exists() or file.read_text(encoding="utf-8") != fresh:
            stale.append(f"docs/{name}")
            if "--check" not in sys.argv:
                file.write_text(fresh, encoding="utf-8")
    if "--check" in sys.argv and stale:
        print(f"stale, run `make docs`: {', '.join(stale)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
