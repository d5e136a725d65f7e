from __future__ import annotations

import pytest

from imgflow.fetch.addresses import is_near, is_public

PUBLIC = ["93.184.216.34", "52.216.0.1", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8"]

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


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_public_internet(address: str) -> None:
    assert is_public(address)
    assert is_near(address)


@pytest.mark.parametrize("address", [*NEAR, *NOBODY, *INDIRECT])
def test_all_others_are_not_whatever_they_are_written_into(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", NEAR)
def test_a_server_of_ones_own_may_be_near(address: str) -> None:
    assert is_near(address)


@pytest.mark.parametrize("address", NOBODY)
def test_where_clouds_hand_out_credentials_is_never_a_server_of_ones_own(address: str) -> None:
    assert not is_near(address)
