"""The record by which the observers of a run tell one another: each entry has one writer and any readers."""

from dataclasses import dataclass, field
from typing import Any

from project.observe.ledger import CollectiveSpan
from project.observe.throughput import Lap


@dataclass(frozen=True)
class MeasuredStep:
    """One optimizer step. `done_ns` is when this rank was done, on the clock of all ranks; `seconds_of_ranks` says for
    each rank how long after the step's start it was done, `memory_of_ranks` its peak memory in bytes."""

    lap: Lap
    done_ns: int
    seconds_of_ranks: list[float]
    memory_of_ranks: list[float]


@dataclass
class RunRecord:
    """One for each run.

    Attributes:
        last_step: the last step, written by `StepMetrics`; None before the first or without that callback.
        collectives: the collectives of the last step that was counted, by the step's number, from `Communication`.
        summary: entries of `summary.json`, the same on every rank, from any callback; `RunSummary` writes the file.
    """

    last_step: MeasuredStep | None = None
    collectives: dict[int, list[CollectiveSpan]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
