"""Every command of the documentation works: each page is followed by a reader who types it all.

Pages share one `imgflow up` with its samples. One says how to start it on Amazon, and one needs
none. How a reader here differs from others is in `docs_commands.py`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from moto.server import ThreadedMotoServer

from imgflow.settings.tokens import own_token
from imgflow.settings.variables import load_settings
from imgflow_tests.api.library import bearer
from imgflow_tests.ceph import free_port
from imgflow_tests.conftest import S3Server
from imgflow_tests.docs_commands import (
    NOT_RUN,
    PARSED,
    RUN,
    SHELL,
    SHOWN,
    Failed,
    NotRun,
    Reader,
    commands,
    compare,
    is_not_run,
    substitutions,
    wait_until,
)
from imgflow_tests.docs_pages import ROOT, Block, blocks, pages
from imgflow_tests.fetch.servers import ok, serving
from imgflow_tests.pictures import jpeg
from imgflow_tests.running import Running, start, stop

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ON_AMAZON, ON_CEPH = "docs/getting-started-s3.md", "docs/s3.md"
SHARING = [
    page
    for page in pages()
    if page not in (ON_AMAZON, ON_CEPH) and any(block.language in RUN for block in blocks(page))
]
ALL = [block for page in pages() for block in blocks(page)]


@pytest.fixture(scope="module")
def web_port() -> Iterator[int]:
    """Of a server that stands for the bucket in examples of presigned URLs."""
    with serving(ok(jpeg(seed=9))) as server:
        yield server.port


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, web_port: int) -> Iterator[Running]:
    """What `make run` starts, with proofs."""
    started = start(
        tmp_path_factory.mktemp("up"),
        "--samples",
        IMGFLOW_WATERMARK_TEXT="© me",
        IMGFLOW_FETCH_HOSTS=f"http://127.0.0.1:{web_port}",
    )
    try:
        wait_until(lambda: "Ready." in started.output(), "imgflow up starts")
        settle(started.api, started.home / "source")
        yield started
    finally:
        stop(started, 15)


def settle(api: str, source: Path) -> None:
    """Wait until every upload is processed."""
    token = bearer(own_token(source.parent))

    def is_done() -> bool:
        files = sum(file.is_file() for file in source.rglob("*"))
        answer = httpx.get(f"{api}/images", params={"limit": 500}, headers=token)
        images = answer.json()["items"]
        return len(images) >= files and all(image["state"] != "pending" for image in images)

    wait_until(is_done, "all uploads are processed")


@pytest.mark.parametrize("page", SHARING)
def test_the_commands_of_a_page_work_in_their_order(
    page: str, running: Running, web_port: int, tmp_path: Path
) -> None:
    # The doctor would find other ones than those of the `imgflow up` that runs.
    ports = {
        name: value
        for name, value in running.variables.items()
        if name.startswith(("IMGFLOW_", "AWS_"))
    }
    token = (running.home / "api-token").read_text().strip()
    variables = {**ports, "IMGFLOW_HOME": str(running.home), "TOKEN": token, "API": running.api}
    reader = Reader(
        tmp_path,
        variables,
        substitutions(
            api_port=running.variables["IMGFLOW_API_PORT"],
            web_port=str(web_port),
        ),
        lambda: settle(running.api, running.home / "source"),
    )
    (reader.checkout / ".imgflow").symlink_to(running.home)
    assert reader.follow(page) or all(
        is_not_run(page, command)
        for block in blocks(page)
        if block.language in RUN
        for command in commands(block)
    )


@pytest.fixture
def amazon() -> Iterator[str]:
    """S3 with notifications, SQS and IAM, as far as moto has them."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_getting_started_on_s3_works_from_its_first_command_to_its_last(
    amazon: str, tmp_path: Path
) -> None:
    api, dagster = str(free_port()), str(free_port())
    reader = Reader(
        tmp_path,
        {
            "AWS_ENDPOINT_URL": amazon,
            "IMGFLOW_API_PORT": api,
            "IMGFLOW_DAGSTER_PORT": dagster,
        },
        substitutions(api_port=api),
    )
    try:
        assert reader.follow(ON_AMAZON) > 1
    finally:
        reader.close()


