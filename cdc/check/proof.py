"""Whether the capture plugin in the worker yields the server's text with the Debezium that is there.

The plugin tries it itself, inside the worker, whenever Kafka Connect validates a definition: it gives the
decoder values that Debezium's own conversions alter, and values that were not sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cdc import connectors
from cdc.check.finding import LOSES, Hit, Look, Site, finding
from cdc.connect import Connect

#: The setting under which a validation tells the outcome.
SETTING = "exact.proof"

#: Seconds for Kafka Connect to validate a definition: the worker logs in to the database meanwhile.
_VALIDATION = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """For which version of Debezium it is proven, or what speaks `against`.

    `tried`: the plugin is there to try anything.
    """

    tried: bool
    debezium: str | None = None
    against: tuple[str, ...] = ()


def read(site: Site) -> Facts:
    wanted = connectors.render(site.config).config
    if site.connect.plugins().get(wanted["connector.class"]) != connectors.PLUGIN:
        return Facts(tried=False)
    connect = Connect(site.config.connect, patience=0, timeout=_VALIDATION)
    return outcome(connect.validate(wanted))


def outcome(validated: Iterable[Mapping[str, Any]]) -> Facts:
    """Read the outcome out of a validation; where a definition is refused the plugin tries nothing."""
    entries = list(validated)
    told = next((e["value"] for e in entries if e["value"]["name"] == SETTING), None)
    versions = told["recommended_values"] if told else []
    if versions:
        return Facts(tried=True, debezium=str(versions[0]))
    against = tuple(f"{key}: {wrong}" for key, wrong in connectors.complaints(entries))
    return Facts(tried=True, against=against)


@finding("plugin-proof", LOSES,
         "The plugin rests on how Debezium hands over values, which no release of it promises: so it is tried in "
         "the worker, with values that Debezium's own conversions alter.")  # fmt: skip
def proof(found: Facts) -> Iterator[Hit]:
    if not found.tried or found.debezium is not None:
        return
    for against in found.against or ("the validation tells nothing of it",):
        yield Hit(
            f"not proven that values arrive as the server sends them: {against}",
            "use the Debezium that docs/install.md names, or mend what the validation refuses",
        )


LOOKS: tuple[Look[Any], ...] = (Look("connect", "the values that it captures", read, (proof,)),)
