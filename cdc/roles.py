"""Login roles: what they are, what they lack, and the passwords we know of them."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo, pq, sql

from cdc import postgres
from cdc.config import NOTHING_CHANGED, Config
from cdc.errors import ConfigError, NotReady
from cdc.steps import Step

#: Amazon lets nobody give REPLICATION: there a role is made a member of this one.
REPLICATOR = "rds_replication"

#: The comment on a role that `cdc setup` has made, by which `cdc teardown` knows it.
MADE = "made by cdc setup"


@dataclasses.dataclass(frozen=True, slots=True)
class Login:
    """A role we log in as; `verifier` is set when its password must be (re)set.

    The verifier is what PostgreSQL stores (SCRAM): the password itself never reaches the server's
    log. `known` tells whether we know the password at all.
    """

    name: str
    known: bool
    verifier: str | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Role:
    """A role of a server; `settings` are those that hold for it in this database.

    `replication`: it may stream the log, by its attribute or as a member of REPLICATOR.
    """

    name: str
    superuser: bool
    login: bool
    replication: bool
    bypass_row_security: bool
    settings: dict[str, str]

    @classmethod
    def read(cls, conn: psycopg.Connection[Any], name: str) -> Role | None:
        """Read a role from the catalog, None when there is none of that name."""
        found = conn.execute(
            "SELECT r.rolsuper, r.rolcanlogin, r.rolreplication OR coalesce((SELECT"
            "   pg_has_role(r.oid, m.oid, 'USAGE') FROM pg_roles m WHERE m.rolname = %s), false),"
            " r.rolbypassrls,"
            " (SELECT s.setconfig FROM pg_db_role_setting s JOIN pg_database d"
            "    ON d.oid = s.setdatabase AND d.datname = current_database()"
            "   WHERE s.setrole = r.oid)"
            " FROM pg_roles r WHERE r.rolname = %s",
            (REPLICATOR, name),
        ).fetchone()
        if found is None:
            return None
        superuser, login, replication, bypass, settings = found
        pairs = (entry.partition("=") for entry in settings or ())
        lower = {key.lower(): value for key, _, value in pairs}
        return cls(name, superuser, login, replication, bypass, lower)


def replicator(conn: psycopg.Connection[Any]) -> str | None:
    """Return the role whose members may stream the log where REPLICATION cannot be given."""
    row = conn.execute(
        "SELECT rolname::text FROM pg_roles WHERE rolname = %s", [REPLICATOR]
    ).fetchone()
    return row and str(row[0])


def role_steps(
    login: Login, found: Role | None, *, replication: bool = False, by_member_of: str | None = None,
    bypass_row_security: bool = False, settings: Mapping[str, str] | None = None,
    database: str = "",
) -> list[Step]:  # fmt: skip
    """Create a role or mend its attributes, password and settings.

    `by_member_of` is the role whose members may stream the log, where there is one.
    """
    name = sql.Identifier(login.name)
    wanted = [("LOGIN", bool(found and found.login))]
    if replication and by_member_of is None:
        wanted.append(("REPLICATION", bool(found and found.replication)))
    if bypass_row_security:
        wanted.append(("BYPASSRLS", bool(found and found.bypass_row_security)))
    missing = [word for word, there in wanted if not there]
    steps = []
    if found is None:
        create = sql.SQL("CREATE ROLE {0} {1};\nCOMMENT ON ROLE {0} IS {2}")
        steps.append(Step(f"role {login.name}: created",
                          create.format(name, sql.SQL(" ".join(missing)), sql.Literal(MADE))))  # fmt: skip
    elif missing and not found.superuser:
        steps.append(Step(f"role {login.name}: given {', '.join(missing)}",
                          sql.SQL("ALTER ROLE {} {}").format(name, sql.SQL(" ".join(missing)))))  # fmt: skip
    if replication and by_member_of and not (found and (found.replication or found.superuser)):
        steps.append(Step(f"role {login.name}: member of {by_member_of}",
                          sql.SQL("GRANT {} TO {}").format(sql.Identifier(by_member_of), name)))  # fmt: skip
    if login.verifier is not None:
        steps.append(Step(
            f"role {login.name}: password set",
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(login.verifier)),
            f"\\password {name.as_string()}",
        ))  # fmt: skip
    elif not login.known:
        steps.append(Step(
            f"role {login.name}: its password is not known here; if it needs one, set it in psql "
            f"with \\password {name.as_string()}",
        ))  # fmt: skip
    differ = {
        k: v for k, v in (settings or {}).items() if found is None or found.settings.get(k) != v
    }
    if differ:
        alter = sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} TO {}")
        steps.append(Step(
            f"role {login.name}: in this database "
            + ", ".join(f"{setting} = {value}" for setting, value in differ.items()),
            sql.SQL(";\n").join(
                alter.format(name, sql.Identifier(database), sql.Identifier(k), sql.Literal(v))
                for k, v in differ.items()),
        ))  # fmt: skip
    return steps or [Step(f"role {login.name}: already there")]


def login_name(dsn: str) -> str:
    """Return the role that `dsn` logs in as."""
    return _login(dsn)[0]


def _login(dsn: str) -> tuple[str, str]:
    """Return role and password that libpq finds for `dsn`, each "" where there is none."""
    started = pq.PGconn.connect_start(dsn.encode())
    found = (started.user or b"").decode(), (started.password or b"").decode()
    started.finish()
    return found


def daemon(dsn: str, admin: psycopg.Connection[Any]) -> Login:
    """Return the role that `dsn` logs in as, whose password libpq finds where it always does."""
    name, password = _login(dsn)
    if not password or name == admin.info.user or Role.read(admin, name) is not None:
        # An existing role keeps its password: it is the person's who wrote the DSN.
        return Login(name, known=True)
    return Login(name, known=True, verifier=_verifier(admin, name, password))


def connector(config: Config, admin: psycopg.Connection[Any]) -> Login:
    """Return the connector's role; its password is set anew when it does not let it in."""
    name = config.connector_role
    password = connector_password(config)
    if password is None:
        return Login(name, known=False)
    if Role.read(admin, name) is not None and _lets_in(config, name, password):
        return Login(name, known=True)
    return Login(name, known=True, verifier=_verifier(admin, name, password))


