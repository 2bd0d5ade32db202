"""The plot: fill, flow, break, heal, mend, prove."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import psycopg

from cdc import config as configs
from cdc.local import artifacts, processes, stack
from cdc.local.demo import compare, shop
from cdc.local.demo.gauges import Gauges, Reading, place
from cdc.local.demo.load import RATE, Load
from cdc.local.demo.programs import Programs, failed
from cdc.local.demo.screen import WIDTH, Screen, Watch
from cdc.local.layout import Layout
from cdc.local.stack import Status

#: Seconds both replicas may take to be fresh again; the worker's group alone waits ten for the dead.
_PATIENCE = 180.0


def play(screen: Screen) -> bool:
    """Play the demo in a folder of its own and remove everything; tell whether the proof held."""
    began = time.monotonic()
    with _interruptible():
        screen.say(
            "One PostgreSQL primary, Debezium, Kafka and two replicas, all on this machine, all "
            "real: written to at 200 transactions a second, broken on purpose, then compared "
            "byte by byte. It lasts about a minute; Ctrl-C ends it and cleans up."
        )
        screen.blank()
        artifacts.fetch(artifacts.cache_folder(), screen.output)
        folder = Path(tempfile.mkdtemp(prefix="cdc-demo-"))
        # PostgreSQL, which does not run as root, must be able to enter.
        folder.chmod(0o711)
        programs = Programs(folder, screen)
        try:
            same = _acts(screen, programs)
        except BaseException as error:
            if isinstance(error, Exception):
                _show_logs(screen, folder)
            raise
        finally:
            _clean_up(screen, programs)
    screen.blank()
    if same:
        _farewell(screen, time.monotonic() - began)
    return same


def _acts(screen: Screen, programs: Programs) -> bool:
    programs.run("local", "up", "--dir", ".", skip=_address)
    there = stack.status(programs.folder)
    with contextlib.closing(psycopg.connect(there.primary, autocommit=True)) as primary:
        rows = shop.open_shop(primary)
    with Load(there.primary) as load:
        _fill(screen, programs, rows)
        with Gauges(configs.load(there.config), there.replicas) as gauges:
            scene = _Scene(screen, programs, load, gauges)
            _flow(scene)
            died_at = _break(scene, there)
            _heal(scene, died_at)
            _mend(scene, there)
            return _prove(scene, there)


class _Scene:
    """What the later acts share."""

    def __init__(self, screen: Screen, programs: Programs, load: Load, gauges: Gauges) -> None:
        self.screen = screen
        self.programs = programs
        self.load = load
        self.gauges = gauges
        self.states: dict[str, str] = {}

    def watch(
        self,
        seconds: float,
        done: Callable[[dict[str, Reading]], bool] | None = None,
        *,
        keep: bool = True,
    ) -> list[dict[str, Reading]]:
        """Show the table until `done`, or for `seconds`; leave it standing if it is to be kept."""
        seen, watch = [], Watch()
        deadline = time.monotonic() + seconds
        with self.screen.table(keep=keep) as show:
            while time.monotonic() < deadline:
                self.load.check()
                self.programs.check_daemons()
                seen.append(self.gauges.read())
                show(watch.rates(self.load.commits, seen[-1], self.states))
                if done is not None and done(seen[-1]):
                    return seen
                time.sleep(0.2)
        if done is not None:
            raise failed(
                f"the replicas were not fresh again within {seconds:.0f} s",
                [f"{name}: {reading}" for name, reading in seen[-1].items()],
            )
        return seen


def _fill(screen: Screen, programs: Programs, rows: int) -> None:
    screen.act(
        1,
        "fill",
        f"A shop with {rows:,} rows in 6 tables is open: {RATE:.0f} transactions a second, orders, "
        "transfers, cancellations, changed keys. Both replicas are filled meanwhile; nobody waits.",
    )
    programs.run("setup", quiet=True)
    programs.run("connectors", "apply", quiet=True)
    for replica in ("r1", "r2"):
        programs.run("bootstrap", "-r", replica)


def _flow(scene: _Scene) -> None:
    scene.screen.act(
        2,
        "flow",
        "Each replica is kept by one small daemon. Lag is the age of the newest row a reader "
        "sees there; backlog is what lies in Kafka and is not applied yet, in records.",
    )
    for replica in ("r1", "r2"):
        scene.programs.start_daemon(replica)
    scene.watch(_PATIENCE, _fresh, keep=False)
    seen = scene.watch(8.0)
    for replica in ("r1", "r2"):
        lags = sorted(readings[replica].behind * 1000 for readings in seen)
        scene.screen.fact(
            f"{replica}: lag {lags[len(lags) // 2]:,.0f} ms in the middle, {lags[-1]:,.0f} ms at "
            f"most, in {len(lags)} readings"
        )


def _break(scene: _Scene, there: Status) -> Reading:
    scene.screen.act(
        3,
        "break",
        "The daemon of r1 is killed in the middle of its work, then Kafka Connect. The shop "
        "stays open.",
    )
    daemon = scene.programs.daemons.pop("r1")
    scene.programs.kill(daemon, "      # the daemon of r1")
    died_at = scene.gauges.read()["r1"]
    scene.states["r1"] = "killed"
    scene.watch(4.0)
    scene.screen.fact("r1 stands still, r2 does not notice; what r1 misses waits in Kafka")
    connect = processes.recorded(Layout(there.config.parent).pid_file("connect"))
    if connect is None:
        raise failed("Kafka Connect does not run", [])
    scene.programs.kill(connect, "      # Kafka Connect with Debezium")
    scene.states |= {"r1": "killed", "r2": "Connect killed"}
    scene.watch(4.0)
    scene.screen.fact("nothing arrives any more; what is missed waits in the primary's own log")
    return died_at


def _heal(scene: _Scene, died_at: Reading) -> None:
    scene.screen.act(4, "heal", "Start again what died. Nothing else needs to be done.")
    scene.programs.run("local", "up", "--dir", ".", skip=_address)
    scene.programs.start_daemon("r1")
    scene.states.clear()
    healing = time.monotonic()
    scene.watch(_PATIENCE, _fresh)
    scene.screen.fact(f"both replicas are fresh again after {time.monotonic() - healing:.0f} s")
    log = scene.programs.log("r1").read_text(encoding="utf-8")
    starts = [line.split("applying ", 1)[1] for line in log.splitlines() if "applying from" in line]
    if starts[-1] != place(died_at):
        raise failed(
            "the daemon of r1 did not go on where it was killed",
            [f"killed at: {place(died_at)}", f"went on:   {starts[-1]}"],
        )
    scene.screen.fact(f"r1 was killed at its position and went on there: {starts[-1]}")
    for replica in ("r1", "r2"):
        count = scene.gauges.twice(replica)
        if count.distinct != count.applied:
            raise failed(
                f"{replica} applied {count.applied} transactions; the topic holds {count.distinct}",
                [],
            )
        scene.screen.fact(
            f"{replica}: Kafka holds {count.sent:,} transactions for it, "
            f"{count.sent - count.distinct:,} of them sent twice after the kill; applied: "
            f"{count.applied:,}, each once"
        )


#: One of the first transfers: nobody writes them again, so nothing but us can bring it back.
_SPOIL = "DELETE FROM shop.transfers WHERE transfer_id = 7"


def _mend(scene: _Scene, there: Status) -> None:
    scene.screen.act(
        5,
        "mend",
        "Somebody deletes one row of r2 by hand. cdc-verify compares every row of both replicas "
        "with the primary while the shop goes on, names it, and brings it back.",
    )
    scene.screen.command(f'cdc local psql r2 -c "{_SPOIL}"')
    with psycopg.connect(there.replicas["r2"], autocommit=True) as r2:
        r2.execute(_SPOIL)
    told = scene.programs.verify(expect=1, show=_tells)
    if not any("r2 shop.transfers missing transfer_id='7'" in line for line in told):
        raise failed("the deleted row was not named", told)
    mended = scene.programs.verify("--repair=apply", expect=0, show=_tells)
    if not any("1 difference, 1 mended" in line for line in mended):
        raise failed("the deleted row was not brought back", mended)
    scene.screen.fact("one row among all of them: found, named, brought back, proven equal again")


def _tells(line: str) -> bool:
    """Tell the lines of `cdc-verify` about rows and its claims from its table of numbers."""
    return line.startswith("r2 shop.") or " proven equal " in line


def _prove(scene: _Scene, there: Status) -> bool:
    scene.screen.act(
        6,
        "prove",
        "The shop closes. Each replica is asked to reach what is committed now; then psql writes "
        "out every table on all three servers and sha256 compares them (12 of 64 digits shown).",
    )
    scene.load.stop()
    for replica in ("r1", "r2"):
        scene.programs.run("wait", "-r", replica, "--now")
    psql = artifacts.fetch(artifacts.cache_folder(), lambda _: None).postgres_bin / "psql"
    scene.screen.command('psql -c "COPY (SELECT * FROM … ORDER BY key) TO STDOUT" | sha256sum')
    nodes = [f"{name}={dsn}" for name, dsn in {"primary": there.primary, **there.replicas}.items()]
    same = scene.programs.ask(
        [sys.executable, "-I", compare.__file__, str(psql), *nodes], scene.screen.verdict
    )
    scene.screen.fact(
        f"{scene.load.commits:,} transactions, two kills: three servers, identical"
        if same
        else "the servers are NOT identical: this must not happen, please report it",
        good=same,
    )
    return same


def _address(line: str) -> bool:
    """Tell whether a line of `cdc local up` only says where something listens."""
    return "127.0.0.1" in line or line.startswith("config ")


def _fresh(readings: dict[str, Reading]) -> bool:
    return all(r.behind < 0.5 and r.backlog < 500 for r in readings.values())


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does: cleanly."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _clean_up(screen: Screen, programs: Programs) -> None:
    """Stop everything and remove the folder; a signal meanwhile changes nothing."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    screen.blank()
    screen.say("Taking everything down …", "dim")
    programs.stop_daemons()
    if Layout(programs.folder).exists():
        stack.down(programs.folder, purge=True, note=lambda _: None)
    shutil.rmtree(programs.folder, ignore_errors=True)


def _show_logs(screen: Screen, folder: Path) -> None:
    for log in sorted((folder / "logs").glob("*.log")):
        screen.say(f"==> {log.name}")
        for line in processes.tail(log, 6).splitlines():
            screen.output(line[: WIDTH - 4])


def _farewell(screen: Screen, seconds: float) -> None:
    screen.say(
        f"Done in {seconds:.0f} s: filled, flowing, broken, healed, proved. Nothing is left behind."
    )
    screen.blank()
    screen.say("Your own stack in one command:")
    screen.command("cdc local up")
    screen.say("Your own primary in five (README.md tells the rest):")
    for command in (
        "cdc setup",
        "cdc connectors apply",
        "cdc bootstrap -r r1",
        "cdc run -r r1",
        "cdc status",
    ):
        screen.command(command)
