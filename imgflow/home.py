"""Makes the home folder and its subfolders, closed to every other user of the machine.

What is kept there belongs to other modules, such as `imgflow.settings` for tokens.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

PRIVATE = 0o700
OTHERS = 0o077

# Started by root, the embedded PostgreSQL runs as another user of root's group, and must be able to
# reach its folder.
ALSO_PASSED_BY_SERVER = 0o710

# Files that distinguish a home from a folder set as home by mistake, such as /tmp or /home/me.
SIGNS = ("postgres.users", "up.lock", "api-token", "link-key", "dagster")


def make_home(home: Path) -> None:
    """Make the home, or close an existing one that others can look into."""
    if not home.exists():
        home.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    elif any((home / sign).exists() for sign in SIGNS):
        close_home(home)


def make_folder(folder: Path) -> None:
    """Make a folder in the home, and any missing parents, accessible to this user only."""
    for missing in [*reversed(folder.parents), folder]:
        if not missing.exists():
            missing.mkdir(exist_ok=True, mode=PRIVATE)


def close_home(home: Path) -> None:
    """Remove other users' access to the home; does nothing if another user owns it."""
    status = home.stat()
    if status.st_uid != os.geteuid():
        return
    wanted = PRIVATE
    if _has_server_of_another_user(home):
        wanted = ALSO_PASSED_BY_SERVER
        if status.st_gid != os.getegid():
            os.chown(home, -1, os.getegid())
    if stat.S_IMODE(status.st_mode) != wanted:
        home.chmod(wanted)


def who_looks_in(home: Path) -> str | None:
    """Return in words who besides the owner can look into the home; None if nobody can."""
    status = home.stat()
    others = stat.S_IMODE(status.st_mode) & OTHERS
    if _has_server_of_another_user(home) and status.st_gid == os.getegid():
        others &= ~(ALSO_PASSED_BY_SERVER & OTHERS)
    if not others:
        return None
    return "every user of this machine" if others & 0o007 else "its group"


def _has_server_of_another_user(home: Path) -> bool:
    # Check the file that exists before the server does: closing the home while another process
    # makes the server's folder would lock that server out.
    return os.geteuid() == 0 and (home / "postgres.users").exists()
