"""A rank's record of a batch: when each action of each stage ran, and when the phases around the schedule did.

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
    """A named stretch of time that is no action of a stage."""

    name: str
    start_ns: int
    end_ns: int


class Phases:
    """Collects the phases since they were last taken."""

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
