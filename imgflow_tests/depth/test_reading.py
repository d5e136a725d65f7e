import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgflow.depth.readers.reading import read_depth_rows
from imgflow.depth.readers.rows import DepthLimits
from imgflow.errors import Rejected, Trouble
from imgflow_tests.depth.corpus import corpus_file
from imgflow_tests.depth.tables import oracle, table_text, whole

SMALL_BLOCKS = DepthLimits(block_bytes=512)
PIXELS = np.arange(60, dtype=np.uint8).reshape(12, 5)
DEPTHS = [f"{9000.1 + i * 0.1:.1f}" for i in range(12)]
PLAIN = table_text(DEPTHS, PIXELS)

READABLE = {
    "depth-small.csv": (40, 200),
    "depth-small-empty-last-row.csv": (40, 200),
    "depth-small-float.csv": (40, 200),
    "depth-small-crlf-bom.csv": (40, 200),
    "depth-small-no-final-newline.csv": (40, 200),
    "depth-last-column-float.csv": (40, 200),
    "depth-shuffled.csv": (40, 200),
    "depth-duplicate.csv": (41, 200),
    "depth-duplicate-conflict.csv": (41, 200),
    "depth-gap.csv": (30, 200),
    "bad-199-columns.csv": (40, 199),
    "bad-nan-cell.csv": (40, 200),
    "bad-semicolons.csv": (40, 200),
    "bad-pixel-256.csv": (40, 200),
    "bad-pixel-fraction.csv": (40, 200),
    "bad-pixel-negative.csv": (40, 200),
}
REJECTED = {
    "bad-depth-empty.csv": ("empty_depth", "line 11, column 'depth'"),
    "bad-depth-text.csv": ("not_a_number", "line 11, column 'depth': 'deep'"),
    "bad-duplicate-header.csv": ("duplicate_columns", "'col199'"),
    "bad-empty.csv": ("empty_file", "empty"),
    "bad-header-only.csv": ("no_rows", "no row"),
    "bad-inf-cell.csv": ("infinite_value", "line 11, column 'col57'"),
    "bad-no-depth-column.csv": ("no_depth_column", "'col1'"),
    "bad-no-header.csv": ("no_header", "line 1"),
    "bad-nul-bytes.csv": ("nul_bytes", "line 11"),
    "bad-only-empty-rows.csv": ("no_rows", "no row"),
    "bad-quoted-newline.csv": ("quoted_newline", "line 11"),
    "bad-ragged-long.csv": ("ragged_row", "line 11 has 203 cells"),
    "bad-ragged-short.csv": ("ragged_row", "line 11 has 198 cells"),
    "bad-text-cell.csv": ("not_a_number", "line 11, column 'col57': 'n/a'"),
    "bad-truncated-mid-row.csv": ("truncated", "line 41"),
    "bad-utf16.csv": ("not_utf8", "UTF-16"),
}


def outcome_of(data: bytes, part: int, limits: DepthLimits | None = None):
    """Rows, or the rejection; any other exception fails the test."""
    try:
        return whole(data, part=part, limits=limits)
    except Rejected as error:
        return error


def rejection(data: bytes, limits: DepthLimits | None = None, name: str = "a.csv") -> Rejected:
    with pytest.raises(Rejected) as caught:
        whole(data, limits=limits, name=name)
    return caught.value


@pytest.mark.parametrize(("name", "shape"), READABLE.items())
def test_a_readable_file_of_the_corpus_gives_the_numbers_that_stand_in_it(name, shape):
    data = corpus_file(name).read_bytes()
    depths, pixels = whole(data)
    text = data.replace(b";", b",")
    expected_depths, expected_pixels = oracle(text)
    assert pixels.shape == shape
    assert pixels.dtype == np.float32
    assert depths.dtype == np.float64
    np.testing.assert_array_equal(depths, expected_depths)
    np.testing.assert_array_equal(pixels, expected_pixels)


@pytest.mark.parametrize(("name", "outcome"), REJECTED.items())
@pytest.mark.parametrize("block_bytes", [4_000, 4 * 2**20])
def test_a_bad_file_of_the_corpus_is_rejected_with_its_code_and_place(name, outcome, block_bytes):
    data = corpus_file(name).read_bytes()
    error = rejection(data, DepthLimits(block_bytes=block_bytes))
    code, words = outcome
    assert error.code == code
    assert words in error.reason


def test_every_file_of_the_corpus_has_a_named_outcome():
    folder = corpus_file("depth-small.csv").parent
    assert {path.name for path in folder.glob("*.csv")} == READABLE.keys() | REJECTED.keys()


def test_integer_and_float_spellings_of_the_same_pixels_give_the_same_array():
    spellings = [str, lambda v: f"{v}.0", lambda v: f"{v:.3e}", lambda v: f'" {v}"']
    arrays = [whole(table_text(DEPTHS, PIXELS, spell=spell))[1] for spell in spellings]
    for array in arrays:
        np.testing.assert_array_equal(array, PIXELS.astype(np.float32))


