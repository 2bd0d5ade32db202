"""Kafka Connect's REST interface, as far as connectors need it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.auth import HTTPBasicAuth

from cdc import config as configs
from cdc.errors import ConfigError, ConnectRefused, Unreachable

#: Seconds for one request: validating lets Debezium connect to the database.
TIMEOUT = 60.0

#: Seconds a request is repeated while the worker says "not now".
PATIENCE = 60.0

_PAUSES = (0.2, 0.5, 1.0, 2.0)

#: What to do about an answer, where "correct what it says" is not enough.
_NEXT = {
    401: "give connect.user and connect.password, as the worker knows them",
    403: "let connect.user (or who connect.certificate is of) manage connectors",
}

#: What to do about a certificate: the worker's that we do not accept, ours that it does not.
_OF_THE_WORKER = (
    "connect.ca must name the authority that signed the worker's certificate, and connect.url the "
    "worker as its certificate does"
)
_OF_OURS = "connect.certificate and connect.key must be of somebody whom the worker trusts, and not have expired"

_SAFE = "nothing was lost: a connector goes on from its stored offset"


class Connect:
    """One Kafka Connect cluster; its address may hold user and password, which no message shows.

    Raises ConfigError when a file of its TLS settings cannot be used.
    """

    def __init__(
        self, settings: configs.Connect, *, patience: float = PATIENCE, timeout: float = TIMEOUT
    ) -> None:
        self._url = settings.url.rstrip("/")
        self._patience = patience
        self._timeout = timeout
        self._session = requests.Session()
        # .netrc, proxies and CAs of the environment have no say about a service the file names.
        self._session.trust_env = False
        _check_files(settings)
        if settings.ca is not None:
            self._session.verify = str(settings.ca)
        if settings.certificate is not None:
            certificate = str(settings.certificate)
            self._session.cert = (certificate, str(settings.key or certificate))
        if settings.user is not None and settings.password is not None:
            # As bytes: as text only Latin-1 would get through.
            self._session.auth = HTTPBasicAuth(settings.user.encode(), settings.password.encode())

    @property
    def shown(self) -> str:
        """The address without credentials."""
        parts = urlsplit(self._url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def plugins(self) -> dict[str, str | None]:
        """Return the class names and versions of the plugins this worker has."""
        found = self._json("GET", "/connector-plugins?connectorsOnly=false")
        return {plugin["class"]: plugin.get("version") for plugin in found}

    def validate(self, config: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return what Connect makes of `config`: per key its definition, value and errors."""
        kind = quote(config["connector.class"], safe="")
        answer = self._json("PUT", f"/connector-plugins/{kind}/config/validate", dict(config))
        return list(answer["configs"])

    def config(self, name: str) -> dict[str, str] | None:
        """Return a connector's stored configuration, None when there is no such connector."""
        return self._found("GET", f"{_path(name)}/config")

    def put(self, name: str, config: Mapping[str, str]) -> None:
        """Create the connector or replace its configuration."""
        self._json("PUT", f"{_path(name)}/config", dict(config))

    def status(self, name: str) -> dict[str, Any] | None:
        """Return states and traces of connector and tasks, None when there are none (yet)."""
        return self._found("GET", f"{_path(name)}/status")

    def restart(self, name: str, *, only_failed: bool = False) -> None:
        """Restart the connector and all its tasks, or of these what has failed."""
        which = str(only_failed).lower()
        self._json("POST", f"{_path(name)}/restart?includeTasks=true&onlyFailed={which}")

    def resume(self, name: str) -> None:
        """Let a paused or stopped connector run."""
        self._json("PUT", f"{_path(name)}/resume")

    def stop(self, name: str) -> bool:
        """Ask for the connector's tasks to end; return False when there is no such connector."""
        return self._send("PUT", f"{_path(name)}/stop", None, absent=True) is not None

    def offsets(self, name: str) -> list[dict[str, Any]]:
        """Return the offsets stored for a connector, empty when there are none."""
        return list(self._json("GET", f"{_path(name)}/offsets")["offsets"])

    def set_offsets(self, name: str, offsets: Sequence[Mapping[str, Any]]) -> None:
        """Replace the offsets of a stopped connector, each with its partition."""
        self._json("PATCH", f"{_path(name)}/offsets", {"offsets": list(offsets)})

    def forget(self, name: str) -> None:
        """Delete the offsets of a stopped connector: it no longer knows what it has sent."""
        self._json("DELETE", f"{_path(name)}/offsets")

    def delete(self, name: str) -> bool:
        """Delete the connector, not its offsets; return False when there was none."""
        return self._send("DELETE", _path(name), None, absent=True) is not None

    def _found(self, method: str, path: str) -> dict[str, Any] | None:
        response = self._send(method, path, None, absent=True)
        return None if response is None else dict(self._decoded(response))

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        response = self._send(method, path, body, absent=False)
        return self._decoded(response) if response is not None and response.content else None

    def _decoded(self, response: requests.Response) -> Any:
        try:
            return response.json()
        except ValueError:
            raise ConnectRefused(
                f"what answers at {self.shown} is not Kafka Connect: it does not send JSON",
                safe=_SAFE,
                next="check connect.url",
            ) from None

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None, *, absent: bool
    ) -> requests.Response | None:
        """Send a request, again while the worker rebalances; None for a 404 that `absent` allows.

        Every request here may be repeated: PUT and DELETE are idempotent, a second restart harmless.
        """
        deadline = time.monotonic() + self._patience
        for attempt in range(1_000_000):
            response = self._once(method, path, body)
            if response.ok:
                return response
            if response.status_code == requests.codes.not_found and absent:
                return None
            if not _rebalancing(response) or time.monotonic() > deadline:
                break
            time.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
        raise ConnectRefused(
            f"Kafka Connect at {self.shown} answers {method} {path.partition('?')[0]} with "
            f"{response.status_code}: {_message(response)}",
            safe=_SAFE,
            next=_NEXT.get(
                response.status_code, "correct what it says; the worker's log tells more"
            ),
        )

    def _once(self, method: str, path: str, body: dict[str, Any] | None) -> requests.Response:
        try:
            return self._session.request(method, self._url + path, json=body, timeout=self._timeout)
        except requests.exceptions.SSLError as error:
            why, next_step = _reason(error)
            raise Unreachable(
                f"Kafka Connect at {self.shown} and we do not accept each other: {why}",
                safe=_SAFE,
                next=next_step,
            ) from None
        except (requests.RequestException, OSError) as error:
            # The library's message repeats the URL with its credentials: only its kind is told.
            raise Unreachable(
                f"Kafka Connect at {self.shown} does not answer ({type(error).__name__})",
                safe=_SAFE,
                next="check connect.url, http or https, that the worker runs, and connect.certificate where "
                "it asks for one",
            ) from None


