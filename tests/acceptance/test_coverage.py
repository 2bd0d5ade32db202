"""Tables that come, go, are renamed or made anew beside a stream that goes on: seen, named, counted, mended."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import LiteralString

import compare
import harness
import psycopg
import pytest
import refusals
import requests
from harness import Stack, Stream, wait_until
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql

pytestmark = [pytest.mark.stack, pytest.mark.long]

TABLES: LiteralString = """
    CREATE SCHEMA app; CREATE SCHEMA tenant_1;
    CREATE TABLE app.orders (id int PRIMARY KEY, n int);
    CREATE TABLE app.old (id int PRIMARY KEY, v text);
    CREATE TABLE app.named (id int PRIMARY KEY, v text);
    CREATE TABLE app.anew (id int PRIMARY KEY, v text);
    CREATE TABLE tenant_1.bills (id int PRIMARY KEY, n int);
    INSERT INTO app.orders SELECT i, 0 FROM generate_series(1, 1000) i;
    INSERT INTO app.old SELECT i, 'v' FROM generate_series(1, 9) i;
    INSERT INTO app.named SELECT i, 'v' FROM generate_series(1, 9) i;
    INSERT INTO app.anew SELECT i, 'v' FROM generate_series(1, 9) i;
"""


class Site:
    """A stream with one replica in use, whose daemon runs and answers over HTTP."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.port = refusals.closed_port()
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon anew and wait until it has looked at all ends."""
        if self.daemon is not None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(30)
        self.daemon = self.stream.start("run", "-r", "r1")
        wait_until(lambda: bool(self.metric("cdc_uncovered_tables")), "the daemon has looked")

    def alive(self) -> None:
        assert self.daemon is not None
        assert self.daemon.poll() is None, self.stream.log(self.daemon)

    def log(self) -> str:
        assert self.daemon is not None
        return self.stream.log(self.daemon)

    def metric(self, name: str) -> dict[str | None, float]:
        """Return a metric of the daemon by its label `why`; {} while it does not answer."""
        with contextlib.suppress(requests.ConnectionError):
            text = requests.get(f"http://127.0.0.1:{self.port}/metrics", timeout=5).text
            return {
                sample.labels.get("why"): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name == name
            }
        return {}

    def strays(self) -> dict[str, str]:
        """Return what `cdc status` says is astray, which exits 1 where something is."""
        done = self.stream.cdc("-r", "r1", "status", "--json", check=False)
        said = json.loads(done.stdout)
        if said["strays"]:
            assert done.returncode == 1
        for stray in said["strays"]:
            assert stray["table"] in "\n".join(said["notes"])
        return {stray["table"]: stray["why"] for stray in said["strays"]}

    def findings(self) -> list[tuple[str, str]]:
        """Return the findings of `cdc check` that are about tables, and what each names."""
        said = json.loads(self.stream.cdc("-r", "r1", "check", "--json", check=False).stdout)
        return [
            (found["name"], found["what"].split(" ")[0])
            for found in said["findings"]
            if "table" in found["name"] or found["name"].startswith("replica-")
        ]

    def equal(self, *tables: str) -> None:
        self.stream.cdc("wait", "-r", "r1", "--now")
        ends = {"primary": self.stream.primary, "r1": self.stream.dsn("r1")}
        assert [] == compare.differences(ends, ["app.orders", *tables])


@pytest.fixture(scope="module")
def site(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give a running stream of the tables app.* and tenant_*.*."""
    with harness.stream(stack, tmp_path_factory.mktemp("coverage")) as stream:
        found = Site(stream)
        harness.edit(stream, r"^tables = .*$", 'tables = ["app.*", "tenant_*.*"]')
        harness.edit(stream, r"^listen = .*$", f'listen = "127.0.0.1:{found.port}"')
        stream.sql("primary", TABLES)
        stream.cdc("setup")
        stream.cdc("connectors", "apply")
        stream.cdc("bootstrap", "-r", "r1")
        found.start()
        yield found


@contextlib.contextmanager
def writing(dsn: str, statement: LiteralString) -> Iterator[None]:
    """Execute a statement on the primary again and again meanwhile."""

    def write(stop: threading.Event) -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not stop.wait(0.01):
                conn.execute(statement)

    with harness.meanwhile(write):
        yield


BOTH: LiteralString = """
    DO $$ BEGIN
        UPDATE app.orders SET n = n + 1 WHERE id <= 10;
        INSERT INTO tenant_7.bills SELECT max(id) + 1, 0 FROM tenant_7.bills;
        UPDATE tenant_7.bills SET n = n + 1 WHERE id <= 20;
        DELETE FROM tenant_7.bills WHERE id = (SELECT max(id) - 5 FROM tenant_7.bills);
    END $$
"""


