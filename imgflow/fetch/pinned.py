"""A connection to addresses that were judged before, and to nothing that a name resolves to."""

from __future__ import annotations

import http.client
import socket
import ssl

from imgflow.fetch.hosts import Target

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
