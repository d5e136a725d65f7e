"""docs/aws.md and docs/kubernetes.md name what there is: parameters, outputs, files, secrets."""

from __future__ import annotations

import json
import re
from typing import Any

from cfnlint.decode.cfn_yaml import loads

from imgflow_tests.deploy.manifests import FOLDER, ROOT, documents, values
from imgflow_tests.deploy.stack import TEMPLATE
from imgflow_tests.deploy.test_kubernetes import SECRETS

AWS = (ROOT / "docs" / "aws.md").read_text()
KUBERNETES = (ROOT / "docs" / "kubernetes.md").read_text()


def template() -> Any:
    return loads(TEMPLATE.read_text())


def test_every_parameter_of_the_template_stands_in_the_table_with_its_default() -> None:
    parameters = template()["Parameters"]
    table = AWS.partition("| parameter |")[2].partition("\n\n")[0]
    shown: dict[str, str] = {}
    for row in table.splitlines()[2:]:
        names, defaults = (cell.strip() for cell in row.split("|")[1:3])
        several = [name.strip(" `") for name in names.split(",")]
        given = [value.strip(" `") for value in defaults.split(",")]
        shown |= dict(zip(several, given if len(given) > 1 else given * len(several), strict=True))
    assert shown == {name: str(one.get("Default", "")) for name, one in parameters.items()}


def test_the_commands_name_parameters_and_outputs_of_the_template() -> None:
    found = template()
    given = set(re.findall(r"\b([A-Z]\w+)=", AWS)) - {"Query"}
    assert given
    assert given <= found["Parameters"].keys()
    said = set(re.findall(r"`(\w+(?:Url|Arn))`", AWS)) - {"KmsKeyArn"}
    assert said <= found["Outputs"].keys()
    outputs = {one["Description"] for one in found["Outputs"].values()}
    assert {"IMGFLOW_SOURCE_URL", "IMGFLOW_OUTPUT_URL", "IMGFLOW_SQS_QUEUE_URL"} <= outputs


def test_a_bucket_that_exists_sends_the_events_that_the_template_sets() -> None:
    text = AWS.partition("--notification-configuration '")[2].partition("'")[0]
    (queue,) = json.loads(text)["QueueConfigurations"]
    properties = template()["Resources"]["UploadBucket"]["Properties"]
    made = properties["NotificationConfiguration"]["QueueConfigurations"]
    assert queue["Events"] == [one["Event"] for one in made]


def test_every_file_of_the_folder_is_explained_and_applied() -> None:
    files = {file.name for file in FOLDER.iterdir()}
    assert set(re.findall(r"^\| `([\w.]+)` \|", KUBERNETES, re.MULTILINE)) == files
    applied = set(re.findall(r"-f deploy/kubernetes/(\S+)", KUBERNETES))
    assert applied == files


def test_the_secrets_that_pods_refer_to_are_made() -> None:
    made: dict[str, tuple[str, ...]] = {}
    for command in KUBERNETES.split("kubectl create secret generic ")[1:]:
        own = re.sub(r"\\\n", "", command).splitlines()[0]
        made[own.split()[0]] = tuple(re.findall(r"--from-literal=([\w-]+)=", own))
    wanted = {values()["global"]["postgresqlSecretName"]: ("postgresql-password",)}
    assert made == {**SECRETS, **wanted}
    assert not [one for one in documents() if one["kind"] == "Secret"]
