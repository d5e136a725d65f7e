"""Byte streams before parsing: decompression, limits, line ends and blocks of complete lines.

Everything about columns and numbers is in the readers.
"""

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

from imgflow.depth.readers.rows import DepthLimits
from imgflow.errors import Rejected

GZIP_MAGIC = b"\x1f\x8b"
_INFLATE_STEP_BYTES = 2**20


def peek(stream: Iterable[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """Look at the first bytes of a stream without consuming them.

    Returns:
        The first `size` bytes, or all if the stream is shorter, and the stream from its start.
    """
    source = iter(stream)
    taken: list[bytes] = []
    length = 0
    for part in source:
        taken.append(bytes(part))
        length += len(part)
        if length >= size:
            break
    head = b"".join(taken)
    return head[:size], chain([head], source)


def decompressed(stream: Iterable[bytes]) -> Iterator[bytes]:
    """Pass a stream on, inflated if it starts with the gzip magic number.

    Each inflated part is at most 1 MiB, so a decompression bomb costs no memory.

    Raises:
        Rejected: `corrupt_gzip`, or `truncated` if the compressed data ends early.
    """
    head, source = peek(stream, len(GZIP_MAGIC))
    return _inflated(source) if head == GZIP_MAGIC else source


def _inflated(stream: Iterable[bytes]) -> Iterator[bytes]:
    inflater = zlib.decompressobj(wbits=31)
    between_members = False
    for part in stream:
        data = bytes(part)
        out_is_full = False
        while data or out_is_full:
            if between_members:
                # A gzip file may hold several members, and tape tools pad it with zeros.
                data = data.lstrip(b"\0")
                if not data:
                    break
                inflater, between_members = zlib.decompressobj(wbits=31), False
            try:
                out = inflater.decompress(data, _INFLATE_STEP_BYTES)
            except zlib.error as error:
                raise Rejected("corrupt_gzip", f"the gzip data is damaged: {error}") from error
            if out:
                yield out
            between_members = inflater.eof
            data = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            # The inflater may still hold output after taking all input.
            out_is_full = len(out) == _INFLATE_STEP_BYTES and not inflater.eof
    if not between_members:
        raise Rejected("truncated", "the gzip data ends before its end mark")


def line_blocks(stream: Iterable[bytes], limits: DepthLimits) -> Iterator[bytes]:
    r"""Cut a stream into blocks of complete lines, with `\n` for all line ends.

    Only the last block may lack a final `\n`, if the file does.

    Raises:
        Rejected: `too_many_bytes`, or `line_too_long` if a line does not fit into a block.
    """
    held: list[bytes] = []
    size = 0
    for part in _unified_line_ends(_limited(stream, limits)):
        for start in range(0, len(part), limits.block_bytes):
            piece = part[start : start + limits.block_bytes]
            size += len(piece)
            if size < limits.block_bytes:
                held.append(piece)
                continue
            end = piece.rfind(b"\n") + 1
            if not end:  # its line started in an earlier piece
                piece = b"".join([*held, piece])
                held.clear()
                end = piece.rfind(b"\n") + 1
            if not end:
                raise Rejected(
                    "line_too_long",
                    f"a line is longer than {limits.block_bytes} bytes: this is not a table",
                )
            # Joined with a view, so that megabytes are copied only once.
            yield b"".join([*held, memoryview(piece)[:end]])
            held = [piece[end:]]
            size = len(held[0])
    rest = b"".join(held)
    if rest:
        yield rest


def _limited(stream: Iterable[bytes], limits: DepthLimits) -> Iterator[bytes]:
    total = 0
    for part in stream:
        total += len(part)
        limits.check_bytes(total)
        yield part


def _unified_line_ends(stream: Iterable[bytes]) -> Iterator[bytes]:
    held = b""
    for part in stream:
        data = held + part if held else part
        held = b""
        if b"\r" in data:
            if data.endswith(b"\r"):  # its `\n` may be in the next part
                data, held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield data
    if held:
        yield b"\n"
