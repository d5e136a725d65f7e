"""No dead end in the documentation: what it links to or names exists."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

import pytest
import typer

from imgflow.cli.main import app
from imgflow.settings.variables import PREFIX, Settings
from imgflow_tests.docs_pages import ROOT, anchors, blocks, code, links, pages

INDEX = ("README.md", "docs/README.md")
LOCAL = {"localhost", "127.0.0.1"}
PLACES = ("", "imgflow", "docs")
"""Folders below which pages name files."""
SETTING = re.compile(rf"\b{PREFIX}[A-Z0-9_]+\b")
MODULE = re.compile(r"\bpython -m ([a-z_.0-9]+)")
FILE = re.compile(r"[\w./-]+\.(?:py|toml|md|yaml)")


@pytest.mark.parametrize("page", pages())
def test_every_link_picture_and_anchor_of_a_page_exists(page: str) -> None:
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https" or parts.hostname in LOCAL, f"{page}: {link}"
            continue
        target = (ROOT / page).parent / unquote(parts.path) if parts.path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        resolved = target.resolve()
        assert resolved.is_relative_to(ROOT), f"{page}: {link} leaves the repository"
        if parts.fragment:
            found = anchors(str(resolved.relative_to(ROOT)))
            assert parts.fragment in found, f"{page}: {link}; there are {sorted(found)}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[str] = set()
    waiting = ["README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in links(page):
            path = urlsplit(link).path
            target = ((ROOT / page).parent / unquote(path)).resolve()
            if not urlsplit(link).scheme and path and target.suffix == ".md":
                waiting.append(str(target.relative_to(ROOT)))
    assert reached == set(pages())


@pytest.mark.parametrize("page", pages())
def test_every_setting_that_a_page_names_exists(page: str) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in SETTING.findall((ROOT / page).read_text()):
        assert name in known or name in variables_of_tests(), f"{page}: {name}"


@cache
def variables_of_tests() -> set[str]:
    """Variables that only tests and benchmarks read."""
    files = [*ROOT.glob("imgflow_tests/**/*.py"), *ROOT.glob("benchmarks/*.py")]
    names = {name for file in files for name in SETTING.findall(file.read_text())}
    return {name for name in names if name.startswith(f"{PREFIX}TEST_")}


@pytest.mark.parametrize("page", pages())
def test_every_command_that_a_page_names_exists(page: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = [*code(page), *(block.text for block in blocks(page))]
    for words in text:
        for module in MODULE.findall(words):
            name = module.rstrip(".")
            assert find_spec(name), f"{page}: python -m {name}"
        if words.startswith("make "):
            assert words.split()[1] in targets, f"{page}: {words}"
        if words.startswith("imgflow "):
            _, command, *rest = words.split()
            known_commands = typer.main.get_group(app).commands
            assert command in known_commands, f"{page}: {words}"
            known = {name for p in known_commands[command].params for name in p.opts}
            options = {word.split("=")[0] for word in rest if word.startswith("-")}
            assert options <= known | {"--help"}, f"{page}: {words}"


@pytest.mark.parametrize("page", [page for page in pages() if page != "CHANGELOG.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    for name in code(page):
        if FILE.fullmatch(name) and "/" in name:
            places = [ROOT / folder / name for folder in PLACES]
            assert any(place.exists() for place in places), f"{page}: {name}"