@pytest.mark.parametrize("pixel", ["7", "7.5", "-7", "7e0", '"7"'])
@pytest.mark.parametrize("text", ["9000.1", "0.1", "123456789.123456789", "-0.3", "1e22", "17"])
def test_depths_are_correctly_rounded_whatever_way_the_pixels_are_read(text, pixel):
    depths, _ = whole(f"depth,a\n{text},{pixel}\n".encode())
    assert depths[0] == float(text)


def test_ten_thousand_depths_are_those_of_python():
    texts = [f"{9000.1 + i * 0.1:.1f}" for i in range(10_000)]
    depths, _ = whole(table_text(texts, np.ones((10_000, 2), dtype=np.uint8)))
    assert depths.tolist() == [float(text) for text in texts]


@pytest.mark.parametrize("part", [1, 7, 512, 10**6])
@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        PLAIN[:-1],
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.replace(b"\n", b"\r"),
        b"\xef\xbb\xbf" + PLAIN,
        b"\n \n" + PLAIN,
        PLAIN.replace(b",", b";"),
        PLAIN.replace(b",", b"\t"),
        PLAIN.replace(b".", b"_").replace(b",", b";").replace(b"_", b","),
        PLAIN.replace(b"depth", b'" DePtH "'),
        PLAIN.replace(b"\n", b"\n,,,,,\n"),
        PLAIN.replace(b"\n", b"\n\n"),
        PLAIN.replace(b"\n", b'\n"", ,,,,\n'),
        PLAIN + b",,,,,",
        gzip.compress(PLAIN),
        gzip.compress(PLAIN[:100]) + gzip.compress(PLAIN[100:]) + bytes(512),
    ],
)
def test_variants_of_one_table_give_the_same_rows_however_the_stream_is_cut(data, part):
    depths, pixels = whole(data, part=part, limits=SMALL_BLOCKS)
    assert depths.tolist() == [float(text) for text in DEPTHS]
    np.testing.assert_array_equal(pixels, PIXELS)


@pytest.mark.parametrize("pixel", ["1", "1.5", '"1"'])
def test_the_depth_column_may_stand_anywhere(pixel):
    depths, pixels = whole(f"a,Depth,b\n{pixel},9000.1,3\n4,9000.2,6\n".encode())
    assert depths.tolist() == [9000.1, 9000.2]
    assert pixels.tolist() == [[float(pixel.strip('"')), 3], [4, 6]]


def test_empty_rows_are_counted_and_do_not_shift_line_numbers():
    data = b"depth,a,b\n1,2,3\n,,\n\n2,3,4\n3,x,5\n"
    assert "line 6, column 'a': 'x'" in rejection(data).reason
    batches = list(read_depth_rows([data.replace(b"x", b"4")], "a.csv"))
    assert sum(batch.empty_rows for batch in batches) == 2
    assert sum(len(batch) for batch in batches) == 3


def test_line_numbers_hold_in_later_blocks_and_batches_say_where_they_begin():
    rows = [f"{i},{i % 7},5" for i in range(500)]
    rows[321] = "321,1,oops"
    data = ("\n".join(["depth,a,b", *rows]) + "\n").encode()
    assert "line 323, column 'b'" in rejection(data, SMALL_BLOCKS).reason
    batches = list(read_depth_rows([data.replace(b"oops", b"5")], "a.csv", SMALL_BLOCKS))
    assert len(batches) > 5
    assert "line 325," in rejection(data.replace(b"\n7,", b"\n,,\n\n7,"), SMALL_BLOCKS).reason
    for batch in batches:
        assert batch.first_line == int(batch.depths[0]) + 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (b"\n\r\n  \n", "empty_file"),
        (b"depth\n1\n", "no_pixel_columns"),
        (b"depth,a,\n1,2,3\n", "unnamed_column"),
        (b"depth,a,DEPTH\n1,2,3\n", "duplicate_columns"),
        (b"1,2,3\n4,5,6\n", "no_header"),
        (b"tiefe,a\n1,2\n", "no_depth_column"),
        (b'depth,"a\nb"\n1,2\n', "quoted_newline"),
        (b"depth,\xff\n1,2\n", "not_utf8"),
        (b"de\0pth,a\n1,2\n", "nul_bytes"),
        (b"depth,a\n1,2\n2,\0\n", "nul_bytes"),
        (b"depth,a\n", "no_rows"),
        (b"depth,a,b\n1,2,3\n4,5", "truncated"),
        (b"depth,a,b\n1,2,3\n4,5\n", "ragged_row"),
        (b"depth,a,b\n1 2,3\n", "ragged_row"),
        (b"depth,a,b\n1,2,3,4\n5,6\n", "ragged_row"),
        (b"depth,a,b\n1,2,3\n4 5,6\n7,8,9\n", "ragged_row"),
        (b"depth,a\nNaN,1\n", "empty_depth"),
        (b"depth,a\n,1\n", "empty_depth"),
        (b"depth,a\n1,1e39\n", "infinite_value"),
        (b"depth,a\n1e999,1\n", "infinite_value"),
        (b"depth,a\n-inf,1\n", "infinite_value"),
        (b"depth,a\n1,1_0\n", "not_a_number"),
        (b"depth,a\n1,0x10\n", "not_a_number"),
        (b"depth,a\n1,1e\n", "not_a_number"),
        (b"depth,a\n1,.\n", "not_a_number"),
        (b"depth,a\n1,--1\n", "not_a_number"),
        (b"depth,a\n1,1.2.3\n", "not_a_number"),
        (b"depth,a\n1.2.3,1\n", "not_a_number"),
        (b"depth,a\n1,\xef\xbc\x91\n", "not_a_number"),
        (b'depth,a\n1,"1,5"\n', "not_a_number"),
        (b"depth\ta\n1\t1,5\n", "not_a_number"),
        (b"depth;a\n1;1,000,5\n", "not_a_number"),
        (b'depth,a\n1,1"2"\n', "not_a_number"),
        (b"depth,a\n1,True\n2,False\n", "not_a_number"),
        (b"depth,a\n1,2020-01-01\n", "not_a_number"),
        (gzip.compress(PLAIN)[:-12], "truncated"),
        (gzip.compress(PLAIN)[:40] + b"junk" * 40, "corrupt_gzip"),
        (b"\x1f\x8bnot gzip", "corrupt_gzip"),
        (b"\x1f\x8b", "truncated"),
    ],
)
@pytest.mark.parametrize("part", [1, 10**6])
def test_what_is_wrong_is_named_by_its_code(data, code, part):
    outcome = outcome_of(data, part)
    assert isinstance(outcome, Rejected)
    assert outcome.code == code


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (DepthLimits(max_bytes=100), "too_many_bytes"),
        (DepthLimits(max_rows=11), "too_many_rows"),
        (DepthLimits(max_columns=5), "too_many_columns"),
        (DepthLimits(block_bytes=10), "line_too_long"),
    ],
)
def test_a_file_past_a_limit_is_rejected_and_one_at_the_limit_is_read(limits, code):
    assert rejection(PLAIN, limits).code == code
    at_limit = DepthLimits(max_bytes=len(PLAIN), max_rows=12, max_columns=6, block_bytes=64)
    assert len(whole(PLAIN, limits=at_limit)[0]) == 12


