"""Logs as JSON: one object a line, with the same names in every process.

structlog's formatter makes the lines, as it does where Dagster's own processes are started with
`--log-format json`, so that all have `event`, `level`, `logger` and `timestamp`. Dagster brings it
along. Nothing of it is imported, and no logger is touched, while logs are for people (`text`).
"""

from __future__ import annotations

import logging
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from imgflow.foreign_text import json_line
from imgflow.observability import context

if TYPE_CHECKING:
    from collections.abc import MutableMapping

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

OURS = ("imgflow", "dagster", "uvicorn", "uvicorn.error", "uvicorn.access")
ACCESS = "uvicorn.access"
ACCESS_FIELDS = ("client", "method", "path", "http_version", "status")

# How Dagster names what it adds to a record, and how lines name it.
OF_DAGSTER = "dagster_meta"
LEFT_OUT = ("dagster_event", "dagster_event_batch_metadata", "color_message")
FIELDS_OF_DAGSTER = {"run_id": "run_id", "job_name": "job", "step_key": "step"}


class LineHandler(logging.Handler):
    """Writes each record with one system call to what was standard error when this was made.

    So processes that share a file do not tear each other's lines, and lines of a run's step stay
    out of the file in which Dagster keeps the output of steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self._descriptor = os.dup(2)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            os.write(self._descriptor, self.format(record).encode(errors="replace") + b"\n")
        # Everything, as the handlers of `logging` do: the line is made by methods of what is
        # logged, and a log must not end the caller's work. `handleError` shows what it was.
        except Exception:
            self.handleError(record)


def configure_logs(log_format: LogFormat, level: LogLevel) -> None:
    """Have this process write its log as JSON, or leave everything as it is; once is enough."""
    if log_format != "json" or any(isinstance(h, LineHandler) for h in logging.root.handlers):
        return
    handler = LineHandler()
    handler.setLevel(level.upper())  # Dagster's console of a run is at DEBUG by itself
    handler.addFilter(_with_parts)
    handler.setFormatter(json_formatter())
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.WARNING)
    for name in OURS:
        logger = logging.getLogger(name)
        logger.setLevel(level.upper())
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(True)
    logging.setLoggerClass(_console_logger(handler))
    sys.excepthook = _log_end


def json_formatter() -> logging.Formatter:
    """What makes a line of a record."""
    from structlog.processors import JSONRenderer, StackInfoRenderer, TimeStamper, format_exc_info
    from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name

    return ProcessorFormatter(
        foreign_pre_chain=[
            add_logger_name,
            add_log_level,
            TimeStamper(fmt="iso", utc=True),
            StackInfoRenderer(),
            format_exc_info,
            ExtraAdder(),
            _add_context,
            _of_dagster,
        ],
        processors=[
            ProcessorFormatter.remove_processors_meta,
            JSONRenderer(serializer=json_line, default=str),
        ],
    )


def _add_context(
    _logger: object, _name: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name, value in context.fields().items():
        line.setdefault(name, value)
    return line


def _of_dagster(
    _logger: object, _name: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Take what says something out of Dagster's record; the rest lies in its event log."""
    known = line.pop(OF_DAGSTER, None)
    for name in LEFT_OUT:
        line.pop(name, None)
    if isinstance(known, dict):
        line.update(
            {ours: known[name] for name, ours in FIELDS_OF_DAGSTER.items() if known.get(name)}
        )
        line["event"] = known.get("orig_message") or line["event"]
        event = known.get("dagster_event")
        if event is not None:
            line["dagster_event"] = event.event_type_value
    return line


def _with_parts(record: logging.LogRecord) -> bool:
    """Name the parts of a line of uvicorn's log of requests."""
    if record.name == ACCESS and isinstance(record.args, tuple):
        record.__dict__.update(zip(ACCESS_FIELDS, record.args, strict=False))
        record.msg, record.args = "request", ()
    return True


def _console_logger(handler: logging.Handler) -> type[logging.Logger]:
    """The class of loggers from now on: Dagster's console of a run writes as everything else does.

    Dagster makes that logger, a nameless child of nobody, of the class that is set here.
    """

    class ConsoleLogger(logging.Logger):
        def addHandler(self, hdlr: logging.Handler) -> None:
            is_console = self.parent is None and self.name == "dagster"
            super().addHandler(handler if is_console else hdlr)

    return ConsoleLogger


def _log_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say why this process ends, in a line like all others."""
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("imgflow").critical("The process ends.", exc_info=(kind, error, trace))
