"""Measuring what costs too much to measure always: only a run's first optimizer steps are."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from project.callbacks.observed import ObservedStrategy, strategy_of
from project.engine.stage import Watch


class FirstSteps(Callback, ABC):
    """Measures each of the first `steps` that this process trains and keeps the last of them: in its first step a
    pipeline agrees on shapes, but a run may have no other.

    A step is its batches, each from `on_train_batch_start` to `on_train_batch_end`, without what Lightning does between
    them (its broadcast of whether it was told to stop, validation). So that other callbacks' work does not count
    either, this one stands before them.

    At a step's end its entries of `summary.json` are put into the run's record.
    """

    def __init__(self, steps: int = 2) -> None:
        self.steps = steps
        self.until = self.done = 0
        self.between = True
        self.entered = ExitStack()

    @abstractmethod
    def begin(self, strategy: ObservedStrategy) -> None:
        """Begins a step: forgets the one before."""

    @abstractmethod
    def measured(self, strategy: ObservedStrategy) -> AbstractContextManager:
        """Entered around each batch of a step."""

    @abstractmethod
    def entries(self, strategy: ObservedStrategy) -> dict[str, Any]:
        """Returns the step's entries of `summary.json`, the same on every rank; collective. `self.done` is the step."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.done, self.between = trainer.global_step, True
        self.until = self.done + self.steps

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step < self.until:
            if self.between:
                self.begin(strategy_of(trainer))
                self.between = False
            self.entered.enter_context(self.measured(strategy_of(trainer)))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.entered.close()
        if self.done < trainer.global_step <= self.until:
            self.done, self.between = trainer.global_step, True
            strategy_of(trainer).record.summary |= self.entries(strategy_of(trainer))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.entered.close()


@contextmanager
def watching(strategy: ObservedStrategy, watch: Watch) -> Iterator[None]:
    strategy.watchers.append(watch)
    try:
        yield
    finally:
        strategy.watchers.remove(watch)
