"""A record as a transform sees it, and as it returns it."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import exact_json

_KEEP: Any = object()


class Header(NamedTuple):
    """A header of a record. A new one may have a text, which is written as UTF-8."""

    name: str
    value: bytes | str | None


class Record:
    """A record. It is changed and returned, or copied with `copy`.

    `value` is parsed when it is first asked for; numbers with a point or an exponent are `Decimal`, so that no digit is
    lost. What a transform's `needs` do not name is empty: `key` is None, `headers` an empty list, the positions -1.
    """

    __slots__ = ("topic", "key", "headers", "partition", "offset", "timestamp", "_value", "_bytes", "_original", "_cell")

    topic: str
    key: bytes | str | None
    headers: list[Header]
    partition: int
    offset: int
    #: Milliseconds since 1970; -1 where the broker gave none.
    timestamp: int

    def __init__(
        self,
        value: Any = _KEEP,
        *,
        topic: str = "",
        key: bytes | str | None = None,
        headers: list[Header] | None = None,
        partition: int = -1,
        offset: int = -1,
        timestamp: int = -1,
        bytes: bytes | None = None,
    ) -> None:
        self.topic = topic
        self.key = key
        self.headers = [] if headers is None else headers
        self.partition = partition
        self.offset = offset
        self.timestamp = timestamp
        self._value = value
        self._bytes = bytes
        self._original: Any = _KEEP

    @classmethod
    def _read(cls, topic: str, data: bytes | None) -> Record:
        record = cls(topic=topic, bytes=data)
        record._original = data
        return record

    @property
    def value(self) -> Any:
        """The value, read as JSON; None is a tombstone, or JSON's null."""
        if self._value is not _KEEP:
            return self._value
        value = None if self._bytes is None else exact_json.read(self._bytes.decode())
        # JSON's null that was only looked at does not become a tombstone.
        if value is not None:
            self._value = value
        return value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = value

    @property
    def bytes(self) -> bytes | None:
        """The value as it came, or as it has been set, for what is not JSON."""
        if self._value is _KEEP:
            return self._bytes
        return None if self._value is None else exact_json.write(self._value)

    @bytes.setter
    def bytes(self, data: bytes | None) -> None:
        if data is not None and not isinstance(data, (bytes, bytearray)):
            raise TypeError("`bytes` of a record is bytes or None")
        self._bytes = data
        self._value = _KEEP

    def copy(self, **changes: Any) -> Record:
        """Another record, equal but for `changes`, such as `record.copy(value={...}, topic="refunds")`."""
        other = Record.__new__(type(self))
        for name in ("topic", "key", "headers", "partition", "offset", "timestamp", "_value", "_bytes", "_original"):
            setattr(other, name, getattr(self, name))
        other.headers = list(self.headers)
        for name, change in changes.items():
            if name.startswith("_"):
                raise TypeError(f"a record has no `{name}`")
            setattr(other, name, change)
        return other

    def _written(self) -> bytes | None:
        """The value of a row; `_KEEP` where it is as it came."""
        if self._value is _KEEP:
            return _KEEP if self._bytes is self._original else self._bytes
        if self._value is None:
            data = None
        else:
            data = exact_json.write(self._value)
        return _KEEP if data == self._original else data
