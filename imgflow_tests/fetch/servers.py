"""A web server that misbehaves by programme, with TLS and a certificate of its own."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

Answer = Callable[[socket.socket, str], None]


@dataclass
class WebServer:
    """Answers every request with a function that writes to the socket.

    Attributes:
        port: on loopback.
        answer: gets the connection and the path.
        paths: that were asked for.
        heads: the whole heads of requests.
    """

    answer: Answer
    tls: ssl.SSLContext | None = None
    paths: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.connections = 0
        self.is_over = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.is_over.set()
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65_536)
                if not piece:
                    return
                head += piece
            self.heads.append(head.decode())
            self.paths.append(head.split(b" ")[1].decode())
            self.answer(connection, self.paths[-1])
        except OSError:
            return
        finally:
            connection.close()


def ok(body: bytes, *headers: str) -> Answer:
    """Answer with a body."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", "Connection: close", *headers]

    def answer(connection: socket.socket, _path: str) -> None:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    return answer


def status(line: str, *headers: str) -> Answer:
    """Answer with a status and no body."""

    def answer(connection: socket.socket, _path: str) -> None:
        lines = [f"HTTP/1.1 {line}", "Content-Length: 0", "Connection: close", *headers, "", ""]
        connection.sendall("\r\n".join(lines).encode())

    return answer


@contextmanager
def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    """A server within the block."""
    server = WebServer(answer, tls)
    try:
        yield server
    finally:
        server.close()


def make_certificate(folder: Path, name: str, *more: str) -> Path:
    """A certificate for some names, and its key, in one file; signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = [x509.DNSName(one) for one in (name, *more)]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file
