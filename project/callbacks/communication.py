"""Counts what an optimizer step sends: `communication` of `summary.json`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from project.callbacks.first_steps import FirstSteps, watching
from project.callbacks.observed import ObservedStrategy, gathered
from project.observe.ledger import Ledger


class Communication(FirstSteps):
    """Reports the rank that sends most bytes, all axes together (the lowest of several); leaves every rank's own
    collectives in the record. See `observe.ledger` for axes and directions, `observe.message` for bytes."""

    ledger: Ledger

    def begin(self, strategy: ObservedStrategy) -> None:
        self.ledger = Ledger(strategy.mesh.axis_names())

    @contextmanager
    def measured(self, strategy: ObservedStrategy) -> Iterator[None]:
        with watching(strategy, self.ledger.forward), self.ledger:
            yield

    def entries(self, strategy: ObservedStrategy) -> dict[str, Any]:
        ranks = gathered((self.ledger.total_bytes, self.ledger.table()))
        _, table = max(ranks, key=lambda rank: rank[0])
        strategy.record.collectives = {self.done: self.ledger.collectives.spans}
        return {"communication": table}
