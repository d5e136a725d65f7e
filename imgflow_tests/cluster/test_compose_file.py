"""What the compose file and the Dockerfile say, without running either."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from imgflow.settings.variables import Settings
from imgflow_tests.cluster.cluster import generated_variables
from imgflow_tests.cluster.compose import (
    DOCKERFILE,
    FILE,
    ROOT,
    MissingVariable,
    read_compose,
    read_dockerfile,
)

SCRIPTS = Path(sysconfig.get_path("scripts"))
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "API_TOKEN")
ONE_SHOT = {"migrate"}
KEEP_DATA = {"postgres", "redis", "s3"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


@pytest.fixture(scope="module")
def services(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["services"]
    return found


def test_it_is_valid_by_the_schema_of_the_compose_specification() -> None:
    schema = ["--builtin-schema", "vendor.compose-spec"]
    command = [sys.executable, "-m", "check_jsonschema", *schema, FILE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_schema_would_refuse_a_key_that_is_none(tmp_path: Path) -> None:
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(FILE.read_text().replace("    healthcheck:", "    healthchecks:", 1))
    schema = ["--builtin-schema", "vendor.compose-spec"]
    command = [sys.executable, "-m", "check_jsonschema", *schema, wrong]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_the_linter_of_dockerfiles_has_nothing_to_say() -> None:
    done = subprocess.run(
        [SCRIPTS / "hadolint", DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", [*SECRETS, "LINK_KEY"])
def test_nothing_starts_without_a_secret(name: str) -> None:
    variables = {key: value for key, value in generated_variables().items() if key != name}
    with pytest.raises(MissingVariable, match=r"make-env\.sh"):
        read_compose(variables)


def test_the_file_that_is_generated_has_every_secret_and_another_one_each_time() -> None:
    first, second = generated_variables(), generated_variables()
    read_compose(first)
    for name in (*SECRETS, "LINK_KEY"):
        assert first[name] != second[name]
        assert len(first[name]) >= 20
        assert re.fullmatch(r"[0-9a-f]+", first[name]), "it stands in URLs as it is"


def test_the_generated_file_means_nothing_to_imgflow_started_in_the_same_folder() -> None:
    """It reads `.env` there too, and would go to a bucket that only containers reach."""
    assert not [name for name in generated_variables() if name.startswith(("IMGFLOW_", "AWS_"))]


def test_no_secret_stands_in_the_file(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY|AUTH", variable):
                assert str(value).startswith("${"), f"{name}: {variable}"


def test_every_image_is_pinned_to_a_version(services: dict[str, Any]) -> None:
    images = {service["image"] for service in services.values()}
    images |= set(re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE))
    for image in images:
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)*$", image), image


def test_services_are_started_again_and_say_whether_they_are_well(
    services: dict[str, Any],
) -> None:
    for name, service in services.items():
        assert service["restart"] == ("on-failure:5" if name in ONE_SHOT else "unless-stopped")
        assert ("healthcheck" in service) == (name not in ONE_SHOT), name
        assert service["logging"]["options"]["max-size"], "logs do not fill the disk"


def test_ours_have_no_rights_and_no_root(services: dict[str, Any]) -> None:
    for service in services.values():
        if "build" in service:
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
    last = DOCKERFILE.read_text().rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE)


def test_what_has_data_has_a_volume_and_nothing_else_has(
    services: dict[str, Any], document: dict[str, Any]
) -> None:
    assert {name for name, service in services.items() if "volumes" in service} == KEEP_DATA
    assert set(document["volumes"]) == KEEP_DATA


def test_ports_are_open_on_loopback_unless_somebody_says_otherwise(
    services: dict[str, Any],
) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"webserver", "api"}
    for (port,) in published.values():
        assert port.startswith(("127.0.0.1:", "${API_ADDRESS:-127.0.0.1}:"))


def test_services_of_ours_wait_for_the_migration(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if "build" in service and name not in ONE_SHOT:
            assert (
                service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
            ), name


def test_every_variable_of_imgflow_is_a_setting() -> None:
    known = {f"IMGFLOW_{name.upper()}" for name in Settings.model_fields}
    for spec in read_compose(generated_variables()).values():
        given = {name for name in spec.environment if name.startswith("IMGFLOW_")}
        assert given <= known, spec.name
    image = {name for name in read_dockerfile().environment if name.startswith("IMGFLOW_")}
    assert image <= known


def test_one_variable_says_how_many_workers_and_how_many_runs() -> None:
    specs = read_compose({**generated_variables(), "WORKERS": "3"})
    assert specs["worker"].replicas == specs["worker-depth"].replicas == 3
    assert {spec.environment["IMGFLOW_RUNS"] for spec in specs.values() if spec.is_ours} == {"3"}


def test_the_image_gets_what_it_copies_and_nothing_that_is_secret() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in rules
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE.read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert set(copied) == set(allowed)
    for source in copied:
        assert (ROOT / source).exists(), source
    for secret in (".env", ".git", ".imgflow"):
        assert not any(fnmatch.fnmatch(secret, rule) for rule in allowed)


def test_stages_of_the_image_have_the_same_base() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert f":{sys.version_info.major}." in bases[0]


def test_the_image_downloads_python_packages_only() -> None:
    text = DOCKERFILE.read_text()
    assert not re.search(r"apt|curl|wget|ADD |git ", text)
    assert "SOURCE_DATE_EPOCH" in text
