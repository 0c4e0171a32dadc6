"""What a rank remembers of a batch: which action of which stage ran when, and what went on around the schedule.

Times are `time.time_ns()`. On a GPU they are when work was queued.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Span(NamedTuple):
    """One action of a stage: `F` forward, `B` backward, or the two halves of one that is split, `I` of the inputs and
    `W` of the weights."""

    stage: int
    action: str
    microbatch: int
    start_ns: int
    end_ns: int


class Phase(NamedTuple):
    """Anything else that is worth a name."""

    name: str
    start_ns: int
    end_ns: int


class Phases:
    """Those since they were last taken."""

    def __init__(self) -> None:
        self.noted: list[Phase] = []

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        start = time.time_ns()
        try:
            yield
        finally:
            self.noted.append(Phase(name, start, time.time_ns()))

    def take(self) -> list[Phase]:
        taken, self.noted = self.noted, []
        return taken
