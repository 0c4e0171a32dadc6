"""Progress of training on standard output: a bar on a terminal, plain lines into a pipe or a file."""

import sys
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

FIGURES = {
    "train/loss": "loss {:.4f}",
    "train/tokens_per_second": "{:,.0f} tokens/s",
    "train/step_time_s": "{:.3f} s/step",
    "train/grad_norm": "grad norm {:.3f}",
    "train/expert_imbalance": "imbalance {:.2f}",
}
"""Logged metrics and how they are shown."""


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


class PlainProgress(StepProgress):
    """Plain lines, one every few steps."""

    def __init__(self, every_n_steps: int) -> None:
        super().__init__()
        self.every_n_steps = every_n_steps

    def show_step(self, step: int, total: int | None, figures: str) -> None:
        if step == 1 or step == total or step % self.every_n_steps == 0:
            self.print(f"step {step}{'' if total is None else f'/{total}'}  {figures}")

    def show_validation(self, step: int, loss: float) -> None:
        self.print(f"step {step}  validation loss {loss:.4f}")

    def print(self, *args: Any, **kwargs: Any) -> None:
        print(*args, **{"flush": True} | kwargs)


class BarWithFigures(Progress):
    """A bar, and under it a line with the last step's figures."""

    figures = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield Text(self.figures)


class BarProgress(StepProgress):
    """The bar, updated after every step."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self.console = console or Console()
        self.bar: BarWithFigures | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.enabled:
            columns = (
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(bar_width=None),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[validation]}"),
            )
            # Twice a second is often enough to see, and leaves the cores to the ranks.
            self.bar = BarWithFigures(*columns, console=self.console, refresh_per_second=2, expand=True)
            self.bar.add_task("training", total=total_steps(trainer), completed=self.last_step, validation="")
            self.bar.start()

    def show_step(self, step: int, total: int | None, figures: str) -> None:
        if self.bar is not None:
            self.bar.figures = figures
            self.bar.update(self.bar.task_ids[0], completed=step)

    def show_validation(self, step: int, loss: float) -> None:
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], validation=f"val loss {loss:.4f}")

    def print(self, *args: Any, **kwargs: Any) -> None:
        self.console.print(*args, **kwargs)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.bar is not None:
            self.bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Stops the bar and shows the cursor, also in the parent of forked ranks, which has no bar: rank 0 may have
        been killed with the cursor hidden."""
        if self.bar is not None:
            self.bar.stop()
        self.console.show_cursor()


def progress(every_n_steps: int) -> StepProgress:
    """Returns a bar on a terminal, and elsewhere plain lines, one every `every_n_steps` steps."""
    return BarProgress() if sys.stdout.isatty() else PlainProgress(every_n_steps)


def figures(trainer: L.Trainer) -> str:
    metrics = trainer.callback_metrics
    return "  ".join(form.format(float(metrics[name])) for name, form in FIGURES.items() if name in metrics)


def total_steps(trainer: L.Trainer) -> int | None:
    """Returns the run's optimizer steps; None where training has no end set."""
    total = trainer.estimated_stepping_batches
    return None if total == float("inf") else int(total)