def test_a_table_of_a_new_schema_joins_while_everything_flows(site: Site) -> None:
    """Seen, named and counted from the first look on; published and filled under writes, and nothing waits for it."""
    stream = site.stream
    stream.sql(
        "primary",
        "CREATE SCHEMA tenant_7; CREATE TABLE tenant_7.bills (id int PRIMARY KEY, n int);"
        "INSERT INTO tenant_7.bills SELECT i, 0 FROM generate_series(1, 20000) i",
    )
    site.start()
    assert {"tenant_7.bills": "unpublished"} == site.strays()
    assert ("publication-tables", "tenant_7.bills") in site.findings()
    wait_until(lambda: site.metric("cdc_uncovered_tables") == {None: 1}, "it is counted")
    assert site.metric("cdc_stray_tables")["unpublished"] == 1
    assert "tenant_7.bills matches the patterns and is not published" in site.log()

    stream.set_up("added tenant_7.bills")
    assert {"tenant_7.bills": "unfilled"} == site.strays()
    assert ("replica-uncovered", "tenant_7.bills") in site.findings()

    # The connector is not restarted: it reads the publication as it is at each change.
    with writing(stream.primary, BOTH):
        wait_until(
            lambda: "passing over changes of tenant_7.bills" in site.log(), "it is passed over"
        )
        stream.cdc("wait", "-r", "r1", "--now")
        site.alive()
        for number in range(2):
            victim = stream.start(
                "bootstrap", "-r", "r1", "--table", "tenant_7.bills",
                armed=[("copy.open", "fill.merged")[number], "1", "KILL"],
            )  # fmt: skip
            assert victim.wait(60) == -signal.SIGKILL, stream.log(victim)
            stream.cdc("wait", "-r", "r1", "--now")
        stream.cdc("bootstrap", "-r", "r1", "--table", "tenant_7.bills")
        stream.cdc("wait", "-r", "r1", "--now")
    site.equal("tenant_7.bills", "tenant_1.bills")
    site.alive()
    assert {} == site.strays()
    assert [] == stream.sql("r1", "SELECT * FROM cdc.filling")


def test_a_dropped_a_renamed_and_a_newly_made_table_are_told_apart(site: Site) -> None:
    """Each is called what it is; cdc-verify does not claim success; the steps of the runbook mend each."""
    stream = site.stream
    stream.sql("primary", "DROP TABLE app.old")
    stream.sql("primary", "ALTER TABLE app.named RENAME TO moved")
    stream.sql(
        "primary",
        "DROP TABLE app.anew; CREATE TABLE app.anew (id int PRIMARY KEY, v text);"
        "INSERT INTO app.anew VALUES (100, 'new')",
    )
    expected = {"app.old": "gone", "app.named": "renamed", "app.anew": "made anew"}
    assert expected == site.strays()
    verified = stream.verify("-r", "r1", "--json")
    assert verified.returncode in (1, 2, 3), verified.stdout
    uncovered = {u["table"] for u in json.loads(verified.stdout)["uncovered"]}
    assert {"app.old", "app.named"} <= uncovered

    stream.set_up(
        "r1: app.old was dropped on the primary",
        "r1: app.anew was dropped on the primary, and another table has that name now",
    )
    assert {"app.named": "renamed", "app.anew": "unfilled"} == site.strays()
    assert [(9,)] == stream.sql("r1", "SELECT count(*) FROM app.old")

    # What comes for the new table is passed over; the renamed one must not be.
    stream.sql("primary", "UPDATE app.orders SET n = -1 WHERE id = 1")
    stream.sql("primary", "UPDATE app.moved SET v = 'under another name'")
    assert site.daemon is not None
    assert site.daemon.wait(60) == 1
    refusal = refusals.parse(site.log())
    assert "app.named, which is followed, was renamed to app.moved" in refusal.what
    assert [(-1,)] == stream.sql("r1", "SELECT n FROM app.orders WHERE id = 1")
    site.daemon = None

    stream.sql("r1", "ALTER TABLE app.named RENAME TO moved; DROP TABLE app.old")
    stream.cdc("bootstrap", "-r", "r1", "--table", "app.moved", "--overwrite")
    stream.cdc("bootstrap", "-r", "r1", "--table", "app.anew", "--overwrite")
    site.start()
    stream.sql("primary", "DELETE FROM app.moved WHERE id < 3; UPDATE app.anew SET v = 'x'")
    site.equal("app.moved", "app.anew")
    assert {} == site.strays()
    assert stream.verify("-r", "r1").returncode == 0


def test_a_table_that_left_the_publication_is_filled_again(site: Site) -> None:
    """What was done meanwhile has left no trace: it is named, and setup lets the replica forget what it holds."""
    stream = site.stream
    publication = sql.Identifier(f"cdc_{stream.name}")
    stream.sql("primary", sql.SQL("ALTER PUBLICATION {} DROP TABLE app.orders").format(publication))
    stream.sql(
        "primary",
        "UPDATE app.orders SET n = 77 WHERE id = 500; DELETE FROM app.orders WHERE id = 501",
    )
    assert {"app.orders": "silent"} == site.strays()

    stream.set_up("r1: app.orders is not published any more")
    assert {"app.orders": "unfilled"} == site.strays()
    stream.sql("primary", "UPDATE app.orders SET n = 78 WHERE id = 502")
    stream.cdc("bootstrap", "-r", "r1", "--table", "app.orders", "--overwrite")
    site.equal()
    site.alive()
    assert {} == site.strays()
