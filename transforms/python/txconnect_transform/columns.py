"""Columns of the interface: one byte string, or nothing, for each record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable


@dataclass
class Column:
    """As the interface wants it."""

    data: bytes
    ends: list[int]
    nulls: bytes


@dataclass
class Headers:
    """The headers of all records, one record after the other."""

    counts: list[int]
    names: Column
    values: Column


@dataclass
class Routing:
    """Other topics for rows."""

    topics: list[str]
    topic_of: list[int]


@dataclass
class FailedRecord:
    """A record that could not be transformed."""

    record: int
    code: str
    message: str


@dataclass
class Output:
    """What became of a batch."""

    sources: list[int]
    keys: Column | None
    values: Column | None
    routing: Routing | None
    headers: Headers | None
    failures: list[FailedRecord]


def cells(column: Any) -> list[bytes | None]:
    """The byte strings of a column."""
    data, nulls = column.data, column.nulls
    start = 0
    result: list[bytes | None] = []
    for end in column.ends:
        result.append(data[start:end])
        start = end
    for place, is_null in enumerate(nulls):
        if is_null:
            result[place] = None
    return result


def column(cells: Iterable[bytes | None]) -> Column:
    """A column of byte strings."""
    parts: list[bytes] = []
    ends: list[int] = []
    nulls = bytearray()
    end = 0
    for cell in cells:
        if cell is None:
            nulls.extend(bytes(len(ends) - len(nulls)))
            nulls.append(1)
        else:
            parts.append(cell)
            end += len(cell)
        ends.append(end)
    if nulls:
        nulls.extend(bytes(len(ends) - len(nulls)))
    return Column(b"".join(parts), ends, bytes(nulls))
