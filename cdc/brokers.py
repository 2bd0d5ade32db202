"""Clients of Kafka: the settings they share, and why the brokers do not let one in.

librdkafka goes on trying for as long as it is asked to, whatever it is refused for, and reports no more
than that time is over. The reason it tells beside, to a callback.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc.config import NOTHING_CHANGED, Config
from cdc.errors import ConfigError, Unreachable

T = TypeVar("T")

#: Seconds between two looks at what a client says while an answer is waited for.
_SLICE = 0.1

#: Seconds that being refused must last to be believed: a broker that has just started may not know
#: its users yet.
_BELIEVED_AFTER = 1.0

#: Seconds for a look at a broker's certificate.
_LOOK = 2.0

_AUTHENTICATION = frozenset(
    {
        KafkaError._AUTHENTICATION,  # noqa: SLF001 -- the library's spelling of a public code
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    }
)

_UNVERIFIED = "certificate verify failed"

#: For each reason to be refused, by a word in it, what to look at; the first that fits.
_NEXT = (
    (_UNVERIFIED, ("ssl.ca.location must name the authority that signed the brokers' certificates, "
                   "and kafka.bootstrap_servers a broker as its certificate does")),
    ("PLAINTEXT broker", "security.protocol says TLS, the listener does not"),
    ("alert", ("the brokers ask for a certificate that they trust and that has not expired: "
               "ssl.certificate.location and ssl.key.location")),
    ("SASL", "sasl.username, sasl.password and sasl.mechanisms must be as the brokers know them"),
)  # fmt: skip


def settings(
    config: Config,
    said: Callable[[KafkaError], None],
    fixed: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a client's settings: kafka.options over `defaults`, and `fixed` over both.

    `said` is called with what the client tells by itself, while it is polled.
    """
    return {
        # By itself it would print each attempt; an error of ours says it once.
        "log_level": 2,
        **(defaults or {}),
        **config.kafka.options,
        **fixed,
        "bootstrap.servers": config.kafka.bootstrap_servers,
        "error_cb": said,
    }


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """Raise ConfigError where a client is refused its settings."""
    try:
        yield
    except KafkaException as error:
        cause = error.args[0]
        if cause.code() != KafkaError._INVALID_ARG:  # noqa: SLF001 -- as above
            raise
        raise ConfigError(
            f"kafka.options cannot be used: {cause.str()}",
            safe=NOTHING_CHANGED,
            next="correct them: names and values as librdkafka documents them, files that this user "
            "may read, and the password of an encrypted key in ssl.key.password",
        ) from None


def told(error: KafkaError) -> str:
    """Return what a client says, without what is another each time."""
    return re.sub(r" \((?:after|install) [^)]*\)", "", error.str())


class Said:
    """What a client says by itself, called while it is polled: why it is not let in."""

    def __init__(self) -> None:
        self.why: str | None = None
        self.refused = False
        self._down = False

    def __call__(self, error: KafkaError) -> None:
        code = error.code()
        if code == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 -- as above
            self._down = True
        # Everything of TLS has it in its text, under more than one code.
        elif code in _AUTHENTICATION or "SSL" in error.str():
            self.refused, self.why = True, told(error)
        elif not self.refused:
            self.why = told(error)

    @property
    def final(self) -> bool:
        """No broker is left that might take us, and one of them has refused to."""
        return self._down and self.refused


def unreachable(
    config: Config, said: Said, otherwise: str, safe: str = "nothing was changed"
) -> Unreachable:
    """Return the error for brokers that do not answer or do not let us in.

    `otherwise` is the reason where the client has told none. Looks at the broker's certificate where
    that is what is wrong.
    """
    servers = config.kafka.bootstrap_servers
    if not said.refused or said.why is None:
        return Unreachable(
            f"Kafka at {servers} does not answer: {said.why or otherwise}",
            safe=safe,
            next="check kafka.bootstrap_servers, that a broker runs, and its TLS and SASL settings "
            "in kafka.options",
            topic=config.topic,
        )
    why = _verified(said.why, config.kafka.options)
    return Unreachable(
        f"Kafka at {servers} does not let us in: {why}",
        safe=safe,
        next="in kafka.options, "
        + next((step for word, step in _NEXT if word in why), "check the settings of TLS and SASL"),
        topic=config.topic,
    )


