"""Fetching a URL that a stranger chose, so that it does no harm.

Every request, and every redirect again: the server must be allowed, all its addresses must be, and
the connection is made to one of these addresses, while the certificate must be that of the name.
Bytes and time are bounded: a timer ends the connection whatever it is waiting for. None of the
libraries for this bounds both, and those for HTTP resolve the name once more when they connect.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin

from imgflow.errors import SettingsError
from imgflow.fetch.addresses import Resolve, is_near, is_public, resolve
from imgflow.fetch.hosts import AllowedHosts, NotAllowed, Target

REDIRECTS = {301, 302, 303, 307, 308}
PIECE_BYTES = 256 * 1024
CONNECT_SECONDS = 5.0
MOST_ADDRESSES = 4
ROUNDING_SECONDS = 0.01

HTTP_OK, HTTP_PARTIAL, HTTP_NOT_MODIFIED, HTTP_NO_RANGE = 200, 206, 304, 416
SERVER_FAILED = 500


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

    def check(self, url: str) -> None:
        """Find out whether the server would give a body, by asking for its first byte.

        Raises:
            NotAllowed, FetchRefused, FetchFailed: as `fetch` does.
        """
        with self._answered(url, {"Range": "bytes=0-0"}) as (answer, _):
            if answer.status not in (HTTP_OK, HTTP_PARTIAL, HTTP_NO_RANGE):  # the last: it is empty
                raise _unwanted(answer.status)

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
        self, url: str, headers: Mapping[str, str]
    ) -> Iterator[tuple[http.client.HTTPResponse, float]]:
        """Follow redirects to an answer, which is open within the block."""
        deadline = time.monotonic() + self._limits.seconds
        for _ in range(self._limits.redirects + 1):
            target = self._allowed.target(url)
            with self._asked(target, headers, deadline) as answer:
                location = answer.getheader("Location")
                if answer.status not in REDIRECTS or location is None:
                    yield answer, deadline
                    return
            url = urljoin(f"{target.origin}{target.path}", location)
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
        connection = _Connection(target, addresses, self._tls, seconds)
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


class _Connection(http.client.HTTPConnection):
    """A connection to addresses that were checked, and to nothing that a name resolves to."""

    def __init__(
        self, target: Target, addresses: list[str], tls: ssl.SSLContext, seconds: float
    ) -> None:
        super().__init__(target.host, target.port, timeout=seconds)
        self._target = target
        self._addresses = addresses
        self._tls = tls
        self.default_port = {"http": 80, "https": 443}[target.scheme]  # decides on the header Host
        self.is_aborted = False

    def connect(self) -> None:
        """Connect to the first address that answers; TLS is with the name."""
        plain = self._reached()
        if self._target.scheme == "http":
            self.sock = plain
        else:
            # Greeted later, so that a slow greeting is ended like anything else.
            self.sock = self._tls.wrap_socket(
                plain, server_hostname=self._target.host, do_handshake_on_connect=False
            )
        if self.is_aborted:  # before there was anything to abort
            raise TimeoutError
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.do_handshake()

    def _reached(self) -> socket.socket:
        for address in self._addresses[:MOST_ADDRESSES]:
            if self.is_aborted:
                break
            try:
                seconds = min(CONNECT_SECONDS, self.timeout or CONNECT_SECONDS)
                reached = socket.create_connection((address, self._target.port), seconds)
            except OSError:
                continue
            reached.settimeout(self.timeout)
            return reached
        raise ConnectionError("no address answers")

    def abort(self) -> None:
        """End whatever waits for this connection; called from another thread."""
        self.is_aborted = True
        waiting = self.sock
        if waiting is not None:
            try:
                waiting.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has ended by itself
                return


def _unwanted(status: int) -> Exception:
    if status >= SERVER_FAILED or status == HTTP_NOT_MODIFIED:
        return FetchFailed(f"The server answers with the status {status}.")
    return FetchRefused(
        f"The server answers with the status {status}: the URL may have expired, or its signature "
        "does not fit."
    )
