"""Prints what has a newer release than is installed or pinned: `make outdated`, before a release.

Packages are asked for by pip. Tags of container images are asked for by skopeo, where it is
installed; without it, each image is printed with the day since which it is pinned, to be looked up
by hand. Changes nothing, and always succeeds.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGE = re.compile(
    r"^(?:FROM|\s+image:) (?!imgflow:)(\S+?):(v?)([\d.]+)(-\w+(?:-\w+)*)?$", re.MULTILINE
)
SECONDS = 1_800  # pip asks for each package by itself


def ask(*command: str) -> str:
    """What a command prints, or nothing where it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - our own commands
            command, capture_output=True, text=True, check=False, timeout=SECONDS, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.returncode == 0 else ""


def packages() -> Iterator[str]:
    """Installed packages of which pip knows a newer release, those of `pyproject.toml` first."""
    found = ask(sys.executable, "-m", "pip", "list", "--outdated", "--format", "json")
    if not found:
        yield "pip could not ask for newer releases"
        return
    named = re.findall(r'^\s+"([\w.-]+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    ours = {name.lower().replace("_", "-") for name in named}
    rows = [(one["name"].lower() not in ours, one) for one in json.loads(found)]
    for is_indirect, one in sorted(rows, key=lambda row: (row[0], row[1]["name"].lower())):
        by = ", required by others" if is_indirect else ""
        yield f"{one['name']} {one['version']} -> {one['latest_version']}{by}"


def images() -> Iterator[str]:
    """Container images, with the newest patch release of their line."""
    for file in ("docker-compose.yml", "Dockerfile"):
        for name, v, version, suffix in dict.fromkeys(IMAGE.findall((ROOT / file).read_text())):
            pinned = f"{v}{version}{suffix}"
            tags = json.loads(_tags(name) or '{"Tags": []}')["Tags"]
            line = rf"{v}({re.escape(version.rpartition('.')[0])}\.\d+){re.escape(suffix)}"
            newest = max(
                (m[1] for t in tags if (m := re.fullmatch(line, t))), key=_number, default=""
            )
            if not newest:
                since = ask("git", "log", "-1", "--format=%cs", f"-S{name}:{pinned}", "--", file)
                day = since.strip() or "a day unknown"
                yield f"{name}:{pinned}, pinned on {day}: look for newer tags"
            elif newest != version:
                yield f"{name}:{pinned} -> {v}{newest}{suffix}"


def _tags(name: str) -> str:
    return ask("skopeo", "list-tags", f"docker://{name}") if shutil.which("skopeo") else ""


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


if __name__ == "__main__":
    for found in (images(), packages()):
        for line in found:
            print(line, flush=True)  # noqa: T201 - what this is for
