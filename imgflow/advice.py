"""What a person can do about an image that was rejected or is waiting: one sentence per code.

Run failures, notifications, `imgflow show`, the API and the gallery all show the same sentence. The
reason beside it says what was found, with the numbers; it comes from the code that raised the error
(`imgflow.errors`).
"""

from __future__ import annotations

ANOTHER_FILE = "Upload another file under this key, or delete it."
WHOLE_FILE = "Upload the whole file again; a transfer was probably cut off."
EXPORT_AGAIN = "Export the table again as CSV in UTF-8, with a header, and upload it."
FIX_LINE = "Fix that line, and upload the file again."
SMALLER_TABLE = "Split the table into smaller ones, and upload these."

ADVICE = {
    # Photographs.
    "empty": WHOLE_FILE,
    "truncated": WHOLE_FILE,
    "corrupt": WHOLE_FILE,
    "not_an_image": "Upload a picture under this key, or delete what is no picture.",
    "unsupported_format": "Convert it to JPEG, PNG, TIFF or WebP and upload that; where its format "
    "was switched off, add it to IMGFLOW_FORMATS.",
    "too_many_bytes": "Upload a smaller file; of a photograph IMGFLOW_MAX_BYTES is the limit, and "
    "a compressed table may be uploaded uncompressed.",
    "too_many_pixels": "Upload fewer pixels; of a photograph IMGFLOW_MAX_PIXELS is the limit.",
    "too_long_side": "Upload a smaller picture, or raise IMGFLOW_MAX_SIDE.",
    "too_many_frames": "Upload fewer frames or pages, or raise IMGFLOW_MAX_FRAMES.",
    "too_many_scans": "Save it as an ordinary JPEG in an image editor, and upload that.",
    "too_large": "Upload a smaller one, or raise IMGFLOW_WORKER_MEMORY where there is more memory.",
    "too_slow": "Upload a smaller one, or raise IMGFLOW_DECODE_SECONDS (photographs) or "
    "IMGFLOW_DEPTH_SECONDS (depth images).",
    "crashed": "Open it in an image editor, save it anew and upload that; the file may be hostile.",
    "failed": "Save it again in another program and upload that. The log of its run has the "
    "trace; please report it.",
    # Depth images.
    "empty_file": WHOLE_FILE,
    "corrupt_gzip": WHOLE_FILE,
    "corrupt_npy": WHOLE_FILE,
    "corrupt_depth_map": WHOLE_FILE,
    "not_utf8": EXPORT_AGAIN,
    "nul_bytes": EXPORT_AGAIN,
    "no_header": EXPORT_AGAIN,
    "quoted_newline": FIX_LINE,
    "ragged_row": FIX_LINE,
    "not_a_number": FIX_LINE,
    "infinite_value": FIX_LINE,
    "empty_depth": FIX_LINE,
    "line_too_long": EXPORT_AGAIN,
    "no_depth_column": "Name the column of depths `depth`, and upload the file again.",
    "unnamed_column": "Name every column, and upload the file again.",
    "duplicate_columns": "Give every column a name of its own, and upload the file again.",
    "no_pixel_columns": "Add the columns of pixels beside `depth`, and upload the file again.",
    "no_pixels": "Upload a file in which pixels have values.",
    "no_rows": "Upload a file with rows below its header.",
    "too_many_rows": "Split the table into smaller ones, or raise IMGFLOW_DEPTH_MAX_ROWS; a "
    "compressed one may be uploaded uncompressed.",
    "too_many_columns": SMALLER_TABLE,
    "not_a_table": "Store a two-dimensional array: the depth first in each row, then its pixels.",
    "not_a_depth_map": "Upload a picture in the format that the name's ending says.",
    "not_one_channel": "Export the depth map with one grey channel, and upload that.",
    "bad_depth_scale": "Write numbers into `depth_first` and `depth_step`, and upload it again.",
    "unknown_depth_format": "Give it the ending of a known format, and upload it under that key.",
    # Blocked by the store.
    "archived": "Restore the object, then materialise it again.",
    "encrypted": "Upload it without a key of your own (SSE-C).",
    # Waiting; retried automatically.
    "trouble": "It is tried again by itself; `imgflow doctor` says whether store and database "
    "answer.",
    "unreadable": "Allow imgflow to read the object; it is tried again by itself.",
    "changing": "Let what writes the file come to an end, or look at why the store shows another "
    "one each time; it is tried again by itself, ever more rarely.",
    "output_failed": "Fix the package of that output, or its service; it is tried again by itself.",
}


# The reasons of these codes already name the command or permission for this very object.
SAID_IN_REASON = {"archived", "encrypted", "unreadable"}


def advice(code: str | None) -> str:
    """Return what to do about an image with this code.

    Readers and outputs from other packages have their own codes, which get a general answer.
    """
    return ADVICE.get(code or "", ANOTHER_FILE)


def with_advice(reason: str, code: str | None) -> str:
    """Return a reason followed by the advice, as sentences."""
    if code in SAID_IN_REASON:
        return reason
    return f"{reason.rstrip('. ')}. {advice(code)}"
