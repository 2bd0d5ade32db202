"""A session in which this process does something else while the server works."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.waiting import Wait

R = TypeVar("R")

#: What to look for on the socket, for each of what psycopg may wait for.
_LOOKED_FOR = {
    Wait.R: select.POLLIN,
    Wait.W: select.POLLOUT,
    Wait.RW: select.POLLIN | select.POLLOUT,
}


class Session(psycopg.Connection[tuple[Any, ...]]):
    """While a statement runs, `meanwhile` is called again and again as long as it says it did something.

    In one thread: two would share Python's lock, and the work would not fall into the time in which this
    process waits (docs/decisions.md, "Reading ahead"). Each call delays the answer by as long as it takes.
    What it raises comes out of the statement, which is canceled after a KeyboardInterrupt and else still under
    way: the session can only be closed, and nothing is done meanwhile any more.
    """

    meanwhile: Callable[[], bool] | None = None

    @contextlib.contextmanager
    def working(self, meanwhile: Callable[[], bool]) -> Iterator[None]:
        """Do so in the body."""
        self.meanwhile = meanwhile
        try:
            yield
        finally:
            self.meanwhile = None

    def wait(self, gen: PQGen[R], *args: Any, **kwargs: Any) -> R:
        """Wait as psycopg does, and work meanwhile."""
        return super().wait(gen if self.meanwhile is None else self._working(gen), *args, **kwargs)

    def _working(self, gen: PQGen[R]) -> PQGen[R]:
        socket = select.poll()
        ready = None
        while True:
            try:
                awaited = next(gen) if ready is None else gen.send(ready)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]  # PQGen's own
            socket.register(self.pgconn.socket, _LOOKED_FOR[awaited])
            try:
                while self.meanwhile is not None and not socket.poll(0) and self.meanwhile():
                    pass
            except BaseException:
                self.meanwhile = None
                raise
            ready = yield awaited
