"""A stack whose every listener demands TLS and knows who comes: broker, worker, servers.

The components are those of `cdc local` with other settings. The broker's plain listener is for itself
and for what tests look up; nothing under test is told of it.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import hashlib
import os
import secrets
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import authority
import harness
import leftovers
import msgspec
import pytest
import requests
from authority import Authority, Identity
from harness import Stack
from psycopg import conninfo

from cdc.local import artifacts, layout, pgpass, postgres_server, programs
from cdc.local import stack as stacks
from cdc.local.connect_worker import ConnectWorker
from cdc.local.kafka import Kafka
from cdc.local.layout import Layout
from cdc.local.postgres_server import PostgresServer
from cdc.local.processes import Launch

HOST = "127.0.0.1"

#: What asks for user and password at Connect's REST interface; `cdc local` does not have it.
_BASIC_AUTH = "connect-basic-auth-extension"
_BASIC_AUTH_VERSION = "4.3.0"
_BASIC_AUTH_SHA256 = "14e5b1b93717ff58bb64af7e2fac0c755685de2ba0bacdc6721b7ccb2af80b47"

#: Rounds of SCRAM's hash: the least that Kafka takes.
_ROUNDS = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    """Everything that opens a door: certificates by who holds them, and secrets by what for.

    Not so what is of the `stranger`, and the certificates `expired` and `foreign`.
    """

    authority: Authority
    stranger: Authority
    holders: dict[str, Identity]
    expired: Identity
    foreign: Identity
    secrets: dict[str, str]

    @classmethod
    def made(cls, folder: Path) -> Keys:
        folder.mkdir()
        ours = Authority(folder / "ours", "ours")
        names = ("kafka-cdc", "kafka-worker", "rest", "key-cdc", "key-capture", "keystore")
        known = {name: f"{name}-{secrets.token_hex(12)}" for name in names}
        servers = ("broker", "primary", "r1")
        theirs = Authority(folder / "theirs", "theirs")
        return cls(
            ours,
            theirs,
            {
                **{name: ours.issue(name, host=HOST) for name in servers},
                "worker": ours.issue("worker", host=HOST, password=known["keystore"]),
                "cdc": ours.issue("cdc", password=known["key-cdc"]),
                "capture": ours.issue("capture", password=known["key-capture"]),
                "rest": ours.issue("rest"),
            },
            ours.issue("cdc", expired=True),
            theirs.issue("cdc"),
            known,
        )


@dataclasses.dataclass(frozen=True)
class Broker(Kafka):
    """With TLS, TLS that asks for a certificate, and SCRAM over TLS, each on a port of its own."""

    keys: Keys

    def _format(self, settings: Path) -> list[str]:
        users = [
            f"--add-scram=SCRAM-SHA-512={_scram(user, self.keys.secrets[f'kafka-{user}'])}"
            for user in ("cdc", "worker")
        ]
        return [*super()._format(settings), *users]

    def _properties(self) -> str:
        ports = self.state.ports
        names = ("TLS", "MTLS", "SCRAM")
        listeners = ",".join(f"{name}://{HOST}:{ports[name.lower()]}" for name in names)
        plain = f"PLAINTEXT://{HOST}:{ports['kafka']}"
        return f"""\
{super()._properties()}
listeners={plain},CONTROLLER://{HOST}:{ports["controller"]},{listeners}
advertised.listeners={plain},{listeners}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,TLS:SSL,MTLS:SSL,SCRAM:SASL_SSL
ssl.keystore.type=PEM
ssl.keystore.location={self.keys.holders["broker"].both}
ssl.truststore.type=PEM
ssl.truststore.location={self.keys.authority.certificate}
listener.name.mtls.ssl.client.auth=required
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config={_SCRAM} required;
"""


_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


def _scram(user: str, password: str) -> str:
    """Return what a broker keeps of a password, which itself would stand in a command line."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS)
    said = {"salt": b64encode(salt).decode(), "saltedpassword": b64encode(salted).decode()}
    parts = [f"name={user}", f"iterations={_ROUNDS}", *(f'{k}="{v}"' for k, v in said.items())]
    return f"[{','.join(parts)}]"


@dataclasses.dataclass(frozen=True)
class Worker(ConnectWorker):
    """Reaches Kafka by SCRAM over TLS; its REST interface asks for certificate, user and password."""

    keys: Keys
    extension: Path

    @property
    def address(self) -> str:
        return f"https://{HOST}:{self.state.ports['connect']}"

    @property
    def _login(self) -> Path:
        return self.layout.settings("connect").with_suffix(".jaas")

    def prepare(self) -> None:
        super().prepare()
        users = self._login.with_suffix(".users")
        _private(users, f"cdc={self.keys.secrets['rest']}\n")
        module = "org.apache.kafka.connect.rest.basic.auth.extension.PropertyFileLoginModule"
        _private(self._login, f'KafkaConnect {{ {module} required file="{users}"; }};\n')
        known = self.keys.secrets
        with self.layout.connect_secrets.open("a", encoding="ascii") as file:
            file.write(f"kafka={known['kafka-worker']}\ncapture={known['key-capture']}\n")
            file.write(f"keystore={known['keystore']}\n")

    def launch(self) -> Launch:
        plain = super().launch()
        java, *rest = plain.argv
        at = rest.index("-cp") + 1
        rest[at] += f":{self.extension}"
        login = f"-Djava.security.auth.login.config={self._login}"
        return dataclasses.replace(plain, argv=(java, login, *rest))

    def _get(self, path: str, timeout: float) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            session.verify = str(self.keys.authority.certificate)
            person = self.keys.holders["rest"]
            session.cert = (str(person.certificate), str(person.key))
            session.auth = ("cdc", self.keys.secrets["rest"])
            return session.get(self.address + path, timeout=timeout)

    def _properties(self) -> str:
        held = self.keys.holders["worker"]
        return f"""\
{super()._properties()}
bootstrap.servers={HOST}:{self.state.ports["scram"]}
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config={_SCRAM} required username="worker" password="${{file:{self.layout.connect_secrets}:kafka}}";
ssl.truststore.type=PEM
ssl.truststore.location={self.keys.authority.certificate}
rest.extension.classes=org.apache.kafka.connect.rest.basic.auth.extension.BasicAuthSecurityRestExtension
listeners.https.ssl.keystore.type=PKCS12
listeners.https.ssl.keystore.location={held.pkcs12}
listeners.https.ssl.keystore.password=${{file:{self.layout.connect_secrets}:keystore}}
listeners.https.ssl.key.password=${{file:{self.layout.connect_secrets}:keystore}}
listeners.https.ssl.client.auth=required
listeners.https.ssl.truststore.type=PKCS12
listeners.https.ssl.truststore.location={self.keys.authority.truststore}
listeners.https.ssl.truststore.password={authority.TRUSTSTORE_PASSWORD}
"""


