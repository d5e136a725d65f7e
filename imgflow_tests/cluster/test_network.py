"""The machines that other tests run on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from imgflow_tests.cluster.cluster import until
from imgflow_tests.cluster.network import Network, make_network, on

PORT = 8123


@pytest.fixture
def network() -> Iterator[Network]:
    made = make_network()
    yield made
    made.close()


def test_machines_reach_each_other_by_name_and_can_be_cut_off(network: Network) -> None:
    if not network.has_namespaces:
        pytest.skip("network namespaces need root and a kernel that allows them; CI has both")
    server, client = network.add("server"), network.add("client")
    network.know_each_other()
    process = subprocess.Popen(
        on(server, [sys.executable, "-m", "http.server", f"{PORT}"]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def asks() -> bool:
        code = f"import urllib.request as r; r.urlopen('http://server:{PORT}/', timeout=1)"
        done = subprocess.run(
            on(client, [sys.executable, "-c", code]), capture_output=True, check=False
        )
        return done.returncode == 0

    try:
        until(asks, "the server answers by its name")
        assert httpx.get(f"http://{server.address}:{PORT}/").status_code == 200
        network.cut("server")
        assert not asks()
        network.heal("server")
        until(asks, "it answers again")
    finally:
        process.kill()
        process.wait()


def test_nothing_of_a_network_is_left() -> None:
    network = make_network()
    if not network.has_namespaces:
        pytest.skip("there is nothing to leave")
    prefix = network.add("one").prefix
    network.close()
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert prefix[-1] not in listed.stdout
