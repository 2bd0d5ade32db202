"""The apply loop against a reference model (tests/machine.py), and that the model finds what is wrong."""

from __future__ import annotations

import os
from typing import Any

import machine
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from mutants import mutant

from cdc import guard, position, writing
from cdc.batch import Buffer
from cdc.errors import CdcError
from cdc.ledger import Ledger
from cdc.replicator import Replicator

#: How many runs of the machine; `make fuzz` asks for more.
EXAMPLES = int(os.environ.get("CDC_MODEL_EXAMPLES", "30"))

_SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)


def test_the_replica_is_as_the_primary_was_whatever_happens() -> None:
    """Kills, lost commits, restarts, repeats, copies, two daemons: rows and position always agree."""
    run_state_machine_as_test(machine.Machine, settings=_SETTINGS)


@pytest.mark.parametrize(
    ("owner", "name", "old", "new"),
    [
        pytest.param(
            Replicator, "_write", 'failpoint.reach("rows.written")',
            'conn.execute("COMMIT"); conn.execute("BEGIN")', id="position in a transaction of its own",
        ),
        pytest.param(
            Replicator, "_write", "self._summary.piece(written)",
            'conn.execute("COMMIT"); turn.in_transaction = False', id="a piece is committed",
        ),
        pytest.param(
            position, "advance", " AND generation = %(generation)s", "",
            id="no compare-and-set on the generation",
        ),
        pytest.param(
            Buffer, "add", "if self.written:", "if False:", id="pieces are not taken back",
        ),
        pytest.param(
            Buffer, "_wanted", "end_lsn <= covered", "end_lsn < covered",
            id="what the copy holds comes again",
        ),
        pytest.param(
            Ledger, "_begin", "verdict = self._verdict(event)",
            "self._open = {}; verdict = self._verdict(event)", id="another BEGIN discards the open one",
        ),
        pytest.param(
            Ledger, "_verdict", "return Verdict.DUPLICATE\n    if previous == self.applied",
            "return Verdict.NEW\n    if previous == self.applied", id="what comes again is applied again",
        ),
        pytest.param(
            Ledger, "links", "begin.previous != self.applied", "False",
            id="a whole transaction need not be the next link",
        ),
        pytest.param(
            guard.Patience, "spent", "return False", "return True",
            id="halts though the connector has failed",
        ),
        pytest.param(
            writing, "lock", "while not position.try_lock(conn, stream):", "while False:",
            id="no lock",
        ),
    ],
)  # fmt: skip
def test_the_model_finds(owner: Any, name: str, old: str, new: str) -> None:
    """A daemon that does one thing wrong is found out."""
    with mutant(owner, name, old, new), pytest.raises((AssertionError, CdcError)):
        run_state_machine_as_test(
            machine.Machine,
            settings=settings(
                _SETTINGS, max_examples=300, derandomize=True, phases=[Phase.generate]
            ),
        )
