"""Connection strings that are none are refused without a word of what stands in them."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from cdc import config as configs
from cdc.commands import administrator
from cdc.config import Config
from cdc.errors import ConfigError

#: Each has the secret where libpq's message would repeat it.
WRONG = (
    "host=db password=s3cret tail",
    "host=db password=a s3cret=b",
    "postgresql://cdc:s3 cret@db/app",
    "postgresql://cdc:s3cret@[db/app",
    "postgresql://cdc:s3%zzcret@db/app",
    "postgresql://cdc@db/app?s3cret=1",
    "s3cret",
)


def decoded(dsn: str = "dbname=app") -> Config:
    raw = {
        "name": "app",
        "primary": {"dsn": "dbname=app"},
        "kafka": {"bootstrap_servers": "localhost:1"},
        "connect": {"url": "http://localhost:1"},
        "replicas": {"r1": {"dsn": "dbname=app", "admin_dsn": dsn}},
    }
    return configs.decode(raw, Path("/etc/cdc.toml"))


def silent(raised: pytest.ExceptionInfo[BaseException]) -> bool:
    """Tell whether neither the message nor the traceback has anything of the password."""
    return "cret" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("dsn", WRONG)
def test_of_a_wrong_dsn_in_the_file_only_the_key_is_told(dsn: str) -> None:
    """The message names file and key and how a DSN is written, not what was given."""
    with pytest.raises(ConfigError, match=r"replicas\.r1\.admin_dsn is no connection string") as raised:  # fmt: skip
        decoded(dsn)

    assert "/etc/cdc.toml" in str(raised.value)
    assert silent(raised)


@pytest.mark.parametrize("dsn", WRONG)
def test_of_a_wrong_dsn_on_the_command_line_only_the_option_is_told(dsn: str) -> None:
    """--admin-dsn is an error of usage like any other, no defect with a traceback that has it."""
    with (
        pytest.raises(ConfigError, match="--admin-dsn is no connection string") as raised,
        administrator.session(decoded(), dsn),
    ):
        pass

    assert 2 == raised.value.exit_code
    assert silent(raised)
