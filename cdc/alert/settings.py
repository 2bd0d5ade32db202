"""What the configuration file says about alerts: `[alert]` and its hooks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from cdc.units import Address, Duration, Section

#: Characters that a secret must have: a short one can be guessed, and masking it would mask all.
_SECRET = 8


class CommandHook(Section, frozen=True, tag_field="kind", tag="command"):
    """A program of one's own; `argv` is started without a shell."""

    argv: tuple[str, ...]
    timeout: Duration = Duration(30)


class WebhookHook(Section, frozen=True, tag_field="kind", tag="webhook"):
    """An address that takes JSON; `secret` signs what is sent."""

    url: str
    secret: str | None = None
    timeout: Duration = Duration(10)


class AlertmanagerHook(Section, frozen=True, tag_field="kind", tag="alertmanager"):
    """All instances of one Alertmanager; `resend` lies between two sendings of what fires."""

    urls: tuple[str, ...]
    resend: Duration = Duration(30)
    timeout: Duration = Duration(10)


Hook = CommandHook | WebhookHook | AlertmanagerHook


class Alert(Section, frozen=True, rename={"for_": "for"}):
    """When somebody is told; the thresholds themselves are `lag.warn` and `lag.target`."""

    interval: Duration = Duration(5)
    for_: Duration = Duration(30)
    clear_for: Duration = Duration(60)
    repeat: Duration = Duration(4 * 3600)
    grace: Duration = Duration(60)
    listen: Address | None = None
    runbooks: str = "docs/operations.md"
    hooks: tuple[Hook, ...] = ()


def located(alert: Alert, folder: Path) -> Alert:
    """Return it with programs given by a relative path taken from `folder`; bare names stay."""
    hooks = tuple(
        msgspec.structs.replace(
            hook, argv=(str((folder / hook.argv[0]).absolute()), *hook.argv[1:])
        )
        if isinstance(hook, CommandHook) and "/" in hook.argv[0]
        else hook
        for hook in alert.hooks
    )
    return msgspec.structs.replace(alert, hooks=hooks)


def complaints(alert: Alert) -> Iterator[tuple[str, str]]:
    """Yield what cannot be meant, each with what to write instead; no secret is repeated."""
    if alert.interval <= 0:
        yield "alert.interval must be more than nothing", 'write "5s"'
    for number, hook in enumerate(alert.hooks, 1):
        where = f"alert.hooks, the {_ordinal(number)}"
        yield from ((f"{where}: {what}", instead) for what, instead in _of_hook(hook))


def _of_hook(hook: Hook) -> Iterator[tuple[str, str]]:
    if hook.timeout <= 0:
        yield "timeout must be more than nothing", 'write "10s"'
    if isinstance(hook, CommandHook):
        if not hook.argv or not hook.argv[0]:
            yield "argv names no program", 'write argv = ["/path/to/program"]'
        return
    urls = (hook.url,) if isinstance(hook, WebhookHook) else hook.urls
    if not urls:
        yield "urls is empty", 'write urls = ["http://alertmanager:9093"]'
    if not all(_reachable(url) for url in urls):
        yield "an address is not http:// or https:// with a host", "correct it"
    if isinstance(hook, WebhookHook) and hook.secret is not None and len(hook.secret) < _SECRET:
        yield f"secret has less than {_SECRET} characters", "take a longer one, or leave it out"
    if isinstance(hook, AlertmanagerHook) and hook.resend <= 0:
        yield "resend must be more than nothing", 'write "30s"'


def _reachable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        return False


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
