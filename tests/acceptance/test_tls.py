"""Everything over TLS, everybody known: the whole road, each credential wrong, and no secret told."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import compare
import harness
import listeners
import msgspec
import pytest
import refusals
from authority import Identity
from confluent_kafka import Consumer, TopicPartition
from harness import Stream
from listeners import HOST, Guarded, Keys
from psycopg import conninfo

from cdc import barrier, config, postgres, topic
from cdc.connect import Connect
from cdc.errors import CdcError, ConfigError, ConnectRefused, Unreachable

TABLES = """
CREATE SCHEMA app;
CREATE TABLE app.a (id int PRIMARY KEY, v text);
INSERT INTO app.a SELECT i, 'row ' || i FROM generate_series(1, 500) i;
"""

#: A wrong password, for every kind; it must not be told either.
WRONG = "not-the-right-one"


@dataclasses.dataclass(slots=True)
class Site(Stream):
    """The stream over TLS, which remembers everything that its programs say."""

    guarded: Guarded = dataclasses.field(kw_only=True)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    said: list[str] = dataclasses.field(default_factory=list)

    @property
    def secrets(self) -> set[str]:
        """Return every secret of every component, and the wrong one."""
        lines = (self.guarded.stack.config.parent / "pgpass").read_text("ascii").splitlines()
        lines += self.guarded.connect_secrets.read_text("ascii").splitlines()
        found = {re.split("[:=]", line)[-1] for line in lines}
        return found | {*self.guarded.keys.secrets.values(), WRONG}

    def cdc(
        self,
        *args: str | Path,
        check: bool = True,
        timeout: float = 180,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        name: str = "cdc",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command and remember what it says."""
        done = harness.run(
            "-c", self.config, *args, cwd=self.folder, check=False, timeout=timeout, stdin=stdin,
            env={**self.environment, **(env or {})}, name=name,
        )  # fmt: skip
        self.said += [done.stdout, done.stderr]
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def variant(self, *changes: tuple[str, str]) -> Path:
        """Write the configuration with each old text replaced by the new one."""
        text = self.config.read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        path = self.folder / f"variant-{len([*self.folder.iterdir()])}.toml"
        path.write_text(text, encoding="utf-8")
        return path

    def caught_up_by(self, file: Path) -> None:
        """Change a row on the primary and let a daemon with another configuration apply it."""
        self.sql("primary", "UPDATE app.a SET v = v || '.' WHERE id % 7 = 0")
        self.cdc("-c", file, "run", "-r", "r1", "--until-caught-up", "-vv")
        assert compare.differences(self.ends, ["app.a"]) == []

    @property
    def ends(self) -> dict[str, str]:
        return {"primary": self.dsn("primary"), "r1": self.dsn("r1")}


def configuration(guarded: Guarded) -> str:
    """Return a cdc.toml that names no secret: each comes from the environment or a file."""
    ends, keys = guarded.stack.ends, guarded.keys
    person, rest, capture = (keys.holders[name] for name in ("cdc", "rest", "capture"))
    ca = keys.authority.certificate
    known = conninfo.make_conninfo(
        ends["primary"], user="cdc", sslcert=str(person.certificate), sslkey=str(person.key),
        sslpassword="${KEY_PASSWORD}",
    )  # fmt: skip
    replica = conninfo.make_conninfo(ends["r1"], user="cdc", password="${R1_PASSWORD}")
    kafka = {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(ca),
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "cdc",
        "sasl.password": "${KAFKA_PASSWORD}",
    }
    stored = guarded.connect_secrets
    connector = {
        "database.sslrootcert": str(ca),
        # The connector's own producer comes another way than the worker: with a certificate.
        "producer.override.bootstrap.servers": guarded.kafka["mtls"],
        "producer.override.security.protocol": "SSL",
        "producer.override.ssl.keystore.type": "PKCS12",
        "producer.override.ssl.keystore.location": str(capture.pkcs12),
        "producer.override.ssl.keystore.password": f"${{file:{stored}:capture}}",
        "producer.override.ssl.key.password": f"${{file:{stored}:capture}}",
        "producer.override.ssl.truststore.type": "PEM",
        "producer.override.ssl.truststore.location": str(ca),
    }
    return f"""\
name = "app"
state_dir = "state"
[primary]
dsn = {json.dumps(known)}
admin_dsn = {json.dumps(ends["primary"])}
[kafka]
bootstrap_servers = "{guarded.kafka["scram"]}"
topic = {{ replication_factor = 1, min_insync_replicas = 1 }}
options = {toml(kafka)}
[connect]
url = "{guarded.stack.connect}"
user = "cdc"
password = "${{CONNECT_PASSWORD}}"
ca = "{ca}"
certificate = "{rest.certificate}"
key = "{rest.key}"
options = {toml(connector)}
[connect.database]
password = "${{file:{stored}:password}}"
[replicas.r1]
dsn = {json.dumps(replica)}
admin_dsn = {json.dumps(ends["r1"])}
"""


