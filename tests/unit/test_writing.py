"""What the writer's session asks of the server."""

from __future__ import annotations

from cdc import writing

#: The bar for a daemon that stands by, in seconds.
TAKEOVER = 60


def test_a_lost_daemon_s_session_ends_before_the_bar() -> None:
    """Idle, with data under way or in a statement: the server lets go, and the next look takes it."""
    settings = writing.SETTINGS
    probes = int(settings["tcp_keepalives_interval"]) * int(settings["tcp_keepalives_count"])
    idle = int(settings["tcp_keepalives_idle"]) + probes
    unanswered = int(settings["tcp_user_timeout"].removesuffix("s"))
    noticed = int(settings["client_connection_check_interval"].removesuffix("s"))

    assert TAKEOVER / 2 > idle + writing.LOOK_AGAIN
    assert TAKEOVER / 2 > unanswered + writing.LOOK_AGAIN
    assert TAKEOVER > max(idle, unanswered) + noticed + writing.LOOK_AGAIN
