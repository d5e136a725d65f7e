from __future__ import annotations

import pytest

from imgflow.fetch.addresses import is_near, is_public

PUBLIC = [
    "93.184.216.34", "52.216.0.1", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8", "2a00:1450::1", "240f::1", "9.255.255.255", "11.0.0.0", "172.15.255.255",
    "172.32.0.0", "100.63.255.255", "100.128.0.0", "168.63.129.15", "192.0.1.1", "192.31.196.1",
    "198.17.255.255", "198.20.0.0", "223.255.255.255", "2001:200::1", "2001:db7::1", "2003::1",
]  # fmt: skip

NEAR = [
    "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "::1",
    "fd00::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
]  # fmt: skip

NOBODY = [
    "0.0.0.0", "::",  # noqa: S104 - judged, not listened on
    "169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "fe80::1%eth0",
    "224.0.0.1", "239.255.255.250", "ff02::1", "255.255.255.255",
    "64:ff9b::169.254.169.254",  # NAT64
    "", "localhost", "2130706433", "0177.0.0.1", "0x7f000001", "127.1",
]  # fmt: skip

INDIRECT = [
    "100.64.0.1", "192.0.2.1", "198.18.0.1", "240.0.0.1", "2001:db8::1",
    "::127.0.0.1", "::10.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::7f00:1",
    "2002:7f00:1::", "2002:a00:1::1",  # 6to4
    "2001:0:7f00:1::", "2001:0:5db8:d822:0:0:80ff:fffe",  # Teredo: server, and client inverted
]  # fmt: skip


# Those of which the tables of some Python said that they are public, or a server of one's own.
ODD = [
    *("192.0.0.192", "192.0.0.9", "192.0.0.170", "192.88.99.1", "168.63.129.16"),
    *("100.100.100.200", "100.64.1.1", "203.0.113.9", "198.51.100.1", "0.1.2.3"),
    # 64:ff9b:1::/48 has the IPv4 address in one of four places.
    *("64:ff9b:1:a9fe:a9:fe00:808:808", "64:ff9b:1:7f00:0:100::", "64:ff9b:1:ff7f:0:1::"),
    *("64:ff9b:1:0:7f:0:100::", "64:ff9b:1::808:808", "64:ff9b:1:ffff::a9fe:a9fe"),
    *("64:ff9b::6440:1", "64:ff9b::a83f:8110", "64:ff9b:2::808:808", "64:ff9b:0:1::808:808"),
    # IPv4-translated, -compatible and in 6to4 and Teredo, public ones too.
    *("::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", "::8.8.8.8", "::ffff:168.63.129.16"),
    *("2002:808:808::1", "2001:0:808:808::1", "::ffff:100.100.100.200", "::ffff:0.0.0.0"),
    # ISATAP, with the bits for universal and for group.
    *("2606:2800::5efe:7f00:1", "2606:2800::200:5efe:a9fe:a9fe", "fe80::5efe:10.0.0.1"),
    *("2606:2800::100:5efe:7f00:1", "2606:2800::300:5efe:7f00:1", "2606:2800::5efe:8.8.8.8"),
    *("fd00::5efe:127.0.0.1", "fc00::200:5efe:10.0.0.1"),
    *("fec0::1", "feff::1", "3fff::1", "3fff:fff::1", "5f00::1", "2001:db8::1", "3ffe::1"),
    *("2001:20::1", "2001:2::1", "2001:10::1", "2001:1::1", "2001:3::1", "2001:4:112::1"),
    *("100::1", "100:0:0:1::1", "200::1", "400::1", "4000::1", "8000::1", "e000::1", "fe00::1"),
    *("ff0e::1", "fd00:ec2::254", "fd00:ec2::23", "fd00:ec2::253", "fd20:ce::254", "fd00:42::42"),
    *("2606:2800::1%eth0", "::1%lo", "fd00::1%1"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_public_internet(address: str) -> None:
    assert is_public(address)
    assert is_near(address)


@pytest.mark.parametrize("address", [*NEAR, *NOBODY, *INDIRECT, *ODD])
def test_all_others_are_not_whatever_they_are_written_into(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", NEAR)
def test_a_server_of_ones_own_may_be_near(address: str) -> None:
    assert is_near(address)


@pytest.mark.parametrize("address", [*NOBODY, *ODD])
def test_where_clouds_hand_out_credentials_is_never_a_server_of_ones_own(address: str) -> None:
    assert not is_near(address)
