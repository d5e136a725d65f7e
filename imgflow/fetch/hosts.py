"""Which servers may be fetched from: Amazon S3, the S3 endpoint in the settings, and those listed.

Which of their network addresses may be used is in `imgflow.fetch.addresses`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from imgflow.store.s3.amazon_hosts import s3_host

ENTRY = re.compile(r"(?:(https?)://)?(\*\.)?([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
WELL_FORMED = re.compile(r"https?://[\x21-\x7e]+", re.IGNORECASE)

LONGEST_URL = 8_192
PORTS = {"http": 80, "https": 443}


class NotAllowed(Exception):
    """A URL must not be fetched; the message says why, and shows only its scheme, host and port."""


@dataclass(frozen=True)
class Target:
    """Where a URL points.

    Attributes:
        scheme: `http` or `https`.
        host: Name or address, in lower case and without brackets.
        port: Port number; the scheme's default if the URL has none.
        path: Path and query exactly as sent; contains the secrets of the URL.
        may_be_near: Whether private and loopback addresses are allowed, since the settings name
            this server.
    """

    scheme: str
    host: str
    port: int
    path: str
    may_be_near: bool = False

    def __repr__(self) -> str:
        return f"Target({self.origin!r})"

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True)
class Entry:
    """A server, or all subdomains of a domain, that may be fetched from."""

    scheme: str
    host: str
    port: int
    with_subdomains: bool = False
    may_be_near: bool = False

    @classmethod
    def parse(cls, text: str) -> Entry:
        """Read `host`, `*.domain`, or an origin such as `http://host:port`.

        Raises:
            ValueError: The text is none of these.
        """
        match = ENTRY.fullmatch(text.strip().lower())
        if match is None or (match[4] and not 0 < int(match[4]) < 2**16):
            raise ValueError(f"{text} is none of host, *.domain, https://host:port")
        scheme = match[1] or "https"
        host = match[3].strip("[]")
        return cls(
            scheme,
            host,
            int(match[4] or PORTS[scheme]),
            with_subdomains=bool(match[2]),
            # An operator who lists an address knows where it is; a name may resolve to anything.
            may_be_near=_is_address(host),
        )

    def fits(self, target: Target) -> bool:
        """Whether this entry allows a target."""
        if (self.scheme, self.port) != (target.scheme, target.port):
            return False
        if self.with_subdomains:
            return target.host.endswith(f".{self.host}")
        return target.host == self.host


class AllowedHosts:
    """The servers that may be fetched from."""

    def __init__(self, entries: Sequence[str] = (), *, endpoint: str | None = None) -> None:
        """Allow servers besides Amazon S3.

        Args:
            entries: Servers in the syntax of `Entry.parse`.
            endpoint: URL of the S3 service in use, which may have a private address.
        """
        self._entries = [Entry.parse(text) for text in entries]
        if endpoint is not None:
            parts = urlsplit(endpoint)
            port = parts.port or PORTS.get(parts.scheme, 443)
            for with_subdomains in (False, True):  # virtual hosts of buckets
                self._entries.append(
                    Entry(
                        parts.scheme,
                        (parts.hostname or "").lower(),
                        port,
                        with_subdomains=with_subdomains,
                        may_be_near=s3_host(parts.hostname or "") is None,
                    )
                )

    def target(self, url: str) -> Target:
        """Parse a URL and check its server.

        Raises:
            NotAllowed: The URL is not well formed, or its server is not allowed.
        """
        if len(url) > LONGEST_URL or not WELL_FORMED.fullmatch(url) or "\\" in url:
            raise NotAllowed(
                "A URL is http:// or https:// and printable ASCII, of at most "
                f"{LONGEST_URL:,} characters."
            )
        try:
            parts = urlsplit(url)
            target = _target(parts)
        except ValueError:
            raise NotAllowed("The host or port of the URL is not well formed.") from None
        if parts.username is not None or parts.password is not None:
            raise NotAllowed("A URL with a user name or password is not fetched.")
        for entry in self._entries:
            if entry.fits(target):
                return Target(
                    target.scheme, target.host, target.port, target.path, entry.may_be_near
                )
        is_plain = (target.scheme, target.port) == ("https", PORTS["https"])
        if is_plain and s3_host(target.host) is not None:
            return target
        raise NotAllowed(
            f"{target.origin} is not among the servers that are asked: S3 and those in "
            "IMGFLOW_FETCH_HOSTS."
        )


def _target(parts: SplitResult) -> Target:
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").lower()
    if not host or len(host) > 253:  # noqa: PLR2004 - the longest name of DNS
        raise ValueError(host)
    port = parts.port if parts.port is not None else PORTS[scheme]
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(scheme, host.rstrip(".") or host, port, path)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
