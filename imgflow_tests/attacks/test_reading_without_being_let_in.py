"""People who were given nothing try to read images.

Through a proxy or a forwarded port, as a user of the machine, with a name or a cookie made up, or
with what somebody else had.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg2
import pytest

from imgflow.api.backend import signatures
from imgflow.api.backend.signatures import new_pass, sign_in_link, signatures_of
from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.settings.tokens import own_token
from imgflow.settings.variables import load_settings
from imgflow_tests.api.library import Library, bearer
from imgflow_tests.ceph import free_port
from imgflow_tests.docs_pages import blocks
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import depth_csv, jpeg
from imgflow_tests.running import wait_until

SECRET = "secret-holiday"  # noqa: S105 - a part of keys

NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {server}
}}
"""
CARELESS = (
    "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{api}; }} }}"
)


class Served:
    """A home with images, and processes of its API, as people start them."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.home = library.settings.home
        self.photo = library.add(f"{SECRET}/a.jpg", jpeg(400, 300)).id
        self.depth = library.add(f"{SECRET}/b.csv", depth_csv(rows=40)).id
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = self.home.parent / "api.log"

    @property
    def variables(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("IMGFLOW_")}
        return {
            **kept,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "IMGFLOW_HOME": str(self.home),
            "IMGFLOW_DATABASE_URL": self.library.settings.database_url,
            "IMGFLOW_API_PORT": str(self.port),
        }

    @property
    def paths(self) -> list[str]:
        """What shows something of the images."""
        photo, depth = self.photo, self.depth
        return [
            "/images", f"/images/{photo}", f"/images/{photo}/original",
            f"/images/{photo}/thumbnail",
            f"/images/key:{SECRET}%2Fa.jpg/grayscale", f"/images/{depth}/preview",
            f"/image/{depth}", f"/image/{depth}?depth_min=9000.1&format=npy",
            f"/depth/{depth}/statistics", f"/depth/{depth}/legend", "/metrics", "/", "/?q=a",
            f"/gallery/{photo}", f"/gallery/cards?ids={photo}", "/docs", "/openapi.json",
            "/colormaps",
        ]  # fmt: skip

    @contextmanager
    def process(self, port: int | None = None) -> Iterator[None]:
        """A process of the API."""
        command = [sys.executable, "-m", "uvicorn", "--factory", "imgflow.api.app:create_app"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*command, "--port", str(port or self.port)],
                cwd=self.home.parent,
                env=self.variables,
                stdout=log,
                stderr=log,
            )
        try:
            url = f"http://127.0.0.1:{port or self.port}/health/"
            wait_until(lambda: answers(url) or process.poll() is not None, PATIENCE_SECONDS)
            assert process.poll() is None, self.log.read_text()
            yield
        finally:
            process.terminate()
            process.wait(20)

    def link(self) -> str:
        """A link as `imgflow up` prints it and `imgflow sign-in` does."""
        command = [sys.executable, "-m", "imgflow", "sign-in"]
        done = subprocess.run(
            command,
            cwd=self.home.parent,
            env=self.variables,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def browser(self) -> httpx.Client:
        """Keeps cookies and follows redirects."""
        return httpx.Client(base_url=self.url, follow_redirects=True, timeout=PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def served(
    postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    name = f"attacked{uuid.uuid4().hex}"
    with closing(psycopg2.connect(postgres.url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
    home = tmp_path_factory.mktemp("attacked") / "home"
    served = Served(Library(home, postgres.url.replace("/imgflow?", f"/{name}?")))
    with served.process():
        yield served
    served.library.engine.dispose()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def assert_closed(base: str, paths: list[str], **options: dict[str, str]) -> None:
    """Nothing of any image is answered, by whatever method."""
    for path in paths:
        for method, headers in (
            ("GET", {}),
            ("HEAD", {}),
            ("GET", {"Range": "bytes=0-9"}),
            ("GET", {"If-None-Match": "*", "Accept": "text/html"}),
        ):
            sent = {**headers, **options.get("headers", {})}
            answer = httpx.request(method, base + path, headers=sent)
            assert answer.status_code == 401, (method, path, sent)
            # The path itself may be repeated, by problems and by the form that leads back to it.
            for text in (f"{SECRET}/", "imgflow_images", "JFIF", '"paths"'):
                assert text.encode() not in answer.content


@contextmanager
def nginx(folder: Path, port: int, server: str) -> Iterator[str]:
    """A proxy with the defaults of its makers."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    folder.chmod(0o777)  # its workers are another user
    file = folder / "conf"
    file.write_text(NGINX.format(folder=folder, server=server))
    process = subprocess.Popen([program, "-c", file, "-p", folder], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health/"))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_through_a_proxy_that_adds_no_header(served: Served, tmp_path: Path) -> None:
    port = free_port()
    with nginx(tmp_path, port, CARELESS.format(port=port, api=served.port)) as url:
        for name in ("images.example.org", "localhost", f"127.0.0.1:{served.port}"):
            assert_closed(url, served.paths, headers={"Host": name})
        # Whoever has a token reads all of it, so that it is there to be seen.
        headers = bearer(own_token(served.home))
        for path in served.paths:
            assert httpx.get(url + path, headers=headers).status_code == 200, path


def test_through_the_proxy_of_the_documents_which_lets_those_in_who_sign_in(
    served: Served, tmp_path: Path
) -> None:
    servers = [block for block in blocks("docs/operating.md") if block.language == "nginx"]
    (block,) = [block for block in servers if "127.0.0.1:8000" in block.text]
    port = free_port()
    server = block.text.replace("127.0.0.1:8000", f"127.0.0.1:{served.port}")
    server = server.replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    server = "".join(line for line in server.splitlines(True) if "ssl_" not in line)
    own = {"Host": "images.example.org", "Origin": "http://images.example.org"}
    with nginx(tmp_path, port, server) as url, served.browser() as browser:
        assert_closed(url, served.paths, headers=own)
        answer = browser.get(f"{url}/sign-in?{urlsplit(served.link()).query}")
        assert SECRET in answer.text
        retry = f"{url}/images/{served.photo}/retry"
        assert browser.post(retry, headers=own).is_success
        assert browser.post(retry, headers={**own, "Origin": "http://x.org"}).status_code == 401


def test_through_a_forwarded_port(served: Served) -> None:
    """As `ssh -R` and `kubectl port-forward` do it: bytes from elsewhere, sent on from here."""
    with forwarded(served.port) as url:
        assert_closed(url, served.paths)


@contextmanager
def forwarded(port: int) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def copy(one: socket.socket, other: socket.socket) -> None:
            with suppress(OSError):
                while data := one.recv(65_536):
                    other.sendall(data)
            with suppress(OSError):
                other.shutdown(socket.SHUT_WR)

        def serve(near: socket.socket) -> None:
            with near, socket.create_connection(("127.0.0.1", port)) as far:
                sending = threading.Thread(target=copy, args=(near, far), daemon=True)
                sending.start()
                copy(far, near)
                sending.join()

        def forward() -> None:
            with suppress(OSError):  # the end of the test
                while True:
                    near, _ = listening.accept()
                    threading.Thread(target=serve, args=(near,), daemon=True).start()

        threading.Thread(target=forward, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_as_another_user_of_the_machine(served: Served) -> None:
    if os.geteuid() != 0:  # another user cannot be had; the request is the same one
        assert_closed(served.url, served.paths)
        return
    code = (
        "import json, sys, urllib.error, urllib.request as r\n"
        "found = {}\n"
        "for url in json.loads(sys.argv[1]):\n"
        "    try: found[url] = r.urlopen(url).status\n"
        "    except urllib.error.HTTPError as error: found[url] = error.code\n"
        "print(json.dumps(found))"
    )
    urls = json.dumps([served.url + path for path in served.paths])
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-c", code, urls],
        capture_output=True,
        text=True,
        check=True,
        user=65_534,
        cwd="/",
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
    )
    assert set(json.loads(done.stdout).values()) == {401}


@pytest.mark.parametrize(
    "host",
    [
        "evil.com@localhost", "evil.com@127.0.0.1", "a:b@localhost:8000", "localhost", "127.0.0.1",
        "[::1]", "x.localhost", "LOCALHOST.", "",
    ],
)  # fmt: skip
def test_by_a_name_of_this_machine(served: Served, host: str) -> None:
    with closing(socket.create_connection(("127.0.0.1", served.port))) as connection:
        head = f"GET /images HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.split()[1] in (b"401", b"400")
    assert SECRET.encode() not in answer


def test_with_a_forged_cookie(served: Served) -> None:
    name = f"imgflow_session_{served.port}"
    with served.browser() as browser:
        browser.get(served.link())
        good = browser.cookies[name]
    token, pass_id, begun, expires, signature = good.split(".")
    key = urlsplit(served.link()).query.partition("=")[2]
    unsigned = signatures.Signatures("x" * 32, served.library.catalog.source)
    forged = [
        f"{'0' * 16}.{pass_id}.{begun}.{expires}.{signature}",
        f"{token}.{'A' * 22}.{begun}.{expires}.{signature}",
        f"{token}.{pass_id}.{begun}.{int(expires) + 1}.{signature}",
        f"{token}.{pass_id}.{int(begun) + 1}.{expires}.{signature}",
        f"{token}.{pass_id}.{begun}.{expires}.{'A' * 43}",
        unsigned.write("session", new_pass(token, 3_600)),
        key,  # is signed, and is no session
    ]
    for value in forged:
        assert_closed(served.url, served.paths[:4], headers={"Cookie": f"{name}={value}"})
    assert httpx.get(f"{served.url}/images", headers={"Cookie": f"{name}={good}"}).is_success


def test_with_the_cookie_of_a_session_that_was_ended(served: Served) -> None:
    other = free_port()
    with served.process(other), served.browser() as browser:
        browser.get(served.link())
        stolen = {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}
        for port in (served.port, other):
            url = f"http://127.0.0.1:{port}/images"
            assert httpx.get(url, headers=stolen).status_code == 200
        assert browser.delete("/session").status_code == 204
        assert_closed(served.url, served.paths, headers=stolen)
        url = f"http://127.0.0.1:{other}/images"
        wait_until(lambda: httpx.get(url, headers=stolen).status_code == 401, 10)
    with served.process(other):  # as after a restart
        assert_closed(f"http://127.0.0.1:{other}", served.paths[:3], headers=stolen)


def test_with_a_sign_in_link_that_was_used(served: Served) -> None:
    link = served.link()
    assert httpx.head(link).status_code == 200  # whoever looks where it leads does not use it up
    with served.browser() as browser:
        answer = browser.get(link)
        assert (answer.status_code, str(answer.url)) == (200, f"{served.url}/")
        assert SECRET in answer.text
    other = free_port()
    with served.process(other):
        for again in (link, link.replace(str(served.port), str(other), 1)):
            with served.browser() as thief:
                answer = thief.get(again)
                assert answer.status_code == 401
                assert "imgflow sign-in" in answer.text
                assert "used before" in answer.text
                assert not thief.cookies
                assert SECRET not in answer.text
    key = link.partition("=")[2]
    assert key not in served.log.read_text()
    assert "sign-in?key=***" in served.log.read_text()


def test_with_a_sign_in_link_of_which_two_make_use_at_once(served: Served) -> None:
    link = served.link()
    other = free_port()
    with served.process(other):
        links = [link, link.replace(str(served.port), str(other), 1)] * 8
        found: list[int] = []
        asking = [
            threading.Thread(target=lambda url=url: found.append(httpx.get(url).status_code))
            for url in links
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
    assert sorted(found) == [303, *[401] * 15]


def test_with_a_sign_in_link_that_has_expired_or_is_made_up(served: Served) -> None:
    settings = load_settings(
        _env_file=None,
        home=served.home,
        database_url=served.library.settings.database_url,
        api_port=served.port,
    )
    name = signatures.tokens_of(settings).widest().name  # type: ignore[union-attr]
    signer = signatures_of(settings)
    good = sign_in_link(settings)
    keys = [
        signer.write("key", new_pass(name, -1)),
        signer.write("session", new_pass(name, 60)),
        signer.write("key", new_pass("0" * 16, 60)),
        good.partition("=")[2][:-1],
        "x" * 190,
        "x",
    ]
    for key in keys:
        with served.browser() as browser:
            answer = browser.get("/sign-in", params={"key": key})
            assert answer.status_code == 401, key
            assert not browser.cookies
    with served.browser() as browser:
        assert browser.get(good).status_code == 200


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/", "//evil.example/", "/\\evil.example", "\\\\evil.example",
        "/\t/evil.example", "/\n/evil.example", "\t//evil.example", "javascript:alert(1)",
        "///evil",
        "/\r\nSet-Cookie: a=b", "evil.example", "",
    ],
)  # fmt: skip
def test_to_lead_who_signs_in_to_another_site(served: Served, wanted: str) -> None:
    token = own_token(served.home)
    form = {"token": token, "wanted": wanted}
    answer = httpx.post(f"{served.url}/sign-in", data=form)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert set(answer.headers.get_list("Set-Cookie")[0].split("; ")) >= {"HttpOnly"}
    page = httpx.post(f"{served.url}/sign-in", data={"token": "wrong", "wanted": wanted})
    assert page.status_code == 401
    assert "evil" not in page.text
    assert token not in page.text + served.log.read_text()


def test_to_sign_somebody_in_from_another_site(served: Served) -> None:
    form = {"token": own_token(served.home), "wanted": "/"}
    for site in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": site, "Origin": "http://evil.example"}
        answer = httpx.post(f"{served.url}/sign-in", data=form, headers=headers)
        assert answer.status_code == 401
        assert "Set-Cookie" not in answer.headers
