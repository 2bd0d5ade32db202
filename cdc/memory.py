"""How the C library keeps memory that the process has freed."""

from __future__ import annotations

import contextlib
import ctypes

#: M_MMAP_THRESHOLD of malloc.h, and the bytes from which on a block is mapped by itself.
_MMAP_THRESHOLD, _LARGE = -3, 1 << 20


def give_back() -> None:
    """Let large blocks go back to the system as they are freed, where the C library is glibc.

    By itself it raises the size from which on it maps them with each that is freed, up to 32 MiB (mallopt(3)):
    values of some megabytes then lie among small ones, and what they leave is kept.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)
