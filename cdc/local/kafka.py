"""One Kafka broker that is its own controller (KRaft)."""

from __future__ import annotations

import dataclasses
import signal
import socket
import subprocess
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from cdc.errors import InstallationError
from cdc.local import jvm
from cdc.local.layout import Layout, State
from cdc.local.processes import Launch

#: Records carry whole rows: 20 MiB of payload (the topic's own limit) and its framing.
MESSAGE_MAX_BYTES = 21 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Kafka:
    """The broker, as `cdc local` starts, asks and stops it."""

    layout: Layout
    state: State
    jars: Path

    name = "kafka"
    stop_signals = ((signal.SIGTERM, 20.0),)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.state.ports['kafka']}"

    def prepare(self) -> None:
        """Write the settings and, once, format the log directory."""
        settings = self.layout.settings("kafka")
        settings.write_text(self._properties(), encoding="utf-8")
        if (self.layout.data("kafka") / "meta.properties").exists():
            return
        done = subprocess.run(
            self._format(settings),
            cwd=self.layout.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise InstallationError(
                f"Kafka's storage cannot be formatted:\n{done.stdout[-2000:]}",
                safe="no data existed yet",
                next="see the lines above; then `cdc local up` again",
            )

    def launch(self) -> Launch:
        argv = (
            *jvm.command(self.jars, "kafka", "512m"),
            "kafka.Kafka",
            str(self.layout.settings("kafka")),
        )
        return Launch(argv, self.layout.folder)

    def ready(self) -> bool:
        """Tell whether our broker (not another program on its port) answers."""
        try:
            socket.create_connection(("127.0.0.1", self.state.ports["kafka"]), timeout=1).close()
            client = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
            return bool(client.list_topics(timeout=2).cluster_id == self.state.cluster_id)
        except (OSError, KafkaException):
            return False

    def settle(self) -> None:
        """Nothing is left to do: topics are made by `cdc setup` and Connect."""

    def stopped(self) -> None:
        """Nothing outlives the broker."""

    def _format(self, settings: Path) -> list[str]:
        """Return the command that makes the log directory."""
        return [
            *jvm.command(self.jars, "kafka-format", "64m"),
            "kafka.tools.StorageTool",
            "format",
            # One word: an id that begins with a dash is taken for an option otherwise.
            f"--cluster-id={self.state.cluster_id}",
            "-c",
            str(settings),
        ]

    def _properties(self) -> str:
        ports = self.state.ports
        return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{ports["controller"]}
listeners=PLAINTEXT://127.0.0.1:{ports["kafka"]},CONTROLLER://127.0.0.1:{ports["controller"]}
advertised.listeners=PLAINTEXT://127.0.0.1:{ports["kafka"]}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={self.layout.data("kafka")}
# A topic that comes into being by a typing error would hide the error.
auto.create.topics.enable=false
message.max.bytes={MESSAGE_MAX_BYTES}
replica.fetch.max.bytes={MESSAGE_MAX_BYTES}
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# The defaults are meant for thousands of partitions: 128 MB of heap for compaction alone.
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
"""
