"""Debezium's JDBC sink as it is meant to be run: a Kafka Connect worker of its own, Java's defaults."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import harness
import requests

from cdc.local import artifacts, layout, programs
from cdc.local.artifacts import Sum

VERSION = "3.5.0.Final"
_ARCHIVE = Sum(
    "8547b496548cab71cc0029edd96ddd666e667e2d649fd0770a28b5c3bb9e26dd",
    55_197_401,
    f"debezium-connector-jdbc-{VERSION}-plugin.tar.gz",
)
HEAP = "2g"

#: What the sink is told beside where to write: its defaults, and the best that was found.
SINKS: dict[str, tuple[dict[str, str], str]] = {
    "sink_500": ({"batch.size": "500"}, ""),
    "sink_best": (
        {
            "batch.size": "5000",
            "use.reduction.buffer": "true",
            "dialect.postgres.unnest.insert.enabled": "true",
            "consumer.override.max.poll.records": "5000",
            "consumer.override.fetch.min.bytes": "1000000",
            "consumer.override.max.partition.fetch.bytes": "10000000",
        },
        "&reWriteBatchedInserts=true",
    ),
}


def plugins() -> Path:
    """Return the folder with the plugin, fetched through Maven into the cache."""
    home = (
        artifacts.cache_folder()
        / f"bench-jdbc-{hashlib.sha256(_ARCHIVE.sha256.encode()).hexdigest()[:12]}"
    )
    if home.exists():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="fetching-") as name:
        fetched = Path(name) / "files"
        artifact = f"io.debezium:debezium-connector-jdbc:{VERSION}:tar.gz:plugin"
        subprocess.run(
            [str(programs.maven()), "-q", "-B", "dependency:copy", f"-Dartifact={artifact}",
             f"-DoutputDirectory={fetched}"],
            check=True, cwd=name, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        artifacts.verify(fetched, [_ARCHIVE])
        archive = fetched / _ARCHIVE.name
        with tarfile.open(archive) as tar:
            tar.extractall(fetched, filter="data")
        archive.unlink()
        shutil.move(fetched, home)
    return home


class Worker:
    """A running worker; `pid` is its process."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid, self._url = pid, f"http://127.0.0.1:{port}/connectors"

    def answers(self) -> bool:
        return harness.answers(self._url)

    def start(self, name: str, config: dict[str, str]) -> None:
        requests.put(f"{self._url}/{name}/config", json=config, timeout=60).raise_for_status()

    def fault(self, name: str) -> str | None:
        """Return what a connector's task has failed of, None while it runs."""
        tasks = requests.get(f"{self._url}/{name}/status", timeout=30).json().get("tasks", ())
        return next((str(t.get("trace", t)) for t in tasks if t["state"] == "FAILED"), None)

    def remove(self, name: str) -> None:
        requests.delete(f"{self._url}/{name}", timeout=60).raise_for_status()


@contextlib.contextmanager
def worker(folder: Path, kafka: str) -> Iterator[Worker]:
    """Run a worker with the plugin; its log is sink.log in `folder`."""
    jars = artifacts.fetch(artifacts.cache_folder(), print).jars
    port = layout.free_ports(["sink"], taken=())["sink"]
    properties = folder / "sink.properties"
    properties.write_text(
        f"""\
bootstrap.servers={kafka}
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
offset.storage.file.filename={folder}/sink.offsets
plugin.path={plugins()}
plugin.discovery=service_load
listeners=http://127.0.0.1:{port}
connector.client.config.override.policy=All
""",
        encoding="utf-8",
    )
    logging = Path(artifacts.__file__).with_name("log4j2.xml")
    with (folder / "sink.log").open("wb") as log:
        process = subprocess.Popen(
            [str(programs.java().path), f"-Xmx{HEAP}", "-Duser.timezone=UTC",
             f"-Dlog4j2.configurationFile={logging}", "-cp", f"{jars}/*",
             "org.apache.kafka.connect.cli.ConnectStandalone", str(properties)],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=os.environ,
        )  # fmt: skip
    try:
        running = Worker(process.pid, port)
        harness.wait_until(running.answers, "the sink's worker answers", timeout=120)
        yield running
    finally:
        process.kill()
        process.wait()
