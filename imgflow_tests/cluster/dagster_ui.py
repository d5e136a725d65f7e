"""What a person does in the Dagster UI, by the requests that it makes."""

from __future__ import annotations

from typing import Any

import httpx

LAUNCH = """
mutation($parameters: ExecutionParams!) {
  launchPipelineExecution(executionParams: $parameters) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
TERMINATE = """
mutation($run: String!) { terminateRun(runId: $run) {
  __typename
  ... on TerminateRunFailure { message }
  ... on PythonError { message }
} }
"""
LOCATIONS = """
{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }
"""


PUBLISHED = "127.0.0.1:3000"
"""Where people reach it: the port that the compose file opens, on loopback."""


class DagsterUi:
    """The webserver of a cluster."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = httpx.post(
            f"{self._url}/graphql",
            json={"query": query, "variables": variables},
            headers={"Host": PUBLISHED},
            timeout=60,
        )
        answer.raise_for_status()
        found = answer.json()
        assert "errors" not in found, found
        data: dict[str, Any] = found["data"]
        return data

    def locations(self) -> dict[str, str]:
        """Code locations and whether they are loaded."""
        entries = self.ask(LOCATIONS)["workspaceOrError"]["locationEntries"]
        return {entry["name"]: entry["loadStatus"] for entry in entries}

    def materialize(self, partition: str, *assets: str) -> str:
        """Materialise assets of one partition from their page; returns the id of the run."""
        selector = {
            "repositoryLocationName": "imgflow",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": asset.split("/")} for asset in assets],
        }
        tags = [{"key": "dagster/partition", "value": partition}]
        parameters = {"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}}
        found = self.ask(LAUNCH, parameters=parameters)["launchPipelineExecution"]
        assert found["__typename"] == "LaunchRunSuccess", found
        run_id: str = found["run"]["runId"]
        return run_id

    def terminate(self, run_id: str) -> None:
        """Press Terminate."""
        found = self.ask(TERMINATE, run=run_id)["terminateRun"]
        assert found["__typename"] == "TerminateRunSuccess", found
