"""The folder of test pictures that is not part of the repository."""

import csv
import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def corpus() -> Path:
    folder = Path(os.environ.get("IMGFLOW_TEST_CORPUS", REPOSITORY / "../shared/fixtures"))
    if not (folder / "PROVENANCE.csv").is_file():
        reason = f"no test pictures in {folder}; set IMGFLOW_TEST_CORPUS"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def provenance(corpus: Path) -> dict[str, dict[str, str]]:
    with (corpus / "PROVENANCE.csv").open(encoding="utf-8", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}
