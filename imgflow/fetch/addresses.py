"""Which network addresses may be connected to: those of the public internet, and no others.

An address is judged, never a name: a name may resolve to another address at every question, so the
connection is made to the very address that was judged.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

Resolve = Callable[[str, int], list[str]]
"""Takes a host and a port, and gives its addresses as text."""

# Translates to the IPv4 address in the last four bytes.
NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))


def resolve(host: str, port: int) -> list[str]:
    """Ask the system for all addresses of a host; it also reads `2130706433` and `0177.0.0.1`.

    Raises:
        OSError: it has none, or nobody answers.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet, in all that is written into it."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return all(part.is_global and not part.is_multicast for part in _meant(address))


def is_near(text: str) -> bool:
    """Whether an address may be that of a server of one's own: public, private or loopback.

    Link-local ones never are, among them those under which clouds hand out credentials.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return all(
        (part.is_global or part.is_private or part.is_loopback) and not _is_nobody(part)
        for part in _meant(address)
    )


def _is_nobody(address: Address) -> bool:
    # Of IPv6 the library calls loopback reserved too.
    is_reserved = isinstance(address, IPv4Address) and address.is_reserved
    return is_reserved or address.is_link_local or address.is_multicast or address.is_unspecified


def _meant(address: Address) -> list[Address]:
    """An address, or the IPv4 addresses that are written into it."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    written: list[Address] = [address]
    if address.sixtofour is not None:
        written.append(address.sixtofour)
    if address.teredo is not None:
        written += address.teredo
    if any(address in network for network in NAT64):
        # The prefix of the second one is for local use, and not global itself.
        written = [IPv4Address(int(address) & 0xFFFFFFFF)]
    if int(address) >> 32 == 0 and int(address) > 1:  # ::a.b.c.d, given up long ago
        written.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return written
