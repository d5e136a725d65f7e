"""The manifests and the chart's values: valid, closed, and of one mind with imgflow and compose."""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
from typing import Any

import dagster as dg
import kubernetes_validate
import pytest
import sqlalchemy as sa

from imgflow.catalog.database.engine import make_engine
from imgflow.orchestration.dagster_storage.instance import (
    CELERY_LAUNCHER,
    STORAGES,
    instance_config,
)
from imgflow.orchestration.families import KIND_TAG, QUEUE_TAG, depth_family, photo_family
from imgflow.settings.variables import PREFIX, Settings, load_settings
from imgflow_tests.cluster.cluster import generated_variables
from imgflow_tests.cluster.compose import DOCKERFILE, read_compose, read_dockerfile
from imgflow_tests.deploy import chart
from imgflow_tests.deploy.manifests import (
    ROOT,
    Pod,
    documents,
    literals,
    pods,
    settings,
    sources,
    values,
)

# The oldest with the `sleep` of the API's hook, and the newest of the library.
VERSIONS = ("1.30", kubernetes_validate.latest_version().rpartition(".")[0])

SECRETS = {
    "imgflow-cluster": ("IMGFLOW_DATABASE_URL", "IMGFLOW_BROKER_URL"),
    "imgflow-api": ("IMGFLOW_API_TOKEN", "IMGFLOW_LINK_KEY"),
    "imgflow-code": ("IMGFLOW_ALERT_URLS",),
}
DATABASE = "postgresql://imgflow:secret@db/imgflow"
BROKER = "redis://:secret@redis:6379/0"

every_pod = pytest.mark.parametrize("pod", pods(), ids=lambda pod: pod.name)


def loaded(**more: str) -> Settings:
    """The settings as the pods have them."""
    fields = {name.removeprefix(PREFIX).lower(): value for name, value in settings().items()}
    fields = {name: value for name, value in fields.items() if not name.startswith("aws")}
    return load_settings(
        _env_file=None, database_url=DATABASE, broker_url=BROKER, **{**fields, **more}
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "manifest",
    [one for one in documents() if not one["apiVersion"].startswith("keda.sh")],
    ids=lambda one: f"{one['kind']}-{one['metadata']['name']}",
)
def test_manifests_are_valid_to_the_apis_own_schema(manifest: Any, version: str) -> None:
    assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_the_check_of_manifests_sees_a_mistake() -> None:
    (manifest,) = documents("settings.yaml")
    with pytest.raises(kubernetes_validate.ValidationError, match="dat4"):
        kubernetes_validate.validate({**manifest, "dat4": {}}, VERSIONS[1], strict=True)


def test_the_charts_values_have_keys_that_it_takes() -> None:
    found = values()
    assert set(found) <= chart.SECTIONS
    for section, known in chart.KEYS.items():
        if section != "deployment":
            assert set(found[section]) <= known, section
    for deployment in found["dagster-user-deployments"]["deployments"]:
        assert set(deployment) <= chart.KEYS["deployment"]
    launcher = found["runLauncher"]
    assert set(launcher["config"]) == {chart.LAUNCHERS[launcher["type"]]}
    custom = launcher["config"]["customRunLauncher"]
    assert (custom["module"], custom["class"]) == CELERY_LAUNCHER


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pods_that_the_chart_makes_of_them_are_valid(version: str) -> None:
    made = chart.deployments(values())
    assert [one["metadata"]["name"] for one in made] == ["webserver", "daemon", "imgflow"]
    for one in made:
        kubernetes_validate.validate(one, version, strict=True)


@every_pod
def test_pods_may_do_as_little_as_possible(pod: Pod) -> None:
    context = pod.spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == 10001  # the image's
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod.containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not [port for port in container.get("ports", []) if port["containerPort"] < 1_024]
        # What is written goes to bounded folders of the pod.
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        bounded = {
            volume["name"]
            for volume in pod.spec["volumes"]
            if volume.get("emptyDir", {}).get("sizeLimit")
        }
        assert {mounted["/var/lib/imgflow"], mounted["/tmp"]} <= bounded  # noqa: S108
    if not pod.is_of_chart:
        assert pod.spec["automountServiceAccountToken"] is False


@every_pod
def test_pods_have_requests_a_bound_of_memory_and_one_pinned_image(pod: Pod) -> None:
    for container in pod.containers():
        assert container["image"] == "imgflow:0.1.0"
        resources = container["resources"]
        assert resources["requests"].keys() == {"cpu", "memory"}
        assert "memory" in resources["limits"]
        assert "cpu" not in resources["limits"]  # which would slow down while processors are idle
    if pod.manifest["kind"] == "Deployment":
        assert "livenessProbe" in pod.container


