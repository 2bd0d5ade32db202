"""A second host for a test: a network namespace whose way to this one can be cut without a word.

A packet that meets a blackhole route is dropped; no side is told, as when a machine or a switch
dies. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import refusals

_CLONE_NEWNET = 0x40000000


class Namespace:
    """The other host: `here` is this one's address as it sees it."""

    def __init__(self, name: str, here: str, there: str) -> None:
        self.name, self.here, self.there = name, here, there

    @property
    def command(self) -> list[str]:
        """Return what to put before a command that shall run there."""
        return ["ip", "netns", "exec", self.name]

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Drop everything between the two hosts meanwhile."""
        _ip("route", "add", "blackhole", f"{self.there}/32")
        try:
            _ip("-n", self.name, "route", "add", "blackhole", f"{self.here}/32")
            try:
                yield
            finally:
                _ip("-n", self.name, "route", "del", "blackhole", f"{self.here}/32")
        finally:
            _ip("route", "del", "blackhole", f"{self.there}/32")

    def listen(self, port: int) -> socket.socket:
        """Return a socket that listens on the other host's own loopback."""
        made: list[socket.socket] = []

        def enter() -> None:
            # A thread has a namespace of its own; a socket keeps the one it was made in.
            with Path(f"/run/netns/{self.name}").open("rb") as namespace:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server(("127.0.0.1", port)))

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return made[0]


class Relay(refusals.Gate):
    """What listens on this host's loopback, on the other's; a cut does not touch it."""

    def __init__(self, namespace: Namespace, port: int) -> None:
        super().__init__(f"host=127.0.0.1 port={port}")
        self.port = port
        self._namespace = namespace

    def listen(self) -> socket.socket:
        return self._namespace.listen(self.port)


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """Give another host; skip where the machine does not let us make one."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("only root can make a network namespace, with the program ip")
    mark = secrets.token_hex(3)
    net = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
    made = Namespace(f"cdc{mark}", f"{net}.1", f"{net}.2")
    try:
        _ip("netns", "add", made.name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made here: {error.stderr.strip()}")
    try:
        inside, outside = f"v{mark}i", f"v{mark}o"
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside)
        _ip("link", "set", inside, "netns", made.name)
        _ip("addr", "add", f"{made.here}/30", "dev", outside)
        _ip("link", "set", outside, "up")
        _ip("-n", made.name, "addr", "add", f"{made.there}/30", "dev", inside)
        _ip("-n", made.name, "link", "set", inside, "up")
        _ip("-n", made.name, "link", "set", "lo", "up")
        yield made
    finally:
        _ip("netns", "del", made.name)  # its end of the pair goes with it, and so does ours
