"""Pictures of the documentation: each is made by a test, shown in a text, and small."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "images"
TEXTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

SHOWN = re.compile(r"!\[(?P<words>[^\]]*)\]\((?P<address>[^)\s]+)\)")

# Someone reads these through a telephone's connection.
MOST_BYTES = {"gallery.webp": 120_000, "depth-viewer.webp": 120_000}
MOST_BYTES_OF_UI = 60_000


def shown() -> dict[Path, list[str]]:
    """File of each picture in a text, with the words that stand for it."""
    found: dict[Path, list[str]] = {}
    for text in TEXTS:
        for match in SHOWN.finditer(text.read_text()):
            if not match["address"].startswith(("http:", "https:")):
                file = (text.parent / match["address"]).resolve()
                found.setdefault(file, []).append(match["words"])
    return found


def made() -> set[str]:
    """Names that tests hand to a function or method `keep`."""
    names: set[str] = set()
    for file in (ROOT / "imgflow_tests").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name == "keep":
                names |= {
                    str(argument.value)
                    for argument in node.args
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
                }
    return names


def test_every_picture_that_a_text_shows_is_there_and_none_lies_unused() -> None:
    assert set(FOLDER.iterdir()) == set(shown())


def test_every_picture_has_words_for_those_who_do_not_see_it() -> None:
    for file, words in shown().items():
        assert all(len(each.split()) >= 5 for each in words), file.name


def test_every_picture_is_made_by_a_test() -> None:
    assert {file.name for file in FOLDER.iterdir()} == made()


@pytest.mark.parametrize("file", sorted(FOLDER.iterdir()), ids=lambda file: file.name)
def test_a_picture_is_a_small_webp(file: Path) -> None:
    assert file.stat().st_size <= MOST_BYTES.get(file.name, MOST_BYTES_OF_UI)
    with Image.open(file) as picture:
        assert picture.format == "WEBP"
        assert not picture.info.keys() & {"exif", "xmp"}
