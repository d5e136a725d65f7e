"""What Dagster's Helm chart makes of values, as far as `values.yaml` uses it.

The chart comes from a registry that tests cannot reach. These are facts about it, read in the
templates and in the model of values of Dagster's public repository (release 1.13): which keys a
section takes, since unknown ones are refused, and what its pods look like.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_POD_KEYS = {
    *("image", "env", "envConfigMaps", "envSecrets", "labels", "annotations", "nodeSelector"),
    *("affinity", "tolerations", "podSecurityContext", "securityContext", "resources"),
    *("livenessProbe", "readinessProbe", "startupProbe", "volumeMounts", "volumes"),
    "schedulerName",
}
_SERVICE_KEYS = {
    *_POD_KEYS,
    *("deploymentLabels", "checkDbReadyInitContainer", "initContainerResources", "logFormat"),
    *("extraContainers", "extraPrependedInitContainers"),
}
KEYS = {
    "dagsterWebserver": {
        *_SERVICE_KEYS,
        *("replicaCount", "nameOverride", "pathPrefix", "service", "workspace", "enableReadOnly"),
        *("dbStatementTimeout", "dbPoolRecycle", "dbPoolMaxOverflow", "logLevel"),
    },
    "dagsterDaemon": {
        *_SERVICE_KEYS,
        *("enabled", "runCoordinator", "heartbeatTolerance", "runMonitoring", "runRetries"),
        *("sensors", "schedules", "backfills"),
    },
    "dagster-user-deployments": {
        *("enabled", "enableSubchart", "imagePullSecrets", "deployments", "serviceAccount"),
    },
    "deployment": {
        *_POD_KEYS,
        *("name", "port", "dagsterApiGrpcArgs", "includeConfigInLaunchedRuns"),
        *("deploymentNamespace", "replicaCount", "initContainers", "sidecarContainers"),
        "deploymentStrategy",
    },
    "runLauncher": {"type", "config"},
    "global": {
        *("postgresqlSecretName", "dagsterHome", "serviceAccountName", "celeryConfigSecretName"),
    },
}
SECTIONS = {
    *("global", "dagsterWebserver", "dagsterDaemon", "dagster-user-deployments", "runLauncher"),
    *("postgresql", "generatePostgresqlPasswordSecret", "generateCeleryConfigSecret", "rabbitmq"),
    *("redis", "flower", "ingress", "imagePullSecrets", "computeLogManager", "scheduler"),
    *("pythonLogs", "busybox", "migrate", "telemetry", "serviceAccount", "retention"),
    *("concurrency", "additionalInstanceConfig", "rbacEnabled"),
}
LAUNCHERS = {
    "K8sRunLauncher": "k8sRunLauncher",
    "CeleryK8sRunLauncher": "celeryK8sRunLauncher",
    "CustomRunLauncher": "customRunLauncher",
}
COMPONENTS = {"webserver": "dagster-webserver", "daemon": "dagster-daemon"}
WORKSPACE = "/dagster-workspace/workspace.yaml"


def deployments(values: Json) -> list[Json]:
    """The Deployments of webserver, daemon and code servers, without the chart's labels."""
    web, daemon = values["dagsterWebserver"], values["dagsterDaemon"]
    code = values["dagster-user-deployments"]
    port = web["service"]["port"]
    serve = f"dagster-webserver -h 0.0.0.0 -p {port} -w {WORKSPACE}"
    if timeout := web.get("dbStatementTimeout"):
        serve += f" --db-statement-timeout {timeout}"
    found = [
        _service(values, "webserver", web, serve, [{"name": "http", "containerPort": port}]),
        _service(values, "daemon", daemon, f"dagster-daemon run -w {WORKSPACE}", []),
    ]
    for one in code["deployments"]:
        address = ["-h", "0.0.0.0", "-p", str(one["port"])]  # noqa: S104 - in its pod
        container = {
            **_container(values, one),
            # `args`, so that the image's entry point stays.
            "args": ["dagster", "api", "grpc", *address, *one["dagsterApiGrpcArgs"]],
        }
        ask = {"exec": {"command": ["dagster", "api", "grpc-health-check", "-p", str(one["port"])]}}
        for probe in ("readinessProbe", "startupProbe", "livenessProbe"):
            if probe in container:
                container[probe] = {**ask, **container[probe]}
        found.append(_deployment(one["name"], one, container, code["serviceAccount"]["name"], []))
    return found


def _service(values: Json, name: str, section: Json, command: str, ports: list[Json]) -> Json:
    container = {**_container(values, section), "command": ["/bin/bash", "-c", command]}
    container["volumeMounts"] = [
        {
            "name": "dagster-instance",
            "mountPath": f"{values['global']['dagsterHome']}/dagster.yaml",
            "subPath": "dagster.yaml",
        },
        {"name": "dagster-workspace-yaml", "mountPath": "/dagster-workspace/"},
        *section.get("volumeMounts", []),
    ]
    if ports:
        container["ports"] = ports
    volumes = [
        {"name": "dagster-instance", "configMap": {"name": "dagster-instance"}},
        {"name": "dagster-workspace-yaml", "configMap": {"name": "dagster-workspace-yaml"}},
    ]
    return _deployment(name, section, container, "dagster", volumes)


def _container(values: Json, section: Json) -> Json:
    image = section["image"]
    password = {"name": values["global"]["postgresqlSecretName"], "key": "postgresql-password"}
    env = [{"name": "DAGSTER_PG_PASSWORD", "valueFrom": {"secretKeyRef": password}}]
    container = {
        "name": "dagster",
        "image": f"{image['repository']}:{image['tag']}",
        "imagePullPolicy": image["pullPolicy"],
        "env": [*env, *section.get("env", [])],
        # The chart's own comes first and holds DAGSTER_HOME, of the folder of its dagster.yaml.
        "envFrom": [
            {"configMapRef": {"name": "dagster-env"}},
            *({"configMapRef": source} for source in section.get("envConfigMaps", [])),
            *({"secretRef": source} for source in section.get("envSecrets", [])),
        ],
    }
    for name in ("resources", "securityContext", "volumeMounts", "livenessProbe"):
        if name in section:
            container[name] = section[name]
    for name in ("readinessProbe", "startupProbe"):
        probe = dict(section.get(name, {}))
        if probe.pop("enabled", name == "readinessProbe" and bool(probe)):
            container[name] = probe
    return container


def _deployment(
    name: str, section: Json, container: Json, account: str, volumes: list[Json]
) -> Json:
    labels = {"component": COMPONENTS.get(name, "user-deployments"), "deployment": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": section.get("replicaCount", 1),
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": account,
                    "securityContext": section["podSecurityContext"],
                    "initContainers": section.get("extraPrependedInitContainers", []),
                    "containers": [container],
                    "volumes": [*volumes, *section.get("volumes", [])],
                },
            },
        },
    }
