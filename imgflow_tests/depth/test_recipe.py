from dataclasses import replace

import pytest

from imgflow.depth import depth_recipe as module
from imgflow.depth.depth_recipe import DepthRecipe


@pytest.mark.parametrize(
    ("change", "resized_changes"),
    [
        ({"width": 151}, True),
        ({"order": 3}, True),
        ({"anti_aliasing": False}, True),
        ({"colormap": "viridis"}, False),
        ({"preview_size": (512, 1000)}, False),
    ],
)
def test_a_fingerprint_follows_exactly_what_its_output_depends_on(change, resized_changes):
    plain, other = DepthRecipe(), replace(DepthRecipe(), **change)
    assert (plain.fingerprint("resized") != other.fingerprint("resized")) is resized_changes
    assert plain.fingerprint("preview") != other.fingerprint("preview")


def test_fingerprints_are_stable_short_and_differ_between_outputs():
    assert DepthRecipe().fingerprint("resized") == DepthRecipe().fingerprint("resized")
    assert len({DepthRecipe().fingerprint(output) for output in ("resized", "preview")}) == 2
    for output in ("resized", "preview"):
        text = DepthRecipe().fingerprint(output)
        assert len(text) == 16
        int(text, 16)


def test_new_code_versions_make_stored_outputs_stale(monkeypatch):
    before = {output: DepthRecipe().fingerprint(output) for output in ("resized", "preview")}
    monkeypatch.setattr(module, "PREVIEW_VERSION", 99)
    assert DepthRecipe().fingerprint("resized") == before["resized"]
    assert DepthRecipe().fingerprint("preview") != before["preview"]
    monkeypatch.setattr(module, "RESIZED_VERSION", 99)
    assert DepthRecipe().fingerprint("resized") != before["resized"]


@pytest.mark.parametrize("wrong", [{"width": 0}, {"order": 6}, {"preview_size": (0, 5)}])
def test_a_recipe_that_cannot_work_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        DepthRecipe(**wrong)
