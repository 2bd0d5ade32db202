"""Secrets: where they come from, where none may stand, and how each travels."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg import conninfo

from cdc import clients, config, environment, logs, paths, postgres, secrecy
from cdc.config import Config
from cdc.errors import ConfigError

REFERENCE = "${file:/run/secrets/kafka.properties:password}"
LOGIN = 'org.apache.kafka.common.security.scram.ScramLoginModule required username="u" password='


def decoded(connect: dict[str, Any] | None = None, dsn: str = "host=r1") -> Config:
    """Return a configuration with more keys in its section for Kafka Connect."""
    return config.decode(
        {
            "name": "app",
            "primary": {"dsn": "host=p"},
            "kafka": {"bootstrap_servers": "k:9092"},
            "connect": {"url": "https://c:8083", **(connect or {})},
            "replicas": {"r1": {"dsn": dsn}},
        },
        Path("/etc/cdc/cdc.toml"),
    )


def test_a_secret_may_come_from_a_file_that_the_environment_names(tmp_path: Path) -> None:
    """${NAME} is the variable NAME, else what stands in the file of NAME_FILE, without its last line's end."""
    held = tmp_path / "secret"
    held.write_text("from a file\n", "utf-8")
    given = {"a": ["${A}-${B}", {"b": "${B}", "c": 1}], "d": REFERENCE}

    found = environment.expanded(given, {"A": "set", "B_FILE": str(held), "A_FILE": "/nowhere"})

    assert {"a": ["set-from a file", {"b": "from a file", "c": 1}], "d": REFERENCE} == found


@pytest.mark.parametrize(
    "dsn",
    ["host=h password=${PW}", "postgresql://${USER}:${PW}@h/", "password='${PW}' host=h", "${ALL}"],
)
def test_a_password_in_a_connection_string_may_hold_anything(dsn: str) -> None:
    """Blanks, quotes and percent signs need no quoting by whoever sets the variable."""
    password = 'it\'s 100% \\ "odd" @/'
    known = {"PW": password, "USER": "me", "ALL": conninfo.make_conninfo(password=password)}

    found = environment.expanded({"r1": {"dsn": dsn}}, known)["r1"]["dsn"]

    assert password == conninfo.conninfo_to_dict(found)["password"]


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({}, "a.b names the environment variable A, which is not set"),
        ({"A_FILE": "/nowhere/a"}, "A_FILE names, /nowhere/a, which cannot be read: No such file"),
    ],
)
def test_a_secret_that_is_nowhere_is_named(known: dict[str, str], says: str) -> None:
    """The key, the variable and the file are told."""
    with pytest.raises(ConfigError, match=says):
        environment.expanded({"a": {"b": "${A}"}}, known)


@pytest.mark.parametrize(
    ("key", "value", "exposed"),
    [
        ("database.password", "plain", True),
        ("database.password", REFERENCE, False),
        ("database.sslpassword", "plain", True),
        ("producer.override.ssl.keystore.password", f"x{REFERENCE}", True),
        ("producer.override.ssl.keystore.key", "-----BEGIN PRIVATE KEY-----", True),
        ("value.converter.basic.auth.user.info", "me:plain", True),
        ("value.converter.basic.auth.credentials.source", "USER_INFO", False),
        ("producer.override.sasl.oauthbearer.token.endpoint.url", "https://idp/token", False),
        ("producer.override.sasl.jaas.config", f'{LOGIN}"plain";', True),
        ("producer.override.sasl.jaas.config", f"{LOGIN}plain;", True),
        ("producer.override.sasl.jaas.config", f'{LOGIN}"{REFERENCE}";', False),
        ("producer.override.sasl.jaas.config", REFERENCE, False),
        ("database.sslrootcert", "/etc/ca.pem", False),
        ("poll.interval.ms", "50", False),
    ],
)
def test_what_connect_would_store_in_the_clear_is_refused(
    key: str, value: str, exposed: bool
) -> None:
    """An option that holds a secret must be a reference that the worker resolves; no other need be."""
    assert exposed == secrecy.exposed(key, value)

    if exposed:
        with pytest.raises(ConfigError, match=f"connect.options: {key} is not") as raised:
            decoded({"options": {key: value}})
        assert "plain" not in raised.value.what
    else:
        decoded({"options": {key: value}})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"user": "me"}, "connect.user is given without connect.password"),
        ({"password": "secret"}, "connect.password is given without connect.user"),
        ({"key": "a.key"}, "connect.key is given without connect.certificate"),
    ],
)
def test_half_a_credential_is_refused(given: dict[str, str], says: str) -> None:
    """A user without password, and a key without certificate, name the key that is missing."""
    with pytest.raises(ConfigError, match=says):
        decoded(given)


def test_files_of_tls_are_found_from_the_configuration_on() -> None:
    """Relative paths are relative to the configuration's file, whoever starts the program where."""
    options = {"ssl.ca.location": "ca.pem", "ssl.key.location": "/k", "ssl.crl.location": "probe"}
    found = paths.in_options(Path("/etc/cdc/cdc.toml"), options)
    parts = {"sslrootcert": "system", "sslcert": "c.crt"}
    dsn = paths.in_dsn(Path("/etc/cdc/cdc.toml"), parts)

    assert ["/etc/cdc/ca.pem", "/k", "probe"] == list(found.values())
    assert {"sslrootcert=system", "sslcert=/etc/cdc/c.crt"} == {*dsn.split()}
    connect = decoded({"ca": "ca.pem", "certificate": "c.crt", "key": "/keys/c.key"}).connect

    assert (Path("/etc/cdc/ca.pem"), Path("/etc/cdc/c.crt"), Path("/keys/c.key")) == (
        connect.ca, connect.certificate, connect.key,
    )  # fmt: skip


SECRETS: list[Callable[[Config], str]] = [
    lambda c: postgres.shown(c.replicas["r1"].dsn),
    lambda c: logs.redacted("it is rest-secret, role-secret and key-secret", logs.secrets(c)),
]


@pytest.mark.parametrize("say", SECRETS)
def test_no_secret_of_the_configuration_is_shown(say: Callable[[Config], str]) -> None:
    """A role's password, a key's and the one for Kafka Connect are left out of messages and lines."""
    found = decoded(
        {"user": "me", "password": "rest-secret"},
        "host=r1 password=role-secret sslkey=/k sslpassword=key-secret",
    )

    assert "-secret" not in say(found)


def test_a_client_program_gets_secrets_unseen() -> None:
    """A password is a variable; a key's lies in a file that only we read, as long as it is needed."""
    with clients._secrets("host=p password=role-secret sslpassword=key-secret") as told:
        file = Path(told["PGSERVICEFILE"])
        mode, text = stat.S_IMODE(file.stat().st_mode), file.read_text("utf-8")

    assert {"PGPASSWORD": "role-secret", "PGSERVICE": "cdc", "PGSERVICEFILE": str(file)} == told
    assert (0o600, "[cdc]\nsslpassword=key-secret\n") == (mode, text)
    assert not file.exists()
    with clients._secrets("host=p service=theirs sslpassword=x") as told:
        assert {} == told
