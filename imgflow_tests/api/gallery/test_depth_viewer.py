"""The depth viewer in a browser: what is seen is what the array holds."""

from __future__ import annotations

import io

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from imgflow_tests.api.gallery.conftest import DEPTH, ONE_ROW, UNEVEN
from imgflow_tests.api.gallery.site import TOKEN, Site
from imgflow_tests.api.library import bearer

pytestmark = pytest.mark.long


@pytest.fixture
def viewer(page: Page, site: Site) -> Page:
    page.goto(site.page_of(DEPTH))
    settle(page)
    return page


@pytest.fixture(scope="module")
def array(site: Site) -> NDArray[np.float32]:
    """All rows, from the database."""
    image = site.image(DEPTH)
    body = httpx.get(f"{site.url}/image/{image.id}?format=npy", headers=bearer(TOKEN)).content
    values: NDArray[np.float32] = np.load(io.BytesIO(body))
    return values


def settle(page: Page) -> None:
    expect(page.locator("#viewer[aria-busy=false]")).to_be_visible()


def frame(page: Page) -> NDArray[np.uint8]:
    """The pixels of the picture that is seen."""
    data = page.evaluate(
        "async () => [...new Uint8Array(await (await fetch("
        "document.querySelector('[data-format=png]').href)).arrayBuffer())]"
    )
    size = page.locator("#frame").evaluate("image => [image.naturalHeight, image.naturalWidth]")
    pixels = np.asarray(Image.open(io.BytesIO(bytes(data))).convert("RGB"))
    assert list(pixels.shape[:2]) == size
    return pixels


def value(page: Page) -> np.float32:
    return np.float32(page.locator("#readout").get_attribute("data-value"))


def test_it_begins_at_the_top_with_a_part_that_can_be_read(viewer: Page) -> None:
    assert viewer.get_by_label("From depth").input_value() == "9000.1"
    assert viewer.get_by_label("To depth").input_value() == "9040.0"
    expect(viewer.locator("#statistics")).to_contain_text("Rows")


def test_the_sliders_change_the_frame_from_the_keyboard(
    viewer: Page, array: NDArray[np.float32]
) -> None:
    before = viewer.locator("#frame").get_attribute("src")
    first = frame(viewer)
    last = viewer.get_by_role("slider", name="Last depth")
    last.focus()
    for _ in range(5):
        last.press("ArrowRight")
    settle(viewer)
    depth = viewer.get_by_label("To depth").input_value()
    assert float(depth) > 9040.0
    assert last.get_attribute("aria-valuetext") == depth
    assert viewer.locator("#frame").get_attribute("src") != before
    taller = frame(viewer)
    assert taller.shape[0] == round((float(depth) - 9000.1) * 10) + 1 > first.shape[0]
    np.testing.assert_array_equal(taller[: first.shape[0]], first)
    last.press("End")  # the first depth follows, since so many rows are not shown at once
    settle(viewer)
    assert viewer.get_by_label("To depth").input_value() == "9546"
    assert 3_990 < frame(viewer).shape[0] <= 4_003
    viewer.get_by_role("slider", name="First depth").press("End")
    settle(viewer)
    assert frame(viewer).shape == (1, array.shape[1], 3)


def test_the_value_under_the_cursor_is_that_of_the_array(
    viewer: Page, array: NDArray[np.float32]
) -> None:
    stage, readout = viewer.locator("#stage"), viewer.locator("#readout")
    box = stage.bounding_box()
    assert box is not None
    for row, column in ((40, 45), (390, 140), (371, 106)):
        place = {"x": box["width"] * (column + 0.5) / 150, "y": box["height"] * (row + 0.5) / 400}
        stage.hover(position=place)  # type: ignore[arg-type]
        expect(readout).to_contain_text(f"column {column + 1} of 150")
        # A row is a little more than a pixel of the screen, and pointers have whole ones.
        found = int(str(readout.get_attribute("data-row")))
        assert abs(found - row) <= 1
        expect(readout).to_contain_text(f"Depth {9000.1 + found / 10:.1f} ")
        assert value(viewer) == array[found, column]


