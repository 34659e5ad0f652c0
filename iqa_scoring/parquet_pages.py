"""Read the sizes of the pages of a Parquet file from their headers, without unpacking them.

A page is the unit that a Parquet reader unpacks at once. Its unpacked size is in its own header, in Thrift's
compact protocol (apache/parquet-format, PageHeader), and not in the footer.
"""
from collections.abc import Iterator
from typing import BinaryIO

SIMPLE = {1: 0, 2: 0, 3: 1, 7: 8}    # types of one size in bytes: true, false, byte, double
NUMBERS, BINARY, STRUCT = (4, 5, 6), 8, 12
UNPACKED, PACKED = 2, 3              # fields of a page's header
DEEPEST = 8                          # levels of nested structs


def page_sizes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the sizes of each page in start..end of a file, unpacked and packed; ValueError if a header is damaged."""
    while start < end:
        file.seek(start)
        fields = _struct(file)
        if not min(fields.get(UNPACKED, -1), fields.get(PACKED, -1)) >= 0:
            raise ValueError(f'no header of a page at byte {start}')
        yield fields[UNPACKED], fields[PACKED]
        start = file.tell() + fields[PACKED]


def chunk_range(chunk) -> tuple[int, int]:
    """Return the first byte and the end of the pages of a column chunk (pyarrow's ColumnChunkMetaData) in the file."""
    first = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < first:
        first = chunk.dictionary_page_offset
    return first, first + chunk.total_compressed_size


def _struct(file: BinaryIO, depth: int = 0) -> dict[int, int]:
    """Read a struct; return its numbers by field, and skip all other values."""
    fields, field = {}, 0
    if depth == DEEPEST:
        raise ValueError('a header of a page that is nested too deeply')
    while head := _byte(file):
        delta, kind = head >> 4, head & 15
        field = field + delta if delta else _number(file)
        value = _value(file, kind, depth)
        if value is not None:
            fields[field] = value
    return fields


def _value(file: BinaryIO, kind: int, depth: int) -> int | None:
    """Return a number, or skip a value of another type."""
    if kind in NUMBERS:
        return _number(file)
    if kind in SIMPLE:
        file.seek(SIMPLE[kind], 1)
    elif kind == BINARY:
        file.seek(_unsigned(file), 1)
    elif kind == STRUCT:
        _struct(file, depth + 1)
    else:
        raise ValueError(f'type {kind} in the header of a page')
    return None


def _number(file: BinaryIO) -> int:
    """Read a signed number, of which the lowest bit is the sign."""
    value = _unsigned(file)
    return value >> 1 ^ -(value & 1)


def _unsigned(file: BinaryIO) -> int:
    """Read a number, 7 bits in each byte, the lowest first."""
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(file)
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise ValueError('a number of more than 64 bits in the header of a page')


def _byte(file: BinaryIO) -> int:
    found = file.read(1)
    if not found:
        raise ValueError('cut off in the header of a page')
    return found[0]
