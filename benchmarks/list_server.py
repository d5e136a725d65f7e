"""An S3 server that can only list: all pages of its answers are ready in memory.

`python -m benchmarks.list_server OBJECTS` prints its port. With it, benchmarks measure what a
listing costs its reader, without the time of a server like Ceph, which is ten times as much.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

PAGE = 1_000


def key_of(number: int) -> str:
    """Return the key of the n-th object; keys and numbers have the same order."""
    return f"photos/2026/{number // PAGE:04d}/img_{number:07d}.jpg"


def pages(objects: int) -> dict[str, bytes]:
    """Return the body of every page, by the key after which it starts."""
    found = {}
    for start in range(0, objects, PAGE):
        numbers = range(start, min(start + PAGE, objects))
        is_truncated = numbers.stop < objects
        entries = "".join(
            f"<Contents><Key>{escape(key_of(number))}</Key>"
            f"<LastModified>2026-08-01T12:{number // 60 % 60:02d}:{number % 60:02d}.000Z"
            f"</LastModified><ETag>&quot;{number:032x}&quot;</ETag><Size>{100_000 + number}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for number in numbers
        )
        following = f"<NextContinuationToken>{key_of(numbers[-1])}</NextContinuationToken>"
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>bucket</Name><Prefix/><MaxKeys>{PAGE}</MaxKeys><KeyCount>{len(numbers)}"
            f"</KeyCount><EncodingType>url</EncodingType><IsTruncated>{str(is_truncated).lower()}"
            f"</IsTruncated>{following if is_truncated else ''}{entries}</ListBucketResult>"
        )
        found[key_of(start - 1) if start else ""] = body.encode()
    return found


class Handler(BaseHTTPRequestHandler):
    """Answers every request with the requested page."""

    protocol_version = "HTTP/1.1"
    bodies: dict[str, bytes] = {}  # noqa: RUF012 - a process has only one server

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        after = (query.get("continuation-token") or query.get("start-after") or [""])[0]
        body = self.bodies[after]
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main() -> None:
    Handler.bodies = pages(int(sys.argv[1]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
