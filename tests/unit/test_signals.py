"""Stopping a program that waits for something else."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from cdc import signals


def test_a_wait_that_goes_on_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked once, the program is insisted upon; what comes after the body is left alone."""
    monkeypatch.setattr(signals, "GRACE", 0.05)
    before = signal.getsignal(signal.SIGTERM)
    with signals.stopping() as stop:
        with stop.insisting():
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait()
            raise AssertionError("nothing sets the event")
        stop.alarm(signal.SIGALRM, None)

    assert (True, before) == (stop.is_set(), signal.getsignal(signal.SIGTERM))
