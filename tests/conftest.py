"""Fixtures: one real stack per run, a stream of its own per test."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import harness
import pytest

pytest.register_assert_rewrite("road")

import road as roads  # noqa: E402 -- after its registration, for its asserts to tell what they found
from harness import Stack, Stream  # noqa: E402


def pytest_configure() -> None:
    """Take the stack down when a run is terminated, as when it is interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give the stack that all tests share.

    CDC_TEST_DIR names the directory of a running one, which then is left running.
    CDC_TEST_STACK=docker starts containers instead of processes.
    """
    if given := os.environ.get("CDC_TEST_DIR"):
        yield Stack.at(Path(given).absolute())
        return
    folder = tmp_path_factory.mktemp("stack")
    if os.environ.get("CDC_TEST_STACK") == "docker":
        import docker_stack

        with docker_stack.running(folder) as containers:
            yield containers
        return

    def down() -> None:
        if (folder / "local").exists():
            harness.run("local", "down", "--purge", "--dir", folder / "local", cwd=folder)

    atexit.register(down)
    try:
        harness.run("local", "up", "--dir", folder / "local", cwd=folder, timeout=600)
        yield Stack.at(folder / "local")
    finally:
        down()
        atexit.unregister(down)


@pytest.fixture
def streams(stack: Stack, tmp_path: Path) -> Iterator[Callable[[], Stream]]:
    """Give a function that makes fresh streams."""
    with ExitStack() as made:
        yield lambda: made.enter_context(
            harness.stream(stack, tmp_path / f"stream-{len(list(tmp_path.iterdir()))}")
        )


@pytest.fixture
def stream(streams: Callable[[], Stream]) -> Stream:
    """Give a fresh stream: databases, topic, connector and configuration of its own."""
    return streams()


@pytest.fixture(scope="session")
def shared_road(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[roads.Road]:
    """Give the stream that the tests of the daemon share, with every table they asked for."""
    with roads.built(stack, tmp_path_factory.mktemp("road")) as built:
        yield built


@pytest.fixture
def road(shared_road: roads.Road, request: pytest.FixtureRequest) -> roads.Road:
    """Give the shared stream to one test, with both daemons running."""
    shared_road.schema = roads.schema_of(request.node.originalname)
    shared_road.heal()
    return shared_road
