"""Which settings hold a secret, by their names, and whether Kafka Connect would keep it readable."""

from __future__ import annotations

import re

MASK = "********"

#: Settings whose value is not shown: rather one too many.
_HIDDEN = re.compile(
    r"passw|passphrase|secret|token|jaas|credential|private|api[._-]?key|key\.pem|keystore\.key"
    r"|user\.info",
    re.IGNORECASE,
)

#: Settings whose value nobody may read: not one too many, since a connector may need it.
_SECRET = re.compile(
    r"passw|passphrase|secret$|api[._-]?key$|keystore\.key$|user\.info$", re.IGNORECASE
)

#: A reference that the worker resolves, such as ${file:/path:key}.
_REFERENCE = r"\$\{[^:}]+:[^}]*\}"

#: What a login module is told: password="…" and the like.
_TOLD = re.compile(
    r"(?:password|passphrase|secret|token)\w*\s*=\s*(\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s;]+)",
    re.IGNORECASE,
)


def hidden(key: str) -> bool:
    """Tell whether the value of a setting of that name is masked where it is shown."""
    return bool(_HIDDEN.search(key))


def reference(value: str) -> bool:
    """Tell whether a whole value is a reference that the Connect worker resolves."""
    return bool(re.fullmatch(_REFERENCE, value))


def exposed(key: str, value: str) -> bool:
    """Tell whether a connector's setting would have Connect store a secret for everyone to read."""
    if key.endswith("jaas.config"):
        return not all(reference(found[1].strip("\"'")) for found in _TOLD.finditer(value))
    return bool(value and _SECRET.search(key)) and not reference(value)
