"""The home folder and what imgflow makes in it: nobody else on the machine looks inside."""

from __future__ import annotations

import os
import stat
from pathlib import Path

PRIVATE = 0o700
OTHERS = 0o077

# The embedded PostgreSQL of root runs as another user of its group, and has to reach its folder.
ALSO_PASSED_BY_SERVER = 0o710

# What tells a home from a folder that was named as one by mistake, such as /tmp or /home/me.
SIGNS = ("postgres.users", "up.lock", "api-token", "link-key", "dagster")


def make_home(home: Path) -> None:
    """Make the home, or close one that others can look into."""
    if not home.exists():
        home.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    elif any((home / sign).exists() for sign in SIGNS):
        close_home(home)


def make_folder(folder: Path) -> None:
    """Make a folder in the home, for this user only, and what is missing above it."""
    for missing in [*reversed(folder.parents), folder]:
        if not missing.exists():
            missing.mkdir(exist_ok=True, mode=PRIVATE)


def close_home(home: Path) -> None:
    """Take from others what they may do in the home; nothing where it is another user's."""
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
    """Who besides its owner can look into the home, in words; None when nobody can."""
    status = home.stat()
    others = stat.S_IMODE(status.st_mode) & OTHERS
    if _has_server_of_another_user(home) and status.st_gid == os.getegid():
        others &= ~(ALSO_PASSED_BY_SERVER & OTHERS)
    if not others:
        return None
    return "every user of this machine" if others & 0o007 else "its group"


def _has_server_of_another_user(home: Path) -> bool:
    # By the file that is there before the server: whoever closes the home while another process
    # makes the server's folder would lock that server out.
    return os.geteuid() == 0 and (home / "postgres.users").exists()