def toml(options: Mapping[str, str]) -> str:
    """Write an inline table."""
    return "{" + ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in options.items()) + "}"


def wrapped(real: Path, folder: Path) -> Path:
    """Return a folder of PostgreSQL's programs that write down how they are called."""
    folder.mkdir()
    for name in ("pg_dump", "pg_restore"):
        script = folder / name
        script.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$0" "$@" >> {folder}/argv\nexec {real / name} "$@"\n',
            "ascii",
        )
        script.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give a stream from a primary to a replica that is filled, all of it over TLS."""
    folder = tmp_path_factory.mktemp("tls")
    with listeners.running(folder / "local") as guarded:
        (folder / "stream").mkdir()
        made = Site(guarded.stack, folder / "stream", "app", guarded=guarded)
        secrets = guarded.keys.secrets
        held = made.folder / "connect-password"
        held.write_text(f"{secrets['rest']}\n", "ascii")
        passfile = conninfo.conninfo_to_dict(guarded.stack.ends["r1"])["passfile"]
        port = conninfo.conninfo_to_dict(guarded.stack.ends["r1"])["port"]
        (of_r1,) = re.findall(rf"{port}:\*:cdc:(.+)", Path(str(passfile)).read_text("ascii"))
        made.environment = {
            "CDC_PG_BIN": str(wrapped(guarded.programs, folder / "programs")),
            "KEY_PASSWORD": secrets["key-cdc"],
            "R1_PASSWORD": of_r1,
            "KAFKA_PASSWORD": secrets["kafka-cdc"],
            "CONNECT_PASSWORD_FILE": str(held),
        }
        made.config.write_text(configuration(guarded), "utf-8")
        made.sql("primary", TABLES)
        with pytest.MonkeyPatch.context() as patched:
            for name, value in made.environment.items():
                patched.setenv(name, value)
            made.cdc("setup", "-v")
            made.cdc("connectors", "apply", "-v")
            made.cdc("bootstrap", "-r", "r1", "-v")
            yield made
        for daemon in made.daemons:
            daemon.kill()
            daemon.wait()


def test_the_whole_road_over_tls(site: Site) -> None:
    """Daemon, status, wait, proof and alert all do their work over listeners that demand TLS."""
    daemon = site.start("-vv", "run", "-r", "r1", "--log", "json")
    site.sql("primary", "INSERT INTO app.a SELECT i, 'more' FROM generate_series(501, 900) i")
    site.cdc("wait", "-r", "r1", "--now", "-v")
    harness.wait_until(lambda: site.cdc("status", "-v", check=False).returncode == 0, "all is well")
    titles = "".join(
        (Path("/proc") / str(daemon.pid) / name).read_text() for name in ("cmdline", "comm")
    )
    names = [
        f"{application} {encrypted}"
        for end in site.ends
        for application, encrypted in site.sql(
            end,
            "SELECT coalesce(r.slot_name, a.application_name), s.ssl FROM pg_stat_activity a"
            " JOIN pg_stat_ssl s USING (pid) LEFT JOIN pg_replication_slots r ON r.active_pid = a.pid"
            " WHERE a.application_name LIKE 'cdc%' OR r.slot_name IS NOT NULL",
        )
    ]

    assert "cdc-app/r1/apply True" in names
    assert "cdc_app True" in names
    assert [name for name in names if not name.endswith("True")] == []
    site.cdc("-v", name="cdc-verify")
    site.cdc("once", "-v", name="cdc-lag-alert")
    assert site.cdc("check", "-v", check=False).returncode != 2
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(60) == 0, site.log(daemon)
    assert compare.differences(site.ends, ["app.a"]) == []
    site.said += [titles, *names]


def test_a_first_configuration_for_ends_that_demand_tls(site: Site) -> None:
    """`cdc init` looks at them with the credentials it is told by name, and writes down the names alone."""
    plain = tomllib.loads(site.config.read_text(encoding="utf-8"))
    known = {key: plain["connect"][key] for key in ("user", "password", "ca", "certificate", "key")}
    options = [
        *(w for k, v in plain["kafka"]["options"].items() for w in ("--kafka-option", f"{k}={v}")),
        *(w for k, v in known.items() for w in ("--connect-option", f"{k}={v}")),
    ]
    fresh = site.folder / "fresh.toml"
    site.cdc(
        "-c", fresh, "init", "--primary", plain["primary"]["dsn"], "--kafka", site.guarded.kafka["scram"],
        "--connect", site.connect, "-r", f"r1={plain['replicas']['r1']['dsn']}", *options,
    )  # fmt: skip

    written, ours = config.load(fresh), config.load(site.config)
    assert (ours.kafka.options, ours.replicas["r1"].dsn) == (
        written.kafka.options, written.replicas["r1"].dsn,
    )  # fmt: skip
    assert ours.connect.password == written.connect.password


@pytest.mark.parametrize("listener", ["tls", "mtls"])
def test_kafka_s_other_ways_in(site: Site, listener: str) -> None:
    """TLS alone, and TLS with a client certificate whose key is encrypted, carry rows as SCRAM does."""
    person = site.guarded.keys.holders["cdc"]
    theirs = {
        "ssl.certificate.location": str(person.certificate),
        "ssl.key.location": str(person.key),
        "ssl.key.password": "${KEY_PASSWORD}",
        # librdkafka then says how it is configured.
        "debug": "conf,security",
        "log_level": "7",
    }
    scram = r'"sasl.mechanisms" = "SCRAM-SHA-512", "sasl.username" = "cdc", "sasl.password" = "${KAFKA_PASSWORD}"'

    site.caught_up_by(
        site.variant(
            (site.guarded.kafka["scram"], site.guarded.kafka[listener]),
            ('"SASL_SSL"', '"SSL"'),
            (scram, toml(theirs if listener == "mtls" else {"client.id": "cdc"}).strip("{}")),
        )
    )


#: What an error is, what it says and what it says to do.
Says = tuple[type[CdcError], str, str]


def asked(case: Callable[[], object], kind: type[CdcError], what: str, next_step: str) -> str:
    """Return the message of an error that says `what`, and to do `next_step`."""
    with pytest.raises(CdcError) as raised:
        case()
    error = raised.value
    assert (kind, 2 if kind is ConfigError else 1) == (type(error), error.exit_code), error
    assert what in error.what
    assert next_step in error.next
    return str(error)


def shown(holder: Identity) -> dict[str, str]:
    """Return how a client of Kafka shows a certificate."""
    return {
        "ssl.certificate.location": str(holder.certificate),
        "ssl.key.location": str(holder.key),
    }


@pytest.mark.parametrize(
    ("listener", "change", "says"),
    [
        ("scram", lambda _: {"sasl.password": WRONG},
         (Unreachable, "invalid credentials", "sasl.password")),
        ("scram", lambda k: {"ssl.ca.location": str(k.stranger.certificate)},
         (Unreachable, "unable to get local issuer certificate", "ssl.ca.location")),
        ("localhost", lambda _: {}, (Unreachable, "not valid for 'localhost'", "as its certificate does")),
        ("scram", lambda _: {"security.protocol": "PLAINTEXT"},
         (Unreachable, "does not answer", "TLS and SASL settings")),
        ("scram", lambda _: {"ssl.ca.location": "/nowhere/ca.pem"},
         (ConfigError, "ssl.ca.location", "this user may read")),
        ("mtls", lambda _: {}, (Unreachable, "alert bad certificate", "ssl.certificate.location")),
        ("mtls", lambda k: shown(k.expired), (Unreachable, "alert certificate unknown", "not expired")),
        ("mtls", lambda k: shown(k.foreign), (Unreachable, "alert bad certificate", "that they trust")),
        ("mtls", lambda k: shown(k.holders["cdc"]) | {"ssl.key.password": WRONG},
         (ConfigError, "ssl.key.location", "ssl.key.password")),
    ],
    ids=["password", "ca", "host", "no-tls", "no-file", "no-certificate", "expired", "foreign", "key-password"],
)  # fmt: skip
def test_kafka_lets_nobody_in_who_is_not_known(
    site: Site,
    listener: str,
    change: Callable[[Keys], dict[str, str]],
    says: Says,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each wrong credential is told at once, by what is wrong with it, and with the option to set."""
    monkeypatch.setattr(topic, "TIMEOUT", 3.0)
    plain = config.load(site.config)
    options = plain.kafka.options | change(site.guarded.keys)
    servers = site.guarded.kafka.get(listener) or plain.kafka.bootstrap_servers.replace(
        HOST, listener
    )
    if listener == "mtls":
        options["security.protocol"] = "SSL"
    kafka = msgspec.structs.replace(plain.kafka, bootstrap_servers=servers, options=options)
    wrong = msgspec.structs.replace(plain, kafka=kafka)

    site.said.append(asked(lambda: topic.describe(wrong), *says))
    if "credentials" in says[1]:  # as any other client
        site.said.append(asked(lambda: barrier.bounds(wrong), *says))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _: {"password": WRONG}, (ConnectRefused, "with 401", "connect.password")),
        (lambda _: {"user": None, "password": None}, (ConnectRefused, "with 401", "connect.user")),
        (lambda k: {"ca": k.stranger.certificate},
         (Unreachable, "self-signed certificate in certificate chain", "connect.ca")),
        (lambda _: {"ca": None}, (Unreachable, "certificate in certificate chain", "connect.ca")),
        (lambda _: {"url": "localhost"}, (Unreachable, "not valid for 'localhost'", "connect.url")),
        (lambda _: {"url": "http"}, (Unreachable, "does not answer", "http or https")),
        (lambda _: {"certificate": None, "key": None},
         (Unreachable, "Kafka Connect at", "connect.certificate")),
        (lambda k: {"certificate": k.expired.certificate, "key": k.expired.key},
         (Unreachable, "Kafka Connect at", "connect.certificate")),
        (lambda k: {"certificate": k.holders["cdc"].certificate, "key": k.holders["cdc"].key},
         (ConfigError, "connect.certificate or connect.key cannot be used", "without a password")),
        (lambda _: {"ca": Path("/nowhere/ca.pem")}, (ConfigError, "connect.ca", "may read")),
    ],
    ids=["password", "nobody", "ca", "no-ca", "host", "no-tls", "no-certificate", "expired", "locked", "no-file"],
)  # fmt: skip
def test_connect_lets_nobody_in_who_is_not_known(
    site: Site,
    change: Callable[[Keys], dict[str, Any]],
    says: Says,
) -> None:
    """Each wrong credential is told by what is wrong with it, and with the key to set."""
    plain = config.load(site.config).connect
    changes = change(site.guarded.keys)
    if found := changes.get("url"):
        old = "https" if found == "http" else HOST
        changes["url"] = plain.url.replace(old, found)
    wrong = msgspec.structs.replace(plain, **changes)

    site.said.append(asked(lambda: Connect(wrong, patience=0).plugins(), *says))


