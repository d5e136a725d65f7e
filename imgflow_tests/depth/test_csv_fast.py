from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgflow.depth.readers.csv_careful import parse_rows
from imgflow.depth.readers.csv_fast import parse_fixed_point, parse_with_pandas, with_commas
from imgflow.depth.readers.csv_header import Header
from imgflow.errors import Rejected

with_holes = partial(parse_with_pandas, with_holes=True)
HEADER = Header(b",", ("depth", "a", "b"), 0, 1)
cells = st.one_of(
    st.integers(0, 999).map(str),
    st.sampled_from(
        [
            "1.5",
            "-2",
            "",
            "1e",
            "e1",
            ".",
            ".5",
            "5.",
            "nan",
            "inf",
            "0x1",
            "1_0",
            "+-1",
            '"3"',
            '"',
            '""',
            "1e400",
            "1e39",
            "00012",
            "1e-400",
            "\x00",
        ]
    ),
    st.sampled_from(
        [" ", "1 2", "1\t", "9" * 18, "1\v", "\f1", "1\x002", "True", "0.1234567890123456"]
    ),
    st.just("7"),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.lists(cells, min_size=2, max_size=4), min_size=1, max_size=5))
def test_what_a_fast_parser_takes_the_careful_one_takes_with_the_same_numbers(rows):
    block = ("\n".join(",".join(row) for row in rows) + "\n").encode()
    for parser in (parse_fixed_point, parse_with_pandas, with_holes):
        fast = parser(block, HEADER)
        if fast is None:
            continue
        try:
            depths, pixels, _ = parse_rows(block, HEADER, 1)
        except Rejected as error:
            pytest.fail(f"{parser} took what is rejected: {error}")
        np.testing.assert_array_equal(fast[0], depths)
        np.testing.assert_array_equal(fast[1], pixels)


@pytest.mark.parametrize("depth", ["9000.1", "-3", "1e3"])
@pytest.mark.parametrize("decimals", [0, 1, 3])
def test_plain_numbers_take_the_fastest_way(decimals, depth):
    values = np.arange(20_000).reshape(-1, 2) / 10**decimals
    rows = [f"{depth},{a:.{decimals}f},{b:.{decimals}f}" for a, b in values.tolist()]
    parsed = parse_fixed_point(("\n".join(rows) + "\n").encode(), HEADER)
    assert parsed is not None
    assert set(parsed[0]) == {float(depth)}
    np.testing.assert_array_equal(parsed[1], values.astype(np.float32))


def test_a_decimal_comma_becomes_a_point_beside_semicolons_only():
    assert with_commas(b"1,5;2\n", b";") == b"1.5,2\n"
    assert with_commas(b"1,5\t2\n", b"\t") == b"1;5,2\n"


@pytest.mark.parametrize("version", ["2.3.1", "3.0.0"])
@pytest.mark.parametrize("at", [0, 1])
def test_long_fractions_are_read_at_once_and_depths_are_exact(monkeypatch, version, at):
    import pandas

    rng = np.random.default_rng(5)
    values = rng.uniform(0, 1e4, (2_000, 2))
    texts = [[repr(value) for value in row] for row in values.tolist()]
    for row in texts:
        row.insert(at, repr(float(rng.uniform(0, 1e4))))
    monkeypatch.setattr(pandas, "__version__", version)
    header = Header(b",", ("a", "b", "c"), at, 1)
    parsed = parse_with_pandas(("\n".join(map(",".join, texts)) + "\n").encode(), header)
    assert parsed is not None
    assert parsed[0].tolist() == [float(row[at]) for row in texts]
    np.testing.assert_allclose(parsed[1], values.astype(np.float32), rtol=1.2e-7)
