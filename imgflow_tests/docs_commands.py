"""A reader of the documentation, who runs every block of a page in its order, in a fresh folder.

What differs between here and a reader's machine is in this module and nowhere else: `NOT_RUN` has
the commands that cannot be run here, `substitutions` the addresses that differ, and `Reader` the
files that a reader has before the first command.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from imgflow_tests.docs_pages import ROOT, Block, blocks
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import jpeg

SHELL = ("sh", "bash", "console")
RUN = (*SHELL, "python")
PARSED = ("dotenv", "toml", "json", "yaml")
SHOWN = ("mermaid", "nginx", "text")
"""Languages of blocks: run, parsed, shown. Text behind a command is what it prints."""


@dataclass(frozen=True)
class NotRun:
    """A command of the documentation that is not run here.

    Attributes:
        page: on which it stands.
        command: the whole line, or `program …` for all of that program on the page.
        reason: why not, and what tests it instead.
    """

    page: str
    command: str
    reason: str

    def covers(self, command: str) -> bool:
        """Whether it speaks of a command, comments aside."""
        if self.command.endswith(" …"):
            program = self.command.removesuffix(" …").split()
            return command.split()[: len(program)] == program
        return bare(command) == self.command


_AMAZON = "needs an account at Amazon; imgflow_tests/deploy applies the template to an emulation"
_CLUSTER = (
    "needs a cluster; imgflow_tests/deploy checks what is applied, and test_read_only.py runs it"
)
_ENGINE = "needs a container engine; imgflow_tests/cluster runs each service's command without one"
_ON_AND_ON = "runs until Ctrl-C or takes long; test_dagster_people.py runs it"
_WHOLE = "takes minutes; CI runs it on a clean checkout, and the target is looked up here"
_WRITES = "writes into the repository; the test of the same name compares what it would write"
NOT_RUN = (
    NotRun("README.md", "make run", "runs until Ctrl-C; test_up.py starts what it starts"),
    NotRun("README.md", "make test", "would run this test again"),
    NotRun("docs/getting-started-s3.md", "make install", "downloads packages; `make run` needs it"),
    NotRun("CONTRIBUTING.md", "make run", "runs until Ctrl-C; test_up.py starts what it starts"),
    NotRun("CONTRIBUTING.md", "make check", _WHOLE),
    NotRun("CONTRIBUTING.md", "make test", "would run this test again"),
    NotRun("CONTRIBUTING.md", "make bench", _WHOLE),
    NotRun(
        "CONTRIBUTING.md", "make faults", "takes ten minutes, and is a part of the tests itself"
    ),
    NotRun("CONTRIBUTING.md", "make soak", "takes half an hour; test_soak.py runs a part of it"),
    NotRun("CONTRIBUTING.md", "make format", "writes into the repository"),
    NotRun("CONTRIBUTING.md", ".venv/bin/python -m imgflow_tests.test_readme", _WRITES),
    NotRun("CONTRIBUTING.md", ".venv/bin/python -m imgflow_tests.api.test_docs", _WRITES),
    NotRun(
        "CONTRIBUTING.md", ".venv/bin/python -m imgflow_tests.images.test_formats_table", _WRITES
    ),
    NotRun(
        "CONTRIBUTING.md",
        "IMGFLOW_TEST_SCREENSHOTS=docs/images .venv/bin/python -m pytest imgflow_tests/ui "
        "imgflow_tests/api/gallery/test_screenshots.py",
        "writes the pictures of the documentation; the same tests run without writing them",
    ),
    NotRun("docs/aws.md", "aws …", _AMAZON),
    NotRun("docs/kubernetes.md", "kubectl …", _CLUSTER),
    NotRun("docs/kubernetes.md", "helm …", _CLUSTER),
    NotRun("docs/cluster.md", "docker …", _ENGINE),
    NotRun("docs/dagster-people.md", "dg …", _ON_AND_ON),
    NotRun("docs/dagster-people.md", "dagster …", _ON_AND_ON),
    NotRun("docs/dagster-people.md", "python -m imgflow.service.webserver …", _ON_AND_ON),
)


def substitutions(*, api_port: str = "", web_port: str = "", s3: str = "") -> dict[str, str]:
    """Text of commands, and what takes its place here: addresses only."""
    return {
        "127.0.0.1:8000": f"127.0.0.1:{api_port}",
        "https://photos.s3.eu-central-1.amazonaws.com": f"http://127.0.0.1:{web_port}",
        "X-Amz-Signature=…": "X-Amz-Signature=5ecre7",
        "https://s3.example.org": s3,
    }


UP = """\
#!/bin/sh
# What a reader types, run by the Python of the tests. `up` stays behind until the page ends.
if [ "$1" != up ]; then exec "{python}" -m imgflow "$@"; fi
"{python}" -m imgflow "$@" >up.log 2>&1 &
echo $! >up.pid
until grep -q '^Ready' up.log; do kill -0 $! || {{ cat up.log; exit 1; }}; sleep 0.1; done
"""
# By its variable alone, `aws sqs` asks Amazon all the same.
AWS = """\
#!/bin/sh
exec "{python}" -m awscli --endpoint-url "$AWS_ENDPOINT_URL" "$@"
"""
STEP = """\
set -aeuo pipefail
[ ! -e "$READER/state" ] || . "$READER/state"
cd "$(cat "$READER/place")"
trap 'code=$?; export -p >"$READER/state"; pwd >"$READER/place"; exit $code' EXIT
"""


BLOCK_SECONDS = 240
CREDENTIALS = """\
[default]
aws_access_key_id = administrator
aws_secret_access_key = secret
"""


class Failed(AssertionError):
    """A command of the documentation does not work."""


class Reader:
    """Follows one page."""

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, str],
        replaced: Mapping[str, str],
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        """Set up a checkout, as far as commands can tell.

        Args:
            folder: fresh, for this page.
            variables: of its environment.
            replaced: text of commands and what stands for it.
            settle: waits until all uploads are processed; called after each block, since people
                do not read a page within a second.
        """
        self.checkout = folder / "imgflow"
        self._folder, self._replaced, self._settle = folder, replaced, settle
        programs = self.checkout / ".venv" / "bin"
        programs.mkdir(parents=True)
        for entry in ROOT.iterdir():
            if not entry.name.startswith("."):
                (self.checkout / entry.name).symlink_to(entry)
        _program(programs / "imgflow", UP.format(python=sys.executable))
        _program(programs / "aws", AWS.format(python=sys.executable))
        _program(programs / "python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (folder / "place").write_text(str(self.checkout))
        home = folder / "home"
        summer = home / "Pictures" / "summer"
        summer.mkdir(parents=True)
        (summer / "IMG_1.JPG").write_bytes(jpeg(400, 300, seed=1))
        (summer / "IMG_2.JPG").write_bytes(jpeg(400, 300, seed=2))
        (self.checkout / "a.jpg").write_bytes(jpeg(320, 200, seed=3))
        (home / ".aws").mkdir()
        (home / ".aws" / "credentials").write_text(CREDENTIALS)
        # So that an answer of 400 and more fails the command.
        (home / ".curlrc").write_text("fail\nsilent\nshow-error\n")
        path = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
        self._variables = {
            **{n: v for n, v in os.environ.items() if not n.startswith(("IMGFLOW_", "AWS_"))},
            "HOME": str(home),
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": str(ROOT),
            "READER": str(folder),
            # A pytest of a page closes the usual folder to all others, databases of tests included.
            "PYTEST_DEBUG_TEMPROOT": str(folder),
            **variables,
        }

    def follow(self, page: str) -> int:
        """Run every block, and return how many commands were run.

        Raises:
            Failed: a command failed, or printed something else than the page says.
        """
        count, said = 0, ""
        for block in blocks(page):
            if block.language in RUN:
                found, said = self._run_block(block)
                count += found
                self._settle()
            elif block.language == "text" and said:
                compare(block, "the block before", block.text, said)
                said = ""
        return count

    def close(self) -> None:
        """End the `imgflow up` of the page."""
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            process = psutil.Process(int((self.checkout / "up.pid").read_text()))
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def _run_block(self, block: Block) -> tuple[int, str]:
        """How many commands were run, and what they printed where that was not compared yet."""
        if block.language == "python":
            script = f"python - <<'END OF BLOCK'\n{block.text}\nEND OF BLOCK\n"
            return 1, self._run(block, script)
        if block.language == "console":
            session = _session(block)
            for command, expected in session:
                compare(block, command, expected, self._run(block, command))
            return len(session), ""
        lines = [line for line in commands(block) if not is_not_run(block.page, line)]
        return len(lines), self._run(block, "\n".join(lines)) if lines else ""

    def _run(self, block: Block, script: str) -> str:
        for text, other in self._replaced.items():
            script = script.replace(text, other)
        process = subprocess.Popen(
            ["bash", "-c", STEP + script],
            env=self._variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            said, _ = process.communicate(timeout=BLOCK_SECONDS)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise Failed(f"{block} did not end in {BLOCK_SECONDS} s:\n{script}") from error
        if process.returncode:
            raise Failed(f"{block} ended with {process.returncode}:\n{script}\n\n{said}")
        return said


def commands(block: Block) -> list[str]:
    """The commands of a block, each however many lines it takes, without comments."""
    found: list[str] = []
    end = ""
    for line in block.text.splitlines():
        if end or (found and (found[-1].endswith("\\") or _is_in_quotes(found[-1]))):
            found[-1] += f"\n{line}"
            end = "" if line == end else end
            continue
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found.append(line)
        opened = re.search(r"<<-?\s*['\"]?(\w+)", line)
        end = opened[1] if opened else ""
    return found


def _is_in_quotes(command: str) -> bool:
    """Whether a command goes on in the next line, within its quotes."""
    try:
        shlex.split(command, comments=True)
    except ValueError as error:
        return "quotation" in str(error)
    return False


def bare(command: str) -> str:
    """A command without the comment behind it."""
    with suppress(ValueError):
        return shlex.join(shlex.split(command, comments=True))
    return command


def is_not_run(page: str, command: str) -> bool:
    return any(entry.page == page and entry.covers(command) for entry in NOT_RUN)


def compare(block: Block, command: str, expected: str, said: str) -> None:
    """What a command printed against what the page says; `…` stands for anything.

    Raises:
        Failed: they differ.
    """
    wanted = ".*".join(map(re.escape, expected.strip().split("…")))
    shown = "\n".join(line.rstrip() for line in said.strip().splitlines())
    if expected.strip() and not re.fullmatch(wanted, shown, re.DOTALL):
        raise Failed(f"{block}: {command}\nprints\n{shown}\nand not\n{expected}")


def _session(block: Block) -> list[tuple[str, str]]:
    """Commands behind `$ `, each with the lines that follow it."""
    found: list[tuple[str, str]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


def _program(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o755)


def wait_until(
    condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS
) -> None:
    """Look again and again; what is waited for happens in other processes."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not in {seconds:g} s: {what}"
        time.sleep(0.1)
