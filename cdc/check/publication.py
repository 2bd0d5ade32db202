"""The publication: what leaves PostgreSQL at all. What it leaves out, no count in the stream misses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from cdc import heartbeat, provision
from cdc.check.finding import DELAYS, LOSES, Hit, Look, Site, finding
from cdc.names import TableName
from cdc.provision import Publication

SETUP = "run `cdc setup`"

_OPERATIONS = """
SELECT array_remove(ARRAY[CASE WHEN NOT pubinsert THEN 'insert' END,
                          CASE WHEN NOT pubupdate THEN 'update' END,
                          CASE WHEN NOT pubdelete THEN 'delete' END,
                          CASE WHEN NOT pubtruncate THEN 'truncate' END], NULL), pubviaroot
  FROM pg_publication WHERE pubname = %s
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """The publication, None when there is none; `wanted` are the tables it shall name.

    `unpublished` are the operations that it leaves out; `by_root` tells that rows of partitions
    come under their root's name.
    """

    name: str
    publication: Publication | None
    wanted: tuple[TableName, ...]
    unpublished: tuple[str, ...] = ()
    by_root: bool = False


def read(site: Site) -> Facts:
    name = site.config.publication
    row = site.primary().execute(_OPERATIONS, [name]).fetchone()
    return Facts(
        name,
        provision.publication(site.primary(), name),
        (*(t.name for t in site.selection().published), *heartbeat.published(site.config)),
        *(() if row is None else (tuple(row[0]), row[1])),
    )


@finding("publication-absent", DELAYS, "The connector fails without it.")
def absent(found: Facts) -> Iterator[Hit]:
    if found.publication is None:
        yield Hit(f"there is no publication {found.name}", SETUP)


@finding("publication-tables", LOSES,
         "Rows of a table that is not in it leave no trace in the stream; the counts agree.")  # fmt: skip
def lacking(found: Facts) -> Iterator[Hit]:
    if found.publication is None or found.publication.all_tables:
        return
    for table in found.wanted:
        if table not in found.publication.members and not _by_schema(found.publication, table):
            yield Hit(
                f"{table} is not in the publication {found.name}",
                f"{SETUP}, then `cdc bootstrap --table {table}` on each replica",
            )


@finding("publication-filter", LOSES,
         "A row filter or column list leaves out rows or values, and the counts agree.")  # fmt: skip
def filtered(found: Facts) -> Iterator[Hit]:
    for table, part in found.publication.members.items() if found.publication else ():
        if part:
            yield Hit(
                f"{table} is published only in part (row filter or column list)",
                f"{SETUP}, then `cdc bootstrap --table {table} --overwrite` on each replica",
            )


@finding("publication-operations", LOSES, "What it does not publish is done on the primary alone.")
def operations(found: Facts) -> Iterator[Hit]:
    if found.unpublished:
        yield Hit(
            f"{found.name} does not publish {', '.join(found.unpublished)}",
            f"{SETUP}; what was done meanwhile: cdc-verify",
        )


@finding("publication-root", LOSES,
         "Rows of partitions come under their root's name, and TRUNCATE of a partition not at all.")  # fmt: skip
def by_root(found: Facts) -> Iterator[Hit]:
    if found.by_root:
        yield Hit(f"{found.name} has publish_via_partition_root", f"{SETUP}, then run cdc-verify")


@finding("publication-more", DELAYS,
         "Its changes travel for nothing; those of a partitioned table's root halt the replicas.")  # fmt: skip
def more(found: Facts) -> Iterator[Hit]:
    if found.publication is None:
        return
    if found.publication.all_tables:
        yield Hit(
            f"{found.name} is FOR ALL TABLES, those included that are not replicated",
            f"DROP PUBLICATION {found.name} if nothing else uses it, or set another "
            f"primary.publication; then {SETUP}",
        )
    for schema in found.publication.schemas:
        yield Hit(f"{found.name} has the whole schema {schema}, later tables included", SETUP)
    for table in found.publication.members:
        if table not in found.wanted:
            yield Hit(f"{table} is in {found.name} and not to be replicated", SETUP)


def _by_schema(publication: Publication, table: TableName) -> bool:
    return table.schema in publication.schemas


LOOKS: tuple[Look[Any], ...] = (
    Look("primary", "the publication", read,
         (absent, lacking, filtered, operations, by_root, more)),
)  # fmt: skip
