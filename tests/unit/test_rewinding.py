"""Setting a stock connector back: which slot still has the log, and what offset is stored."""

from __future__ import annotations

from unittest import mock

import pytest
from test_connectors import config

from cdc import keeper, rewinding, runs
from cdc.config import Config
from cdc.errors import NotReady
from cdc.rewinding import Slot

OWN, KEEPERS = "cdc_app", ["cdc_app_r1_keep", "cdc_app_r2_keep"]


def test_the_connectors_own_slot_will_do_where_it_has_the_log() -> None:
    """A keeper is taken only where the connector's slot is past the place."""
    own, kept = Slot(OWN, 800), Slot(KEEPERS[1], 400)

    assert OWN == rewinding.source_slot({OWN: own, KEEPERS[1]: kept}, OWN, KEEPERS, 800)
    assert KEEPERS[1] == rewinding.source_slot({OWN: own, KEEPERS[1]: kept}, OWN, KEEPERS, 792)
    assert KEEPERS[1] == rewinding.source_slot({KEEPERS[1]: kept}, OWN, KEEPERS, 792)


def test_what_no_slot_has_is_refused() -> None:
    """Nothing is set back to where the server has forgotten the log: it would begin later, silently."""
    found = {OWN: Slot(OWN, 800), KEEPERS[0]: Slot(KEEPERS[0], 796)}

    with pytest.raises(NotReady, match="cdc_app from 0/320") as refused:
        rewinding.source_slot(found, OWN, KEEPERS, 792)

    assert "bootstrap --overwrite" in refused.value.next


def test_the_offset_is_a_mark_outside_any_transaction() -> None:
    """What Debezium remembers of a transaction goes; the place is the byte before the commit's end."""
    stored = {"lsn": 999, "lsn_proc": 999, "lsn_commit": 900, "messageType": "INSERT", "ts_usec": 5,
              "transaction_id": "7:900", "transaction_data_collection_order_a": 3}  # fmt: skip

    at = rewinding.offset(stored, 800)

    assert {
        "lsn": 799,
        "lsn_proc": 799,
        "lsn_commit": 799,
        "messageType": "COMMIT",
        "ts_usec": 5,
    } == at
    assert 800 == runs.marked(at["lsn_commit"])


def stock() -> Config:
    return config(profile="stock")


def test_a_keeper_has_a_name_that_a_slot_may_have() -> None:
    """Slots have lower-case names of 63 bytes at most; replicas need not."""
    assert "cdc_app_west_2_keep" == keeper.slot(stock(), "West-2")
    assert 63 >= len(keeper.slot(stock(), "r" * 80))


def test_a_keeper_never_goes_back() -> None:
    """It is made where there is none, and moved only forward."""

    def asked(confirmed: tuple[int] | None) -> list[str]:
        conn = mock.Mock()
        conn.execute.return_value.fetchone.return_value = confirmed
        keeper.follow(conn, "kept", 800)
        return [call.args[0].partition("(")[0] for call in conn.execute.call_args_list[1:]]

    assert ["SELECT pg_create_logical_replication_slot"] == asked(None)
    assert [] == asked((800,))
    assert ["SELECT pg_replication_slot_advance"] == asked((792,))
