"""Fetches URLs that strangers chose, safely.

For every request and redirect, the server and all its addresses must be allowed, the connection is
made to one of these addresses, and the certificate must be for the server's name. Bytes and time
are bounded: a timer ends the connection whatever it waits for. No library for this bounds both, and
HTTP libraries resolve the name again when they connect. Which servers are allowed is in `hosts`,
which addresses in `addresses`.
"""

from __future__ import annotations

import http.client
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

from imgflow.errors import SettingsError
from imgflow.fetch.addresses import PinnedConnection, Resolve, is_near, is_public, resolve
from imgflow.fetch.hosts import AllowedHosts, NotAllowed, Target

REDIRECTS = {301, 302, 303, 307, 308}
PIECE_BYTES = 256 * 1024
ROUNDING_SECONDS = 0.01

HTTP_OK, HTTP_PARTIAL, HTTP_NOT_MODIFIED, HTTP_NO_RANGE = 200, 206, 304, 416
SERVER_FAILED = 500

FIRST_BYTE = re.compile(r"bytes 0-0/([0-9]{1,18})", re.ASCII)


class FetchFailed(Exception):
    """The server did not answer as it should; a retry may help."""


class FetchRefused(Exception):
    """The server refuses, and a retry will not help: URL not signed or expired, or no object."""


class TooManyBytes(Exception):
    """The body is larger than the limit."""


@dataclass(frozen=True)
class Limits:
    """What a fetch may cost.

    Attributes:
        bytes: Maximum size of the body.
        seconds: Maximum time from the first request to the last byte, redirects included.
        redirects: Maximum number of redirects to follow.
    """

    bytes: int
    seconds: float = 30.0
    redirects: int = 3


@dataclass(frozen=True)
class Fetched:
    """A fetched body; None if the server says that the caller has it already."""

    body: bytes | None
    etag: str | None


@dataclass(frozen=True)
class Shown:
    """What a server says of the object behind a URL.

    Attributes:
        etag: Entity tag without quotes.
        size: Size of the complete object in bytes.
        last_modified: Time in UTC, to the second.
    """

    etag: str
    size: int
    last_modified: datetime


def trusting(bundle: str | None) -> ssl.SSLContext:
    """A TLS context that trusts the system's certificates and those in a file, if given.

    Raises:
        SettingsError: The file cannot be read.
    """
    context = ssl.create_default_context()
    if bundle:
        try:
            context.load_verify_locations(cafile=bundle)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"AWS_CA_BUNDLE={bundle} cannot be read as certificates ({error.strerror})."
            ) from error
    return context


