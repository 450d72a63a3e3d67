"""JSON that loses no digit: numbers with a point or an exponent are `Decimal`."""

import json
from decimal import Decimal
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, Callable


class _HasDecimals(Exception):
    """Python's writer has come to a `Decimal`, for which it has no words."""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _default(value: object) -> None:
    if isinstance(value, Decimal):
        raise _HasDecimals
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


_decoder = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_constant)
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default)
_ascii_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_default)

read: Callable[[str], Any] = _decoder.decode


def write(value: Any) -> bytes:
    """A value as JSON. Raises `TypeError` or `ValueError` where it is none."""
    try:
        return _written(value, _encoder, encode_basestring).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair can only be written with a backslash.
        return _written(value, _ascii_encoder, encode_basestring_ascii).encode()


def _written(value: Any, encoder: json.JSONEncoder, quoted: Callable[[str], str]) -> str:
    try:
        return encoder.encode(value)
    except _HasDecimals:
        parts: list[str] = []
        _append(value, parts.append, encoder, quoted)
        return "".join(parts)


def _append(value: Any, append: Callable[[str], None], encoder: json.JSONEncoder, quoted: Callable[[str], str]) -> None:
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError("a Decimal that is not finite cannot be written as JSON")
        append(str(value))
    elif isinstance(value, dict):
        before = "{"
        for key, item in value.items():
            append(before)
            append(quoted(key if isinstance(key, str) else _key(key)))
            append(":")
            _append(item, append, encoder, quoted)
            before = ","
        append("}" if value else "{}")
    elif isinstance(value, (list, tuple)):
        before = "["
        for item in value:
            append(before)
            _append(item, append, encoder, quoted)
            before = ","
        append("]" if value else "[]")
    elif isinstance(value, str):
        append(quoted(value))
    else:
        append(encoder.encode(value))


def _key(key: Any) -> str:
    """As Python's writer turns keys into texts."""
    if key is None or isinstance(key, (bool, int, float)):
        return _encoder.encode(key)
    raise TypeError(f"a key of a JSON object is a str, not a {type(key).__name__}")
