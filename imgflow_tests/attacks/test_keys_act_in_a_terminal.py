"""An uploader names images so that an operator's terminal or log shows something else."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import jpeg

KEYS = {
    "title of the window": "\x1b]0;owned\x07a.jpg",
    "clears the screen": "\x1b[2J\x9b2Jb.jpg",
    "another line": "c\r\n  ok  database: fine\u2028d.jpg",
    "turned around": "e\u202egpj.exe\u2066.jpg",
    "markup": "[red]f[/red][link=https://evil.test]g[/link].jpg".replace("/", "%"),
    "emoji": ":smile:h.jpg",
}

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, database_url: str) -> Run:
    """Run `imgflow` with these images, good ones and broken ones, in its source."""
    source = tmp_path / "home" / "source"
    (source / "broken").mkdir(parents=True)
    for seed, key in enumerate(KEYS.values()):
        (source / key).write_bytes(jpeg(seed=seed))
        (source / "broken" / key).write_bytes(b"no picture")
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("IMGFLOW_")},
        "IMGFLOW_HOME": str(tmp_path / "home"),
        "IMGFLOW_DATABASE_URL": database_url,
        "IMGFLOW_WORKERS": "1",
        "FORCE_COLOR": "1",  # as in a terminal
    }

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "imgflow", *arguments],
            env=variables,
            capture_output=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        return (done.stdout + done.stderr).decode()

    return command


def hidden(text: str) -> list[str]:
    """What a terminal would obey, besides line ends and the bold face of a table."""
    plain = text.replace("\x1b[1m", "").replace("\x1b[0m", "")
    return [c for c in plain if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c != "\n"]


def test_commands_show_keys_as_they_are(run: Run) -> None:
    assert hidden(run("ingest")) == []
    for key in KEYS.values():
        shown = run("show", key)
        assert hidden(shown) == []
        assert key.encode("unicode_escape").decode() in shown
    broken = f"broken/{KEYS['clears the screen']}"
    for command in (("show", broken), ("show", f"{broken}?"), ("delete", broken), ("status",)):
        assert hidden(run(*command)) == []
