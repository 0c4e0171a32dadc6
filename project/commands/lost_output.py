"""Output that nobody reads any more: a closed terminal, a pipe whose reader has gone, a full disk under a log.

What only shows may not end a run.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class LossyStream:
    """A text stream that goes on, into nothing, where it can be written no more."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._attempt(self._stream.write, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        self._attempt(self._stream.writelines, lines)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, call: Callable, *args: Any) -> None:
        try:
            call(*args)
        except OSError:
            # What the stream still holds has to go somewhere: Python flushes it once more at its exit.
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)


@contextmanager
def output_may_be_lost() -> Iterator[None]:
    """Puts streams that may lose what is written in the place of standard output and standard error."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = LossyStream(sys.stdout), LossyStream(sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
