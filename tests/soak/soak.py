"""`cdc-verify` again and again while everything is written: alone, with faults, killed."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import chunks
import compare
import faults
import psycopg
import rows
import running
from faults import Fault, Found, Judgement
from harness import Stream
from reporting import Report
from totals import Totals

#: Faults injected before one run, and before a run that will be killed.
_BATCH, _STANDING = 30, 12

#: Kills at most before a run may end.
_KILLS = 4

#: Runs that mend until nothing is left: what the writers touch between two looks is left alone.
_MENDS = 5

_TRAFFIC = Path(__file__).with_name("traffic.py")


@dataclasses.dataclass(slots=True)
class Soak:
    """One stream with its daemons; `stall` is how many seconds a daemon stands still at most."""

    stream: Stream
    totals: Totals
    rate: float
    stall: float
    report: Report
    daemons: Sequence[subprocess.Popen[bytes]] = ()
    chance: random.Random = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.totals.seed)
        self.daemons = [self.stream.start("run", "-r", name) for name in self.stream.replicas]
        self._caught_up()

    def runs(self, count: int) -> None:
        """Verify sound replicas so many times."""
        with self._under_writes("runs"):
            for _ in range(count):
                code, said, seconds = self._verify()
                totals = self.totals
                totals.runs += 1
                totals.run_seconds.append(round(seconds, 1))
                totals.exits[str(code)] = totals.exits.get(str(code), 0) + 1
                totals.false += map(faults.found, said["findings"])
                for table in _tables(said):
                    totals.rows += table["rows"]
                    totals.candidates += table["candidates"]
                    totals.resolved += table["resolved"]

    def faults(self, count: int) -> None:
        """Spoil the replicas in batches; all must be told, and mended, while the writers go on."""
        drawn = faults.batches(self.totals.seed, list(self.stream.replicas), count, _BATCH)
        for number, batch in enumerate(drawn, 1):
            with self._under_writes(f"batch {number}"):
                self._inject(batch)
                written = [self._spoil_written() for _ in range(max(1, len(batch) // 6))]
                standing = {w.found for w in written if self._stands(w)}
                code, said, _ = self._verify()
                assert code == 1, said
                judged = faults.judge(said["findings"], batch, standing)
                told = set(map(faults.found, said["findings"]))
                still = [w for w in written if w.found not in told and self._stands(w)]
                self._count(judged)
                self.totals.missed += [f"on a written row: {w.found}" for w in still]
                self.totals.on_written_rows += len(written)
                self.totals.told += sum(w.found in told for w in written)
                self.totals.healed += sum(w.found not in told for w in written) - len(still)
                self.report.write(
                    "judged", batch=[fault.what for fault in batch], **dataclasses.asdict(judged)
                )
                self._mend()

    def kills(self, count: int) -> None:
        """Kill so many runs at any instant; what goes on must tell what one that was let alone does."""
        (batch,) = faults.batches(
            self.totals.seed + 1, list(self.stream.replicas), _STANDING, _STANDING
        )
        log = chunks.Log(self.stream)
        with self._under_writes("kills"):
            self._inject(batch)
            began = dt.datetime.now(dt.UTC)
            _, said, seconds = self._verify()
            scanning = (log.chunks()[-1].at - began).total_seconds()
            self._count(faults.judge(said["findings"], batch, ()))
            expected = _result(said)
            while self.totals.kills < count:
                kills = min(count - self.totals.kills, self.chance.randrange(1, _KILLS + 1))
                # Most of a run is waiting for replicas; half of the kills fall while it reads chunks.
                said = self._killed(
                    [
                        self.chance.uniform(0, self.chance.choice((scanning, seconds)))
                        for _ in range(kills)
                    ]
                )
                twice = chunks.read_twice(log.chunks(), rows.NAMES)
                for again in list(twice.values())[1:]:
                    counted = self.totals.chunks_read_twice
                    counted[again] = counted.get(again, 0) + 1
                self._count(faults.judge(said["findings"], batch, ()))
                if (result := _result(said)) != expected:
                    self.totals.other_results.append(f"{result} instead of {expected}")
                self.report.write("resumed", chunks_read_twice=list(twice.values()))
            self._kill_mending(
                batch, [self.chance.uniform(0, seconds) for _ in range(1 + count // 5)]
            )
            self._mend()

    def _kill_mending(self, batch: Sequence[Fault], instants: Sequence[float]) -> None:
        """Kill runs that mend: each row is then as it was or as it should be."""
        for instant in instants:
            ended, _ = self._start_and_kill(instant, "--repair", "apply")
            self.totals.mending_runs_killed += not ended
            _, said, _ = self._verify()
            judged = faults.judge(said["findings"], batch, ())
            self._count(dataclasses.replace(judged, missed=()))
            self.report.write("mending killed", left=len(said["findings"]), ended_before=ended)

    def _killed(self, instants: Sequence[float]) -> dict[str, Any]:
        """Return the report of a run that was killed so many seconds after each of its starts."""
        resume: list[str] = []
        for instant in instants:
            ended, run = self._start_and_kill(instant, *resume)
            if ended:
                self.totals.ended_before_the_kill += 1
                # Its standard error is in the same file, before.
                return dict(json.loads(self.stream.log(run).splitlines()[-1]))
            self.totals.kills += 1
            resume = ["--resume"]
        self.totals.resumed_runs += 1
        return self._verify(*resume)[1]

    def _start_and_kill(self, instant: float, *args: str) -> tuple[bool, subprocess.Popen[bytes]]:
        """Kill a run so many seconds after its start; tell whether it had ended before."""
        run = self.stream.start("--json", *args, name="cdc-verify")
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(instant)
        ended = run.poll() is not None
        run.kill()
        run.wait()
        # Killed when it had told everything, it has nothing to go on with.
        ended |= self.stream.log(run).endswith("}\n")
        self.report.write("kill", arguments=args, after=round(instant, 3), ended_before=ended)
        return ended, run

    def _mend(self) -> None:
        """Mend until everything is proven equal."""
        for _ in range(_MENDS):
            self.totals.mending_runs += 1
            code, said, _ = self._verify("--repair", "apply")
            if code == 0:
                return
        self.totals.unmended += len(said["findings"])

    def _verify(self, *args: str) -> tuple[int, dict[str, Any], float]:
        """Verify everything; return the exit code, the report and the seconds it took."""
        began = time.monotonic()
        done = self.stream.verify("--json", *args)
        seconds = time.monotonic() - began
        assert done.stdout, f"exit {done.returncode}: {done.stderr}"
        said = json.loads(done.stdout)
        undecided = [
            {"replica": replica["name"], "table": table["table"], **one}
            for replica in said["replicas"]
            for table in replica["tables"]
            for one in table["undecided"]
        ]
        self.totals.undecided += undecided
        troubles = [r["trouble"] for r in said["replicas"]] + [t["trouble"] for t in _tables(said)]
        self.report.write(
            "run",
            arguments=args,
            exit=done.returncode,
            seconds=round(seconds, 2),
            rows=sum(t["rows"] for t in _tables(said)),
            candidates=sum(t["candidates"] for t in _tables(said)),
            resolved=sum(t["resolved"] for t in _tables(said)),
            mended=sum(t["mended"] for t in _tables(said)),
            findings=[faults.found(one) for one in said["findings"]],
            undecided=undecided,
            troubles=[trouble for trouble in troubles if trouble],
            uncovered=said["uncovered"],
        )
        return done.returncode, said, seconds

    def _inject(self, batch: Sequence[Fault]) -> None:
        for fault in batch:
            with psycopg.connect(self.stream.dsn(fault.replica)) as conn:
                faults.inject(conn, fault)
        self.totals.injected += len(batch)
        self.totals.rows_spoiled += sum(len(fault.expected) for fault in batch)

    def _spoil_written(self) -> _Written:
        """Spoil a row that the writers write often: the stream may heal it at any time."""
        while True:
            g = self.chance.randrange(1, 100) * 10 + self.chance.randrange(1, 4)
            replica = self.chance.choice(list(self.stream.replicas))
            version = self.stream.sql(
                replica,
                "UPDATE s.wide SET code = 'zzz' WHERE id = %s AND code <> 'zzz'"
                " RETURNING xmin::text || ctid::text",
                [g],
            )
            if version:
                found: Found = (replica, "s.wide", "different", (("id", str(g)),), 1)
                return _Written(replica, g, version[0][0], found)

    def _stands(self, one: _Written) -> bool:
        """Tell whether the spoilt row has not been written over since."""
        now = self.stream.sql(
            one.replica, "SELECT xmin::text || ctid::text FROM s.wide WHERE id = %s", [one.g]
        )
        return now == [(one.version,)]

    def _count(self, judged: Judgement) -> None:
        self.totals.missed += judged.missed
        self.totals.false += judged.false
        self.totals.wrong += judged.wrong

    @contextlib.contextmanager
    def _under_writes(self, what: str) -> Iterator[None]:
        """Write, and let daemons stand still now and then; then compare without `cdc-verify`."""
        seed = self.chance.randrange(1 << 30)
        over = threading.Event()
        stalls = threading.Thread(target=self._stall, args=[over, random.Random(seed)])
        writer = running.Program(
            "--dsn", self.stream.primary, "--rate", str(self.rate), "--seed", str(seed),
            script=_TRAFFIC,
        )  # fmt: skip
        stalls.start()
        try:
            assert writer.line() == {"writing": True}
            yield
            assert writer.running, "the writers have ended"
            wrote = writer.stop()
        finally:
            writer.kill()
            over.set()
            stalls.join()
        self._caught_up()
        differences = compare.differences(
            {"primary": self.stream.primary, **self.stream.replicas}, rows.NAMES
        )
        self.report.write("compared", what=what, differences=differences, wrote=wrote)
        self.totals.differences += differences
        self.totals.transactions += wrote["transactions"]
        self.totals.updates_of_one_row += wrote["of_one_row"]
        self.totals.writing_seconds += wrote["seconds"]

    def _stall(self, over: threading.Event, chance: random.Random) -> None:
        """Stop a daemon, let it go on, again and again."""
        while not over.wait(chance.uniform(1, 7 * self.stall)):
            daemon = chance.choice(self.daemons)
            seconds = chance.uniform(0.1, self.stall)
            began = time.monotonic()
            daemon.send_signal(signal.SIGSTOP)
            over.wait(seconds)
            daemon.send_signal(signal.SIGCONT)
            stood = time.monotonic() - began
            self.totals.stalls += 1
            self.totals.stalled_seconds += stood
            self.report.write("stall", pid=daemon.pid, seconds=round(stood, 2))

    def _caught_up(self) -> None:
        for replica in self.stream.replicas:
            self.stream.cdc("wait", "-r", replica, "--now", "--timeout", "120s")


@dataclasses.dataclass(frozen=True, slots=True)
class _Written:
    """A spoilt row g of `s.wide` that the writers write, and its version then."""

    replica: str
    g: int
    version: str
    found: Found


def _tables(said: dict[str, Any]) -> list[dict[str, Any]]:
    return [table for replica in said["replicas"] for table in replica["tables"]]


def _result(said: dict[str, Any]) -> dict[str, Any]:
    """Return what two runs over the same faults must agree on, whatever was written meanwhile."""
    return {
        "exit": said["exit_code"],
        "findings": sorted(map(str, map(faults.found, said["findings"]))),
        "proven": [table["proven"] for table in _tables(said)],
        "uncovered": said["uncovered"],
    }
