"""Sessions on PostgreSQL: pinned settings, timeouts that notice a dead peer, clear errors."""

from __future__ import annotations

import select
import time
from typing import Any

import psycopg
from psycopg import conninfo, pq, sql

from cdc.errors import ConfigError, Unreachable
from cdc.session import Session

#: A value's text form depends on these; every session of ours uses the same ones, as the
#: connector's role does, so that text written by one end is read back exactly by the other.
PINNED = {
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    "lc_monetary": "C",
    "search_path": "pg_catalog",
    "row_security": "off",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
}

#: What of a connection string nobody may see: of the role, of an encrypted key, of an OAuth client.
SECRETS = ("password", "sslpassword", "oauth_client_secret")

#: Without these a vanished peer is noticed after hours (TCP defaults).
_KEEPALIVE = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    # A SQL_ASCII database would otherwise give bytes where names are expected.
    "client_encoding": "UTF8",
}


def connect(
    dsn: str,
    application: str,
    *,
    autocommit: bool = False,
    settings: dict[str, str] | None = None,
    **parameters: Any,
) -> Session:
    """Open a session with the pinned settings and `settings` on top.

    `application` becomes application_name. `parameters` are further libpq parameters (for example
    `replication="database"`). Raises Unreachable when the server does not let us in.
    """
    given = conninfo.conninfo_to_dict(dsn)
    pinned = " ".join(
        f"-c {name}={value.replace(' ', chr(92) + ' ')}"
        for name, value in {**PINNED, **(settings or {})}.items()
    )
    options = f"{given.get('options', '')} {pinned}".strip()
    merged: dict[str, Any] = {
        **_KEEPALIVE,
        **given,
        "application_name": application,
        "options": options,
        **parameters,
    }
    try:
        return Session.connect(conninfo.make_conninfo("", **merged), autocommit=autocommit)
    except psycopg.OperationalError as error:
        raise Unreachable(
            f"cannot connect to PostgreSQL at {address(dsn)}: {first_line(error)}",
            safe="nothing was changed",
            next="check that the server runs, that the address, database, user and password "
            f"are right and that pg_hba.conf lets us in: psql {shown(dsn)!r}",
        ) from error


def ask(conn: psycopg.Connection[Any], query: sql.Composed, patience: float) -> bytes | None:
    """Execute one SELECT of one text value and return it, None for no row or NULL.

    For looks at servers that may hang: a server that is stopped takes the question and never answers,
    and no setting of the session ends that. Raises Unreachable after `patience` seconds, when the
    session is of no more use, and psycopg.Error for what the server refuses.
    """
    pgconn, deadline = conn.pgconn, time.monotonic() + patience
    pgconn.send_query(query.as_bytes(conn))
    results = []
    while True:
        while pgconn.is_busy():
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pgconn.socket], [], [], left)[0]:
                conn.close()
                raise Unreachable(
                    f"PostgreSQL at {conn.info.host}:{conn.info.port}/{conn.info.dbname} has not "
                    f"answered for {patience:g} s",
                    safe="nothing was changed",
                    next="see whether the server hangs or the way to it is cut",
                )
            pgconn.consume_input()
        if (result := pgconn.get_result()) is None:
            break
        results.append(result)
    found = results[-1]
    if found.status != pq.ExecStatus.TUPLES_OK:
        raise psycopg.errors.error_from_result(found)
    return found.get_value(0, 0) if found.ntuples else None


def parts(dsn: str, where: str) -> dict[str, Any]:
    """Return what a connection string says; ConfigError naming `where` it stands if it is none."""
    try:
        return dict(conninfo.conninfo_to_dict(dsn))
    except psycopg.ProgrammingError:
        # libpq's message repeats what was given, in part or whole, a password included.
        raise ConfigError(
            f"{where} is no connection string",
            safe="nothing was read or written",
            next='write "host=… port=… dbname=… user=…" or postgresql://…; a value with spaces goes '
            "into '…', and what is special in an address is written as %20",
        ) from None


def address(dsn: str) -> str:
    """Return host:port/dbname of a connection string, for messages; of a service its name."""
    parts = conninfo.conninfo_to_dict(dsn)
    if "service" in parts and "host" not in parts:
        return f"service {parts['service']}/{parts.get('dbname', '')}"
    return (
        f"{parts.get('host', 'local socket')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"
    )


def shown(dsn: str) -> str:
    """Return the connection string without its secrets, for messages and command lines."""
    parts = conninfo.conninfo_to_dict(dsn)
    return conninfo.make_conninfo("", **{k: v for k, v in parts.items() if k not in SECRETS})


#: How libpq's advice begins, which follows what it has to say.
_ADVICE = ("Is the server running", "Either provide the file")


def first_line(error: Exception) -> str:
    """Return the telling part of a libpq message, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(_ADVICE)]
    return telling[-1] if telling else type(error).__name__
