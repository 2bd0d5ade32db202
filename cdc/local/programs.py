"""Programs the machine must bring: a Java runtime, and Maven for the first run."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cdc.errors import InstallationError
from cdc.local.versions import JAVA


@dataclasses.dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime; `version` is its full version text, `major` its first number."""

    path: Path
    version: str
    major: int


@functools.cache
def java() -> Java:
    """Return the machine's Java: JAVA_HOME first, then PATH.

    Raises InstallationError, with the command that installs one, when it is absent or too old.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(str(Path(home) / "bin/java")) if home else shutil.which("java")
    if found is None:
        where = f"in JAVA_HOME={home}" if home else "on the PATH"
        raise _absent(f"there is no java {where}", ["jdk"])
    # Prints: openjdk version "17.0.15" 2025-04-15
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "([^"]+)"', said)
    if version is None:
        raise _absent(f"{found} does not run: {said.strip()[:200]}", ["jdk"])
    major = int(re.split(r"[^0-9]", version[1])[0])
    if major < JAVA:
        raise _absent(f"{found} is Java {version[1]}; Kafka needs {JAVA} or newer", ["jdk"])
    return Java(Path(found), version[1], major)


def maven() -> Path:
    """Return the machine's Maven; InstallationError with the installing command if absent."""
    found = shutil.which("mvn")
    if found is None:
        raise _absent("there is no mvn (Maven) on the PATH", ["maven"])
    return Path(found)


def absent() -> tuple[str, ...]:
    """Return which of "jdk" and "maven" the machine lacks."""
    lacking = []
    for name, look in (("jdk", java), ("maven", maven)):
        try:
            look()
        except InstallationError:
            lacking.append(name)
    return tuple(lacking)


def install_command(wanted: Sequence[str]) -> list[str]:
    """Return the one command that installs "jdk" and "maven" here; [] if no installer is known."""
    for installer, jdk in (
        (["apt-get", "install", "-y"], _debian_jdk),
        (["dnf", "install", "-y"], lambda: "java-latest-openjdk-devel"),
        (["apk", "add"], lambda: "openjdk17"),
        (["brew", "install"], lambda: "openjdk"),
    ):
        if shutil.which(installer[0]):
            rights = [] if os.geteuid() == 0 or installer[0] == "brew" else ["sudo"]
            return [*rights, *installer, *(jdk() if name == "jdk" else name for name in wanted)]
    return []


def _debian_jdk() -> str:
    """Return the newest packaged JDK: releases carry different ones, and "default" may be 11."""
    for major in (25, 21, JAVA):
        name = f"openjdk-{major}-jdk-headless"
        shown = subprocess.run(["apt-cache", "show", name], capture_output=True, check=False)
        if shown.returncode == 0 and shown.stdout:
            return name
    return "default-jdk-headless"


def _absent(what: str, wanted: Sequence[str]) -> InstallationError:
    command = " ".join(install_command(wanted))
    return InstallationError(
        what,
        safe="nothing was started",
        next=command or f"install {' and '.join(wanted)} (Java {JAVA} or newer)",
    )