def test_a_gzip_bomb_is_stopped_at_the_limit_of_the_text():
    bomb = gzip.compress(b"depth,a\n" + b"1,2\n" * 5_000_000)
    assert len(bomb) < 100_000
    assert rejection(bomb, DepthLimits(max_bytes=10**6)).code == "too_many_bytes"


def test_trouble_of_the_stream_itself_passes_through():
    def broken():
        yield PLAIN[:100]
        raise Trouble("connection lost")

    with pytest.raises(Trouble, match="connection lost"):
        list(read_depth_rows(broken(), "a.csv"))


def test_a_file_of_a_suffix_that_no_reader_has_is_rejected():
    error = rejection(PLAIN, name="a.raw")
    assert error.code == "unknown_depth_format"
    assert ".csv" in error.reason


numbers = st.one_of(
    st.integers(0, 255).map(str),
    st.integers(-(10**17), 10**17).map(str),
    st.floats(-1e30, 1e30, allow_nan=False).map(repr),
    st.decimals(-1000, 1000, places=3).map(str),
    st.floats(0, 1).map("{:.18e}".format),
)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 6).flatmap(
        lambda columns: st.lists(
            st.lists(numbers, min_size=columns + 1, max_size=columns + 1), min_size=1, max_size=12
        )
    ),
    st.sampled_from([64, 200, 10_000]),
)
def test_any_table_of_numbers_reads_as_the_standard_library_reads_it(rows, block):
    header = ",".join(["depth", *(f"c{i}" for i in range(1, len(rows[0])))])
    data = ("\n".join([header, *(",".join(row) for row in rows)]) + "\n").encode()
    longest = max(map(len, data.splitlines(keepends=True)))
    depths, pixels = whole(data, limits=DepthLimits(block_bytes=max(block, longest)))
    expected_depths, expected_pixels = oracle(data)
    np.testing.assert_array_equal(depths, expected_depths)
    # Before 3.0 pandas could be one float64 rounding off, which float32 hides but for ties.
    np.testing.assert_allclose(pixels, expected_pixels, rtol=1.2e-7)


junk = st.text(alphabet='0123456789.,;\t\n\r"eE+- naif_\0\ufeffé', max_size=12).map(str.encode)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(PLAIN)), junk, st.integers(0, 6)), max_size=4))
def test_a_damaged_file_is_read_or_rejected_and_never_anything_else(damages):
    data = PLAIN
    for at, text, removed in damages:
        data = data[:at] + text + data[at + removed :]
    outcome = outcome_of(data, 50, SMALL_BLOCKS)
    if isinstance(outcome, Rejected):
        assert outcome.code
        assert outcome.reason
    else:
        depths, pixels = outcome
        assert len(depths) == len(pixels) > 0
        assert np.isfinite(depths).all()
        assert not np.isinf(pixels).any()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"depth,a\n", b"\x1f\x8b\x08", b"depth;b\n"]))
def test_any_bytes_at_all_are_read_or_rejected(tail, head):
    assert outcome_of(head + tail, 1000) is not None