def _verified(why: str, options: Mapping[str, Any]) -> str:
    """Say of a certificate that is not accepted what is wrong with it; librdkafka does not."""
    at = re.search(r"://(\[[^]]+\]|[^:/]+):(\d+)/", why)
    if _UNVERIFIED not in why or at is None:
        return why
    with contextlib.suppress(OSError):
        context = ssl.create_default_context()
        if given := options.get("ssl.ca.location"):
            where = "capath" if Path(str(given)).is_dir() else "cafile"
            context.load_verify_locations(**{where: str(given)})
        if given := options.get("ssl.ca.pem"):
            context.load_verify_locations(cadata=str(given))
        host = at[1].strip("[]")
        try:
            with (
                socket.create_connection((host, int(at[2])), timeout=_LOOK) as plain,
                context.wrap_socket(plain, server_hostname=host),
            ):
                pass
        except ssl.SSLCertVerificationError as error:
            return f"{at[0].strip(':/')}: {_UNVERIFIED}: {error.verify_message.rstrip('.')}"
    return why


#: How every consumer reads. A lost position must be an error, never a silent jump.
READING: Final[Mapping[str, Any]] = {
    "enable.auto.commit": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "allow.auto.create.topics": False,
}

#: How far consumers fetch ahead, unless kafka.options say otherwise: bytes bound memory under any backlog, before
#: a number of records does.
AHEAD: Final[Mapping[str, Any]] = {
    "queued.max.messages.kbytes": 16_384,
    "queued.min.messages": 100_000,
    # By default nothing is fetched for a second once the queue was full, however fast it empties.
    "fetch.queue.backoff.ms": 20,
}

#: Bytes of a record that is taken alone: many such at once are what memory is needed for.
_LARGE = 1 << 20


def taken(consumer: Consumer, most: int, timeout: float) -> list[Message]:
    """Return up to `most` messages: what is there, waiting `timeout` seconds for the first."""
    first = consumer.poll(timeout)
    if first is None:
        return []
    if len(first.value() or b"") >= _LARGE:
        return [first]
    return [first, *consumer.consume(most - 1, 0)]


class Reader(Consumer):
    """A consumer that is in no group and starts where it is told to; `fixed` are more settings.

    `safe` is what its errors say of the data.
    """

    def __init__(
        self, config: Config, fixed: Mapping[str, Any], safe: str = "nothing was changed"
    ) -> None:
        self._config, self._safe = config, safe
        self._said = Said()
        with checked():
            super().__init__(settings(config, self._said, {**READING, **fixed}, AHEAD))

    def ends(self, at: TopicPartition, timeout: float) -> tuple[int, int]:
        """Return a partition's first offset and the one its next record will get; Unreachable."""
        deadline, most = time.monotonic() + timeout, _BELIEVED_AFTER
        while True:
            try:
                low, high = self.get_watermark_offsets(at, timeout=most)
            except KafkaException as error:
                self.poll(0)
                if self._said.final or time.monotonic() >= deadline:
                    raise self.trouble(error.args[0].str()) from error
                most = min(2 * most, max(0.1, deadline - time.monotonic()))
            else:
                return low, high

    def trouble(self, what: str) -> Unreachable:
        """Return the error for `what`, with the reason that the client has told beside."""
        return unreachable(self._config, self._said, what, self._safe)


class Admin(AdminClient):
    """An administrative client whose answers are not waited for once it was refused."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.said = Said()
        with checked():
            super().__init__(settings(config, self.said, {}))

    def answer(self, future: Future[T]) -> T:
        """Return an answer; raises KafkaException, or Unreachable when no broker lets us in."""
        began = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                return future.result(timeout=_SLICE)
            self.poll(0)
            if self.said.final and time.monotonic() - began > _BELIEVED_AFTER:
                raise unreachable(self._config, self.said, "")
