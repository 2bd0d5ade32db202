"""The program, with one failpoint armed: `python armed.py POINT N SIGNAL -- <arguments of cdc>`.

At the N-th time the point is reached the program sends itself the signal: KILL ends it there,
STOP freezes it there until somebody sends CONT, TERM asks it to stop.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import get_args

from cdc import cli, failpoint


def arm(point: failpoint.Point | failpoint.FillPoint, times: int, number: signal.Signals) -> None:
    """Send this process `number` when `point` is reached for the `times`-th time."""
    reached = 0

    def hook(at: failpoint.Point | failpoint.FillPoint) -> None:
        nonlocal reached
        reached += at == point
        if at == point and reached == times:
            os.kill(os.getpid(), number)

    failpoint.arm(hook)


def main() -> None:
    """Arm, then be `cdc`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "point", choices=[*get_args(failpoint.Point), *get_args(failpoint.FillPoint)]
    )
    parser.add_argument("times", type=int)
    parser.add_argument("signal", choices=["KILL", "STOP", "TERM"])
    parser.add_argument("arguments", nargs="+")
    said = parser.parse_args()
    arm(said.point, said.times, signal.Signals[f"SIG{said.signal}"])
    sys.argv = ["cdc", *said.arguments]
    cli.main()


if __name__ == "__main__":
    main()
