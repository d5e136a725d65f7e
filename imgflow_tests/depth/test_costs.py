"""What the package costs: imports and memory, measured in processes of their own."""

import subprocess
import sys

import pytest

from imgflow.service.samples import sample_block
from imgflow_tests.patience import PATIENCE_SECONDS

PEAK = """
import re, sys
from pathlib import Path
from imgflow.depth.ordering import OutOfOrder, ResizedDepth
from imgflow.depth.depth_recipe import DepthRecipe

def blocks():
    with Path(sys.argv[1]).open("rb") as file:
        while data := file.read(2**20):
            yield data

image = ResizedDepth(blocks, "a.csv", DepthRecipe())
try:
    rows = sum(len(chunk.depths) for chunk in image)
except OutOfOrder:
    rows = sum(len(chunk.depths) for chunk in image)
# Not ru_maxrss: it starts with the peak of the process that started this one.
status = Path("/proc/self/status").read_text()
print(rows, image.facts.rows, int(re.search(r"VmHWM:\\s+([0-9]+) kB", status)[1]) // 1024)
"""


def peak_megabytes(path, rows):
    command = [sys.executable, "-c", PEAK, str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS
    )
    counted, in_facts, peak = map(int, done.stdout.split())
    assert counted == in_facts == rows
    return peak


def test_frames_and_colour_maps_import_neither_pandas_nor_scikit_image():
    code = (
        "import sys, imgflow.depth.frames, imgflow.depth.colormaps, imgflow.depth.preview, "
        "imgflow.depth.statistics, imgflow.depth.depth_recipe, imgflow.depth.ordering\n"
        "print(sorted({'pandas', 'skimage', 'scipy', 'matplotlib', 'dagster'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("late_disorder", [False, True])
def test_150_megabytes_are_read_in_less_than_300_megabytes_of_memory(tmp_path, late_disorder):
    bodies = [",".join(map(str, row)) for row in sample_block().tolist()]
    path, rows = tmp_path / "a.csv", 0
    with path.open("w", encoding="ascii") as file:
        file.write("depth," + ",".join(f"col{i}" for i in range(1, 201)) + "\n")
        while file.tell() < 150e6:
            for body in bodies:
                file.write(f"{9000.1 + rows * 0.1:.1f},{body}\n")
                rows += 1
        if late_disorder:
            file.write(f"1.5,{bodies[0]}\n")
            rows += 1
    assert peak_megabytes(path, rows) < 300


@pytest.mark.slow
@pytest.mark.parametrize("row", ["{},2\n", '{},"2"\n', "{},2.5e0\n", "{},1" + ",0" * 16_000 + "\n"])
def test_odd_shapes_stay_within_the_same_memory(tmp_path, row):
    path = tmp_path / "a.csv"
    columns = row.count(",")
    rows = 2_000_000 // columns
    with path.open("w", encoding="ascii") as file:
        file.write("depth," + ",".join(f"c{i}" for i in range(columns)) + "\n")
        file.writelines(row.format(number) for number in range(rows))
    assert peak_megabytes(path, rows) < 300
