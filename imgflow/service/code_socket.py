"""Makes the place where Dagster's code server listens: a socket in a folder for its owner only.

Anyone who reaches that server can run code, and every user of this machine could reach a port. The
server itself is started in `up`.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgflow.errors import SettingsError

NAME = "code.sock"

# The kernel's limit for a socket's path (Linux 108, macOS 104), minus the zero at its end.
LONGEST_PATH = 103

# gRPC reads its address as a URL, where other characters would have to be quoted.
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")


@contextmanager
def code_socket(home: Path) -> Iterator[Path]:
    """Yield the socket's path: in the home, or in a new temporary folder if that path is unusable.

    Raises:
        SettingsError: There is no place with a usable path.
    """
    inside = home.absolute() / "run"
    if _fits(inside):
        _make_private(inside)
        yield inside / NAME
        return
    with tempfile.TemporaryDirectory(prefix="imgflow-", dir=_short_place()) as folder:
        yield Path(folder) / NAME


def _fits(folder: Path) -> bool:
    path = str(folder / NAME)
    return len(path) <= LONGEST_PATH and PLAIN_PATH.fullmatch(path) is not None


def _short_place() -> Path:
    """Return a writable folder whose path is short enough for a socket in a folder inside it."""
    places = [Path(os.environ.get("XDG_RUNTIME_DIR", "")), Path(tempfile.gettempdir())]
    for place in places:
        if place.is_absolute() and os.access(place, os.W_OK) and _fits(place / "imgflow-12345678"):
            return place
    raise SettingsError(
        f"No socket can be made in IMGFLOW_HOME, and none in TMPDIR ({tempfile.gettempdir()}): "
        f"its path may have {LONGEST_PATH} characters, all of them letters, digits or one of "
        "/._- . Set IMGFLOW_HOME or TMPDIR to such a path."
    )


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise SettingsError(f"{folder} is not a folder of its own user; remove it.")
    folder.chmod(0o700)
