"""What txconnect offers a transform, with stand-ins where Python itself runs it, such as in its tests."""

import sys
from io import TextIOBase

try:
    from componentize_py_types import Err
    from wit_world.imports import host as _host
except ImportError:
    _host = None

    class Err(Exception):  # type: ignore[no-redef]
        """An error of the interface."""

        def __init__(self, value: str) -> None:
            super().__init__(value)
            self.value = value


class _Log:
    """Lines in the log of txconnect. Long lines are cut, and of very many only the first are written."""

    def debug(self, message: object) -> None:
        self._write("DEBUG", message)

    def info(self, message: object) -> None:
        self._write("INFO", message)

    def warn(self, message: object) -> None:
        self._write("WARN", message)

    def error(self, message: object) -> None:
        self._write("ERROR", message)

    def _write(self, level: str, message: object) -> None:
        if _host is None:
            print(f"{level}: {message}", file=sys.stderr)
        else:
            _host.log(_host.Level[level], str(message))


log = _Log()


class _Printed(TextIOBase):
    """Lines that are printed, on their way into the log."""

    def __init__(self, level: str) -> None:
        self._level = level
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            log._write(self._level, line)
        return len(text)


def take_prints() -> None:
    """Lets `print` write to the log of txconnect: a component has nowhere else to write to."""
    if _host is not None:
        sys.stdout, sys.stderr = _Printed("INFO"), _Printed("WARN")


def counter(name: str, delta: int = 1) -> None:
    """Adds to a counter of the pipeline. At most 64 names count, each of at most 64 bytes."""
    if _host is not None:
        _host.counter(name, delta)