def connector_password(config: Config) -> str | None:
    """Find the password that the worker will use: in its file, or in CDC_CONNECTOR_PASSWORD.

    Raises ConfigError when the file is readable here and lacks the key.
    """
    reference = config.connect.database.password or ""
    found = re.fullmatch(r"\$\{file:(.+):([^:}]+)\}", reference)
    if found is None or not os.access(found[1], os.R_OK):
        return os.environ.get("CDC_CONNECTOR_PASSWORD")
    values = properties(Path(found[1]).read_text(encoding="utf-8"))
    if found[2] not in values:
        raise ConfigError(
            f"connect.database.password refers to {found[2]} in {found[1]}, which is not there",
            safe=NOTHING_CHANGED,
            next=f"add the line {found[2]}=… to that file",
        )
    return values[found[2]]


def properties(text: str) -> dict[str, str]:
    """Read a Java properties file as far as passwords need it (no continued lines)."""
    values = {}
    for line in map(str.lstrip, text.splitlines()):
        found = re.fullmatch(r"((?:\\.|[^\\=:\s])+)\s*[=:\s]\s*(.*)", line)
        if found and line[0] not in "#!":
            values[_unescaped(found[1])] = _unescaped(found[2])
    return values


def settings_seen(config: Config, password: str, names: Mapping[str, str]) -> dict[str, str]:
    """Log in anew as the connector's role and return the settings that differ from `names`.

    Raises NotReady when that role is not let in.
    """
    try:
        with _fresh(config, config.connector_role, password) as conn:
            found = dict(
                conn.execute(
                    "SELECT name, setting FROM pg_settings WHERE lower(name) = ANY (%s)",
                    ([*map(str.lower, names)],),
                ).fetchall()
            )
    except psycopg.OperationalError as error:
        raise NotReady(
            f"the role {config.connector_role} cannot log in to the primary: "
            f"{postgres.first_line(error)}",
            safe="nothing is lost; capture cannot start",
            next="let it in through pg_hba.conf, from the Connect worker and from here",
        ) from error
    lower = {name.lower(): value for name, value in found.items()}
    return {
        name: lower.get(name, "unset") for name, value in names.items() if lower.get(name) != value
    }


def _lets_in(config: Config, name: str, password: str) -> bool:
    try:
        _fresh(config, name, password).close()
    except psycopg.OperationalError:
        return False
    return True


def _fresh(config: Config, name: str, password: str) -> psycopg.Connection[Any]:
    """Open a session without settings of ours, as the connector does."""
    given: dict[str, Any] = dict(conninfo.conninfo_to_dict(config.primary.dsn))
    given.update(user=name, password=password, options="", application_name=f"cdc-{config.name}/setup",
                 connect_timeout=10)  # fmt: skip
    given.pop("passfile", None)
    return psycopg.connect(conninfo.make_conninfo("", **given))


def _verifier(admin: psycopg.Connection[Any], name: str, password: str) -> str:
    return admin.pgconn.encrypt_password(
        password.encode(), name.encode(), b"scram-sha-256"
    ).decode()


def _unescaped(text: str) -> str:
    plain = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
    return re.sub(
        r"\\(u[0-9a-fA-F]{4}|.)",
        lambda m: chr(int(m[1][1:], 16)) if len(m[1]) == 5 else plain.get(m[1], m[1]),
        text,
    )
