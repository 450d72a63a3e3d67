"""The interface's batches around a plain function."""

from __future__ import annotations

import inspect
import json
from enum import Flag, auto
from types import SimpleNamespace
from typing import Any, Callable, Iterable

from . import exact_json
from .columns import FailedRecord, Headers, Output, Routing, cells, column
from .errors import told
from .host import Err, take_prints
from .record import _KEEP, Header, Record


class _Needs(Flag):
    KEYS = auto()
    HEADERS = auto()
    POSITIONS = auto()


def transform(
    name: str,
    *,
    version: str = "0.0.0",
    needs: Iterable[str] = (),
    config_schema: dict[str, Any] | None = None,
    init: Callable[[Any], Any] | None = None,
    tombstones: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a function the transform of its module; the function itself stays as it is.

    It is called with a `Record` and, where it takes a second argument, the config of the pipeline file. It returns a
    record, a list of records, True (the record as it came), or None or False: the record is filtered out.

    - `needs`: what it wants to see beside topic and value: `keys`, `headers`, `positions`
    - `config_schema`: a JSON Schema (2020-12) for its config; `{}` takes any, without one it takes none
    - `init`: makes of the config what the function is given; what it raises is the reason why a pipeline does not start
    - `tombstones`: whether it is given records without a value too; otherwise they pass untouched
    """
    if not isinstance(name, str):
        raise TypeError('a transform is made with a name: @transform("mask_account")')
    wanted = _Needs(0)
    for need in needs:
        if need.upper() not in _Needs.__members__:
            raise TypeError(f"`needs` knows keys, headers and positions, not {need!r}")
        wanted |= _Needs[need.upper()]
    schema = "" if config_schema is None else json.dumps(config_schema)

    def made(change: Callable[..., Any]) -> Callable[..., Any]:
        # The builder looks for this class in the module that it is given.
        if "Batches" in change.__globals__:
            raise TypeError("a module has one transform")
        about = SimpleNamespace(name=name, version=version, needs=wanted, config_schema=schema)
        takes_config = len(inspect.signature(change).parameters) > 1

        batches = _Batches(about, change, init, tombstones, takes_config)

        # An instance is made for each call, so none of them keeps the config.
        class Batches:
            describe = staticmethod(batches.describe)
            init = staticmethod(batches.init)
            transform = staticmethod(batches.transform)

        change.__globals__["Batches"] = Batches
        return change

    return made


class _Batches:
    """What the interface asks for."""

    def __init__(
        self,
        about: SimpleNamespace,
        change: Callable[..., Any],
        prepare: Callable[[Any], Any] | None,
        tombstones: bool,
        takes_config: bool,
    ) -> None:
        self._about = about
        self._change = change
        self._prepare = prepare
        self._tombstones = tombstones
        self._takes_config = takes_config
        self._arguments: tuple[Any, ...] = ()

    def describe(self) -> SimpleNamespace:
        return self._about

    def init(self, config: str) -> None:
        # Not before: while a component is built, there is no log.
        take_prints()
        try:
            given = exact_json.read(config)
            if self._prepare is not None:
                given = self._prepare(given)
        except Exception as error:
            raise Err(str(error) or type(error).__name__) from error
        self._arguments = (given,) if self._takes_config else ()

    def transform(self, batch: Any) -> Output:
        rows = _Rows(batch, self._about.needs)
        for index, record in enumerate(rows.records()):
            if record._bytes is None and not self._tombstones:
                rows.keep(index)
                continue
            before = len(rows.sources)
            try:
                rows.take(index, self._change(record, *self._arguments))
            except Exception as error:
                rows.cut_to(before)
                rows.failures.append(FailedRecord(index, *told(error)))
        return rows.output()


class _Rows:
    """What becomes of a batch, cell by cell; `_KEEP` stands for what a row has from its record."""

    def __init__(self, batch: Any, needs: _Needs) -> None:
        self._needs = needs
        topics, topic_of = batch.topics, batch.topic_of
        self._old_values = cells(batch.values)
        self._old_topics = [topics[place] for place in topic_of] if topic_of else topics[:1] * len(self._old_values)
        self._old_keys = cells(batch.keys) if _Needs.KEYS in needs else []
        self._old_headers = _record_headers(batch.headers) if _Needs.HEADERS in needs else []
        self._batch = batch
        self.sources: list[int] = []
        self.failures: list[FailedRecord] = []
        self._topics: list[str] = []
        self._values: list[Any] = []
        self._keys: list[Any] = []
        self._headers: list[Any] = []

    def records(self) -> Iterable[Record]:
        read = Record._read
        if not self._needs:
            yield from map(read, self._old_topics, self._old_values)
            return
        batch = self._batch
        for index, (topic, data) in enumerate(zip(self._old_topics, self._old_values)):
            record = read(topic, data)
            if self._old_keys:
                record.key = self._old_keys[index]
            if self._old_headers:
                record.headers = list(self._old_headers[index])
            if _Needs.POSITIONS in self._needs:
                record.partition = batch.partitions[index]
                record.offset = batch.offsets[index]
                record.timestamp = batch.timestamps[index]
            yield record

    def keep(self, index: int) -> None:
        """The record as it came."""
        self._add(index, self._old_topics[index], _KEEP, _KEEP, _KEEP)

    def take(self, index: int, result: Any) -> None:
        if isinstance(result, Record):
            self._take_row(index, result)
        elif result is None or result is False:
            pass
        elif result is True:
            self.keep(index)
        elif isinstance(result, (list, tuple)) or inspect.isgenerator(result):
            for row in result:
                if not isinstance(row, Record):
                    raise TypeError(f"a transform returns a list of records, not of {type(row).__name__}")
                self._take_row(index, row)
        else:
            raise TypeError(
                f"a transform returns a record, a list of records, True, False or None, not a {type(result).__name__}"
            )

    def cut_to(self, length: int) -> None:
        for cells in (self.sources, self._topics, self._values, self._keys, self._headers):
            del cells[length:]

    def output(self) -> Output:
        return Output(
            sources=self.sources,
            keys=self._column(self._keys, self._old_keys, "keys"),
            values=self._column(self._values, self._old_values, "values"),
            routing=self._routing(),
            headers=self._header_columns(),
            failures=self.failures,
        )

    def _take_row(self, index: int, row: Record) -> None:
        if not isinstance(row.topic, str):
            raise TypeError("`topic` of a record is a str")
        topic = row.topic or self._old_topics[index]
        self._add(index, topic, row._written(), self._changed_key(index, row), self._changed_headers(index, row))

    def _changed_key(self, index: int, row: Record) -> Any:
        key = _cell(row.key)
        old = self._old_keys[index] if self._old_keys else None
        return _KEEP if key == old else key

    def _changed_headers(self, index: int, row: Record) -> Any:
        old = self._old_headers[index] if self._old_headers else []
        if row.headers == old:
            return _KEEP
        return [(str(name), _cell(value)) for name, value in row.headers]

    def _add(self, index: int, topic: str, value: Any, key: Any, headers: Any) -> None:
        self.sources.append(index)
        self._topics.append(topic)
        self._values.append(value)
        self._keys.append(key)
        self._headers.append(headers)

    def _column(self, new: list[Any], old: list[Any], what: str) -> Any:
        if all(cell is _KEEP for cell in new):
            return None
        self._must_see(new, old, what)
        return column(old[index] if cell is _KEEP else cell for index, cell in zip(self.sources, new))

    def _must_see(self, new: list[Any], old: list[Any], what: str) -> None:
        if not old and any(cell is _KEEP for cell in new):
            raise Err(f"some rows have new {what} and others keep theirs: write needs=[{what!r}]")

    def _header_columns(self) -> Headers | None:
        new = self._headers
        if all(headers is _KEEP for headers in new):
            return None
        self._must_see(new, self._old_headers, "headers")
        rows = [self._old_headers[index] if headers is _KEEP else headers for index, headers in zip(self.sources, new)]
        return Headers(
            counts=[len(headers) for headers in rows],
            names=column(name.encode() for headers in rows for name, _ in headers),
            values=column(value for headers in rows for _, value in headers),
        )

    def _routing(self) -> Routing | None:
        if all(topic == self._old_topics[index] for index, topic in zip(self.sources, self._topics)):
            return None
        topics = list(dict.fromkeys(self._topics))
        places = {topic: place for place, topic in enumerate(topics)}
        return Routing(topics, [places[topic] for topic in self._topics])


def _cell(text: bytes | str | None) -> bytes | None:
    """A key or a header's value."""
    if isinstance(text, str):
        return text.encode()
    if text is None or isinstance(text, bytes):
        return text
    raise TypeError("a key or the value of a header is bytes, a str or None")


def _record_headers(headers: Any) -> list[list[Header]]:
    pairs = zip(cells(headers.names), cells(headers.values))
    return [[Header((name or b"").decode(), value) for _, (name, value) in zip(range(count), pairs)] for count in headers.counts]
