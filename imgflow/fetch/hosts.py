"""Which servers may be asked: S3 of Amazon, the endpoint of the settings, and those set by name."""

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
    """A URL that must not be fetched; the text says why and holds no more of it than its host."""


@dataclass(frozen=True)
class Target:
    """Where a URL leads.

    Attributes:
        scheme: `http` or `https`.
        host: name or address, in lower case and without brackets.
        port: number.
        path: with the query, as it was sent; holds what is secret of the URL.
        may_be_near: private and loopback addresses are fine, since the settings name this server.
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
    """A server that may be asked."""

    scheme: str
    host: str
    port: int
    with_subdomains: bool = False
    may_be_near: bool = False

    @classmethod
    def parse(cls, text: str) -> Entry:
        """Read `host`, `*.domain`, or an origin such as `http://host:port`.

        Raises:
            ValueError: it is none of them.
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
            # Who writes an address knows where it is; a name may come to resolve to anything.
            may_be_near=_is_address(host),
        )

    def fits(self, target: Target) -> bool:
        """Whether it lets a target be asked."""
        if (self.scheme, self.port) != (target.scheme, target.port):
            return False
        if self.with_subdomains:
            return target.host.endswith(f".{self.host}")
        return target.host == self.host


class AllowedHosts:
    """The servers that may be asked."""

    def __init__(self, entries: Sequence[str] = (), *, endpoint: str | None = None) -> None:
        """Take what the settings say.

        Args:
            entries: as `Entry.parse` reads them.
            endpoint: URL of the S3 service that is used; its own address may be a private one.
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
        """Read a URL.

        Raises:
            NotAllowed: it is not well formed, or its server is not allowed.
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
