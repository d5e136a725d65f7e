"""An internet of a test's own: names that lead to servers on loopback, by real connections.

Only for what Python connects to in this process, so not for `obstore`.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# Of Amazon; nothing is ever sent there.
PUBLIC = "52.219.170.1"


def lead(monkeypatch: pytest.MonkeyPatch, domain: str, address: str, port: int) -> None:
    """Let a domain and all names below it have an address, which leads to a port of loopback."""
    resolve, connect = socket.getaddrinfo, socket.socket.connect

    def resolved(host: Any, *arguments: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        is_ours = isinstance(name, str) and f".{name}".endswith(f".{domain}")
        return resolve(address if is_ours else host, *arguments, **more)

    def connected(self: socket.socket, to: Any) -> None:
        connect(self, ("127.0.0.1", port) if to[0] == address else to)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    if address != "127.0.0.1":
        monkeypatch.setattr(socket.socket, "connect", connected)


@contextmanager
def behind_tls(context: ssl.SSLContext, port: int) -> Iterator[int]:
    """A port that speaks TLS in front of one that does not; bytes pass as they are."""
    listening = socket.create_server(("127.0.0.1", 0))

    def passed(read: socket.socket, write: socket.socket) -> None:
        try:
            while piece := read.recv(65_536):
                write.sendall(piece)
            write.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def talk(plain: socket.socket) -> None:
        try:
            with (
                context.wrap_socket(plain, server_side=True) as outside,
                socket.create_connection(("127.0.0.1", port)) as inside,
            ):
                back = threading.Thread(target=passed, args=(inside, outside), daemon=True)
                back.start()
                passed(outside, inside)
                back.join()
        except OSError:
            return

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(plain,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()
