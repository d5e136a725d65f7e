"""Where the shared test files are."""

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"


def corpus_file(name: str) -> Path:
    """A file of the corpus; without a corpus the test is skipped, in CI it fails."""
    path = Path(os.environ.get("IMGFLOW_TEST_CORPUS") or _DEFAULT) / "depth" / name
    if path.exists():
        return path
    if os.environ.get("CI"):
        pytest.fail(f"the test corpus has no {path}")
    pytest.skip(f"the test corpus has no {path}")
