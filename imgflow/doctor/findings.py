"""What is said of a part, and looking at many parts side by side.

Each is looked at for a few seconds at most, so one that hangs keeps nothing from being said of the
others.
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

# S3 is asked up to four times with pauses between; a healthy one answers the first time.
PART_SECONDS = 15.0

State = Literal["ok", "notice", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line of the answer.

    Attributes:
        part: what was looked at.
        state: `ok`, `notice` for what a person may want to know, `wrong` for what must be fixed.
        text: what was found, and of what is wrong the fix.
    """

    part: str
    state: State
    text: str

    def line(self) -> str:
        """For people."""
        return f"{self.state:>6}  {self.part}: {self.text}"


Check = Callable[[], Iterable[Finding]]
"""Looks at one part; raises `ImgflowError` with the fix in its text when it is wrong."""


def ok(part: str, text: str) -> Finding:
    """A part that is well."""
    return Finding(part, "ok", text)


def wrong(part: str, text: str) -> Finding:
    """A part that must be fixed; the text says how."""
    return Finding(part, "wrong", text)


def notice(part: str, text: str) -> Finding:
    """Something that nobody needs to fix."""
    return Finding(part, "notice", text)


def examine(checks: Mapping[str, Check], *, seconds: float = PART_SECONDS) -> Iterator[Finding]:
    """Run checks side by side, and yield what they find in their order.

    Args:
        checks: by the part that they look at.
        seconds: after which every part that has not answered counts as silent.
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
        # Everything, since the doctor is asked when something is broken: what a check did not
        # foresee, or a defect of its own, is told of its part, and the others are looked at.
        except Exception as error:
            yield wrong(part, f"it could not be looked at ({type(error).__name__}: {error})")


def as_json(findings: Iterable[Finding]) -> dict[str, object]:
    """One object for programs."""
    found = [asdict(finding) for finding in findings]
    return {"ok": all(finding["state"] != "wrong" for finding in found), "findings": found}


def _start(part: str, check: Check) -> Future[list[Finding]]:
    """Run a check in a thread that keeps nobody from ending the process."""
    future: Future[list[Finding]] = Future()

    def run() -> None:
        try:
            future.set_result(list(check()))
        except BaseException as error:  # raised by whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=run, name=f"doctor-{part}", daemon=True).start()
    return future
