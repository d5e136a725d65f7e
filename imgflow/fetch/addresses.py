"""Which network addresses may be connected to, and connections to exactly these addresses.

Addresses are checked, never names: a name may resolve to another address each time, so the
connection is made to the very address that was checked. Which names are allowed is in `hosts`.

The table is ours, since `ipaddress.is_global` is as old as the Python release
(python/cpython#113171). It follows IANA's registries of special-purpose addresses, as of October
2024, and blocks a range entirely even if its registry has exceptions for single protocols.
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
"""Takes a host and a port, and returns the host's addresses as text."""


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(map(ip_network, texts))


# Where an operator's own servers may be.
NEAR = _networks(
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),  # RFC 1918, RFC 4193
    *("127.0.0.0/8", "::1/128"),
    "198.18.0.0/15",  # benchmarks between the networks of a laboratory, RFC 2544
)

# Where clouds hand out credentials, besides link-local addresses. Always blocked.
METADATA = _networks(
    "168.63.129.16/32",  # Azure, among public addresses
    "100.100.100.200/32",  # Alibaba
    "192.0.0.192/32",  # Oracle
    "fd00:ec2::/32",  # Amazon
    "fd20:ce::/32",  # Google
    "fd00:42::/32",  # Scaleway
)

SPECIAL = _networks(
    "0.0.0.0/8",  # this network
    "100.64.0.0/10",  # shared by a provider's customers, RFC 6598
    "169.254.0.0/16",  # link-local
    "192.0.0.0/24",  # protocol assignments
    *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),  # documentation
    "192.88.99.0/24",  # relays of 6to4
    *("224.0.0.0/4", "240.0.0.0/4"),  # multicast; reserved, and broadcast
    "2001::/23",  # protocol assignments, including Teredo, which embeds an IPv4 address
    *("2001:db8::/32", "3fff::/20"),  # documentation
    "2002::/16",  # 6to4, which embeds an IPv4 address
    "3ffe::/16",  # 6bone, RFC 3701
)

# The only part of IPv6 with public addresses, RFC 4291. Outside it are IPv4-compatible and
# IPv4-translated addresses, 64:ff9b:1::/48 (RFC 8215: only its network knows where it embeds the
# IPv4 address), site-local addresses and segment identifiers.
UNICAST = IPv6Network("2000::/3")

# Each leads to the IPv4 address in its last four bytes: RFC 4291 and RFC 6052.
MAPPED, NAT64 = IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96")

# With any prefix, such an interface is a tunnel to the IPv4 address after it, RFC 5214.
ISATAP = {0x0000_5EFE, 0x0200_5EFE, 0x0100_5EFE, 0x0300_5EFE}


def resolve(host: str, port: int) -> list[str]:
    """Ask the system for all addresses of a host, which may be `2130706433` or `0177.0.0.1` too.

    Raises:
        OSError: The host has no address, or no name server answers.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(text: str) -> bool:
    """Whether an address, or the IPv4 address embedded in it, is on the public internet."""
    address = _parsed(text)
    if address is None:
        return False
    if isinstance(address, IPv6Address) and (address in MAPPED or address in NAT64):
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    return _is_public(address)


def is_near(text: str) -> bool:
    """Whether an address may be that of an operator's own server: public, private or loopback."""
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
    # An address with a zone is link-local.
    return None if isinstance(address, IPv6Address) and address.scope_id else address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in UNICAST:
        return False
    return not (_is_in((*NEAR, *METADATA, *SPECIAL), address) or _is_tunnel(address))


def _is_in(networks: Iterable[Network], address: Address) -> bool:
    return any(address in network for network in networks)


def _is_tunnel(address: Address) -> bool:
    return isinstance(address, IPv6Address) and int(address) >> 32 & 0xFFFFFFFF in ISATAP


# Connections to addresses that were checked before; names are not resolved again.


CONNECT_SECONDS = 5.0
MOST_ADDRESSES = 4


class PinnedConnection(http.client.HTTPConnection):
    """An HTTP connection that another thread may end at any time."""

    def __init__(
        self, target: Target, addresses: list[str], tls: ssl.SSLContext, seconds: float
    ) -> None:
        """Prepare a connection; it is made at the first request.

        Args:
            target: Server to connect to; its certificate must be for this host.
            addresses: Checked addresses of the server; at most `MOST_ADDRESSES` are tried.
            tls: Context with the trusted certificates.
            seconds: Timeout of each network operation.
        """
        super().__init__(target.host, target.port, timeout=seconds)
        self._target = target
        self._addresses = addresses
        self._tls = tls
        self.default_port = {"http": 80, "https": 443}[target.scheme]  # for the Host header
        self.is_aborted = False

    def connect(self) -> None:
        """Connect to the first address that answers; TLS checks the host's name."""
        plain = self._reached()
        if self._target.scheme == "http":
            self.sock = plain
        else:
            # The handshake comes later, so that `abort` can end a slow one too.
            self.sock = self._tls.wrap_socket(
                plain, server_hostname=self._target.host, do_handshake_on_connect=False
            )
        if self.is_aborted:  # `abort` ran before there was a socket to close
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
        """End whatever waits on this connection; called from another thread."""
        self.is_aborted = True
        waiting = self.sock
        if waiting is not None:
            try:
                waiting.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has ended already
                return
