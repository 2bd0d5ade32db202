"""The same stack in containers, of the images of docker/compose.yaml (CDC_TEST_STACK=docker)."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import harness
from harness import ROOT, Stack
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from cdc.local import layout, versions

SERVER = """postgres -c wal_level=logical -c max_wal_senders=60 -c max_replication_slots=60
    -c max_connections=300 -c max_prepared_transactions=20"""
STATED = versions.read(versions.FILE.read_text(encoding="utf-8")) | os.environ


@contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """Give a stack of containers with a primary and two replicas."""
    subprocess.run(["docker", "compose", "build", "connect"], cwd=ROOT / "docker", check=True)
    password, port = secrets.token_hex(12), layout.free_ports(["kafka"], taken=())["kafka"]
    secret = folder / "connect-secrets.properties"
    secret.write_text(f"password={password}\n", encoding="ascii")
    with ExitStack() as up:
        network = up.enter_context(Network())
        # Beside the containers' way to the broker one for the tests, on this machine.
        kafka = _ours(folder, "broker", "broker", {
            "//:9092,": f"//:9092,HOST://:{port},", "map=": "map=HOST:PLAINTEXT,",
            "/kafka:9092": f"/kafka:9092,HOST://127.0.0.1:{port}"}).with_bind_ports(port, port)  # fmt: skip
        kafka.with_env("KAFKA_CLUSTER_ID", "5L6g3nShT-eMCtK--X86sw").with_network_aliases("kafka")
        up.enter_context(kafka.with_network(network))
        ends = {name: _postgres(up, network, name, password) for name in ("primary", "r1", "r2")}
        worker = _ours(folder, "connect", "worker", {"/run/secrets": str(folder)})
        worker.with_volume_mapping(str(secret), str(secret)).with_exposed_ports(8083)
        up.enter_context(worker.with_network(network))
        connect = f"http://{worker.get_container_host_ip()}:{worker.get_exposed_port(8083)}"
        harness.wait_until(lambda: harness.answers(f"{connect}/health"), "Connect answers", 180)
        address = f"127.0.0.1:{port}"
        stack = Stack(folder / "cdc.toml", ends.pop("primary"), ends, address, connect)
        stack.config.write_text(_configuration(stack, secret), encoding="utf-8")
        yield stack


def _ours(folder: Path, program: str, name: str, replaced: dict[str, str]) -> DockerContainer:
    text = (ROOT / f"docker/kafka/{name}.properties").read_text(encoding="utf-8")
    for theirs, ours in replaced.items():
        text = text.replace(theirs, ours)
    (settings := folder / f"{name}.properties").write_text(text, encoding="utf-8")
    container = DockerContainer("cdc-connect").with_command(f"/opt/kafka/{program} {settings}")
    return container.with_volume_mapping(str(settings), str(settings))


def _postgres(up: ExitStack, network: Network, name: str, password: str) -> str:
    """Start a server with database `app` and role `cdc`; return the superuser's DSN."""
    server = DockerContainer(STATED["CDC_POSTGRES_IMAGE"]).with_env("POSTGRES_PASSWORD", password)
    server.with_env("POSTGRES_DB", "app").with_command(SERVER).with_exposed_ports(5432)
    up.enter_context(server.with_network(network).with_network_aliases(name))
    dsn = f"host={server.get_container_host_ip()} port={server.get_exposed_port(5432)}"
    dsn += f" password={password} dbname=app user=postgres"
    harness.wait_until(lambda: harness.answers_sql(dsn), f"{name} answers")
    harness.rows(dsn, f"CREATE ROLE cdc LOGIN REPLICATION PASSWORD '{password}'")
    harness.rows(dsn, "GRANT SET ON PARAMETER session_replication_role TO cdc")
    return dsn


def _configuration(stack: Stack, secret: Path) -> str:
    ends = {"primary": stack.primary, **{f"replicas.{n}": d for n, d in stack.replicas.items()}}
    both = "".join(f'[{end}]\ndsn = "{dsn.replace("user=postgres", "user=cdc")}"\nadmin_dsn = "{dsn}"\n'
                   for end, dsn in ends.items())  # fmt: skip
    return f"""name = "app"\nstate_dir = "state"\n[kafka]\nbootstrap_servers = "{stack.kafka}"
topic = {{ replication_factor = 1, min_insync_replicas = 1 }}\n[connect]\nurl = "{stack.connect}"
[connect.database]\nhost = "primary"\nport = 5432\npassword = "${{file:{secret}:password}}"\n{both}"""