@dataclasses.dataclass(frozen=True)
class Server(PostgresServer):
    """Takes nobody without TLS; the primary knows the role `cdc` by its certificate alone."""

    keys: Keys

    def dsn(self, user: str) -> str:
        ca = str(self.keys.authority.certificate)
        return conninfo.make_conninfo(super().dsn(user), sslmode="verify-full", sslrootcert=ca)

    def prepare(self) -> None:
        super().prepare()
        held = self.keys.holders[self.name]
        self._give(self.data / "server.crt", held.certificate.read_text("ascii"))
        self._give(self.data / "server.key", held.key.read_text("ascii"))
        self._give(self.data / "ca.crt", self.keys.authority.certificate.read_text("ascii"))
        self._give(self.data / "custom.conf", "ssl = on\nssl_ca_file = 'ca.crt'\n")
        known = f"hostssl all cdc {HOST}/32 cert\n" if self.name == "primary" else ""
        self._give(self.data / "pg_hba.conf", f"{known}hostssl all all {HOST}/32 scram-sha-256\n")


def _private(path: Path, text: str) -> None:
    with open(
        path, "w", encoding="ascii", opener=lambda p, flags: os.open(p, flags, 0o600)
    ) as file:
        file.write(text)


def postgres() -> Path:
    """Return the programs of a PostgreSQL that was built with TLS; skip where there is none."""
    given = os.environ.get("CDC_PG_BIN")
    folders = [
        *([Path(given)] if given else []),
        *sorted(Path("/usr/lib/postgresql").glob("*/bin")),
    ]
    for folder in reversed(folders):
        server = folder / "postgres"
        if server.exists() and b"SSL_CTX_new" in server.read_bytes():
            return folder
    pytest.skip("no PostgreSQL server here was built with TLS: apt-get install postgresql")


def basic_auth() -> Path:
    """Return the jar that asks for user and password, which Maven fetches once."""
    folder = artifacts.cache_folder()
    jar = folder / f"{_BASIC_AUTH}-{_BASIC_AUTH_VERSION}.jar"
    if not jar.exists():
        subprocess.run(
            [
                programs.maven(),
                "-q",
                "-B",
                "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy",
                f"-Dartifact=org.apache.kafka:{_BASIC_AUTH}:{_BASIC_AUTH_VERSION}",
                f"-DoutputDirectory={folder}",
            ],
            check=True,
            capture_output=True,
        )
    assert hashlib.sha256(jar.read_bytes()).hexdigest() == _BASIC_AUTH_SHA256
    return jar


@dataclasses.dataclass(frozen=True, slots=True)
class Guarded:
    """A running stack that demands TLS everywhere; `kafka` are the broker's addresses by listener."""

    stack: Stack
    keys: Keys
    kafka: dict[str, str]
    programs: Path
    logs: Path
    connect_secrets: Path


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Guarded]:
    """Start primary, replica r1, broker and worker in `folder`, and leave nothing of them."""
    folder.parent.chmod(0o755)  # PostgreSQL's user must get through
    found = dataclasses.replace(
        artifacts.fetch(artifacts.cache_folder(), print), postgres_bin=postgres()
    )
    extension = basic_auth()
    keys = Keys.made(folder.with_name("keys"))
    where = Layout(folder)
    down = functools.partial(harness.take_down, folder)
    atexit.register(down)
    with leftovers.listed("stack", folder):
        try:
            where.create()
            state = layout.new_state(where, 1, ("*.*",), ())
            ports = layout.free_ports(["tls", "mtls", "scram"], tuple(state.ports.values()))
            state = msgspec.structs.replace(state, ports=state.ports | ports)
            servers = [
                Server(name, where, state, found.postgres_bin, keys)
                for name in ("primary", *state.replicas)
            ]
            pgpass.complete(where.pgpass, [server.port for server in servers])
            postgres_server.share_programs(Path(state.servers), found.postgres_bin)
            where.write(state)
            worker = Worker(where, state, found.jars, found.debezium, keys, extension)
            broker = Broker(where, state, found.jars, keys)
            stacks.start(where, [broker, worker, *servers], print)
            ends = {server.name: server.dsn("postgres") for server in servers}
            yield Guarded(
                Stack(where.config, ends.pop("primary"), ends, broker.address, worker.address),
                keys,
                {name: f"{HOST}:{port}" for name, port in ports.items()},
                found.postgres_bin,
                where.folder / "logs",
                where.connect_secrets,
            )
        finally:
            down()
            atexit.unregister(down)
