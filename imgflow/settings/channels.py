"""Channels on which people are told of failures: a webhook, an e-mail address, a chat.

Each is one URL of Apprise (`json://`, `mailto://`, `slack://` …), which holds its own secrets, so
no more of it than its scheme is ever shown.
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

# Longer than connecting and reading may take by Apprise's own limits; what takes more, such as an
# answer that drips in, counts as not sent.
SEND_SECONDS = 20.0

CHANNEL = re.compile(r"[a-z][a-z0-9+-]*://\S+", re.IGNORECASE)
BETWEEN = re.compile(r"[\s,]+(?=[a-z][a-z0-9+-]*://)", re.IGNORECASE)
SHORTEST_SECRET = 4

# Read by programs, or as plain text; all others show people what they make of it.
EXACT = frozenset({"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos"})


def parse_channels(text: str) -> tuple[str, ...]:
    """Split a setting into URLs, which may hold commas themselves.

    Raises:
        ValueError: a part is no URL; the text does not hold it.
    """
    urls = tuple(filter(None, BETWEEN.split(text.strip().strip(","))))
    for number, url in enumerate(urls, 1):
        if not CHANNEL.fullmatch(url):
            raise ValueError(f"part {number} is no URL such as json://host/path")
    return urls


def scheme_of(url: str) -> str:
    """What may be shown of a channel."""
    return url.partition("://")[0].lower()


def digest_of(url: str) -> str:
    """Names a channel where its URL must not stand."""
    return sha256(url.encode()).hexdigest()[:12]


def check_channel(url: str) -> None:
    """Raise `SettingsError` unless a message could be sent to this channel."""
    _open(url)


def send(
    messages: Mapping[str, tuple[str, str]], *, seconds: float | None = None
) -> dict[str, str | None]:
    """Send messages, on all channels at once.

    Args:
        messages: title and plain text, by the URL of the channel.
        seconds: after which a channel that has not answered counts as failed, 20 when left out. It
            may have got the message all the same.

    Returns:
        URL to None where the message was taken, and to the reason, without secrets, where not.
    """
    seconds = SEND_SECONDS if seconds is None else seconds
    outcomes: dict[str, str | None] = {}
    threads = []
    for url, message in messages.items():
        outcomes[url] = f"it did not answer within {seconds:g} seconds"

        def attempt(url: str = url, message: tuple[str, str] = message) -> None:
            outcomes[url] = _send(url, *message)

        # Not a pool: at the end of the process nobody waits for one that hangs.
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
        # Not `Apprise.notify`: its threads keep a process from ending while a server hangs.
        # With its format the plugin escapes the text, which quotes keys of strangers, for what the
        # service renders: without, keys are HTML in mail with `format=html`, and links in chats.
        is_taken = channel.notify(
            title=title,
            body=body if scheme_of(url) in EXACT else chat(body),
            notify_type=apprise.NotifyType.FAILURE,
            body_format=apprise.NotifyFormat.TEXT,
        )
    # Everything, as `Apprise.notify` does: there are over a hundred plugins by as many authors.
    # This is the thread of one channel, and its outcome is all that anybody sees.
    except Exception as error:
        return f"its plugin raised {type(error).__name__}"
    finally:
        logger.removeHandler(said)
    if is_taken:
        return None
    return without_secrets(said.lines[0] if said.lines else "it was refused", url)


def without_secrets(text: str, url: str) -> str:
    """A text in which nothing of a channel's URL behind its scheme is left."""
    _, _, rest = url.partition("://")
    parts = {part for part in re.split(r"[/:@?&=,]", rest) if len(part) >= SHORTEST_SECRET}
    for part in sorted({*parts, *(unquote(part) for part in parts)}, key=len, reverse=True):
        text = text.replace(part, "…")
    return text[:300]


class _Said(logging.Handler):
    """What Apprise says in this thread about a message that was not taken."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.lines.append(record.getMessage())


def _open(url: str) -> NotifyBase:
    import apprise  # 0.3 s, and its plugins as much again: only where something is sent

    # Its lines name hosts, and go nowhere but into the reason that is told.
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.setLevel(logging.WARNING)  # its debug lines hold whole URLs
    # A redirected POST arrives as a GET, whose answer says nothing of the message.
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
