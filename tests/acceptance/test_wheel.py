"""The wheel alone, installed elsewhere, does everything that the checkout does."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import compare
import harness
import pytest
from harness import ROOT, Stack

import cdc

TABLES = ["shop.orders", 'shop."Lines"']


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, install it into an empty environment, and return its `cdc`.

    What it depends on comes from the environment of the tests, so that no network is needed.
    """
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--python", python,
         "install", "--no-deps", "--no-index", wheel],
        check=True,
    )  # fmt: skip
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    found = subprocess.run(
        [python, "-c", "import cdc; print(cdc.__file__)"],
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert Path(found.strip()).is_relative_to(site)
    return folder / "venv" / "bin" / "cdc"


def test_the_wheel_holds_the_package_and_its_resources(installed: Path) -> None:
    """Only the package is in it, with the capture plugin, the connector and the SQL files."""
    (wheel,) = installed.parents[2].glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0].rpartition(".")[2] for name in names} == {"cdc", "dist-info"}
    for resource in (
        "connectors/postgres.json",
        "connectors/exact/target/cdc-exact.jar",
        "schemas/replica.sql",
    ):
        assert f"cdc/_resources/{resource}" in names
    assert [name for name in names if "test" in name] == []


def test_each_program_runs_where_no_checkout_is(installed: Path, tmp_path: Path) -> None:
    """In an empty folder, without anything of the checkout in the environment, all three programs
    start, find what they are shipped with, and tell what is missing as they tell a person.
    """

    def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [installed.with_name(name), *words],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    for name in ("cdc", "cdc-verify", "cdc-lag-alert"):
        assert f"{name}, version {cdc.__version__}\n" == run(name, "--version").stdout
        assert 0 == run(name, "--help").returncode
    assert [] == list(tmp_path.iterdir())
    for name, *words in (("cdc", "status"), ("cdc-verify",), ("cdc-lag-alert", "watch")):
        done = run(name, *words)
        assert 2 == done.returncode, done.stderr
        assert "next: give one with -c FILE or CDC_CONFIG" in done.stderr

    run("cdc", "connectors", "plugin", "plugin.jar")
    jar = "connectors/exact/target/cdc-exact.jar"
    assert (ROOT / jar).read_bytes() == (tmp_path / "plugin.jar").read_bytes()


@pytest.mark.long
def test_the_road_from_the_wheel(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an empty folder outside the checkout, a stack starts and a replica becomes equal."""
    monkeypatch.setenv("CDC_TEST_CDC", str(installed))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    folder = tmp_path / "empty"
    folder.mkdir()
    try:
        harness.run("local", "up", "--dir", "local", "--replicas", "1", cwd=folder, timeout=600)
        stack = Stack.at(folder / "local")
        with harness.stream(stack, folder / "stream") as stream:
            stream.ready(
                'CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY, "at" timestamptz);'
                'CREATE TABLE shop."Lines" (o int, n int, v numeric[], PRIMARY KEY (o, n));'
                "INSERT INTO shop.orders SELECT i, now() FROM generate_series(1, 1000) i"
            )
            daemon = stream.start("run", "-r", "r1")
            stream.sql("primary", "UPDATE shop.orders SET at = 'infinity' WHERE id % 2 = 0")
            stream.sql(
                "primary",
                """INSERT INTO shop."Lines" SELECT i, 1, '{{1.0,NaN},{NULL,2}}'
                   FROM generate_series(1, 1000) i""",
            )
            stream.cdc("wait", "-r", "r1", "--now")
            assert compare.differences({"p": stream.primary, "r1": stream.dsn("r1")}, TABLES) == []
            assert '"daemon": "applying"' in stream.cdc("status", "--json", check=False).stdout
            daemon.terminate()
            assert daemon.wait(60) == 0, stream.log(daemon)

            stream.sql("primary", "DELETE FROM shop.orders WHERE id > 500")
            stream.cdc("run", "-r", "r1", "--until-caught-up")
            assert compare.differences({"p": stream.primary, "r1": stream.dsn("r1")}, TABLES) == []
            assert compare.contents(stream.dsn("r1"), "shop.orders").rows == 500
    finally:
        harness.run("local", "down", "--purge", "--dir", "local", cwd=folder, check=False)