def _check_files(settings: configs.Connect) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    where = "connect.ca"
    try:
        if settings.ca is not None:
            context.load_verify_locations(settings.ca)
        where = "connect.certificate" + (" or connect.key" if settings.key else "")
        if settings.certificate is not None:
            # A password is given so that nobody is asked for one at the terminal.
            context.load_cert_chain(settings.certificate, settings.key, password="")
    except OSError as error:  # also what OpenSSL says
        why = getattr(error, "reason", None) or error.strerror
        raise ConfigError(
            f"{where} cannot be used: {str(why).replace('_', ' ').lower()}",
            safe=configs.NOTHING_CHANGED,
            next="name files in PEM that this user may read, the key one without a password",
        ) from None


def _reason(error: BaseException) -> tuple[str, str]:
    """Return what OpenSSL says, without the address that the library's message has around it, and what to do."""
    chain = [error]
    for cause in chain:  # which grows: the library wraps it in more than one way
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message.rstrip("."), _OF_THE_WORKER
        if isinstance(cause, ssl.SSLEOFError):  # its alert may be lost with the connection
            return "the worker ends the connection", _OF_OURS
        if isinstance(cause, ssl.SSLError) and cause.reason:
            why = cause.reason.replace("_", " ").lower()
            return why, _OF_OURS if "alert" in why else "check connect.url, http or https"
        inner = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
        chain += [e for e in inner if isinstance(e, BaseException) and e not in chain]
    return "TLS fails", _OF_THE_WORKER


def _path(name: str) -> str:
    return f"/connectors/{quote(name, safe='')}"


def _rebalancing(response: requests.Response) -> bool:
    """Tell whether the worker asks for patience.

    409 while the group rebalances, 404 for what it does not know yet, and 500 "Request timed out"
    while it joins the group.
    """
    code = response.status_code
    if code == requests.codes.server_error:
        return "timed out" in _message(response)
    return code in (requests.codes.conflict, requests.codes.not_found, requests.codes.unavailable)


def _message(response: requests.Response) -> str:
    """Return what a refusal says, on one line, without the advice Connect adds."""
    try:
        told = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        told = response.text or response.reason
    told = told.partition("\nYou can also find")[0]
    return " ".join(told.split())[:500] or "no message"
