"""Channels for alerts, such as a webhook, an e-mail address or a chat; and sending to them.

Each is an Apprise URL (`json://`, `mailto://`, `slack://` …). It contains secrets, so only its
scheme is ever shown. What is sent, and when, is in `imgflow.orchestration.alerts`.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import unquote

from imgflow.errors import SettingsError
from imgflow.foreign_text import chat

if TYPE_CHECKING:
    from apprise import NotifyBase

# Longer than Apprise's own limits for connecting and reading; what takes longer, such as an answer
# that trickles in, counts as not sent.
SEND_SECONDS = 20.0

CHANNEL = re.compile(r"[a-z][a-z0-9+-]*://\S+", re.IGNORECASE)
BETWEEN = re.compile(r"[\s,]+(?=[a-z][a-z0-9+-]*://)", re.IGNORECASE)
SHORTEST_SECRET = 4

# Schemes read by programs, or as plain text; all others render the text for people.
EXACT = frozenset({"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos"})


def parse_channels(text: str) -> tuple[str, ...]:
    """Split a setting into URLs, which may contain commas themselves.

    Raises:
        ValueError: A part is not a URL; the message does not show it.
    """
    urls = tuple(filter(None, BETWEEN.split(text.strip().strip(","))))
    for number, url in enumerate(urls, 1):
        if not CHANNEL.fullmatch(url):
            raise ValueError(f"part {number} is no URL such as json://host/path")
    return urls


def scheme_of(url: str) -> str:
    """A URL's scheme, all of a channel that may be shown."""
    return url.partition("://")[0].lower()


def digest_of(url: str) -> str:
    """A name for a channel where its URL must not appear: 12 hexadecimal digits."""
    return sha256(url.encode()).hexdigest()[:12]


def check_channel(url: str) -> None:
    """Raise `SettingsError` unless a message could be sent to this channel."""
    _open(url)


def send(
    messages: Mapping[str, tuple[str, str]], *, seconds: float | None = None
) -> dict[str, str | None]:
    """Send messages, on all channels at once.

    Args:
        messages: Title and plain text by channel URL.
        seconds: Time after which a channel that has not answered counts as failed, though it may
            have received the message; 20 if None.

    Returns:
        For each URL, None if the message was accepted, otherwise the reason, without secrets.
    """
    seconds = SEND_SECONDS if seconds is None else seconds
    outcomes: dict[str, str | None] = {}
    threads = []
    for url, message in messages.items():
        outcomes[url] = f"it did not answer within {seconds:g} seconds"

        def attempt(url: str = url, message: tuple[str, str] = message) -> None:
            outcomes[url] = _send(url, *message)

        # Daemon threads instead of a pool, so that the process can exit while one hangs.
        threads.append(threading.Thread(target=attempt, name="alert", daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    return dict(outcomes)


def _send(url: str, title: str, body: str) -> str | None:
    import apprise

    try:
        channel = _open(url)
    except SettingsError as error:
        return str(error)
    said = _Said()
    logger = logging.getLogger("apprise")
    logger.addHandler(said)
    try:
        # Not `Apprise.notify`: its threads keep the process alive while a server hangs.
        # The text quotes strangers' keys. With `body_format`, the plugin escapes it for what the
        # service renders; otherwise keys are HTML in mail with `format=html`, and links in chats.
        is_taken = channel.notify(
            title=title,
            body=body if scheme_of(url) in EXACT else chat(body),
            notify_type=apprise.NotifyType.FAILURE,
            body_format=apprise.NotifyFormat.TEXT,
        )
    # Catches everything, as `Apprise.notify` does: there are over a hundred plugins by as many
    # authors. This thread sends on one channel, and only its outcome is reported.
    except Exception as error:
        return f"its plugin raised {type(error).__name__}"
    finally:
        logger.removeHandler(said)
    if is_taken:
        return None
    return without_secrets(said.lines[0] if said.lines else "it was refused", url)


def without_secrets(text: str, url: str) -> str:
    """Remove every part of a channel's URL from a text, except its scheme."""
    _, _, rest = url.partition("://")
    parts = {part for part in re.split(r"[/:@?&=,]", rest) if len(part) >= SHORTEST_SECRET}
    for part in sorted({*parts, *(unquote(part) for part in parts)}, key=len, reverse=True):
        text = text.replace(part, "…")
    return text[:300]


class _Said(logging.Handler):
    """Collects what Apprise logs in this thread about a message that was not accepted."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.lines.append(record.getMessage())


def _open(url: str) -> NotifyBase:
    import apprise  # takes 0.3 s, and its plugins as much again, so only when needed

    # Its log lines name hosts, so they only go into the reported reason.
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.setLevel(logging.WARNING)  # its debug lines contain complete URLs
    # A redirected POST arrives as a GET, whose answer says nothing about the message.
    asset = apprise.AppriseAsset(http_redirects=False, app_id="imgflow", app_desc="imgflow")
    channel = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if channel is None:
        raise SettingsError(
            f"IMGFLOW_ALERT_URLS: Apprise understands no {scheme_of(url)}:// URL like the one that "
            "is set; see https://appriseit.com/services/"
        )
    if "overflow=" not in url:
        channel.overflow_mode = apprise.OverflowMode.SPLIT
    return channel
