"""Which pods may connect to which, by the policies of `deploy/kubernetes`."""

from __future__ import annotations

from typing import Any

import pytest

from imgflow_tests.deploy.manifests import Pod, documents, pods, values

Json = dict[str, Any]

STRANGER = {"app": "of-somebody-else"}
POLICIES = [one["spec"] for one in documents() if one["kind"] == "NetworkPolicy"]
OURS = {pod.name: pod for pod in pods()}


def labels(pod: Pod) -> dict[str, str]:
    return dict(pod.manifest["spec"]["template"]["metadata"]["labels"])


def selects(selector: Json, found: dict[str, str]) -> bool:
    """As Kubernetes does, for what our selectors use."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    for one in selector.get("matchExpressions", []):
        assert one["operator"] == "In"
        if found.get(one["key"]) not in one["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= found.items()


def may_connect(who: dict[str, str], pod: Pod, port: int) -> bool:
    """Whether policies let a pod of the same namespace in; a pod that none selects is open."""
    about = [policy for policy in POLICIES if selects(policy["podSelector"], labels(pod))]
    assert all(policy["policyTypes"] == ["Ingress"] for policy in about)
    if not about:
        return True
    named = {one["name"]: one["containerPort"] for one in pod.container.get("ports", [])}
    return any(
        any(named.get(one["port"], one["port"]) == port for one in rule["ports"])
        and any(
            selects(peer["podSelector"], who) for peer in rule.get("from", [{"podSelector": {}}])
        )
        for policy in about
        for rule in policy.get("ingress", [])
    )


@pytest.mark.parametrize("name", OURS)
def test_a_strange_pod_reaches_the_api_by_its_port_and_nothing_else(name: str) -> None:
    reached = {port for port in (80, 3000, 4000, 8000) if may_connect(STRANGER, OURS[name], port)}
    assert reached == ({8000} if name == "imgflow-api" else set())


def test_a_worker_which_decodes_what_strangers_upload_reaches_no_part_of_dagster() -> None:
    for worker in (pod for name, pod in OURS.items() if "worker" in name):
        for name in ("webserver", "daemon", "imgflow"):
            assert not [
                port for port in (3000, 4000) if may_connect(labels(worker), OURS[name], port)
            ]


def test_webserver_and_daemon_reach_the_code_server() -> None:
    (code,) = values()["dagster-user-deployments"]["deployments"]
    for name in ("webserver", "daemon"):
        assert may_connect(labels(OURS[name]), OURS[code["name"]], code["port"])


def test_without_policies_all_would_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that this reader of policies is one."""
    monkeypatch.setitem(globals(), "POLICIES", [])
    assert may_connect(STRANGER, OURS["webserver"], 3000)
