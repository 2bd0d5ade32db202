"""docker/compose.yaml run as it stands, where a Docker daemon answers: `make test-images`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import harness
import pytest

DOCKER = harness.ROOT / "docker"


def _compose() -> list[str]:
    """Return the command, the plugin's or the older program's; skip where there is neither."""
    if "CDC_TEST_IMAGES" not in os.environ:
        pytest.skip("`make test-images` runs these, with images that it has built")
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:  # fmt: skip
        pytest.skip("no Docker daemon answers")
    if not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:  # fmt: skip
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("there is neither `docker compose` nor `docker-compose`")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Give the whole topology, brought up by one command, with volumes and secrets of its own."""
    command = _compose()
    folder = tmp_path_factory.mktemp("project") / "docker"
    shutil.copytree(DOCKER, folder, ignore=shutil.ignore_patterns("secrets.d"))
    subprocess.run([folder / "secrets"], check=True)
    found = Project([*command, "-p", f"cdc-{os.getpid()}", "-f", "compose.yaml"], folder)
    try:
        found("up", "--detach", "--no-build")
        yield found
    finally:
        found("down", "--volumes", "--timeout", "20")


class Project:
    """The project as compose has it."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._command, self._folder = command, folder

    def __call__(self, *words: str, check: bool = True) -> str:
        done = subprocess.run([*self._command, *words], cwd=self._folder, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, service: str, *words: str, check: bool = True) -> str:
        return self("exec", "-T", service, *words, check=check)

    def inspected(self, service: str, what: str) -> str:
        container = self("ps", "--quiet", service).strip()
        return subprocess.run(["docker", "inspect", "--format", what, container],
                              capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip


def test_one_command_brings_it_all_up(project: Project) -> None:
    """Every service becomes healthy, and both replicas have what the primary began with."""
    for service in ("primary", "r1", "r2", "kafka", "connect", "daemon-r1", "daemon-r2", "watch"):
        harness.wait_until(lambda s=service: "healthy" == project.inspected(s, "{{.State.Health.Status}}"),  # type: ignore[misc] # mypy: a default in a lambda
                           f"{service} is healthy", 180)  # fmt: skip
    project.run("daemon-r1", "cdc", "wait", "-r", "r1", "-r", "r2", "--now", check=False)
    project.run("primary", "psql", "-U", "postgres", "app", "-c", "UPDATE notes SET said = 'changed' WHERE id = 7")  # fmt: skip
    for replica in ("r1", "r2"):
        project.run("daemon-r1", "cdc", "wait", "-r", replica, "--now", "--timeout", "60s")
        said = project.run(replica, "psql", "-U", "postgres", "app", "-Atc", "SELECT said FROM notes WHERE id = 7")  # fmt: skip
        assert "changed" == said.strip()
    assert "1,000 rows proven equal" in project.run("daemon-r1", "cdc-verify")
    project.run("daemon-r1", "cdc", "status")


def test_nothing_but_its_folder_is_written(project: Project) -> None:
    """A daemon's container runs as a user of its own, on a root that it cannot write."""
    assert "10001" == project.run("daemon-r1", "id", "-u").strip()
    assert "rw" == project.run("daemon-r1", "sh", "-c", "touch /opt/cdc/x 2>/dev/null || touch /var/lib/cdc/x && echo rw").strip()  # fmt: skip
    assert "" == project.run("daemon-r1", "sh", "-c", "ls /opt/cdc/x 2>/dev/null", check=False)


def test_a_stop_is_a_clean_end(project: Project) -> None:
    """`docker stop` ends a daemon with exit code 0 at a transaction boundary, and it goes on afterwards."""
    project("stop", "daemon-r2")
    container = project("ps", "--all", "--quiet", "daemon-r2").strip()
    state = json.loads(subprocess.run(["docker", "inspect", "--format", "{{json .State}}", container],
                                      capture_output=True, check=True).stdout)  # fmt: skip
    assert (0, False) == (state["ExitCode"], state["OOMKilled"])

    project("start", "daemon-r2")
    project.run("daemon-r1", "cdc", "wait", "-r", "r2", "--now", "--timeout", "60s")


def test_prometheus_sees_daemons_and_watcher(project: Project) -> None:
    """All three targets are up."""
    address = project("port", "prometheus", "9090").strip()

    def up() -> bool:
        with urllib.request.urlopen(f"http://{address}/api/v1/targets", timeout=5) as answer:
            targets = json.load(answer)["data"]["activeTargets"]
        return ["up"] * 3 == [target["health"] for target in targets]

    harness.wait_until(up, "all targets are up", 60)
