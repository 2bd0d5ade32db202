"""From `pip install` to a verified replica on servers that nobody's tool has started: a timeline.

Two PostgreSQL servers, Kafka and Kafka Connect are started by their own programs with the settings
of docker/kafka; then the lines of docs/install.md between the marks are typed, one by one, in a
terminal, by somebody who answers when a password is asked for. Only what stands for a person's own
in the document (db1, kafka1, the file of the worker) is replaced.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import requests

from cdc.local import artifacts, layout

ROOT = Path(__file__).parents[1]
TYPED = re.compile(r"<!-- typed from here -->\n(.*)<!-- to here -->", re.DOTALL)
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: Scale of pgbench's tables on the primary: half a million rows, 80 MB.
SCALE = 5

#: What was asked for: seconds from the first line typed to a replica proven equal.
LIMIT = 600.0


def lines(document: str) -> list[str]:
    """Return the commands of the document, each whole with its continued lines."""
    marked = TYPED.search(document)
    assert marked is not None
    text = "".join(BLOCK.findall(marked[1])).replace("\\\n", "")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


class Terminal:
    """A shell with a terminal, for psql asks for a password there and nowhere else."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], answers: Mapping[str, str]
    ) -> None:
        self._answers = answers
        self._mark = f"ended-{secrets.token_hex(6)}"
        # The mark comes from the shell alone: typed after a line, psql would take it for a password.
        after = {"PS1": "", "PROMPT_COMMAND": f"printf '\\n{self._mark} %s\\n' $?"}
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            shell = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
            os.execvpe("bash", shell, {**environment, **after})
        self.said, self._user = "", ""
        self._ended()
        self.type("stty -echo; set -o pipefail")

    def type(self, line: str) -> int:
        """Type a line, answer what is asked, wait for its end, return its exit code."""
        os.write(self._fd, f"{line}\n".encode())
        return self._ended()

    def _ended(self, timeout: float = 300) -> int:
        seen, answered, deadline = "", 0, time.monotonic() + timeout
        while not (ended := re.search(rf"^{self._mark} (\d+)\r?$", seen, re.MULTILINE)):
            assert time.monotonic() < deadline, seen
            if select.select([self._fd], [], [], 1)[0]:
                seen += os.read(self._fd, 65536).decode(errors="replace")
            asked = re.search(r"(?:password for user \"([^\"]+)\"|it again):\s*$", seen[answered:])
            if asked:
                self._user = asked[1] or self._user
                answered = len(seen)
                os.write(self._fd, (self._answers[self._user] + "\n").encode())
        self.said = seen[: ended.start()].replace("\r", "").strip()
        return int(ended[1])

    def close(self) -> None:
        os.kill(self._pid, signal.SIGHUP)
        os.waitpid(self._pid, 0)


