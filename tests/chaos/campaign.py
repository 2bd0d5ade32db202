"""Rounds of kills under a random workload, and what must hold between them."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import compare
import harness
import psycopg
import report
import requests
import running
import workload
from harness import Stream
from report import Totals
from reporting import Report
from schedule import Blow, Round
from victims import Components, Daemons

#: Seconds after which a stream that does not go on is a finding.
_STUCK = 300.0

#: Seconds that replicas may need for what they are behind when the writers stop.
_BEHIND = 1200


class Campaign:
    """Strikes one stream on a stack of its own, round after round."""

    def __init__(self, stream: Stream, seed: int, rate: float, lines: Report) -> None:
        self._stream = stream
        self._seed = seed
        self._rate = rate
        self._report = lines
        self._components = Components(stream.stack)
        self._daemons = Daemons(stream)
        self.totals = Totals()

    def segment(self, rounds: list[Round]) -> None:
        """Write all the while the rounds are struck, then compare everything."""
        number = self.totals.checks + 1
        try:
            with (
                running.watching(self._stream.replicas["r1"], "--rate", "50") as first,
                running.watching(self._stream.replicas["r2"], "--rate", "50") as second,
                running.writing(
                    self._stream.primary, seed=self._seed + number, rate=self._rate
                ) as writer,
            ):
                for one in rounds:
                    self._round(one)
                    assert writer.running, "the writers have ended"
                self._recovered()
                wrote = writer.stop()
                behind = self._catch_up()
                watched = [first.stop(), second.stop()]
        except BaseException as trouble:
            self._report.write("finding", what=str(trouble), logs=self._logs())
            raise
        finally:
            self._components.release()
        self._check(number, behind, wrote, watched)

    def _round(self, one: Round) -> None:
        before = self._places()
        began = time.monotonic()
        pids = [self._strike(blow) for blow in one.blows]
        time.sleep(max(blow.seconds for blow in one.blows))
        self._components.restore(b for b in one.blows if not b.target.startswith("daemon"))
        hits = [
            self._daemons.restore(blow) for blow in one.blows if blow.target.startswith("daemon")
        ]
        restored = time.monotonic()
        helped = [] if one.hasty else self._recovered()
        ended = time.monotonic()
        self._report.write(
            "round",
            round=one.number,
            blows=[
                {**dataclasses.asdict(blow), "pid": pid}
                for blow, pid in zip(one.blows, pids, strict=True)
            ],
            hit=all(hits),
            before=before,
            after=self._places(),
            seconds_down=round(restored - began, 2),
            seconds_to_recover=None if one.hasty else round(ended - restored, 2),
            helped=helped,
        )
        self.totals.round(one, hits, helped, None if one.hasty else ended - restored)
        time.sleep(one.pause)

    def _strike(self, blow: Blow) -> int:
        if blow.target.startswith("daemon"):
            return self._daemons.strike(blow)
        return self._components.strike(blow)

    def _recovered(self) -> list[str]:
        """Wait until capture and both replicas move on; return what an operator had to start."""
        helped = []
        stood: dict[str, int] = {}
        moved: set[str] = set()
        deadline = time.monotonic() + _STUCK
        look_at_connector = time.monotonic() + 10
        while moved != (places := self._places()).keys():
            self._daemons.alive()
            helped += self._components.mend()
            for name, at in places.items():
                if at is not None and at > stood.setdefault(name, at):
                    moved.add(name)
            now = time.monotonic()
            assert now < deadline, f"nothing moves for {_STUCK:.0f} s but {moved}: {stood}"
            if now > look_at_connector:
                look_at_connector = now + 10
                if self._connector_failed():
                    self._stream.cdc("connectors", "restart", check=False)
                    helped.append("connector")
            time.sleep(0.1)
        return helped

    def _connector_failed(self) -> bool:
        url = f"{self._stream.connect}/connectors/cdc_{self._stream.name}/status"
        try:
            status = requests.get(url, timeout=5).json()
        except requests.RequestException:
            return False
        failed = [t for t in status.get("tasks", []) if t["state"] == "FAILED"]
        if failed:
            self._report.write("connector_failed", trace=failed[0].get("trace", "")[:3000])
        return bool(failed)

    def _places(self) -> dict[str, int | None]:
        """Return where everything is in the primary's log, as numbers; None where nobody answers.

        `capture` is what the connector has confirmed to have in Kafka.
        """
        return {
            "primary": self._ask("primary", "SELECT pg_current_wal_insert_lsn() - '0/0'"),
            "capture": self._ask(
                "primary",
                "SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots"
                " WHERE slot_name = 'cdc_' || current_database()",
            ),
            **{
                name: self._ask(name, "SELECT applied_lsn - '0/0' FROM cdc.position")
                for name in self._stream.replicas
            },
        }

    def _ask(self, end: str, question: Any) -> int | None:
        try:
            return int(self._stream.sql(end, question)[0][0])
        except psycopg.OperationalError:
            return None

    def _catch_up(self) -> float:
        """Wait until both replicas hold all that was written; return the seconds."""
        began = time.monotonic()
        for replica in self._stream.replicas:
            self._stream.cdc(
                "wait", "-r", replica, "--now", "--timeout", f"{_BEHIND}s", timeout=_BEHIND + 30
            )
        self._daemons.alive()
        return time.monotonic() - began

    def _check(
        self, number: int, behind: float, wrote: dict[str, Any], watched: list[dict[str, Any]]
    ) -> None:
        """Compare both replicas with the primary, and each with what was acknowledged."""
        nodes = {"primary": self._stream.primary, **self._stream.replicas}
        journals = [_journal(dsn, wrote["acknowledged"]) for dsn in nodes.values()]
        found = report.Findings(
            differences=compare.differences(nodes, workload.NAMES),
            lost=sum(missing for missing, _ in journals),
            doubled=sum(excess for _, excess in journals),
            unmatched=sum(
                self._ask(name, "SELECT unmatched_updates + unmatched_deletes FROM cdc.position")
                or 0
                for name in self._stream.replicas
            ),
            torn=sum(len(seen["torn"]) for seen in watched),
        )
        self._report.write(
            "comparison",
            number=number,
            **dataclasses.asdict(found),
            seconds_behind=behind,
            wrote=wrote,
            watched=watched,
        )
        self.totals.segment(found, wrote, watched)
        self.totals.rows_applied = sum(
            self._ask(name, "SELECT rows_applied FROM cdc.position") or 0
            for name in self._stream.replicas
        )
        # What was compared need not be compared again.
        self._stream.sql(
            "primary",
            "DELETE FROM w.journal j WHERE number <"
            " (SELECT max(number) FROM w.journal WHERE writer = j.writer)",
        )

    def _logs(self) -> dict[str, str]:
        return {
            **{name: self._components.log(name) for name in ("connect", "kafka", "primary")},
            **{f"daemon {name}": self._daemons.log(name) for name in self._stream.replicas},
        }


def _journal(dsn: str, acknowledged: dict[str, int]) -> tuple[int, int]:
    """Return how many acknowledged transactions a server lacks, and how many it has beyond them."""
    found = {
        str(writer): (least, most, count)
        for writer, least, most, count in harness.rows(
            dsn, "SELECT writer, min(number), max(number), count(*) FROM w.journal GROUP BY writer"
        )
    }
    missing = excess = 0
    for writer, last in acknowledged.items():
        least, most, count = found.get(writer, (1, 0, 0))
        missing += max(0, last - most) + most - least + 1 - count
        excess += max(0, most - last)
    return missing, excess
