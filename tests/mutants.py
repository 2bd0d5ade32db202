"""Make the program worse by a change of its text, to see that the tests would notice."""

from __future__ import annotations

import contextlib
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any
from unittest import mock


@contextlib.contextmanager
def mutant(owner: Any, name: str, old: str, new: str) -> Iterator[None]:
    """Put `new` in the place of `old`, which must be there once, in the function's source."""
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__qualname__} has not once: {old}"
    made: dict[str, Any] = {}
    exec(
        compile(source.replace(old, new), f"<mutant of {name}>", "exec"), function.__globals__, made
    )
    with mock.patch.object(owner, name, made[name]):
        yield
