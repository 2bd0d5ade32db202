"""The same stack in containers, for machines with a Docker daemon (CDC_TEST_STACK=docker).

The fourth ring: it shows that nothing depends on how `cdc local` starts things.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import harness
from harness import Stack
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.kafka import KafkaContainer

from cdc import resources

POSTGRES = "postgres:16.14"
KAFKA = "confluentinc/cp-kafka:8.1.0"
CONNECT = "quay.io/debezium/connect:3.6.3.Final"
PLUGIN = "/kafka/connect/debezium-connector-postgres"
_LOGICAL = "postgres -c wal_level=logical -c max_wal_senders=60 -c max_replication_slots=60 -c max_connections=300"


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """Give a stack of containers with a primary and two replicas."""
    password = secrets.token_hex(12)
    secret = folder / "connect-secrets.properties"
    secret.write_text(f"password={password}\n", encoding="ascii")
    with contextlib.ExitStack() as up:
        network = up.enter_context(Network())
        kafka = (
            KafkaContainer(KAFKA).with_kraft().with_network(network).with_network_aliases("kafka")
        )
        kafka.with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false").with_env(
            "KAFKA_MESSAGE_MAX_BYTES", "22020096"
        )
        up.enter_context(kafka)
        ends = {name: _postgres(up, network, name, password) for name in ("primary", "r1", "r2")}
        worker = DockerContainer(CONNECT).with_network(network).with_exposed_ports(8083)
        for key, value in {
            "BOOTSTRAP_SERVERS": "kafka:9092",
            "GROUP_ID": "cdc",
            "CONFIG_STORAGE_TOPIC": "connect-configs",
            "OFFSET_STORAGE_TOPIC": "connect-offsets",
            "STATUS_STORAGE_TOPIC": "connect-status",
            "CONNECT_CONFIG_PROVIDERS": "file",
            "CONNECT_CONFIG_PROVIDERS_FILE_CLASS": "org.apache.kafka.common.config.provider.FileConfigProvider",
            "CONNECT_CONNECTOR_CLIENT_CONFIG_OVERRIDE_POLICY": "All",
            "CONNECT_OFFSET_FLUSH_INTERVAL_MS": "2000",
        }.items():
            worker.with_env(key, value)
        jar = resources.path("connectors/exact/target/cdc-exact.jar")
        worker.with_volume_mapping(str(jar), f"{PLUGIN}/{jar.name}")
        worker.with_volume_mapping(str(secret), f"/secrets/{secret.name}")
        up.enter_context(worker)
        connect = f"http://{worker.get_container_host_ip()}:{worker.get_exposed_port(8083)}"
        harness.wait_until(
            lambda: harness.answers(f"{connect}/connectors"), "Kafka Connect answers", 180
        )
        config = folder / "cdc.toml"
        replicas = {name: dsn for name, dsn in ends.items() if name != "primary"}
        stack = Stack(config, ends["primary"], replicas, kafka.get_bootstrap_server(), connect)
        config.write_text(_configuration(stack, f"/secrets/{secret.name}"), encoding="utf-8")
        yield stack


def _postgres(up: contextlib.ExitStack, network: Network, name: str, password: str) -> str:
    """Start a server with database `app` and role `cdc`; return the superuser's DSN."""
    server = DockerContainer(POSTGRES).with_network(network).with_network_aliases(name)
    server.with_env("POSTGRES_PASSWORD", password).with_exposed_ports(5432).with_command(_LOGICAL)
    up.enter_context(server)
    at = f"host={server.get_container_host_ip()} port={server.get_exposed_port(5432)} password={password}"
    harness.wait_until(
        lambda: harness.answers_sql(f"{at} user=postgres dbname=postgres"), f"{name} answers"
    )
    for statement in (
        f"CREATE ROLE cdc LOGIN REPLICATION PASSWORD '{password}'",
        "GRANT SET ON PARAMETER session_replication_role TO cdc",
        "CREATE DATABASE app OWNER cdc",
    ):
        harness.rows(f"{at} user=postgres dbname=postgres", statement)
    return f"{at} dbname=app user=postgres"


def _configuration(stack: Stack, secret: str) -> str:
    def both(dsn: str) -> str:
        return f'dsn = "{dsn.replace("user=postgres", "user=cdc")}"\nadmin_dsn = "{dsn}"\n'

    replicas = "".join(f"[replicas.{name}]\n{both(dsn)}" for name, dsn in stack.replicas.items())
    return f"""\
name = "app"
state_dir = "state"
[primary]
{both(stack.primary)}
[kafka]
bootstrap_servers = "{stack.kafka}"
topic = {{ replication_factor = 1, min_insync_replicas = 1 }}
[connect]
url = "{stack.connect}"
database = {{ host = "primary", port = 5432, password = "${{file:{secret}:password}}" }}
{replicas}"""
