"""The same stack in containers, for machines with a Docker daemon (CDC_TEST_STACK=docker)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import harness
from harness import Stack
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.kafka import KafkaContainer

from cdc import resources

POSTGRES, KAFKA = "postgres:16.14", "confluentinc/cp-kafka:8.1.0"
CONNECT = "quay.io/debezium/connect:3.6.3.Final"
SERVER = "postgres -c wal_level=logical -c max_wal_senders=60 -c max_replication_slots=60"
BROKER = "KAFKA_AUTO_CREATE_TOPICS_ENABLE=false KAFKA_MESSAGE_MAX_BYTES=22020096"
WORKER = """BOOTSTRAP_SERVERS=kafka:9092 GROUP_ID=cdc CONFIG_STORAGE_TOPIC=connect-configs
    OFFSET_STORAGE_TOPIC=connect-offsets STATUS_STORAGE_TOPIC=connect-status
    CONNECT_CONNECTOR_CLIENT_CONFIG_OVERRIDE_POLICY=All CONNECT_OFFSET_FLUSH_INTERVAL_MS=2000
    CONNECT_CONFIG_PROVIDERS=file CONNECT_CONFIG_PROVIDERS_FILE_CLASS=\
org.apache.kafka.common.config.provider.FileConfigProvider"""


@contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """Give a stack of containers with a primary and two replicas."""
    password = secrets.token_hex(12)
    secret = folder / "connect-secrets.properties"
    secret.write_text(f"password={password}\n", encoding="ascii")
    jar = resources.path("connectors/exact/target/cdc-exact.jar")
    with ExitStack() as up:
        network = up.enter_context(Network())
        kafka = KafkaContainer(KAFKA).with_kraft().with_network(network)
        up.enter_context(_told(kafka.with_network_aliases("kafka"), BROKER))
        ends = {name: _postgres(up, network, name, password) for name in ("primary", "r1", "r2")}
        worker = _told(DockerContainer(CONNECT).with_network(network), WORKER)
        plugin = f"/kafka/connect/debezium-connector-postgres/{jar.name}"
        worker.with_volume_mapping(str(jar), plugin).with_exposed_ports(8083)
        up.enter_context(worker.with_volume_mapping(str(secret), "/secrets/connect.properties"))
        connect = f"http://{worker.get_container_host_ip()}:{worker.get_exposed_port(8083)}"
        harness.wait_until(lambda: harness.answers(f"{connect}/connectors"), "Connect answers", 180)
        primary = ends.pop("primary")
        address = kafka.get_bootstrap_server()
        stack = Stack(folder / "cdc.toml", primary, ends, address, connect)
        stack.config.write_text(_configuration(stack), encoding="utf-8")
        yield stack


def _told(container: DockerContainer, environment: str) -> DockerContainer:
    for pair in environment.split():
        container.with_env(*pair.split("=", 1))
    return container


def _postgres(up: ExitStack, network: Network, name: str, password: str) -> str:
    """Start a server with database `app` and role `cdc`; return the superuser's DSN."""
    server = _told(DockerContainer(POSTGRES), f"POSTGRES_PASSWORD={password} POSTGRES_DB=app")
    server.with_network(network).with_network_aliases(name).with_command(SERVER)
    up.enter_context(server.with_exposed_ports(5432))
    dsn = f"host={server.get_container_host_ip()} port={server.get_exposed_port(5432)}"
    dsn += f" password={password} dbname=app user=postgres"
    harness.wait_until(lambda: harness.answers_sql(dsn), f"{name} answers")
    harness.rows(dsn, f"CREATE ROLE cdc LOGIN REPLICATION PASSWORD '{password}'")
    harness.rows(dsn, "GRANT SET ON PARAMETER session_replication_role TO cdc")
    return dsn


def _configuration(stack: Stack) -> str:
    def both(dsn: str) -> str:
        return f'dsn = "{dsn.replace("user=postgres", "user=cdc")}"\nadmin_dsn = "{dsn}"\n'

    replicas = "".join(f"[replicas.{name}]\n{both(dsn)}" for name, dsn in stack.replicas.items())
    return f"""name = "app"\nstate_dir = "state"\n[primary]\n{both(stack.primary)}[kafka]
bootstrap_servers = "{stack.kafka}"\ntopic = {{ replication_factor = 1, min_insync_replicas = 1 }}
[connect]\nurl = "{stack.connect}"\n[connect.database]\nhost = "primary"\nport = 5432
password = "${{file:/secrets/connect.properties:password}}"\n{replicas}"""
