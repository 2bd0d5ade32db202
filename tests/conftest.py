"""Fixtures: one real stack per run, a stream of its own per test."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import harness
import hypothesis
import least
import leftovers
import pytest

import cdc

pytest.register_assert_rewrite("road")

import road as roads  # noqa: E402 -- after its registration, for its asserts to tell what they found
from harness import Stack, Stream  # noqa: E402

# A busy machine is slow, not wrong.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

#: The stack that a run of several workers shares, from before they start until they have ended.
_shared = ExitStack()


def pytest_configure() -> None:
    """Take the stack down when a run is terminated, as when it is interrupted.

    SIGINT too is taken back: a shell's background job is started with it ignored, and so would be
    every program that a test interrupts.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    if "CDC_TEST_CDC" in os.environ and Path(cdc.__file__).is_relative_to(harness.ROOT / "cdc"):
        raise pytest.UsageError("an installed cdc is to be tested, and the checkout's is imported")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Start the one stack before pytest-xdist starts its workers, which find it by CDC_TEST_DIR."""
    if os.environ.get("CDC_TEST_STACK") == "docker":
        raise pytest.UsageError("containers are started once per run: use one worker (-n 0)")
    folder = Path(_shared.enter_context(tempfile.TemporaryDirectory(prefix="cdc-test-")))
    if "CDC_TEST_DIR" not in os.environ:
        _shared.enter_context(harness.own_stack(folder / "local"))
        os.environ["CDC_TEST_DIR"] = str(folder / "local")
    (listed := folder / "listed").mkdir()
    os.environ[leftovers.NAMED_BY] = str(listed)
    _shared.callback(_clear, listed)


def _clear(listed: Path) -> None:
    """Take away what workers that were killed have left."""
    for folder in leftovers.left("stream", listed):
        leftovers.end_programs(folder)
    for folder in leftovers.left("stack", listed):
        harness.take_down(folder)


def pytest_unconfigure() -> None:
    """Take down what the workers shared."""
    _shared.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, or the last worker ends long after the others.

    What is about an administrator is left out where the run has none.
    """
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long)
    if least.LEAST:
        for item in items:
            if item.get_closest_marker("administrator"):
                item.add_marker(
                    pytest.mark.skip(reason="about an administrator, and there is none")
                )


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give the stack that all tests share.

    CDC_TEST_DIR names the directory of a running one, which then is left running.
    CDC_TEST_STACK=docker starts containers instead of processes.
    """
    if given := os.environ.get("CDC_TEST_DIR"):
        yield Stack.at(Path(given).absolute())
    elif os.environ.get("CDC_TEST_STACK") == "docker":
        import docker_stack

        with docker_stack.running(tmp_path_factory.mktemp("stack")) as containers:
            yield containers
    else:
        with harness.own_stack(tmp_path_factory.mktemp("stack") / "local") as local:
            yield local


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
