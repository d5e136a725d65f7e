"""Alerts people that processing has stopped, from a process that is still alive then.

Alerts about failed runs are sent by Dagster's sensor `failures`, in `imgflow.orchestration`;
channels are in `imgflow.settings.channels`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from imgflow.settings.channels import scheme_of, send

# A restart fixes most problems within seconds; people are alerted only if they last longer.
ALERT_AFTER_SECONDS = 30.0

# If a channel takes no message, retry after one minute, two, four, and so on up to an hour.
FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3_600.0


class Alarm:
    """Alerts people on the channels of IMGFLOW_ALERT_URLS that processing has stopped.

    Dagster's sensor `failures`, which alerts about failed runs, is down then too.
    """

    def __init__(
        self, channels: tuple[str, ...], minutes: float, say: Callable[[str], None]
    ) -> None:
        """Store the channels, and the minimum number of minutes between alerts."""
        self._channels = channels
        self._pause_seconds = 60 * minutes
        self._say = say
        self._since: dict[str, float] = {}
        self._told: frozenset[str] = frozenset()
        self._is_told = False
        self._not_before = 0.0
        self._messages = 0

    def update(self, wrong: Mapping[str, str]) -> None:
        """Alert about what has been wrong for some time, and report when all is well again."""
        now = time.monotonic()
        self._since = {part: self._since.get(part, now) for part in wrong}
        lasting = frozenset(
            part for part, since in self._since.items() if now - since >= ALERT_AFTER_SECONDS
        )
        if not self._channels:
            return
        self._told &= wrong.keys()  # alert again if it comes back
        if lasting - self._told and now >= self._not_before:
            message = ("imgflow: processing has stopped", "\n\n".join(wrong.values()))
            self._not_before = now + self._pause_seconds
        elif self._is_told and not wrong:
            message = ("imgflow: processing goes on", "All is well again.")
        else:
            return
        self._told = lasting
        self._is_told = bool(wrong)
        self._messages += 1
        threading.Thread(
            target=self._send, args=(message, self._messages), name="alarm", daemon=True
        ).start()

    def _send(self, message: tuple[str, str], number: int) -> None:
        channels = self._channels
        pause = FIRST_PAUSE_SECONDS
        while True:
            outcomes = send(dict.fromkeys(channels, message))
            channels = tuple(url for url, refusal in outcomes.items() if refusal is not None)
            if not channels:
                return
            for url in channels:
                self._say(f"A {scheme_of(url)} channel took no message: {outcomes[url]}")
            time.sleep(pause)
            if number != self._messages:  # a newer message has replaced this one
                return
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
