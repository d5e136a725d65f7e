"""How far a run is, said seldom: a line in Dagster's log is an event that costs milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

# From one line to the next; each wait is twice as long as the one before: 6 lines in a minute, 15
# in a quarter of an hour, and at most one a second whatever happens.
FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0


Item = TypeVar("Item")


class Progress:
    """Counts images that are done and says so now and then."""

    def __init__(
        self,
        total: int,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            total: images that are to be done.
            say: takes a line.
            clock: in seconds.
        """
        self._total = total
        self._say = say
        self._clock = clock
        self._done = 0
        self._began = self._last = clock()
        self._wait = FIRST_SECONDS

    def counting(self, outcomes: Iterable[Item]) -> Iterator[Item]:
        """Hand on what comes, one for each image that is done."""
        for outcome in outcomes:
            yield outcome
            self._done += 1
            now = self._clock()
            # Of the last one the run itself says that it is done.
            if now - self._last >= self._wait and self._done < self._total:
                self._last = now
                self._wait = min(2 * self._wait, LONGEST_SECONDS)
                self._say(progress_line(self._done, self._total, now - self._began))


def progress_line(done: int, total: int, seconds: float) -> str:
    """Done of total, rate and remaining time, in words.

    Args:
        done: images, at least 0.
        total: images, more than are done.
        seconds: that they took.
    """
    share = f"{done:,} of {total:,} images ({100 * done // total} %)"
    if not done or seconds <= 0:
        return f"{share} after {_time(seconds)}."
    rate = done / seconds
    return f"{share}, {rate:.3g} a second, {_time((total - done) / rate)} to go."


def _time(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
