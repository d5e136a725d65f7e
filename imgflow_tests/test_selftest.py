"""`imgflow doctor --selftest`: all is well here, and what is not is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from imgflow.cli.main import app
from imgflow.doctor import selftest
from imgflow.images.formats.pillow import MEDIA_TYPES, OPTIONAL_DECODERS
from imgflow_tests.golden import golden, reference

GOLDEN = {case["name"]: case for case in selftest.cases()}


def only(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    """Let the set be one case, with other values."""
    monkeypatch.setattr(selftest, "cases", lambda: [{**GOLDEN[name], **changes}])


def test_every_case_is_well_on_this_installation() -> None:
    done = CliRunner().invoke(app, ["doctor", "--selftest"])
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.lstrip().startswith("ok ")] == []
    assert len(lines) == len(GOLDEN) + 1 > 45
    assert done.exit_code == 0


def test_every_format_is_in_the_set() -> None:
    assert selftest.covered() == set(MEDIA_TYPES) - {"MPO"}


def test_the_set_is_what_its_writer_makes() -> None:
    made = {}
    for data, case in golden():
        made[case["name"]] = case
        if case["file"] in ("ycck.jpg", "photo.jpg", "vectors.png"):
            assert selftest._data(case["file"]) == data
        if "similar_to" in case:
            assert selftest._data(case["similar_to"]) == reference(data)
    assert json.loads(json.dumps(made)) == GOLDEN


WRONG = {
    "luma of single colours": ({"gray": [[0, 0, 77]]}, "luma at 0, 0 is 76 instead of 77"),
    "EXIF orientation 6": ({"facts": {"orientation": 8}}, "orientation is 6 instead of 8"),
    "PNG, alpha": ({"alpha": [[9, 5, 0]]}, "alpha at 9, 5 is 128 instead of 0"),
    "PNG, colour": ({"colours": [[9, 5, [0, 0, 0]]]}, "colour at 9, 5 is [255, 0, 0]"),
    "PNG, colour of 16 bits": ({"gray_mode": "L"}, "mode I;16 instead of L"),
    "PNG, gray": ({"alpha": [[0, 0, 0]]}, "the alpha is gone"),
    "a watermark on plain gray": ({"watermark": 60}, "the watermark covers"),
    "a thumbnail beside Lanczos": ({"similar_to": "plain.png"}, "the thumbnail is 96 x 64 pixels"),
    "a JPEG cut short": (
        {"rejected": "corrupt"},
        "it was rejected: The JPEG picture is incomplete",
    ),
    "BMP": ({"rejected": "corrupt"}, "it was accepted"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_case_that_differs_is_named_with_its_value(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, text = WRONG[name]
    only(monkeypatch, name, **changes)
    monkeypatch.setattr(selftest, "_deterministic", lambda: selftest.ok("bytes", "not looked at"))
    done = CliRunner().invoke(app, ["doctor", "--selftest", "--json"])
    assert done.exit_code == 1
    told = json.loads(done.stdout.splitlines()[-1])
    assert not told["ok"]
    first = told["findings"][0]
    assert (first["part"], first["state"]) == (name, "wrong")
    assert text in first["text"]


def test_bytes_that_differ_from_process_to_process_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = selftest.digests()
    monkeypatch.setattr(selftest, "digests", lambda: {**here, "rgb.png: thumbnail": "other"})
    found = selftest._deterministic()
    assert (found.state, found.text) == (
        "wrong",
        "rgb.png: thumbnail differ from one process to another",
    )


def test_a_decoder_that_is_not_installed_is_a_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "HEIC")
    monkeypatch.setattr(selftest, "load_decoder", lambda _: False)
    assert "HEIF" in OPTIONAL_DECODERS
    first = next(iter(selftest.selftest()))
    assert (first.state, first.part) == ("notice", "HEIC")
    assert "imgflow[heic]" in first.text


def test_the_set_is_small() -> None:
    folder = Path(str(selftest.files("imgflow.doctor.golden")))
    assert sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) < 250_000
