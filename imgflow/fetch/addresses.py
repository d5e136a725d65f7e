"""Which network addresses may be connected to: those of the public internet, and no others.

An address is judged, never a name: a name may resolve to another address at every question, so the
connection is made to the very address that was judged.

The table is ours, since `ipaddress.is_global` is of the day on which this Python was released
(python/cpython#113171). It follows the registries of special-purpose addresses of IANA, as of
October 2024, and takes whole blocks where a registry has exceptions for single protocols.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from imgflow.fetch.hosts import Target

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

Resolve = Callable[[str, int], list[str]]
"""Takes a host and a port, and gives its addresses as text."""


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(map(ip_network, texts))


# Where servers of one's own may be.
NEAR = _networks(
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),  # RFC 1918, RFC 4193
    *("127.0.0.0/8", "::1/128"),
    "198.18.0.0/15",  # between the networks of a laboratory, RFC 2544
)

# Where clouds hand out credentials, besides link-local addresses. Never fetched from.
METADATA = _networks(
    "168.63.129.16/32",  # Azure, in the middle of public addresses
    "100.100.100.200/32",  # Alibaba
    "192.0.0.192/32",  # Oracle
    "fd00:ec2::/32",  # Amazon
    "fd20:ce::/32",  # Google
    "fd00:42::/32",  # Scaleway
)

SPECIAL = _networks(
    "0.0.0.0/8",  # this network
    "100.64.0.0/10",  # shared by the customers of a provider, RFC 6598
    "169.254.0.0/16",  # link-local
    "192.0.0.0/24",  # protocol assignments
    *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),  # documentation
    "192.88.99.0/24",  # relays of 6to4
    *("224.0.0.0/4", "240.0.0.0/4"),  # multicast; reserved, and broadcast
    "2001::/23",  # protocol assignments, among them Teredo, which holds an IPv4 address
    *("2001:db8::/32", "3fff::/20"),  # documentation
    "2002::/16",  # 6to4, which holds an IPv4 address
    "3ffe::/16",  # 6bone, RFC 3701
)

# The only part of IPv6 of which addresses are given to the public, RFC 4291. Outside it are
# IPv4-compatible and -translated addresses, 64:ff9b:1::/48 (RFC 8215: where in it the IPv4 address
# is, is known to its network only), site-local ones and segment identifiers.
UNICAST = IPv6Network("2000::/3")

# Each leads to the IPv4 address in its last four bytes: RFC 4291 and RFC 6052.
MAPPED, NAT64 = IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96")

# Whatever the prefix, such an interface is a tunnel to the IPv4 address behind it, RFC 5214.
ISATAP = {0x0000_5EFE, 0x0200_5EFE, 0x0100_5EFE, 0x0300_5EFE}


def resolve(host: str, port: int) -> list[str]:
    """Ask the system for all addresses of a host; it also reads `2130706433` and `0177.0.0.1`.

    Raises:
        OSError: it has none, or nobody answers.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet, also the IPv4 address written into it."""
    address = _parsed(text)
    if address is None:
        return False
    if isinstance(address, IPv6Address) and (address in MAPPED or address in NAT64):
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    return _is_public(address)


def is_near(text: str) -> bool:
    """Whether an address may be that of a server of one's own: public, private or loopback."""
    address = _parsed(text)
    if isinstance(address, IPv6Address) and address in MAPPED:
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    if address is not None and _is_in(NEAR, address):
        return not _is_in(METADATA, address) and not _is_tunnel(address)
    return is_public(text)


def _parsed(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # With a zone it is of one link.
    return None if isinstance(address, IPv6Address) and address.scope_id else address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in UNICAST:
        return False
    return not (_is_in((*NEAR, *METADATA, *SPECIAL), address) or _is_tunnel(address))


def _is_in(networks: Iterable[Network], address: Address) -> bool:
    return any(address in network for network in networks)


def _is_tunnel(address: Address) -> bool:
    return isinstance(address, IPv6Address) and int(address) >> 32 & 0xFFFFFFFF in ISATAP


# A connection to addresses that were judged before, and to nothing that a name resolves to.


CONNECT_SECONDS = 5.0
MOST_ADDRESSES = 4


class PinnedConnection(http.client.HTTPConnection):
    """One conversation, which another thread may end at any time."""

    def __init__(
        self, target: Target, addresses: list[str], tls: ssl.SSLContext, seconds: float
    ) -> None:
        """Connect later, when something is asked.

        Args:
            target: Whose name the certificate must have.
            addresses: Of it; at most `MOST_ADDRESSES` are tried.
            tls: Certificates that are trusted.
            seconds: For each step of the conversation.
        """
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
