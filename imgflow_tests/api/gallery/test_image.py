"""The page of one image in a browser, and signing in."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from imgflow_tests.api.gallery.accessibility import check_accessibility
from imgflow_tests.api.gallery.conftest import PHOTO, REJECTED, begin_session, watched
from imgflow_tests.api.gallery.site import TOKEN, Site
from imgflow_tests.pictures import png

pytestmark = pytest.mark.long


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")


def test_it_shows_all_pictures_metadata_history_and_the_partition(page: Page, site: Site) -> None:
    page.goto(site.page_of(PHOTO))
    image = site.image(PHOTO)
    for name in ("original", "grayscale", "thumbnail", "proof"):
        picture = page.get_by_role("img", name=f"coffee.png: {name}")
        picture.scroll_into_view_if_needed()
        page.wait_for_function("image => image.naturalWidth > 0", arg=picture.element_handle())
    expect(page.locator("dl")).to_contain_text(str(image.sha256))
    expect(page.locator("dl")).to_contain_text("600 × 400")  # noqa: RUF001 - as pages write it
    expect(page.locator(".history .made")).to_contain_text("grayscale, metadata, proof, thumbnail")
    expect(page.locator(".history a").first).to_have_attribute(
        "href", f"http://127.0.0.1:3000/runs/{image.run_id}"
    )
    link = urlsplit(str(page.locator("#partition").get_attribute("href")))
    assert link.path == "/assets/photo/metadata"
    assert parse_qs(link.query) == {"view": ["partitions"], "partition": [PHOTO]}


def test_a_rejected_image_says_why_and_is_tried_again_by_who_signs_in(
    page: Page, site: Site
) -> None:
    page.goto(site.page_of(REJECTED))
    expect(page.locator(".notice")).to_contain_text(str(site.image(REJECTED).reason))
    expect(page.locator(".history .failed")).to_contain_text("thumbnail")
    page.get_by_role("button", name="Try again").press("Enter")
    sign_in(page, "wrong")
    expect(page.get_by_role("alert")).to_contain_text("or in IMGFLOW_API_TOKEN")
    sign_in(page, TOKEN)
    expect(page.locator("#state")).to_have_text("Waiting")
    assert site.image(REJECTED).state == "pending"
    site.library.process(REJECTED)
    expect(page.locator("#state")).to_have_text("Rejected")
    expect(page.get_by_role("button", name="Try again")).to_be_enabled()
    # Fixed by an overwrite, the page shows it as soon as it is processed.
    site.library.put(REJECTED, png(seed=77))
    site.library.announce()
    page.reload()
    expect(page.locator("#state")).to_have_text("Waiting")
    site.library.process(REJECTED)
    expect(page.locator("#state")).to_have_text("Ready")
    site.library.add(REJECTED, b"notes once more")


@pytest.mark.parametrize("has_scripts", [True, False])
def test_a_stranger_signs_in_and_gets_the_page_that_was_asked_for(
    chromium: Browser, site: Site, has_scripts: bool
) -> None:
    with watched(chromium, site, java_script_enabled=has_scripts) as page:
        answer = page.goto(f"{site.page_of(PHOTO)}?q=coffee")
        assert answer is not None
        assert answer.status == 401
        assert "coffee.png" not in page.content()
        if has_scripts:
            check_accessibility(page)
        expect(page.locator("main")).to_contain_text("imgflow sign-in")
        sign_in(page, "wrong")
        expect(page.get_by_role("alert")).to_contain_text("or in IMGFLOW_API_TOKEN")
        assert page.url == f"{site.url}/sign-in"
        sign_in(page, TOKEN)
        expect(page.get_by_role("heading", level=1)).to_have_text("coffee.png")
        assert page.url == f"{site.page_of(PHOTO)}?q=coffee"
        if has_scripts:
            page.get_by_role("button", name="Sign out").click()
            expect(page.get_by_role("heading", level=1)).to_have_text("Sign in or send a token")


def test_a_session_is_found_where_the_browser_left_its_cookie_out(
    chromium: Browser, site: Site
) -> None:
    with watched(chromium, site) as page:
        begin_session(page, TOKEN)
        # As a link of another site leads here: without the cookie, which is `SameSite=Strict`.
        page.goto("data:text/html,<a href='" + site.page_of(PHOTO) + "'>there</a>")
        page.get_by_role("link").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("coffee.png")


def test_the_page_of_the_api_shows_its_operations_and_loads_nothing_foreign(
    page: Page, site: Site
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/docs")
    expect(
        page.locator(".opblock-summary-path", has_text="/images/{image}/original")
    ).to_have_count(2)
    expect(page.get_by_role("heading", name="imgflow")).to_be_visible()
    page.locator("#operations-health-health_health__get button").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table")).to_contain_text('"status": "ok"')
    assert not [url for url in asked if not url.startswith((f"{site.url}/", "data:"))]


def test_what_is_not_there_is_said_on_a_page(page: Page) -> None:
    answer = page.goto("/gallery/999999")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading", level=1)).to_have_text("No image has this id or key")
    check_accessibility(page)
