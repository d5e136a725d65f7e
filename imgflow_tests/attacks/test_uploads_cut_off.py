"""Uploads whose receiver is killed leave nothing behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

from imgflow.settings.variables import load_settings
from imgflow_tests.attacks.raw_http import MIB, Attacked, attacked
from imgflow_tests.patience import PATIENCE_SECONDS

SENT = 16 * MIB


def test_a_killed_api_leaves_no_body_in_the_temporary_folder(home: Path, database_url: str) -> None:
    settings = load_settings(_env_file=None, home=home, database_url=database_url)
    temporary = home.parent / "temporary"
    with attacked(settings) as api, api.connect() as client:
        head = f"PUT /images/key:x.jpg/original HTTP/1.1\r\nHost: x\r\n{api.authorization}"
        client.sendall(f"{head}Content-Length: {10 * SENT}\r\n\r\n".encode() + bytes(SENT))
        give_up = time.monotonic() + PATIENCE_SECONDS
        while largest_open_file(api) < SENT // 2:
            assert time.monotonic() < give_up
            time.sleep(0.05)
        api.process.kill()
        api.process.wait()
        assert [file for file in temporary.rglob("*") if file.is_file()] == []


def largest_open_file(api: Attacked) -> int:
    """Bytes of the largest file that the server has open, with or without a name."""
    sizes = [0]
    for descriptor in Path(f"/proc/{api.process.pid}/fd").iterdir():
        try:
            sizes.append(os.stat(descriptor).st_size)  # noqa: PTH116 - of what it leads to
        except FileNotFoundError:
            continue
    return max(sizes)
