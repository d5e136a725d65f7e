import io

import numpy as np

from imgflow.service.samples import write_sample_depth_csv
from imgflow_tests.depth.tables import whole


def written(seed):
    file = io.BytesIO()
    write_sample_depth_csv(file, seed)
    return file.getvalue()


def test_the_sample_has_the_shape_of_the_well_known_depth_image(tmp_path):
    data = written(1)
    lines = data.decode().split("\n")
    assert lines[0] == "depth," + ",".join(f"col{i}" for i in range(1, 201))
    assert lines[-1] == ""
    assert lines[-2] == "," * 200
    assert len(lines) == 1 + 5_461 + 1
    assert lines[1].startswith("9000.1,224,")
    assert lines[-3].startswith("9546.0,")
    write_sample_depth_csv(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == data


def test_the_sample_repeats_one_block_four_times_in_whole_numbers():
    depths, pixels = whole(written(1), part=10**6)
    assert pixels.shape == (5_460, 200)
    assert depths.tolist() == [float(f"{9000.1 + i * 0.1:.1f}") for i in range(5_460)]
    assert (pixels.min(), pixels.max()) == (13, 237)
    assert (pixels == np.rint(pixels)).all()
    assert (pixels[:96] == 224).all()
    for block in range(1, 4):
        np.testing.assert_array_equal(pixels[block * 1_365 : (block + 1) * 1_365], pixels[:1_365])
    assert pixels[96:1_365].std() > 20


def test_a_seed_gives_its_own_sample_every_time():
    assert written(2) == written(2)
    assert written(2) != written(3)
