"""Findings about parts, and running many checks in parallel.

Each check has a time limit, so one that hangs does not keep the others from being reported. Which
checks there are is in `all_checks`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import asdict, dataclass
from typing import Literal

from imgflow.errors import ImgflowError

# S3 requests are tried up to four times, with pauses; a healthy S3 answers the first time.
PART_SECONDS = 15.0

State = Literal["ok", "notice", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        part: The part that was checked.
        state: `ok`, `notice` for what a person may want to know, `wrong` for what must be fixed.
        text: What was found; if it is wrong, also the fix.
    """

    part: str
    state: State
    text: str

    def line(self) -> str:
        """Return the finding as a line for people."""
        return f"{self.state:>6}  {self.part}: {self.text}"


Check = Callable[[], Iterable[Finding]]
"""Checks one part; may raise `ImgflowError`, with the fix in its text, if the part is wrong."""


def ok(part: str, text: str) -> Finding:
    """Report a part that works."""
    return Finding(part, "ok", text)


def wrong(part: str, text: str) -> Finding:
    """Report a part that must be fixed; the text says how."""
    return Finding(part, "wrong", text)


def notice(part: str, text: str) -> Finding:
    """Report something that nobody needs to fix."""
    return Finding(part, "notice", text)


def examine(checks: Mapping[str, Check], *, seconds: float = PART_SECONDS) -> Iterator[Finding]:
    """Run checks in parallel, and yield their findings in the order of the checks.

    `seconds` is the limit for all together; a part that has not answered by then counts as wrong.
    """
    until = time.monotonic() + seconds
    running = {part: _start(part, check) for part, check in checks.items()}
    for part, future in running.items():
        try:
            yield from future.result(max(0.0, until - time.monotonic()))
        except NotInTime:
            yield wrong(part, f"it did not answer within {seconds:g} seconds; see whether it hangs")
        except ImgflowError as error:
            yield wrong(part, str(error))
        # Catch everything, since people run the doctor when something is broken: report unforeseen
        # errors and bugs of a check for its part, and go on with the others.
        except Exception as error:
            yield wrong(part, f"it could not be looked at ({type(error).__name__}: {error})")


def as_json(findings: Iterable[Finding]) -> dict[str, object]:
    """Return the findings as one object for programs."""
    found = [asdict(finding) for finding in findings]
    return {"ok": all(finding["state"] != "wrong" for finding in found), "findings": found}


def _start(part: str, check: Check) -> Future[list[Finding]]:
    """Run a check in a daemon thread, which does not keep the process from ending."""
    future: Future[list[Finding]] = Future()

    def run() -> None:
        try:
            future.set_result(list(check()))
        except BaseException as error:  # raised again where the result is read
            future.set_exception(error)

    threading.Thread(target=run, name=f"doctor-{part}", daemon=True).start()
    return future