class Servers:
    """What an adopter has: two servers, a broker, a worker, each with settings written by hand."""

    def __init__(self, folder: Path) -> None:
        found = artifacts.fetch(artifacts.cache_folder(), print)
        # Where PostgreSQL's user, who may not enter our cache, can run them.
        wheel = found.postgres_bin.parents[2]
        shutil.copytree(wheel, folder / "programs", symlinks=True)
        self.bin = folder / "programs" / found.postgres_bin.relative_to(wheel)
        self.folder, self.jars = folder, found.jars
        self.plugins = folder / "plugins"
        self.connect_secret = folder / "worker-secret.properties"
        self.ports = layout.free_ports(["db1", "db2", "kafka", "controller", "connect"], taken=())
        self.passwords = {name: secrets.token_urlsafe(12) for name in ("postgres", "cdc", "cdc_app_connector")}  # fmt: skip
        user = layout.owner()
        #: PostgreSQL refuses to be root.
        self._as: dict[str, Any] = (
            {"user": user.uid, "group": user.gid, "extra_groups": []} if user else {}
        )
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        debezium = self.plugins / "debezium-connector-postgres"
        debezium.mkdir(parents=True)
        for jar in found.debezium.iterdir():
            shutil.copy2(jar, debezium)

    def _start(self, name: str, argv: Sequence[str | Path], *, database: bool = False) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                argv, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                **(self._as if database else {}),
            )  # fmt: skip

    def postgres(self, name: str, *settings: str) -> None:
        """Make and start a server that lets everybody in by password."""
        data, secret = self.folder / name, self.folder / f"{name}.password"
        data.mkdir(mode=0o700)
        secret.write_text(self.passwords["postgres"], encoding="ascii")
        for path in (data, secret):
            if self._as:
                os.chown(path, self._as["user"], self._as["group"])
        subprocess.run(
            [self.bin / "initdb", "-D", data, "-U", "postgres", "--pwfile", secret, "-A", "scram-sha-256",
             "-E", "UTF8", "--no-locale", "--no-sync"],
            check=True, capture_output=True, cwd=self.folder,
            **self._as,
        )  # fmt: skip
        given = [
            "listen_addresses=127.0.0.1",
            f"port={self.ports[name]}",
            "unix_socket_directories=",
            *settings,
        ]
        options = [word for setting in given for word in ("-c", setting)]
        self._start(name, [self.bin / "postgres", "-D", data, *options], database=True)

    def superuser(
        self, name: str, database: str = "postgres"
    ) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host="127.0.0.1", port=self.ports[name], user="postgres", dbname=database,
                               password=self.passwords["postgres"], autocommit=True, connect_timeout=3)  # fmt: skip

    def _java(self, main: str, settings: Path) -> list[str | Path]:
        return ["java", "-Xmx768m", "-Duser.timezone=UTC", f"-Dlog4j2.configurationFile={ROOT}/cdc/local/log4j2.xml",
                "-cp", f"{self.jars}/*", *main.split(), settings]  # fmt: skip

    def _settings(self, name: str) -> Path:
        """Write the settings of docker/kafka with the addresses of here."""
        text = (ROOT / f"docker/kafka/{name}.properties").read_text(encoding="utf-8")
        here = {"1@kafka:9093": f"1@127.0.0.1:{self.ports['controller']}", "://kafka:9092": f"://127.0.0.1:{self.ports['kafka']}",
                "://:9092": f"://127.0.0.1:{self.ports['kafka']}", "://:9093": f"://127.0.0.1:{self.ports['controller']}",
                "=kafka:9092": f"=127.0.0.1:{self.ports['kafka']}", "://:8083": f"://127.0.0.1:{self.ports['connect']}",
                "/var/lib/kafka/data": str(self.folder / "log"), "/opt/kafka/plugins": str(self.plugins),
                "/run/secrets": str(self.folder)}  # fmt: skip
        for theirs, ours in here.items():
            text = text.replace(theirs, ours)
        (written := self.folder / f"{name}.properties").write_text(text, encoding="utf-8")
        return written

    def kafka(self) -> None:
        broker = self._settings("broker")
        subprocess.run(self._java("kafka.tools.StorageTool format --cluster-id=5L6g3nShT-eMCtK--X86sw -c", broker),
                       check=True, capture_output=True)  # fmt: skip
        self._start("kafka", self._java("kafka.Kafka", broker))
        until("Kafka answers", lambda: _open(self.ports["kafka"]))

    def connect(self) -> None:
        """Start the worker, or start it again."""
        if running := self._running.pop("connect", None):
            running.terminate()
            running.wait(60)
        self.connect_secret.write_text(
            f"password={self.passwords['cdc_app_connector']}\n", encoding="ascii"
        )
        self._start(
            "connect",
            self._java("org.apache.kafka.connect.cli.ConnectDistributed", self._settings("worker")),
        )
        until(
            "Kafka Connect answers",
            lambda: _healthy(f"http://127.0.0.1:{self.ports['connect']}/health"),
        )

    def stop(self) -> None:
        """Stop what was started, Kafka Connect first."""
        for name, number in (("connect", signal.SIGTERM), ("kafka", signal.SIGTERM),
                             ("db1", signal.SIGINT), ("db2", signal.SIGINT)):  # fmt: skip
            if running := self._running.get(name):
                running.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(30)
                running.kill()
                running.wait()


def _open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _healthy(url: str) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(url, timeout=5).ok
    return False


def until(what: str, condition: Callable[[], bool], timeout: float = 180) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.1)


