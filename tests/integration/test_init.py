"""`cdc init` on real ends: what it writes works, and it writes nothing where it would not."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import harness
import pytest
from harness import Stream

from cdc import config as configs

pytestmark = pytest.mark.stack


def init(stream: Stream, file: Path, **other: str) -> subprocess.CompletedProcess[str]:
    """Run `cdc init` for the ends of the stream, which are as nobody has prepared them."""
    config = configs.load(stream.config)
    given = {
        "--name": stream.name,
        "--primary": config.primary.dsn,
        "--kafka": stream.kafka,
        "--connect": stream.connect,
        "-r": f"r1={config.replica('r1').dsn}",
    } | other
    words = [word for pair in given.items() for word in pair]
    return harness.run("-c", file, "init", *words, cwd=stream.folder, check=False)


@pytest.mark.administrator
def test_what_it_writes_works(stream: Stream) -> None:
    """From the ends alone to a replica that follows, by the commands it tells; never twice."""
    stream.sql("primary", 'CREATE SCHEMA app; CREATE SCHEMA "Odd One"; CREATE TABLE app.t (id int PRIMARY KEY); INSERT INTO app.t VALUES (7);'
               ' CREATE TABLE "Odd One".t (id int PRIMARY KEY)')  # fmt: skip
    file = stream.folder / "fresh.toml"
    done = init(stream, file)
    assert 0 == done.returncode, done.stderr
    written = file.read_text(encoding="utf-8")
    old = configs.load(stream.config)
    fresh = configs.load(file)

    assert ('"Odd One".*', "app.*") == fresh.primary.tables
    assert (1, 1) == (fresh.kafka.topic.replication_factor, fresh.kafka.topic.min_insync_replicas)
    assert "password" not in old.primary.dsn
    again = init(stream, file)
    assert (2, written) == (again.returncode, file.read_text(encoding="utf-8"))
    assert "is there already" in again.stderr
    # What a person fills in: where the worker finds the password, and who may prepare the ends.
    reference = json.dumps(old.connect.database.password)
    text = written.replace('"${file:/etc/kafka-connect/cdc.properties:password}"', reference)
    for end in ("primary", "r1"):
        admin = f"admin_dsn = {json.dumps(stream.dsn(end))}"
        text = re.sub(r"^# admin_dsn = .*$", admin, text, count=1, flags=re.MULTILINE)
    file.write_text(text, encoding="utf-8")
    told = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("  cdc ")]
    assert [["run", "-r", "r1"], ["check"], ["status"]] == told[-3:]
    for words in told[:-1]:
        extra = ["--until-caught-up"] if words[0] == "run" else []
        harness.run("-c", file, *words, *extra, cwd=stream.folder)
    assert [(7,)] == stream.sql("r1", "SELECT id FROM app.t")


@pytest.mark.parametrize(
    ("other", "code", "says"),
    [
        (
            {"--primary": "host=127.0.0.1 port=1 dbname=app user=cdc"},
            1,
            "cannot connect to PostgreSQL",
        ),
        (
            {"--primary": "host=127.0.0.1 dbname=app user=cdc password=s3cret"},
            2,
            "holds a password",
        ),
        ({"--connect": "http://127.0.0.1:1"}, 1, "Kafka Connect at http://127.0.0.1:1"),
        ({"-r": "r1"}, 2, "not of the form NAME=DSN"),
    ],
)
def test_nothing_is_written_where_an_end_will_not_do(
    stream: Stream, other: dict[str, str], code: int, says: str
) -> None:
    """The end that does not answer, or what is of the wrong form, is named, and no secret."""
    if stream.least:  # whose roles nobody has made yet
        stream.sql("primary", "CREATE TABLE t (id int PRIMARY KEY)")
        stream.cdc("setup")
    file = stream.folder / "fresh.toml"
    done = init(stream, file, **other)

    assert code == done.returncode, done.stderr
    assert says in done.stderr
    assert "s3cret" not in done.stderr
    assert not file.exists()
