"""The directory of one stack: where things lie, and what was chosen once and is kept."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import pwd
import random
import secrets
import shutil
import socket
import subprocess
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from cdc.errors import InstallationError, UsageError
from cdc.local.processes import Owner

#: Below the range that systems give to outgoing connections, so that a kept port stays free.
_PORTS = range(20_000, 32_000)


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is chosen at the first `up` and kept: names, ports, identities.

    `servers` is where the PostgreSQL data directories lie; `written` is the sha256 of the cdc.toml
    we wrote last, to leave an edited one alone.
    """

    version: int = 1
    name: str = "app"
    replicas: tuple[str, ...]
    tables: tuple[str, ...]
    exclude: tuple[str, ...]
    ports: dict[str, int]
    cluster_id: str
    servers: str
    written: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """The paths below a stack's directory."""

    folder: Path

    @property
    def state_file(self) -> Path:
        return self.folder / "state.json"

    @property
    def config(self) -> Path:
        return self.folder / "cdc.toml"

    @property
    def pgpass(self) -> Path:
        return self.folder / "pgpass"

    @property
    def connect_secrets(self) -> Path:
        return self.folder / "connect-secrets.properties"

    @property
    def plugins(self) -> Path:
        return self.folder / "plugins"

    def log(self, component: str) -> Path:
        return self.folder / "logs" / f"{component}.log"

    def pid_file(self, component: str) -> Path:
        return self.folder / "run" / f"{component}.pid"

    def settings(self, component: str) -> Path:
        return self.folder / "etc" / f"{component}.properties"

    def data(self, component: str) -> Path:
        return self.folder / "data" / component

    def exists(self) -> bool:
        return self.state_file.is_file()

    def read(self) -> State:
        """Return the kept state; UsageError when there is no stack here."""
        try:
            return msgspec.json.decode(self.state_file.read_bytes(), type=State)
        except FileNotFoundError:
            raise UsageError(
                f"there is no local stack in {self.folder}",
                safe="nothing was changed",
                next="start one with `cdc local up`, or name its directory with --dir",
            ) from None
        except msgspec.MsgspecError as error:
            raise InstallationError(
                f"{self.state_file} cannot be read: {error}",
                safe="nothing was changed",
                next="restore the file, or remove the directory and start a new stack",
            ) from error

    def write(self, state: State) -> None:
        fresh = self.state_file.with_suffix(".new")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(state)) + b"\n")
        fresh.replace(self.state_file)

    def create(self) -> None:
        for name in ("logs", "run", "etc", "data"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let one `up` or `down` at a time work here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def remove(self, state: State) -> None:
        """Remove everything a stack has made here, and the directory once it is empty."""
        shutil.rmtree(state.servers, ignore_errors=True)
        for name in ("logs", "run", "etc", "data", "plugins", "postgres", "state"):
            path = self.folder / name
            if path.is_symlink():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)
        for file in (
            self.config,
            self.pgpass,
            self.connect_secrets,
            self.folder / ".lock",
            self.state_file,
        ):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def new_state(
    layout: Layout, replicas: int, tables: Sequence[str], exclude: Sequence[str]
) -> State:
    """Choose what a new stack keeps; creates the folder of its PostgreSQL servers."""
    names = replica_names(replicas)
    return State(
        replicas=names,
        tables=tuple(tables),
        exclude=tuple(exclude),
        ports=free_ports(
            [
                "kafka",
                "controller",
                "connect",
                "primary",
                *names,
                *(f"{name}.listen" for name in names),
            ],
            taken=(),
        ),
        cluster_id=urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode(),
        servers=str(_servers(layout)),
    )


def replica_names(count: int) -> tuple[str, ...]:
    return tuple(f"r{number}" for number in range(1, count + 1))


def free_ports(names: Sequence[str], taken: Sequence[int]) -> dict[str, int]:
    """Return a free loopback port for each name, none of them in `taken`."""
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
            if len(chosen) == len(names):
                break
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                if port not in taken:
                    chosen[names[len(chosen)]] = port
    return chosen


def owner() -> Owner | None:
    """Return the user PostgreSQL runs as when we are root, which it refuses to be; else None."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Owner(entry.pw_uid, entry.pw_gid)
    raise InstallationError(
        "PostgreSQL does not run as root and there is no user `postgres` or `nobody` to run it as",
        safe="nothing was started",
        next="useradd --system postgres",
    )


def usable_by(path: Path, user: Owner | None, mode: str = "-x") -> bool:
    """Tell whether `user` may enter or run (`-x`), or read (`-r`), `path`."""
    if user is None:
        return True
    return (
        subprocess.run(
            ["test", mode, path],
            user=user.uid,
            group=user.gid,
            extra_groups=[],
            cwd="/",
            check=False,
        ).returncode
        == 0
    )


def _servers(layout: Layout) -> Path:
    """Return a folder for data directories that PostgreSQL's user can reach.

    That is `postgres` in the stack's directory; below a private one (/root, a test's temporary
    directory) it is a folder under /var/tmp and `postgres` a link to it.
    """
    inside = layout.folder / "postgres"
    if usable_by(layout.folder, owner()):
        inside.mkdir(exist_ok=True)
        return inside
    shared = (Path("/var/tmp"), Path(tempfile.gettempdir()))  # noqa: S108 -- the name is unguessable
    roots = [root for root in shared if usable_by(root, owner())]
    if not roots:
        raise InstallationError(
            f"the user PostgreSQL runs as cannot enter {layout.folder}",
            safe="nothing was started",
            next="choose a directory that every user may enter with --dir",
        )
    outside = roots[0] / f"cdc-local-{secrets.token_hex(6)}"
    outside.mkdir(mode=0o711)
    inside.symlink_to(outside)
    return outside
