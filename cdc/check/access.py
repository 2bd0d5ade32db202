"""A replica's schema `cdc`, what the daemon's role may do there, and who else may write its tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from cdc import rights, state
from cdc.check.finding import DELAYS, Hit, Look, Site, finding
from cdc.errors import NotReady
from cdc.names import quoted
from cdc.rights import Lack, Writer


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """The schema `cdc` and the rights of the role that writes; `version` is None before setup."""

    role: str
    version: int | None
    foreign: str | None
    may_quiet: bool
    lacking: tuple[Lack, ...]


_MAY_QUIET = "SELECT has_parameter_privilege('session_replication_role', 'SET')"


def read_state(site: Site) -> State:
    conn = site.here()
    names = [t.name for t in site.selection().rows]
    foreign, version = None, None
    try:
        version = state.version(conn)
    except NotReady as error:
        foreign = error.what
    assert site.replica is not None
    may = site.config.replica(site.replica).triggers == "disabled" or (
        conn.execute(_MAY_QUIET).fetchone() == (True,)
    )
    role = conn.info.user
    return State(role, version, foreign, may, rights.lacking(conn, role, names))


@finding(
    "replica-schema", DELAYS, "The daemon keeps its position in the schema cdc of this version."
)
def schema(found: State) -> Iterator[Hit]:
    if found.foreign is not None:
        yield Hit(found.foreign, "rename that schema, then run `cdc setup`")
    elif found.version is None:
        yield Hit("there is no schema cdc", "run `cdc setup`")
    elif found.version != state.VERSION:
        newer = found.version > state.VERSION
        yield Hit(
            f"the schema cdc has version {found.version}, this program works with {state.VERSION}",
            "install a newer release of this program" if newer else "run `cdc setup`",
        )


@finding("replica-rights", DELAYS, "The daemon halts at the first change it may not write.")
def lacking(found: State) -> Iterator[Hit]:
    role = quoted(found.role)
    if not found.may_quiet:
        yield Hit(f"{found.role} may not set session_replication_role",
                  f"GRANT SET ON PARAMETER session_replication_role TO {role}")  # fmt: skip
    for kind, right, schema_, name in found.lacking:
        full = quoted(name) if schema_ is None else f"{quoted(schema_)}.{quoted(name)}"
        yield Hit(
            f"{found.role} lacks {right} on the {kind.lower()} {full}",
            f"run `cdc setup`, or GRANT {right} ON {kind} {full} TO {role}",
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Others:
    """Who besides `role` may write tables that the replica follows."""

    role: str
    writers: tuple[Writer, ...]


def read_others(site: Site) -> Others:
    conn = site.here()
    followed = state.followed(conn, site.config.name)
    above = [t.name for t in site.selection().partitioned] if followed else []
    role = conn.info.user
    return Others(role, rights.writers(conn, role, (*sorted(followed), *above)))


@finding("replica-writers", DELAYS,
         "What somebody else writes into a replicated table is overwritten, stands there until "
         "cdc-verify finds it, or halts the replica.")  # fmt: skip
def writers(found: Others) -> Iterator[Hit]:
    role = quoted(found.role)
    for writer in found.writers:
        match writer.how:
            case "grant":
                yield Hit(
                    f"{writer.name} was granted to write {writer.told}",
                    "run `cdc setup`, which takes that from him",
                )
            case "owner":
                more = ", and of the others" if len(writer.tables) > 1 else ""
                yield Hit(
                    f"{writer.name} owns {writer.told}",
                    f"ALTER TABLE {writer.tables[0]} OWNER TO {role}{more}",
                )
            case "member":
                yield Hit(
                    f"{writer.name} may act as {role} or as pg_write_all_data",
                    f"REVOKE {role} (or pg_write_all_data) FROM {quoted(writer.name)}",
                )


LOOKS: tuple[Look[Any], ...] = (
    Look("replica", "schema cdc and rights", read_state, (schema, lacking)),
    Look("replica", "who writes its tables", read_others, (writers,)),
)
