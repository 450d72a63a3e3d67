"""What a transform is written with: see docs/transforms-python.md."""

from .errors import Failure
from .host import counter, log
from .record import Header, Record
from .transforms import transform

__all__ = ["Failure", "Header", "Record", "counter", "log", "transform"]