@pytest.mark.parametrize(
    ("end", "change", "what"),
    [
        ("r1", lambda _: {"password": WRONG}, "password authentication failed"),
        ("r1", lambda k: {"sslrootcert": k.stranger.certificate}, "certificate verify failed"),
        ("r1", lambda _: {"host": "localhost"}, 'does not match host name "localhost"'),
        ("r1", lambda _: {"sslmode": "disable"}, "no encryption"),
        ("r1", lambda _: {"sslrootcert": "/nowhere/ca.pem"}, 'root certificate file "/nowhere/ca.pem"'),
        ("primary", lambda _: {"sslcert": None, "sslkey": None}, "valid client certificate"),
        ("primary", lambda k: {"sslcert": k.expired.certificate, "sslkey": k.expired.key}, "expired"),
        ("primary", lambda k: {"sslcert": k.foreign.certificate, "sslkey": k.foreign.key}, "unknown ca"),
        ("primary", lambda _: {"sslpassword": WRONG}, "private key file"),
        ("primary", lambda _: {"user": "postgres", "password": WRONG}, "password authentication failed"),
    ],
    ids=["password", "ca", "host", "no-tls", "no-file", "no-certificate", "expired", "foreign", "key-password",
         "other-role"],
)  # fmt: skip
def test_postgresql_lets_nobody_in_who_is_not_known(
    site: Site, end: str, change: Callable[[Keys], dict[str, Any]], what: str
) -> None:
    """Each wrong credential is told as libpq has it, with the command to try and without a secret."""
    plain = config.load(site.config)
    dsn = plain.primary.dsn if end == "primary" else plain.replicas[end].dsn
    parts = {**conninfo.conninfo_to_dict(dsn), **change(site.guarded.keys)}
    wrong = conninfo.make_conninfo("", **{k: str(v) for k, v in parts.items() if v is not None})

    said = asked(lambda: postgres.connect(wrong, "a-test"), Unreachable, what, "psql")
    site.said.append(said)