@pytest.mark.parametrize("name", ["imgflow-api", "imgflow-worker-photo", "imgflow-worker-depth"])
def test_what_decodes_has_the_memory_that_its_processes_may_take(name: str) -> None:
    (container,) = (pod.container for pod in pods() if pod.name == name)
    own = dict(literals(container)).get("IMGFLOW_WORKERS")
    found = loaded(**({"workers": own} if own else {}))
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 1_024
    assert limit >= found.worker_count * found.worker_memory + 1_024
    assert found.workers  # by themselves they would count the machine's processors


@every_pod
def test_pods_get_secrets_by_reference_and_only_their_own(pod: Pod) -> None:
    secret = {
        f"{PREFIX}{name.upper()}" for name, field in Settings.model_fields.items() if not field.repr
    }
    assert secret == {name for names in SECRETS.values() for name in names}
    for container in pod.containers():
        assert not secret & dict(literals(container)).keys()
        assert {"imgflow-settings", "imgflow-cluster"} <= sources(container)
        assert ("imgflow-api" in sources(container)) is (pod.name == "imgflow-api")
        assert ("imgflow-code" in sources(container)) is (pod.name == "imgflow")
    assert not secret & settings().keys()


def test_every_variable_is_a_setting_of_imgflow() -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    named = set(settings())
    for pod in pods():
        for container in pod.containers():
            named |= {name for name, _ in literals(container)}
    assert {name for name in named if name.startswith(PREFIX)} <= known
    text = "".join(file.read_text() for file in (ROOT / "deploy" / "kubernetes").iterdir())
    said = {name.rstrip("_") for name in re.findall(r"IMGFLOW_[A-Z_]+", text)}
    assert said <= known


def test_webserver_and_daemon_find_the_home_that_the_entry_point_writes() -> None:
    for pod in pods():
        if pod.name not in ("webserver", "daemon"):
            continue
        (first,) = pod.spec["initContainers"]
        assert first["args"] == ["true"]
        assert "command" not in first  # it would take the place of the entry point
        home = dict(literals(pod.container))
        assert home["DAGSTER_HOME"] == f"{home['IMGFLOW_HOME']}/dagster"
        assert home["DAGSTER_HOME"] != values()["global"]["dagsterHome"]
        shared = [mount for mount in first["volumeMounts"] if mount["name"] == "home"]
        assert shared == [{"name": "home", "mountPath": home["IMGFLOW_HOME"]}]
        assert shared[0] in pod.container["volumeMounts"]
    config: Any = instance_config(loaded())
    assert config["run_launcher"]["class"] == CELERY_LAUNCHER[1]
    assert config["event_log_storage"]["class"] == STORAGES["event_log_storage"][1]


def test_the_command_of_the_chart_starts_the_webserver_that_is_closed_to_web_pages() -> None:
    (command,) = (pod.container["command"] for pod in pods() if pod.name == "webserver")
    assert command[:2] == ["/bin/bash", "-c"]  # of a shell that reads no profile
    program = command[2].split()[0]
    first, *_ = read_dockerfile().environment["PATH"].split(":")
    assert f"COPY deploy/bin {first}\n" in DOCKERFILE.read_text()
    script = ROOT / "deploy" / "bin" / program
    assert os.access(script, os.X_OK)
    assert 'exec python -m imgflow.service.webserver "$@"' in script.read_text().splitlines()