@pytest.fixture
def named_buckets(s3: Any) -> Iterator[None]:
    """The two of the page, emptied and removed afterwards."""
    names = ("my-uploads", "my-pictures")
    for name in names:
        s3.create_bucket(Bucket=name)
    yield
    for name in names:
        for entry in s3.list_objects_v2(Bucket=name).get("Contents", []):
            s3.delete_object(Bucket=name, Key=entry["Key"])
        s3.delete_bucket(Bucket=name)


@pytest.mark.usefixtures("named_buckets")
def test_trying_another_s3_server_works_on_one(s3_server: S3Server, tmp_path: Path) -> None:
    variables = {
        **s3_server.variables(),
        "IMGFLOW_API_PORT": str(free_port()),
        "IMGFLOW_DAGSTER_PORT": str(free_port()),
    }
    reader = Reader(tmp_path, variables, substitutions(s3=s3_server.endpoint))
    assert reader.follow(ON_CEPH) > 1


@pytest.mark.parametrize("block", ALL, ids=str)
def test_a_block_says_what_it_is_and_can_be_read_as_that(block: Block, tmp_path: Path) -> None:
    assert block.language in (*RUN, *PARSED, *SHOWN), f"{block} has no language that is known"
    if block.language in SHELL:
        script = tmp_path / "block.sh"
        script.write_text(
            block.text.replace("$ ", "") if block.language == "console" else block.text
        )
        checked = subprocess.run(
            ["bash", "-n", str(script)], capture_output=True, text=True, check=False
        )
        assert not checked.returncode, checked.stderr
    elif block.language == "python":
        compile(block.text, str(block), "exec")
    elif block.language == "dotenv":
        (tmp_path / ".env").write_text(block.text)
        load_settings(_env_file=tmp_path / ".env")
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "yaml":
        yaml.safe_load(block.text)


@pytest.mark.parametrize("entry", NOT_RUN, ids=lambda entry: f"{entry.page}:{entry.command}")
def test_what_is_not_run_stands_in_the_documentation_and_has_a_reason(entry: NotRun) -> None:
    found = [
        command
        for block in blocks(entry.page)
        if block.language in SHELL
        for command in commands(block)
        if entry.covers(command)
    ]
    assert found, f"{entry.page} has no command {entry.command!r}: take it out of NOT_RUN"
    assert len(entry.reason) > 20
    if entry.command.startswith("make "):
        make = shutil.which("make")
        assert make
        target = [make, "--dry-run", "--directory", str(ROOT), *entry.command.split()[1:]]
        subprocess.run(target, capture_output=True, check=True)


@pytest.mark.parametrize("text", substitutions())
def test_what_is_replaced_in_commands_stands_in_one(text: str) -> None:
    assert any(text in block.text for block in ALL if block.language in SHELL)


@pytest.mark.parametrize(
    ("expected", "said", "is_same"),
    [
        ("3 listed", "3 listed\n", True),
        ("3 listed", "4 listed", False),
        ("… listed\nend", "12 listed  \nend\n", True),
        ("… listed", "12 listed\nand more", False),
    ],
)
def test_what_a_page_shows_is_compared_with_what_is_printed(
    expected: str, said: str, *, is_same: bool
) -> None:
    block = Block("page.md", 1, "console", "")
    with nullcontext() if is_same else pytest.raises(Failed):
        compare(block, "command", expected, said)


def test_a_command_that_fails_in_the_middle_of_a_block_fails_its_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\nA=1\n```\n\n```sh\ntest $A = 1\nfalse\ntrue\n```\n")
    with pytest.raises(Failed, match="ended with 1"):
        Reader(tmp_path / "reader", {}, {}).follow(str(page))


def test_a_program_that_is_not_here_is_left_out_by_its_name_and_no_other() -> None:
    entry = NotRun("page.md", "kubectl …", "needs a cluster")
    assert entry.covers("kubectl apply -f deploy")
    assert not entry.covers("kubectl-of-mine apply")
    assert NotRun("page.md", "make run", "runs on").covers("make run     # everything")
    assert not NotRun("page.md", "make run", "runs on").covers("make running")
