"""Whether the parts that the API needs answer, found out at once and within a bounded time."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

logger = logging.getLogger(__name__)

PROBE_SECONDS = 2.0

# Anyone may ask, and a listing of a bucket costs money: however often, a part is asked this often.
FRESH_SECONDS = 2.0


class Probe:
    """A check of one part, made at most once in two seconds, however often it is asked for.

    Checks run in threads of their own: those of handlers may all be waiting for the very part, and
    a daemon thread keeps nobody from ending the process.
    """

    def __init__(self, name: str, check: Callable[[], None]) -> None:
        """Take a check, which raises when the part does not answer."""
        self.name = name
        self._check = check
        self._lock = threading.Lock()
        self._running: Future[None] | None = None
        self._fresh_until = 0.0

    def start(self) -> Future[None]:
        """Begin a check, or join the one that runs or has just ended."""
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
        except Exception as error:  # of this thread, which has nobody to raise it to but the future
            future.set_exception(error)
        else:
            future.set_result(None)


async def silent_parts(probes: Sequence[Probe], seconds: float = PROBE_SECONDS) -> list[str]:
    """Name the parts that do not answer in time."""
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
    """Wait for a check; shielded, since others may wait for the same one."""
    check = asyncio.shield(asyncio.wrap_future(probe.start()))
    try:
        await check
    except Exception as error:  # a part is silent whatever its check raised, which is logged
        return error
    return None
