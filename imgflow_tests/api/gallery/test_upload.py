"""Uploads by drag and drop, in a browser, until they are ready."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import APIResponse, Page, Route, expect

from imgflow_tests.api.gallery.accessibility import check_accessibility
from imgflow_tests.api.gallery.site import TOKEN, Site
from imgflow_tests.pictures import jpeg

pytestmark = pytest.mark.long


def drop(page: Page, *files: Path) -> None:
    """Drop files as the operating system does."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 500, "y": 500, "data": data})


def test_files_and_folders_that_are_dropped_are_followed_until_ready(
    signed_in: Page, site: Site, tmp_path: Path
) -> None:
    page = signed_in
    folder = tmp_path / "trip"
    (folder / "day 1").mkdir(parents=True)
    (folder / "day 1" / "b&c.jpg").write_bytes(jpeg(120, 90, seed=501))
    (tmp_path / "ünï #1.jpg").write_bytes(jpeg(120, 90, seed=502))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page.goto("/")
    page.get_by_label("Upload into folder").fill("/drops/")
    drop(page, folder, tmp_path / "ünï #1.jpg", tmp_path / "broken.png")
    keys = ("drops/trip/day 1/b&c.jpg", "drops/ünï #1.jpg", "drops/broken.png")
    expect(page.locator(".upload[data-state=pending]")).to_have_count(3)
    expect(page.locator(".card[data-state=pending]")).to_have_count(3)
    check_accessibility(page)
    for key in keys:
        assert (site.library.folder / key).is_file()
        assert site.image(key).state == "pending"

    report = site.ingest()

    assert (report["processed"], report["rejected"]) == (2, 1)
    expect(page.locator(".upload[data-state=ready]")).to_have_count(2)
    expect(page.locator(".upload[data-state=rejected]")).to_contain_text("drops/broken.png")
    expect(page.locator("#uploads-summary")).to_have_text("2 ready · 1 rejected")
    card = page.locator(f"[data-id='{site.image(keys[0]).id}']")
    expect(card).to_have_attribute("data-state", "ready")
    page.wait_for_function(
        "image => image.naturalWidth > 0", arg=card.locator("img").element_handle()
    )
    page.get_by_role("link", name=f"Show {keys[1]}").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("ünï #1.jpg")


def test_a_name_that_is_taken_is_replaced_only_when_that_is_asked_for(
    signed_in: Page, site: Site, tmp_path: Path
) -> None:
    page = signed_in
    site.library.put("taken.jpg", jpeg(seed=510))
    site.library.announce()
    other = jpeg(seed=511)
    (tmp_path / "taken.jpg").write_bytes(other)
    page.goto("/")
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="Upload…").click()
    chosen.value.set_files(tmp_path / "taken.jpg")
    expect(page.locator(".upload")).to_contain_text("A file with this name already exists")
    assert (site.library.folder / "taken.jpg").read_bytes() != other
    page.get_by_role("button", name="Replace: taken.jpg").click()
    expect(page.locator(".upload[data-state=pending]")).to_have_count(1)
    assert (site.library.folder / "taken.jpg").read_bytes() == other
    site.library.process("taken.jpg")
    expect(page.locator(".upload[data-state=ready]")).to_have_count(1)


def test_who_is_not_signed_in_is_asked_before_anything_is_sent(
    page: Page, site: Site, tmp_path: Path
) -> None:
    (tmp_path / "later.jpg").write_bytes(jpeg(seed=520))
    page.goto("/")
    drop(page, tmp_path / "later.jpg")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert not (site.library.folder / "later.jpg").exists()
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator(".upload[data-state=pending]")).to_have_count(1)
    assert (site.library.folder / "later.jpg").is_file()
    site.library.process("later.jpg")
    expect(page.locator(".upload[data-state=ready]")).to_have_count(1)


def test_a_session_that_has_ended_is_begun_anew_and_the_upload_goes_on(
    signed_in: Page, site: Site, tmp_path: Path
) -> None:
    page = signed_in
    (tmp_path / "ended.jpg").write_bytes(jpeg(seed=530))
    page.goto("/")
    page.context.clear_cookies()
    drop(page, tmp_path / "ended.jpg")
    expect(page.locator(".upload")).to_contain_text("Sign in or send a token")
    page.get_by_role("button", name="Try again: ended.jpg").click()
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator(".upload[data-state=pending]")).to_have_count(1)
    site.library.process("ended.jpg")
    expect(page.locator(".upload[data-state=ready]")).to_have_count(1)


def test_an_answer_from_before_the_end_of_a_session_does_not_bring_it_back(
    signed_in: Page, tmp_path: Path
) -> None:
    page = signed_in
    (tmp_path / "late.jpg").write_bytes(jpeg(seed=531))
    held: list[tuple[Route, APIResponse]] = []
    page.route("**/session", lambda route: held.append((route, route.fetch())), times=1)
    with page.expect_request("**/session"):
        page.goto("/")
    page.context.clear_cookies()
    drop(page, tmp_path / "late.jpg")
    expect(page.locator(".upload")).to_contain_text("Sign in or send a token")
    ((route, answer),) = held
    with page.expect_response("**/session"):
        route.fulfill(response=answer)
    page.get_by_role("button", name="Try again: late.jpg").click()
    expect(page.get_by_label("Token")).to_be_visible()
