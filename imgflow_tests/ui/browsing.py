"""Dagster's UI in a page that is watched: nothing may go wrong in it, and nothing leave it."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Locator,
    Page,
    Request,
    Response,
    Route,
    TimeoutError,
    WebSocket,
    expect,
)

from imgflow_tests.browser import keep
from imgflow_tests.running import Running, wait_until

WAIT_MILLISECONDS = 120_000
OFFER_MILLISECONDS = 5_000
SIZE = {"width": 1280, "height": 800}
QUALITY = 75

# What Dagster's UI does by itself whatever the project is, by a part of the message.
TOLERATED = {
    "https://go.apollo.dev/c/err": "Apollo's notices of outdated options in Dagster's own queries",
    "closed before the connection is established": "a page is left before its websocket is open",
}
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
"""An interface of this machine came or went, also one that nobody here uses."""

# What toasts may say; Dagster shows errors in them too.
TOASTS = re.compile(r"Created backfill|Launched run")

# Counts what a page waits for, and tells the test of each toast, which go away by themselves.
SCRIPT = """
window.waiting = 0;
const fetched = window.fetch;
window.fetch = (...request) => {
  window.waiting += 1;
  return fetched(...request).finally(() => { window.waiting -= 1; });
};
new MutationObserver(records => {
  for (const {addedNodes} of records) for (const node of addedNodes) {
    const toast = node.matches?.('[data-sonner-toast]') ? node
      : node.querySelector?.('[data-sonner-toast]');
    if (toast) window.tellToast(toast.innerText);
  }
}).observe(document, {subtree: true, childList: true});
"""

PICTURES_ARE_THERE = "() => [...document.images].every(i => i.complete && i.naturalWidth > 0)"

# What a link within Dagster's UI does.
GO = """
path => {
  history.pushState({}, '', path);
  window.dispatchEvent(new PopStateEvent('popstate', {state: {}}));
}
"""

# Which of some texts a person sees on the page: laid out within the window and not covered.
VISIBLE = """
words => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let node; (node = walker.nextNode());) {
    if (!words.some(word => node.data.includes(word))) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const {x, y, width, height} of range.getClientRects()) {
      const on = document.elementFromPoint(x + width / 2, y + height / 2);
      if (on === node.parentElement) found.push(node.data);
    }
  }
  return found;
}
"""


class Ui:
    """Dagster's UI of a running imgflow in a browser's page."""

    def __init__(self, page: Page, running: Running, folder: Path) -> None:
        self.page = page
        self.running = running
        self._folder = folder

    def open(self, path: str, *texts: str) -> None:
        """Go to a page, and wait until it shows these texts and asks for nothing more."""
        if self.page.url.startswith(self.running.dagster):
            self.page.evaluate(GO, path)  # a tenth of the time of loading Dagster's UI anew
        else:
            self.page.goto(path)
        for text in texts:
            expect(self.seen(text)).to_be_visible()
        self.rest()

    def rest(self) -> None:
        """Wait until the page asks for nothing more."""
        self.page.wait_for_function("() => window.waiting === 0")

    def seen(self, text: str) -> Locator:
        """The first visible element with a text; Dagster also measures texts in hidden ones."""
        return self.page.get_by_text(text).locator("visible=true").first

    def open_partition(self, asset: str, partition: str) -> None:
        """Go to a partition of an asset, and wait for its newest event."""
        # Anew, since Dagster's UI looks for news only now and then.
        self.page.goto(f"/assets/{asset}?view=partitions&partition={quote(partition, safe='')}")
        expect(self.page.get_by_role("button", name="View all historical events")).to_be_visible()

    def metadata(self, name: str) -> Locator:
        """The row of the page's metadata with a name."""
        return self.page.get_by_role("row").filter(
            has=self.page.get_by_role("cell", name=name, exact=True)
        )

    def picture(self) -> Locator:
        """The picture in the metadata; where its text is long, Dagster shows it in a dialog."""
        entry = self.metadata("picture")
        link = entry.get_by_text("Show Markdown")
        expect(entry.locator("img").or_(link)).to_be_visible()
        if link.is_visible():
            link.click()
            entry = self.page.get_by_role("dialog")
        return entry.locator("img")

    def choose_partitions(self, asset: str, *keys: str, containing: str = "") -> Locator:
        """Open the dialog that materialises an asset, and choose partitions in it.

        Args:
            asset: its key.
            keys: of the partitions.
            containing: chooses all whose key contains this, as a search shows them.
        """
        self.open(f"/assets/{asset}?view=partitions", "Materialize")
        self.page.get_by_role("button", name="Materialize").first.click()
        dialog = self.page.get_by_role("dialog").first
        dialog.get_by_text("Select a partition or create one").click()
        if containing:
            self.rest()
            self.page.get_by_placeholder("Filter partitions").fill(containing)
            self.page.get_by_text(re.compile(r"^Select all")).click()
        for key in keys:
            self.page.get_by_role("menuitem", name=key).click()
        self.page.keyboard.press("Escape")
        return dialog

    def choose_in_launchpad(self, dialog: Locator, partition: str) -> None:
        """Choose the partition of a launchpad, which is drawn anew when its config comes."""
        field = dialog.get_by_placeholder("Partition")
        offered = self.page.get_by_role("menuitem", name=partition)

        def is_offered() -> bool:
            self.rest()
            field.fill("")  # else the same text would change nothing
            field.fill(partition)
            with suppress(TimeoutError):
                offered.wait_for(timeout=OFFER_MILLISECONDS)
                return True
            return False

        wait_until(is_offered)
        offered.click()

    def launch(self, dialog: Locator) -> str:
        """Launch what was chosen, go to the page of its backfill, and return its id."""
        dialog.get_by_role("button", name="Launch backfill").click()
        self.page.locator("[data-sonner-toast]").get_by_text("View", exact=True).click()
        self.page.wait_for_url("**/runs/b/*")
        return self.page.url.rpartition("/")[2].partition("?")[0]

    def keep(self, name: str) -> None:
        """Take a screenshot for the documentation, which must tell nothing of this machine."""
        self.page.mouse.move(0, 0)  # nothing is hovered
        self.page.wait_for_load_state("networkidle")  # icons too
        self.page.wait_for_function(PICTURES_ARE_THERE)
        private = [str(self.running.home), sys.prefix, str(Path.home()), socket.gethostname()]
        told = self.page.evaluate(VISIBLE, [word for word in private if len(word) > 1])
        assert not told, told
        keep(
            self.page.screenshot(animations="disabled", caret="hide"),
            name,
            self._folder,
            quality=QUALITY,
            colours=20,
        )


