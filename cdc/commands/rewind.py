"""Setting the stock connector back: reading where to, stopping it, moving slot and offset, starting it."""

from __future__ import annotations

import contextlib

from cdc import keeper, position, postgres, rewinding
from cdc.commands import settling
from cdc.config import NOTHING_CHANGED, Config
from cdc.connect import Connect
from cdc.connectors import Health
from cdc.errors import ConfigError, NotReady

_SAFE = "no offset and no slot was changed"


def target(config: Config) -> int:
    """Return the commit that every configured replica has applied; CdcError where one cannot tell."""
    if config.connect.profile != "stock":
        raise ConfigError(
            "only a stock connector is set back: the capture plugin goes on at a commit by itself",
            safe=NOTHING_CHANGED,
            next="run `cdc connectors restart`",
        )
    applied = []
    for name, replica in config.replicas.items():
        application = config.application_name(name, "rewind")
        with contextlib.closing(postgres.connect(replica.dsn, application)) as conn:
            applied.append(position.load(conn, config.name)[0].applied_lsn)
    return min(applied)


def rewind(config: Config, connect: Connect) -> tuple[int, Health]:
    """Set the connector back; return the commit that it goes on after, and how it is.

    It runs again in any case, as it was where the log is not kept any more (NotReady).
    """
    name, after = config.connector, target(config)
    application = f"cdc-{config.name}/connectors"
    with contextlib.closing(
        postgres.connect(config.primary.dsn, application, autocommit=True)
    ) as primary:
        keepers = [keeper.slot(config, replica) for replica in config.replicas]
        rewinding.source_slot(
            rewinding.slots(primary, [config.slot, *keepers]), config.slot, keepers, after
        )
        connect.stop(name)
        settling.wait_stopped(connect, name)
        try:
            # Once more: it may have moved its slot on until it stopped.
            found = rewinding.slots(primary, [config.slot, *keepers])
            taken = rewinding.source_slot(found, config.slot, keepers, after)
            stored = connect.offsets(name)
            if not stored:
                raise NotReady(
                    f"Kafka Connect has stored no offset of {name} yet",
                    safe=_SAFE,
                    next="wait until something was captured, then run this again",
                )
            if taken != config.slot:
                settling.wait_released(
                    primary, config.slot, patience=settling.START_TIME, safe=_SAFE, again="this"
                )
                rewinding.replace(primary, config.slot, taken)
            connect.set_offsets(
                name,
                [
                    {
                        "partition": entry["partition"],
                        "offset": rewinding.offset(entry["offset"], after),
                    }
                    for entry in stored
                ],
            )
        finally:
            connect.resume(name)
    return after, settling.wait(connect, name)