def test_no_service_puts_a_variable_into_pods_that_imgflow_takes_for_a_setting() -> None:
    names = [one["metadata"]["name"] for one in documents() if one["kind"] == "Service"]
    names += [one["name"] for one in values()["dagster-user-deployments"]["deployments"]]
    linked = {
        f"{name.upper().replace('-', '_')}_{end}"
        for name in names
        for end in ("PORT", "SERVICE_HOST", "SERVICE_PORT")
    }
    assert not linked & {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for pod in pods():
        assert pod.is_of_chart or pod.spec["enableServiceLinks"] is False


def commands() -> dict[str, list[str]]:
    return {pod.name: pod.container["args"] for pod in pods() if "args" in pod.container}


def test_pods_run_the_commands_of_compose() -> None:
    services = read_compose(generated_variables())
    found = commands()
    for pod, service in {
        "imgflow": "code-server",
        "imgflow-api": "api",
        "imgflow-worker-photo": "worker",
        "imgflow-worker-depth": "worker-depth",
        "imgflow-worker-other": "worker-other",
    }.items():
        assert found[pod] == list(services[service].command)
        assert services[service].image == "imgflow:0.1.0"
    migration = services["migrate"].command
    assert found["imgflow-migrate"] == [part for part in migration if part != "--make-buckets"]


@every_pod
def test_the_commands_exist(pod: Pod) -> None:
    scripts = sysconfig.get_path("scripts")
    found = [pod.container.get("args"), pod.container.get("command")]
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        found.append(pod.container.get(probe, {}).get("exec", {}).get("command"))
    for command in filter(None, found):
        program = command[-1].split()[0] if command[-2] == "-c" else command[0]
        assert shutil.which(program, path=scripts), program


def test_each_queue_has_workers_that_may_end_their_run_before_they_go() -> None:
    found = {pod.name.rpartition("-")[2]: pod for pod in pods() if "worker" in pod.name}
    queues = {name: pod.container["args"][5] for name, pod in found.items()}
    families = [photo_family(loaded().photo_recipe), depth_family(loaded().depth_recipe)]
    for family in families:
        assert queues[family.kind] == family.run_tags[QUEUE_TAG]
    assert queues["other"] == "dagster"
    # A run that is launched must start within minutes, so there is a worker for each.
    replicas = {name: pod.manifest["spec"]["replicas"] for name, pod in found.items()}
    assert replicas == {"photo": loaded().runs, "depth": loaded().runs, "other": 1}
    graces = {name: pod.spec["terminationGracePeriodSeconds"] for name, pod in found.items()}
    assert graces["photo"] > loaded().batch_seconds
    assert graces["depth"] >= loaded().depth_seconds


def selected(by: dict[str, str]) -> list[str]:
    return [
        pod.name
        for pod in pods()
        if by.items() <= pod.manifest["spec"]["template"]["metadata"]["labels"].items()
        and pod.manifest["kind"] == "Deployment"
    ]


def test_services_budgets_and_scalers_are_about_pods_that_exist() -> None:
    workers = [f"imgflow-worker-{kind}" for kind in ("photo", "depth", "other")]
    found: dict[str, list[str]] = {}
    for one in documents():
        kind = f"{one['kind']}/{one['metadata']['name']}"
        if "scaleTargetRef" in one.get("spec", {}):
            found[kind] = [one["spec"]["scaleTargetRef"]["name"]]
        elif one["kind"] == "Service":
            found[kind] = selected(one["spec"]["selector"])
        elif one["kind"] == "PodDisruptionBudget":
            found[kind] = selected(one["spec"]["selector"]["matchLabels"])
    assert found == {
        "Service/imgflow-web": ["imgflow-api"],
        "PodDisruptionBudget/imgflow-api": ["imgflow-api"],
        "HorizontalPodAutoscaler/imgflow-api": ["imgflow-api"],
        "PodDisruptionBudget/imgflow-worker": workers,
        "ScaledObject/imgflow-worker-photo": workers[:1],
        "ScaledObject/imgflow-worker-depth": workers[1:2],
    }


def test_service_accounts_are_those_that_the_roles_of_aws_trust() -> None:
    ours = {one["metadata"]["name"]: one for one in documents() if one["kind"] == "ServiceAccount"}
    theirs = values()["dagster-user-deployments"]["serviceAccount"]
    accounts = {name: one["metadata"]["annotations"] for name, one in ours.items()}
    accounts[theirs["name"]] = theirs["annotations"]
    template = (ROOT / "deploy" / "aws" / "imgflow.yaml").read_text()
    assert accounts.keys() == set(re.findall(r"\$\{Namespace\}:(imgflow-\w+)\"", template))
    for annotation in accounts.values():
        assert re.fullmatch(
            r"arn:aws:iam::123456789012:role/\w[\w-]+", annotation["eks.amazonaws.com/role-arn"]
        )


def test_there_are_as_many_workers_of_a_kind_as_it_has_runs(
    instance: dg.DagsterInstance, database_url: str
) -> None:
    engine = make_engine(database_url)
    statuses = dg.DagsterRunStatus
    made = {
        "photo": [statuses.QUEUED, statuses.STARTED, statuses.SUCCESS, statuses.CANCELING],
        "depth": [statuses.FAILURE, statuses.STARTING],
    }
    for kind, several in made.items():
        for status in several:
            run = instance.create_run_for_job(
                dg.JobDefinition(name=kind, graph_def=dg.GraphDefinition(name=kind)),
                tags={KIND_TAG: kind},
            )
            with engine.begin() as connection:
                connection.execute(
                    sa.text("UPDATE runs SET status = :status WHERE run_id = :run_id"),
                    {"status": status.value, "run_id": run.run_id},
                )
    wanted = {}
    for scaler in documents("keda.yaml"):
        spec = scaler["spec"]
        assert spec["maxReplicaCount"] == loaded().runs
        assert spec["minReplicaCount"] >= 1
        (trigger,) = spec["triggers"]
        assert trigger["metadata"]["connectionFromEnv"] in SECRETS["imgflow-cluster"]
        assert trigger["metadata"]["targetQueryValue"] == "1"
        with engine.connect() as connection:
            kind = spec["scaleTargetRef"]["name"].rpartition("-")[2]
            query = sa.text(trigger["metadata"]["query"])
            wanted[kind] = connection.execute(query).scalar_one()
    engine.dispose()
    assert wanted == {"photo": 3, "depth": 1}