class Fetcher:
    """Fetches from allowed servers only."""

    def __init__(
        self,
        allowed: AllowedHosts,
        limits: Limits,
        *,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Set the rules for all fetches.

        Args:
            allowed: Servers that may be fetched from.
            limits: Bounds on each fetch.
            resolve: Returns the addresses of a host and port.
            tls: Context for https; if None, it trusts the system's certificates.
        """
        self._allowed = allowed
        self._limits = limits
        self._resolve = resolve
        self._tls = tls or ssl.create_default_context()

    def fetch(self, url: str, *, etag: str | None = None) -> Fetched:
        """Fetch a body.

        Args:
            url: Address that the caller gave; may point to any host.
            etag: Entity tag of the body that the caller has already, if any.

        Raises:
            NotAllowed: The URL, or one it redirects to, must not be fetched.
            FetchRefused: The server refuses to return the object.
            FetchFailed: The server did not answer in time, or not properly.
            TooManyBytes: The body is larger than the limit.
        """
        headers = {} if etag is None else {"If-None-Match": etag}
        with self._answered(url, headers) as (answer, deadline):
            if answer.status == HTTP_NOT_MODIFIED and etag is not None:
                return Fetched(None, etag)
            if answer.status != HTTP_OK:
                raise _unwanted(answer.status)
            told = answer.getheader("Content-Length", "")
            if answer.length is None and not answer.chunked:
                raise FetchFailed("The server does not say where its answer ends.")
            if told.isdecimal() and int(told[:20]) > self._limits.bytes:
                raise TooManyBytes(f"It has more than {self._limits.bytes:,} bytes.")
            return Fetched(self._body(answer, deadline), answer.getheader("ETag"))

    def check(self, url: str, *, may_lead: Callable[[str], bool]) -> Shown:
        """Find out which object the server would return, by requesting its first byte.

        Args:
            url: Address that the caller gave, with its signature.
            may_lead: Whether a URL is allowed; called for `url` and each URL it redirects to.

        Raises:
            NotAllowed, FetchRefused, FetchFailed: As `fetch` does.
        """
        with self._answered(url, {"Range": "bytes=0-0"}, may_lead) as (answer, _):
            if answer.status != HTTP_NO_RANGE:
                return _shown(answer)
        with self._answered(url, {}, may_lead) as (answer, _):  # an empty object has no first byte
            return _shown(answer)

    def _body(self, answer: http.client.HTTPResponse, deadline: float) -> bytes:
        body = bytearray()
        while piece := answer.read1(PIECE_BYTES):
            body += piece
            if len(body) > self._limits.bytes:
                raise TooManyBytes(f"It has more than {self._limits.bytes:,} bytes.")
        # A connection that the timer ended looks like one that the server ended.
        if time.monotonic() > deadline - ROUNDING_SECONDS:
            raise FetchFailed("The body did not come in time.")
        if answer.length:
            raise FetchFailed("The body was cut short.")
        return bytes(body)

    @contextmanager
    def _answered(
        self,
        url: str,
        headers: Mapping[str, str],
        may_lead: Callable[[str], bool] = lambda _: True,
    ) -> Iterator[tuple[http.client.HTTPResponse, float]]:
        """Follow redirects to an answer, which stays open within the block."""
        deadline = time.monotonic() + self._limits.seconds
        for _ in range(self._limits.redirects + 1):
            target = self._allowed.target(url)
            if not may_lead(url):
                raise NotAllowed(f"It redirects to {target.origin}, which is not the same object.")
            with self._asked(target, headers, deadline) as answer:
                location = answer.getheader("Location")
                if answer.status not in REDIRECTS or location is None:
                    yield answer, deadline
                    return
            try:
                url = urljoin(f"{target.origin}{target.path}", location)
            except ValueError:
                raise NotAllowed("It redirects to what is no URL.") from None
        raise NotAllowed(f"It redirects more than {self._limits.redirects} times.")

    @contextmanager
    def _asked(
        self, target: Target, headers: Mapping[str, str], deadline: float
    ) -> Iterator[http.client.HTTPResponse]:
        # Library errors may contain the path, so none is passed on or kept as a cause.
        addresses = self._addresses(target)
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise FetchFailed("The server did not answer in time.")
        connection = PinnedConnection(target, addresses, self._tls, seconds)
        timer = threading.Timer(seconds, connection.abort)
        timer.daemon = True
        timer.start()
        try:
            connection.request(
                "GET",
                target.path,
                headers={"Accept-Encoding": "identity", "User-Agent": "imgflow", **headers},
            )
            answer = connection.getresponse()
            if connection.is_aborted:  # amid the headers, which look complete then
                raise TimeoutError
            yield answer
        except ssl.SSLCertVerificationError:
            raise FetchFailed(f"The certificate of {target.origin} is not valid.") from None
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            if not connection.is_aborted and isinstance(error, (ValueError, AttributeError)):
                raise  # our own bug; the library raises these only when closed under a reader
            what = "in time" if connection.is_aborted or isinstance(error, TimeoutError) else "well"
            raise FetchFailed(f"{target.origin} did not answer {what}.") from None
        finally:
            timer.cancel()
            connection.close()

    def _addresses(self, target: Target) -> list[str]:
        try:
            addresses = self._resolve(target.host, target.port)
        except (OSError, UnicodeError):
            raise FetchFailed(f"The name {target.host!r} cannot be resolved.") from None
        is_fine = is_near if target.may_be_near else is_public
        # A single bad address among several is a trick, whichever would be used.
        if not addresses or not all(map(is_fine, addresses)):
            raise NotAllowed(f"{target.host!r} is not a server of the public internet.")
        return addresses


def _shown(answer: http.client.HTTPResponse) -> Shown:
    """What an answer says of the complete object, whether it has all of it or the first byte."""
    if answer.status == HTTP_OK:  # the server does not support ranges
        size = "" if answer.chunked else answer.getheader("Content-Length", "")
    elif answer.status == HTTP_PARTIAL:
        match = FIRST_BYTE.fullmatch(answer.getheader("Content-Range", ""))
        size = match[1] if match else ""
    else:
        raise _unwanted(answer.status)
    etag = answer.getheader("ETag", "").strip('"')
    try:
        modified = parsedate_to_datetime(answer.getheader("Last-Modified", ""))
        shown = Shown(etag, int(size), modified.astimezone(UTC))
    except (ValueError, OverflowError):
        shown = None
    if shown is None or not etag:
        raise FetchRefused("The server does not say which object it answers with.")
    return shown


def _unwanted(status: int) -> Exception:
    if status >= SERVER_FAILED or status == HTTP_NOT_MODIFIED:
        return FetchFailed(f"The server answers with the status {status}.")
    return FetchRefused(
        f"The server answers with the status {status}: the URL may have expired, or its signature "
        "does not fit."
    )
