"""A whole stack: up, down, status."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from cdc.errors import InstallationError, UsageError
from cdc.local import artifacts, configuration, layout, pgpass, postgres_server, processes, programs
from cdc.local.artifacts import Artifacts
from cdc.local.connect_worker import ConnectWorker
from cdc.local.kafka import Kafka
from cdc.local.layout import Layout, State
from cdc.local.postgres_server import PostgresServer
from cdc.local.processes import Launch, Process

#: Seconds a component may take to answer; cold and on a busy machine Connect has taken 40.
START_TIMEOUT = 180.0
DEFAULT_REPLICAS = 2


class Component(Protocol):
    """One background process of the stack: a broker, a worker, a server."""

    @property
    def name(self) -> str: ...
    @property
    def stop_signals(self) -> Sequence[tuple[int, float]]: ...
    def prepare(self) -> None: ...
    def launch(self) -> Launch: ...
    def ready(self) -> bool: ...
    def settle(self) -> None: ...
    def stopped(self) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What `up` was asked for; None keeps what the stack has, or the default for a new one."""

    replicas: int | None = None
    tables: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """What runs: `pids` holds None for a component that does not."""

    config: Path
    primary: str
    replicas: dict[str, str]
    kafka: str
    connect: str
    pids: dict[str, int | None]

    @property
    def running(self) -> bool:
        return all(self.pids.values())


def up(folder: Path, wanted: Wanted, note: Callable[[str], None]) -> Status:
    """Start what does not run yet; harmless when all does.

    Raises InstallationError naming the component that did not start, with the end of its log;
    what this call started has been stopped again by then.
    """
    began = time.monotonic()
    where = Layout(folder.absolute())
    programs.java()  # without it nothing below makes sense, the download least
    found = artifacts.fetch(artifacts.cache_folder(), note)
    with where.locked():
        where.create()
        state = _state(where, wanted)
        servers = _servers(where, state, found.postgres_bin)
        pgpass.complete(where.pgpass, [server.port for server in servers])
        postgres_server.share_programs(Path(state.servers), found.postgres_bin)
        state, ours = configuration.write(where, state, servers)
        where.write(state)
        if not ours:
            note(f"{where.config} has been edited: it stays as it is")
        start(where, _components(where, state, found), note)
    note(f"up in {time.monotonic() - began:.1f} s: {where.config}")
    return status(folder)


def down(folder: Path, *, purge: bool, note: Callable[[str], None]) -> None:
    """Stop everything; with `purge` remove the data and all else `up` has made."""
    where = Layout(folder.absolute())
    state = where.read()
    with where.locked():
        # Connect first: it flushes its offsets to Kafka and closes its slot on the primary.
        names = [["connect"], ["kafka", *_server_names(state)]]
        # Stopping needs no programs: neither the cache nor the network.
        known = {c.name: c for c in _components(where, state, Artifacts(Path(), Path(), Path()))}
        for group in names:
            _each(lambda name: _stop(where, known[name], note), group)
        if purge:
            where.remove(state)
            note(f"removed {folder}")


def status(folder: Path) -> Status:
    """Return where everything is and what runs; UsageError when there is no stack."""
    where = Layout(folder.absolute())
    state = where.read()
    servers = _servers(where, state, Path())
    running = {name: processes.recorded(where.pid_file(name)) for name in component_names(state)}
    return Status(
        config=where.config,
        primary=servers[0].dsn("postgres"),
        replicas={server.name: server.dsn("postgres") for server in servers[1:]},
        kafka=f"127.0.0.1:{state.ports['kafka']}",
        connect=f"http://127.0.0.1:{state.ports['connect']}",
        pids={name: process.pid if process else None for name, process in running.items()},
    )


def component_names(state: State) -> list[str]:
    return ["kafka", "connect", *_server_names(state)]


def _server_names(state: State) -> list[str]:
    return ["primary", *state.replicas]


def _servers(where: Layout, state: State, programs: Path) -> list[PostgresServer]:
    return [PostgresServer(name, where, state, programs) for name in _server_names(state)]


def _components(where: Layout, state: State, found: Artifacts) -> list[Component]:
    return [
        Kafka(where, state, found.jars),
        ConnectWorker(where, state, found.jars, found.debezium),
        *_servers(where, state, found.postgres_bin),
    ]


