"""What the configuration may say about alerts, and how what cannot be meant is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cdc import config
from cdc.alert import courier, store
from cdc.alert.healing import Healing
from cdc.alert.payload import Frame
from cdc.alert.settings import AlertmanagerHook, CommandHook, WebhookHook
from cdc.errors import ConfigError


def decode(**more: Any) -> config.Config:
    given: dict[str, Any] = {
        "name": "app",
        "primary": {"dsn": "dbname=app"},
        "kafka": {"bootstrap_servers": "localhost:1"},
        "connect": {"url": "http://localhost:1"},
        "replicas": {"r1": {"dsn": "dbname=app"}},
    }
    return config.decode(given | more, Path("/etc/cdc.toml"))


def test_hooks_of_every_kind_are_read() -> None:
    """Each kind has its own keys; several of one kind may stand beside each other."""
    hooks = [
        {"kind": "command", "argv": ["page"], "timeout": "5s"},
        {"kind": "webhook", "url": "https://user:pw@a.example/t0ken", "secret": "long enough"},
        {"kind": "alertmanager", "urls": ["http://am1:9093", "http://am2:9093"]},
        {"kind": "command", "argv": ["/usr/bin/page"]},
    ]
    found = decode(alert={"for": "10s", "hooks": hooks})

    assert 10.0 == found.alert.for_
    assert [CommandHook, WebhookHook, AlertmanagerHook, CommandHook] == [
        type(hook) for hook in found.alert.hooks
    ]
    assert [
        "command page", "webhook a.example", "alertmanager am1:9093", "alertmanager am2:9093",
        "command page #2",
    ] == [errand.name for errand in courier.errands(found.alert.hooks, Frame.of(found))]  # fmt: skip


def test_relative_paths_are_relative_to_the_file() -> None:
    """Where the state is, and a program given by a path; a bare name is looked for in PATH."""
    hooks = [{"kind": "command", "argv": [argv]} for argv in ("./page", "page", "/bin/page")]
    found = decode(state_dir="state", alert={"hooks": hooks})

    assert Path("/etc/state") == found.state_dir == store.folder(found)
    programs = [hook.argv[0] for hook in found.alert.hooks if isinstance(hook, CommandHook)]
    assert ["/etc/page", "page", "/bin/page"] == programs


def test_the_state_goes_where_systemd_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without state_dir, $STATE_DIRECTORY is taken, else the XDG folder."""
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/cdc-alert:/other")
    assert Path("/var/lib/cdc-alert") == store.folder(decode())
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/x/state")
    assert Path("/home/x/state/cdc/app") == store.folder(decode())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"lag": {"target": "3m", "warn": "5m"}}, r"lag.warn \(300 s\) must be less than lag.target"),
        ({"lag": {"target": "5m", "warn": "5m"}}, "must be less than"),
        ({"lag": {"warn": "0s"}}, "more than nothing"),
        ({"alert": {"fro": "1s"}}, "unknown key alert.fro"),
        ({"alert": {"interval": "0s"}}, "alert.interval must be more than nothing"),
        ({"alert": {"listen": "9400"}}, "not an address to listen at"),
        ({"alert": {"hooks": [{"kind": "pager"}]}}, "pager"),
        ({"alert": {"hooks": [{"argv": ["x"]}]}}, "kind"),
        ({"alert": {"hooks": [{"kind": "command", "argv": []}]}}, "the first: argv names no program"),
        ({"alert": {"hooks": [{"kind": "command", "arv": ["x"]}]}}, "unknown key alert.hooks.arv"),
        ({"alert": {"hooks": [{"kind": "command", "argv": "page --all"}]}}, "array"),
        ({"alert": {"hooks": [{"kind": "webhook", "url": "ftp://x"}]}}, "not http://"),
        ({"alert": {"hooks": [{"kind": "webhook", "url": "http://x:y"}]}}, "not http://"),
        ({"alert": {"hooks": [{"kind": "webhook", "url": "http://x", "secret": "short"}]}}, "secret has less"),
        ({"alert": {"hooks": [{"kind": "alertmanager", "urls": []}]}}, "urls is empty"),
        ({"alert": {"hooks": [{"kind": "webhook", "url": "http://x", "timeout": "0s"}]}}, "timeout"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(more: dict[str, Any], said: str) -> None:
    """The message names key and place, and nothing was read or written."""
    with pytest.raises(ConfigError, match=said) as found:
        decode(**more)
    assert "nothing was read or written" in str(found.value)


def test_a_close_key_is_named() -> None:
    """A misspelt key of a hook comes with the one that was meant."""
    with pytest.raises(ConfigError) as found:
        decode(alert={"hooks": [{"kind": "webhook", "urls": "http://x"}]})
    assert "did you mean alert.hooks.url?" in found.value.next


def test_what_fails_again_is_restarted_later_each_time() -> None:
    """After 5 seconds, then at twice the distance each time, at most every ten minutes."""
    healing, restarts = Healing(), list[float]()
    for second in range(4000):
        healing = healing.after(True, float(second))
        if healing.due(float(second)):
            healing = healing.tried(float(second))
            restarts.append(second)

    assert [5, 15, 35, 75, 155, 315, 635, 1235, 1835] == restarts[:9]
    assert "restarted 12 times" == str(healing)


def test_a_restart_is_not_due_once_it_runs_again() -> None:
    """What runs is left alone; ten minutes without a failure, and the next one is the first again."""
    healing = Healing().after(True, 0.0).after(False, 6.0)
    assert not healing.due(6.0)
    assert healing.after(True, 7.0).due(7.0)
    tried = healing.after(True, 7.0).tried(7.0)
    assert tried.after(False, 606.0).tries == 1
    assert tried.after(False, 607.0) == Healing()
