"""What `make setup` does first: name everything that will be fetched, install a missing JDK or Maven.

Runs on the machine's own Python, before anything is installed: standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cdc.errors import CdcError, InstallationError
from cdc.local import artifacts, programs

#: Megabytes that pip and Maven fetch beside the checksummed files, measured on an empty machine.
PACKAGES_MB = 51
BUILD_MB = 51


def announcement(checkout: Path) -> str:
    """Return what is still to be fetched, how much and where; "" when nothing is."""
    cache = artifacts.cache_folder()
    lines = []
    if not (checkout / ".venv/installed").exists():
        lines.append(f"  {PACKAGES_MB:4} MB  Python packages, into {checkout / '.venv'}")
    if not (checkout / "connectors/exact/target/cdc-exact.jar").exists():
        lines.append(f"  {BUILD_MB:4} MB  Maven's own plugins, into Maven's repository")
    lines += [f"  {b.size / 1e6:4.0f} MB  {b.what}, into {cache}" for b in artifacts.missing(cache)]
    if not lines:
        return ""
    return "\n".join(
        ["to be fetched once, through pip and Maven (CDC_CACHE chooses the cache):", *lines]
    )


def install(wanted: tuple[str, ...]) -> None:
    """Install the programs of `programs.absent` with apt when we are root.

    Raises InstallationError with the one command for a person otherwise, or when it did not help.
    """
    command = programs.install_command(wanted)
    said = " ".join(command) or f"install {' and '.join(wanted)}"
    if os.geteuid() != 0 or command[:1] != ["apt-get"]:
        raise _missing(wanted, said)
    print(f"missing: {' and '.join(wanted)}; installing with: {said}", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["apt-get", "-q", "update"], command):
        done = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            print(done.stdout[-2000:], file=sys.stderr)
    programs.java.cache_clear()
    if still := programs.absent():
        raise _missing(still, said)


def _missing(wanted: tuple[str, ...], command: str) -> InstallationError:
    return InstallationError(
        f"this machine has no {' and no '.join(wanted)}",
        safe="nothing was fetched or started",
        next=command,
    )


def main() -> int:
    try:
        if wanted := programs.absent():
            install(wanted)
        if text := announcement(Path.cwd()):
            print(text, file=sys.stderr)
    except CdcError as error:
        print(f"make: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
