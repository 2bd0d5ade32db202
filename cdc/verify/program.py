"""The `cdc-verify` program: parse, verify, tell; the exit code is the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cdc import __version__, names
from cdc.commands import program
from cdc.commands.options import Common, Seconds, common, note
from cdc.names import TableName
from cdc.units import Duration
from cdc.verify import report
from cdc.verify.ends import Patience
from cdc.verify.hashing import Hash
from cdc.verify.page import page
from cdc.verify.script import script
from cdc.verify.verification import Options, past, verify

#: What the program exits with when it could not compare, or not everything.
EXIT_TROUBLE = 2


class _Table(click.ParamType[TableName]):
    name = "table"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> TableName:
        try:
            return value if isinstance(value, TableName) else names.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "obj": None})
@click.version_option(__version__, prog_name="cdc-verify")
@click.option("--table", "only", type=_Table(), multiple=True, metavar="SCHEMA.TABLE",
              help="Only this table; may be repeated.  [default: all]")  # fmt: skip
@click.option("--max-cpu", type=click.IntRange(1, 100), default=100, metavar="PERCENT",
              show_default=True, help="Share of one core the primary may work for this.")  # fmt: skip
@click.option("--timeout", type=Seconds(), default=Duration(30.0), metavar="DURATION",
              show_default="30s", help="How long a replica may take to pass a mark.")  # fmt: skip
@click.option("--max-lag", type=Seconds(), default=Duration(10.0), metavar="DURATION",
              show_default="10s", help="How far behind a replica may be before the scan waits for it, "
              "for --timeout at most.")  # fmt: skip
@click.option("--statement-timeout", type=Seconds(), default=Duration(60.0), metavar="DURATION",
              show_default="60s", help="How long one statement may take; a table without key is read "
              "in one.")  # fmt: skip
@click.option("--hash", "hashed", type=click.Choice(["lookup3", "sha256"]),
              help="How rows are hashed.  [default: lookup3, unless two servers disagree on it]")  # fmt: skip
@click.option("--repair", type=click.Choice(["plan", "apply"]),
              help="Print the statements that mend what differs, or mend it on the replicas.")  # fmt: skip
@click.option("--repair-sql", type=click.File("w", encoding="utf-8", lazy=False), metavar="FILE",
              help="Write the statements that mend what differs to a file.")  # fmt: skip
@click.option("--findings", type=click.File("w", encoding="utf-8", lazy=False), metavar="FILE",
              help="Write every differing row as a line of JSON.")  # fmt: skip
@click.option("--html", type=click.File("w", encoding="utf-8", lazy=False), metavar="FILE",
              help="Write the report as a page for people.")  # fmt: skip
@click.option("--textfile", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write metrics for node_exporter's textfile collector.")  # fmt: skip
@click.option(
    "--mask", is_flag=True, help="Tell which columns differ, and not their values; keys stay."
)
@click.option("--resume", is_flag=True,
              help="Go on with a run that was killed, or that left something open.")  # fmt: skip
@click.option("--history", is_flag=True, help="Show earlier runs and compare nothing.")
@common
def cdc_verify(
    said: Common,
    *,
    only: tuple[TableName, ...],
    max_cpu: int,
    repair: str | None,
    repair_sql: Any,
    findings: Any,
    html: Any,
    textfile: Path | None,
    mask: bool,
    timeout: float,
    max_lag: float,
    statement_timeout: float,
    hashed: Hash | None,
    resume: bool,
    history: bool,
) -> int:
    """Prove that replicas equal the primary, while writes go on.

    Exit status 0 when everything is proven equal, 1 for differences, 2 for trouble, 3 when rows or
    tables were left undecided. On the primary nothing is locked, and nothing written but marks in
    the log; on a replica the run is remembered in its schema cdc.
    """
    config = said.load()
    if history:
        runs = past(config, said.some_replicas(config))
        click.echo(json.dumps(report.history_json(runs)) if said.json else report.history(runs))
        return 0
    options = Options(
        frozenset(only),
        max_cpu / 100,
        mend=repair == "apply",
        resume=resume,
        hash=hashed,
        patience=Patience(statement=statement_timeout, barrier=timeout, lag=max_lag),
    )
    outcome = verify(config, said.some_replicas(config), options, note)
    if findings is not None:
        findings.writelines(f"{text}\n" for text in report.lines(outcome.findings, mask=mask))
    if repair_sql is not None:
        repair_sql.writelines(f"{text}\n" for text in script(outcome.findings, outcome.layouts))
    if html is not None:
        html.write(page(outcome, mask=mask))
    click.echo(
        json.dumps(report.as_json(outcome, mask=mask))
        if said.json
        else report.human(outcome, mask=mask)
    )
    if repair == "plan" and not said.json:
        for text in script(outcome.findings, outcome.layouts):
            click.echo(text)
    if textfile is not None:
        from cdc.verify import gauges  # noqa: PLC0415 -- a twentieth of the start, and rarely asked for

        gauges.write(textfile, config, outcome.replicas)
    return outcome.exit_code


def main() -> None:
    """Run the program and exit with its result."""
    program.run(cdc_verify, "cdc-verify", trouble=EXIT_TROUBLE)


if __name__ == "__main__":
    main()
