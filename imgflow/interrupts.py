"""Ctrl-C and SIGTERM as an exception of `imgflow up`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_interrupted: list[bool] = []
"""Holds something once a signal came."""


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived."""


def interrupted() -> bool:
    """Whether a signal came."""
    return bool(_interrupted)


def ignore_further() -> None:
    """Let no signal break off the end, which has begun for whatever reason."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `Interrupted`, and ignore further ones."""

    def interrupt(_number: int, _frame: object) -> None:
        _interrupted.append(True)
        ignore_further()
        raise Interrupted

    _interrupted.clear()
    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