def test_who_is_refused_loses_nothing(site: Site) -> None:
    """A daemon with a wrong password for Kafka waits and says why; with the right one it goes on."""
    site.sql("primary", "UPDATE app.a SET v = 'written meanwhile' WHERE id < 100")
    wrong = {"KAFKA_PASSWORD": WRONG}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KAFKA_PASSWORD", WRONG)
        daemon = site.start("-vv", "run", "-r", "r1")
        harness.wait_until(
            lambda: "invalid credentials" in site.log(daemon), "it says why it waits"
        )
        done = site.cdc("setup", "-vv", check=False, env=wrong)
        assert (1, "") == (done.returncode, done.stdout)
        assert "does not let us in" in refusals.parse(done.stderr).what
        for command in ("check", "status"):
            found = site.cdc(command, "-vv", check=False, env=wrong)
            assert "invalid credentials" in found.stdout + found.stderr
        assert daemon.poll() is None
        daemon.terminate()
        assert daemon.wait(60) == 0, site.log(daemon)

    site.caught_up_by(site.config)


def test_no_secret_is_told(site: Site) -> None:
    """No secret stands in outputs, logs, titles, command lines, or anything that Connect keeps."""
    with contextlib.closing(
        Consumer({"bootstrap.servers": site.kafka, "group.id": "a-test"})
    ) as reader:
        stored = TopicPartition("cdc-connect-configs", 0, 0)
        _low, end = reader.get_watermark_offsets(stored, timeout=30)
        reader.assign([stored])
        kept: list[bytes] = []

        def read() -> bool:
            kept.extend(m.value() or b"" for m in reader.consume(100, 0.2))
            return reader.position([stored])[0].offset >= end

        harness.wait_until(read, "Connect's configurations are read")
    answer = connect(site).config("cdc_app")
    written = [p.read_text(errors="replace") for p in site.folder.rglob("*") if p.is_file()
               and p.name != "connect-password"]  # fmt: skip
    written += [json.dumps(site.sql("r1", "SELECT * FROM cdc.daemon"), default=str)]
    called = (site.folder.parent / "programs" / "argv").read_text("utf-8")
    everything = [*site.said, *written, called, json.dumps(answer), *(v.decode() for v in kept)]

    assert "pg_dump" in called
    assert "cdc_app" in json.dumps(answer)
    assert any("producer.override" in text for text in everything[-len(kept) :])
    assert len(site.secrets) >= 12
    told = {s for s in site.secrets if any(s in text for text in everything)}
    assert {name.rpartition("-")[0] or name for name in told} == set()


def connect(site: Site) -> Connect:
    return Connect(config.load(site.config).connect)
