"""Debian's Chromium for tests, and where they put the pictures of the documentation."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

SCREENSHOTS = "IMGFLOW_TEST_SCREENSHOTS"
"""Names the folder, `docs/images`, in which screenshots are written anew."""


@contextmanager
def started_chromium(*arguments: str) -> Iterator[Browser]:
    """A browser; its driver's event loop ends with it, since it disturbs others of the thread."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI must test pages in a browser: install chromium")
        pytest.skip("no chromium on the path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *arguments]
        )
        yield browser
        browser.close()


def keep(
    screenshot: bytes, name: str, otherwise: Path, *, quality: int = 90, colours: int = 100
) -> None:
    """Write a screenshot for the documentation.

    Args:
        screenshot: as PNG.
        name: of its file.
        otherwise: the folder when the documentation's pictures are not to be written anew.
        quality: as WebP.
        colours: that a small copy must have, so that an empty page is no picture.
    """
    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    found = picture.resize((40, 30)).getcolors(1_200) or []
    assert len(found) > colours, f"{name} shows hardly anything: {len(found)} colours"
    folder = Path(os.environ.get(SCREENSHOTS, otherwise))
    picture.save(folder / name, quality=quality, method=6)
