"""What `docker-compose.yml` and the `Dockerfile` say, read as Docker would: for tests that run it.

Of the compose specification it knows what our file uses; anchors are YAML's own. A key of a service
that it does not know is an error, so that nothing of the file goes untested unseen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"

# `$$`, `${NAME}`, `${NAME:-default}`, `${NAME:?what is missing}`
VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::([-?])([^}]*))?\})")

# What containers have and processes do not, or what Docker alone can do.
OF_DOCKER = {
    *("image", "build", "init", "restart", "cap_drop", "security_opt", "logging", "shm_size"),
    *("stop_grace_period", "deploy", "profiles", "ports", "volumes"),
}
KNOWN = OF_DOCKER | {"command", "environment", "depends_on", "healthcheck", "configs"}


class MissingVariable(Exception):
    """The file asks for a variable that is not set."""


@dataclass(frozen=True)
class ServiceSpec:
    """One service as it is to be run.

    Attributes:
        name: under which others reach it.
        image: what it is made of; ours when the file builds it.
        command: without the image's entry point.
        environment: of the file, beside that of the image.
        healthcheck: the command that tells whether it is well; none: nothing asks.
        configs: files of the file, by path.
        depends_on: service to condition.
        replicas: how many of it there are.
        is_ours: whether it runs our image.
    """

    name: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    healthcheck: tuple[str, ...]
    configs: Mapping[str, str]
    depends_on: Mapping[str, str]
    replicas: int
    is_ours: bool


def read_compose(variables: Mapping[str, str], file: Path = FILE) -> dict[str, ServiceSpec]:
    """The services of the file, with variables in the place of their names."""
    document = _substituted(yaml.safe_load(file.read_text()), variables)
    configs = document.get("configs", {})
    return {
        name: _service(name, service, configs) for name, service in document["services"].items()
    }


def _service(name: str, service: Mapping[str, Any], configs: Mapping[str, Any]) -> ServiceSpec:
    if unknown := set(service) - KNOWN:
        raise AssertionError(f"{name}: this reader does not know {', '.join(sorted(unknown))}")
    return ServiceSpec(
        name=name,
        image=service["image"],
        command=tuple(service["command"]),
        environment={key: str(value) for key, value in service.get("environment", {}).items()},
        healthcheck=_healthcheck(service.get("healthcheck", {}).get("test", [])),
        configs={
            mount["target"]: configs[mount["source"]]["content"]
            for mount in service.get("configs", ())
        },
        depends_on={
            other: terms["condition"] for other, terms in service.get("depends_on", {}).items()
        },
        replicas=int(service.get("deploy", {}).get("replicas", 1)),
        is_ours="build" in service,
    )


def _healthcheck(test: list[str]) -> tuple[str, ...]:
    if test[:1] == ["CMD-SHELL"]:
        return ("/bin/sh", "-c", test[1])
    return tuple(test[1:])


def _substituted(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _substituted(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_substituted(item, variables) for item in value]
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: _value(found, variables), value)
    return value


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    dollar, name, kind, text = found.groups()
    if dollar:
        return "$"
    if value := variables.get(name):
        return value
    if kind == "?":
        raise MissingVariable(f"{name}: {text}")
    return text or ""


@dataclass(frozen=True)
class ImageSpec:
    """What our image adds to every command.

    Attributes:
        entrypoint: before the command.
        environment: of the last stage.
    """

    entrypoint: tuple[str, ...]
    environment: Mapping[str, str]


def read_dockerfile(file: Path = DOCKERFILE) -> ImageSpec:
    """The entry point and the variables of the last stage."""
    text = file.read_text().replace("\\\n", " ")
    last = text[text.rindex("\nFROM ") :]
    found = re.search(r"^ENTRYPOINT (\[.*\])$", last, re.MULTILINE)
    assert found, "the Dockerfile has an ENTRYPOINT as JSON"
    environment = dict(
        pair.split("=", 1)
        for line in re.findall(r"^ENV (.*)$", last, re.M)
        for pair in line.split()
    )
    return ImageSpec(tuple(json.loads(found.group(1))), environment)
