"""Checks in parallel, within a time limit, whether the parts that the API needs answer.

What each check does is in `connections`; the routes are in `imgflow.api.routes.health`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

logger = logging.getLogger(__name__)

PROBE_SECONDS = 2.0

# Anyone may ask, and listing a bucket costs money, so each part is asked at most this often.
FRESH_SECONDS = 2.0


class Probe:
    """A check of one part, made at most once in two seconds, however often it is requested.

    Checks have their own threads: the handlers' may all be waiting for this very part, and daemon
    threads do not keep the process from ending.
    """

    def __init__(self, name: str, check: Callable[[], None]) -> None:
        """Store the check, which raises if the part does not answer."""
        self.name = name
        self._check = check
        self._lock = threading.Lock()
        self._running: Future[None] | None = None
        self._fresh_until = 0.0

    def start(self) -> Future[None]:
        """Start a check, or join the one that is running or has just ended."""
        with self._lock:
            now = time.monotonic()
            if self._running is None or (self._running.done() and now >= self._fresh_until):
                self._running = Future()
                self._fresh_until = now + FRESH_SECONDS
                threading.Thread(
                    target=self._run, args=(self._running,), name=f"probe-{self.name}", daemon=True
                ).start()
            return self._running

    def _run(self, future: Future[None]) -> None:
        try:
            self._check()
        except Exception as error:  # this thread can report it only by the future
            future.set_exception(error)
        else:
            future.set_result(None)


async def silent_parts(probes: Sequence[Probe], seconds: float = PROBE_SECONDS) -> list[str]:
    """Return the names of the parts that do not answer in time."""
    checks = {asyncio.ensure_future(_outcome(probe)): probe.name for probe in probes}
    done, late = await asyncio.wait(checks, timeout=seconds)
    for check in late:
        check.cancel()
        logger.warning("The %s did not answer within %g s.", checks[check], seconds)
    silent = {checks[check] for check in late}
    for check in done:
        error = check.result()
        if error is not None:
            logger.warning("The %s is not ready: %s", checks[check], error)
            silent.add(checks[check])
    return [probe.name for probe in probes if probe.name in silent]


async def _outcome(probe: Probe) -> BaseException | None:
    """Wait for a check and return its error; shielded, since others may wait for the same one."""
    check = asyncio.shield(asyncio.wrap_future(probe.start()))
    try:
        await check
    except Exception as error:  # any error counts as silent; the caller logs it
        return error
    return None
