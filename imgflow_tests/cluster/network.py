"""Machines of a test: each a network namespace with an address and names of the others.

Where namespaces cannot be made (no root, no `ip`), each machine is an address of the loopback
network instead. Those have no names and cannot be cut off; a test that needs it asks
`has_namespaces`.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Protocol

# `ip netns exec` puts what lies here in the place of /etc.
NAMES = Path("/etc/netns")


class NetworkError(Exception):
    """What `ip` refused."""


class Network(Protocol):
    """Some machines that reach each other."""

    has_namespaces: bool

    def add(self, name: str) -> Machine:
        """Add a machine; all are added before anything runs on one."""

    def know_each_other(self) -> None:
        """Let all machines know the names of all."""

    def cut(self, name: str) -> None:
        """Let nothing through to or from a machine, without a word to either side."""

    def heal(self, name: str) -> None:
        """Undo `cut`."""

    def close(self) -> None:
        """Take everything down."""


@dataclass(frozen=True)
class Machine:
    """One machine.

    Attributes:
        name: of the service on it.
        address: by which the test and the others reach it.
        prefix: of a command that is to run on it.
        listens: the address that stands for 0.0.0.0 on it.
    """

    name: str
    address: str
    prefix: tuple[str, ...] = ()
    listens: str = "0.0.0.0"  # noqa: S104 - within its namespace


def make_network() -> Network:
    """Namespaces where the system allows it, else addresses of the loopback network."""
    if os.geteuid() == 0 and shutil.which("ip"):
        try:
            network = Namespaces()
        except NetworkError:
            pass  # the kernel or the container that this is in forbids it
        else:
            try:
                network.add("probe")
            except NetworkError:
                network.close()
            else:
                network.remove("probe")
                return network
    if os.environ.get("CI"):
        raise RuntimeError("CI must test in network namespaces: it needs root and iproute2")
    return Loopback()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise NetworkError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@dataclass
class Namespaces:
    """Machines at a bridge, like the containers of a compose project."""

    has_namespaces: bool = True
    tag: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    machines: dict[str, Machine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._bridge, self._numbers = f"ib{self.tag}", count(2)
        _ip("link", "add", self._bridge, "type", "bridge")
        self._net = self._free_net()
        _ip("address", "add", f"{self._net}.1/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    @staticmethod
    def _free_net() -> str:
        """Of the addresses for tests of networks between each other (RFC 2544)."""
        routes = subprocess.run(["ip", "route"], check=True, capture_output=True, text=True).stdout
        nets = [f"198.18.{number}" for number in range(1, 255)]
        return random.choice([net for net in nets if f"{net}." not in routes])

    def add(self, name: str) -> Machine:
        number = next(self._numbers)  # a link is gone some time after its namespace
        space, link = self._space(name), f"iv{self.tag}{number}"
        machine = Machine(name, f"{self._net}.{number}", ("ip", "netns", "exec", space))
        self.machines[name] = machine
        _ip("netns", "add", space)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", link, "master", self._bridge, "up")
        inside = ("-n", space)
        _ip(*inside, "address", "add", f"{machine.address}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "link", "set", "lo", "up")
        (NAMES / space).mkdir(parents=True, exist_ok=True)
        (NAMES / space / "hosts").write_text("127.0.0.1 localhost\n")
        # Else a name that is not there is asked for elsewhere, for seconds.
        (NAMES / space / "resolv.conf").write_text("")
        return machine

    def know_each_other(self) -> None:
        known = "".join(f"{machine.address} {name}\n" for name, machine in self.machines.items())
        for name in self.machines:
            own = socket.gethostname()
            (NAMES / self._space(name) / "hosts").write_text(f"127.0.0.1 localhost {own}\n{known}")

    def cut(self, name: str) -> None:
        _ip("-n", self._space(name), "link", "set", "eth0", "down")

    def heal(self, name: str) -> None:
        _ip("-n", self._space(name), "link", "set", "eth0", "up")

    def remove(self, name: str) -> None:
        with contextlib.suppress(NetworkError):
            _ip("netns", "delete", self._space(name))
        shutil.rmtree(NAMES / self._space(name), ignore_errors=True)
        del self.machines[name]

    def close(self) -> None:
        for name in list(self.machines):
            self.remove(name)
        with contextlib.suppress(NetworkError):
            _ip("link", "delete", self._bridge)

    def _space(self, name: str) -> str:
        return f"imgflow-{self.tag}-{name}"


@dataclass
class Loopback:
    """Machines that are addresses of 127.0.0.0/8."""

    has_namespaces: bool = False
    machines: dict[str, Machine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._net = f"127.{random.randrange(10, 250)}.{random.randrange(1, 250)}"

    def add(self, name: str) -> Machine:
        address = f"{self._net}.{len(self.machines) + 2}"
        self.machines[name] = machine = Machine(name, address, listens=address)
        return machine

    def know_each_other(self) -> None:
        """Names are replaced by addresses in commands and variables."""

    def cut(self, name: str) -> None:
        raise NotImplementedError(f"{name} cannot be cut off without network namespaces")

    heal = cut

    def close(self) -> None:
        """Nothing is left."""


def on(machine: Machine, command: Sequence[str]) -> list[str]:
    """A command as it runs on a machine."""
    return [*machine.prefix, *command]
