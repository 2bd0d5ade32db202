"""One distributed Kafka Connect worker with Debezium and the capture plugin."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
import signal
from pathlib import Path

import requests

from cdc import resources
from cdc.local import jvm
from cdc.local.layout import Layout, State
from cdc.local.processes import Launch

CAPTURE_JAR = "connectors/exact/target/cdc-exact.jar"


@dataclasses.dataclass(frozen=True, slots=True)
class ConnectWorker:
    """The worker, as `cdc local` starts, asks and stops it."""

    layout: Layout
    state: State
    jars: Path
    debezium: Path

    name = "connect"
    #: A worker that leaves in order hands its tasks on at once, and its offsets are flushed.
    stop_signals = ((signal.SIGTERM, 25.0),)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.state.ports['connect']}"

    def prepare(self) -> None:
        """Write the settings and secrets, and lay out the plugin folder afresh."""
        self.layout.settings("connect").write_text(self._properties(), encoding="utf-8")
        if not self.layout.connect_secrets.exists():
            with open(
                self.layout.connect_secrets,
                "x",
                encoding="ascii",
                opener=lambda path, flags: os.open(path, flags, 0o600),
            ) as file:
                file.write(f"password={secrets.token_urlsafe(24)}\n")
        shutil.rmtree(self.layout.plugins, ignore_errors=True)
        folder = self.layout.plugins / "debezium-connector-postgres"
        shutil.copytree(self.debezium, folder, copy_function=_link)
        shutil.copy2(resources.path(CAPTURE_JAR), folder)

    def launch(self) -> Launch:
        argv = (
            *jvm.command(self.jars, "connect", "768m"),
            "org.apache.kafka.connect.cli.ConnectDistributed",
            str(self.layout.settings("connect")),
        )
        return Launch(argv, self.layout.folder)

    def ready(self) -> bool:
        """Tell whether our worker (not another program on its port) has joined its group."""
        try:
            root = self._get("", timeout=2)
            if (
                root.status_code != requests.codes.ok
                or root.json()["kafka_cluster_id"] != self.state.cluster_id
            ):
                return False
            return bool(self._get("/health", timeout=5).ok)
        except (requests.RequestException, ValueError, KeyError):
            return False

    def settle(self) -> None:
        """Nothing is left to do: connectors are made by `cdc connectors apply`."""

    def stopped(self) -> None:
        """Nothing outlives the worker."""

    def _get(self, path: str, timeout: float) -> requests.Response:
        return requests.get(self.address + path, timeout=timeout)

    def _properties(self) -> str:
        return f"""\
bootstrap.servers=127.0.0.1:{self.state.ports["kafka"]}
group.id=cdc-local
listeners={self.address}
plugin.path={self.layout.plugins}
plugin.discovery=service_load
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
offset.storage.topic=cdc-connect-offsets
offset.storage.replication.factor=1
offset.storage.partitions=1
offset.flush.interval.ms=2000
config.storage.topic=cdc-connect-configs
config.storage.replication.factor=1
status.storage.topic=cdc-connect-status
status.storage.replication.factor=1
status.storage.partitions=1
# With one worker there is nobody to wait for.
scheduled.rebalance.max.delay.ms=0
connector.client.config.override.policy=All
# Kafka starts beside it, and on a busy machine takes longer than the minute after which a worker ends.
default.api.timeout.ms=300000
# Passwords are read from files of this directory and never stored by Connect.
config.providers=file
config.providers.file.class=org.apache.kafka.common.config.provider.FileConfigProvider
config.providers.file.param.allowed.paths={self.layout.folder}
"""


def _link(source: str, target: str) -> None:
    """Make a hard link, or a copy where the cache is on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
