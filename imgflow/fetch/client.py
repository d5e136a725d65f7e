"""Fetching a URL that a stranger chose, so that it does no harm.

Every request, and every redirect again: the server must be allowed, all its addresses must be, and
the connection is made to one of these addresses, while the certificate must be that of the name.
Bytes and time are bounded: a timer ends the connection whatever it is waiting for. None of the
libraries for this bounds both, and those for HTTP resolve the name once more when they connect.
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
    """The server did not answer as it should; asking again may help."""


class FetchRefused(Exception):
    """The server will not give it, now or later: not signed, expired, not there."""


class TooManyBytes(Exception):
    """There are more bytes than are taken."""


@dataclass(frozen=True)
class Limits:
    """What a fetch may cost.

    Attributes:
        bytes: of the body.
        seconds: from the first question to the last byte, with all redirects.
        redirects: that are followed.
    """

    bytes: int
    seconds: float = 30.0
    redirects: int = 3


@dataclass(frozen=True)
class Fetched:
    """What came; `body` is None where the server says that the caller has it already."""

    body: bytes | None
    etag: str | None


@dataclass(frozen=True)
class Shown:
    """What a server says of the object that it would give.

    Attributes:
        etag: without quotes.
        size: of the whole object, in bytes.
        last_modified: in whole seconds of UTC.
    """

    etag: str
    size: int
    last_modified: datetime


def trusting(bundle: str | None) -> ssl.SSLContext:
    """The certificates of the system, and those in a file.

    Raises:
        SettingsError: the file cannot be read.
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
    """Fetches from the servers that are allowed."""

    def __init__(
        self,
        allowed: AllowedHosts,
        limits: Limits,
        *,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take the rules.

        Args:
            allowed: servers.
            limits: of a fetch.
            resolve: gives the addresses of a host.
            tls: of connections; the system's certificates when left out.
        """
        self._allowed = allowed
        self._limits = limits
        self._resolve = resolve
        self._tls = tls or ssl.create_default_context()

    def fetch(self, url: str, *, etag: str | None = None) -> Fetched:
        """Get a body.

        Args:
            url: of anyone.
            etag: of the body that the caller has.

        Raises:
            NotAllowed: the URL, or where it redirects to, must not be fetched.
            FetchRefused: the server does not give it.
            FetchFailed: the server did not answer in time, or not well.
            TooManyBytes: the body is too large.
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
        """Find out which object the server would give, by asking for its first byte.

        Args:
            url: Address that the caller gave, with its signature.
            may_lead: Judges the URL, and each that it redirects to.

        Raises:
            NotAllowed, FetchRefused, FetchFailed: as `fetch` does.
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
        # A connection that was ended in time looks like one that ended by itself.
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
        """Follow redirects to an answer, which is open within the block."""
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
        # Errors of the libraries may hold the path, so none is passed on or kept as a cause.
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
            if connection.is_aborted:  # amid the headers, which then look complete
                raise TimeoutError
            yield answer
        except ssl.SSLCertVerificationError:
            raise FetchFailed(f"The certificate of {target.origin} is not valid.") from None
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            if not connection.is_aborted and isinstance(error, (ValueError, AttributeError)):
                raise  # ours; a connection that is closed under a reader raises these too
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
        # One of several that is not fine tells of a trick, whichever would be taken.
        if not addresses or not all(map(is_fine, addresses)):
            raise NotAllowed(f"{target.host!r} is not a server of the public internet.")
        return addresses


def _shown(answer: http.client.HTTPResponse) -> Shown:
    """What an answer says of the complete object, whether it is all of it or its first byte."""
    if answer.status == HTTP_OK:  # the server knows no ranges
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
