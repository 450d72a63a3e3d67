"""What goes wrong with a record."""

import json
from traceback import walk_tb

# Their messages speak of types and names. Those of others, such as ValueError and KeyError, quote the record's values,
# which may not be shown.
_TELLING = (TypeError, AttributeError, NameError, RecursionError, json.JSONDecodeError)


class Failure(Exception):
    """Raised for a record that cannot be transformed: it goes the way of bad records, the others go on.

    `code` is a short stable class, such as `account_missing`; `message` says what is wrong, without values of the
    record.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def told(error: Exception) -> tuple[str, str]:
    """Code and message of whatever a function has raised."""
    if isinstance(error, Failure):
        return str(error.code), str(error.message)
    what = type(error).__name__
    if isinstance(error, _TELLING):
        what = f"{what}: {error}"
    # Only what the frames themselves know: sources are not there to be read.
    places = [(frame.f_code, line) for frame, line in walk_tb(error.__traceback__)]
    own = [place for place in places if not _is_foreign(place[0].co_filename)]
    for code, line in (own or places)[-1:]:
        what += f" ({code.co_filename.rpartition('/')[2]}, line {line}, in {code.co_name})"
    return "exception", what


def _is_foreign(file: str) -> bool:
    """Whether a source file is not the transform's own."""
    return "/txconnect_transform/" in file or "/lib/python" in file or file.startswith("<frozen")