def _state(where: Layout, wanted: Wanted) -> State:
    """Return the state to run with: a new one, or the kept one with what was asked for changed."""
    if not where.exists():
        return layout.new_state(
            where,
            DEFAULT_REPLICAS if wanted.replicas is None else wanted.replicas,
            wanted.tables or ("*.*",),
            wanted.exclude or (),
        )
    kept = where.read()
    names = kept.replicas if wanted.replicas is None else layout.replica_names(wanted.replicas)
    if len(names) < len(kept.replicas):
        raise UsageError(
            f"the stack in {where.folder} has {len(kept.replicas)} replicas, more than {len(names)}",
            safe="nothing was changed",
            next="start it with as many, or begin anew after `cdc local down --purge`",
        )
    added = [port for name in names[len(kept.replicas) :] for port in (name, f"{name}.listen")]
    return msgspec.structs.replace(
        kept,
        replicas=names,
        ports=kept.ports | layout.free_ports(added, taken=tuple(kept.ports.values())),
        tables=kept.tables if wanted.tables is None else wanted.tables,
        exclude=kept.exclude if wanted.exclude is None else wanted.exclude,
    )


def start(where: Layout, components: Sequence[Component], note: Callable[[str], None]) -> None:
    """Start all at once; when one fails, stop those this call has started."""
    started: list[Component] = []
    failed = threading.Event()
    try:
        _each(lambda component: _start(where, component, started, failed, note), components, failed)
    except BaseException:
        failed.set()
        _each(lambda component: _stop(where, component, lambda _: None), started)
        raise


def _start(
    where: Layout,
    component: Component,
    started: list[Component],
    failed: threading.Event,
    note: Callable[[str], None],
) -> None:
    name, began = component.name, time.monotonic()
    log = where.log(name)
    since = log.stat().st_size if log.exists() else 0
    running = processes.recorded(where.pid_file(name))
    if running is None:
        component.prepare()
        if failed.is_set():
            return
        started.append(component)
    process = running or processes.start(component.launch(), log, where.pid_file(name))
    if _answers(component, process, failed):
        component.settle()
        took = f"{time.monotonic() - began:5.1f} s  pid {process.pid}"
        note(f"  {name:<8} {'runs already' if running else took}")
    elif not (failed.is_set() and process.alive()):
        raise _not_started(component, process, processes.tail(log, 15, 0 if running else since))


def _answers(component: Component, process: Process, failed: threading.Event) -> bool:
    """Wait until the component answers; False when it ended, is too late or another one failed."""
    deadline = time.monotonic() + START_TIMEOUT
    while process.alive() and time.monotonic() < deadline and not failed.is_set():
        if component.ready():
            return True
        failed.wait(0.1)
    return False


def _not_started(component: Component, process: Process, log_end: str) -> InstallationError:
    late = f"did not answer within {START_TIMEOUT:.0f} s"
    happened = late if process.alive() else "ended while starting"
    lines = "\n".join("    " + line for line in log_end.splitlines())
    return InstallationError(
        f"{component.name} {happened}; the end of its log:\n{lines}",
        safe="what this command started has been stopped again; data is kept",
        next="mend the cause and run `cdc local up` again, or begin anew after "
        "`cdc local down --purge`",
    )


def _stop(where: Layout, component: Component, note: Callable[[str], None]) -> None:
    pid_file = where.pid_file(component.name)
    began = time.monotonic()
    process = processes.recorded(pid_file)
    if process:
        processes.stop(process, component.stop_signals)
    component.stopped()
    pid_file.unlink(missing_ok=True)
    if process:
        note(f"  {component.name:<8} stopped in {time.monotonic() - began:.1f} s")


def _each(
    action: Callable[[Any], None], items: Sequence[Any], failed: threading.Event | None = None
) -> None:
    """Do `action` to all items at once; raise the first error after all have ended."""
    if not items:
        return
    with concurrent.futures.ThreadPoolExecutor(len(items)) as pool:
        futures = [pool.submit(action, item) for item in items]
        try:
            done, _ = concurrent.futures.wait(
                futures, return_when=concurrent.futures.FIRST_EXCEPTION
            )
            lost = any(future.exception() for future in done)
        except BaseException:  # an interrupt: let the threads end before it goes on
            lost = True
            raise
        finally:
            if failed and lost:
                failed.set()
    for future in futures:
        future.result()
