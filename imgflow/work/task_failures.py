"""What is raised in a pool process that nobody expected, on its way to the run.

A task's failure is that task's, whatever it is. Not every exception can travel: some cannot be
pickled, and some raise when they are unpickled, which would break the pool's channel for all. So
words travel, in an outcome that is pickled on its own.
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

# An outcome has about one kilobyte. Rows and events repeat it.
MOST_OUTCOME_BYTES = 2**20

MOST_MESSAGE, MOST_TRACE = 300, 8_000


@contextmanager
def outside(what: str) -> Iterator[None]:
    """Make whatever a store raises `Trouble`: it says nothing about the image.

    Lack of memory passes through, as the image's own limit may be the cause.
    """
    try:
        yield
    except (ImgflowError, MemoryError):
        raise
    except Exception as error:
        raise Trouble(f"{what}: {_text(error)}") from error


def expected(outcome: object) -> Outcome:
    """An outcome as it is; anything else raises `TypeError`."""
    if not isinstance(outcome, Outcome):
        raise TypeError(f"the worker answered with a {type(outcome).__name__}")
    return outcome


def unexpected(task: Task, error: BaseException) -> Outcome:
    """Put an exception into words.

    What imgflow raises on purpose and is no verdict (a setting that is wrong), and what is of the
    machine, is trouble; the rest is the image's.
    """
    if isinstance(error, ImgflowError) or is_of_machine(error):
        return Outcome(trouble=f"{task.upload.key!r}: {_text(error)}", failure=in_words(error))
    return Outcome(failure=in_words(error))


def in_words(error: BaseException) -> Failure:
    """What a person reads of an exception, and what stands in the log."""
    try:
        trace = "".join(traceback.format_exception(error))[-MOST_TRACE:]
        trace = visible(trace, keep="\n")
    except Exception:  # its own text cannot be had
        trace = ""
    return Failure(f"processing it failed unexpectedly ({_text(error)})", trace)


def as_rejection(task: Task, outcome: Outcome) -> Outcome:
    """The outcome of a task that failed alone."""
    reason = outcome.failure.reason if outcome.failure else ""
    return replace(outcome, verdict=rejected(task, "failed", reason))


def packed(task: Task, outcome: Outcome) -> bytes:
    """Pickle an outcome; one that cannot be is a failure."""
    try:
        data = pickle.dumps(outcome)
        if len(data) > MOST_OUTCOME_BYTES:
            raise ValueError(f"the worker answered with {len(data):,} bytes")
    except (Exception, SystemExit) as error:
        return pickle.dumps(unexpected(task, error))
    return data


def unpacked(task: Task, data: object) -> Outcome:
    """The outcome that a pool process pickled; raises nothing."""
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
    # What a store answered may hold the request that was signed, and its signature.
    line = line.partition("<?xml")[0].partition("<Error>")[0]
    return f"{type(error).__name__}: {line}".rstrip(": ")
