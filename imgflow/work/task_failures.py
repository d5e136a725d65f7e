"""How an unexpected exception gets from a pool process to the run.

Whatever a task raises is the failure of that task alone. Some exceptions cannot be pickled, and
some raise when they are unpickled, which would break the pool's channel for all tasks. So only
their text is sent, in an outcome that is pickled separately.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from imgflow.errors import ImgflowError, Trouble, is_of_machine
from imgflow.foreign_text import visible
from imgflow.work.tasks import Failure, Outcome, Task, rejected, shortened

# An outcome normally takes about one kilobyte. Rows and events repeat it.
MOST_OUTCOME_BYTES = 2**20

MOST_MESSAGE, MOST_TRACE = 300, 8_000


@contextmanager
def outside(what: str) -> Iterator[None]:
    """Turn whatever a store raises into `Trouble`, since it says nothing about the image.

    `MemoryError` passes through, because the image's own limit may be the cause.
    """
    try:
        yield
    except (ImgflowError, MemoryError):
        raise
    except Exception as error:
        raise Trouble(f"{what}: {_text(error)}") from error


def expected(outcome: object) -> Outcome:
    """Return an outcome unchanged; raise `TypeError` for anything else."""
    if not isinstance(outcome, Outcome):
        raise TypeError(f"the worker answered with a {type(outcome).__name__}")
    return outcome


def unexpected(task: Task, error: BaseException) -> Outcome:
    """Describe an exception in an outcome.

    Errors of the machine, and those that imgflow raises on purpose without rejecting the image
    (such as a wrong setting), are trouble. Anything else is the image's failure.
    """
    if isinstance(error, ImgflowError) or is_of_machine(error):
        return Outcome(trouble=f"{task.upload.key!r}: {_text(error)}", failure=in_words(error))
    return Outcome(failure=in_words(error))


def in_words(error: BaseException) -> Failure:
    """One sentence about an exception for people, and its traceback for the log."""
    try:
        trace = "".join(traceback.format_exception(error))[-MOST_TRACE:]
        trace = visible(trace, keep="\n")
    except Exception:  # even its text cannot be read
        trace = ""
    return Failure(f"processing it failed unexpectedly ({_text(error)})", trace)


def as_rejection(task: Task, outcome: Outcome) -> Outcome:
    """Reject the upload of a task that failed alone."""
    reason = outcome.failure.reason if outcome.failure else ""
    return replace(outcome, verdict=rejected(task, "failed", reason))


def packed(task: Task, outcome: Outcome) -> bytes:
    """Pickle an outcome; if that is impossible, a failure that says so."""
    try:
        data = pickle.dumps(outcome)
        if len(data) > MOST_OUTCOME_BYTES:
            raise ValueError(f"the worker answered with {len(data):,} bytes")
    except (Exception, SystemExit) as error:
        return pickle.dumps(unexpected(task, error))
    return data


def unpacked(task: Task, data: object) -> Outcome:
    """Unpickle an outcome from a pool process; never raises."""
    try:
        return expected(pickle.loads(data))  # type: ignore[arg-type]  # noqa: S301 - our own process
    except (Exception, SystemExit) as error:
        return unexpected(task, error)


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = ""
    line = visible(" ".join(shortened(text, MOST_MESSAGE).split()))
    # A store's answer may contain the signed request with its signature.
    line = line.partition("<?xml")[0].partition("<Error>")[0]
    return f"{type(error).__name__}: {line}".rstrip(": ")
