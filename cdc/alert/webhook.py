"""The hook `webhook`: JSON by POST, signed, with a key by which a second sending is known."""

from __future__ import annotations

import hashlib
import hmac
import time
from urllib.parse import urlsplit

import requests

from cdc.alert import payload
from cdc.alert.delivery import NotTaken
from cdc.alert.machine import Notice
from cdc.alert.payload import Frame
from cdc.alert.settings import WebhookHook


class Webhook:
    """Any 2xx answer means taken."""

    def __init__(self, name: str, hook: WebhookHook, frame: Frame) -> None:
        self.name = name
        self._hook, self._frame = hook, frame

    def tell(self, notice: Notice) -> None:
        body = payload.encoded(self._frame, notice)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": self._frame.id(notice),
        }
        if self._hook.secret is not None:
            at = str(int(time.time()))
            headers["X-Cdc-Timestamp"] = at
            headers["X-Cdc-Signature"] = signature(self._hook.secret, at, body)
        post(self._hook.url, body, headers, self._hook.timeout)


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return what a receiver compares: HMAC-SHA256 over timestamp, a dot, and the body."""
    message = timestamp.encode() + b"." + body
    return f"sha256={hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()}"


def post(url: str, body: bytes, headers: dict[str, str], timeout: float) -> None:
    """Send a body; NotTaken unless the answer is 2xx. The text names no more than the host."""
    try:
        with requests.post(
            url,
            data=body,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            auth=_as_written,
            stream=True,  # what an answer holds is nobody's matter but its first line's
        ) as answer:
            if answer.status_code // 100 != 2:
                raise NotTaken(
                    "refused", f"{host(url)} answers {answer.status_code} {answer.reason}"
                )
    except requests.Timeout:
        raise NotTaken("timeout", f"{host(url)} does not answer within {timeout:g} s") from None
    except requests.RequestException as error:
        # The library's message repeats the address with what may be secret in it.
        raise NotTaken("unreachable", f"{host(url)}: {type(error).__name__}") from None


def host(url: str) -> str:
    """Return host and port of an address; its path and user may be secret."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def _as_written(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave a request as it is: .netrc has no say about it."""
    return request
