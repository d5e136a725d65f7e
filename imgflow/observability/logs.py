"""Logs as JSON: one object per line, with the same names in every process.

structlog formats the lines, as it does for Dagster's own processes started with
`--log-format json`, so all have `event`, `level`, `logger` and `timestamp`. It is a dependency of
Dagster. While logs are for people (`text`), it is not imported and no logger is touched. Fields
such as the run's id come from `context`; the API hides secrets in `imgflow.api.http.envelope`.
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

# Dagster's names for what it adds to a record, and the names in our lines.
OF_DAGSTER = "dagster_meta"
LEFT_OUT = ("dagster_event", "dagster_event_batch_metadata", "color_message")
FIELDS_OF_DAGSTER = {"run_id": "run_id", "job_name": "job", "step_key": "step"}


class LineHandler(logging.Handler):
    """Writes each record, in one system call, to what was standard error at construction.

    So processes that share a file do not tear each other's lines apart, and log lines of a step
    stay out of the file in which Dagster captures the step's output.
    """

    def __init__(self) -> None:
        super().__init__()
        self._descriptor = os.dup(2)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as a line."""
        try:
            os.write(self._descriptor, self.format(record).encode(errors="replace") + b"\n")
        # Catch everything, as the handlers of `logging` do: formatting calls methods of logged
        # objects, and logging must not break the caller. `handleError` shows the error.
        except Exception:
            self.handleError(record)


def configure_logs(log_format: LogFormat, level: LogLevel) -> None:
    """Make this process log JSON, or leave logging alone; calling it once is enough."""
    if log_format != "json" or any(isinstance(h, LineHandler) for h in logging.root.handlers):
        return
    handler = LineHandler()
    handler.setLevel(level.upper())  # a run's console in Dagster defaults to DEBUG
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
    """Return the formatter that turns a record into a line."""
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
    """Copy the useful fields out of Dagster's record; the rest is in its event log."""
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
    """Add the parts of uvicorn's access log lines as named fields."""
    if record.name == ACCESS and isinstance(record.args, tuple):
        record.__dict__.update(zip(ACCESS_FIELDS, record.args, strict=False))
        record.msg, record.args = "request", ()
    return True


def _console_logger(handler: logging.Handler) -> type[logging.Logger]:
    """Return a logger class that makes a run's console in Dagster log like everything else.

    Dagster creates that logger, nameless and without a parent, from the class that is set globally.
    """

    class ConsoleLogger(logging.Logger):
        def addHandler(self, hdlr: logging.Handler) -> None:
            is_console = self.parent is None and self.name == "dagster"
            super().addHandler(handler if is_console else hdlr)

    return ConsoleLogger


def _log_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log the exception that ends this process as a line like all others."""
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("imgflow").critical("The process ends.", exc_info=(kind, error, trace))
