"""docker/compose.yaml and docker/Dockerfile hold together, as far as that can be told without a daemon."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from cdc import cli, config
from cdc.local import versions

FOLDER = Path(__file__).parents[2] / "docker"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_services_wait_for_what_can_be_waited_for() -> None:
    """What must be healthy has a health check, what must have ended ends by itself, and all is defined."""
    for name, service in SERVICES.items():
        waits = service.get("depends_on", {})
        for other, told in waits.items() if isinstance(waits, dict) else ():
            if told["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"], (name, other)
            else:
                assert ("service_completed_successfully", "no") == (
                    told["condition"],
                    SERVICES[other]["restart"],
                )
        assert set(waits) <= SERVICES.keys()
        assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (
                (FOLDER / source).exists()
                if source.startswith(".")
                else source in COMPOSE["volumes"]
            )


def test_what_is_ours_is_confined() -> None:
    """Our containers have a read-only root, no capability and a user of their own, and only what they need."""
    ours = {n: s for n, s in SERVICES.items() if s["image"].startswith("cdc-")}

    assert {"kafka", "connect", "setup", "daemon-r1", "daemon-r2", "watch"} == ours.keys()
    for name, service in ours.items():
        assert service["read_only"], name
        assert ["ALL"] == service["cap_drop"], name
        assert "privileged" not in service, name
    final = [re.findall(rf"^FROM .* AS {t}$(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)[0]
             for t in ("connect", "cdc")]  # fmt: skip
    for stage in final:
        assert "USER 10001" in stage
        assert re.search(r"^ENTRYPOINT \[\"tini\", \"--\"\]$", stage, re.MULTILINE)


def test_the_configuration_fits_the_services() -> None:
    """cdc.toml loads, and its daemons listen where the image's health check asks."""
    found = config.load(FOLDER / "cdc.toml")
    port = re.search(r"^ENV CDC_LISTEN_PORT=(\d+)$", DOCKERFILE, re.MULTILINE)
    assert port is not None

    assert {f"daemon-{name}" for name in found.replicas} == {
        n for n in SERVICES if n.startswith("daemon-")
    }
    for name, replica in found.replicas.items():
        assert f"0.0.0.0:{port[1]}" == str(replica.listen)
        assert ["cdc", "run", "-r", name, "--log", "json"] == SERVICES[f"daemon-{name}"]["command"]
    for line in SERVICES["setup"]["command"][-1].split("; "):
        _, *words = line.split()
        assert words[0] in cli.cdc.list_commands(None), line  # type: ignore[arg-type] # needs no context


def test_the_secrets_are_made_once_and_for_their_reader_alone(tmp_path: Path) -> None:
    """`secrets` writes what compose hands over, none of it guessable or twice, and never over another."""
    script = tmp_path / "secrets"
    script.write_bytes((FOLDER / "secrets").read_bytes())
    subprocess.run(["sh", script], check=True, capture_output=True)
    made = tmp_path / "secrets.d"
    first = {file.name: file.read_text() for file in made.iterdir()}
    subprocess.run(["sh", script], check=True, capture_output=True)

    assert {Path(s["file"]).name for s in COMPOSE["secrets"].values()} == first.keys()
    assert first == {file.name: file.read_text() for file in made.iterdir()}
    assert 0o700 == made.stat().st_mode & 0o777
    passwords = set(re.findall(r"password=(.*)", "".join(first.values()))) | {
        first["postgres"].strip()
    }
    assert 3 == len(passwords)
    assert all(len(password) == 32 for password in passwords)


def test_the_pinned_packages_are_those_that_the_program_needs() -> None:
    """Every requirement of the program is pinned by version and checksum for the image."""
    pinned = (FOLDER / "requirements.txt").read_text(encoding="utf-8")
    project = (FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'^    "([A-Za-z-]+)', project.partition("dependencies = [")[2].partition("]\n")[0], re.MULTILINE)  # fmt: skip

    names = {name.lower() for name in re.findall(r"^([\w.-]+)==", pinned, re.MULTILINE)}
    assert {name.lower() for name in needed} <= names
    assert len(names) == len(
        re.findall(r"^[\w.-]+==\S+ \\\n    --hash=sha256:", pinned, re.MULTILINE)
    )
    assert versions.FILE.name == (FOLDER / ".env").resolve().name
