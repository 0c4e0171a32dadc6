"""The contents of a progress display; its subclasses say how they are shown."""

from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import ProgressBar

# What is logged, and how it is shown.
FIGURES = {
    "train/loss": "loss {:.4f}",
    "train/tokens_per_second": "{:,.0f} tokens/s",
    "train/step_time_s": "{:.3f} s/step",
    "train/grad_norm": "grad norm {:.3f}",
    "train/expert_imbalance": "imbalance {:.2f}",
}


class StepProgress(ProgressBar):
    """Counts optimizer steps; a subclass shows them by `show_step` and `show_validation`."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.last_step = 0

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def show_step(self, step: int, total: int | None, figures: str) -> None:
        raise NotImplementedError

    def show_validation(self, step: int, loss: float) -> None:
        raise NotImplementedError

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.enabled and trainer.global_step > self.last_step:
            self.last_step = trainer.global_step
            self.show_step(self.last_step, total_steps(trainer), figures(trainer))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")
        if self.enabled and not trainer.sanity_checking and loss is not None:
            self.show_validation(trainer.global_step, float(loss))


def figures(trainer: L.Trainer) -> str:
    metrics = trainer.callback_metrics
    return "  ".join(form.format(float(metrics[name])) for name, form in FIGURES.items() if name in metrics)


def total_steps(trainer: L.Trainer) -> int | None:
    """Returns the run's optimizer steps; None where training has no end set."""
    total = trainer.estimated_stepping_batches
    return None if total == float("inf") else int(total)