def accepts(servers: Servers, name: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        servers.superuser(name).close()
        return True
    return False


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Servers]:
    """Give the servers of an adopter, the primary with pgbench's tables and a load of writes."""
    folder.chmod(0o755)
    servers = Servers(folder)
    writing = None
    try:
        servers.postgres("db1", "wal_level=logical")
        servers.postgres("db2")
        servers.kafka()
        servers.connect()
        for name in ("db1", "db2"):
            until(f"{name} answers", lambda name=name: accepts(servers, name))  # type: ignore[misc] # mypy: lambda with a default
            with servers.superuser(name) as conn:
                conn.execute("CREATE DATABASE app")
        pgbench: list[str | Path] = [
            servers.bin / "pgbench",
            "-h",
            "127.0.0.1",
            "-p",
            str(servers.ports["db1"]),
            "-U",
            "postgres",
        ]
        secret = os.environ | {"PGPASSWORD": servers.passwords["postgres"]}
        subprocess.run([*pgbench, "-i", "-q", "-s", str(SCALE), "--foreign-keys", "app"],
                       env=secret, check=True, capture_output=True)  # fmt: skip
        with servers.superuser("db1", "app") as conn:
            # It has no primary key.
            conn.execute("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")
        writing = subprocess.Popen([*pgbench, "-n", "-R", "50", "-T", "3600", "app"], env=secret,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        yield servers
    finally:
        if writing:
            writing.terminate()
            writing.wait()
        servers.stop()


def told(line: str, servers: Servers, wheel: Path) -> str:
    """Return a line of the document with what stands there for a person's own replaced."""
    for name in ("db1", "db2"):
        line = re.sub(rf"\bhost={name}\b", f"host=127.0.0.1 port={servers.ports[name]}", line)
    for theirs, ours in {
        "cdc_replica-….whl": str(wheel),
        "kafka1:9092": f"127.0.0.1:{servers.ports['kafka']}",
        "http://connect:8083": f"http://127.0.0.1:{servers.ports['connect']}",
        "/opt/kafka/plugins": str(servers.plugins),
    }.items():
        line = line.replace(theirs, ours)
    return line


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is stopped
    document = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(
        prefix="cdc-by-hand-", dir="/var/tmp"
    ) as name:  # PostgreSQL's user must get there
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
                       check=True, capture_output=True)  # fmt: skip
        (wheel,) = folder.glob("*.whl")
        (here := folder / "empty").mkdir()
        venv.create(here / "venv", with_pip=True)
        with running(folder) as servers:
            began = time.monotonic()
            print(
                f"servers run, {SCALE * 100_000:,} rows in the primary's largest table; typing docs/install.md"
            )
            passfile = here / "pgpass"
            passfile.write_text(
                "".join(f"*:*:*:{u}:{p}\n" for u, p in servers.passwords.items()), encoding="ascii"
            )
            passfile.chmod(0o600)
            environment = {
                "HOME": str(here), "PGPASSFILE": str(passfile), "TERM": "dumb", "LANG": "C.UTF-8",
                "PATH": f"{here / 'venv/bin'}:{servers.bin}:/usr/bin:/bin", "CDC_PG_BIN": str(servers.bin),
            } | {k: v for k, v in os.environ.items() if k.startswith("PIP_") or k.endswith("_CA_BUNDLE")}  # fmt: skip
            terminal = Terminal(here, environment, servers.passwords)
            try:
                for line in lines(document):
                    started = time.monotonic()
                    if line.startswith("systemctl restart kafka-connect"):
                        servers.connect()
                        code = 0
                    else:
                        code = terminal.type(told(line, servers, wheel))
                    print(
                        f"{time.monotonic() - began:6.1f} s  {time.monotonic() - started:6.1f} s  {line[:100]}",
                        flush=True,
                    )
                    if line.startswith("cdc init"):  # what the text there tells to read through
                        file = f"s,/etc/kafka-connect/cdc.properties,{servers.connect_secret},"
                        assert terminal.type(f"sed -i {file} cdc.toml") == 0
                    if code:
                        print(terminal.said)
                        return 1
                print(terminal.said)
            finally:
                terminal.type("kill %1; wait")
                terminal.close()
            took = time.monotonic() - began
            print(f"{took:.0f} s from pip install to a replica proven equal")
    return int(took > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
