"""What people write: durations, sizes, addresses."""

from __future__ import annotations

import pytest

from cdc.units import Address, Duration, Size


def test_what_is_written_is_what_is_meant() -> None:
    """Each unit stands for what everybody takes it for."""
    assert (0.5, 300.0, 604_800.0) == tuple(map(Duration.parse, ("500ms", "5m", "7d")))
    assert (512, 8 << 20) == (Size.parse("512B"), Size.parse("8MiB"))
    address = Address.parse("[::1]:9401")
    assert ("::1", 9401) == (address.host, address.port)
    assert ("0.0.0.0", 1) == (Address.parse("0.0.0.0:1").host, Address.parse("0.0.0.0:1").port)


@pytest.mark.parametrize("text", ["9401", ":9401", "host:", "host:70000", "a:b:1", "host:-1", 9401])
def test_a_wrong_address_is_refused_with_the_right_form(text: object) -> None:
    """A port without a host must not come to mean every network there is."""
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:9401"):
        Address.parse(text)
