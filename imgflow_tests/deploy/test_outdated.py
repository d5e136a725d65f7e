"""`make outdated`, with a registry and a pip that say what the test says."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from imgflow_tests.deploy.manifests import ROOT

SCRIPT = ROOT / "deploy" / "outdated.py"
SKOPEO = f"""#!{sys.executable}
import json, sys
tags = {{"docker://redis": ["8.2.9-bookworm",
    "8.2.999-bookworm", "8.2.1000-alpine", "8.4.0-bookworm"]}}
print(json.dumps({{"Tags": tags.get(sys.argv[2], [])}}))
"""


@pytest.fixture
def outdated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return runpy.run_path(str(SCRIPT))


def test_the_newest_patch_of_a_line_is_named(outdated: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "skopeo").write_text(SKOPEO)
    (tmp_path / "skopeo").chmod(0o755)
    found = {line.partition(":")[0]: line for line in outdated["images"]()}
    assert set(found) == {"postgres", "redis", "versity/versitygw", "python"}
    assert found["redis"].endswith("-> 8.2.999-bookworm")


def test_without_a_registry_the_day_of_the_pin_is_named(
    outdated: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outdated["shutil"], "which", lambda _: None)
    found = list(outdated["images"]())
    assert len(found) == 4
    assert all(line.endswith("look for newer tags") for line in found)


def test_packages_that_imgflow_names_come_first(outdated: dict[str, Any]) -> None:
    said = [
        {"name": "aaa", "version": "1", "latest_version": "2"},
        {"name": "Pillow", "version": "13.0.0", "latest_version": "13.1.0"},
    ]
    read = outdated["packages"].__globals__
    read["ask"] = lambda *_: json.dumps(said)
    assert list(outdated["packages"]()) == [
        "Pillow 13.0.0 -> 13.1.0",
        "aaa 1 -> 2, required by others",
    ]
    read["ask"] = lambda *_: ""
    assert list(outdated["packages"]()) == ["pip could not ask for newer releases"]
