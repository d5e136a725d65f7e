"""Lines of JSON from whatever a process prints, for the log files of `imgflow up`.

imgflow, Dagster and uvicorn write JSON by themselves when asked to. What is left is what nobody
asks: C libraries, an interpreter that dies, a library that prints.
"""

from __future__ import annotations

import json
import re
import threading
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from imgflow.foreign_text import json_line

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def copy_lines(pipe: BinaryIO, log: Path, name: str) -> threading.Thread:
    """Append each line of a pipe to a log file until it ends, those that are no JSON within one.

    Args:
        pipe: of a process.
        log: the file.
        name: of the process.

    Returns:
        The thread that does it.
    """

    def copy() -> None:
        with pipe, log.open("ab", buffering=0) as file:
            for line in pipe:
                if line.strip():
                    # A full disk loses lines; without a reader the process would end for it.
                    with suppress(OSError):
                        file.write(as_json(line, name))

    thread = threading.Thread(target=copy, name=f"log-{name}", daemon=True)
    thread.start()
    return thread


def as_json(line: bytes, name: str) -> bytes:
    """A line as it is when it is an object of JSON, else an object that holds it."""
    if line.startswith(b"{") and line.endswith(b"\n"):
        try:
            json.loads(line)
        except ValueError:
            pass
        else:
            return line
    said = {
        "event": COLOUR.sub("", line.decode(errors="replace")).rstrip(),
        "level": "info",
        "logger": f"output.{name}",
        "timestamp": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
    }
    return json_line(said).encode(errors="replace") + b"\n"
