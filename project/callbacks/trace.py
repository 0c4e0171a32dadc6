"""Writes `trace.json`: the actions, phases and collectives of every rank in the first and the last steps of a run."""

import time
from collections import deque
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as L
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import PassThroughProfiler, Profiler
from lightning.pytorch.utilities import rank_zero_warn

from project.callbacks.observed import strategy_of
from project.engine.clock import Clock
from project.engine.instants import Instants
from project.engine.stage import Phase, Phases, Span
from project.observe.ledger import CollectiveSpan
from project.observe.record import MeasuredStep
from project.observe.throughput import Median
from project.observe.tiling import RankStep
from project.observe.trace_file import write_trace
from project.spec.disk import NotWritten


class Trace(Callback):
    """Keeps the `first` steps that this process trains and the `last`, and forgets the others. Stands after the
    callbacks that measure a step and count its collectives, whose record it reads; without `StepMetrics` there is no
    trace. Written after the first step, after the first few, and at the end; a run that is killed leaves what was last
    written. `bubble` of `summary.json` is the median over the steps that were kept, a run's first two left out.

    On a GPU a step is recorded only if it is sure to be kept: the last ones are those of a run that takes `max_steps`.
    """

    def __init__(self, run_folder: str, first: int = 3, last: int = 3) -> None:
        self.path = Path(run_folder) / "trace.json"
        self.first, self.last = first, last
        self.kept: list[RankStep] = []
        self.recent: deque[RankStep] = deque(maxlen=last)
        self.step = 0
        self.spans: list[Span] = []
        self.phases: list[Phase] = []
        self.fetches = Phases(Instants())

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if isinstance(trainer.profiler, PassThroughProfiler):  # type: ignore[attr-defined]
            trainer.profiler = Fetches(self.fetches)  # type: ignore[attr-defined]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step = trainer.global_step
        self.fetches.take()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        strategy_of(trainer).step.instants.record(self.wants(trainer.global_step + 1, trainer.max_steps))

    def wants(self, step: int, steps: int) -> bool:
        """Returns whether the step is among the first, or the last of the `steps` asked for (-1: nobody knows how
        many)."""
        return len(self.kept) < self.first or 0 < steps < step + self.last

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        strategy = strategy_of(trainer)
        self.spans += strategy.step.take_spans()
        self.phases += strategy.step.phases.take()
        measured = strategy.record.last_step
        if measured is None or trainer.global_step == self.step:  # the latter: a batch that is accumulated
            return
        self.step = trainer.global_step
        if not strategy.step.instants.recording:
            self.fetches.noted.clear()
            return
        recorded = self.recorded(trainer, measured)
        if len(self.kept) == self.first:
            self.recent.append(recorded)
            return
        self.kept.append(recorded)
        if len(self.kept) in {1, self.first}:
            self.write(trainer)

    def recorded(self, trainer: L.Trainer, measured: MeasuredStep) -> RankStep:
        lap, done_ns = measured.lap, measured.done_ns
        clock, record = strategy_of(trainer).clock, strategy_of(trainer).record
        spans, phases = self.spans, [*self.phases, *self.fetches.take()]
        self.spans, self.phases = [], []
        around = [Phase("waiting", done_ns, lap.end_ns), *(Phase("validation", *pause) for pause in lap.pauses)]
        return RankStep(
            self.step,
            lap.seconds,
            lap.start_ns,
            lap.end_ns,
            done_ns,
            spans=on(clock, spans),
            phases=on(clock, phases) + around,
            collectives=on(clock, record.collectives.get(self.step, [])),
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.write(trainer)

    def write(self, trainer: L.Trainer) -> None:
        """Collective."""
        here = [*self.kept, *self.recent]
        if not here:
            return
        ranks = gathered_on_rank_0(here)
        if ranks is not None:
            try:
                steps = write_trace(self.path, list(zip(*ranks, strict=True)), strategy_of(trainer).layout)
            except NotWritten as error:  # it only shows
                rank_zero_warn(str(error))
                return
            median = Median()
            for entry in steps.values():
                if entry["bubble"] is not None:
                    median.add(entry["bubble"])
            strategy_of(trainer).record.summary["bubble"] = median.value


class Fetches(Profiler):
    """Notes the fetching of batches, of which Lightning tells its profiler alone."""

    def __init__(self, phases: Phases) -> None:
        super().__init__()
        self.phases, self.began = phases, 0

    def start(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self.began = time.time_ns()

    def stop(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self.phases.noted.append(Phase("data", self.began, time.time_ns()))


Timed = TypeVar("Timed", Span, Phase, CollectiveSpan)


def on(clock: Clock, timed: list[Timed]) -> list[Timed]:
    """Converts to the clock of all ranks."""
    return [one._replace(start_ns=clock.common(one.start_ns), end_ns=clock.common(one.end_ns)) for one in timed]


def gathered_on_rank_0(here: Any) -> list[Any] | None:
    if not dist.is_initialized():
        return [here]
    ranks: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(here, ranks)
    return ranks