def test_values_are_read_from_the_keyboard_too(viewer: Page, array: NDArray[np.float32]) -> None:
    viewer.locator("#stage").focus()
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowDown", "ArrowDown"):
        viewer.keyboard.press(key)
    expect(viewer.locator("#readout")).to_contain_text("Depth 9001.2 · column 2 of 150")
    assert value(viewer) == array[11, 1]
    viewer.keyboard.press("PageDown")
    settle(viewer)
    first = float(viewer.get_by_label("From depth").input_value())
    row = round((first - 9000.1) * 10)
    assert row > 300
    expect(viewer.locator("#readout")).to_contain_text(f"Depth {first + 1.1:.1f} ")
    assert value(viewer) == array[row + 11, 1]


def test_typed_depths_are_taken_exactly_and_kept_in_the_address(viewer: Page) -> None:
    viewer.get_by_label("From depth").fill("9100.03")
    viewer.get_by_label("To depth").fill("9100.55")
    viewer.keyboard.press("Enter")
    settle(viewer)
    assert frame(viewer).shape[0] == 5
    viewer.get_by_label("Colours").select_option("viridis")
    viewer.get_by_label("Reversed").check()
    settle(viewer)
    seen = frame(viewer)
    viewer.reload()
    settle(viewer)
    np.testing.assert_array_equal(frame(viewer), seen)
    assert "/colormaps/viridis_r?" in str(viewer.locator("#legend").get_attribute("src"))


def test_the_colour_map_changes_frame_legend_and_downloads(
    viewer: Page, array: NDArray[np.float32]
) -> None:
    before = frame(viewer)
    viewer.get_by_label("Colours").select_option("gray")
    settle(viewer)
    gray = frame(viewer)
    assert not np.array_equal(gray, before)
    np.testing.assert_allclose(gray[..., 0], array[:400], atol=1)  # gray over 0 to 255
    legend = viewer.get_by_role("img", name="Legend: colours from 0 to 255")
    viewer.wait_for_function("image => image.naturalWidth > 0", arg=legend.element_handle())
    viewer.get_by_label("Stretch to what is shown").check()
    settle(viewer)
    low, high = array[:400].min(), array[:400].max()
    expect(
        viewer.get_by_role("img", name=f"Legend: colours from {low:g} to {high:g}")
    ).to_be_visible()
    assert frame(viewer)[..., 0].min() == 0
    with viewer.expect_download() as download:
        viewer.get_by_role("link", name="Numbers (npy)").click()
    np.testing.assert_array_equal(np.load(download.value.path()), array[:400])
    assert download.value.suggested_filename.endswith("_9000.1-9040.0.npy")


def test_a_depth_outside_is_said_in_words_and_mended_by_another(viewer: Page) -> None:
    viewer.get_by_label("From depth").fill("1")
    viewer.get_by_label("To depth").fill("2")
    viewer.keyboard.press("Enter")
    expect(viewer.locator("#viewer-problem")).to_contain_text("from 9000.1 to 9546.0")
    viewer.get_by_role("button", name="The rows below").click()
    settle(viewer)
    expect(viewer.locator("#viewer-problem")).to_be_hidden()


def test_uneven_depths_between_the_ends_are_marked_as_estimates(page: Page, site: Site) -> None:
    page.goto(site.page_of(UNEVEN))
    settle(page)
    assert frame(page).shape[0] == 5
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#readout")).to_contain_text("Depth 0.00025 ")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#readout")).to_contain_text("Depth ≈ 0.00279 ")
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    expect(page.locator("#readout")).to_contain_text("Depth 0.01040 ")
    page.get_by_label("To depth").fill("0.00035")
    page.keyboard.press("Tab")
    settle(page)
    assert frame(page).shape[0] == 3


def test_an_image_of_one_row_is_shown_too(page: Page, site: Site) -> None:
    page.goto(site.page_of(ONE_ROW))
    settle(page)
    assert frame(page).shape[0] == 1
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#readout")).to_contain_text("Depth 17.5 ")
