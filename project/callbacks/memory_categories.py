"""Measures what each rank keeps from step to step, in bytes: `memory_by_category_per_rank` of `summary.json`."""

from itertools import chain
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from project.callbacks.observed import gathered, strategy_of
from project.observe.memory import bytes_held


class MemoryCategories(Callback):
    """Measures the first optimizer step that this process takes: later ones keep the same. Gradients are there before
    the optimizer's step, its state after it. What comes and goes is measured by `ActivationPeaks`."""

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
