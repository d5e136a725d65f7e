"""The grid in a browser: thumbnails, filters, search, paging, odd keys, keys and looks."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from imgflow_tests.api.gallery.accessibility import check_accessibility, check_width
from imgflow_tests.api.gallery.conftest import (
    DEPTH,
    ODD_KEYS,
    PHOTO,
    REJECTED,
    begin_session,
    watched,
)
from imgflow_tests.api.gallery.site import READER, Site

pytestmark = pytest.mark.long


def names(page: Page) -> list[str]:
    return page.locator("#grid .card .name").all_text_contents()


def test_it_shows_thumbnails_with_their_states_the_newest_first(page: Page, site: Site) -> None:
    page.goto("/")
    card = page.locator(f"[data-id='{site.image(PHOTO).id}']")
    expect(card).to_contain_text("coffee.png")
    expect(card.locator(".state")).to_have_text("Ready")
    picture = card.locator("img")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("image => image.complete", arg=picture.element_handle())
    assert picture.evaluate("image => image.naturalWidth") == 256
    ids = [int(i) for i in page.locator(".card").evaluate_all("all => all.map(c => c.dataset.id)")]
    assert ids == sorted(ids, reverse=True)


def test_further_pages_come_by_scrolling_and_each_image_once(page: Page, site: Site) -> None:
    page.goto("/")
    expect(page.locator(".card")).to_have_count(60)
    page.keyboard.press("End")
    everything = site.library.catalog.browse(limit=1_000)
    expect(page.locator(".card")).to_have_count(len(everything))
    ids = page.locator(".card").evaluate_all("all => all.map(c => Number(c.dataset.id))")
    assert ids == [image.id for image in everything]
    expect(page.locator("#more")).to_have_count(0)
    expect(page.locator("#live")).to_contain_text("more images")


def test_further_pages_come_without_scripts_too(chromium: Browser, site: Site) -> None:
    with watched(chromium, site, java_script_enabled=False) as page:
        begin_session(page, READER)
        page.goto("/?kind=photo")
        first = names(page)
        page.get_by_role("link", name="Show more").click()
        assert len(first) == 60
        assert names(page)
        assert "kind=photo" in page.url


def test_filters_narrow_by_kind_and_state(page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="Depth images").click()
    expect(page.locator(".card")).to_have_count(3)
    assert names(page) == ["uneven.csv", "one.csv", "borehole.csv"]
    page.get_by_role("link", name="All", exact=True).click()
    page.get_by_role("link", name="Rejected").click()
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator(".card")).to_contain_text("notes.png")
    expect(page.locator(".card .reason")).not_to_be_empty()
    expect(page.get_by_role("link", name="Rejected 1")).to_have_attribute("aria-current", "true")


def test_search_finds_parts_of_keys_from_the_keyboard(page: Page) -> None:
    page.goto("/?kind=photo")
    page.keyboard.press("/")
    page.keyboard.type("COFFEE")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(1)
    assert names(page) == ["coffee.png"]
    assert "kind=photo" in page.url
    page.get_by_role("searchbox").fill("%")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(1)
    assert names(page) == ["a#b?c%20d&amp;.jpg"]
    page.get_by_role("searchbox").fill("nobody")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_contain_text("No image matches.")


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_are_text_and_lead_to_their_own_page(page: Page, site: Site, key: str) -> None:
    image = site.image(key)
    page.goto("/?q=.jpg&before=" + str(image.id + 1))
    card = page.locator(f"[data-id='{image.id}']")
    card.locator("a").click()
    expect(page).to_have_url(f"{site.url}/gallery/{image.id}?q=.jpg")
    shown = key.replace("\n", "↵").replace("\u202e", "⟨U+202E⟩")
    expect(page.locator("dl dd").first).to_have_text(shown)
    expect(page.get_by_role("heading", level=1)).to_have_text(shown.rpartition("/")[2])
    page.wait_for_function(
        "() => [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    )


def test_arrow_keys_go_from_card_to_card(page: Page) -> None:
    page.goto("/")
    cards = page.locator(".card > a")
    cards.first.focus()
    page.keyboard.press("ArrowRight")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    below = page.evaluate("document.activeElement.getBoundingClientRect().left")
    assert below == cards.nth(1).evaluate("card => card.getBoundingClientRect().left")
    page.keyboard.press("Home")
    expect(cards.first).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/gallery/*")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("link", name="Newer")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("link", name="Newer")).to_have_count(0)


def test_the_first_tab_skips_to_the_content(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_is_accessible_in_light_and_dark_and_fits_a_phone(
    chromium: Browser, site: Site, scheme: str, width: int
) -> None:
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 844}}
    with watched(chromium, site, **options) as page:
        begin_session(page, READER)
        for path in ("/", *(site.page_of(key) for key in (PHOTO, DEPTH, REJECTED, ODD_KEYS[-1]))):
            page.goto(path)
            page.wait_for_load_state("load")
            check_accessibility(page)
            check_width(page)
        page.goto("/")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        red = int(ground.removeprefix("rgb(").split(",")[0])
        assert (red < 64) == (scheme == "dark")
        page.get_by_role("button", name="Sign in").click()
        check_accessibility(page)
        check_width(page)
