"""Which types and situations are carried or refused, read from the tests that show it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

import type_cases  # noqa: E402 -- found by the path above

#: Whatever these do on a primary must be on every replica; each test's docstring is a situation.
_CARRIED = (
    "acceptance/test_replication.py",
    "acceptance/test_replication_identity.py",
    "acceptance/test_replication_tables.py",
    "acceptance/test_replication_transactions.py",
    "acceptance/test_replication_values.py",
)

#: What is not carried: the verdict, the test's file and name.
_OTHERS = (
    ("left out, with a warning", "unit/test_tables.py", "test_tables_that_are_never_logged_are_left_out"),
    ("refused before it starts", "unit/test_tables.py", "test_tables_that_debezium_mistakes_are_refused_without_the_plugin"),
    ("refused before it starts", "unit/test_tables.py", "test_tables_that_read_alike_with_their_schema_are_refused_without_the_plugin"),
    ("refused before it starts", "unit/test_tables.py", "test_a_partition_of_a_replicated_table_cannot_be_excluded"),
    ("halts", "acceptance/test_interference.py", "test_what_would_alter_rows_is_refused"),
    ("halts", "acceptance/test_interference.py", "test_an_incomplete_row_that_is_missing_halts"),
    ("halts", "acceptance/test_interference.py", "test_a_row_without_key_that_was_changed_halts"),
    ("halts", "acceptance/test_partitions.py", "test_partitions_that_come_and_go"),
    ("halts", "acceptance/test_partitions.py", "test_a_renamed_table"),
    ("halts", "acceptance/test_partitions.py", "test_partitions_published_under_their_root"),
)  # fmt: skip

#: The test whose parameters are the faults of single tables.
_FAULTS = ("unit/test_tables.py", "test_tables_that_cannot_be_carried_are_refused")

_MARKED = re.compile(
    r"(<!-- from the tests, by `make docs` -->\n).*?(<!-- so far from the tests -->)", re.DOTALL
)


def filled_in(document: str) -> str:
    """Return docs/guarantees.md with its tables as the tests have them; ValueError without its marks."""
    made, times = _MARKED.subn(lambda found: f"{found[1]}\n{_tables()}\n{found[2]}", document)
    if times != 1:
        raise ValueError("docs/guarantees.md has lost the marks between which its tables stand")
    return made


def _tables() -> str:
    situations = "".join(
        f"| {_cell(says)} | {verdict} | `{name}` |\n" for says, verdict, name in _situations()
    )
    types = "".join(f"| {' | '.join(row)} |\n" for row in _types())
    return (
        "| situation | outcome | shown by |\n|---|---|---|\n"
        + situations
        + "\n| type | values tried | large value left alone | carried, shown by |\n|---|---|---|---|\n"
        + types
    )


def _situations() -> Iterator[tuple[str, str, str]]:
    for file in _CARRIED:
        for name, test in _tests(file).items():
            yield _says(test), "carried", name
    file, name = _FAULTS
    faults = _tests(file)[name].decorator_list[0]
    assert isinstance(faults, ast.Call)
    assert isinstance(faults.args[1], ast.List)
    for fault in faults.args[1].elts:
        assert isinstance(fault, ast.Tuple)
        said = ast.literal_eval(fault.elts[-1])
        yield f"A table: {_cell(said)}.", "refused before it starts", name
    for verdict, file, name in _OTHERS:
        yield _says(_tests(file)[name]), verdict, name


def _types() -> Iterator[tuple[str, ...]]:
    for case in type_cases.SCALARS:
        array = "" if case.type == "arrdom" else ", and its array"
        shown = ["test_values_arrive_as_printed"]
        if case.needs is None:
            shown += ["test_every_type"] + ["test_every_type_stored_out_of_line"] * bool(case.big)
        needs = f" ({case.needs})" if case.needs else ""
        yield (
            f"`{_cell(case.type)}`{needs}{array}",
            str(len(case.values)),
            "yes" if case.big else "cannot be",
            ", ".join(f"`{name}`" for name in shown),
        )


def _tests(file: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def _says(test: ast.FunctionDef) -> str:
    said = ast.get_docstring(test)
    if not said:
        raise ValueError(f"{test.name} does not say what it is about")
    return " ".join(said.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
