"""Any user of a machine reads the arguments of all processes, so that no secret may be one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from imgflow_tests.cluster.cluster import generated_variables
from imgflow_tests.cluster.compose import read_compose
from imgflow_tests.deploy.manifests import pods

SECRET = "secret-of-this-test"  # noqa: S105
HIDDEN = dict.fromkeys(
    (
        *("IMGFLOW_BROKER_URL", "IMGFLOW_DATABASE_URL", "IMGFLOW_API_TOKEN", "IMGFLOW_LINK_KEY"),
        *("IMGFLOW_ALERT_URLS", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "REDISCLI_AUTH"),
        *("DAGSTER_PG_PASSWORD", "POSTGRES_PASSWORD", "ROOT_SECRET_ACCESS_KEY"),
        "CELERY_BROKER_URL",
    ),
    f"redis://:{SECRET}@redis:6379/0",
)
# Stands for every program that a shell starts.
SPY = f"""#!{sys.executable}
import json, os, sys
open(os.environ["SPIED"], "a").write(json.dumps(sys.argv) + "\\n")
"""


def commands() -> Iterator[tuple[str, Sequence[str]]]:
    """What compose and Kubernetes start: services, pods, and the probes of both."""
    variables = {**generated_variables(), "LOG_FORMAT": "json"}
    secret = {name for name in variables if name.endswith(("PASSWORD", "KEY", "TOKEN"))}
    variables |= dict.fromkeys(secret, SECRET)
    for name, service in read_compose(variables).items():
        yield f"compose {name}", service.command
        yield f"compose {name} probe", service.healthcheck
    for pod in pods():
        for container in pod.containers():
            for part in ("command", "args"):
                yield f"{pod.name} {part}", container.get(part, [])
            for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
                ask = container.get(probe, {}).get("exec", {})
                yield f"{pod.name} {probe}", ask.get("command", [])


def spied(command: Sequence[str], folder: Path) -> list[list[str]]:
    """The arguments of what a shell's command starts in the environment of a pod."""
    for program in (
        *("celery", "redis-cli", "grep", "hostname", "python", "imgflow", "uvicorn"),
        *("dagster", "dagster-daemon", "dagster-webserver"),
    ):
        (folder / program).write_text(SPY)
        (folder / program).chmod(0o755)
    file = folder / "spied"
    variables = {**HIDDEN, "PATH": f"{folder}:/bin", "SPIED": str(file)}
    subprocess.run(command, env=variables, check=False, capture_output=True, timeout=60)
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "command"), [one for one in commands() if one[1]], ids=lambda one: str(one)[:40]
)
def test_no_argument_of_a_command_holds_a_secret(
    name: str, command: Sequence[str], tmp_path: Path
) -> None:
    text = " ".join(command)
    assert SECRET not in text, name
    # Kubernetes would put the value there.
    assert not [variable for variable in HIDDEN if f"$({variable})" in text], name
    if Path(command[0]).name in ("sh", "bash"):
        started = spied(command, tmp_path)
        assert started, name
        for arguments in started:
            assert SECRET not in " ".join(arguments), name


def test_the_probe_of_a_worker_has_its_broker_from_the_environment() -> None:
    services = read_compose(generated_variables())
    for name, service in services.items():
        if name.startswith("worker"):
            found = service.environment
            assert found["CELERY_BROKER_URL"] == found["IMGFLOW_BROKER_URL"]
        else:
            assert "CELERY_BROKER_URL" not in service.environment
    for pod in pods():
        if "worker" in pod.name:
            (broker,) = (one for one in pod.container["env"] if one["name"] == "CELERY_BROKER_URL")
            assert broker["valueFrom"] == {
                "secretKeyRef": {"name": "imgflow-cluster", "key": "IMGFLOW_BROKER_URL"}
            }
