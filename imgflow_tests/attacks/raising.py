"""A worker's function that raises, or answers with, whatever its task's key says."""

from __future__ import annotations

import errno
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from imgflow.catalog.records import Verdict
from imgflow.errors import SettingsError
from imgflow.work.tasks import Outcome, Task


class Unpicklable(Exception):
    """Cannot travel."""

    def __init__(self) -> None:
        super().__init__("it holds a lock")
        self.lock = threading.Lock()


class RaisesWhenUnpickled(Exception):
    """Travels, and does harm where it arrives."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return harm, ("an exception",)


class RaisesAsText(Exception):
    """Cannot be put into words."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Harmful:
    """A part of an answer that does harm where it arrives."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return harm, ("an answer",)


def harm(what: str) -> NoReturn:
    raise SystemExit(f"{what} was unpickled")


def done(task: Task) -> Outcome:
    return Outcome(
        Verdict(image_id=task.image_id, upload=task.upload, state="ready", run_id="r", recipe="x")
    )


def _raises(error: BaseException) -> Callable[[Task], Outcome]:
    def work(_task: Task) -> NoReturn:
        raise error

    return work


def _recurse(task: Task) -> Outcome:
    return _recurse(task)


def _warn(task: Task) -> Outcome:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.warn("overflow", RuntimeWarning, stacklevel=1)
    return done(task)


IMAGES_OWN: Mapping[str, Callable[[Task], Any]] = {
    "value": _raises(ValueError("Number of columns must not be negative")),
    "exit": _raises(SystemExit(0)),
    "interrupt": _raises(KeyboardInterrupt()),
    "generator": _raises(GeneratorExit()),
    "base": _raises(BaseException("the root")),
    "timeout of the work itself": _raises(StopIteration()),
    "no number of the system": _raises(OSError("image file is truncated")),
    "invalid argument": _raises(OSError(errno.EINVAL, "Invalid argument")),
    "long": _raises(ValueError("x" * 10**7)),
    "nul": _raises(ValueError("a\0b \ud800")),
    "unpicklable": _raises(Unpicklable()),
    "raises when unpickled": _raises(RaisesWhenUnpickled()),
    "raises as text": _raises(RaisesAsText()),
    "recursion": _recurse,
    "warning": _warn,
    "nothing": lambda _task: None,
    "another type": lambda _task: "ready",
    "local": lambda task: replace(done(task), pictures={"a": (lambda: None)}),  # type: ignore[dict-item]
    "lock": lambda task: replace(done(task), pictures={"a": threading.Lock()}),  # type: ignore[dict-item]
    "harmful": lambda task: replace(done(task), pictures={"a": Harmful()}),  # type: ignore[dict-item]
    "huge": lambda task: replace(done(task), pictures={"a": "x" * 10**8}),
}
OUTSIDE: Mapping[str, Callable[[Task], Any]] = {
    "disk": _raises(OSError(errno.ENOSPC, "No space left on device")),
    "files": _raises(OSError(errno.EMFILE, "Too many open files")),
    "memory": _raises(MemoryError()),
    "installation": _raises(ModuleNotFoundError("No module named 'scipy'")),
    "setting": _raises(SettingsError("The output 'blur' cannot be loaded.")),
    "connection": _raises(ConnectionResetError()),
}


def work(task: Task) -> Outcome:
    """Do what the key says; others are done."""
    act = {**IMAGES_OWN, **OUTSIDE}.get(task.upload.key, done)
    outcome: Outcome = act(task)
    return outcome
