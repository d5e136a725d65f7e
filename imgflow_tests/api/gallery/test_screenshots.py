"""The pictures of the README and of `docs/gallery.md`.

`IMGFLOW_TEST_SCREENSHOTS=docs/images` writes them anew; otherwise they are only made.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from imgflow_tests.api.gallery.conftest import DEPTH, begin_session, watched
from imgflow_tests.api.gallery.site import TOKEN, Site
from imgflow_tests.browser import keep

pytestmark = pytest.mark.long

SIZE = {"width": 1380, "height": 590}


def test_the_grid_and_the_depth_viewer_have_their_pictures(
    chromium: Browser, site: Site, tmp_path: Path
) -> None:
    loaded = "() => [...document.images].every(i => i.loading === 'lazy' || i.naturalWidth > 0)"
    with watched(chromium, site, viewport=SIZE) as page:
        begin_session(page, TOKEN)
        page.goto("/?q=samples/")
        expect(page.locator(".card")).to_have_count(13)
        page.wait_for_function(loaded.replace("i.loading === 'lazy' || ", ""))
        keep(page.screenshot(), "gallery.webp", tmp_path)
    dark = {"width": 1180, "height": 900}
    with watched(chromium, site, viewport=dark, color_scheme="dark") as page:
        begin_session(page, TOKEN)
        page.goto(f"{site.page_of(DEPTH)}?depth_min=9100&depth_max=9140")
        expect(page.locator("#viewer[aria-busy=false]")).to_be_visible()
        page.locator("#stage").hover(position={"x": 210, "y": 190})
        page.wait_for_function(loaded)
        keep(page.locator("#viewer").screenshot(), "depth-viewer.webp", tmp_path)