@contextmanager
def watched(browser: Browser, running: Running) -> Iterator[Watch]:
    """A context of a browser, whose cache its pages share, in which errors are noted."""
    context = browser.new_context(base_url=running.dagster, viewport=SIZE)
    context.set_default_timeout(WAIT_MILLISECONDS)
    expect.set_options(timeout=WAIT_MILLISECONDS)
    try:
        yield Watch(context, running.dagster, running.api)
    finally:
        context.close()


class Watch:
    """Notes what goes wrong in pages of a context.

    Attributes:
        wrong: in words.
    """

    def __init__(self, context: BrowserContext, *addresses: str) -> None:
        """Watch a context, whose pages may ask only what is at these addresses."""
        self._own = {urlsplit(address).netloc for address in addresses}
        self._context = context
        self.wrong: list[str] = []
        context.route("**/graphql", self._graphql)
        context.expose_function("tellToast", self._toast)
        context.add_init_script(SCRIPT)

    @contextmanager
    def page(self) -> Iterator[Page]:
        """A new page; what went wrong until its end fails the test."""
        page = self._context.new_page()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        page.on("request", self._request)
        page.on("response", self._response)
        page.on("websocket", self._websocket)
        try:
            yield page
            self.check()
        finally:
            page.close()

    def check(self) -> None:
        """Fail the test if something went wrong since the last time."""
        wrong, self.wrong = self.wrong, []
        if any(NETWORK_CHANGED in message for message in wrong):  # Dagster's UI asks again
            outage = (NETWORK_CHANGED, "Failed to fetch")
            wrong = [message for message in wrong if not any(part in message for part in outage)]
        assert not wrong, "\n".join(wrong)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(
            part in message.text for part in TOLERATED
        ):
            self.wrong.append(f"console: {message.text} ({message.location})")

    def _request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme in ("http", "https") and address.netloc not in self._own:
            self.wrong.append(f"it asks {request.url}")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.wrong.append(f"HTTP {response.status}: {response.url}")

    def _toast(self, text: str) -> None:
        if not TOASTS.search(text):
            self.wrong.append(f"toast: {text}")

    def _graphql(self, route: Route) -> None:
        with suppress(Error):  # the page went elsewhere and waits for no answer
            response = route.fetch()
            answers = response.json()
            for answer in answers if isinstance(answers, list) else [answers]:
                self._answer(answer, str(route.request.post_data))
            route.fulfill(response=response)

    def _websocket(self, connection: WebSocket) -> None:
        connection.on("framereceived", self._frame)

    def _frame(self, text: str | bytes) -> None:
        message = json.loads(text)
        if message.get("type") in ("error", "connection_error"):
            self.wrong.append(f"websocket: {text!r}")
        self._answer(message.get("payload") or {}, "subscription")

    def _answer(self, answer: dict[str, Any], query: str) -> None:
        if answer.get("errors"):
            self.wrong.append(f"GraphQL: {answer['errors']} to {query[:200]}")
        for name, value in (answer.get("data") or {}).items():
            kind = value.get("__typename", "") if isinstance(value, dict) else ""
            if kind.endswith("Error"):
                self.wrong.append(f"GraphQL: {name} is a {kind}: {value.get('message')}")
