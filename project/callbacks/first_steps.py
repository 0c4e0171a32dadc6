"""Measurements that cost too much to be taken always: only a run's first optimizer steps are measured."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from project.callbacks.observed import strategy_of
from project.engine.mesh import gathered
from project.engine.stage import Watch
from project.observe.ledger import Ledger
from project.observe.memory import Activations, bytes_held
from project.strategy.hybrid import HybridParallelStrategy


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
    def begin(self, strategy: HybridParallelStrategy) -> None:
        """Begins a step: forgets the one before."""

    @abstractmethod
    def measured(self, strategy: HybridParallelStrategy) -> AbstractContextManager:
        """Entered around each batch of a step."""

    @abstractmethod
    def entries(self, strategy: HybridParallelStrategy) -> dict[str, Any]:
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
def watching(strategy: HybridParallelStrategy, watch: Watch) -> Iterator[None]:
    strategy.step.watchers.append(watch)
    try:
        yield
    finally:
        strategy.step.watchers.remove(watch)


class Communication(FirstSteps):
    """Reports the rank that sends most bytes, all axes together (the lowest of several); leaves every rank's own
    collectives in the record. See `observe.ledger` for axes and directions, `observe.message` for bytes."""

    ledger: Ledger

    def begin(self, strategy: HybridParallelStrategy) -> None:
        self.ledger = Ledger(strategy.mesh.axis_names(), strategy.step.instants)

    @contextmanager
    def measured(self, strategy: HybridParallelStrategy) -> Iterator[None]:
        with watching(strategy, self.ledger.forward), self.ledger:
            yield

    def entries(self, strategy: HybridParallelStrategy) -> dict[str, Any]:
        ranks = gathered((self.ledger.total_bytes, self.ledger.table()))
        _, table = max(ranks, key=lambda rank: rank[0])
        spans = strategy.step.instants.read(self.ledger.collectives.spans)
        strategy.record.collectives = {self.done: spans}
        return {"communication": table}


class ActivationPeaks(FirstSteps):
    """Reports each stage's largest rank, in bytes."""

    activations: Activations

    def begin(self, strategy: HybridParallelStrategy) -> None:
        self.activations = Activations()

    def measured(self, strategy: HybridParallelStrategy) -> AbstractContextManager:
        return watching(strategy, self.activations.forward)

    def entries(self, strategy: HybridParallelStrategy) -> dict[str, Any]:
        ranks = gathered(self.activations.peaks)
        stages = range(strategy.layout.stages)
        return {"activation_bytes_peak_per_stage": [max(peaks.get(stage, 0) for peaks in ranks) for stage in stages]}


class MemoryCategories(Callback):
    """Measures the first optimizer step that this process takes: later ones keep the same. Gradients are there before
    the optimizer's step, its state after it. What comes and goes is measured by `ActivationPeaks`."""

    only_reads_gradients = True  # so that clipping needs no other norm

    def __init__(self) -> None:
        self.gradients: int | None = None
        self.done = False

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        if not self.done:
            gradients = (parameter.grad for parameter in pl_module.parameters())
            self.gradients = bytes_held(gradient for gradient in gradients if gradient is not None)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.done or self.gradients is None:
            return
        self.done = True
        state = chain.from_iterable(
            entry.values() for optimizer in trainer.optimizers for entry in optimizer.state.values()
        )
        here = {
            "weights": bytes_held(chain(pl_module.parameters(), pl_module.buffers())),
            "gradients": self.gradients,
            "optimizer": bytes_held(value for value in state if isinstance(value, Tensor)),
        }
        strategy_of(trainer).record.summary["memory_by_category_per_rank"] = gathered(here)
