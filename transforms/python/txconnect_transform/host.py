"""What txconnect offers a transform, with stand-ins where Python itself runs it, such as in its tests."""

import sys

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


def counter(name: str, delta: int = 1) -> None:
    """Adds to a counter of the pipeline. At most 64 names count, each of at most 64 bytes."""
    if _host is not None:
        _host.counter(name, delta)
